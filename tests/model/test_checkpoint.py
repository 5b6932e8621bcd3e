from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from rollmill.model.checkpoint import (
    CheckpointError,
    load_model,
    load_weights,
    save_checkpoint,
)
from rollmill.model.config import ModelConfig
from rollmill.model.model import Model

MakeConfig = Callable[..., ModelConfig]
EXPERT = "model.layers.1.block_sparse_moe.experts.6.w1.weight"


@pytest.fixture
def model(make_config: MakeConfig) -> Model:
    """No router bias is zero, so that a lost one shows."""
    torch.manual_seed(0)
    model = Model(make_config())
    model.update_router_bias(torch.randint(0, 9, (2, 7)), 0.25)
    return model


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    save_checkpoint(model, tmp_path)
    return tmp_path


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_the_names_on_disk_are_the_published_ones(saved: Path) -> None:
    names = set(load_file(saved / "model.safetensors"))
    layer = "model.layers.0."
    assert {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        layer + "self_attn.q_norm.weight",
        layer + "block_sparse_moe.gate.weight",
        layer + "block_sparse_moe.e_score_correction_bias",
        layer + "block_sparse_moe.experts.0.w2.weight",
        layer + "block_sparse_moe.experts.6.w3.weight",
    } <= names
    assert len(names) == 3 + 2 * (4 + 2 + 2 + 2 + 3 * 7)


def test_what_we_save_we_load(model: Model, saved: Path) -> None:
    loaded = load_model(saved).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_transformers_reads_what_we_write(model: Model, saved: Path) -> None:
    theirs, info = cast(
        tuple[torch.nn.Module, dict[str, Any]],
        transformers.AutoModelForCausalLM.from_pretrained(
            saved, dtype=torch.float32, output_loading_info=True
        ),
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = torch.randint(0, 97, (63,))
    torch.testing.assert_close(
        model(tokens, [63]), theirs(tokens[None]).logits[0], rtol=1e-4, atol=1e-4
    )


def test_we_read_what_transformers_writes(model: Model, saved: Path, tmp_path: Path) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 1
    loaded = load_model(tmp_path / "theirs").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_bf16_on_disk_rounds_the_weights_but_not_the_bias(model: Model, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path, torch.bfloat16)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored[EXPERT].dtype == torch.bfloat16
    loaded = load_model(tmp_path, torch.bfloat16)
    assert {param.dtype for param in loaded.parameters()} == {torch.bfloat16}
    bias = loaded.model.decoder_layers()[0].block_sparse_moe.e_score_correction_bias
    assert bias.dtype == torch.float32
    assert bias.any()


def test_a_missing_tensor_is_named(saved: Path) -> None:
    edit(saved, lambda tensors: tensors.pop(EXPERT))
    with pytest.raises(CheckpointError, match=EXPERT):
        load_model(saved)


def test_an_unknown_tensor_is_named(saved: Path) -> None:
    edit(saved, lambda tensors: tensors.update({"model.mtp.weight": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"no model\.mtp\.weight"):
        load_model(saved)


def test_a_misshapen_tensor_is_named_with_both_shapes(saved: Path) -> None:
    edit(saved, lambda tensors: tensors.update({EXPERT: torch.zeros(36, 61)}))
    with pytest.raises(CheckpointError, match=r"\[36, 60\].*\[36, 61\].*experts\.6\.w1"):
        load_model(saved)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(poison: float, saved: Path) -> None:
    edit(saved, lambda tensors: tensors[EXPERT].view(-1)[5].fill_(poison))
    with pytest.raises(CheckpointError, match="finite weights"):
        load_model(saved)


def test_fp8_weights_are_refused(saved: Path) -> None:
    edit(
        saved, lambda tensors: tensors.update({EXPERT: torch.zeros(36, 60).to(torch.float8_e4m3fn)})
    )
    with pytest.raises(CheckpointError, match="dequantise"):
        load_model(saved)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_torn_file_is_named(keep: int, saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"damaged .*model\.safetensors"):
        load_model(saved)


def test_a_folder_without_weights_is_named(saved: Path, model: Model) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="found none"):
        load_weights(model, saved)


def test_saving_again_replaces_the_old_weights(model: Model, saved: Path) -> None:
    with torch.no_grad():
        model.lm_head.weight.zero_()
    save_checkpoint(model, saved)
    assert not load_model(saved).lm_head.weight.any()
