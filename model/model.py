"""MiniMax-M2's architecture: layers of grouped-query attention and sigmoid-routed experts.

Sequences are packed end to end without padding. Parameters carry Hugging Face's names, except that
the experts of a layer are stacked into two tensors. MTP modules stand in `mtp.py`; no tensor
parallelism, no FP8 arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..kernels.cross_entropy import cross_entropy
from ..kernels.grouped_experts import grouped_experts
from ..kernels.qk_norm_rotary import qk_norm_rotary, rotary_table
from ..kernels.rms_norm import rms_norm
from ..kernels.tree_attention import tree_attention
from .config import ModelConfig

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines, each [N, rotary_dim / 2]."""


ApplyExperts = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Tokens [N, hidden], their experts and weights [N, top_k] to [N, hidden]."""


class Attend(Protocol):
    """Who attends to whom: packed segments in training, a cache in the engine."""

    def __call__(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """Map q [N, heads, D] and k, v [N, kv_heads, D] to [N, heads, D]."""
        ...


class Model(nn.Module):
    """Token ids to logits."""

    def __init__(self, config: ModelConfig) -> None:
        """With random weights, normal with `initializer_range`."""
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.lm_head = Head(config.hidden_size, config.vocab_size, bias=False)
        initialise(self, config.initializer_range)

    def forward(self, tokens: torch.Tensor, seq_lens: Sequence[int]) -> torch.Tensor:
        """Logits [N, vocab] of `tokens` [N] int64; `seq_lens` sums to N.

        Position t holds the logits of the token after t; each segment sees only itself.

        Raises:
            ValueError: the lengths do not fit the tokens or the context.
        """
        return self.head(self.hidden(tokens, seq_lens))

    def hidden(self, tokens: torch.Tensor, seq_lens: Sequence[int]) -> torch.Tensor:
        """What `head` turns into logits, [N, hidden]; for losses that take it in chunks."""
        longest = self.config.max_position_embeddings
        if sum(seq_lens) != tokens.shape[0] or not all(0 < each <= longest for each in seq_lens):
            raise ValueError(
                f"expected seq_lens of 1 to {longest} that sum to {tokens.shape[0]}, "
                f"got {list(seq_lens)}"
            )
        positions = torch.cat([torch.arange(each, device=tokens.device) for each in seq_lens])
        return self.trunk(tokens, positions, PackedAttention(seq_lens))

    def trunk(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        attend: Attend,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states [N, hidden] of tokens at given positions, both [N].

        Args:
            wanted: rows whose states are asked for; the last layer then computes only keys and
                values of the others. None = all.
        """
        hidden: torch.Tensor = self.model(tokens, positions, attend, wanted)
        return hidden

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [N, vocab] of hidden states [N, hidden]."""
        logits: torch.Tensor = self.lm_head(hidden.to(self.lm_head.weight.dtype))
        return logits

    def expert_load(self) -> torch.Tensor:
        """How many tokens the last forward sent to each expert, [layers, experts] int64."""
        return torch.stack([layer.block_sparse_moe.load for layer in self.model.decoder_layers()])

    @torch.no_grad()
    def update_router_bias(self, load: torch.Tensor, speed: float) -> None:
        """Raise the selection bias of experts with less than the mean load, lower the others'.

        Args:
            load: [layers, experts], as `expert_load` counts it; may be summed over batches.
            speed: size of the step. M2's is not published.
        """
        for layer, counts in zip(self.model.decoder_layers(), load, strict=True):
            layer.block_sparse_moe.update_bias(counts, speed)


def initialise(module: nn.Module, std: float) -> None:
    """Fill all weights but the norms' with normal noise; those on the meta device stay as is."""
    for name, param in module.named_parameters():
        if not (param.is_meta or name.endswith("norm.weight")):
            nn.init.normal_(param, std=std)


class Embedding(nn.Embedding):
    """Token ids to vectors."""

    def reset_parameters(self) -> None:
        """As torch does, but not on the meta device, where it would import its compiler."""
        if not self.weight.is_meta:
            super().reset_parameters()


class Head(nn.Linear):
    """Hidden states to logits, or to the loss of targets without a tensor of all logits."""

    def summed_loss(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats, the sum over `targets` [N], of states [N, hidden]; fp32 scalar."""
        return cross_entropy(hidden.to(self.weight.dtype), self.weight, targets)


class Trunk(nn.Module):
    """Embedding, layers and the last norm."""

    checkpoint_activations = False
    """Keep only the input of each layer for the backward pass and compute the rest again."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def decoder_layers(self) -> list[DecoderLayer]:
        """The layers, typed."""
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        attend: Attend,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens and positions [N] to hidden states [N, hidden], or those of the wanted rows."""
        rotation = rotary_table(positions, self.config.rotary_dim, self.config.rope_theta)
        x = self.embed_tokens(tokens)  # [N, hidden]
        for layer in self.layers if wanted is None else self.layers[:-1]:
            if self.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(layer, x, rotation, attend, use_reentrant=False)
            else:
                x = layer(x, rotation, attend)
        if wanted is not None:
            x = self.layers[-1](x, rotation, attend, wanted)
        out: torch.Tensor = self.norm(x)
        return out


class DecoderLayer(nn.Module):
    """Attention, then experts, each behind a norm and added to the stream."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, index)
        self.block_sparse_moe = SparseMoe(config)
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation,
        attend: Attend,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[N, hidden] to [N, hidden], or to the wanted rows alone."""
        attended = self.self_attn(self.input_layernorm(x), rotation, attend, wanted)
        x = (x if wanted is None else x[wanted]) + attended
        out: torch.Tensor = x + self.block_sparse_moe(self.post_attention_layernorm(x))
        return out


class Attention(nn.Module):
    """Grouped queries; q and k are normed as whole vectors, before they are split into heads."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.head_dim = config.head_dim
        q_dim = config.num_attention_heads * config.head_dim
        kv_dim = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, q_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_dim, bias=False)
        self.o_proj = nn.Linear(q_dim, config.hidden_size, bias=False)
        self.q_norm = RmsNorm(q_dim, config.rms_norm_eps)
        self.k_norm = RmsNorm(kv_dim, config.rms_norm_eps)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation,
        attend: Attend,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[N, hidden] to [N, hidden], or to the wanted rows alone."""
        asking, turn = x, rotation
        if wanted is not None:
            asking, turn = x[wanted], (rotation[0][wanted], rotation[1][wanted])
        q = self._turned(self.q_proj(asking), self.q_norm, turn)
        k = self._turned(self.k_proj(x), self.k_norm, rotation)
        v = self._heads(self.v_proj(x))
        out: torch.Tensor = self.o_proj(attend(self.index, q, k, v).flatten(1))
        return out

    def _turned(self, x: torch.Tensor, norm: RmsNorm, rotation: Rotation) -> torch.Tensor:
        return qk_norm_rotary(self._heads(x), norm.weight, *rotation, norm.eps)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1] // self.head_dim, self.head_dim)  # [N, heads, D]


class SparseMoe(nn.Module):
    """Each token goes to the experts with the highest sigmoid score plus bias.

    The bias only selects: the weights are the scores without it, made to sum to one.
    """

    apply_experts: ApplyExperts | None = None
    """Who applies the experts when they lie elsewhere; None = this process holds them all."""
    e_score_correction_bias: torch.Tensor  # [E] fp32; a buffer, moved by `update_router_bias`

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.gate = nn.Linear(config.hidden_size, config.num_local_experts, bias=False)
        self.experts = Experts(config)
        self.register_buffer("e_score_correction_bias", torch.zeros(config.num_local_experts))
        self.load = torch.zeros(config.num_local_experts, dtype=torch.int64)
        self.chosen = torch.zeros(0, self.top_k, dtype=torch.int64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, hidden] to [N, hidden]; keeps `chosen` [N, top_k] and counts it in `load`."""
        experts, weights = self.route(x)
        self.chosen = experts
        self.load = torch.bincount(experts.flatten(), minlength=self.load.shape[0])
        if self.apply_experts:
            return self.apply_experts(x, experts, weights)
        return grouped_experts(
            x, experts, weights, self.experts.gate_up_proj, self.experts.down_proj
        )

    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Experts and their weights of each token, both [N, top_k]; computed in fp32."""
        scores = F.linear(x.float(), self.gate.weight.float()).sigmoid()  # [N, E]
        biased = scores.detach() + self.e_score_correction_bias
        experts = biased.topk(self.top_k, dim=-1, sorted=False).indices
        weights = scores.gather(1, experts)
        return experts, weights / weights.sum(-1, keepdim=True)

    def update_bias(self, load: torch.Tensor, speed: float) -> None:
        """One sign step towards an even `load` [E]; see `Model.update_router_bias`."""
        self.e_score_correction_bias += (load.float().mean() - load).sign() * speed


class Experts(nn.Module):
    """The weights of a layer's experts; E experts of width I."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, inner = (
            config.num_local_experts,
            config.hidden_size,
            config.intermediate_size,
        )
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, hidden))  # w1 above w3
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, inner))  # w2


class RmsNorm(nn.Module):
    """Root-mean-square norm with a learned scale."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Norm the last dimension."""
        return rms_norm(x, self.weight, self.eps)


class PackedAttention:
    """Causal attention within each segment of a packed batch. Builds no mask."""

    def __init__(self, seq_lens: Sequence[int]) -> None:
        lengths = torch.tensor(list(seq_lens), dtype=torch.int64)
        # To the kernel a segment is a tree of one node.
        self._exits = lengths.cumsum(0).repeat_interleave(lengths)

    def __call__(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """Attend within segments; see `Attend`."""
        self._exits = self._exits.to(q.device)
        return tree_attention(q, k, v, self._exits)
