"""One forward pass of the whole model for a few tokens over paged keys and values."""

from .cpu_native import NativeStep, decode_step, library_problem
from .reference import DecodeRows, DecodeWeights, JointWeights, LayerWeights, PagedMemory

__all__ = [
    "DecodeRows",
    "DecodeWeights",
    "JointWeights",
    "LayerWeights",
    "NativeStep",
    "PagedMemory",
    "decode_step",
    "library_problem",
]
