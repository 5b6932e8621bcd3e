"""Which split a row belongs to: by its source, so that nothing of one source crosses splits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

TEST_PERCENT = 10
VALIDATION_PERCENT = 10


def origin(source: str) -> str:
    """The source without its version, so that two versions of one package stay together."""
    return re.split(r"==|@(?=[^/@]*$)", source)[0].strip().lower()


def by_hash(source: str) -> Split:
    """The same split for a source in every export, whatever else is exported."""
    percent = int(hashlib.sha256(f"split {origin(source)}".encode()).hexdigest(), 16) % 100
    if percent < TEST_PERCENT:
        return "test"
    return "validation" if percent < TEST_PERCENT + VALIDATION_PERCENT else "train"


def by_list(held_out: Collection[str]) -> Callable[[str], Split]:
    """A rule that sends the named sources, in any version, to the test split."""
    named = {origin(source) for source in held_out}
    return lambda source: "test" if origin(source) in named else "train"
