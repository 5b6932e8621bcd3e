"""How likely the tokens of prompts were: for scoring texts, and as a reference's log-probabilities.

Works on what a forward pass left behind; the logits of all of a prompt never exist together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

import torch

from .decoder import Span
from .sampling import score
from .scheduler import Plan
from .sequence import Running

SCORED_ROWS = 64
"""Of how many tokens the logits are held at once."""


def score_prompts(
    plan: Plan,
    states: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    version: int,
    *,
    at_once: int,
) -> None:
    """Tell the sequences whose spans are `scored` the tokens of their prompts, as far as fed.

    Args:
        states: [all tokens, hidden] of the plan's spans.
        head: gives the logits [rows, vocab] of some states.
        version: of the weights.
        at_once: rows of a call of `head`; with one, no bit depends on what else was fed.
    """
    for sequence, span, mine in with_states(plan, states):
        if not span.scored:
            continue
        prompt = sequence.request.prompt_ids
        end = min(span.end, len(prompt) - 1)
        for at in range(len(sequence.prompt_tokens), end, at_once):
            following = prompt[at + 1 : min(at + at_once, end) + 1]
            logits = head(mine[at - span.start :][: len(following)]).float()
            sequence.add_scored(score(following, logits, sequence.request, version))


def with_states(plan: Plan, states: torch.Tensor) -> Iterator[tuple[Running, Span, torch.Tensor]]:
    """Each span of a plan with its rows of `states` [all tokens, hidden]."""
    ends = accumulate(len(span.tokens) for _, span in plan)
    for (sequence, span), end in zip(plan, ends, strict=True):
        yield sequence, span, states[end - len(span.tokens) : end]
