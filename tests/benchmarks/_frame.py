"""What the benchmarks of the model share: its config, the command line, and a look at memory.

Not a benchmark. The benchmarks import each other as `rollmill.tests.benchmarks.NAME`, which a
checkout has and a wheel has not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rollmill.model.config import ModelConfig

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
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


def run(measure: Callable[..., dict[str, Any]], tested: Sequence[str], description: str) -> int:
    """The command line of a benchmark; 0 = done, 1 = a test is red and no speed was printed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--quick", action="store_true", help="smaller counts, same keys")
    parser.add_argument("--out", type=Path, help="also write the JSON object here")
    options = parser.parse_args()
    command = [sys.executable, "-m", "pytest", "-q", *tested]
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode:
        print("no speed on red tests: run them and mend them first", file=sys.stderr)
        return 1
    text = json.dumps(measure(quick=options.quick), indent=None if options.json else 2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0


def against(ours: float, transformers: float) -> dict[str, float]:
    """A figure with its peer, of which more is better."""
    ratio = ours / transformers
    return {
        "ours": ours,
        "transformers": transformers,
        "ratio_transformers": ratio,
        "ratio": ratio,
    }


def peak_bytes_of(job: str, weights: Path) -> dict[str, float]:
    """Peak resident memory of a job of `_memory.py` on both sides, each in a process of its own.

    A ratio over 1 means that ours needs less.
    """
    script = str(HERE / "_memory.py")
    ours, peer = (
        int(subprocess.check_output([sys.executable, script, job, side, str(weights)], cwd=ROOT))
        for side in ("ours", "transformers")
    )
    return {
        "ours": ours,
        "transformers": peer,
        "ratio_transformers": peer / ours,
        "ratio": peer / ours,
    }
