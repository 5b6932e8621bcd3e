"""Whether an answer rests on passages that it names, and whether a quote stands in a text.

A passage is a file of the task's seed; its name is its path. Where names cannot be guessed, naming
one shows that it was found. It does not tell whether the reasoning follows from the passages.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .reading import summary
from .sameness import even
from .types import Check

NUMBER = re.compile(r"(?<![\w.,])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w]|[.,]\d)")
MIN_QUOTE_CHARS = 8
"""A shorter quote stands almost anywhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceRule:
    """What an answer's sources must be."""

    key: str = "sources"
    """The answer's key: a list of paths, or of `{"passage": path, "quote": text}`."""
    required: Sequence[Sequence[str]] = ()
    """Of each group at least one passage must be named."""
    most: int = 5
    """More sources than this are no evidence but a listing."""
    supports: Sequence[str] = ()
    """Keys of the answer whose values must stand in one of the named passages."""
    quotes: bool = False
    """True = each source must come with a quote."""


def check_evidence(
    answer: Mapping[str, Any], rule: EvidenceRule, passages: Mapping[str, bytes]
) -> Check:
    """Whether the sources exist, hold what is quoted, suffice, and hold the answer."""
    sources = answer.get(rule.key)
    if not isinstance(sources, list) or not sources:
        wrong = [f"expected a list of passages under {rule.key!r}, got {str(sources)[:80]!r}"]
        return summary("evidence", wrong)
    wrong = [] if len(sources) <= rule.most else [f"expected at most {rule.most} sources"]
    texts: dict[str, str] = {}
    for source in sources[: rule.most]:
        path, quote = (
            (source.get("passage"), source.get("quote"))
            if isinstance(source, dict)
            else (source, None)
        )
        if not isinstance(path, str) or path not in passages:
            wrong.append(f"expected a passage that exists, got {str(path)[:80]!r}")
            continue
        texts[path] = passages[path].decode("utf-8", "replace")
        if quote is None and rule.quotes:
            wrong.append(f"{path}: expected a quote with it")
        elif quote is not None and not stands_in(quote, texts[path]):
            wrong.append(f"{path}: expected a quote that stands there, got {str(quote)[:80]!r}")
    for group in rule.required:
        if not any(path in texts for path in group):
            wrong.append(f"expected one of {', '.join(group)} among the sources")
    for key in rule.supports:
        for value in _values(answer.get(key, "")):
            if not any(_supported(value, text) for text in texts.values()):
                told = str(value)[:60]
                wrong.append(f"expected {key} ({told!r}) to stand in a named passage")
    return summary("evidence", wrong)


def stands_in(quote: Any, text: str, *, least: int = MIN_QUOTE_CHARS) -> bool:
    """Whether a quote stands in a text as whole words, whatever its spaces, case and dashes."""
    if not isinstance(quote, str) or len(_plain(quote)) < least:
        return False
    return re.search(rf"(?<!\w){re.escape(_plain(quote))}(?!\w)", _plain(text)) is not None


def _values(value: Any) -> Sequence[Any]:
    """The single values of an answer; an empty list rests on nothing, as an empty text does."""
    return value if isinstance(value, list) and value else [value]


def _supported(value: Any, text: str) -> bool:
    """Whether a value stands in a text, a number however it is written: `1,200`, `1200.0`."""
    number = None if isinstance(value, bool) else _number(str(value))
    if number is None:
        return stands_in(str(value), text, least=1)
    return any(_number(found[0]) == number for found in NUMBER.finditer(_plain(text)))


def _number(text: str) -> Decimal | None:
    """A number written plainly, with separators of thousands or a unit; None = it is none."""
    found = NUMBER.fullmatch(text.strip().lstrip("$€£").rstrip("% "))
    return Decimal(found[0].replace(",", "")) if found else None


def _plain(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).translate(str.maketrans("‘’“”–—", "''\"\"--"))
    return even(plain)
