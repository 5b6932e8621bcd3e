"""Sampling in Triton: a program a row, without sorting.

Each token has a key that orders logits and, among equals, the lower id first. The token wanted at
a share of the mass is found by halving a range of keys until one token is left in it, with a pass
over the row each: first where top-k ends, then where top-p ends, then what the uniform number
picks.

p_ pointer, b_ block of values, V vocabulary, C columns of a block.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .cpu_batched import sample_whole

__all__ = ["sample", "sample_whole"]  # nothing is sorted for the latter: PyTorch's passes do

_COLUMNS = 8192
_LEAST: tl.constexpr = tl.constexpr(-(2**63))
_MOST: tl.constexpr = tl.constexpr(2**63 - 1)


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    uniform: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as `reference.sample`."""
    rows, vocab = logits.shape
    logits = logits.float().contiguous()
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(rows, dtype=torch.float32, device=logits.device)
    settings = (temperature.float(), top_k.long(), top_p.float(), uniform.float())
    if rows:
        _sample[(rows,)](
            logits,
            *(each.contiguous() for each in settings),
            tokens,
            logprobs,
            V=vocab,
            C=min(_COLUMNS, triton.next_power_of_2(vocab)),
            num_warps=16 if vocab > _COLUMNS else 4,
        )
    return tokens, logprobs


@triton.jit
def _sample(
    p_logits,
    p_temperature,
    p_top_k,
    p_top_p,
    p_uniform,
    p_tokens,
    p_logprobs,
    V: tl.constexpr,
    C: tl.constexpr,
):
    row = tl.program_id(0)
    p_row = p_logits + row.to(tl.int64) * V
    temperature = tl.load(p_temperature + row)
    top_k = tl.load(p_top_k + row)
    greedy = temperature == 0.0
    heat = tl.where(greedy, 1.0, temperature)
    top_k = tl.where(greedy, 1, tl.where(top_k > 0, tl.minimum(top_k, V), V))
    highest = -float("inf")
    for start in range(0, V, C):
        b_x = tl.load(
            p_row + start + tl.arange(0, C), mask=start + tl.arange(0, C) < V, other=-float("inf")
        )
        highest = tl.maximum(highest, tl.max(b_x, axis=0))
    last = tl.full([], _LEAST, tl.int64)  # the lowest key that is kept
    whole, kept = _above(p_row, last, heat, highest, V, C)
    mass = whole
    if top_k < V:
        last = _lowest(p_row, top_k.to(tl.float32), last, kept, 0, heat, highest, V, C)
        mass, kept = _above(p_row, last - 1, heat, highest, V, C)
    top_p = tl.load(p_top_p + row)
    if top_p < 1.0:
        last = _lowest(p_row, top_p * mass, last, kept, 1, heat, highest, V, C)
        mass, kept = _above(p_row, last - 1, heat, highest, V, C)
    last = _lowest(p_row, tl.load(p_uniform + row) * mass, last, kept, 2, heat, highest, V, C)

    # The token with the lowest key from `last` on.
    lowest = tl.full([], _MOST, tl.int64)
    for start in range(0, V, C):
        at = start + tl.arange(0, C)
        b_x = tl.load(p_row + at, mask=at < V, other=-float("inf"))
        b_key = _key(b_x, at)
        b_key = tl.where((at < V) & (b_key >= last), b_key, _MOST)
        lowest = tl.minimum(lowest, tl.min(b_key, axis=0))
    token = 0xFFFFFFFF - (lowest & 0xFFFFFFFF)
    tl.store(p_tokens + row, token)
    chosen = tl.load(p_row + token)
    tl.store(p_logprobs + row, (chosen - highest) / heat - tl.log(whole))


@triton.jit
def _key(b_x, b_at):
    """Orders by value, then by id, the lower one higher."""
    bits = b_x.to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | (0xFFFFFFFF - b_at.to(tl.int64))


@triton.jit
def _above(p_row, bound, heat, highest, V: tl.constexpr, C: tl.constexpr):
    """Mass, not divided by the whole, and number of the tokens whose keys lie above `bound`."""
    mass = 0.0
    count = 0
    for start in range(0, V, C):
        at = start + tl.arange(0, C)
        b_x = tl.load(p_row + at, mask=at < V, other=-float("inf"))
        b_in = (at < V) & (_key(b_x, at) > bound)
        mass += tl.sum(tl.where(b_in, tl.exp((b_x - highest) / heat), 0.0), axis=0)
        count += tl.sum(b_in.to(tl.int32), axis=0)
    return mass, count


@triton.jit
def _lowest(
    p_row, wanted, low, count, KIND: tl.constexpr, heat, highest, V: tl.constexpr, C: tl.constexpr
):
    """The lowest bound, from `low` on, above which there is little enough.

    KIND: 0 = fewer tokens than wanted, 1 = less mass than wanted, 2 = no more mass than wanted.
    `count`: the tokens from `low` on. Bounds with the same tokens above them count as equal.
    """
    high = tl.full([], _MOST, tl.int64)
    above = 0
    while (low < high) & (count - above > 1):
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        mass, number = _above(p_row, middle, heat, highest, V, C)
        if KIND == 0:
            fits = number.to(tl.float32) < wanted
        elif KIND == 1:
            fits = mass < wanted
        else:
            fits = mass <= wanted
        high = tl.where(fits, middle, high)
        above = tl.where(fits, number, above)
        low = tl.where(fits, low, middle + 1)
        count = tl.where(fits, count, number)
    return low
