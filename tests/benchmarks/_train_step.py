"""A training step of ours against transformers, in turn; each in its best type. Not a benchmark.

Both start from the same weights, see the same 4 x 1024 tokens and step AdamW. Wall time and, as
other work may share the machine, processor time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rollmill.model.checkpoint import load_model, save_checkpoint
from rollmill.model.model import Model
from rollmill.model.train.config import TrainConfig
from rollmill.model.train.flops import measured_peak_flops, step_flops
from rollmill.model.train.losses import next_token_loss
from rollmill.model.train.optim import Optimizer
from rollmill.model.train.packing import Batch
from rollmill.tests.benchmarks._frame import CONFIG, DTYPES, against

SEQUENCES, LENGTH = 4, 1024

Step = Callable[[], float]


def random_tokens() -> torch.Tensor:
    """[SEQUENCES, LENGTH + 1]"""
    return torch.randint(0, CONFIG.vocab_size, (SEQUENCES, LENGTH + 1))


def ours(weights: Path, tokens: torch.Tensor, dtype: Any) -> Step:
    """A step as `loop.train` makes it."""
    model = load_model(weights, torch.float32)
    optimizer = Optimizer(model, TrainConfig(steps=1, dtype=dtype))
    flat = tokens[:, :-1].reshape(-1)
    batch = Batch(
        tokens=flat,
        targets=tokens[:, 1:].reshape(-1),
        mask=torch.ones_like(flat, dtype=torch.bool),
        seq_lens=[LENGTH] * SEQUENCES,
    )

    def step() -> float:
        loss = next_token_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(1e-4)
        return loss.item()

    return step


def theirs(weights: Path, tokens: torch.Tensor, dtype: str) -> Step:
    """The same step as a user of transformers writes it; bf16 by autocast over fp32 weights."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = model(inputs, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits.float().reshape(-1, CONFIG.vocab_size), targets.reshape(-1)
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


SIDES: dict[str, Callable[[Path, torch.Tensor, str], Step]] = {
    "ours": ours,
    "transformers": theirs,
}


def rates_of(steps: dict[str, Step], repeats: int) -> dict[str, dict[str, float]]:
    """Best tokens per second of each, by wall and by processor time; one step of each in turn."""
    count = SEQUENCES * LENGTH
    found: dict[str, dict[str, float]] = {name: {"wall": 0.0, "cpu": 0.0} for name in steps}
    losses = {name: step() for name, step in steps.items()}  # also warms up
    spread = max(losses.values()) - min(losses.values())
    if not spread < 0.05:
        raise SystemExit(f"the sides do not compute the same loss: {losses}; no speed is printed")
    for _ in range(repeats):
        for name, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            rates = found[name]
            rates["wall"] = max(rates["wall"], count / (time.perf_counter() - wall))
            rates["cpu"] = max(rates["cpu"], count / (time.process_time() - cpu))
    return found


def measure(*, quick: bool) -> dict[str, Any]:
    """The figures, in tokens a second unless their names say otherwise."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoint(Model(CONFIG), folder)
        tokens = random_tokens()
        steps = {
            f"{side}_{dtype}": make(folder, tokens, dtype)
            for dtype in DTYPES
            for side, make in SIDES.items()
        }
    rates = rates_of(steps, 1 if quick else 5)

    def best(side: str, clock: str) -> tuple[float, str]:
        return max((rates[f"{side}_{dtype}"][clock], dtype) for dtype in DTYPES)

    (mine, dtype), (peer, peer_dtype) = best("ours", "wall"), best("transformers", "wall")
    (mine_cpu, _), (peer_cpu, _) = best("ours", "cpu"), best("transformers", "cpu")
    count = SEQUENCES * LENGTH
    flops = mine / count * step_flops(CONFIG, [LENGTH] * SEQUENCES, count)
    share = flops / measured_peak_flops(DTYPES[dtype])
    return {
        "train_step": {
            **against(mine, peer),
            "ours_dtype": dtype,
            "transformers_dtype": peer_dtype,
            "peak_share": share,
            "flops_per_s": flops,
            "processor_time_ratio": mine_cpu / peer_cpu,
            "tokens_per_s": {name: each["wall"] for name, each in rates.items()},
        }
    }
