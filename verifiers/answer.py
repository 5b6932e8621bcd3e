"""Judges an answer file: a JSON object compared, key by key, with the hidden one.

It sees the answer and the passages that it names, not how they were found.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from ..workspaces import KIB, FileRefused, Workspace, unpack_tree
from .evidence import EvidenceRule, check_evidence
from .sameness import even, near
from .types import Check, Verdict, VerifierSpec, judge

EXPECTED, EVIDENCE = "expected.json", "evidence.json"
MAX_BYTES = 64 * KIB
NUMBER = re.compile(r"[$€£]?\s*(-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?)\s*%?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What one key of an answer must hold."""

    value: Any
    """A number, a text, a boolean, or a list of them."""
    absolute: float | None = None
    """How far off a number may be; None = 1e-6 of the value."""
    any_of: Sequence[Any] = ()
    """Other values that are as right."""
    loose: bool = False
    """True = texts without regard to accents, punctuation and a leading article; numbers also as
    text with separators of thousands."""
    ordered: bool = True
    """False = the items of a list may come in any order."""


class AnswerVerifier:
    """Passes when every key is there, no other is, and each value is right.

    Params: `path`, the answer file. Hidden asset `expected.json`: key -> the fields of `Wanted`.
    Hidden asset `evidence.json`, if any: the fields of `EvidenceRule`; the answer must then rest on
    passages of the seed that it names. Texts are compared without regard to case and outer spaces.
    """

    name: ClassVar[str] = "answer"
    version: ClassVar[str] = "3"

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the answer in `workspace`; see `Verifier.verify`."""
        expected = json.loads(hidden[EXPECTED])
        rule = EvidenceRule(**json.loads(hidden[EVIDENCE])) if EVIDENCE in hidden else None
        try:
            answer = parse_answer(await workspace.get(spec.params["path"], max_bytes=MAX_BYTES))
        except FileNotFoundError:
            checks: tuple[Check, ...] = (_unreadable(f"there is no {spec.params['path']}"),)
        except (FileRefused, ValueError) as error:
            checks = (_unreadable(f"{spec.params['path']}: {error}"),)
        else:
            rest = {k: v for k, v in answer.items() if rule is None or k != rule.key}
            checks = compare_answer(rest, expected)
            if rule is not None:
                seed = unpack_tree(workspace.spec.seed)
                checks = (*checks, check_evidence(answer, rule, seed))
        return judge(checks, verifier=f"{self.name}@{self.version}")


def parse_answer(data: bytes) -> dict[str, Any]:
    """The JSON object of an answer file.

    Raises:
        ValueError: it is anything else.
    """
    try:
        answer = json.loads(data, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ValueError(f"expected JSON in UTF-8, got other bytes ({error.reason})") from error
    except RecursionError as error:
        raise ValueError("expected a flat JSON object, got one nested too deeply") from error
    if not isinstance(answer, dict):
        raise ValueError(f"expected a JSON object, got {_shown(answer)}")
    return answer


def compare_answer(
    answer: Mapping[str, Any], expected: Mapping[str, Mapping[str, Any]]
) -> tuple[Check, ...]:
    """One check a key; a key that was not asked for fails too."""
    checks = [_compare(key, answer, **wanted) for key, wanted in expected.items()]
    unasked = [key for key in answer if key not in expected]
    if unasked:
        evidence = f"expected only the keys {', '.join(expected)}; got also {_shown(unasked)}"
        checks.append(Check(name="keys", outcome="fail", evidence=evidence))
    return tuple(checks)


def _compare(key: str, answer: Mapping[str, Any], **fields: Any) -> Check:
    wanted = Wanted(**fields)
    if key not in answer:
        evidence = f"expected the key {key!r}, got {_shown(list(answer))}"
        return Check(name=key, outcome="fail", evidence=evidence)
    values = (wanted.value, *wanted.any_of)
    right = any(_same(answer[key], value, wanted) for value in values)
    evidence = "" if right else f"expected {_shown(wanted.value)}, got {_shown(answer[key])}"
    return Check(name=key, outcome="pass" if right else "fail", evidence=evidence)


def _same(got: Any, value: Any, wanted: Wanted) -> bool:
    if isinstance(value, bool) or isinstance(got, bool):
        return got is value
    if isinstance(value, list):
        return isinstance(got, list) and _same_list(got, value, wanted)
    if isinstance(value, str):
        plain = _loose if wanted.loose else even
        return isinstance(got, str) and plain(got) == plain(value)
    if isinstance(got, str) and wanted.loose:
        got = _number(got)
    if not isinstance(got, (int, float)):
        return False
    return near(got, value, wanted.absolute)


def _same_list(got: list[Any], value: list[Any], wanted: Wanted) -> bool:
    if len(got) != len(value):
        return False
    if wanted.ordered:
        return all(_same(*pair, wanted) for pair in zip(got, value, strict=True))
    left = list(value)
    for each in got:
        found = next((at for at, other in enumerate(left) if _same(each, other, wanted)), None)
        if found is None:
            return False
        left.pop(found)
    return True


def _loose(text: str) -> str:
    """Without case, accents, punctuation and a leading article."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    words = re.sub(r"[^\w\s]", " ", bare.casefold()).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def _number(text: str) -> float | None:
    """A number written with separators of thousands, a currency or a percent sign behind it."""
    found = NUMBER.fullmatch(text.strip())
    return float(found[1].replace(",", "")) if found else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("expected each key once, got one twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"expected finite numbers, got {name}")


def _unreadable(evidence: str) -> Check:
    return Check(name="readable", outcome="fail", evidence=evidence[:300])
