"""The compiled decoder: the forward pass for few tokens, at the speed of memory.

Each token's result depends on nothing but its own sequence, to the last bit, so it also serves
the engine's deterministic mode.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...kernels import decode_step
from ...kernels.decode_step import (
    DecodeRows,
    DecodeWeights,
    JointWeights,
    LayerWeights,
    NativeStep,
    PagedMemory,
    library_problem,
)
from ...kernels.native import library
from ...kernels.qk_norm_rotary import rotary_table
from ..model import DecoderLayer, Model
from ..mtp import MtpModule
from .decoder import Fed, Span
from .pages import Pages

FEW_TOKENS = 128
"""Up to here this decoder is faster than matrix products, for short spans also above."""
_ROWS = 64
"""Most rows of one call; longer spans are fed in pieces."""
_log = logging.getLogger(__name__)


class NativeDecoder:
    """See the module."""

    def __init__(self, step: NativeStep) -> None:
        self._step = step

    @classmethod
    def build(
        cls, model: Model, pages: Pages, context: int, module: MtpModule | None = None
    ) -> NativeDecoder | None:
        """The decoder, or None when this machine or this model cannot have it.

        Args:
            module: decode this one in place of the model's own layers.
        """
        if pages.keys.device.type != "cpu" or pages.keys.dtype not in (
            torch.float32,
            torch.bfloat16,
        ):
            return None
        if problem := library_problem():
            _log.info("decoding with PyTorch alone: %s", problem)
            return None
        layers = slice(0, model.config.num_hidden_layers)
        if module is not None:
            layers = slice(module.block.self_attn.index, module.block.self_attn.index + 1)
        memory = PagedMemory(
            keys=pages.keys[layers],
            values=pages.values[layers],
            routes=pages.routes if module is None else None,
        )
        return cls(NativeStep(_weights(model, module, context), memory))

    @property
    def code(self) -> str:
        """A name of the compiled code, by its sources, compiler, flags and processor."""
        return Path(library(decode_step.__name__)._name).stem

    def __call__(self, spans: Sequence[Span], given: torch.Tensor | None = None) -> Fed:
        """Feed all spans, `_ROWS` tokens at a time."""
        places = [(span, index) for span in spans for index in range(len(span.tokens))]
        parts = [
            self._feed(places[at : at + _ROWS], None if given is None else given[at : at + _ROWS])
            for at in range(0, len(places), _ROWS)
        ]
        if len(parts) == 1:
            return parts[0]
        return Fed(
            torch.cat([part.logits for part in parts]), torch.cat([part.states for part in parts])
        )

    def _feed(self, places: Sequence[tuple[Span, int]], given: torch.Tensor | None) -> Fed:
        widest = max(len(span.pages) for span, _ in places)
        tables = [[*span.pages, *[0] * (widest - len(span.pages))] for span, _ in places]
        positions = [span.start + index for span, index in places]
        wanted = [
            row
            for row, (span, index) in enumerate(places)
            if len(span.tokens) - index <= span.wanted
        ]
        return Fed(
            *self._step(
                DecodeRows(
                    tokens=_numbers([span.tokens[index] for span, index in places], np.int64),
                    positions=_numbers(positions, np.int32),
                    tables=_numbers(tables, np.int32),
                    wanted=_numbers(wanted, np.int32),
                    given=given,
                )
            )
        )


def _numbers(values: Any, dtype: Any) -> torch.Tensor:
    """As `torch.tensor`, which takes ten times as long for a few numbers."""
    return torch.from_numpy(np.array(values, dtype))


def _weights(model: Model, module: MtpModule | None, context: int) -> DecodeWeights:
    config, joint = model.config, None
    layers, norm = model.model.decoder_layers(), model.model.norm
    if module is not None:
        layers, norm = [module.block], module.norm
        joint = JointWeights(
            state_norm=module.hidden_norm.weight.detach(),
            embed_norm=module.embed_norm.weight.detach(),
            joint=module.proj.weight.detach(),
        )
    cos, sin = rotary_table(torch.arange(context), config.rotary_dim, config.rope_theta)
    return DecodeWeights(
        layers=[_layer(layer) for layer in layers],
        embed=model.model.embed_tokens.weight.detach(),
        norm=norm.weight.detach(),
        head=model.lm_head.weight.detach(),
        cos=cos,
        sin=sin,
        head_dim=config.head_dim,
        top_k=config.num_experts_per_tok,
        eps=config.rms_norm_eps,
        joint=joint,
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
