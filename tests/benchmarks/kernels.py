"""Each kernel's version for this machine beside its reference, in turn, at the 29M model's sizes.

Forward only, fp32. Milliseconds are medians. The tests of all kernels run first; when one is red no
speed is printed. Triton versions are not timed: on a CPU they run in an interpreter.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any

import torch

from rollmill.tests.benchmarks._frame import run

HIDDEN, HEADS, KV_HEADS, DIM, ROTARY = 256, 8, 4, 32, 16
EXPERTS, TOP_K, INNER, VOCAB, PAGE = 32, 4, 128, 4096, 16


def measure(*, quick: bool) -> dict[str, Any]:
    """Milliseconds of both versions and their ratio, by kernel."""
    torch.manual_seed(0)
    tokens, rounds = (128, 1) if quick else (1024, 5)
    return {
        name: _compared(name, arguments, rounds) for name, arguments in _arguments(tokens).items()
    }


@torch.inference_mode()
def _compared(name: str, arguments: tuple[Any, ...], rounds: int) -> dict[str, float]:
    package, called = f"rollmill.kernels.{name}", "sample" if name == "sampling" else name
    versions: Mapping[str, Callable[[], Any]] = {
        "ours_ms": partial(getattr(import_module(package), called), *arguments),
        "reference_ms": partial(getattr(import_module(f"{package}.reference"), called), *arguments),
    }
    times: dict[str, list[float]] = {version: [] for version in versions}
    for call in versions.values():
        call()
    for _ in range(rounds):
        for version, call in versions.items():
            start = time.perf_counter()
            call()
            times[version].append(1e3 * (time.perf_counter() - start))
    found = {version: median(each) for version, each in times.items()}
    return found | {"ratio": found["reference_ms"] / found["ours_ms"]}


def _arguments(tokens: int) -> dict[str, tuple[Any, ...]]:
    pages = tokens // PAGE
    rows, positions = torch.randn(tokens, HIDDEN), torch.arange(tokens)
    turned = torch.randn(2, tokens, ROTARY // 2)
    scores = torch.rand(tokens, EXPERTS).topk(TOP_K)
    head, targets = torch.randn(VOCAB, HIDDEN), torch.randint(0, VOCAB, (tokens,))
    ones = torch.ones(64)
    return {
        "rms_norm": (rows, torch.ones(HIDDEN), 1e-6),
        "qk_norm_rotary": (rows.view(tokens, HEADS, DIM), torch.ones(HIDDEN), *turned, 1e-6),
        "grouped_experts": (
            rows,
            scores.indices,
            scores.values,
            torch.randn(EXPERTS, 2 * INNER, HIDDEN),
            torch.randn(EXPERTS, HIDDEN, INNER),
        ),
        "paged_attention": (
            torch.randn(tokens, HEADS, DIM),
            torch.randn(pages, KV_HEADS, DIM, PAGE),
            torch.randn(pages, KV_HEADS, PAGE, DIM),
            torch.arange(pages, dtype=torch.int32)[None],
            torch.zeros(tokens, dtype=torch.int64),
            positions,
        ),
        "token_logprobs": (rows, head, targets),
        "cross_entropy": (rows, head, targets),
        "sampling": (torch.randn(64, VOCAB), ones, 40 * ones.long(), 0.95 * ones, 0.5 * ones),
    }


if __name__ == "__main__":
    sys.exit(run(measure, ("tests/kernels",), __doc__))
