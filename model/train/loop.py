"""The training loop: supervised next-token training on packed samples, killed and resumed at will.

One process, one machine. Knows nothing of where samples come from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..checkpoint import load_weights, save_checkpoint
from ..model import Model
from ..tokenizer import Tokenizer
from .config import TrainConfig
from .losses import next_token_loss
from .optim import Optimizer, learning_rate
from .packing import Packer
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
    validation: Sequence[Sample] = (),
    progress: Progress | None = None,
) -> Path:
    """Train `model` in place and write it to `out/model`; call again to resume what was killed.

    Args:
        model: in fp32; its weights are the start. It is left in `config.dtype`.
        validation: held-out samples; empty = none are measured.
        progress: called after each step.

    Returns:
        The folder with `config.json`, `model.safetensors` (fp32) and `tokenizer.json`.

    Raises:
        ValueError: nothing to learn, or tokenizer or sample length do not fit the model.
        RunMismatch: `out` holds a run with other settings, model or data.
        TrainingDiverged: names the step.
    """
    trainer = _Trainer(config, model, tokenizer, samples, validation, out)
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


class _Trainer:
    """The parts of one run and what is done with them."""

    def __init__(
        self,
        config: TrainConfig,
        model: Model,
        tokenizer: Tokenizer,
        samples: Sequence[Sample],
        validation: Sequence[Sample],
        out: Path,
    ) -> None:
        _check_fit(config, model, tokenizer)
        self._config = config
        self._model = model
        self._tokenizer = tokenizer
        self._packer = self._pack(samples)
        self._held_out = self._pack(validation) if validation else None
        identity = {
            "config": asdict(config),
            "model": asdict(model.config),
            "tokenizer": tokenizer.fingerprint,
            "data": self._packer.digest,
        }
        self.folder = RunFolder(out, identity)
        self._optimizer = Optimizer(model, config)

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
        batch = self._packer[step]
        loss = next_token_loss(self._model, batch)
        load = self._model.expert_load()
        loss.backward()  # type: ignore[no-untyped-call]
        lr = learning_rate(step, self._config)
        self._require_finite(loss.item(), "loss", step)
        grad_norm = self._optimizer.step(lr)
        self._require_finite(grad_norm, "gradient norm", step)
        self._model.update_router_bias(load, self._config.router_bias_speed)
        return StepMetrics(
            step=step + 1,
            loss=loss.item(),
            learned_tokens=int(batch.mask.sum()),
            lr=lr,
            grad_norm=grad_norm,
            expert_load=float((load.amax(-1) / load.float().mean(-1)).max()),
            tokens_per_s=len(batch.tokens) / (time.perf_counter() - started),
        )

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
        save_checkpoint(self._model, folder)
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


def _check_fit(config: TrainConfig, model: Model, tokenizer: Tokenizer) -> None:
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
