"""The training loop: supervised next-token training on packed samples, killed and resumed at will.

One process, or one of several that share the work (`parallel.py`); one machine. Starts no process
(`launch.py` does) and knows nothing of where samples come from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from ..checkpoint import load_mtp_weights, load_weights, save_checkpoint
from ..model import Model
from ..mtp import MtpModules
from ..tokenizer import Tokenizer
from .config import TrainConfig
from .flops import measured_peak_flops, step_flops
from .losses import mtp_weight, summed_loss, summed_mtp_loss
from .optim import Optimizer, learning_rate
from .packing import Batch, Packer, pack
from .parallel import Ranks, parallelise
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
    mesh: DeviceMesh | None = None,
) -> Path:
    """Train `model` in place and write it to `out/model`; call again to resume what was killed.

    Every process of `mesh` makes the same call, with the same weights and data, and sees the same
    files; the first one writes them. Resuming may take another number of processes.

    Args:
        model: in fp32; its weights are the start. It is left in `config.dtype`. The training runs
            where it lies, on the CPU or a GPU; resuming may change that.
        mtp: modules of the model to train with it; None = none.
        validation: held-out samples; empty = none are measured.
        progress: called after each step.
        mesh: the processes that share the work, in one dimension; None = this one alone.

    Returns:
        The folder with `config.json`, `model.safetensors` (fp32) and `tokenizer.json`, and
        `mtp.safetensors` if there are modules.

    Raises:
        ValueError: nothing to learn, or tokenizer, sample length or mesh do not fit the model.
        RunMismatch: `out` holds a run with other settings, model or data.
        TrainingDiverged: names the step.
    """
    ranks = Ranks(mesh)
    trainer = _Trainer(config, model, mtp, tokenizer, samples, validation, out, ranks)
    for step in range(trainer.resume(mesh), config.steps):
        metrics = trainer.step(step)
        if metrics.step % config.validate_every == 0 or metrics.step == config.steps:
            metrics = replace(metrics, validation_loss=trainer.validate())
        trainer.log(metrics)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Share:
    """This rank's part of a batch, and the size of the whole batch."""

    batch: Batch
    busy: bool
    """False: the batch has fewer samples than there are ranks, and `batch` stands in for one."""
    learned: int
    seq_lens: list[int]


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
        ranks: Ranks,
    ) -> None:
        _check_fit(config, model, mtp, tokenizer)
        self._ranks = ranks
        self._config = config
        self._model = model
        self._device = model.lm_head.weight.device
        self._mtp = mtp.to(self._device) if mtp else None
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
        if not ranks.first:
            ranks.agree(None)  # the first one prepares the folder
        self._folder = RunFolder(out, identity)
        if ranks.first:
            ranks.agree(None)
        model.model.checkpoint_activations = config.checkpoint_activations

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
        modules_alone = step < self._config.mtp_only_steps
        if self._ranks.alone:
            self._model.requires_grad_(not modules_alone)
        first = step * self._config.micro_batches
        steps = range(first, first + self._config.micro_batches)
        shares = [self._share(self._packer, index) for index in steps]
        learned = sum(each.learned for each in shares)
        sums = self._gradients(shares, learned, step)
        self._require_finite(sums.loss / learned, "loss", step)
        if modules_alone:  # spread parameters cannot be told beforehand to need no gradient
            self._model.zero_grad(set_to_none=True)
        lr = learning_rate(step, self._config)
        grad_norm = self._optimizer.step(lr)
        self._require_finite(grad_norm, "gradient norm", step)
        speed = self._config.router_bias_speed
        if not modules_alone:
            self._model.update_router_bias(sums.load, speed)
        if self._mtp and sums.mtp_load is not None:
            self._mtp.update_router_bias(sums.mtp_load, speed)
        took_s = time.perf_counter() - started
        flops = sum(step_flops(self._model.config, each.seq_lens, each.learned) for each in shares)
        peak = measured_peak_flops(getattr(torch, self._config.dtype), self._device)
        return StepMetrics(
            step=step + 1,
            loss=sums.loss / learned,
            learned_tokens=learned,
            lr=lr,
            grad_norm=grad_norm,
            expert_load=float((sums.load.amax(-1) / sums.load.float().mean(-1)).max()),
            tokens_per_s=sum(sum(each.seq_lens) for each in shares) / took_s,
            flops_per_s=flops / took_s,
            peak_share=flops / took_s / peak,
            mtp_loss=sums.mtp_loss / learned if self._mtp else None,
        )

    def _share(self, packer: Packer, step: int) -> _Share:
        samples = packer.samples_of(step)
        own = self._ranks.share(samples)
        return _Share(
            batch=pack(own or [_idle(samples[0])]).to(self._device),
            busy=bool(own),
            learned=sum(int(each.trainable[1:].sum()) for each in samples),
            seq_lens=[len(each) - 1 for each in samples],
        )

    def _gradients(self, shares: Sequence[_Share], learned: int, step: int) -> _Sums:
        """Add up the gradients of the mean loss over all `learned` tokens; sums over all ranks."""
        sums = _Sums()
        for share in shares:
            batch = share.batch
            hidden = self._model.hidden(batch.tokens, batch.seq_lens)
            loss = summed_loss(self._model, hidden, batch)
            sums.loss += float(self._ranks.sum(loss.detach()))
            load = self._ranks.sum(self._model.expert_load() * share.busy)
            sums.load = sums.load.to(self._device) + load
            if self._mtp:
                ahead = summed_mtp_loss(self._model, self._mtp, hidden, batch)
                sums.mtp_loss += float(self._ranks.sum(ahead.detach()))
                load = self._ranks.sum(self._mtp.expert_load() * share.busy)
                sums.mtp_load = load if sums.mtp_load is None else sums.mtp_load + load
                loss = loss + mtp_weight(step, self._config) * ahead
            (loss / learned).backward()  # type: ignore[no-untyped-call]
        return sums

    @torch.no_grad()
    def validate(self) -> float | None:
        """Mean loss over every held-out token; None when there is none."""
        if self._held_out is None:
            return None
        total = tokens = 0.0
        for index in range(len(self._held_out.plan(0))):
            share = self._share(self._held_out, index)
            hidden = self._model.hidden(share.batch.tokens, share.batch.seq_lens)
            total += float(self._ranks.sum(summed_loss(self._model, hidden, share.batch)))
            tokens += share.learned
        return total / tokens

    def log(self, metrics: StepMetrics) -> None:
        """Add a line to the metrics."""
        if self._ranks.first:
            self._folder.log(metrics)

    def checkpoint(self, step: int) -> None:
        """Keep everything that the next step depends on."""
        state = {"optimizer": self._optimizer.state_dict(), "rng": torch.get_rng_state()}

        def write(folder: Path) -> None:
            self._write(model, mtp, folder)
            torch.save(state, folder / _STATE)

        with self._whole() as (model, mtp):
            if self._ranks.first:
                self._folder.save(step, write)

    def resume(self, mesh: DeviceMesh | None) -> int:
        """Take up the last checkpoint and get ready to step; returns the number of steps done."""
        step, folder = self._ranks.agree(self._folder.latest()) or (0, None)
        if folder:
            load_weights(self._model, folder)
            if self._mtp:
                load_mtp_weights(self._mtp, folder)
        if mesh:
            dtype = getattr(torch, self._config.dtype)
            head = torch.float32 if self._config.fp32_head else dtype
            parallelise(self._model, mesh, dtype, head_dtype=head, mtp=self._mtp)
        both = nn.ModuleList([self._model, self._mtp] if self._mtp else [self._model])
        self._optimizer = Optimizer(both, self._config, self._ranks)
        if folder:
            state = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
            self._optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
        if self._ranks.first:
            self._folder.forget_after(step)
        return step

    def finish(self) -> Path:
        """Write the result and the loss curve."""
        result = self._folder.path / "model"
        with self._whole() as (model, mtp):
            if self._ranks.first:
                self._write(model, mtp, result)
                plot_loss(self._folder.metrics(), self._folder.path / "loss.png")
        self._ranks.agree(None)  # the files are there when anyone returns
        return result

    @contextmanager
    def _whole(self) -> Iterator[tuple[Model, MtpModules | None]]:
        """All of the model and its modules in fp32, to be saved; every rank has to call it."""
        if self._ranks.alone:
            with self._optimizer.full_precision():
                yield self._model, self._mtp
            return
        weights = iter(self._optimizer.whole_weights())
        with torch.device("meta"):
            model = Model(self._model.config)
            mtp = MtpModules(self._mtp.config) if self._mtp else None
        _fill(model, self._model, weights)
        if mtp and self._mtp:
            _fill(mtp, self._mtp, weights)
        assert next(weights, None) is None
        yield model, mtp

    def _write(self, model: Model, mtp: MtpModules | None, folder: Path) -> None:
        save_checkpoint(model, folder, mtp=mtp)
        self._tokenizer.save(folder / "tokenizer.json")

    def _require_finite(self, value: float, name: str, step: int) -> None:
        if math.isfinite(value):
            return
        latest = self._folder.latest()
        stands = f"the checkpoint of step {latest[0]} stands" if latest else "none was saved yet"
        raise TrainingDiverged(
            f"expected a finite {name} at step {step + 1}, got {value}; {stands}; "
            "lower the learning rate or look at the data"
        )


def _fill(empty: nn.Module, spread: nn.Module, weights: Iterator[torch.Tensor]) -> None:
    """Give a module on the meta device its parameters, in their order, and another's buffers."""
    whole = {name: next(weights) for name, _ in empty.named_parameters()}
    empty.load_state_dict(whole | dict(spread.named_buffers()), assign=True)


def _idle(sample: Sample) -> Sample:
    """A sample for a rank that has none: no token of it is learned."""
    return Sample(ids=sample.ids[:2], trainable=np.zeros(2, np.bool_))


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
