"""The dataset card: where the rows come from, under which licences, and how to load them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from huggingface_hub import DatasetCardData
from jinja2 import Environment, StrictUndefined

from .report import Report
from .report_view import amount
from .schema import SCHEMA, VERSION, Row
from .splits import SPLITS

_HUB_LICENCES = frozenset(
    {
        *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "mpl-2.0", "zlib"),
        *("unlicense", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "pddl", "odbl"),
        *("lgpl-2.1", "lgpl-3.0", "gpl-2.0", "gpl-3.0", "agpl-3.0"),
    }
)
"""Of the identifiers that the Hub knows, those that sources are likely to have."""

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """What the card needs to know of one row."""

    split: str
    source: str
    licence: str
    url: str
    family: str
    policy: str
    status: str
    outcome: str
    reward: float | None
    tokens: int

    @classmethod
    def of(cls, row: Row, split: str) -> Fact:
        """The facts of a row."""
        origin = {name: row["provenance"][name] for name in ("source", "licence", "url")}
        own = {name: row[name] for name in ("family", "policy", "status", "outcome", "reward")}
        tokens = sum(len(turn["completion_ids"]) for turn in row["turns"])
        return cls(split=split, tokens=tokens, **origin, **own)


def dataset_card(facts: Sequence[Fact], report: Report, *, keep: str) -> str:
    """The whole README.md, with the header that the Hub and `datasets` read."""
    template = files(__package__).joinpath("card.md.j2").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        header=_header(facts),
        rows=len(facts),
        splits=_splits(facts),
        keep=keep,
        version=VERSION,
        tokens=amount(sum(fact.tokens for fact in facts)),
        funnel=[
            (line.stage.replace("_", " "), line.count, amount(line.seconds), amount(line.tokens))
            for line in report.funnel
        ],
        families=_outcomes(facts, "family"),
        policies=_outcomes(facts, "policy"),
        sources=_sources(facts),
        statuses=Counter(fact.status for fact in facts).most_common(),
        reward=_reward(facts),
        columns=[(field.name, _type(field.type)) for field in SCHEMA],
    )


def _header(facts: Sequence[Fact]) -> str:
    licences = sorted({fact.licence.lower() for fact in facts})
    known = [licence for licence in licences if licence in _HUB_LICENCES]
    other = ["other"] if len(known) < len(licences) else []
    data_files = [
        {"split": split, "path": f"data/{split}-*.parquet"} for split, _ in _splits(facts)
    ]
    data = DatasetCardData(
        license=known + other,
        task_categories=["text-generation"],
        tags=["agent", "tool-use", "reinforcement-learning", "rollmill"],
        size_categories=next((name for top, name in _SIZES if len(facts) < top), "n>1M"),
        configs=[{"config_name": "default", "data_files": data_files}],
    )
    return str(data.to_yaml())


def _splits(facts: Iterable[Fact]) -> list[tuple[str, int]]:
    counts = Counter(fact.split for fact in facts)
    return [(split, counts[split]) for split in SPLITS if counts[split]]


def _outcomes(facts: Iterable[Fact], name: str) -> list[tuple[str, int, int, int]]:
    counts: dict[str, Counter[str]] = {}
    for fact in facts:
        counts.setdefault(getattr(fact, name), Counter())[fact.outcome] += 1
    return [(key, n["pass"], n["fail"], n["unscored"]) for key, n in sorted(counts.items())]


def _sources(facts: Iterable[Fact]) -> list[tuple[str, str, str, str, int]]:
    counts = Counter((fact.source, fact.licence, _public(fact.url), fact.split) for fact in facts)
    return [(*source, count) for source, count in sorted(counts.items())]


def _public(url: str) -> str:
    """The address, unless it is a folder of somebody's machine."""
    return url if "://" in url and not url.startswith("file:") else "not published"


def _reward(facts: Iterable[Fact]) -> str:
    rewards = [fact.reward for fact in facts if fact.reward is not None]
    if not rewards:
        return "No row has a reward."
    mean = sum(rewards) / len(rewards)
    return (
        f"{len(rewards)} rows have a reward: mean {mean:.3f}, "
        f"lowest {min(rewards):.3f}, highest {max(rewards):.3f}."
    )


def _type(arrow: Any) -> str:
    """An Arrow type as the table shows it: the pipe would end the cell."""
    return str(arrow).replace("item: ", "").replace("|", "\\|")
