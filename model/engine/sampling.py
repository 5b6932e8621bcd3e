"""From logits to tokens: penalties, bias and masks, then temperature, top-k and top-p.

Every row is sampled from its own numbers alone, so a token does not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...kernels.sampling import sample
from .request import EngineError, GenRequest, Token
from .sequence import Running


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a token is sought: behind a sequence and guesses of what follows it."""

    sequence: Running
    guesses: Sequence[int] = ()

    @property
    def request(self) -> GenRequest:
        """Of the sequence."""
        return self.sequence.request

    @property
    def number(self) -> float:
        """What picks the token."""
        return self.sequence.number(len(self.guesses))


def draw(places: Sequence[Place], logits: torch.Tensor, version: int) -> list[Token | EngineError]:
    """The token of each place, or why there is none.

    Args:
        logits: [places, vocab] in fp32.
        version: of the weights, for the tokens.
    """
    outcomes: list[Token | EngineError] = [_DAMAGED] * len(places)
    # A sum is finite only if all its parts are; it cannot overflow for logits of any use.
    rows = [math.isfinite(total) for total in logits.sum(-1).tolist()]
    shaped = logits
    if any(place.request.shapes_logits for place in places):
        shaped = logits.clone()
    ready = []
    for row, place in enumerate(places):
        if not rows[row]:
            continue
        try:
            if place.request.shapes_logits:
                _shape(place, shaped[row])
            ready.append(row)
        except Exception as error:  # a mask is the caller's code and fails its request alone
            outcomes[row] = EngineError(f"the request's logit mask or bias failed: {error!r}")
    if ready:
        chosen = [places[row] for row in ready]
        if len(ready) < len(places):
            logits, shaped = logits[ready], shaped[ready]
        for row, token in zip(ready, _tokens(chosen, logits, shaped, version), strict=True):
            outcomes[row] = token
    return outcomes


def guess(places: Sequence[Place], logits: torch.Tensor) -> list[int | None]:
    """What `draw` would take if these were the model's logits; None = nothing can be said."""
    return [
        None if isinstance(outcome, EngineError) else outcome.token_id
        for outcome in draw(places, logits, -1)
    ]


_DAMAGED = EngineError("expected finite logits, got NaN or infinity; the weights are damaged")


def _shape(place: Place, logits: torch.Tensor) -> None:
    """Apply what the request says to its row [vocab], in place."""
    request, completion = place.request, [*place.sequence.completion, *place.guesses]
    if request.repetition_penalty != 1:
        seen = torch.tensor(sorted({*request.prompt_ids, *completion}), device=logits.device)
        scores = logits[seen]
        factor = request.repetition_penalty
        logits[seen] = torch.where(scores > 0, scores / factor, scores * factor)
    if completion and (request.frequency_penalty or request.presence_penalty):
        ids = torch.tensor(completion, device=logits.device)
        counts = torch.bincount(ids, minlength=len(logits))
        logits -= request.frequency_penalty * counts + request.presence_penalty * (counts > 0)
    for token_id, bias in request.logit_bias.items():
        logits[token_id] += bias
    if request.mask is not None and (allowed := request.mask(completion)) is not None:
        logits.masked_fill_(~allowed.to(logits.device), float("-inf"))
    if logits.max() == float("-inf"):
        raise ValueError("expected at least one allowed token, got none")


def _tokens(
    places: Sequence[Place], logits: torch.Tensor, shaped: torch.Tensor, version: int
) -> list[Token]:
    requests = [place.request for place in places]
    heat = [request.temperature or 1.0 for request in requests]
    scores = logits.cpu()
    if any(each != 1.0 for each in heat):
        scores = scores / torch.tensor(heat)[:, None]
    scores = scores.log_softmax(-1)  # before all that shapes
    picked = _picked(places, shaped)
    logprobs = scores.gather(1, picked[:, None]).squeeze(1).tolist()
    tops = _tops(scores, [request.top_logprobs for request in requests])
    return [
        Token(token_id=token_id, logprob=logprob, version=version, top=top)
        for token_id, logprob, top in zip(picked.tolist(), logprobs, tops, strict=True)
    ]


def _picked(places: Sequence[Place], shaped: torch.Tensor) -> torch.Tensor:
    ways: dict[str, list[int]] = {}
    for row, place in enumerate(places):
        request = place.request
        ways.setdefault(_way(request.temperature, request.top_k, request.top_p), []).append(row)
    if len(ways) == 1:
        return _picked_alike(next(iter(ways)), places, shaped.cpu())
    picked = torch.empty(len(places), dtype=torch.int64)
    for way, rows in ways.items():
        picked[rows] = _picked_alike(way, [places[row] for row in rows], shaped[rows].cpu())
    return picked


def _picked_alike(way: str, places: Sequence[Place], logits: torch.Tensor) -> torch.Tensor:
    if way == "likeliest":
        return torch.from_numpy(logits.numpy().argmax(-1))  # PyTorch's takes ten times as long
    requests = [place.request for place in places]
    uniform = torch.tensor([place.number for place in places])
    heat = torch.tensor([request.temperature for request in requests])
    if way == "any":
        return _inverse(logits / heat[:, None], uniform)
    top_k = torch.tensor([request.top_k for request in requests])
    top_p = torch.tensor([request.top_p for request in requests])
    return sample(logits, heat, top_k, top_p, uniform)[0]


def _way(temperature: float, top_k: int, top_p: float) -> str:
    if temperature == 0:
        return "likeliest"
    return "any" if top_k == 0 and top_p == 1 else "truncated"


def _inverse(scores: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Where the running sum of the probabilities [B, V] passes `uniform` [B]; needs no sorting."""
    reached = scores.softmax(-1, dtype=torch.float64).cumsum(-1)
    wanted = uniform.to(torch.float64)[:, None] * reached[:, -1:]
    return (
        torch.searchsorted(reached, wanted, right=True).squeeze(1).clamp_(max=scores.shape[1] - 1)
    )


def _tops(scores: torch.Tensor, wanted: Sequence[int]) -> list[tuple[tuple[int, float], ...]]:
    if not any(wanted):
        return [()] * len(wanted)
    values, ids = scores.topk(min(max(wanted), scores.shape[1]), dim=-1)
    return [
        tuple(zip(row_ids[:n], row_values[:n], strict=True))
        for row_ids, row_values, n in zip(ids.tolist(), values.tolist(), wanted, strict=True)
    ]
