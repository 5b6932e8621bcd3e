"""Compiles a kernel's `cpu_native.cpp` for this very processor when first needed, once a machine.

The library lies in the user's cache under a name made of the sources, the compiler and the
processor, so nothing stale is ever loaded. Without a working compiler there is no library, and
callers do without: they ask `library_problem` first.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import math
import os
import platform
import shutil
import subprocess
import threading
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import platformdirs
import torch

_FLAGS = (
    *("-O3", "-march=native", "-std=c++17", "-fPIC"),
    *os.environ.get("ROLLMILL_CXXFLAGS", "").split(),
)
_BUILD_S = 600  # on a machine that is busy with other things
SUFFIXES = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""What the compiled kernels compute in, as their functions' names say it."""
Argument = torch.Tensor | int | float | None
_log = logging.getLogger(__name__)


def library_problem(package: str) -> str | None:
    """Why a kernel has no library here; None = it has one. The first call may compile it.

    Args:
        package: the kernel's folder, `__name__` of its `__init__.py`.
    """
    found = _load(package)
    return found if isinstance(found, str) else None


def library(package: str) -> ctypes.CDLL:
    """The library of a kernel.

    Raises:
        RuntimeError: there is none here; ask `library_problem` first.
    """
    found = _load(package)
    if isinstance(found, str):
        raise RuntimeError(f"expected a compiled kernel for {package}, got none: {found}")
    return found


def call(package: str, name: str, dtype: torch.dtype, *args: Argument) -> None:
    """Run a function of a kernel's library on this many threads: `name_f32` or `name_bf16`.

    Args:
        dtype: decides which of the two; see `SUFFIXES`.
        args: contiguous tensors go as pointers, None as a null pointer, whole numbers as int64_t
            and others as double; the number of threads goes last.
    """
    function = _function(package, name, dtype, tuple(map(_kind, args)))
    function(*map(_value, args), torch.get_num_threads())


class Scratch(threading.local):
    """Memory of what a kernel needs within one call, kept from call to call: one block a name.

    A block grows to the largest use and is not given back. Each thread has its own.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor; it loses its content when `name` is taken again.

        As PyTorch does with new memory, filled with NaN under deterministic algorithms.
        """
        count = math.prod(shape)
        block = self._blocks.get((name, dtype))
        if block is None or block.numel() < count:
            with torch.inference_mode(mode=False):  # so that any later call may write to it
                block = self._blocks[name, dtype] = torch.empty(count, dtype=dtype)
        taken = block[:count].view(shape)
        return taken.fill_(torch.nan) if torch.are_deterministic_algorithms_enabled() else taken

    def like(self, name: str, rows: torch.Tensor, width: int) -> torch.Tensor:
        """The same with as many rows and of the same type as `rows`."""
        return self.take(name, (len(rows), width), rows.dtype)


def _kind(value: Argument) -> Any:
    if isinstance(value, int):
        return ctypes.c_int64
    return ctypes.c_double if isinstance(value, float) else ctypes.c_void_p


def _value(value: Argument) -> int | float | None:
    if not isinstance(value, torch.Tensor):
        return value
    assert value.is_contiguous()
    assert value.is_cpu
    return value.data_ptr()


@cache
def _function(package: str, name: str, dtype: torch.dtype, kinds: tuple[Any, ...]) -> Any:
    """A function that takes arguments of these kinds as they are, and a number of threads."""
    # By index: as an attribute it would be one function, whose kinds could be others.
    function = library(package)[f"{name}_{SUFFIXES[dtype]}"]
    function.argtypes, function.restype = (*kinds, ctypes.c_int64), None
    return function


@cache
def _load(package: str) -> ctypes.CDLL | str:
    if os.environ.get("ROLLMILL_NATIVE") == "0":
        return "ROLLMILL_NATIVE=0 is set"
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return "no C++ compiler was found; install g++ for more speed"
    try:
        return ctypes.CDLL(str(_build(compiler, package)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        _log.warning("going on without the compiled %s: %s", package, detail)
        return f"{compiler} could not build it: {detail}"


def _build(compiler: str, package: str) -> Path:
    source = resources.files(package) / "cpu_native.cpp"
    folder = resources.files(__package__)
    headers = sorted(
        (each for each in folder.iterdir() if each.name.endswith(".h")), key=lambda each: each.name
    )
    texts = [each.read_text(encoding="utf-8") for each in (source, *headers)]
    flags = [*_FLAGS, *_openmp()]
    key = "\n".join((*texts, _target(compiler), platform.machine(), *flags))
    short = package.rpartition(".")[2]
    name = f"{short}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    target = platformdirs.user_cache_path("rollmill", ensure_exists=True) / name
    if target.is_file():
        return target
    partial = target.with_name(f".{name}.{os.getpid()}.partial")
    with resources.as_file(source) as file, resources.as_file(folder) as beside:
        include = f"-I{beside}"
        _run([compiler, "-fopenmp", "-c", *_FLAGS, include, str(file), "-o", f"{partial}.o"])
        _run([compiler, "-shared", f"{partial}.o", *_openmp(), "-o", str(partial)])
    Path(f"{partial}.o").unlink()
    partial.replace(target)
    return target


@cache
def _target(compiler: str) -> str:
    """Version of the compiler and what it knows of this processor."""
    # One by one: beside `--version` the rest is not printed.
    return _run([compiler, "--version"]) + _run([compiler, *_FLAGS[:2], "-Q", "--help=target"])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_BUILD_S)
    return done.stdout


def _openmp() -> list[str]:
    """PyTorch's own OpenMP runtime: the threads of a second one would fight for the cores."""
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return [str(found[0])] if found else ["-fopenmp"]
