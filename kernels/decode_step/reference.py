"""The decode step, row by row as the formulas read; and the tensors that both versions take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

PAGE = 16
"""Tokens of a page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWeights:
    """Of one layer, contiguous, all fp32 or all bf16; `bias` is fp32 always."""

    norm1: torch.Tensor  # [H]
    q: torch.Tensor  # [heads * D, H]
    k: torch.Tensor  # [kv_heads * D, H]
    v: torch.Tensor  # [kv_heads * D, H]
    q_norm: torch.Tensor  # [heads * D]
    k_norm: torch.Tensor  # [kv_heads * D]
    o: torch.Tensor  # [H, heads * D]
    norm2: torch.Tensor  # [H]
    gate: torch.Tensor  # [E, H]
    bias: torch.Tensor  # [E], added to the scores for the choice alone
    gate_up: torch.Tensor  # [E, 2I, H], gate above up
    down: torch.Tensor  # [E, H, I]


@dataclass(frozen=True, kw_only=True, slots=True)
class JointWeights:
    """What joins given states with embeddings into the input of the first layer."""

    state_norm: torch.Tensor  # [H]
    embed_norm: torch.Tensor  # [H]
    joint: torch.Tensor  # [H, 2H], for the state and then the embedding


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeWeights:
    """Of the whole model, or of a module that goes on from another's states."""

    layers: Sequence[LayerWeights]
    embed: torch.Tensor  # [V, H]
    norm: torch.Tensor  # [H]
    head: torch.Tensor  # [V, H]
    cos: torch.Tensor  # [context, R/2] fp32, as `rotary_table` gives it
    sin: torch.Tensor  # [context, R/2] fp32
    head_dim: int
    top_k: int
    eps: float
    joint: JointWeights | None = None
    """None = the embeddings alone go into the first layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PagedMemory:
    """Keys and values, in the type of the weights."""

    keys: torch.Tensor  # [layers, pages, kv_heads, D, PAGE]
    values: torch.Tensor  # [layers, pages, kv_heads, PAGE, D]
    routes: torch.Tensor | None  # [pages, PAGE, layers, K] int16; None = not recorded


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeRows:
    """The tokens to feed. A row sees its pages up to its own position; rows may share pages."""

    tokens: torch.Tensor  # [N] int64
    positions: torch.Tensor  # [N] int32
    tables: torch.Tensor  # [N, most pages] int32, the pages of each row's sequence
    wanted: torch.Tensor  # [M] int32, rows whose logits are asked for
    given: torch.Tensor | None = None  # [N, H] fp32, states to join; None = there is no joint


def decode_step(
    weights: DecodeWeights, memory: PagedMemory, rows: DecodeRows
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write keys, values and routes of all rows into `memory`.

    Computed in fp32 from the weights and keys as they are stored; routes in ascending order.

    Returns:
        Logits [M, V] of the wanted rows, and what the head reads of all rows, [N, H]; in fp32.
    """
    x = weights.embed[rows.tokens].float()  # [N, H]
    if weights.joint is not None and rows.given is not None:
        parts = (rows.given, weights.joint.state_norm), (x, weights.joint.embed_norm)
        joined = torch.cat([_rms_norm(part, norm, weights.eps) for part, norm in parts], dim=-1)
        x = joined @ weights.joint.joint.float().t()
    at = rows.positions.long()
    page = rows.tables.long().gather(1, (at // PAGE)[:, None]).squeeze(1)
    for index, layer in enumerate(weights.layers):
        normed = _rms_norm(x, layer.norm1, weights.eps)
        x = x + _attention(weights, memory, rows, index, normed) @ layer.o.float().t()
        normed = _rms_norm(x, layer.norm2, weights.eps)
        scores = (normed @ layer.gate.float().t()).sigmoid()
        chosen = (scores + layer.bias).topk(weights.top_k, dim=-1).indices.sort(-1).values
        share = scores.gather(1, chosen)
        share = share / share.sum(-1, keepdim=True)
        if memory.routes is not None:
            memory.routes[page, at % PAGE, index] = chosen.to(torch.int16)
        x = x + torch.stack([_experts(layer, *row) for row in zip(normed, chosen, share)])  # noqa: B905
    states = _rms_norm(x, weights.norm, weights.eps)
    return states[rows.wanted.long()] @ weights.head.float().t(), states


def _rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.float()


def _experts(
    layer: LayerWeights, x: torch.Tensor, chosen: torch.Tensor, share: torch.Tensor
) -> torch.Tensor:
    gate, up = (layer.gate_up[chosen].float() @ x).chunk(2, dim=-1)  # [K, I]
    return torch.einsum("k,khi,ki->h", share, layer.down[chosen].float(), F.silu(gate) * up)


def _attention(
    weights: DecodeWeights, memory: PagedMemory, rows: DecodeRows, index: int, x: torch.Tensor
) -> torch.Tensor:
    """Place the keys and values of all rows, then attend; [N, heads * D]."""
    layer, dim = weights.layers[index], weights.head_dim
    q = _rms_norm(x @ layer.q.float().t(), layer.q_norm, weights.eps).view(len(x), -1, dim)
    k = _rms_norm(x @ layer.k.float().t(), layer.k_norm, weights.eps).view(len(x), -1, dim)
    v = (x @ layer.v.float().t()).view(len(x), -1, dim)
    cos, sin = weights.cos[rows.positions.long()], weights.sin[rows.positions.long()]
    q, k = _turn(q, cos, sin), _turn(k, cos, sin)
    keys, values = memory.keys[index], memory.values[index]
    where = [divmod(position, PAGE) for position in rows.positions.tolist()]
    for row, (page, place) in enumerate(where):
        keys[rows.tables[row, page], :, :, place] = k[row].to(keys.dtype)
        values[rows.tables[row, page], :, place] = v[row].to(values.dtype)
    out = torch.empty_like(q)
    for row, (page, place) in enumerate(where):
        table = rows.tables[row, : page + 1].long()
        seen_k = keys[table].float().permute(1, 0, 3, 2).flatten(1, 2)[:, : page * PAGE + place + 1]
        seen_v = values[table].float().transpose(0, 1).flatten(1, 2)[:, : page * PAGE + place + 1]
        queries = q[row].view(len(seen_k), -1, dim)  # [kv_heads, group, D]
        probs = (queries @ seen_k.mT / dim**0.5).softmax(-1)
        out[row] = (probs @ seen_v).view(-1, dim)
    return out.flatten(1)


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = cos.shape[1]
    cos, sin = cos[:, None], sin[:, None]
    first, second, rest = x.tensor_split([half, 2 * half], dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)
