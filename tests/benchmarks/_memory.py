"""One job in a process of its own; prints the peak of its resident bytes. Not a benchmark.

Usage: _memory.py train|decode ours|transformers WEIGHTS. In fp32.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch

STEPS = 3
TOKENS, SEQUENCES = 64, 16


def main(job: str, side: str, weights: str) -> None:
    """Run the job with what it needs and no more: weights from a file, imports of this job."""
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    if job == "train":
        from rollmill.tests.benchmarks import _train_step

        step = _train_step.SIDES[side](Path(weights), _train_step.random_tokens(), "float32")
        for _ in range(STEPS):
            step()
    else:
        from rollmill.tests.benchmarks import _decoding

        prompts = [[index + 1, *range(2, 256)] for index in range(SEQUENCES)]
        _decoding.SIDES[side](Path(weights), torch.float32)(prompts, TOKENS)
    print(_peak_bytes())


def _peak_bytes() -> int:
    """Of this program alone: `ru_maxrss` also counts what started it, up to the moment of exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
