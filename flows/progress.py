"""How far the work is: bars on a terminal, plain lines in a pipe, nothing when not asked.

Flows speak to `current()`; whoever starts a flow chooses the speaker with `shown()`. Everything
goes to standard error: standard output belongs to results.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as ElapsedColumn

LINE_EVERY_S = 5.0


class Speaker(Protocol):
    """Told about the work as it goes."""

    def begin(self, stage: str, total: int) -> None:
        """A stage of `total` steps starts."""
        ...

    def count(self, stage: str, what: str, *, advance: int = 1) -> None:
        """One more thing of the kind `what` came out of a stage; it moves on by `advance`."""
        ...

    def reach(self, stage: str, done: int, reading: str) -> None:
        """A stage has `done` steps behind it; `reading` is how it stands now, such as a loss."""
        ...

    def say(self, text: str) -> None:
        """A line worth reading."""
        ...


class Silent:
    """Says nothing."""

    def begin(self, stage: str, total: int) -> None:
        """Nothing."""

    def count(self, stage: str, what: str, *, advance: int = 1) -> None:
        """Nothing."""

    def reach(self, stage: str, done: int, reading: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


@dataclass
class _Stage:
    total: int
    done: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)
    spoke: float = 0.0
    reading: str = ""

    @property
    def funnel(self) -> str:
        return self.reading or ", ".join(f"{what} {n}" for what, n in sorted(self.counts.items()))


class Plain:
    """One line a stage and every few seconds, for pipes and logs."""

    def __init__(self) -> None:
        self._stages: dict[str, _Stage] = {}

    def begin(self, stage: str, total: int) -> None:
        """Remember the stage; it speaks with its first count."""
        self._stages[stage] = _Stage(total)

    def count(self, stage: str, what: str, *, advance: int = 1) -> None:
        """Count, and write a line when one is due."""
        state = self._stages.setdefault(stage, _Stage(0))
        state.counts[what] += 1
        self._advance(stage, state, advance)

    def reach(self, stage: str, done: int, reading: str) -> None:
        """Note the reading, and write a line when one is due."""
        state = self._stages.setdefault(stage, _Stage(0))
        state.reading = reading
        self._advance(stage, state, done - state.done)

    def _advance(self, stage: str, state: _Stage, advance: int) -> None:
        state.done += advance
        now = time.monotonic()
        finished = advance > 0 and state.done == state.total
        if finished or now - state.spoke >= LINE_EVERY_S:
            state.spoke = now
            seconds = now - state.began
            self.say(f"{stage} {state.done}/{state.total}: {state.funnel} ({seconds:.0f} s)")

    def say(self, text: str) -> None:
        """Write the line."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class Live:
    """Bars with a running funnel, for terminals."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._ids: dict[str, TaskID] = {}
        self._stages: dict[str, _Stage] = {}

    def begin(self, stage: str, total: int) -> None:
        """Add a bar."""
        self._stages[stage] = _Stage(total)
        self._ids[stage] = self._bars.add_task(stage, total=total, funnel="")

    def count(self, stage: str, what: str, *, advance: int = 1) -> None:
        """Move the bar and its funnel."""
        state = self._stages[stage]
        state.counts[what] += 1
        self._bars.update(self._ids[stage], advance=advance, funnel=state.funnel)

    def reach(self, stage: str, done: int, reading: str) -> None:
        """Move the bar and show the reading."""
        self._bars.update(self._ids[stage], completed=done, funnel=reading)

    def say(self, text: str) -> None:
        """Write the line above the bars."""
        self._bars.console.print(text, highlight=False, markup=False)


_current: ContextVar[Speaker | None] = ContextVar("progress", default=None)
_UNATTENDED = Plain()


def current() -> Speaker:
    """Whom to tell; plain lines where nobody chose, as in a Prefect worker."""
    return _current.get() or _UNATTENDED


@contextmanager
def shown(*, quiet: bool = False) -> Iterator[None]:
    """Progress is shown on standard error inside the block, as suits what it is."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        with _speaking(Silent() if quiet else Plain()):
            yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    tail = (TextColumn("{task.fields[funnel]}"), ElapsedColumn())
    with Progress(*columns, *tail, console=console) as bars, _speaking(Live(bars)):
        yield


@contextmanager
def _speaking(speaker: Speaker) -> Iterator[None]:
    token = _current.set(speaker)
    try:
        yield
    finally:
        _current.reset(token)
