"""Judges the state of an app: the changes that were asked for, and none besides.

The state is a JSON document that the app keeps. Before is the task's seed, after is the artifact.
What the app did in between is not looked at.
"""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

from ..workspaces import MIB, FileRefused, Workspace, unpack_tree
from .answer import parse_answer
from .reading import summary
from .types import Check, Verdict, VerifierSpec

EXPECTED = "expected.json"
MAX_BYTES = 4 * MIB
MAX_ENTRIES = 200_000
PENALTY = 0.25
"""What each undesired change takes from the score."""


class _Absent:
    """Stands where there is no entry; equal to nothing that a state can hold."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT = _Absent()

Entries = dict[str, Any]
"""Pointer such as `/orders/17/status` -> text, number, boolean, null, or an empty container."""


class StateVerifier:
    """Passes when the state changed as asked and nowhere else.

    Params: `path`, the state's file; `penalty`, what each undesired change takes from the score.
    Hidden asset `expected.json`: `changes`, pointer -> `{"after": V}` with an optional `absolute`,
    or `{"absent": true}` for what must be gone; `ignore`, patterns of pointers that may change
    (`/log/*`); `ids`, pointer of a list -> the field by which its items are told apart.
    """

    name: ClassVar[str] = "state"
    version: ClassVar[str] = "2"

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the state in `workspace`; see `Verifier.verify`."""
        path, expected = spec.params["path"], json.loads(hidden[EXPECTED])
        seed = unpack_tree(workspace.spec.seed)
        ids = expected.get("ids", {})
        before = flat(json.loads(seed[path]), ids) if path in seed else {}
        judged = f"{self.name}@{self.version}"
        try:
            after = flat(parse_answer(await workspace.get(path, max_bytes=MAX_BYTES)), ids)
        except FileNotFoundError:
            check = Check(name="readable", outcome="fail", evidence=f"there is no {path}")
        except (FileRefused, ValueError) as error:
            check = Check(name="readable", outcome="fail", evidence=f"{path}: {error}"[:300])
        else:
            return judge_state(
                before,
                after,
                expected["changes"],
                ignore=expected.get("ignore", ()),
                penalty=spec.params.get("penalty", PENALTY),
                verifier=judged,
            )
        return Verdict(outcome="fail", score=0.0, checks=(check,), verifier=judged)


def judge_state(
    before: Entries,
    after: Entries,
    changes: Mapping[str, Mapping[str, Any]],
    *,
    ignore: Sequence[str] = (),
    penalty: float = PENALTY,
    verifier: str,
) -> Verdict:
    """One check a desired change, one for all others. Doing nothing scores 0.

    The score is the share of desired changes made, less `penalty` for each undesired one.
    """
    wanted = [_made(at, after, change) for at, change in changes.items()]
    undesired = [
        f"{at}: expected {before.get(at, ABSENT)!r} as before, got {after.get(at, ABSENT)!r}"
        for at in dict.fromkeys([*before, *after])
        if not _equal(before.get(at, ABSENT), after.get(at, ABSENT))
        and not any(at == each or at.startswith(f"{each}/") for each in changes)
        and not (_emptied(before, after, at) and any(e.startswith(f"{at}/") for e in changes))
        and not any(fnmatch.fnmatchcase(at, pattern) for pattern in ignore)
    ]
    checks = (*wanted, summary("nothing else", undesired))
    if all(check.outcome == "pass" for check in checks):
        return Verdict(outcome="pass", score=1.0, checks=checks, verifier=verifier)
    done = sum(check.outcome == "pass" for check in wanted) / max(len(wanted), 1)
    score = min(max(0.0, done - penalty * len(undesired)), 0.99)
    return Verdict(outcome="fail", score=score, checks=checks, verifier=verifier)


def flat(state: Any, ids: Mapping[str, str] | None = None) -> Entries:
    """A state as pointer -> value.

    Args:
        ids: pointer of a list -> the field that names its items; other lists go by place.

    Raises:
        ValueError: it has too many entries, or two items of a list bear the same name.
    """
    found: Entries = {}
    try:
        entries = list(islice(_walk(state, "", ids or {}), MAX_ENTRIES + 1))
    except RecursionError as error:
        raise ValueError("expected a state, got one nested too deeply") from error
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"expected at most {MAX_ENTRIES} entries, got more")
    for at, value in entries:
        if at in found:
            raise ValueError(f"expected one item named {at}, got two")
        found[at] = value
    return found


def _walk(value: Any, at: str, ids: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        items: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list) and value:
        field = ids.get(at)
        named = field is not None and all(isinstance(v, dict) and field in v for v in value)
        items = [(v[field] if named else n, v) for n, v in enumerate(value)]
    else:
        yield at, value
        return
    for name, inner in items:
        escaped = str(name).replace("~", "~0").replace("/", "~1")
        yield from _walk(inner, f"{at}/{escaped}", ids)


def _made(at: str, entries: Entries, change: Mapping[str, Any]) -> Check:
    """Whether a desired change was made: a whole value, or nothing at or below the pointer."""
    below = {name[len(at) :]: v for name, v in entries.items() if name.startswith(f"{at}/")}
    got = {"": entries[at]} if at in entries else below
    wanted = {} if change.get("absent") else flat(change["after"])
    right = got.keys() == wanted.keys() and all(
        _equal(got[name], value, change.get("absolute", 0.0)) for name, value in wanted.items()
    )
    told = "nothing" if change.get("absent") else repr(change["after"])
    evidence = "" if right else f"{at}: expected {told}, got {got or ABSENT!r}"[:300]
    return Check(name=at, outcome="pass" if right else "fail", evidence=evidence)


def _emptied(before: Entries, after: Entries, at: str) -> bool:
    """Whether only the emptiness of a container came or went, as when its one item does."""
    return all(entries.get(at, ABSENT) in ({}, [], ABSENT) for entries in (before, after))


def _equal(left: Any, right: Any, absolute: float = 0.0) -> bool:
    """Whether two values are the same; whole numbers to the last digit, others nearly."""
    if type(left) is int and type(right) is int:
        return abs(left - right) <= absolute
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (left, right)):
        exact = max(abs(left), abs(right)) >= 2**53  # where a float skips whole numbers
        near = math.isclose(left, right, rel_tol=0.0, abs_tol=max(absolute, 1e-9))
        return bool(left == right) if exact and not absolute else near
    return type(left) is type(right) and bool(left == right)
