"""A training step of ours against transformers, in turn, in one run; each in its best type.

Both start from the same weights, see the same 4 x 1024 tokens and step AdamW. Wall time and, as
other work may share the machine, processor time. Runs the tests of what it measures first and
prints no speed on red. `--json` puts one object on standard output; `--quick` takes fewer repeats.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from rollmill.model.config import ModelConfig
from rollmill.model.model import Model
from rollmill.model.train.config import TrainConfig
from rollmill.model.train.flops import measured_peak_flops, step_flops
from rollmill.model.train.losses import next_token_loss
from rollmill.model.train.optim import Optimizer
from rollmill.model.train.packing import Batch

ROOT = Path(__file__).parent.parent.parent
TESTS = ("kernels", "model/test_model.py", "model/train/test_optim.py")
SEQUENCES, LENGTH = 4, 1024
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

Step = Callable[[], float]


def ours(model: Model, tokens: torch.Tensor, dtype: Any) -> Step:
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


def theirs(weights: dict[str, torch.Tensor], tokens: torch.Tensor, dtype: str) -> Step:
    """The same step as a user of transformers writes it; bf16 by autocast over fp32 weights."""
    model = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        transformers.MiniMaxM2Config(**json.loads(CONFIG.to_json()))
    ).train()
    model.load_state_dict(
        {name.replace("block_sparse_moe", "mlp"): each for name, each in weights.items()}
    )
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


def measure(steps: dict[str, Step], repeats: int) -> dict[str, dict[str, float]]:
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


def report(repeats: int) -> dict[str, Any]:
    torch.manual_seed(0)
    weights = {name: each.clone() for name, each in Model(CONFIG).state_dict().items()}
    tokens = torch.randint(0, CONFIG.vocab_size, (SEQUENCES, LENGTH + 1))
    steps: dict[str, Step] = {}
    for dtype in ("float32", "bfloat16"):
        model = Model(CONFIG)
        model.load_state_dict(weights)
        steps[f"ours_{dtype}"] = ours(model, tokens, dtype)
        steps[f"transformers_{dtype}"] = theirs(weights, tokens, dtype)
    rates = measure(steps, repeats)

    def best(side: str, clock: str) -> tuple[float, str]:
        return max((rates[f"{side}_{d}"][clock], d) for d in ("float32", "bfloat16"))

    (mine, dtype), (peer, _) = best("ours", "wall"), best("transformers", "wall")
    (mine_cpu, _), (peer_cpu, _) = best("ours", "cpu"), best("transformers", "cpu")
    count = SEQUENCES * LENGTH
    flops = mine / count * step_flops(CONFIG, [LENGTH] * SEQUENCES, count)
    return {
        "train_step": {
            "ours": mine,
            "transformers": peer,
            "ratio_transformers": mine / peer,
            "ratio": mine / peer,
        },
        "train_step_processor_time_ratio": mine_cpu / peer_cpu,
        "train_step_flops_per_s": flops,
        "train_step_peak_share": flops / measured_peak_flops(getattr(torch, dtype)),
        "train_step_dtype": dtype,
        "tokens_per_s": {name: each["wall"] for name, each in rates.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tests = [str(ROOT / "tests" / each) for each in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", *tests]
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode:
        raise SystemExit("the tests are red: no speed is printed; run them and mend them first")
    found = report(1 if options.quick else 5)
    text = json.dumps(found, indent=None if options.json else 2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
