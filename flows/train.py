"""The flow `train-sft`: runs and datasets in, a checkpoint out.

Run it again with the same configuration and `out` to go on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from prefect import flow
from pyarrow import parquet as pq

from ..model.checkpoint import load_bundled, load_model, load_mtp
from ..model.model import Model
from ..model.mtp import MtpModules, mtp_from_trunk
from ..model.tokenizer import Tokenizer, load_bundled_tokenizer
from ..model.train.config import TrainConfig
from ..model.train.launch import train_on_ranks
from ..model.train.loop import train
from ..model.train.run_folder import METRICS, StepMetrics, read_metrics
from ..model.train.samples import Sample, samples_from_row
from ..pipelines.dataset.lock import WriteLock
from ..pipelines.dataset.store import read_rows
from . import progress
from .checks import check_sft, data_folders, training_device
from .config import ConfigError, SftConfig
from .start import at_start

LEARNED = {"passed": {"pass"}, "scored": {"pass", "fail"}}
"""Outcomes of the episodes that `keep` names."""


@flow(name="train-sft")
def train_sft(config: SftConfig) -> dict[str, Any]:
    """Fine-tune the policy on what it, or a better one, did right.

    Returns: where the checkpoint lies and how the loss went.
    """
    config = at_start(config)
    check_sft(config)
    torch.manual_seed(config.seed)
    model, tokenizer = _first_weights(config.init)
    mtp = _first_modules(config, model)
    model.to(training_device(config))
    folders = data_folders(config.data)
    rows = (row for folder in folders for row in _rows(folder, "train"))
    samples = _samples(rows, tokenizer, config.keep)
    held_out = (row for folder in folders for row in _rows(folder, "validation"))
    validation = _samples(held_out, tokenizer, config.keep)
    if not samples:
        raise ConfigError(
            f"expected episodes that {config.keep} in {', '.join(map(str, folders))}, found none; "
            "generate with a better policy or choose another --keep"
        )

    def tell(metrics: StepMetrics) -> None:
        progress.current().reach("steps", metrics.step, f"loss {metrics.loss:.3f}")

    progress.current().begin("steps", config.steps)
    config.out.mkdir(parents=True, exist_ok=True)
    with WriteLock(config.out):
        start: Callable[..., Path] = (
            train if config.ranks == 1 else partial(train_on_ranks, config.ranks)
        )
        checkpoint = start(
            _train_config(config),
            model,
            tokenizer,
            samples,
            config.out,
            mtp=mtp,
            validation=validation,
            progress=tell,
        )
    steps = read_metrics(config.out / METRICS)
    return {
        "model": str(checkpoint),
        "samples": len(samples),
        "steps": config.steps,
        "first_loss": steps[0].loss,
        "last_loss": steps[-1].loss,
    }


def _first_weights(init: str) -> tuple[Model, Tokenizer]:
    if init in ("bundled", "scratch"):
        model = load_bundled()
        return (Model(model.config) if init == "scratch" else model), load_bundled_tokenizer()
    folder = Path(init)
    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        raise ConfigError(
            f"expected `bundled`, `scratch` or a folder with config.json and tokenizer.json "
            f"for --init, got {init!r}"
        )
    try:
        return load_model(folder), Tokenizer.load(folder)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot start from {folder}: {error}") from error


def _first_modules(config: SftConfig, model: Model) -> MtpModules | None:
    """As many MTP modules as are asked for: the checkpoint's own first."""
    if not config.mtp_modules:
        return None
    own = None if config.init in ("bundled", "scratch") else load_mtp(Path(config.init))
    if own is None:
        return mtp_from_trunk(model, config.mtp_modules)
    try:
        return own.expanded(config.mtp_modules)
    except ValueError as error:
        raise ConfigError(f"cannot use --mtp-modules with {config.init}: {error}") from error


def _rows(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """Rows of a run (all of them train) or of one split of an exported dataset."""
    exported = sorted(folder.glob(f"data/{split}-*.parquet"))
    if exported or (folder / "data").is_dir():
        for file in exported:
            for batch in pq.ParquetFile(file).iter_batches():
                yield from batch.to_pylist()
    elif split == "train":
        yield from read_rows(folder)


def _samples(rows: Iterator[dict[str, Any]], tokenizer: Tokenizer, keep: str) -> list[Sample]:
    kept = (row for row in rows if row["outcome"] in LEARNED[keep])
    return [sample for row in kept for sample in samples_from_row(row, tokenizer)]


def _train_config(config: SftConfig) -> TrainConfig:
    return TrainConfig(
        steps=config.steps,
        batch_tokens=config.batch_tokens,
        micro_batches=config.micro_batches,
        max_sample_tokens=config.max_sample_tokens,
        lr=config.lr,
        warmup_steps=min(10, config.steps) if config.warmup_steps is None else config.warmup_steps,
        dtype=config.dtype,
        fp32_head=config.fp32_head,
        checkpoint_activations=config.checkpoint_activations,
        mtp_weight=config.mtp_weight,
        mtp_final_weight=config.mtp_final_weight,
        mtp_only_steps=config.mtp_only_steps,
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
    )
