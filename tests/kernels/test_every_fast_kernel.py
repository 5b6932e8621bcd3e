"""Each fast kernel has a slow twin beside it and a test file of its own."""

import inspect
import os
import platform
import shutil
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rollmill.kernels.dispatch import dispatched
from rollmill.kernels.native import _target, library_problem

ROOT = Path(__file__).parent.parent.parent
FAST = sorted(
    path
    for pattern in ("cpu_*.py", "triton_*.py", "cuda_*.py")
    for path in (ROOT / "kernels").glob(f"*/{pattern}")
)


@pytest.mark.parametrize("path", FAST, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_fast_file_has_a_reference_and_a_test(path: Path) -> None:
    assert (path.parent / "reference.py").is_file()
    assert (ROOT / "tests/kernels" / f"test_{path.parent.name}.py").is_file()


def test_there_are_fast_files() -> None:
    assert FAST


CPU_ONLY = {"decode_step"}  # the engine's: it runs on the CPU alone


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "kernels").glob("*/")), ids=lambda path: path.name
)
def test_a_kernel_is_fast_on_the_cpu_and_on_a_gpu(folder: Path) -> None:
    if not (folder / "__init__.py").exists():
        return
    names = {path.name for path in folder.glob("*.py")}
    assert any(name.startswith("cpu_") for name in names)
    assert ("triton_kernel.py" in names) == (folder.name not in CPU_ONLY)


def test_a_kernel_folder_holds_nothing_else() -> None:
    kernels = (ROOT / "kernels").glob("*/*.py")
    names = {path.name for path in kernels if not path.name.startswith(("cpu_", "triton_"))}
    assert names == {"__init__.py", "reference.py"}


@pytest.mark.parametrize("path", FAST, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_version_has_the_name_and_signature_of_the_reference(path: Path) -> None:
    package = import_module(f"rollmill.kernels.{path.parent.name}")
    plain = import_module(f"{package.__name__}.reference")
    version = import_module(f"{package.__name__}.{path.stem}")
    own = [name for name in package.__all__ if inspect.isfunction(getattr(plain, name, None))]
    kernels = [name for name in own if getattr(package, name) is not getattr(plain, name)]
    assert kernels
    for name in kernels:
        assert inspect.signature(getattr(version, name)) == inspect.signature(getattr(plain, name))


def test_the_device_decides_which_version_runs() -> None:
    def rms_norm(x: torch.Tensor) -> str:
        return "cpu"

    call = dispatched(rms_norm, "rollmill.kernels.rms_norm")
    assert call(torch.zeros(1)) == "cpu"
    elsewhere = SimpleNamespace(device=torch.device("xpu"))
    with pytest.raises(TypeError, match="weight"):  # the reference wants more arguments
        call(elsewhere)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weight"):
        call(SimpleNamespace(device=torch.device("cuda")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "source", sorted((ROOT / "kernels").glob("*/cpu_native.cpp")), ids=lambda path: path.parent.name
)
def test_a_compiled_kernel_has_a_library_where_there_is_a_compiler(source: Path) -> None:
    problem = library_problem(f"rollmill.kernels.{source.parent.name}")
    if shutil.which("g++") and os.environ.get("ROLLMILL_NATIVE") != "0":
        assert problem is None
    else:
        assert problem


@pytest.mark.skipif(
    not shutil.which("g++") or platform.machine() != "x86_64", reason="needs g++ on x86-64"
)
def test_a_library_for_another_processor_has_another_name(tmp_path: Path) -> None:
    other = tmp_path / "g++"
    other.write_text('#!/bin/sh\nexec g++ "$@" -march=x86-64\n', encoding="utf-8")
    other.chmod(0o755)
    assert _target(str(other)) != _target("g++")


def test_a_compiled_version_runs_on_the_cpu_for_fp32_and_bf16_alone() -> None:
    package = "rollmill.kernels.rms_norm"
    if library_problem(package):
        pytest.skip("nothing is compiled here")

    def rms_norm(x: torch.Tensor) -> str:
        return "torch"

    call = dispatched(rms_norm, package, native=lambda x: "native")
    taken = [call(torch.zeros(1, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)]
    assert taken == ["native", "native"]
    assert call(torch.zeros(1, dtype=torch.float64)) == "torch"
    assert call(torch.zeros(1, device="meta")) == "torch"
