"""Which family makes tasks from which source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..pipelines.family import Family, SourceError, Split


def choose_sources(
    families: Sequence[Family[Any]], asked: Sequence[str], split: Split
) -> dict[str, list[str]]:
    """Sources by family name: those asked for, else the shipped ones of the split.

    A source that no family ships goes to the coding families, which also take packages,
    folders and repositories.

    Raises:
        SourceError: a family is left without a source, or none can use one that was asked for.
    """
    if not asked:
        return {family.name: list(family.sources(split)) for family in families}
    shipped = {name for family in families for name in family.sources()}
    chosen = {
        family.name: [
            name
            for name in asked
            if name in family.sources() or (_is_code(name) and family.domain == "coding")
        ]
        for family in families
    }
    for name in asked:
        if not any(name in names for names in chosen.values()):
            raise SourceError(
                f"unknown source {name!r} for {', '.join(chosen)}; "
                "give name==version on PyPI, a folder, a git URL, or one of: "
                f"{', '.join(sorted(shipped))}"
            )
    for family in families:
        if not chosen[family.name]:
            raise SourceError(
                f"no source given for the family {family.name!r}; leave it out of --tasks or add "
                f"one of: {', '.join(sorted(family.sources()))}"
            )
    return chosen


def _is_code(name: str) -> bool:
    return "==" in name or "/" in name or Path(name).is_dir()
