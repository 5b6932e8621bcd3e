"""Tree attention in Triton: blocks of queries against blocks of keys, no mask in memory.

p_ pointer, b_ block of values; N tokens, H heads, G heads a key head, D dimensions, C = D rounded
up, T rows of a block. Backward: one kernel for q, one for k and v, from the saved logsumexp.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

_TILE = 32


def tree_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, exits: torch.Tensor
) -> torch.Tensor:
    """The same as `reference.tree_attention`."""
    return _TreeAttention.apply(q, k, v, exits)


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, exits: torch.Tensor
    ) -> torch.Tensor:
        q, k, v, exits = (each.contiguous() for each in (q, k, v, exits))
        out = torch.empty_like(q)
        total = q.new_empty(q.shape[:2], dtype=torch.float32)
        if len(q):
            grid = (triton.cdiv(len(q), _TILE), q.shape[1])
            _forward[grid](q, k, v, exits, out, total, len(q), **_sizes(q, k))
        ctx.save_for_backward(q, k, v, exits, out, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, exits, out, total = ctx.saved_tensors
        grad = grad.contiguous()
        d_q, d_k, d_v = (torch.empty_like(each) for each in (q, k, v))
        along = (grad.float() * out.float()).sum(-1)  # [N, H]
        if len(q):
            shared = (q, k, v, exits, grad, total, along)
            tiles = triton.cdiv(len(q), _TILE)
            _backward_q[(tiles, q.shape[1])](*shared, d_q, len(q), **_sizes(q, k))
            _backward_kv[(tiles, k.shape[1])](*shared, d_k, d_v, len(q), **_sizes(q, k))
        return d_q, d_k, d_v, None


def _sizes(q: torch.Tensor, k: torch.Tensor) -> dict[str, int]:
    heads, dim = q.shape[1:]
    columns = max(16, triton.next_power_of_2(dim))
    return {"H": heads, "G": heads // k.shape[1], "D": dim, "C": columns, "T": _TILE}


@triton.jit
def _rows(p, rows, head, HEADS: tl.constexpr, N, D: tl.constexpr, C: tl.constexpr):
    """[T, C] of one head of a [N, HEADS, D] tensor; zero outside."""
    columns = tl.arange(0, C)
    at = (rows[:, None].to(tl.int64) * HEADS + head) * D + columns[None, :]
    return tl.load(p + at, mask=(rows[:, None] < N) & (columns[None, :] < D), other=0.0)


@triton.jit
def _put(p, b, rows, head, HEADS: tl.constexpr, N, D: tl.constexpr, C: tl.constexpr):
    columns = tl.arange(0, C)
    at = (rows[:, None].to(tl.int64) * HEADS + head) * D + columns[None, :]
    inside = (rows[:, None] < N) & (columns[None, :] < D)
    tl.store(p + at, b.to(p.dtype.element_ty), mask=inside)


@triton.jit
def _scores(b_q, b_k, rows, keys, p_exits, N, D: tl.constexpr):
    """[queries, keys] scaled, -inf where the query does not see the key."""
    b_exit = tl.load(p_exits + keys, mask=keys < N, other=0)
    seen = (keys[None, :] <= rows[:, None]) & (rows[:, None] < b_exit[None, :])
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision="ieee") / tl.sqrt(D * 1.0)
    return tl.where(seen & (rows[:, None] < N), b_s, float("-inf"))


@triton.jit
def _forward(
    p_q,
    p_k,
    p_v,
    p_exits,
    p_out,
    p_total,
    N,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
):
    head = tl.program_id(1)
    rows = tl.program_id(0) * T + tl.arange(0, T)
    b_q = _rows(p_q, rows, head, H, N, D, C)
    b_highest = tl.full([T], -1.0e30, dtype=tl.float32)
    b_sum = tl.zeros([T], dtype=tl.float32)
    b_out = tl.zeros([T, C], dtype=tl.float32)
    for start in range(0, (tl.program_id(0) + 1) * T, T):
        keys = start + tl.arange(0, T)
        b_k = _rows(p_k, keys, head // G, H // G, N, D, C)
        b_v = _rows(p_v, keys, head // G, H // G, N, D, C)
        b_s = _scores(b_q, b_k, rows, keys, p_exits, N, D)
        b_higher = tl.maximum(b_highest, tl.max(b_s, axis=1))
        b_p = tl.exp(b_s - b_higher[:, None])
        b_shrink = tl.exp(b_highest - b_higher)
        b_sum = b_sum * b_shrink + tl.sum(b_p, axis=1)
        b_out = b_out * b_shrink[:, None]
        b_out += tl.dot(b_p.to(b_v.dtype), b_v, input_precision="ieee")
        b_highest = b_higher
    b_sum = tl.where(rows < N, b_sum, 1.0)
    _put(p_out, b_out / b_sum[:, None], rows, head, H, N, D, C)
    tl.store(p_total + rows * H + head, b_highest + tl.log(b_sum), mask=rows < N)


@triton.jit
def _backward_q(
    p_q,
    p_k,
    p_v,
    p_exits,
    p_grad,
    p_total,
    p_along,
    p_dq,
    N,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
):
    head = tl.program_id(1)
    rows = tl.program_id(0) * T + tl.arange(0, T)
    b_q = _rows(p_q, rows, head, H, N, D, C)
    b_grad = _rows(p_grad, rows, head, H, N, D, C)
    b_total = tl.load(p_total + rows * H + head, mask=rows < N, other=0.0)
    b_along = tl.load(p_along + rows * H + head, mask=rows < N, other=0.0)
    b_dq = tl.zeros([T, C], dtype=tl.float32)
    for start in range(0, (tl.program_id(0) + 1) * T, T):
        keys = start + tl.arange(0, T)
        b_k = _rows(p_k, keys, head // G, H // G, N, D, C)
        b_v = _rows(p_v, keys, head // G, H // G, N, D, C)
        b_p = tl.exp(_scores(b_q, b_k, rows, keys, p_exits, N, D) - b_total[:, None])
        b_dp = tl.dot(b_grad, tl.trans(b_v), input_precision="ieee")
        b_ds = b_p * (b_dp - b_along[:, None]) / tl.sqrt(D * 1.0)
        b_dq += tl.dot(b_ds.to(b_k.dtype), b_k, input_precision="ieee")
    _put(p_dq, b_dq, rows, head, H, N, D, C)


@triton.jit
def _backward_kv(
    p_q,
    p_k,
    p_v,
    p_exits,
    p_grad,
    p_total,
    p_along,
    p_dk,
    p_dv,
    N,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
):
    kv_head = tl.program_id(1)
    first = tl.program_id(0) * T
    keys = first + tl.arange(0, T)
    b_k = _rows(p_k, keys, kv_head, H // G, N, D, C)
    b_v = _rows(p_v, keys, kv_head, H // G, N, D, C)
    last = tl.max(tl.load(p_exits + keys, mask=keys < N, other=0), axis=0)
    b_dk = tl.zeros([T, C], dtype=tl.float32)
    b_dv = tl.zeros([T, C], dtype=tl.float32)
    for member in range(G):
        head = kv_head * G + member
        for start in range(first, last, T):
            rows = start + tl.arange(0, T)
            b_q = _rows(p_q, rows, head, H, N, D, C)
            b_grad = _rows(p_grad, rows, head, H, N, D, C)
            b_total = tl.load(p_total + rows * H + head, mask=rows < N, other=0.0)
            b_along = tl.load(p_along + rows * H + head, mask=rows < N, other=0.0)
            b_p = tl.exp(_scores(b_q, b_k, rows, keys, p_exits, N, D) - b_total[:, None])
            b_dv += tl.dot(tl.trans(b_p).to(b_grad.dtype), b_grad, input_precision="ieee")
            b_dp = tl.dot(b_grad, tl.trans(b_v), input_precision="ieee")
            b_ds = b_p * (b_dp - b_along[:, None]) / tl.sqrt(D * 1.0)
            b_dk += tl.dot(tl.trans(b_ds).to(b_q.dtype), b_q, input_precision="ieee")
    _put(p_dk, b_dk, keys, kv_head, H // G, N, D, C)
    _put(p_dv, b_dv, keys, kv_head, H // G, N, D, C)
