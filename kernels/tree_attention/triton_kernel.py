"""Tree attention in Triton: blocks of queries against the blocks of keys they see, no [N, N] mask.

Which blocks see each other is a small table made beforehand, so siblings and packed sequences cost
nothing to one another. Backward: one kernel for q, one for k and v, from the saved logsumexp.

p_ pointer, b_ block of values; N tokens, H heads, G heads a key head, D dimensions, C = D rounded
up, TQ and TK rows of a block of queries and of keys. Logarithms are to base 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

_LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
_PLAIN = {"TQ": 32, "TK": 32, "num_warps": 4}
"""Blocks of fp32, whose products no tensor core takes, and of wider heads."""
_FORWARD = {"TQ": 128, "TK": 64, "num_warps": 8, "num_stages": 3}
_BACKWARD = {"TQ": 64, "TK": 64, "num_warps": 4, "num_stages": 2}
"""Of bf16, as measured on an H100 with heads of 128."""
_WIDEST = 128
"""Columns of a head for which the blocks of bf16 fit into shared memory."""
_made: Any = WeakTensorKeyDictionary()
"""Tables by `exits`, which the layers of a model share, and by the sizes of blocks."""


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
            sizes = _sizes(q, k, _FORWARD)
            grid = (triton.cdiv(len(q), sizes["TQ"]), q.shape[1])
            tables = _tables(exits, sizes).of_queries
            _forward[grid](q, k, v, exits, *tables, out, total, len(q), **sizes)
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
            sizes = _sizes(q, k, _BACKWARD)
            tables = _tables(exits, sizes)
            grid = (triton.cdiv(len(q), sizes["TQ"]), q.shape[1])
            _backward_q[grid](*shared, *tables.of_queries, d_q, len(q), **sizes)
            grid = (triton.cdiv(len(q), sizes["TK"]), k.shape[1])
            _backward_kv[grid](*shared, *tables.of_keys, d_k, d_v, len(q), **sizes)
        return d_q, d_k, d_v, None


def _sizes(q: torch.Tensor, k: torch.Tensor, blocks: dict[str, int]) -> dict[str, int]:
    heads, dim = q.shape[1:]
    columns = max(16, triton.next_power_of_2(dim))
    sizes = {"H": heads, "G": heads // k.shape[1], "D": dim, "C": columns}
    wide = q.dtype != torch.float32 and columns <= _WIDEST
    return sizes | (blocks if wide else _PLAIN)


class _Tables(NamedTuple):
    """For each block of one kind the blocks of the other that it meets; see `_listed`."""

    of_queries: tuple[torch.Tensor, torch.Tensor]
    of_keys: tuple[torch.Tensor, torch.Tensor]


def _tables(exits: torch.Tensor, sizes: dict[str, int]) -> _Tables:
    tracked = not exits.is_inference()  # whether PyTorch tells that `exits` was written to
    key = (exits._version if tracked else 0, sizes["TQ"], sizes["TK"])
    known: dict[tuple[int, ...], _Tables] = _made.setdefault(exits, {}) if tracked else {}
    if key not in known:
        seen = _seen(exits, sizes)
        known[key] = _Tables(of_queries=_listed(seen), of_keys=_listed(seen.T))
    return known[key]


def _seen(exits: torch.Tensor, sizes: dict[str, int]) -> torch.Tensor:
    """[blocks of queries, blocks of keys]: the one sees nothing (0), some (1) or all (2)."""
    n, wide, deep = len(exits), sizes["TQ"], sizes["TK"]
    first_row = torch.arange(0, n, wide, device=exits.device)[:, None]
    first_key = torch.arange(0, n, deep, device=exits.device)
    inside = F.pad(exits, (0, -n % deep)).view(-1, deep)
    some = (first_key < first_row + wide) & (first_row < inside.amax(1))
    whole = (first_key + deep <= first_row + 1) & (first_row + wide <= inside.amin(1))
    return some.byte() + whole.byte()


def _listed(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The columns of each row, those of 2 first; how many are 2, and how many are not 0; int32."""
    order = seen.argsort(dim=1, descending=True, stable=True)
    counts = torch.stack([(seen == 2).sum(1), (seen > 0).sum(1)], dim=1)
    return order.int().contiguous(), counts.int()


@triton.jit
def _rows(
    p, rows, head, HEADS: tl.constexpr, N, D: tl.constexpr, C: tl.constexpr, WHOLE: tl.constexpr
):
    """[rows, C] of one head of a [N, HEADS, D] tensor; zero outside. WHOLE: no row is outside."""
    columns = tl.arange(0, C)
    at = p + (rows[:, None].to(tl.int64) * HEADS + head) * D + columns[None, :]
    if WHOLE and C == D:
        return tl.load(at)
    return tl.load(at, mask=(rows[:, None] < N) & (columns[None, :] < D), other=0.0)


@triton.jit
def _put(p, b, rows, head, HEADS: tl.constexpr, N, D: tl.constexpr, C: tl.constexpr):
    columns = tl.arange(0, C)
    at = (rows[:, None].to(tl.int64) * HEADS + head) * D + columns[None, :]
    inside = (rows[:, None] < N) & (columns[None, :] < D)
    tl.store(p + at, b.to(p.dtype.element_ty), mask=inside)


@triton.jit
def _scores(b_left, b_right, rows, keys, p_exits, N, D: tl.constexpr, WHOLE: tl.constexpr):
    """Products to base 2, scaled; -inf where a row does not see a key, one along, one across."""
    b_s = tl.dot(b_left, tl.trans(b_right), input_precision="ieee") * (_LOG2_E / tl.sqrt(D * 1.0))
    if WHOLE:
        return b_s
    b_exit = tl.load(p_exits + keys, mask=keys < N, other=0)
    seen = (keys <= rows) & (rows < b_exit) & (rows < N)
    return tl.where(seen, b_s, float("-inf"))


@triton.jit
def _forward(
    p_q,
    p_k,
    p_v,
    p_exits,
    p_order,
    p_count,
    p_out,
    p_total,
    N,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    TQ: tl.constexpr,
    TK: tl.constexpr,
):
    head = tl.program_id(1)
    block = tl.num_programs(0) - 1 - tl.program_id(0)  # the longest first
    rows = block * TQ + tl.arange(0, TQ)
    b_q = _rows(p_q, rows, head, H, N, D, C, False)
    b_highest = tl.full([TQ], -1.0e30, dtype=tl.float32)
    b_sum = tl.zeros([TQ], dtype=tl.float32)
    b_out = tl.zeros([TQ, C], dtype=tl.float32)
    first = 0
    for part in tl.static_range(2):
        last = tl.load(p_count + block * 2 + part)
        for number in range(first, last):
            keys = tl.load(p_order + block * tl.cdiv(N, TK) + number) * TK + tl.arange(0, TK)
            b_k = _rows(p_k, keys, head // G, H // G, N, D, C, part == 0)
            b_v = _rows(p_v, keys, head // G, H // G, N, D, C, part == 0)
            b_s = _scores(b_q, b_k, rows[:, None], keys[None, :], p_exits, N, D, part == 0)
            b_higher = tl.maximum(b_highest, tl.max(b_s, axis=1))
            b_p = tl.exp2(b_s - b_higher[:, None])
            b_shrink = tl.exp2(b_highest - b_higher)
            b_sum = b_sum * b_shrink + tl.sum(b_p, axis=1)
            b_out = b_out * b_shrink[:, None]
            b_out += tl.dot(b_p.to(b_v.dtype), b_v, input_precision="ieee")
            b_highest = b_higher
        first = last
    b_sum = tl.where(rows < N, b_sum, 1.0)
    _put(p_out, b_out / b_sum[:, None], rows, head, H, N, D, C)
    tl.store(p_total + rows * H + head, b_highest + tl.log2(b_sum), mask=rows < N)


@triton.jit
def _backward_q(
    p_q,
    p_k,
    p_v,
    p_exits,
    p_grad,
    p_total,
    p_along,
    p_order,
    p_count,
    p_dq,
    N,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    TQ: tl.constexpr,
    TK: tl.constexpr,
):
    head = tl.program_id(1)
    block = tl.num_programs(0) - 1 - tl.program_id(0)  # the longest first
    rows = block * TQ + tl.arange(0, TQ)
    b_q = _rows(p_q, rows, head, H, N, D, C, False)
    b_grad = _rows(p_grad, rows, head, H, N, D, C, False)
    b_total = tl.load(p_total + rows * H + head, mask=rows < N, other=0.0)[:, None]
    b_along = tl.load(p_along + rows * H + head, mask=rows < N, other=0.0)[:, None]
    b_dq = tl.zeros([TQ, C], dtype=tl.float32)
    first = 0
    for part in tl.static_range(2):
        last = tl.load(p_count + block * 2 + part)
        for number in range(first, last):
            keys = tl.load(p_order + block * tl.cdiv(N, TK) + number) * TK + tl.arange(0, TK)
            b_k = _rows(p_k, keys, head // G, H // G, N, D, C, part == 0)
            b_v = _rows(p_v, keys, head // G, H // G, N, D, C, part == 0)
            b_s = _scores(b_q, b_k, rows[:, None], keys[None, :], p_exits, N, D, part == 0)
            b_p = tl.exp2(b_s - b_total)
            b_ds = b_p * (tl.dot(b_grad, tl.trans(b_v), input_precision="ieee") - b_along)
            b_dq += tl.dot(b_ds.to(b_k.dtype), b_k, input_precision="ieee")
        first = last
    _put(p_dq, b_dq / tl.sqrt(D * 1.0), rows, head, H, N, D, C)


@triton.jit
def _backward_kv(
    p_q,
    p_k,
    p_v,
    p_exits,
    p_grad,
    p_total,
    p_along,
    p_order,
    p_count,
    p_dk,
    p_dv,
    N,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    TQ: tl.constexpr,
    TK: tl.constexpr,
):
    kv_head = tl.program_id(1)
    block = tl.program_id(0)
    keys = block * TK + tl.arange(0, TK)
    b_k = _rows(p_k, keys, kv_head, H // G, N, D, C, False)
    b_v = _rows(p_v, keys, kv_head, H // G, N, D, C, False)
    b_dk = tl.zeros([TK, C], dtype=tl.float32)
    b_dv = tl.zeros([TK, C], dtype=tl.float32)
    first = 0
    for part in tl.static_range(2):
        last = tl.load(p_count + block * 2 + part)
        for number in range(first * G, last * G):
            head = kv_head * G + number % G
            place = tl.load(p_order + block * tl.cdiv(N, TQ) + number // G)
            rows = place * TQ + tl.arange(0, TQ)
            b_q = _rows(p_q, rows, head, H, N, D, C, part == 0)
            b_grad = _rows(p_grad, rows, head, H, N, D, C, part == 0)
            b_total = tl.load(p_total + rows * H + head, mask=rows < N, other=0.0)[None, :]
            b_along = tl.load(p_along + rows * H + head, mask=rows < N, other=0.0)[None, :]
            b_s = _scores(b_k, b_q, rows[None, :], keys[:, None], p_exits, N, D, part == 0)
            b_p = tl.exp2(b_s - b_total)
            b_dv += tl.dot(b_p.to(b_grad.dtype), b_grad, input_precision="ieee")
            b_ds = b_p * (tl.dot(b_v, tl.trans(b_grad), input_precision="ieee") - b_along)
            b_dk += tl.dot(b_ds.to(b_q.dtype), b_q, input_precision="ieee")
        first = last
    _put(p_dk, b_dk / tl.sqrt(D * 1.0), keys, kv_head, H // G, N, D, C)
    _put(p_dv, b_dv, keys, kv_head, H // G, N, D, C)
