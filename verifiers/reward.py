"""From a verdict and what an agent did to one reward per turn, every part kept by name.

`r_t = alpha * process_t + [t is the last] * (beta * h(T / T_baseline) + outcome)`. The parts that
an episode stores do not depend on the weights, so that it can be weighed anew without being run
anew; its seconds are among its timings. The weights and h are our choice: none were published.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OUTCOME = "outcome"
MIXED_SHARE = 0.1
"""Letters of other scripts than the task's, of all letters, from which a reply mixes languages."""
FEWEST_LETTERS = 20
"""Shorter replies are not looked at for their language."""
NEUTRAL_SCRIPTS = frozenset({"GREEK", "MICRO", "OHM", "ANGSTROM", "MATHEMATICAL"})
"""Of formulas and units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one turn did, as far as it is weighed."""

    text: str
    """Reasoning and content."""
    calls: tuple[str, ...]
    """Name and arguments of each tool call as one text."""
    format_error: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """What each part counts for. The outcome counts 1."""

    alpha: float = 0.1
    """Of the process: a turn's faults weigh at most a tenth of each term below."""
    beta: float = 0.1
    """Of the speed; it never outweighs the outcome."""
    format: float = 1.0
    """Of a reply that could not be used."""
    language: float = 0.5
    """Of a reply that mixes in other scripts than the task's."""
    repeat: float = 0.5
    """Of calls that are exactly those of the turn before."""

    def of(self, term: str) -> float:
        """The weight of a process term by its name.

        Raises:
            ValueError: there is no such term.
        """
        if term not in TERMS:
            raise ValueError(f"unknown process term {term!r}; choose from: {', '.join(TERMS)}")
        return float(getattr(self, term))


TERMS = ("format", "language", "repeat")


def process_parts(steps: Sequence[Step], *, instruction: str) -> dict[str, float]:
    """The faults of an episode's turns as `TERM@TURN` -> -1; a turn without faults adds nothing.

    Running a command again is no fault when something else was done in between.
    """
    parts: dict[str, float] = {}
    for number, step in enumerate(steps):
        faults = {
            "format": step.format_error,
            "language": mixes_languages(step.text, instruction),
            "repeat": number > 0 and bool(step.calls) and step.calls == steps[number - 1].calls,
        }
        parts |= {f"{term}@{number}": -1.0 for term, faulty in faults.items() if faulty}
    return parts


def mixes_languages(text: str, instruction: str) -> bool:
    """Whether a text has a good share of letters from other scripts than the instruction's."""
    own, scripts = set(_scripts(instruction)), _scripts(text)
    letters = sum(scripts.values())
    foreign = sum(count for script, count in scripts.items() if script not in own)
    return letters >= FEWEST_LETTERS and bool(own) and foreign > MIXED_SHARE * letters


def speed(elapsed_s: float, baseline_s: float) -> float:
    """`h(T / T_baseline) = 1 / (1 + T / T_baseline)`: 1/2 at the baseline, falling, within (0, 1].

    Args:
        elapsed_s: wall clock of the episode.
        baseline_s: of a reference, such as the median of the task's passing episodes.

    Raises:
        ValueError: a time that cannot be.
    """
    if elapsed_s < 0 or baseline_s <= 0:
        raise ValueError(
            f"expected seconds >= 0 against a baseline > 0, got {elapsed_s} and {baseline_s}"
        )
    return baseline_s / (baseline_s + elapsed_s)


def rewards_per_turn(
    parts: Mapping[str, float],
    turns: int,
    *,
    weights: Weights = Weights(),
    speed: float = 0.0,
) -> list[float]:
    """The composite reward of each turn.

    Args:
        parts: as an episode stores them: `outcome`, and process terms as `TERM@TURN`.
        turns: how many the episode has.
        speed: see `speed()`; 0 = not weighed. It counts only where the outcome is above 0, or
            giving up at once would pay.

    Raises:
        ValueError: a part that is not known, or of a turn that is not there.
    """
    if not turns:
        return []
    rewards = [0.0] * turns
    for name, value in parts.items():
        if name == OUTCOME:
            continue
        term, _, number = name.partition("@")
        if not number.isdigit() or int(number) >= turns:
            raise ValueError(f"expected TERM@TURN with a turn below {turns}, got {name!r}")
        rewards[int(number)] += weights.alpha * weights.of(term) * value
    outcome = parts.get(OUTCOME, 0.0)
    rewards[-1] += outcome + (weights.beta * speed if outcome > 0 else 0.0)
    return rewards


def _scripts(text: str) -> Counter[str]:
    """Letters by script; scripts that every language borrows are left out."""
    names = (unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
    return Counter(name for name in names if name not in NEUTRAL_SCRIPTS)
