"""Each fast kernel has a slow twin beside it and a test file of its own."""

from pathlib import Path

import pytest

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


def test_a_kernel_folder_holds_nothing_else() -> None:
    kernels = (ROOT / "kernels").glob("*/*.py")
    names = {path.name for path in kernels if not path.name.startswith(("cpu_", "triton_"))}
    assert names == {"__init__.py", "reference.py"}
