"""Each kernel's version for this machine beside its reference, in turn; milliseconds are medians.

On a CPU forward only, in fp32, at the 29M model's sizes. With a GPU and TRITON_INTERPRET=0 the
Triton versions in bf16 at the widths of M2 itself, forward and backward, also beside what PyTorch
has for the same, and the memory that each takes. The tests of all kernels run first; when one is
red no speed is printed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from rollmill.kernels.decode_step import DecodeRows, DecodeWeights, LayerWeights, PagedMemory
from rollmill.tests.benchmarks._frame import run

GPU = os.environ.get("TRITON_INTERPRET") == "0" and torch.cuda.is_available()
PAGE = 16
FORWARD_ONLY = ("adamw", "decode_step", "paged_attention", "sampling")
KEYWORDS: Mapping[str, Mapping[str, Any]] = {
    "adamw": {"step": 9, "lr": 1e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the kernels are measured on."""

    tokens: int
    hidden: int
    heads: int
    kv_heads: int
    dim: int
    rotary: int
    experts: int
    top_k: int
    inner: int
    vocab: int


SMALL = Sizes(
    tokens=1024, hidden=256, heads=8, kv_heads=4, dim=32, rotary=16,
    experts=32, top_k=4, inner=128, vocab=4096,
)  # fmt: skip
M2 = Sizes(
    tokens=4096, hidden=3072, heads=48, kv_heads=8, dim=128, rotary=64,
    experts=256, top_k=8, inner=1536, vocab=200_064,
)  # fmt: skip


def measure(*, quick: bool) -> dict[str, Any]:
    """Milliseconds of all versions and their ratio to ours, by kernel."""
    torch.manual_seed(0)
    torch.set_default_device("cuda" if GPU else "cpu")
    sizes = M2 if GPU else SMALL
    tokens, rounds = (128, 1) if quick else (sizes.tokens, 5)
    found = {
        f"{name}_ms": _compared(name, arguments, rounds)
        for name, arguments in _arguments(sizes, tokens).items()
    }
    device = torch.cuda.get_device_name() if GPU else "cpu"
    return {"device": device, "dtype": "bfloat16" if GPU else "float32"} | found


def _compared(case: str, arguments: tuple[Any, ...], rounds: int) -> dict[str, float]:
    name = case.partition(":")[0]
    package, called = f"rollmill.kernels.{name}", "sample" if name == "sampling" else name
    versions: dict[str, Callable[..., Any]] = {
        "ours": getattr(import_module(package), called),
        "reference": getattr(import_module(f"{package}.reference"), called),
    }
    if GPU and case in PEERS:
        versions["torch"] = PEERS[case]
    steps = {
        key: _step(partial(version, **KEYWORDS.get(name, {})), name, arguments)
        for key, version in versions.items()
    }
    times: dict[str, list[float]] = {version: [] for version in steps}
    for call in steps.values():
        call()
    for _ in range(rounds):
        for version, call in steps.items():
            times[version].append(_milliseconds(call))
    found = {version: median(each) for version, each in times.items()}
    peers = [version for version in steps if version != "ours"]
    ratios = {f"ratio_{peer}": found[peer] / found["ours"] for peer in peers}
    if GPU:
        found |= {f"{version}_peak_mib": _peak_mib(call) for version, call in steps.items()}
    return found | ratios | {"ratio": ratios["ratio_reference"]}


def _step(version: Callable[..., Any], name: str, arguments: tuple[Any, ...]) -> Callable[[], Any]:
    if not GPU or name in FORWARD_ONLY:
        return torch.inference_mode()(partial(version, *arguments))
    leaves = [_leaf(each) for each in arguments]
    learned = [each for each in leaves if isinstance(each, torch.Tensor) and each.requires_grad]
    upstream: list[torch.Tensor] = []

    def both_ways() -> None:
        out = version(*leaves)
        if not upstream:
            upstream.append(torch.randn_like(out))
        torch.autograd.grad(out, learned, upstream)

    return both_ways


def _leaf(value: Any) -> Any:
    """Turned tables and counts are given; the rest is learned."""
    if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
        return value.detach().requires_grad_()
    return value


def _milliseconds(call: Callable[[], Any]) -> float:
    if GPU:
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if GPU:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def _peak_mib(call: Callable[[], Any]) -> float:
    """Memory of the GPU that a call takes beyond what it was given."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _arguments(of: Sizes, tokens: int) -> Mapping[str, tuple[Any, ...]]:
    dtype = torch.bfloat16 if GPU else torch.float32
    normal = partial(torch.randn, dtype=dtype)
    pages, asked = tokens // PAGE, min(tokens, 256)
    rows = normal(tokens, of.hidden)
    turned = torch.randn(2, tokens, of.rotary // 2)
    scores = torch.rand(tokens, of.experts).topk(of.top_k)
    head, targets = normal(of.vocab, of.hidden), torch.randint(0, of.vocab, (tokens,))
    heads, kv = (normal(tokens, each, of.dim) for each in (of.heads, of.kv_heads))
    branch = tokens // 32
    group = torch.arange(branch, tokens // 2 + 1, branch) + tokens // 2
    ones = torch.ones(64)
    cases: dict[str, tuple[Any, ...]] = {
        "rms_norm": (rows, torch.ones(of.hidden, dtype=dtype), 1e-6),
        "qk_norm_rotary": (heads, torch.ones(of.heads * of.dim, dtype=dtype), *turned, 1e-6),
        "grouped_experts": (
            rows,
            scores.indices,
            scores.values,
            normal(of.experts, 2 * of.inner, of.hidden),
            normal(of.experts, of.hidden, of.inner),
        ),
        "paged_attention": (
            heads[:asked],
            normal(pages, of.kv_heads, of.dim, PAGE),
            normal(pages, of.kv_heads, PAGE, of.dim),
            torch.arange(pages, dtype=torch.int32)[None],
            torch.zeros(asked, dtype=torch.int64),
            torch.arange(tokens - asked, tokens),
        ),
        "tree_attention": (heads, kv, kv, torch.full((tokens,), tokens)),
        # 16 completions below one prompt that is as long as all of them
        "tree_attention:group": (
            heads,
            kv,
            kv,
            torch.cat([torch.full((tokens // 2,), tokens), group.repeat_interleave(branch)]),
        ),
        "token_logprobs": (rows, head, targets),
        "cross_entropy": (rows, head, targets),
        "sampling": (torch.randn(64, of.vocab), ones, 40 * ones.long(), 0.95 * ones, 0.5 * ones),
        "adamw": (*torch.rand(4, of.vocab, of.hidden), normal(of.vocab, of.hidden)),
    }
    return cases if GPU else cases | {"decode_step": _decoding(of)}


def _decoding(of: Sizes, layers: int = 2, rows: int = 16, pages: int = 8) -> tuple[Any, ...]:
    """A token of each of some sequences, behind half of the pages that it has room for."""
    q, kv = of.heads * of.dim, of.kv_heads * of.dim
    normal = partial(torch.randn, of.hidden)
    layer = LayerWeights(
        norm1=normal(), norm2=normal(), q_norm=torch.randn(q), k_norm=torch.randn(kv),
        q=torch.randn(q, of.hidden), k=torch.randn(kv, of.hidden), v=torch.randn(kv, of.hidden),
        o=normal(q), gate=torch.randn(of.experts, of.hidden), bias=torch.zeros(of.experts),
        gate_up=torch.randn(of.experts, 2 * of.inner, of.hidden),
        down=torch.randn(of.experts, of.hidden, of.inner),
    )  # fmt: skip
    turned = torch.randn(2, pages * PAGE, of.rotary // 2)
    table = torch.randn(of.vocab, of.hidden)
    weights = DecodeWeights(
        layers=[layer] * layers, embed=table, norm=normal(), head=table, cos=turned[0],
        sin=turned[1], head_dim=of.dim, top_k=of.top_k, eps=1e-6,
    )  # fmt: skip
    cached = (layers, rows * pages, of.kv_heads)
    memory = PagedMemory(
        keys=torch.randn(*cached, of.dim, PAGE), values=torch.randn(*cached, PAGE, of.dim),
        routes=None,
    )  # fmt: skip
    asked = DecodeRows(
        tokens=torch.arange(rows),
        positions=torch.full((rows,), pages * PAGE // 2, dtype=torch.int32),
        tables=torch.arange(rows * pages, dtype=torch.int32).view(rows, pages),
        wanted=torch.arange(rows, dtype=torch.int32),
    )
    return weights, memory, asked


def _torch_experts(
    x: torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    by_row, order = experts.flatten().sort(stable=True)
    numbers = torch.arange(len(gate_up))
    ends = torch.searchsorted(by_row, numbers, right=True).int()
    tokens = order // experts.shape[1]
    gate, up = F.grouped_mm(x[tokens], gate_up.mT, offs=ends).chunk(2, dim=-1)
    y = F.grouped_mm(F.silu(gate) * up, down.mT, offs=ends)
    scaled = y * weights.flatten()[order, None].to(y.dtype)
    return torch.zeros_like(x).index_add(0, tokens, scaled)


def _torch_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, exits: torch.Tensor
) -> torch.Tensor:
    q, k, v = (each.transpose(0, 1)[None] for each in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out[0].transpose(0, 1)


def _torch_cross_entropy(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    return F.cross_entropy(F.linear(hidden, head).float(), targets, reduction="sum")


PEERS: Mapping[str, Callable[..., torch.Tensor]] = {
    "rms_norm": lambda x, weight, eps: F.rms_norm(x, weight.shape, weight, eps),
    "grouped_experts": _torch_experts,
    "tree_attention": _torch_attention,
    "cross_entropy": _torch_cross_entropy,
}
"""What PyTorch has for the same, on a GPU."""


if __name__ == "__main__":
    sys.exit(run(measure, ("tests/kernels", "--confcutdir=tests/kernels"), __doc__))
