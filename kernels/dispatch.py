"""The one rule that decides which version of a kernel runs.

On the CPU the compiled version, where there is one and a compiler, for fp32 and bf16; else that in
PyTorch. On a GPU the Triton version if Triton is installed; anywhere else the reference, which is
right everywhere and fast nowhere. The first argument's device and type decide.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

from .native import SUFFIXES, library_problem

P = ParamSpec("P")
R = TypeVar("R")


def dispatched(
    cpu: Callable[P, R], package: str, native: Callable[P, R] | None = None
) -> Callable[P, R]:
    """`cpu` where the tensors lie on the CPU, else its namesake in a sister module.

    Args:
        cpu: the CPU version; the others have its name and signature.
        package: the kernel's folder, `__name__` of its `__init__.py`.
        native: the compiled CPU version, for fp32 and bf16; None = there is none.
    """

    @wraps(cpu)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        device = getattr(args[0], "device", None)
        if native and device is not None and device.type == "cpu" and _compiled(args[0], package):
            return native(*args, **kwargs)
        if device is None or device.type in ("cpu", "meta"):
            return cpu(*args, **kwargs)
        module = "triton_kernel" if device.type == "cuda" and _has_triton() else "reference"
        return _namesake(package, module, cpu.__name__)(*args, **kwargs)  # type: ignore[no-any-return]

    return call


def _compiled(first: Any, package: str) -> bool:
    return first.dtype in SUFFIXES and library_problem(package) is None


@cache
def _namesake(package: str, module: str, name: str) -> Callable[..., Any]:
    return getattr(import_module(f"{package}.{module}"), name)  # type: ignore[no-any-return]


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
