"""Draws the loss curve of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from .run_folder import StepMetrics


def plot_loss(metrics: Sequence[StepMetrics], path: Path) -> None:
    """Write training and validation loss over the steps as an image."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([each.step for each in metrics], [each.loss for each in metrics], label="training")
    checked = [each for each in metrics if each.validation_loss is not None]
    if checked:
        losses = [each.validation_loss for each in checked]
        axes.plot([each.step for each in checked], losses, "o-", label="validation")  # type: ignore[arg-type]
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.legend()
    figure.savefig(path, dpi=120)
