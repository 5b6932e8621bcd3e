"""Token log-probabilities in Triton: chunks of logits by GEMM, then one pass over each row.

Memory: no more logits at a time than the head has weights, in the type of `hidden`; the gradient
overwrites the logits. A target outside the vocabulary gives NaN: nothing here waits for the GPU.
p_ pointer, b_ block of values, V vocabulary, C columns of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

_ROWS = 512
_COLUMNS = 4096


def token_logprobs(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same as `reference.token_logprobs`."""
    return _TokenLogprobs.apply(hidden, head, targets)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        out = hidden.new_empty(targets.shape, dtype=torch.float32)
        total = torch.empty_like(out)
        for rows in chunks(hidden):
            logits = F.linear(hidden[rows], head)
            rows_logprobs(logits, targets[rows], out[rows], total[rows])
        ctx.save_for_backward(hidden, head, targets, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        hidden, head, targets, total = ctx.saved_tensors
        grad = grad.contiguous()
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros_like(head, dtype=torch.float32)
        for rows in chunks(hidden):
            logits = F.linear(hidden[rows], head)
            rows_gradient(logits, targets[rows], total[rows], grad[rows])
            torch.mm(logits, head, out=d_hidden[rows])
            d_head += logits.t() @ hidden[rows]
        return d_hidden, d_head.to(head.dtype), None


def chunks(hidden: torch.Tensor) -> Iterator[slice]:
    """Rows to be taken at a time: fewer would read and write the head's gradient more often."""
    step = max(_ROWS, hidden.shape[1])
    return (slice(start, start + step) for start in range(0, len(hidden), step))


def rows_logprobs(
    logits: torch.Tensor, targets: torch.Tensor, out: torch.Tensor, total: torch.Tensor
) -> None:
    """Fill `out` with the targets' log-probabilities and `total` with the rows' logsumexp."""
    columns = min(_COLUMNS, triton.next_power_of_2(logits.shape[1]))
    _logprobs[(len(logits),)](logits, targets, out, total, V=logits.shape[1], C=columns)


def rows_gradient(
    logits: torch.Tensor, targets: torch.Tensor, total: torch.Tensor, grad: torch.Tensor
) -> None:
    """Overwrite `logits` with their gradient: `grad * (onehot(target) - softmax)`."""
    columns = min(_COLUMNS, triton.next_power_of_2(logits.shape[1]))
    _gradient[(len(logits),)](logits, targets, total, grad, V=logits.shape[1], C=columns)


@triton.jit
def _logprobs(p_logits, p_targets, p_out, p_total, V: tl.constexpr, C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    highest = float("-inf")
    total = 0.0
    for start in range(0, V, C):
        columns = start + tl.arange(0, C)
        b = tl.load(p_logits + row * V + columns, mask=columns < V, other=float("-inf"))
        b = b.to(tl.float32)
        higher = tl.maximum(highest, tl.max(b, axis=0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(b - higher), axis=0)
        highest = higher
    total = highest + tl.log(total)
    target = tl.load(p_targets + row)
    known = (target >= 0) & (target < V)
    picked = tl.load(p_logits + row * V + target, mask=known, other=float("nan")).to(tl.float32)
    tl.store(p_out + row, picked - total)
    tl.store(p_total + row, total)


@triton.jit
def _gradient(p_logits, p_targets, p_total, p_grad, V: tl.constexpr, C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    total = tl.load(p_total + row)
    grad = tl.load(p_grad + row)
    target = tl.load(p_targets + row)
    for start in range(0, V, C):
        columns = start + tl.arange(0, C)
        at = p_logits + row * V + columns
        b = tl.load(at, mask=columns < V, other=float("-inf")).to(tl.float32)
        b = grad * (tl.where(columns == target, 1.0, 0.0) - tl.exp(b - total))
        tl.store(at, b.to(p_logits.dtype.element_ty), mask=columns < V)
