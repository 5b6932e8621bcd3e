"""The decode step in C++: one call for all layers, so that Python costs nothing a layer.

For at most some dozen rows; it reads the weights where they are and copies none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from .. import native
from ..neighbours import Neighbours
from .reference import DecodeRows, DecodeWeights, JointWeights, LayerWeights, PagedMemory

_POINTERS = tuple(LayerWeights.__dataclass_fields__)
_JOINT = tuple(JointWeights.__dataclass_fields__)
_SIZES = (
    *("layers", "hidden", "heads", "kv_heads", "dim", "half"),
    *("experts", "top_k", "inner", "vocab", "pages", "threads"),
)
_neighbours = Neighbours()


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in _POINTERS]


class _Shape(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int32) for name in _SIZES), ("eps", ctypes.c_float)]


class _Weights(ctypes.Structure):
    _fields_ = [
        ("layer", ctypes.POINTER(_Layer)),
        *((name, ctypes.c_void_p) for name in ("embed", "norm", "head", "cos", "sin", *_JOINT)),
    ]


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("keys", "values", "routes")]


class _Rows(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("n", "stride", "wanted")),
        *((name, ctypes.c_void_p) for name in ("tokens", "positions", "tables", "want")),
        *((name, ctypes.c_void_p) for name in ("given", "logits", "states")),
    ]


def library_problem() -> str | None:
    """Why there is no compiled step here; None = there is one. The first call may compile it."""
    return native.library_problem(__package__)


class NativeStep:
    """`reference.decode_step` with its weights and memory bound once.

    Tensors must stay where they are in memory; their values may change between calls.

    Raises:
        ValueError: a tensor is not contiguous, or not of the one type they all share.
        RuntimeError: there is no library here.
    """

    def __init__(self, weights: DecodeWeights, memory: PagedMemory) -> None:
        dtype = weights.embed.dtype
        functions = {torch.float32: "decode_f32", torch.bfloat16: "decode_bf16"}
        if dtype not in functions:
            raise ValueError(f"expected fp32 or bf16 weights, got {dtype}")
        self._function = getattr(native.library(__package__), functions[dtype])
        self._function.restype = None
        self._held = (weights, memory)  # the pointers below are into these
        layer, first = weights.layers, weights.layers[0]
        table = (_Layer * len(layer))(
            *(
                _Layer(*(_pointer(getattr(each, name), name, dtype) for name in _POINTERS))
                for each in layer
            )
        )
        self._weights = _Weights(
            table,
            *(_pointer(getattr(weights, name), name, dtype) for name in ("embed", "norm", "head")),
            *(_pointer(each, "cos", torch.float32) for each in (weights.cos, weights.sin)),
            *(
                None if weights.joint is None else _pointer(getattr(weights.joint, n), n, dtype)
                for n in _JOINT
            ),
        )
        self._memory = _Memory(
            _pointer(memory.keys, "keys", dtype),
            _pointer(memory.values, "values", dtype),
            None if memory.routes is None else _pointer(memory.routes, "routes", torch.int16),
        )
        dim = weights.head_dim
        experts, hidden, inner = first.down.shape
        sizes: dict[str, Any] = {
            "layers": len(layer),
            "hidden": hidden,
            "heads": first.q.shape[0] // dim,
            "kv_heads": first.k.shape[0] // dim,
            "dim": dim,
            "half": weights.cos.shape[1],
            "experts": experts,
            "top_k": weights.top_k,
            "inner": inner,
            "vocab": weights.head.shape[0],
            "pages": memory.keys.shape[1],
            "threads": 1,
        }
        self._shape = _Shape(*(sizes[name] for name in _SIZES), weights.eps)
        self._vocab = sizes["vocab"]

    def __call__(self, rows: DecodeRows) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [M, V] of the wanted rows and the states [N, H] of all."""
        if (rows.given is None) != (self._held[0].joint is None):
            raise ValueError("expected given states with a joint and only then; pass both or none")
        self._shape.threads = _threads()
        logits = torch.empty((len(rows.wanted), self._vocab), dtype=torch.float32)
        states = torch.empty((len(rows.tokens), self._shape.hidden), dtype=torch.float32)
        given = rows.given if rows.given is None else rows.given.float().contiguous()
        places = (rows.tokens, rows.positions, rows.tables, rows.wanted, given, logits, states)
        where = _Rows(
            len(rows.tokens),
            rows.tables.shape[1],
            len(rows.wanted),
            *(None if each is None else each.data_ptr() for each in places),
        )
        self._function(
            *(ctypes.byref(each) for each in (self._shape, self._weights, self._memory, where))
        )
        return logits, states


def decode_step(
    weights: DecodeWeights, memory: PagedMemory, rows: DecodeRows
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as `reference.decode_step`; `NativeStep` saves the binding of each call."""
    return NativeStep(weights, memory)(rows)


def _threads() -> int:
    """PyTorch's number, but one where others keep the cores busy: the threads meet after each
    stage, and waiting for one that has no core costs more than the second core gives. The result
    is the same to the last bit."""
    return 1 if _neighbours.crowd() else torch.get_num_threads()


def _pointer(tensor: torch.Tensor, name: str, dtype: torch.dtype) -> int:
    expected: Sequence[torch.dtype] = (torch.float32,) if name == "bias" else (dtype,)
    if tensor.dtype not in expected or not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise ValueError(
            f"expected a contiguous {expected[0]} tensor in main memory for {name}, got "
            f"{tensor.dtype}, strides {tensor.stride()}, on {tensor.device}"
        )
    return tensor.data_ptr()
