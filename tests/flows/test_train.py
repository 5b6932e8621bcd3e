"""What `train sft` starts from, and what it hands to the trainer."""

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet as pq

from rollmill.flows.config import ConfigError, SftConfig, load_config
from rollmill.flows.train import _first_modules, _first_weights, _train_config, train_sft
from rollmill.model.checkpoint import load_model, load_mtp, save_checkpoint
from rollmill.model.config import ModelConfig
from rollmill.model.model import Model
from rollmill.model.mtp import MtpModules
from rollmill.model.tokenizer import Tokenizer
from rollmill.model.train.config import TrainConfig
from rollmill.model.train.run_folder import read_metrics

TINY = ModelConfig(
    vocab_size=300,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    rotary_dim=8,
    intermediate_size=16,
    num_local_experts=4,
    num_experts_per_tok=2,
    max_position_embeddings=128,
    num_mtp_modules=2,
)


def config(**changes: Any) -> SftConfig:
    return SftConfig(data=("a",), out=Path("b"), **changes)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A model with two MTP modules."""
    folder = tmp_path / "checkpoint"
    torch.manual_seed(0)
    save_checkpoint(Model(TINY), folder, mtp=MtpModules(TINY))
    Tokenizer.train(["hello there"], 300).save(folder / "tokenizer.json")
    return folder


def test_a_broken_checkpoint_to_start_from_is_bad_input_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"attn_type_list": 5}')
    Tokenizer.train(["abc"], 300).save(tmp_path / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"cannot start from .*config\.json: .*attn_type_list"):
        _first_weights(str(tmp_path))


def test_every_setting_of_the_trainer_that_has_a_name_here_reaches_it() -> None:
    changes: dict[str, Any] = {
        "steps": 7,
        "batch_tokens": 4096,
        "micro_batches": 3,
        "max_sample_tokens": 99,
        "lr": 0.5,
        "warmup_steps": 3,
        "dtype": "bfloat16",
        "fp32_head": True,
        "checkpoint_activations": True,
        "mtp_weight": 0.4,
        "mtp_final_weight": 0.2,
        "mtp_only_steps": 2,
        "seed": 9,
        "checkpoint_every": 11,
    }
    assert changes.keys() == SftConfig.model_fields.keys() & {
        each.name for each in dataclasses.fields(TrainConfig)
    }
    made = _train_config(config(mtp_modules=1, **changes))
    assert {name: getattr(made, name) for name in changes} == changes


def test_modules_are_those_of_the_checkpoint_then_copies(checkpoint: Path) -> None:
    model, _ = _first_weights(str(checkpoint))
    own = load_mtp(checkpoint)
    assert own is not None
    assert _first_modules(config(init=str(checkpoint)), model) is None
    grown = _first_modules(config(init=str(checkpoint), mtp_modules=3), model)
    assert grown is not None
    first, second, third = (each.state_dict() for each in grown.modules_by_depth())
    for name, weight in own.modules_by_depth()[0].state_dict().items():
        assert torch.equal(first[name], weight)
        assert torch.equal(third[name], weight)
    assert not torch.equal(first["proj.weight"], second["proj.weight"])
    with pytest.raises(ConfigError, match="expected to expand 2 modules to 2 to 3, got 1"):
        _first_modules(config(init=str(checkpoint), mtp_modules=1), model)
    new = _first_modules(config(init="scratch", mtp_modules=1), model)
    assert new is not None
    last = model.model.decoder_layers()[-1].self_attn.q_proj.weight
    assert torch.equal(new.modules_by_depth()[0].block.self_attn.q_proj.weight, last)


def test_steps_for_modules_alone_need_modules() -> None:
    flags = {"data": ["a"], "out": "b", "mtp_only_steps": 3}
    with pytest.raises(ConfigError, match="needs mtp_modules, got 3 with 0 modules"):
        load_config(SftConfig, flags, None)
    assert load_config(SftConfig, flags | {"mtp_modules": 1}, None).mtp_only_steps == 3


@pytest.mark.parametrize("ranks", [1, 2])
def test_modules_and_micro_batches_are_trained_and_saved(
    checkpoint: Path, tmp_path: Path, ranks: int
) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}]
    (tmp_path / "set/data").mkdir(parents=True)
    rows = pa.Table.from_pylist([{"outcome": "pass", "messages": messages}] * 4)
    pq.write_table(rows, tmp_path / "set/data/train-0.parquet")
    done = train_sft.fn(
        SftConfig(
            data=(str(tmp_path / "set"),),
            out=tmp_path / "run",
            init=str(checkpoint),
            steps=3,
            batch_tokens=128,
            max_sample_tokens=128,
            micro_batches=2,
            mtp_modules=3,
            mtp_only_steps=1,
            checkpoint_activations=True,
            dtype="bfloat16",
            fp32_head=True,
            device="cpu",
            ranks=ranks,
        )
    )
    assert load_model(Path(done["model"])).config.num_mtp_modules == 3
    assert load_mtp(Path(done["model"])) is not None
    metrics = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [each.mtp_loss is not None for each in metrics] == [True] * 3
