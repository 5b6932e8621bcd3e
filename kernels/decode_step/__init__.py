"""One forward pass of the whole model for a few tokens over paged keys and values."""

from .cpu_build import library_problem
from .cpu_native import NativeStep, decode_step
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
