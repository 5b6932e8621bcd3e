"""A report for people: tables for a terminal and a picture of the funnel. Counts nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table

from ..files import replacing
from .report import EPISODE_STAGES, Line, Report


def tables(report: Report) -> Group:
    """The report as tables that `rich` prints."""
    parts = [_funnel("Funnel", report.funnel)]
    for title, groups in (("Families", report.families), ("Policies", report.policies)):
        if groups:
            parts.append(_matrix(title, groups))
    counts: list[tuple[str, str, float]] = [
        ("status", status, n) for status, n in report.statuses.items()
    ]
    counts += [
        (f"rejected, {family}", reason, n)
        for family, reasons in report.rejections.items()
        for reason, n in reasons.items()
    ]
    counts += [("mean reward", policy, mean) for policy, mean in report.rewards.items()]
    if report.failed_attempts:
        counts.append(("attempts", "failed by the machinery", report.failed_attempts))
    if counts:
        parts.append(_counts(counts))
    return Group(*parts)


def plot(report: Report, path: Path) -> None:
    """Write a PNG of the funnel: proposals above, episodes below, each against its first stage."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    lines = list(reversed(report.funnel))
    colours = ["#3b6ea5" if line.stage in EPISODE_STAGES else "#c8793a" for line in lines]
    names = [line.stage.replace("_", " ") for line in lines]
    bars = axes.barh(names, [line.count for line in lines], color=colours)
    axes.bar_label(bars, padding=3)
    axes.set_xlabel("count (orange: proposals, blue: episodes)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def amount(value: float) -> str:
    """A number for reading: 1234567 -> `1.2M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def _funnel(title: str, lines: Iterable[Line]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("stage")
    for name in ("count", "seconds", "bytes", "tokens"):
        table.add_column(name, justify="right")
    for line in lines:
        if line.stage == EPISODE_STAGES[0]:
            table.add_section()
        amounts = map(amount, (line.seconds, line.bytes, line.tokens))
        table.add_row(line.stage.replace("_", " "), str(line.count), *amounts)
    return table


def _matrix(title: str, groups: Mapping[str, tuple[Line, ...]]) -> Table:
    """Stages down, groups across."""
    table = Table(title=title, title_justify="left")
    table.add_column("stage")
    for name in groups:
        table.add_column(name, justify="right")
    for lines in zip(*groups.values(), strict=True):
        table.add_row(lines[0].stage.replace("_", " "), *(str(line.count) for line in lines))
    return table


def _counts(counts: Iterable[tuple[str, str, float]]) -> Table:
    table = Table(title="Reasons", title_justify="left")
    for name in ("what", "which"):
        table.add_column(name)
    table.add_column("count", justify="right")
    for what, which, number in counts:
        table.add_row(what, which, str(number))
    return table
