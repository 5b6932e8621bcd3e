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
