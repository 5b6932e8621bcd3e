"""Kernels are tested in memory full of NaN; with TRITON_INTERPRET=0, on the GPU, as compiled."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Before a test imports a Triton kernel: on the CPU it runs interpreted.
os.environ.setdefault("TRITON_INTERPRET", "1")
ON_GPU = os.environ["TRITON_INTERPRET"] == "0" and torch.cuda.is_available()
CPU_ONLY = ("test_decode_step", "test_every_fast_kernel")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a GPU, leave out what is about code for the CPU."""
    for item in items if ON_GPU else ():
        version = item.callspec.params.get("fast") if hasattr(item, "callspec") else None
        named = ".cpu_" in getattr(version, "__module__", "")
        if item.path.stem in CPU_ONLY or (named and not hasattr(version, "__wrapped__")):
            item.add_marker(pytest.mark.skip(reason="about code for the CPU"))


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fresh memory holds NaN, so that a kernel that forgets to write an element shows it."""
    torch.set_default_device("cuda" if ON_GPU else "cpu")
    torch.use_deterministic_algorithms(True, warn_only=ON_GPU)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_default_device(None)


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out: object = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


@pytest.fixture
def largest_of() -> Callable[[Callable[[], object]], int]:
    """Counts the elements of the largest tensor that a call makes."""

    def measure(call: Callable[[], object]) -> int:
        with _Largest() as largest:  # type: ignore[no-untyped-call]
            call()
        return int(largest.elements)

    return measure
