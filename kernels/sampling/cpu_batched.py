"""Sampling for all rows at once; sorts only as deep as the largest top-k asks for."""

from __future__ import annotations

import torch


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    uniform: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as `reference.sample`."""
    vocab = logits.shape[1]
    greedy = temperature == 0
    depth = torch.where(top_k > 0, top_k, vocab).clamp(max=vocab).masked_fill(greedy, 1)
    heat = temperature.float().masked_fill(greedy, 1.0)[:, None]
    logits = logits.float()

    deepest = int(depth.max()) if len(depth) else 1
    ranked, order = logits.topk(deepest, dim=-1)  # [B, deepest], likeliest first
    highest = ranked[:, :1]
    ranked = (ranked - highest) / heat  # of numbers below 0, so that dividing cannot overflow
    whole = (logits - highest).div_(heat).exp_().sum(-1)
    kept = torch.arange(deepest, device=logits.device) < depth[:, None]
    probs = ranked.exp() * kept
    probs = probs / probs.sum(-1, keepdim=True)
    kept &= probs.cumsum(-1) - probs < top_p[:, None]
    probs = probs * kept
    reached = (probs / probs.sum(-1, keepdim=True)).cumsum(-1)
    pick = (reached <= uniform[:, None]).sum(-1).minimum(kept.sum(-1) - 1)[:, None]
    return order.gather(1, pick).squeeze(1), ranked.gather(1, pick).squeeze(1) - whole.log()


def sample_whole(
    logits: torch.Tensor, temperature: torch.Tensor, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as `reference.sample_whole`."""
    heat = torch.where(temperature > 0, temperature.double(), 1.0)[:, None]
    scores = (logits.double() / heat).log_softmax(-1)
    reached = scores.exp().cumsum(-1)
    wanted = uniform.double()[:, None] * reached[:, -1:]
    drawn = torch.searchsorted(reached, wanted, right=True)
    last = scores.isfinite().long().mul(torch.arange(len(scores[0]), device=scores.device)).amax(-1)
    drawn = drawn.squeeze(1).minimum(last)
    tokens = torch.where(temperature > 0, drawn, logits.argmax(-1))
    logprobs = scores.gather(1, tokens[:, None]).squeeze(1).float()
    return tokens, logprobs.masked_fill(~logits.isfinite().all(-1), torch.nan)
