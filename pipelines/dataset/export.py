"""From runs to a dataset that others load: Parquet, splits by source, a card. Changes no run."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..files import TEMPORARY, room_for
from .card import Fact, dataset_card
from .errors import ExportError
from .hub import push, repository
from .integrity import check
from .parquet import ParquetFiles
from .report import Report, make_report
from .report_view import plot
from .schema import Row, from_row
from .splits import SPLITS, Split, by_hash, by_list
from .store import read_rows

Keep = Literal["all", "scored", "passed"]
KEPT: dict[Keep, frozenset[str]] = {
    "all": frozenset({"pass", "fail", "unscored"}),
    "scored": frozenset({"pass", "fail"}),
    "passed": frozenset({"pass"}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSummary:
    """What an export wrote."""

    to: str
    """The folder, or the address of the repository."""
    splits: Mapping[str, int]
    """Rows of each split that has any."""
    dropped: int
    """Rows left out because of their outcome."""
    repeated: int
    """Rows left out because an earlier run holds the same episode."""


def export(
    runs: Sequence[Path],
    to: str,
    *,
    keep: Keep = "scored",
    held_out: Collection[str] | None = None,
    private: bool = True,
) -> ExportSummary:
    """Write the rows of runs as a dataset into a folder, or push it to the Hub.

    Args:
        to: a folder that is new or empty, or `hf://owner/name`.
        keep: which rows; an episode that several runs hold is kept once, from the first.
        held_out: sources that make the test split, all others train; None = by hash of the source.
        private: for a Hub repository that does not exist yet.

    Raises:
        ExportError: the folder is taken, there is nothing to keep, or the Hub refuses.
        BrokenTrajectory: a row's turns are not what was sampled.
        RunError: a run cannot be read.
        DiskFull: it does not fit; nothing is left behind.
    """
    if keep not in KEPT:
        raise ExportError(f"expected one of {', '.join(KEPT)} to keep, got {keep!r}")
    name = repository(to)
    target = None if name else _free(Path(to))
    split_of = by_hash if held_out is None else by_list(held_out)
    with ExitStack() as stack:
        folder = _temporary(target, stack)
        with room_for(folder):
            facts, summary = _write_rows(runs, folder, KEPT[keep], split_of)
            if not facts:
                raise ExportError(
                    f"none of the {summary.dropped} rows is to be kept with --keep {keep}; "
                    "generate more, or keep others"
                )
            _write_card(folder, facts, make_report(runs), keep)
            if target is None:
                assert name is not None, "no folder, so a repository"
                return replace(summary, to=push(folder, name, private=private))
            folder.chmod(0o755)
            folder.replace(target)
    return replace(summary, to=str(target))


def _write_rows(
    runs: Sequence[Path],
    folder: Path,
    kept: frozenset[str],
    split_of: Callable[[str], Split],
) -> tuple[list[Fact], ExportSummary]:
    facts: list[Fact] = []
    seen: set[str] = set()
    dropped = repeated = 0
    with ExitStack() as stack:
        files = {
            split: stack.enter_context(ParquetFiles(folder / "data", split)) for split in SPLITS
        }
        for row in _rows(runs):
            if row["outcome"] not in kept:
                dropped += 1
            elif row["episode_id"] in seen:
                repeated += 1
            else:
                check(from_row(row))
                seen.add(row["episode_id"])
                split = split_of(row["provenance"]["source"])
                files[split].add(row)
                facts.append(Fact.of(row, split))
    counts = Counter(fact.split for fact in facts)
    splits: dict[str, int] = {split: counts[split] for split in SPLITS if counts[split]}
    return facts, ExportSummary(to="", splits=splits, dropped=dropped, repeated=repeated)


def _rows(runs: Sequence[Path]) -> Iterator[Row]:
    for run in runs:
        yield from read_rows(run)


def _write_card(folder: Path, facts: Sequence[Fact], report: Report, keep: str) -> None:
    plot(report, folder / "funnel.png")
    card = dataset_card(facts, report, keep=keep)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _free(target: Path) -> Path:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(
            f"expected a new or empty folder to export to, but {target} is taken; "
            "delete it or choose another one"
        )
    return target


def _temporary(target: Path | None, stack: ExitStack) -> Path:
    """A folder that is gone when the stack ends, unless it was renamed."""
    beside = None if target is None else target.absolute().parent
    if beside:
        beside.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=beside))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder
