"""The training loop: supervised next-token training on packed samples, killed and resumed at will.

One process, one machine. Knows nothing of where samples come from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from ..checkpoint import load_mtp_weights, load_weights, save_checkpoint
from ..model import Model
from ..mtp import MtpModules
from ..tokenizer import Tokenizer
from .config import TrainConfig
from .flops import measured_peak_flops, step_flops
from .losses import mtp_weight, next_token_loss, summed_loss, summed_mtp_loss
from .optim import Optimizer, learning_rate
from .packing import Batch, Packer
from .plot import plot_loss
from .run_folder import RunFolder, StepMetrics
from .samples import Sample

_STATE = "trainer.pt"

Progress = Callable[[StepMetrics], None]


class TrainingDiverged(RuntimeError):
    """The loss or the gradient is not a number any more; the last checkpoint stands."""


def train(
    config: TrainConfig,
    model: Model,
    tokenizer: Tokenizer,
    samples: Sequence[Sample],
    out: Path,
    *,
    mtp: MtpModules | None = None,
    validation: Sequence[Sample] = (),
    progress: Progress | None = None,
) -> Path:
    """Train `model` in place and write it to `out/model`; call again to resume what was killed.

    Args:
        model: in fp32; its weights are the start. It is left in `config.dtype`.
        mtp: modules of the model to train with it; None = none.
        validation: held-out samples; empty = none are measured.
        progress: called after each step.

    Returns:
        The folder with `config.json`, `model.safetensors` (fp32) and `tokenizer.json`, and
        `mtp.safetensors` if there are modules.

    Raises:
        ValueError: nothing to learn, or tokenizer or sample length do not fit the model.
        RunMismatch: `out` holds a run with other settings, model or data.
        TrainingDiverged: names the step.
    """
    trainer = _Trainer(config, model, mtp, tokenizer, samples, validation, out)
    for step in range(trainer.resume(), config.steps):
        metrics = trainer.step(step)
        if metrics.step % config.validate_every == 0 or metrics.step == config.steps:
            metrics = replace(metrics, validation_loss=trainer.validate())
        trainer.folder.log(metrics)
        if metrics.step % config.checkpoint_every == 0 or metrics.step == config.steps:
            trainer.checkpoint(metrics.step)
        if progress:
            progress(metrics)
    return trainer.finish()


@dataclass(kw_only=True, slots=True)
class _Sums:
    """Over the batches of a step."""

    loss: float = 0.0
    mtp_loss: float = 0.0
    load: torch.Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64))
    """[layers, experts] once a batch is in."""
    mtp_load: torch.Tensor | None = None  # [modules, experts]; None = no modules


class _Trainer:
    """The parts of one run and what is done with them."""

    def __init__(
        self,
        config: TrainConfig,
        model: Model,
        mtp: MtpModules | None,
        tokenizer: Tokenizer,
        samples: Sequence[Sample],
        validation: Sequence[Sample],
        out: Path,
    ) -> None:
        _check_fit(config, model, mtp, tokenizer)
        self._config = config
        self._model = model
        self._mtp = mtp
        self._tokenizer = tokenizer
        self._packer = self._pack(samples)
        self._held_out = self._pack(validation) if validation else None
        identity = {
            "config": asdict(config),
            "model": asdict(model.config),
            "tokenizer": tokenizer.fingerprint,
            "mtp_modules": mtp.config.num_mtp_modules if mtp else 0,
            "data": self._packer.digest,
        }
        self.folder = RunFolder(out, identity)
        model.model.checkpoint_activations = config.checkpoint_activations
        self._optimizer = Optimizer(nn.ModuleList([model, mtp] if mtp else [model]), config)

    def _pack(self, samples: Sequence[Sample]) -> Packer:
        return Packer(
            samples,
            batch_tokens=self._config.batch_tokens,
            max_sample_tokens=self._config.max_sample_tokens,
            seed=self._config.seed,
        )

    def step(self, step: int) -> StepMetrics:
        """One update; `step` counts from 0."""
        started = time.perf_counter()
        self._model.requires_grad_(step >= self._config.mtp_only_steps)
        first = step * self._config.micro_batches
        batches = [self._packer[first + index] for index in range(self._config.micro_batches)]
        sums = self._gradients(batches, step)
        learned = sum(int(batch.mask.sum()) for batch in batches)
        self._require_finite(sums.loss / learned, "loss", step)
        lr = learning_rate(step, self._config)
        grad_norm = self._optimizer.step(lr)
        self._require_finite(grad_norm, "gradient norm", step)
        speed = self._config.router_bias_speed
        if step >= self._config.mtp_only_steps:
            self._model.update_router_bias(sums.load, speed)
        if self._mtp and sums.mtp_load is not None:
            self._mtp.update_router_bias(sums.mtp_load, speed)
        took_s = time.perf_counter() - started
        flops = sum(
            step_flops(self._model.config, each.seq_lens, int(each.mask.sum())) for each in batches
        )
        peak = measured_peak_flops(getattr(torch, self._config.dtype))
        return StepMetrics(
            step=step + 1,
            loss=sums.loss / learned,
            learned_tokens=learned,
            lr=lr,
            grad_norm=grad_norm,
            expert_load=float((sums.load.amax(-1) / sums.load.float().mean(-1)).max()),
            tokens_per_s=sum(len(batch.tokens) for batch in batches) / took_s,
            flops_per_s=flops / took_s,
            peak_share=flops / took_s / peak,
            mtp_loss=sums.mtp_loss / learned if self._mtp else None,
        )

    def _gradients(self, batches: Sequence[Batch], step: int) -> _Sums:
        """Add up the gradients of the mean loss over all learned tokens of `batches`."""
        learned = sum(int(batch.mask.sum()) for batch in batches)
        sums = _Sums()
        for batch in batches:
            hidden = self._model.hidden(batch.tokens, batch.seq_lens)
            loss = summed_loss(self._model, hidden, batch)
            sums.loss += loss.item()
            sums.load = sums.load + self._model.expert_load()
            if self._mtp:
                ahead = summed_mtp_loss(self._model, self._mtp, hidden, batch)
                sums.mtp_loss += ahead.item()
                sums.mtp_load = self._mtp.expert_load() + (
                    0 if sums.mtp_load is None else sums.mtp_load
                )
                loss = loss + mtp_weight(step, self._config) * ahead
            (loss / learned).backward()  # type: ignore[no-untyped-call]
        return sums

    def validate(self) -> float | None:
        """Mean loss over every held-out token; None when there is none."""
        if self._held_out is None:
            return None
        total = tokens = 0.0
        with torch.no_grad():
            for index in range(len(self._held_out.plan(0))):
                batch = self._held_out[index]
                learned = int(batch.mask.sum())
                total += next_token_loss(self._model, batch).item() * learned
                tokens += learned
        return total / tokens

    def checkpoint(self, step: int) -> None:
        """Keep everything that the next step depends on."""
        with self._optimizer.full_precision():
            self.folder.save(step, self._write_state)

    def resume(self) -> int:
        """Take up the last checkpoint; returns the number of steps done."""
        latest = self.folder.latest()
        step = latest[0] if latest else 0
        if latest:
            state = torch.load(latest[1] / _STATE, weights_only=True)
            with self._optimizer.full_precision():
                load_weights(self._model, latest[1])
                if self._mtp:
                    load_mtp_weights(self._mtp, latest[1])
            self._optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
        self.folder.forget_after(step)
        return step

    def finish(self) -> Path:
        """Write the result and the loss curve."""
        result = self.folder.path / "model"
        with self._optimizer.full_precision():
            self._write_model(result)
        plot_loss(self.folder.metrics(), self.folder.path / "loss.png")
        return result

    def _write_model(self, folder: Path) -> None:
        save_checkpoint(self._model, folder, mtp=self._mtp)
        self._tokenizer.save(folder / "tokenizer.json")

    def _write_state(self, folder: Path) -> None:
        self._write_model(folder)
        state = {"optimizer": self._optimizer.state_dict(), "rng": torch.get_rng_state()}
        torch.save(state, folder / _STATE)

    def _require_finite(self, value: float, name: str, step: int) -> None:
        if math.isfinite(value):
            return
        latest = self.folder.latest()
        stands = f"the checkpoint of step {latest[0]} stands" if latest else "none was saved yet"
        raise TrainingDiverged(
            f"expected a finite {name} at step {step + 1}, got {value}; {stands}; "
            "lower the learning rate or look at the data"
        )


def _check_fit(
    config: TrainConfig, model: Model, mtp: MtpModules | None, tokenizer: Tokenizer
) -> None:
    if mtp and (mtp.config.hidden_size, mtp.config.vocab_size) != (
        model.config.hidden_size,
        model.config.vocab_size,
    ):
        raise ValueError("expected MTP modules made for this model, got those of another size")
    if config.mtp_only_steps and not mtp:
        raise ValueError(
            f"expected MTP modules, because mtp_only_steps is {config.mtp_only_steps}, got none"
        )
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"expected a tokenizer of at most {model.config.vocab_size} ids, as the model has, "
            f"got {tokenizer.vocab_size}"
        )
    if config.max_sample_tokens > model.config.max_position_embeddings:
        raise ValueError(
            f"expected max_sample_tokens of at most {model.config.max_position_embeddings}, the "
            f"model's context, got {config.max_sample_tokens}"
        )
