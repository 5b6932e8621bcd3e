import dataclasses
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors import safe_open

from rollmill.model.checkpoint import load_model
from rollmill.model.config import ModelConfig
from rollmill.model.model import Model
from rollmill.model.tokenizer import Tokenizer
from rollmill.model.train.config import TrainConfig
from rollmill.model.train.loop import TrainingDiverged, train
from rollmill.model.train.losses import next_token_loss
from rollmill.model.train.packing import pack
from rollmill.model.train.run_folder import RunMismatch, StepMetrics, read_metrics
from rollmill.model.train.samples import Sample

CONFIG = TrainConfig(
    steps=12,
    batch_tokens=256,
    max_sample_tokens=64,
    lr=1e-2,
    warmup_steps=2,
    checkpoint_every=3,
    validate_every=4,
)


def fresh(tiny: ModelConfig) -> Model:
    torch.manual_seed(7)
    return Model(tiny)


def curve(folder: Path) -> list[tuple[int, float, float | None, float]]:
    metrics = read_metrics(folder / "metrics.jsonl")
    return [(each.step, each.loss, each.validation_loss, each.grad_norm) for each in metrics]


class Stop(Exception):
    pass


def stop_at(step: int) -> Callable[[StepMetrics], None]:
    def progress(metrics: StepMetrics) -> None:
        if metrics.step == step:
            raise Stop

    return progress


@pytest.mark.parametrize(
    ("dtype", "stopped_at"), [("float32", 1), ("float32", 6), ("float32", 12), ("bfloat16", 7)]
)
def test_a_stopped_run_goes_on_bit_for_bit(
    tiny: ModelConfig,
    tokenizer: Tokenizer,
    samples: list[Sample],
    tmp_path: Path,
    dtype: Literal["float32", "bfloat16"],
    stopped_at: int,
) -> None:
    config = dataclasses.replace(CONFIG, dtype=dtype)
    held_out = samples[:4]
    whole = train(config, fresh(tiny), tokenizer, samples, tmp_path / "a", validation=held_out)
    with pytest.raises(Stop):
        train(
            config,
            fresh(tiny),
            tokenizer,
            samples,
            tmp_path / "b",
            validation=held_out,
            progress=stop_at(stopped_at),
        )
    torch.manual_seed(7)
    resumed = train(config, fresh(tiny), tokenizer, samples, tmp_path / "b", validation=held_out)
    assert curve(tmp_path / "b") == curve(tmp_path / "a")
    assert (resumed / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()


KILLED = """
import os, pickle, signal, sys
import torch
from rollmill.model.model import Model
from rollmill.model.train.loop import train

torch.set_num_threads(1)
config, tiny, tokenizer, samples, out = pickle.load(sys.stdin.buffer)
torch.manual_seed(7)

def progress(metrics):
    if metrics.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)

train(config, Model(tiny), tokenizer, samples, out, progress=progress)
"""


def test_a_killed_run_goes_on_bit_for_bit(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    train(CONFIG, fresh(tiny), tokenizer, samples, tmp_path / "a")
    task = pickle.dumps((CONFIG, tiny, tokenizer, samples, tmp_path / "b"))
    killed = subprocess.run([sys.executable, "-c", KILLED], input=task, check=False)
    assert killed.returncode == -signal.SIGKILL
    train(CONFIG, fresh(tiny), tokenizer, samples, tmp_path / "b")
    assert curve(tmp_path / "b") == curve(tmp_path / "a")


def test_it_learns_a_tiny_dataset(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, steps=150, checkpoint_every=100, validate_every=1000)
    few = samples[:8]
    result = train(config, fresh(tiny), tokenizer, few, tmp_path, validation=few)
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert metrics[0].loss > 4
    assert metrics[-1].loss < 0.5
    with torch.no_grad():
        loss = float(next_token_loss(load_model(result), pack(few)))
    assert loss == pytest.approx(metrics[-1].validation_loss, rel=1e-4)


def test_only_learned_tokens_count_in_the_loss(tiny: ModelConfig, samples: list[Sample]) -> None:
    model = fresh(tiny)
    half = [
        Sample(ids=sample.ids, trainable=np.arange(len(sample)) % 2 == 1) for sample in samples[:3]
    ]
    batch = pack(half)
    logprobs = model(batch.tokens, batch.seq_lens).log_softmax(-1)
    picked = logprobs.gather(1, batch.targets[:, None]).squeeze(1)[batch.mask]
    loss = next_token_loss(model, batch)
    assert loss.item() == pytest.approx(-picked.mean().item(), rel=1e-5)


def test_the_result_has_published_names_and_a_loss_curve(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    result = train(CONFIG, fresh(tiny), tokenizer, samples, tmp_path)
    assert {path.name for path in result.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    with safe_open(result / "model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
    assert "model.layers.1.block_sparse_moe.experts.3.w2.weight" in names
    assert Tokenizer.load(result).fingerprint == tokenizer.fingerprint
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    steps = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert steps == ["step-0000009", "step-0000012"]


def test_the_router_bias_evens_out_the_experts(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    def last_load(speed: float) -> float:
        config = dataclasses.replace(CONFIG, steps=30, router_bias_speed=speed)
        model = fresh(tiny)
        with torch.no_grad():  # one expert starts as everyone's favourite
            for layer in model.model.decoder_layers():
                layer.block_sparse_moe.e_score_correction_bias[0] = 0.5
        out = tmp_path / str(speed)
        train(config, model, tokenizer, samples, out)
        return float(np.mean([m.expert_load for m in read_metrics(out / "metrics.jsonl")[-10:]]))

    assert last_load(4e-2) < 1.6 < last_load(1e-9)


@pytest.mark.parametrize(
    ("change", "named"), [({"lr": 5e-3}, "config.lr"), ({"seed": 3}, "config.seed, data")]
)
def test_a_folder_of_another_run_is_refused(
    tiny: ModelConfig,
    tokenizer: Tokenizer,
    samples: list[Sample],
    tmp_path: Path,
    change: dict[str, Any],
    named: str,
) -> None:
    train(dataclasses.replace(CONFIG, steps=2), fresh(tiny), tokenizer, samples, tmp_path)
    config = dataclasses.replace(CONFIG, steps=2, **change)
    with pytest.raises(RunMismatch, match=f"other values for {named};"):
        train(config, fresh(tiny), tokenizer, samples, tmp_path)


def test_a_loss_that_is_not_a_number_names_the_step_and_keeps_the_checkpoint(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    model = fresh(tiny)

    def poison(metrics: StepMetrics) -> None:
        if metrics.step == 7:
            model.lm_head.weight.data.fill_(float("nan"))

    with pytest.raises(
        TrainingDiverged, match=r"loss at step 8, got nan; the checkpoint of step 6"
    ):
        train(CONFIG, model, tokenizer, samples, tmp_path, progress=poison)
    load_model(tmp_path / "checkpoints" / "step-0000006")


def test_an_empty_dataset_is_refused_before_a_folder_is_made(
    tiny: ModelConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="expected samples with tokens to learn"):
        train(CONFIG, fresh(tiny), tokenizer, [], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_larger_than_the_model_is_refused(
    tiny: ModelConfig, samples: list[Sample], tmp_path: Path
) -> None:
    large = Tokenizer.train(["abcdefgh" * 9, "the quick brown fox jumps " * 99] * 9, 300)
    small = dataclasses.replace(tiny, vocab_size=large.vocab_size - 1)
    with pytest.raises(ValueError, match="expected a tokenizer of at most"):
        train(CONFIG, Model(small), large, samples, tmp_path / "run")


def test_a_torn_line_and_a_half_written_checkpoint_are_owed_again(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    train(CONFIG, fresh(tiny), tokenizer, samples, tmp_path / "a")
    with pytest.raises(Stop):
        train(
            CONFIG,
            fresh(tiny),
            tokenizer,
            samples,
            tmp_path / "b",
            progress=stop_at(7),
        )
    (tmp_path / "b/checkpoints/.step-0000009").mkdir()
    with (tmp_path / "b/metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 8})[:-3])
    train(CONFIG, fresh(tiny), tokenizer, samples, tmp_path / "b")
    assert curve(tmp_path / "b") == curve(tmp_path / "a")


def test_samples_beyond_the_context_are_refused(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, max_sample_tokens=65)
    with pytest.raises(ValueError, match="max_sample_tokens of at most 64"):
        train(config, fresh(tiny), tokenizer, samples, tmp_path / "run")
