"""The bundled architecture's speed beside transformers: same weights, in turn, in one run.

Each side runs in fp32 and bf16 and is judged by its better type. Random weights, 29M parameters;
greedy, so that both sides do the same work. No speed is printed when a test is red.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rollmill.kernels.decode_step import library_problem
from rollmill.model.checkpoint import load_model, save_checkpoint
from rollmill.model.config import ModelConfig
from rollmill.model.engine import Engine, GenRequest
from rollmill.model.model import Model

ROOT = Path(__file__).parent.parent.parent
TESTED = ("tests/kernels/test_decode_step.py", "tests/model/test_engine.py")
CONFIG = ModelConfig(
    vocab_size=4096,
    hidden_size=256,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=32,
    rotary_dim=16,
    intermediate_size=128,
    num_local_experts=32,
    num_experts_per_tok=4,
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Generate = Callable[[list[list[int]], int], None]


def main() -> int:
    """Measure; 0 = done, 1 = a test is red."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--quick", action="store_true", help="smaller counts, same keys")
    parser.add_argument("--out", type=Path, help="also write the JSON object here")
    options = parser.parse_args()
    if not _tests_pass():
        return 1
    logging.disable(logging.WARNING)
    result = measure(quick=options.quick)
    text = json.dumps(result, indent=None if options.json else 2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    return 0


def measure(*, quick: bool) -> dict[str, Any]:
    """All figures, in tokens a second unless their names say otherwise."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoint(Model(CONFIG), folder)
        ours = {dtype: _ours(folder, DTYPES[dtype]) for dtype in DTYPES}
        peer = {dtype: _transformers(folder, DTYPES[dtype]) for dtype in DTYPES}
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
        **_spec_decode(quick=quick),
    }


def _tests_pass() -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *TESTED], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        print(f"no speed on red tests:\n{done.stdout}", file=sys.stderr)
    return done.returncode == 0


def _spec_decode(*, quick: bool) -> dict[str, Any]:
    """What `spec_decode.py` finds on the bundled policy; nothing when its tests are red."""
    command = [sys.executable, str(Path(__file__).with_name("spec_decode.py")), "--json"]
    done = subprocess.run(
        [*command, *["--quick"] * quick], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def _ours(folder: Path, dtype: torch.dtype) -> Generate:
    model = load_model(folder, dtype)

    def generate(prompts: list[list[int]], tokens: int) -> None:
        engine = Engine(model, slots=16)  # anew, so that nothing is cached from the last round
        engine.generate(
            [
                GenRequest(prompt_ids=tuple(prompt), max_tokens=tokens, temperature=0)
                for prompt in prompts
            ]
        )

    return generate


def _transformers(folder: Path, dtype: torch.dtype) -> Generate:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.eval()

    @torch.inference_mode()
    def generate(prompts: list[list[int]], tokens: int) -> None:
        ids = torch.tensor(prompts)
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )

    return generate


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
    ratio = best["transformers"][0] / best["ours"][0]
    return {
        "ours": counted / best["ours"][0],
        "transformers": counted / best["transformers"][0],
        "ours_dtype": best["ours"][1],
        "transformers_dtype": best["transformers"][1],
        "ratio_transformers": ratio,
        "ratio": ratio,
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
    sys.exit(main())
