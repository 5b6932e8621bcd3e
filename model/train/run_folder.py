"""The folder of a training run: identity, metrics, checkpoints. Survives a kill at any moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KEPT_CHECKPOINTS = 2
METRICS = "metrics.jsonl"


class RunMismatch(ValueError):
    """The folder holds a run with other settings, model or data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMetrics:
    """What one step did; one line of `metrics.jsonl`."""

    step: int
    """Counted from 1."""
    loss: float
    """Mean over the learned tokens, in nats."""
    learned_tokens: int
    lr: float
    grad_norm: float
    """Before clipping."""
    expert_load: float
    """Tokens of the busiest expert over the mean, worst layer; 1 = even."""
    tokens_per_s: float
    flops_per_s: float | None = None
    """Arithmetic of the main model; None = a run from before it was counted."""
    peak_share: float | None = None
    """Of what this machine reached in a matrix product, in the same type; None as above."""
    mtp_loss: float | None = None
    """Mean over learned tokens and depths; None = no MTP modules."""
    validation_loss: float | None = None
    """None = not measured at this step."""


class RunFolder:
    """Files of one run below `path`."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Create the folder, or take up the run that is in it.

        Raises:
            RunMismatch: it was made with another `identity`; names what differs.
        """
        self.path = path
        self._checkpoints = path / "checkpoints"
        self._metrics = path / METRICS
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps(identity))
        file = path / "run.json"
        if not file.exists():
            _write(file, json.dumps(wanted, indent=2) + "\n")
        found = json.loads(file.read_text(encoding="utf-8"))
        if differing := sorted(_differing(wanted, found)):
            raise RunMismatch(
                f"expected the run in {path} to have the same settings, got other values for "
                f"{', '.join(differing)}; choose another folder or restore them"
            )
        for torn in self._checkpoints.glob(".*"):
            shutil.rmtree(torn)

    def latest(self) -> tuple[int, Path] | None:
        """Step and folder of the last whole checkpoint."""
        folders = sorted(self._checkpoints.glob("step-*"))
        return (int(folders[-1].name.removeprefix("step-")), folders[-1]) if folders else None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Let `write` fill a checkpoint; it counts only once it is whole. Drops old ones."""
        partial = self._checkpoints / f".step-{step:07d}"
        partial.mkdir()
        write(partial)
        partial.rename(self._checkpoints / f"step-{step:07d}")
        for old in sorted(self._checkpoints.glob("step-*"))[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)

    def log(self, metrics: StepMetrics) -> None:
        """Add one line."""
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(metrics)) + "\n")

    def metrics(self) -> list[StepMetrics]:
        """Every whole line so far."""
        return read_metrics(self._metrics)

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that will be made again."""
        kept = [each for each in self.metrics() if each.step <= step]
        _write(self._metrics, "".join(json.dumps(asdict(each)) + "\n" for each in kept))


def read_metrics(path: Path) -> list[StepMetrics]:
    """The lines of a `metrics.jsonl`; a torn last line is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [StepMetrics(**json.loads(line)) for line in lines]


def _differing(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> set[str]:
    """Names of the values that differ; nested ones as `config.lr`."""
    names: set[str] = set()
    for name in wanted.keys() | found.keys():
        ours, theirs = wanted.get(name), found.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            names |= {f"{name}.{inner}" for inner in _differing(ours, theirs)}
        elif ours != theirs:
            names.add(name)
    return names


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
