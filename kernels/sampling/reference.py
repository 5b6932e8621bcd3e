"""Sampling row by row: temperature, then top-k, then top-p, then the inverse of the distribution.

`sample_whole` is what most rollouts ask for: no limits, so nothing has to be sorted.

Each row brings its own uniform number, so a row's token does not depend on its neighbours.
"""

from __future__ import annotations

import torch


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    uniform: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token a row.

    Args:
        logits: [B, V]; no NaN, at least one finite, none +inf.
        temperature: [B]; 0 = take the likeliest token. Others may be as small as fp32's `tiny`.
        top_k: [B] int64; 0 = no limit.
        top_p: [B] in (0, 1]; the smallest set of likeliest tokens that holds at least this much.
        uniform: [B] in [0, 1), what picks the token.

    Returns:
        Token ids [B] int64, and their log-probabilities [B] in fp32 under the whole distribution
        at the row's temperature (before top-k and top-p); at temperature 0, under the one at 1.
    """
    tokens, logprobs = [], []
    for row in range(logits.shape[0]):
        heat = float(temperature[row])
        below = logits[row].float() - logits[row].float().max()  # so that dividing cannot overflow
        scores = (below / (heat or 1.0)).log_softmax(-1)
        ranked, order = scores.sort(descending=True, stable=True)
        probs = ranked.exp()
        if heat == 0:
            probs = probs[:1]
        elif top_k[row] > 0:
            probs = probs[: int(top_k[row])]
        probs = probs / probs.sum()
        probs = probs[probs.cumsum(0) - probs < top_p[row]]
        reached = (probs / probs.sum()).cumsum(0)
        pick = min(int((reached <= uniform[row]).sum()), len(probs) - 1)
        tokens.append(order[pick])
        logprobs.append(ranked[pick])
    return torch.stack(tokens), torch.stack(logprobs)


def sample_whole(
    logits: torch.Tensor, temperature: torch.Tensor, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token a row out of all of them, in the order of their ids.

    Args:
        logits: [B, V]; no NaN, at least one finite, none +inf.
        temperature: [B]; 0 = take the likeliest token, of equals the first.
        uniform: [B] in [0, 1), what picks the token.

    Returns:
        Token ids [B] int64, and their log-probabilities [B] in fp32 at the row's temperature; at
        temperature 0, under the distribution at 1. NaN where a logit of the row is not finite.
    """
    tokens, logprobs = [], []
    for row, heat, number in zip(logits, temperature.tolist(), uniform.tolist(), strict=True):
        scores = (row.double() / (heat or 1.0)).log_softmax(-1)
        reached = scores.exp().cumsum(0)
        token = int((reached <= number * reached[-1]).sum()) if heat else int(row.argmax())
        token = min(token, int(scores.isfinite().nonzero()[-1]))
        tokens.append(token)
        logprobs.append(scores[token] if row.isfinite().all() else scores.new_tensor(torch.nan))
    return torch.tensor(tokens, dtype=torch.int64), torch.stack(logprobs).float()
