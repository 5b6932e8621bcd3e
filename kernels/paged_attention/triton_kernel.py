"""Attention over a paged cache in Triton: a program a token and key head, S positions at a time.

p_ pointer, b_ block of values; G query heads a key head (U = G rounded up), D dimensions (C rounded
up), T tokens of a page, K key heads, M pages a row of the table.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_POSITIONS = 64


def paged_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    owner: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """The same as `reference.paged_attention`."""
    q, keys, values, table = (each.contiguous() for each in (q, keys, values, table))
    out = torch.empty_like(q)
    _, kv_heads, dim, page = keys.shape
    group = q.shape[1] // kv_heads
    if len(q):
        _attend[(len(q), kv_heads)](
            q,
            keys,
            values,
            table,
            owner,
            positions,
            out,
            table.shape[1],
            G=group,
            U=max(16, triton.next_power_of_2(group)),
            D=dim,
            C=max(16, triton.next_power_of_2(dim)),
            T=page,
            S=_POSITIONS,
            K=kv_heads,
        )
    return out


@triton.jit
def _attend(
    p_q,
    p_k,
    p_v,
    p_table,
    p_owner,
    p_positions,
    p_out,
    M,
    G: tl.constexpr,
    U: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    S: tl.constexpr,
    K: tl.constexpr,
):
    row = tl.program_id(0)
    kv_head = tl.program_id(1)
    owner = tl.load(p_owner + row)
    members = tl.arange(0, U)
    columns = tl.arange(0, C)
    length = tl.load(p_positions + row) + 1
    at = ((row * K + kv_head) * G + members[:, None]) * D + columns[None, :]
    whole = (members[:, None] < G) & (columns[None, :] < D)
    b_q = tl.load(p_q + at, mask=whole, other=0.0)
    b_highest = tl.full([U], -1.0e30, dtype=tl.float32)
    b_sum = tl.zeros([U], dtype=tl.float32)
    b_out = tl.zeros([U, C], dtype=tl.float32)
    for start in range(0, length, S):
        slots = start + tl.arange(0, S)
        valid = slots < length
        page = tl.load(p_table + owner * M + slots // T, mask=valid, other=0).to(tl.int64)
        first = (page * K + kv_head) * T * D
        inside = valid[:, None] & (columns[None, :] < D)
        where = first[:, None] + (slots % T)[:, None] * D + columns[None, :]
        turned = first[:, None] + columns[None, :] * T + (slots % T)[:, None]
        b_k = tl.load(p_k + turned, mask=inside, other=0.0)
        b_v = tl.load(p_v + where, mask=inside, other=0.0)
        b_s = tl.dot(b_q, tl.trans(b_k), input_precision="ieee") / tl.sqrt(D * 1.0)
        b_s = tl.where(valid[None, :], b_s, float("-inf"))
        b_higher = tl.maximum(b_highest, tl.max(b_s, axis=1))
        b_p = tl.exp(b_s - b_higher[:, None])
        b_shrink = tl.exp(b_highest - b_higher)
        b_sum = b_sum * b_shrink + tl.sum(b_p, axis=1)
        b_out = b_out * b_shrink[:, None]
        b_out += tl.dot(b_p.to(b_v.dtype), b_v, input_precision="ieee")
        b_highest = b_higher
    tl.store(p_out + at, (b_out / b_sum[:, None]).to(p_out.dtype.element_ty), mask=whole)
