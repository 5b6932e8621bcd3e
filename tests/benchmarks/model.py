"""The bundled architecture's speed beside transformers: same weights, in turn, in one run.

Each side runs in fp32 and bf16 and is judged by its better type. Random weights, 29M parameters;
greedy, so that both sides do the same work. No speed is printed when a test is red.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rollmill.kernels.decode_step import library_problem
from rollmill.model.checkpoint import save_checkpoint
from rollmill.model.model import Model
from rollmill.model.train.agreement import bf16_gap
from rollmill.tests.benchmarks import _decoding, _spec_decode, _train_step
from rollmill.tests.benchmarks._decoding import Generate
from rollmill.tests.benchmarks._frame import CONFIG, DTYPES, against, peak_bytes_of, run

TESTED = (
    "tests/kernels",
    "tests/model/test_model.py",
    "tests/model/test_engine.py",
    "tests/model/test_engine_drafts.py",
    "tests/model/train/test_optim.py",
)


def measure(*, quick: bool) -> dict[str, Any]:
    """All figures, in tokens a second unless their names say otherwise."""
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoint(Model(CONFIG), folder)
        peaks = {f"{job}_peak_bytes": peak_bytes_of(job, folder) for job in ("decode", "train")}
        ours = {dtype: _decoding.ours(folder, DTYPES[dtype]) for dtype in DTYPES}
        peer = {dtype: _decoding.theirs(folder, DTYPES[dtype]) for dtype in DTYPES}
    rounds = 1 if quick else 3
    made = 32 if quick else 128
    members, group_tokens = (8, 32) if quick else (16, 256)
    short = [[index + 1, *range(2, 9)] for index in range(16)]
    long = torch.randint(0, CONFIG.vocab_size, (2048,)).tolist()
    figures: dict[str, Any] = {
        "decode_b1": _figure(ours, peer, short[:1], made, made, rounds),
        "decode_b16": _figure(ours, peer, short, made, 16 * made, rounds),
        "prefill": _figure(ours, peer, [long], 1, len(long), rounds),
        "group_rollout": _figure(
            ours, peer, [long] * members, group_tokens, members * group_tokens, 1
        ),
    }
    bandwidth = _bandwidth()
    for name, batch in (("decode_b1", 1), ("decode_b16", 16)):
        wide = 2 if figures[name]["ours_dtype"] == "bfloat16" else 4
        limit = bandwidth / (_weights_read(batch) * wide) * batch
        figures[name]["bandwidth_limit"] = limit
        figures[name]["bandwidth_share"] = figures[name]["ours"] / limit
    return {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": os.getloadavg()[0],
            "torch": torch.__version__,
            "native": library_problem() or "yes",
        },
        "bandwidth_bytes_s": bandwidth,
        **figures,
        **_train_step.measure(quick=quick),
        **peaks,
        "bf16_logprob_gap": asdict(bf16_gap(Model(CONFIG))),
        **_spec_decode.measure(quick=quick),
    }


def _figure(
    ours: dict[str, Generate],
    peer: dict[str, Generate],
    prompts: list[list[int]],
    tokens: int,
    counted: int,
    rounds: int,
) -> dict[str, Any]:
    """The best of some rounds of each side and type, in turn."""
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for side, runs in (("ours", ours), ("transformers", peer)):
            for dtype, generate in runs.items():
                start = time.perf_counter()
                generate(prompts, tokens)
                times.setdefault((side, dtype), []).append(time.perf_counter() - start)
    best = {
        side: min((min(times[side, dtype]), dtype) for dtype in DTYPES)
        for side in ("ours", "transformers")
    }
    return {
        **against(counted / best["ours"][0], counted / best["transformers"][0]),
        "ours_dtype": best["ours"][1],
        "transformers_dtype": best["transformers"][1],
    }


def _bandwidth() -> float:
    """Bytes a second that all threads together read from memory."""
    block = torch.ones(64 * 2**20)  # 256 MiB, far more than the caches hold
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        block.sum()
        best = min(best, time.perf_counter() - start)
    return block.numel() * block.element_size() / best


def _weights_read(batch: int) -> float:
    """How many weights a step of `batch` sequences reads, by the expected number of experts."""
    c = CONFIG
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    hit = c.num_local_experts * (1 - (1 - c.num_experts_per_tok / c.num_local_experts) ** batch)
    layer: float = c.hidden_size * (2 * q + 2 * kv + c.num_local_experts)
    layer += hit * 3 * c.hidden_size * c.intermediate_size
    return c.num_hidden_layers * layer + c.hidden_size * (c.vocab_size + batch)


if __name__ == "__main__":
    sys.exit(run(measure, TESTED, __doc__))
