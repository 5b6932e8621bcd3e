"""Greedy generation on both sides, for the benchmarks of the model. Not a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rollmill.model.checkpoint import load_model
from rollmill.model.engine import Engine, GenRequest

Generate = Callable[[list[list[int]], int], None]
"""Prompts and how many tokens to make for each."""


def ours(folder: Path, dtype: torch.dtype) -> Generate:
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


def theirs(folder: Path, dtype: torch.dtype) -> Generate:
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


SIDES: dict[str, Callable[[Path, torch.dtype], Generate]] = {"ours": ours, "transformers": theirs}
