"""Proof that the turns of an episode are what was sampled, each token to be learned once.

Looks at token ids and their order only; whether the text means anything is the verifier's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..trajectory import Trajectory, Turn
from .errors import BrokenTrajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What was proven whole."""

    episodes: int
    turns: int
    sampled_tokens: int
    """Each stands on exactly one path as a token to be learned."""


def prove(trajectories: Iterable[Trajectory]) -> Proof:
    """Check every episode, and that none comes twice.

    Raises:
        BrokenTrajectory: the first that does not hold, by its id.
    """
    seen: set[str] = set()
    turns = tokens = 0
    for trajectory in trajectories:
        if trajectory.episode_id in seen:
            raise BrokenTrajectory(
                f"episode {trajectory.episode_id} comes twice; its tokens would be learned twice"
            )
        seen.add(trajectory.episode_id)
        check(trajectory)
        turns += len(trajectory.turns)
        tokens += sum(
            len(trajectory.turns[index].completion_ids)
            for _, fresh in learned(trajectory.turns)
            for index in fresh
        )
    return Proof(episodes=len(seen), turns=turns, sampled_tokens=tokens)


def check(trajectory: Trajectory) -> None:
    """Check one episode.

    Raises:
        BrokenTrajectory: a parent that does not come before its turn, logprobs that do not match
            the tokens, ids without a tokenizer, or a message whose ids no turn sampled.
    """
    complaint = _complaint(trajectory)
    if complaint:
        raise BrokenTrajectory(
            f"episode {trajectory.episode_id}: {complaint}; drop the row and generate it again"
        )


def paths(turns: Sequence[Turn]) -> list[tuple[int, ...]]:
    """Every way from a root to a leaf, as indices of turns; one training sequence each."""
    inner = {turn.parent for turn in turns}
    return [_ancestry(turns, leaf) for leaf in range(len(turns)) if leaf not in inner]


def learned(turns: Sequence[Turn]) -> list[tuple[tuple[int, ...], frozenset[int]]]:
    """Every path with the turns that are learned on it: those no earlier path has learned."""
    taken: set[int] = set()
    result = []
    for path in paths(turns):
        fresh = frozenset(path) - taken
        taken |= fresh
        result.append((path, fresh))
    return result


def prompt(turns: Sequence[Turn], index: int) -> tuple[int, ...]:
    """The whole prompt that the sampler saw for one turn."""
    *before, last = (turns[i] for i in _ancestry(turns, index))
    history = [token for turn in before for token in (*turn.prompt_ids, *turn.completion_ids)]
    return (*history, *last.prompt_ids)


def _complaint(trajectory: Trajectory) -> str:
    for index, turn in enumerate(trajectory.turns):
        if turn.parent is not None and not 0 <= turn.parent < index:
            return f"turn {index} names {turn.parent} as its parent, not an earlier turn"
        if turn.logprobs and len(turn.logprobs) != len(turn.completion_ids):
            return (
                f"turn {index} has {len(turn.completion_ids)} tokens "
                f"and {len(turn.logprobs)} logprobs"
            )
        if turn.completion_ids and not trajectory.tokenizer:
            return f"turn {index} has token ids, but no tokenizer is named"
    return _message_complaint(trajectory)


def _message_complaint(trajectory: Trajectory) -> str:
    sampled = iter(turn.completion_ids for turn in trajectory.turns)
    for index, message in enumerate(trajectory.messages):
        if message.token_ids is not None and message.token_ids not in sampled:
            return f"the token ids of message {index} were sampled in no turn, or out of order"
    return ""


def _ancestry(turns: Sequence[Turn], index: int) -> tuple[int, ...]:
    """The way from the root to a turn."""
    way = [index]
    while (parent := turns[way[-1]].parent) is not None:
        way.append(parent)
    return tuple(reversed(way))
