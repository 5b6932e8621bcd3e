"""Weights in FP8 blocks as M2's checkpoints hold them: e4m3, one scale for each 128 x 128 block.

A file holds `NAME.weight` in float8_e4m3fn and `NAME.weight_scale_inv` in fp32, by which the stored
numbers are *multiplied*. Storage only: all arithmetic is done on dequantised weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

BLOCK = 128
SCALE_SUFFIX = "_scale_inv"
FP8 = torch.float8_e4m3fn
CONFIG: Mapping[str, Any] = {
    "quant_method": "fp8",
    "fmt": "float8_e4m3fn",
    "activation_scheme": "dynamic",
    "weight_block_size": [BLOCK, BLOCK],
    "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"],
}
"""What `config.json` says under `quantization_config`."""

_LARGEST = torch.finfo(FP8).max


def is_quantised(name: str) -> bool:
    """Whether an FP8 checkpoint holds this tensor in blocks: the projections and the experts."""
    return name.endswith("_proj.weight") or ".experts." in name


def scale_shape(shape: torch.Size) -> torch.Size:
    """Shape of the scales of a matrix [A, B]: its blocks, the last ones may be cut."""
    return torch.Size(-(-side // BLOCK) for side in shape)


def quantise(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix [A, B] to FP8 and the scales of its blocks, fp32.

    Each block's largest magnitude becomes the largest number of the type; a block of zeros gets
    the scale 1.
    """
    blocks = _blocks(weight.float())
    largest = blocks.abs().amax(dim=(1, 3))
    scale = torch.where(largest > 0, largest / _LARGEST, 1.0)
    stored = (blocks / scale[:, None, :, None]).clamp_(-_LARGEST, _LARGEST)
    rows, cols = weight.shape
    return stored.reshape(-1, scale.shape[1] * BLOCK)[:rows, :cols].to(FP8), scale


def dequantise(stored: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The matrix [A, B] in fp32."""
    wide = scale.float().repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    rows, cols = stored.shape
    return stored.float() * wide[:rows, :cols]


def _blocks(matrix: torch.Tensor) -> torch.Tensor:
    """[A, B] padded with zeros to [rows of blocks, 128, columns of blocks, 128]."""
    down, across = scale_shape(matrix.shape)
    padded = matrix.new_zeros(down * BLOCK, across * BLOCK)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded.view(down, BLOCK, across, BLOCK)
