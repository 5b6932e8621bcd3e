"""Compiles `cpu_native.cpp` for this very processor when first needed, once a machine.

The library lies in the user's cache under a name made of the source, the compiler and the
processor, so nothing stale is ever loaded. Without a working compiler there is no library, and
callers do without.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from functools import cache
from importlib import resources
from pathlib import Path

import platformdirs
import torch

_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC")
_BUILD_S = 120
_log = logging.getLogger(__name__)


def library_problem() -> str | None:
    """Why there is no library here; None = there is one. The first call may compile it."""
    found = _load()
    return found if isinstance(found, str) else None


def library() -> ctypes.CDLL:
    """The library.

    Raises:
        RuntimeError: there is none here; ask `library_problem` first.
    """
    found = _load()
    if isinstance(found, str):
        raise RuntimeError(f"expected a compiled decoder, got none: {found}")
    return found


@cache
def _load() -> ctypes.CDLL | str:
    if os.environ.get("ROLLMILL_NATIVE") == "0":
        return "ROLLMILL_NATIVE=0 is set"
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return "no C++ compiler was found; install g++ for faster decoding"
    try:
        return ctypes.CDLL(str(_build(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        _log.warning("decoding without the compiled kernel: %s", detail)
        return f"{compiler} could not build it: {detail}"


def _build(compiler: str) -> Path:
    source = resources.files(__package__) / "cpu_native.cpp"
    text = source.read_text(encoding="utf-8")
    asked = subprocess.run(
        [compiler, *_FLAGS[:2], "-Q", "--help=target", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=_BUILD_S,
    )
    flags = [*_FLAGS, *_openmp()]
    key = "\n".join((text, asked.stdout, platform.machine(), *flags))
    name = f"decode-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    target = platformdirs.user_cache_path("rollmill", ensure_exists=True) / name
    if not target.is_file():
        partial = target.with_name(f".{name}.{os.getpid()}.partial")
        with resources.as_file(source) as file:
            subprocess.run(
                [compiler, "-fopenmp", "-c", *_FLAGS, str(file), "-o", f"{partial}.o"],
                capture_output=True,
                text=True,
                check=True,
                timeout=_BUILD_S,
            )
            subprocess.run(
                [compiler, "-shared", f"{partial}.o", *_openmp(), "-o", str(partial)],
                capture_output=True,
                text=True,
                check=True,
                timeout=_BUILD_S,
            )
        Path(f"{partial}.o").unlink()
        partial.replace(target)
    return target


def _openmp() -> list[str]:
    """PyTorch's own OpenMP runtime: the threads of a second one would fight for the cores."""
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return [str(found[0])] if found else ["-fopenmp"]
