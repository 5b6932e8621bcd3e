import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from rollmill.model.config import ModelConfig
from rollmill.model.model import Model
from rollmill.model.mtp import MtpModules

# What the published checkpoint says, the long lists shortened.
PUBLISHED: dict[str, Any] = {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "attn_type_list": [1] * 62,
    "auto_map": {"AutoConfig": "configuration_minimax_m2.MiniMaxM2Config"},
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "intermediate_size": 1536,
    "max_position_embeddings": 196608,
    "model_type": "minimax_m2",
    "mtp_transformer_layers": 1,
    "num_attention_heads": 48,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 62,
    "num_key_value_heads": 8,
    "num_local_experts": 256,
    "num_mtp_modules": 3,
    "qk_norm_type": "per_layer",
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "rms_norm_eps": 1e-06,
    "rope_theta": 5000000,
    "rotary_dim": 64,
    "scoring_func": "sigmoid",
    "shared_intermediate_size": 0,
    "tie_word_embeddings": False,
    "use_cache": True,
    "use_mtp": True,
    "use_qk_norm": True,
    "use_routing_bias": True,
    "vocab_size": 200064,
}


def test_the_published_config_loads() -> None:
    config = ModelConfig.from_dict(PUBLISHED)
    assert (config.hidden_size, config.rotary_dim, config.num_local_experts) == (3072, 64, 256)
    assert config.rope_theta == 5e6


def test_what_we_save_we_load_and_transformers_loads(
    make_config: Callable[..., ModelConfig], tmp_path: Path
) -> None:
    config = make_config(eos_token_id=7, rope_theta=1e4)
    config.save(tmp_path / "config.json")
    assert ModelConfig.load(tmp_path) == config
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "MiniMaxM2Config"
    assert theirs.num_experts_per_tok == config.num_experts_per_tok
    assert theirs.rope_parameters["partial_rotary_factor"] == 0.5
    assert theirs.rope_parameters["rope_theta"] == 1e4


def test_what_transformers_saves_we_load(
    make_config: Callable[..., ModelConfig], tmp_path: Path
) -> None:
    config = make_config(pad_token_id=1, bos_token_id=2, eos_token_id=3)
    transformers.MiniMaxM2Config(**json.loads(config.to_json())).save_pretrained(tmp_path)
    assert ModelConfig.load(tmp_path) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"shared_intermediate_size": 8}, "shared_intermediate_size"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"qk_norm_type": "per_head"}, "qk_norm_type"),
        ({"model_type": "llama"}, "only MiniMax-M2"),
        ({"attn_type_list": [1, 0]}, "full attention"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "yarn"),
        ({"hidden_size": "big"}, "whole number for hidden_size, got 'big'"),
        ({"hidden_size": None}, "without .*hidden_size"),
        ({"num_key_value_heads": 7}, "multiple of num_key_value_heads"),
        ({"rotary_dim": 129}, "rotary_dim"),
        ({"num_experts_per_tok": 257}, "num_experts_per_tok"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be positive"),
        ({"eos_token_id": 200064}, "eos_token_id"),
        ({"use_qk_norm": 1.5}, "use_qk_norm"),
        ({"attn_type_list": 5}, "attn_type_list, got 5"),
        ({"rope_parameters": "x"}, "an object as rope_parameters, got 'x'"),
        ({"rope_parameters": {"rope_theta": "x"}}, "finite number for rope_theta, got 'x'"),
        ({"rope_theta": float("inf")}, "finite number for rope_theta, got inf"),
        ({"rms_norm_eps": float("nan")}, "finite number for rms_norm_eps, got nan"),
        ({"rope_theta": 10**400}, "finite number for rope_theta"),
        ({"vocab_size": 10**30}, "vocab_size must be below"),
    ],
    ids=str,
)
def test_another_architecture_or_size_is_refused_by_name(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict(PUBLISHED | change)


STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    float("inf"),
    "x",
    [],
    {},
    [1],
    {"a": 1},
    [[1]],
    10**400,
)


@pytest.mark.parametrize("key", [*PUBLISHED, "rope_parameters", "eos_token_id", "rope_scaling"])
def test_no_value_of_a_key_fails_in_another_way_than_by_name(key: str) -> None:
    base = {name: value for name, value in PUBLISHED.items() if name != "rotary_dim"}
    for value in STRANGE:
        for raw in (PUBLISHED, base):
            try:
                config = ModelConfig.from_dict(raw | {key: value})
            except ValueError as error:
                assert len(str(error)) > 20  # noqa: PT017
            else:
                assert config.rope_theta < float("inf")


@pytest.mark.parametrize("factor", ["x", None, [1]])
def test_a_share_of_the_head_that_is_no_number_is_refused(factor: object) -> None:
    raw = PUBLISHED | {"rope_parameters": {"partial_rotary_factor": factor}}
    del raw["rotary_dim"]
    with pytest.raises(ValueError, match="finite number for partial_rotary_factor"):
        ModelConfig.from_dict(raw)


def test_an_absent_list_of_attentions_means_full_attention() -> None:
    assert ModelConfig.from_dict(PUBLISHED | {"attn_type_list": None}).num_hidden_layers == 62


@pytest.mark.parametrize("text", ["{", "[]", '"x"'])
def test_a_torn_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        ModelConfig.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "context"),
    [({}, 196_608), ({"max_position_embeddings": 204_800}, 204_800)],
    ids=["M2 and M2.5", "M2.7"],
)
def test_the_published_sizes_hold_the_published_parameters(
    changes: dict[str, Any], context: int
) -> None:
    config = ModelConfig.from_dict(PUBLISHED | changes)
    with torch.device("meta"):
        model = Model(config)
        module = MtpModules(config).modules_by_depth()[0]
    assert config.max_position_embeddings == context
    counts = {name: param.numel() for name, param in model.named_parameters()}
    total = sum(counts.values())
    outside = counts["model.embed_tokens.weight"] + counts["lm_head.weight"]
    experts = sum(count for name, count in counts.items() if ".experts." in name)
    share = config.num_experts_per_tok / config.num_local_experts
    active = total - outside - experts + round(experts * share)
    assert round(total / 1e9, 2) == 228.69
    assert round(active / 1e9, 2) == 9.80
    assert round((active + outside) / 1e9, 2) == 11.03
    assert round(sum(each.numel() for each in module.parameters()) / 1e9, 2) == 3.69
    assert all(param.device.type == "meta" for param in model.parameters())


def test_a_config_that_switches_mtp_off_has_no_modules() -> None:
    assert ModelConfig.from_dict(PUBLISHED).num_mtp_modules == 3
    assert ModelConfig.from_dict(PUBLISHED | {"use_mtp": False}).num_mtp_modules == 0
    with pytest.raises(ValueError, match="mtp_transformer_layers = 1, got 2"):
        ModelConfig.from_dict(PUBLISHED | {"mtp_transformer_layers": 2})
