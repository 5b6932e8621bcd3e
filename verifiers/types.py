"""What a verifier is asked and what it answers. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["pass", "fail", "unscored"]
"""`unscored` = could not tell; it never becomes a zero."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifierSpec:
    """Which verifier judges a task, with which parameters (JSON values only)."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at, and what was seen."""

    name: str
    outcome: Outcome
    evidence: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What an artifact is worth."""

    outcome: Outcome
    score: float
    """In [0, 1]; 1 exactly when the outcome is `pass`, 0 when `unscored`."""
    checks: tuple[Check, ...] = ()
    verifier: str = ""
    """Name and version of what judged, as `name@version`."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.score <= 1.0 or (self.outcome == "pass") != (self.score == 1.0):
            raise ValueError(
                f"a score of 1 must go with 'pass' and no other, got {self.outcome} {self.score}"
            )


def judge(checks: tuple[Check, ...], *, verifier: str) -> Verdict:
    """All pass = pass; one that could not tell = unscored; else fail with the share that passed."""
    outcomes = [check.outcome for check in checks]
    if not outcomes or "unscored" in outcomes:
        return Verdict(outcome="unscored", score=0.0, checks=checks, verifier=verifier)
    share = outcomes.count("pass") / len(outcomes)
    outcome: Outcome = "pass" if share == 1.0 else "fail"
    return Verdict(outcome=outcome, score=share, checks=checks, verifier=verifier)


def judge_edit(
    work: tuple[Check, ...],
    kept: tuple[Check, ...],
    *,
    verifier: str,
    share_kept: float | None = None,
) -> Verdict:
    """As `judge`, but what was only kept as it was earns nothing: doing nothing scores 0.

    The score is the share of `work` that passed times the share of `kept` that passed.

    Args:
        share_kept: where `kept` does not list all that was to be kept.
    """
    whole = judge((*work, *kept), verifier=verifier)
    if whole.outcome != "fail":
        return whole
    done = sum(check.outcome == "pass" for check in work) / max(len(work), 1)
    if share_kept is None:
        share_kept = sum(c.outcome == "pass" for c in kept) / len(kept) if kept else 1.0
    return Verdict(outcome="fail", score=done * share_kept, checks=whole.checks, verifier=verifier)


def failures(checks: tuple[Check, ...]) -> int:
    """How many of the checks fail."""
    return sum(check.outcome == "fail" for check in checks)


def new_work(
    after: tuple[Check, ...], before: tuple[Check, ...]
) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    """The checks that the seed failed, and those that it passed, which are only to be kept."""
    held = {check.name for check in before if check.outcome == "pass"}
    work = tuple(check for check in after if check.name not in held)
    return work, tuple(check for check in after if check.name in held)
