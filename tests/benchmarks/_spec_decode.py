"""Guessing ahead on the bundled policy: accepted length, and speed beside one token a step.

Where the checkpoint brings no MTP modules, they are trained here, with its own weights frozen, on
replies that it samples itself; the prompts measured are others. The same requests run with and
without guesses, in turn, and must give the same tokens. A part of `model.py`.
"""

from __future__ import annotations

import os
import time
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from rollmill import model as package
from rollmill.model import Message, ToolSpec
from rollmill.model.chat import render
from rollmill.model.checkpoint import load_model, load_mtp
from rollmill.model.engine import Engine, GenRequest
from rollmill.model.model import Model
from rollmill.model.mtp import MtpModules, mtp_from_trunk
from rollmill.model.tokenizer import Tokenizer

TOOL = ToolSpec(
    name="bash",
    description="Run a command.",
    parameters={"type": "object", "properties": {"command": {"type": "string"}}},
)
VERBS = ("Repair", "Explain", "Test", "Rename", "Speed up", "Read", "Sort", "Check")
NOUNS = ("the parser", "sheet 2", "a failing test", "the report", "main.py", "the total", "a loop")
REPLY_TOKENS = 128
PACK_TOKENS = 1024


def measure(*, quick: bool) -> dict[str, Any]:
    """Accepted length and speed-up for one to three modules, by batch and temperature."""
    torch.manual_seed(0)
    folder = Path(str(resources.files(package) / "bundled"))
    model, mtp = load_model(folder), load_mtp(folder)
    prompts = _prompts(Tokenizer.load(folder))
    shown, held_out = prompts[: -len(prompts) // 4], prompts[-len(prompts) // 4 :]
    trained = 0
    if mtp is None:
        mtp = mtp_from_trunk(model, 3)
        trained = _train(model, mtp, _replies(model, shown, 100 if quick else 800))
    cases = {
        f"b{batch}_t{heat}": _compare(model, mtp, held_out[:batch], heat, 1 if quick else 5)
        for batch in (1, 8)
        for heat in (0.0, 1.0)
    }
    best = max(cases["b1_t1.0"].values(), key=lambda each: each["speed_up"])
    return {
        "spec_decode": {
            **best,
            "ratio": best["speed_up"],
            "modules_trained_here_tokens": trained,
            "cases": cases,
            "load": os.getloadavg()[0],
        }
    }


def _prompts(tokenizer: Tokenizer) -> list[list[int]]:
    pairs = [(verb, noun) for noun in NOUNS for verb in VERBS]
    return [
        render(
            [Message(role="user", content=f"{verb} {noun}.")],
            [TOOL],
            tokenizer,
            add_generation_prompt=True,
        )
        for verb, noun in pairs
    ]


def _ask(prompts: list[list[int]], count: int, heat: float) -> list[GenRequest]:
    return [
        GenRequest(
            prompt_ids=tuple(prompts[at % len(prompts)]),
            max_tokens=REPLY_TOKENS,
            temperature=heat,
            seed=at,
        )
        for at in range(count)
    ]


def _replies(model: Model, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Prompts with what the model says to them."""
    requests = _ask(prompts, count, 1.0)
    results = Engine(model, slots=16).generate(requests)
    return [
        [*request.prompt_ids, *result.token_ids]
        for request, result in zip(requests, results, strict=True)
    ]


def _train(model: Model, mtp: MtpModules, texts: list[list[int]]) -> int:
    """Teach the modules the distribution that the model itself gives, two times over the texts.

    Returns:
        How many tokens were seen.
    """
    model.requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW(mtp.parameters(), lr=2e-3, betas=(0.9, 0.95), fused=True)
    batches: list[list[list[int]]] = [[]]
    for text in texts * 2:
        if sum(map(len, batches[-1])) + len(text) > PACK_TOKENS:
            batches.append([])
        batches[-1].append(text)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=len(batches))
    for batch in batches:
        tokens = torch.tensor([token for text in batch for token in text])
        lengths = [len(text) for text in batch]
        with torch.no_grad():
            hidden = model.hidden(tokens, lengths)
            taught = model.head(hidden).softmax(-1)
        depths = mtp.hidden(model, hidden, tokens, lengths)
        losses = [F.cross_entropy(model.head(state), taught[rows]) for state, rows in depths]
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(mtp.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return sum(len(text) for text in texts) * 2


def _compare(
    model: Model, mtp: MtpModules, prompts: list[list[int]], heat: float, rounds: int
) -> dict[str, dict[str, float]]:
    """For each number of guesses: tokens a step, and the median of the times without and with."""
    requests = _ask(prompts, len(prompts), heat)
    some = {0: None} | {count: _first(mtp, count) for count in range(1, len(mtp.mtp) + 1)}
    engines = {count: Engine(model, mtp=each, slots=16) for count, each in some.items()}
    times: dict[int, list[float]] = {count: [] for count in engines}
    said = {}
    for count, engine in engines.items():  # fills the prefix cache, so that only decoding counts
        said[count] = [result.token_ids for result in engine.generate(requests)]
        assert said[count] == said[0], "guesses changed the tokens"
    for _ in range(rounds):
        for count, engine in engines.items():
            start = time.perf_counter()
            engine.generate(requests)
            times[count].append(time.perf_counter() - start)
    made = len(prompts) * REPLY_TOKENS
    found = {}
    for count in range(1, len(engines)):
        stats = engines[count].stats
        rows = stats.drafted_tokens / count  # checks, each of which gives one token more
        found[f"k{count}"] = {
            "accepted_length": 1 + stats.accepted_tokens / rows,
            "speed_up": median(times[0]) / median(times[count]),
            "tokens_per_s": made / median(times[count]),
            "plain_tokens_per_s": made / median(times[0]),
        }
    return found


def _first(mtp: MtpModules, count: int) -> MtpModules:
    """The first modules alone."""
    from dataclasses import replace

    some = MtpModules(replace(mtp.config, num_mtp_modules=count))
    for ours, theirs in zip(some.modules_by_depth(), mtp.modules_by_depth(), strict=False):
        ours.load_state_dict(theirs.state_dict())
    return some
