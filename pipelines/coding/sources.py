"""What a source of coding tasks is, and the list of sources that ship. Fetches nothing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..family import SourceError

SHIPPED = Path(__file__).with_name("sources.toml")
UNSTATED = "LicenseRef-unstated"


class Source(BaseModel):
    """One real package with its own tests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    requirement: str
    """`name==version` on PyPI, a folder, or a git URL (`git+https://…`, `file://…/x.git`)."""
    sha256: str = ""
    """Of the sdist; empty = not checked."""
    licence: str = UNSTATED
    """SPDX identifier; compared with the one the sdist states."""
    packages: tuple[str, ...] = ()
    """Folders or files of the code under test; empty = found by looking."""
    tests: tuple[str, ...] = ()
    """Folders or files of the tests; empty = found by looking."""
    include: tuple[str, ...] = ()
    """More files and folders that the tests read."""
    ignore: tuple[str, ...] = ()
    """Test files or node ids (prefixes) left out."""
    python_path: tuple[str, ...] = ()
    """Folders put on the import path, such as `src`; the working directory always is."""
    suite_timeout_s: float = Field(default=120.0, gt=0)
    split: Literal["train", "held_out"] = "train"

    @property
    def url(self) -> str:
        """Where a person finds it."""
        pinned = re.fullmatch(r"([\w.-]+)==([\w.]+)", self.requirement)
        return f"https://pypi.org/project/{pinned[1]}/{pinned[2]}/" if pinned else self.requirement


def shipped_sources() -> dict[str, Source]:
    """The sources of `sources.toml`, by name."""
    return read_sources(SHIPPED)


def read_sources(path: Path) -> dict[str, Source]:
    """The sources of a file, by name.

    Raises:
        SourceError: it is no TOML, or an entry lacks a field or has an unknown one.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: Source(name=name, **fields) for name, fields in table.items()}
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors()]
        raise SourceError(
            f"{path.name} is not a list of sources: {'; '.join(wrong)}; the fields are "
            f"{', '.join(sorted(set(Source.model_fields) - {'name'}))}"
        ) from error
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise SourceError(
            f"{path} is not a list of sources: {error}; give a TOML file with a table per source"
        ) from error


def find_source(asked: str, known: dict[str, Source]) -> Source:
    """The source that `asked` names: a known one, `name==version`, a folder or a git URL.

    Raises:
        SourceError: it is none of these.
    """
    if asked in known:
        return known[asked]
    if re.fullmatch(r"[\w.-]+==[\w.]+", asked) or is_git(asked):
        return Source(name=asked, requirement=asked)
    if Path(asked).is_dir():
        return Source(name=Path(asked).resolve().name, requirement=str(Path(asked).resolve()))
    raise SourceError(
        f"unknown source {asked!r}; give a folder, a git URL, `name==version`, or one of: "
        f"{', '.join(sorted(known))}"
    )


def is_git(requirement: str) -> bool:
    """True for what `git clone` is asked to fetch."""
    return requirement.startswith(("git+", "file://", "ssh://")) or requirement.endswith(".git")


_CLASSIFIERS = {
    "MIT License": ("MIT",),
    "BSD License": ("BSD-3-Clause", "BSD-2-Clause"),
    "Apache Software License": ("Apache-2.0",),
    "Python Software Foundation License": ("PSF-2.0",),
    "ISC License (ISCL)": ("ISC",),
}


def check_licence(source: Source, stated: str | None, classifiers: tuple[str, ...]) -> str:
    """The licence of a source: the declared one, unless what the package states disagrees.

    Args:
        stated: the package's own SPDX expression; None = it gives none.

    Raises:
        SourceError: the two disagree.
    """
    if stated:
        possible: tuple[str, ...] = (stated,)
    else:
        known = [_CLASSIFIERS[c] for c in classifiers if c in _CLASSIFIERS]
        possible = tuple(spdx for group in known for spdx in group)
    if source.licence == UNSTATED:
        return possible[0] if len(possible) == 1 else UNSTATED
    if possible and source.licence not in possible:
        raise SourceError(
            f"source {source.name} is declared {source.licence}, its metadata states "
            f"{' or '.join(possible)}; correct `licence` in the list of sources"
        )
    return source.licence
