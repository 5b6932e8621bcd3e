"""The compiled decoder: the forward pass for few tokens, at the speed of memory.

Each token's result depends on nothing but its own sequence, to the last bit, so it also serves
the engine's deterministic mode.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from ...kernels.decode_step import (
    DecodeRows,
    DecodeWeights,
    LayerWeights,
    NativeStep,
    PagedMemory,
    library_problem,
)
from ...kernels.rotary import rotary_table
from ..model import DecoderLayer, Model
from .decoder import Span
from .pages import Pages

_ROWS = 64
"""Most rows of one call; longer spans are fed in pieces."""
_log = logging.getLogger(__name__)


class NativeDecoder:
    """See the module."""

    def __init__(self, step: NativeStep, vocab: int) -> None:
        self._step = step
        self._vocab = vocab

    @classmethod
    def build(cls, model: Model, pages: Pages, context: int) -> NativeDecoder | None:
        """The decoder, or None when this machine or this model cannot have it."""
        if pages.keys.device.type != "cpu" or pages.keys.dtype not in (
            torch.float32,
            torch.bfloat16,
        ):
            return None
        if problem := library_problem():
            _log.info("decoding with PyTorch alone: %s", problem)
            return None
        memory = PagedMemory(keys=pages.keys, values=pages.values, routes=pages.routes)
        return cls(NativeStep(_weights(model, context), memory), model.config.vocab_size)

    def __call__(self, spans: Sequence[Span]) -> torch.Tensor:
        """Feed all spans, `_ROWS` tokens at a time."""
        places = [(span, index) for span in spans for index in range(len(span.tokens))]
        logits = [self._feed(places[at : at + _ROWS]) for at in range(0, len(places), _ROWS)]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _feed(self, places: Sequence[tuple[Span, int]]) -> torch.Tensor:
        widest = max(len(span.pages) for span, _ in places)
        tables = [[*span.pages, *[0] * (widest - len(span.pages))] for span, _ in places]
        wanted = [
            row
            for row, (span, index) in enumerate(places)
            if span.wants_logits and index == len(span.tokens) - 1
        ]
        return self._step(
            DecodeRows(
                tokens=torch.tensor([span.tokens[index] for span, index in places]),
                positions=torch.tensor(
                    [span.start + index for span, index in places], dtype=torch.int32
                ),
                tables=torch.tensor(tables, dtype=torch.int32),
                wanted=torch.tensor(wanted, dtype=torch.int32),
            )
        )


def _weights(model: Model, context: int) -> DecodeWeights:
    config = model.config
    cos, sin = rotary_table(torch.arange(context), config.rotary_dim, config.rope_theta)
    return DecodeWeights(
        layers=[_layer(layer) for layer in model.model.decoder_layers()],
        embed=model.model.embed_tokens.weight.detach(),
        norm=model.model.norm.weight.detach(),
        head=model.lm_head.weight.detach(),
        cos=cos,
        sin=sin,
        head_dim=config.head_dim,
        top_k=config.num_experts_per_tok,
        eps=config.rms_norm_eps,
    )


def _layer(layer: DecoderLayer) -> LayerWeights:
    attention, moe = layer.self_attn, layer.block_sparse_moe
    return LayerWeights(
        norm1=layer.input_layernorm.weight.detach(),
        q=attention.q_proj.weight.detach(),
        k=attention.k_proj.weight.detach(),
        v=attention.v_proj.weight.detach(),
        q_norm=attention.q_norm.weight.detach(),
        k_norm=attention.k_norm.weight.detach(),
        o=attention.o_proj.weight.detach(),
        norm2=layer.post_attention_layernorm.weight.detach(),
        gate=moe.gate.weight.detach(),
        bias=moe.e_score_correction_bias,
        gate_up=moe.experts.gate_up_proj.detach(),
        down=moe.experts.down_proj.detach(),
    )
