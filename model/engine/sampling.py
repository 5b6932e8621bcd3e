"""From logits to tokens: penalties, bias and masks, then temperature, top-k and top-p.

Every row is sampled from its own numbers alone, so a token does not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...kernels.sampling import sample, sample_whole
from .request import DAMAGED, EngineError, GenRequest, Token
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
    whole = [_takes_whole_rows(place.request) for place in places]
    if all(whole):
        return _draw_whole(places, logits, version)
    outcomes: list[Token | EngineError] = [DAMAGED] * len(places)
    for way, drawn in ((True, _draw_whole), (False, _draw_shaped)):
        rows = [row for row, each in enumerate(whole) if each == way]
        if not rows:
            continue
        chosen = [places[row] for row in rows]
        for row, outcome in zip(rows, drawn(chosen, _only(logits, rows), version), strict=True):
            outcomes[row] = outcome
    return outcomes


def _takes_whole_rows(request: GenRequest) -> bool:
    """Whether nothing but the temperature counts, as in most rollouts."""
    limited = request.temperature > 0 and request.is_limited
    return not (limited or request.shapes_logits or request.top_logprobs)


def _draw_whole(
    places: Sequence[Place], logits: torch.Tensor, version: int
) -> list[Token | EngineError]:
    token_ids, logprobs = _sampled_whole(places, logits)
    return [
        Token(token_id=token_id, logprob=logprob, version=version)
        if math.isfinite(logprob)
        else DAMAGED
        for token_id, logprob in zip(token_ids.tolist(), logprobs.tolist(), strict=True)
    ]


def _sampled_whole(
    places: Sequence[Place], logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    settings = np.zeros((2, len(places)))  # `torch.tensor` takes ten times as long
    for row, place in enumerate(places):
        if temperature := place.request.temperature:
            settings[:, row] = _heat(temperature), place.number
    heat, numbers = map(torch.from_numpy, settings)
    return sample_whole(logits.cpu(), heat, numbers)


def _draw_shaped(
    places: Sequence[Place], logits: torch.Tensor, version: int
) -> list[Token | EngineError]:
    outcomes: list[Token | EngineError] = [DAMAGED] * len(places)
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
            outcomes[row] = EngineError(f"the request's penalties, bias or mask failed: {error!r}")
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


_Top = tuple[tuple[int, float], ...]
_TINY, _MOST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max


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
    highest = float(logits.max())  # NaN if one is NaN
    if highest == float("-inf"):
        raise ValueError("expected at least one allowed token, got none")
    if not math.isfinite(highest):
        raise ValueError(
            f"expected logits that stay finite, got {highest}; ask for milder settings"
        )


def _tokens(
    places: Sequence[Place], logits: torch.Tensor, shaped: torch.Tensor, version: int
) -> list[Token]:
    requests = [place.request for place in places]
    heat = [_heat(request.temperature) for request in requests]
    return _scored(_picked(places, heat, shaped), logits.cpu(), requests, version)


def score(
    token_ids: Sequence[int], logits: torch.Tensor, request: GenRequest, version: int
) -> list[Token]:
    """Given tokens, each with its logprob; not a finite one where the logits are not.

    Args:
        logits: [tokens, vocab] in fp32, what the model expected in place of each.
        request: whose temperature and `top_logprobs` count.
        version: of the weights.
    """
    return _scored(torch.tensor(token_ids), logits.cpu(), [request] * len(token_ids), version)


def _scored(
    chosen: torch.Tensor, logits: torch.Tensor, requests: Sequence[GenRequest], version: int
) -> list[Token]:
    heat = [_heat(request.temperature) for request in requests]
    scores = logits
    if any(each != 1.0 for each in heat):
        scores = scores / torch.tensor(heat)[:, None]
    scores = scores.log_softmax(-1)  # before all that shapes
    token_ids, logprobs = chosen.tolist(), scores.gather(1, chosen[:, None]).squeeze(1).tolist()
    wanted = [request.top_logprobs for request in requests]
    tops = _tops(scores, wanted)
    for row in _beyond_fp32(logprobs, tops):
        exact = (logits[row].double() / heat[row]).log_softmax(-1).clamp_(min=-_MOST)
        logprobs[row] = exact[token_ids[row]].item()
        tops[row] = _tops(exact[None], [wanted[row]])[0]
    return [
        Token(token_id=token_id, logprob=logprob, version=version, top=top)
        for token_id, logprob, top in zip(token_ids, logprobs, tops, strict=True)
    ]


def _heat(temperature: float) -> float:
    """What to divide by: the temperature as fp32 can hold it, 1 for greedy requests."""
    return min(max(temperature, _TINY), _MOST) if temperature else 1.0


def _beyond_fp32(logprobs: Sequence[float], tops: Sequence[_Top]) -> list[int]:
    """The rows whose logits were too large for fp32 once they were divided by the temperature."""
    return [
        row
        for row, (logprob, top) in enumerate(zip(logprobs, tops, strict=True))
        if not math.isfinite(logprob) or (top and not math.isfinite(top[-1][1]))
    ]


def _picked(places: Sequence[Place], heat: Sequence[float], shaped: torch.Tensor) -> torch.Tensor:
    limited = [place.request.temperature > 0 and place.request.is_limited for place in places]
    if all(limited):
        return _sampled_limited(places, heat, shaped)
    picked = torch.empty(len(places), dtype=torch.int64)
    rows = [row for row, each in enumerate(limited) if not each]
    picked[rows] = _sampled_whole([places[row] for row in rows], _only(shaped, rows))[0]
    if rows := [row for row, each in enumerate(limited) if each]:
        chosen, warmth = [places[row] for row in rows], [heat[row] for row in rows]
        picked[rows] = _sampled_limited(chosen, warmth, shaped[rows])
    return picked


def _sampled_limited(
    places: Sequence[Place], heat: Sequence[float], logits: torch.Tensor
) -> torch.Tensor:
    requests, vocab = [place.request for place in places], logits.shape[1]
    top_k = [min(request.top_k, vocab) for request in requests]
    top_p = [max(request.top_p, _TINY) for request in requests]
    numbers = [place.number for place in places]
    return sample(logits.cpu(), *map(torch.tensor, (heat, top_k, top_p, numbers)))[0]


def _only(logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Some of the rows, in order; without a copy, which takes long, where they are all."""
    return logits if len(rows) == len(logits) else logits[rows]


def _tops(scores: torch.Tensor, wanted: Sequence[int]) -> list[_Top]:
    if not any(wanted):
        return [()] * len(wanted)
    values, ids = scores.topk(min(max(wanted), scores.shape[1]), dim=-1)
    return [
        tuple(zip(row_ids[:n], row_values[:n], strict=True))
        for row_ids, row_values, n in zip(ids.tolist(), values.tolist(), wanted, strict=True)
    ]
