import dataclasses
import json
import pickle
import shutil
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
from torch.utils.flop_counter import FlopCounterMode

from rollmill.model.checkpoint import load_model, load_mtp
from rollmill.model.config import ModelConfig
from rollmill.model.model import Model
from rollmill.model.mtp import MtpModules
from rollmill.model.tokenizer import Tokenizer
from rollmill.model.train.config import TrainConfig
from rollmill.model.train.flops import step_flops
from rollmill.model.train.loop import TrainingDiverged, train
from rollmill.model.train.losses import mtp_weight, next_token_loss
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


def test_micro_batches_equal_one_large_batch(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    # One sample a batch, so that two runs group the same order differently.
    equal = [sample for sample in samples if len(sample) == len(samples[0])][:6]
    length = len(equal[0])
    base = dataclasses.replace(
        CONFIG, steps=3, max_sample_tokens=length, batch_tokens=2 * length, router_bias_speed=1e-9
    )
    small = dataclasses.replace(base, batch_tokens=length, micro_batches=2)
    train(base, fresh(tiny), tokenizer, equal, tmp_path / "large")
    train(small, fresh(tiny), tokenizer, equal, tmp_path / "small")
    large, added = curve(tmp_path / "large"), curve(tmp_path / "small")
    assert [each[1] for each in added] == pytest.approx([each[1] for each in large], rel=1e-4)
    assert [each[3] for each in added] == pytest.approx([each[3] for each in large], rel=1e-3)


def test_checkpointed_activations_change_no_bit(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, steps=4)
    train(config, fresh(tiny), tokenizer, samples, tmp_path / "kept")
    again = dataclasses.replace(config, checkpoint_activations=True)
    train(again, fresh(tiny), tokenizer, samples, tmp_path / "again")
    assert curve(tmp_path / "kept") == curve(tmp_path / "again")


def test_a_head_in_fp32_stays_so_and_trains(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, steps=4, dtype="bfloat16", fp32_head=True)
    model = fresh(tiny)
    before = model.lm_head.weight.detach().clone()
    train(config, model, tokenizer, samples, tmp_path)
    types = {name: param.dtype for name, param in model.named_parameters()}
    assert types.pop("lm_head.weight") == torch.float32
    assert set(types.values()) == {torch.bfloat16}
    assert not torch.equal(model.lm_head.weight, before)
    assert (model.lm_head.weight != model.lm_head.weight.bfloat16()).any()


def mtp_run(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], out: Path, **changes: Any
) -> tuple[Model, MtpModules]:
    model = fresh(tiny)
    mtp = MtpModules(dataclasses.replace(tiny, num_mtp_modules=2))
    config = dataclasses.replace(CONFIG, **changes)
    train(config, model, tokenizer, samples, out, mtp=mtp)
    return model, mtp


def test_mtp_modules_learn_beside_the_model_and_resume(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    _, mtp = mtp_run(tiny, tokenizer, samples[:8], tmp_path / "a", steps=60, checkpoint_every=20)
    losses = [each.mtp_loss for each in read_metrics(tmp_path / "a/metrics.jsonl")]
    first, last = losses[0], losses[-1]
    assert first is not None
    assert last is not None
    assert last < 0.7 * first
    written = load_mtp(tmp_path / "a" / "model")
    assert written is not None
    for name, tensor in mtp.state_dict().items():
        assert torch.equal(written.state_dict()[name], tensor), name
    shutil.rmtree(tmp_path / "a/checkpoints/step-0000060")
    mtp_run(tiny, tokenizer, samples[:8], tmp_path / "a", steps=60, checkpoint_every=20)
    again = [each.mtp_loss for each in read_metrics(tmp_path / "a/metrics.jsonl")]
    assert again == losses


def test_new_mtp_modules_train_alone_first(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    model, mtp = mtp_run(tiny, tokenizer, samples, tmp_path / "a", steps=3, mtp_only_steps=3)
    start = fresh(tiny).state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in model.state_dict().items())
    untrained = MtpModules(mtp.config)
    assert not torch.equal(
        mtp.modules_by_depth()[1].norm.weight, untrained.modules_by_depth()[1].norm.weight
    )
    model, _ = mtp_run(tiny, tokenizer, samples, tmp_path / "b", steps=4, mtp_only_steps=3)
    assert not torch.equal(model.lm_head.weight, start["lm_head.weight"])
    with pytest.raises(ValueError, match="mtp_only_steps is 3, got none"):
        train(
            dataclasses.replace(CONFIG, mtp_only_steps=3),
            model,
            tokenizer,
            samples,
            tmp_path / "c",
        )


def test_the_weight_of_the_mtp_loss_falls_in_the_decay_phase() -> None:
    config = dataclasses.replace(CONFIG, steps=100, decay_fraction=0.5)
    weights = [mtp_weight(step, config) for step in (0, 50, 75, 100)]
    assert weights == pytest.approx([0.3, 0.3, 0.2, 0.1])


def test_counted_arithmetic_is_what_torch_counts(tiny: ModelConfig) -> None:
    model = Model(tiny).double()  # which no compiled kernel computes, so that torch sees it all
    tokens = torch.randint(0, tiny.vocab_size, (48,))
    with FlopCounterMode(display=False) as counter:
        model(tokens, [48])
    # torch counts the whole square of scores, we its lower half
    square = 4 * 48 * 48 * 32 * tiny.num_hidden_layers
    causal = 2 * 48 * 49 * 32 * tiny.num_hidden_layers
    counted = counter.get_total_flops()
    with_scores = any("attention" in str(op) for op in counter.get_flop_counts()["Global"])
    expected = step_flops(tiny, [48], 48) // 3 - causal + (square if with_scores else 0)
    assert counted == expected
