"""Judges an answer file: a JSON object compared, key by key, with the hidden one.

It sees the answer alone, not how it was found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from ..workspaces import KIB, FileRefused, Workspace
from .types import Check, Verdict, VerifierSpec, judge

EXPECTED = "expected.json"
MAX_BYTES = 64 * KIB


class AnswerVerifier:
    """Passes when every key is there, no other is, and each value is right.

    Params: `path`, the answer file. Hidden asset `expected.json`: key -> `{"value": V}`, where V
    is a number, a text or a boolean; a number may carry `absolute`, how far off it may be (1e-6 of
    the value when it is left out). Texts are compared without regard to case and outer spaces.
    """

    name: ClassVar[str] = "answer"
    version: ClassVar[str] = "1"

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the answer in `workspace`; see `Verifier.verify`."""
        expected = json.loads(hidden[EXPECTED])
        try:
            answer = parse_answer(await workspace.get(spec.params["path"], max_bytes=MAX_BYTES))
        except FileNotFoundError:
            checks: tuple[Check, ...] = (_unreadable(f"there is no {spec.params['path']}"),)
        except (FileRefused, ValueError) as error:
            checks = (_unreadable(f"{spec.params['path']}: {error}"),)
        else:
            checks = compare_answer(answer, expected)
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


def _compare(
    key: str, answer: Mapping[str, Any], value: Any, absolute: float | None = None
) -> Check:
    if key not in answer:
        evidence = f"expected the key {key!r}, got {_shown(list(answer))}"
        return Check(name=key, outcome="fail", evidence=evidence)
    right = _same(answer[key], value, absolute)
    evidence = "" if right else f"expected {_shown(value)}, got {_shown(answer[key])}"
    return Check(name=key, outcome="pass" if right else "fail", evidence=evidence)


def _same(got: Any, wanted: Any, absolute: float | None) -> bool:
    if isinstance(wanted, bool) or isinstance(got, bool):
        return got is wanted
    if isinstance(wanted, str):
        return isinstance(got, str) and _plain(got) == _plain(wanted)
    if not isinstance(got, (int, float)):
        return False
    relative = 1e-6 if absolute is None else 0.0
    try:
        return math.isclose(got, wanted, rel_tol=relative, abs_tol=absolute or 1e-9)
    except OverflowError:  # an integer too long for a float
        return False


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


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
