"""Judges the text of a file by criteria that only a reader can decide, through a panel of judges.

For what nothing deterministic can tell; every other verifier is cheaper and surer. A judge's word
counts only with a passage of the work behind it, and what the panel cannot decide is `unscored`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..workspaces import Workspace
from .content import content_of
from .integrity_office import INJECTION
from .reading import lay_original
from .rubric_panel import Judge, Statement, Vote, ask_panel
from .types import Check, Outcome, Verdict, VerifierSpec, judge

RUBRIC = "rubric.json"
AGREEMENT = "agreement"
COUNTED = re.compile(r"(\d+) of (\d+) votes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """One thing that work is judged by."""

    name: str
    text: str
    """A sentence that a passage of the work can show to be true. What must be absent is stated as
    a negative criterion."""
    kind: Literal["positive", "negative", "critical"] = "positive"
    """Positive and critical ones must be met, negative ones must not; a critical one that is not
    met takes the whole score."""
    weight: float = 1.0
    words: Sequence[str] = ()
    """A quote must hold at least one of these; empty = any quote."""

    def __post_init__(self) -> None:
        if self.kind not in ("positive", "negative", "critical") or not self.weight > 0:
            raise ValueError(
                f"criterion {self.name!r}: expected positive, negative or critical and a weight "
                f"above 0, got {self.kind!r} and {self.weight}"
            )


class RubricVerifier:
    """Passes when the panel finds every criterion as it should be.

    Params: `path`, a text file, document, deck or workbook; `repeats`, how often each judge is
    asked (1). Hidden asset `rubric.json`: `criteria`, with the fields of `Criterion`; `asked`, what
    the judges are told of the task, if anything.

    Args:
        panel: who judges; without anybody every verdict is `unscored`.
    """

    name: ClassVar[str] = "rubric"
    version: ClassVar[str] = "1"

    def __init__(self, panel: Sequence[Judge] = ()) -> None:
        self._panel = tuple(panel)

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the text in `workspace`; see `Verifier.verify`."""
        path, rubric = spec.params["path"], json.loads(hidden[RUBRIC])
        criteria = criteria_of(rubric)
        judged = f"{self.name}@{self.version}"
        content = await content_of(workspace, path)
        if isinstance(content, Check):
            return judge((content,), verifier=judged)
        speaks = await _speaks_to_judges(workspace, path, content)
        if speaks is not None:
            return Verdict(outcome="fail", score=0.0, checks=(speaks,), verifier=judged)
        if not self._panel:
            told = "expected a judge, got none; name one with --judge openai:URL#MODEL"
            check = Check(name="panel", outcome="unscored", evidence=told)
            return judge((check,), verifier=judged)
        votes = await ask_panel(
            self._panel,
            [Statement(text=each.text, words=each.words) for each in criteria],
            content,
            asked=rubric.get("asked", ""),
            repeats=spec.params.get("repeats", 1),
        )
        names = ", ".join(judge.name for judge in self._panel)
        return weigh(criteria, votes, judges=names, verifier=judged)


def criteria_of(rubric: Mapping[str, Any]) -> list[Criterion]:
    """The criteria of a `rubric.json`.

    Raises:
        ValueError: they cannot tell work from no work, or two have the same name.
    """
    criteria = [Criterion(**fields) for fields in rubric["criteria"]]
    if all(each.kind == "negative" for each in criteria):
        raise ValueError(
            "expected a positive or critical criterion, got none; an empty page passes"
        )
    if len({each.name for each in criteria}) < len(criteria):
        raise ValueError(f"expected each name once, got {[each.name for each in criteria]}")
    return criteria


def weigh(
    criteria: Sequence[Criterion], votes: Sequence[Sequence[Vote]], *, judges: str, verifier: str
) -> Verdict:
    """One check a criterion, decided by most votes, and one that tells how far judges agreed.

    The score is the weight of what is met, less that of negative criteria that are, as a share of
    what could be met; 0 when a critical one is not.
    """
    pairs = list(zip(criteria, votes, strict=True))
    checks = (*(_check(*pair) for pair in pairs), _agreement(votes, judges))
    outcomes = [check.outcome for check in checks]
    if "fail" not in outcomes or "unscored" in outcomes:
        return judge(checks, verifier=verifier)
    met = [criterion for criterion, cast in pairs if decided(cast)]
    asked = [each for each in criteria if each.kind != "negative"]
    if any(each.kind == "critical" and each not in met for each in asked):
        return Verdict(outcome="fail", score=0.0, checks=checks, verifier=verifier)
    earned = sum(each.weight * (-1 if each.kind == "negative" else 1) for each in met)
    share = max(earned, 0.0) / sum(each.weight for each in asked)
    return Verdict(outcome="fail", score=share, checks=checks, verifier=verifier)


def decided(votes: Sequence[Vote]) -> bool | None:
    """What most votes say; None = half of them or more cannot be used, or they are even."""
    cast = [vote.met for vote in votes if vote.met is not None]
    if 2 * len(cast) <= len(votes) or 2 * sum(cast) == len(cast):
        return None
    return 2 * sum(cast) > len(cast)


def agreement_of(verdict: Verdict) -> tuple[int, int] | None:
    """How many votes went with the decision, and how many were cast; None = no panel voted.

    On a gold solution that passes, the decision is the right answer.
    """
    for check in verdict.checks:
        counted = COUNTED.match(check.evidence) if check.name == AGREEMENT else None
        if counted:
            return int(counted[1]), int(counted[2])
    return None


def _check(criterion: Criterion, votes: Sequence[Vote]) -> Check:
    met = decided(votes)
    said = f"{criterion.kind}, met by {sum(vote.met is True for vote in votes)} of {len(votes)}"
    quote = next((vote.quote for vote in votes if vote.quote), "")
    problem = next((vote.problem for vote in votes if vote.problem), "")
    evidence = "; ".join(filter(None, [said, quote and f"quote {quote[:150]!r}", problem]))
    outcome: Outcome = "unscored"
    if met is not None:
        outcome = "pass" if met == (criterion.kind != "negative") else "fail"
    return Check(name=criterion.name, outcome=outcome, evidence=evidence[:400])


def _agreement(votes: Sequence[Sequence[Vote]], judges: str) -> Check:
    cast = [(vote.met, decided(each)) for each in votes for vote in each if vote.met is not None]
    same = sum(met == decision for met, decision in cast)
    evidence = f"{same} of {len(cast)} votes with the decision; judges: {judges}"
    return Check(name=AGREEMENT, outcome="pass", evidence=evidence[:400])


async def _speaks_to_judges(workspace: Workspace, path: str, content: str) -> Check | None:
    """The check that fails when the work speaks to its judge and the seed's file did not."""
    found = INJECTION.search(content.encode())
    if found is None:
        return None
    original = await lay_original(workspace, path)
    before = await content_of(workspace, original) if original else ""
    if isinstance(before, str) and INJECTION.search(before.encode()):
        return None
    told = f"expected words to the reader, got words to the judge: {found[0].decode()!r}"
    return Check(name="words to the judge", outcome="fail", evidence=told)
