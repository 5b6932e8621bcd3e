"""How far the sampler's and the trainer's log-probabilities of the same tokens lie apart.

Policy gradients divide the one by the other, so a gap is noise in the gradient. Measures; changes
nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...kernels.token_logprobs import token_logprobs
from ..engine import Engine, GenRequest, GenResult
from ..model import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """In nats, over the sampled tokens."""

    mean: float
    largest: float
    tokens: int


def logprob_gap(model: Model, requests: Sequence[GenRequest], *, native: bool = True) -> Gap:
    """Let the engine complete `requests` at temperature 1 and the trainer's pass judge the result.

    Args:
        model: in the type to look at; both sides use it.
        native: as the engine's.
    """
    engine = Engine(model, slots=max(1, len(requests)), native=native)
    results = engine.generate(requests)
    pairs = list(zip(requests, results, strict=True))
    sampled = torch.tensor([each for result in results for each in result.logprobs])
    apart = (sampled - _judged(model, pairs)).abs()
    return Gap(mean=float(apart.mean()), largest=float(apart.max()), tokens=len(apart))


def bf16_gap(model: Model, *, prompts: int = 4, prompt_tokens: int = 64, made: int = 64) -> Gap:
    """The gap of a bf16 copy of `model`, over completions of random prompts."""
    drawn = torch.Generator().manual_seed(0)
    shape = (prompts, prompt_tokens)
    ids = torch.randint(0, model.config.vocab_size, shape, generator=drawn).tolist()
    requests = [
        GenRequest(prompt_ids=tuple(prompt), max_tokens=made, seed=seed)
        for seed, prompt in enumerate(ids)
    ]
    narrow = copy.deepcopy(model)
    for param in narrow.parameters():  # the router's bias stays in fp32
        param.data = param.data.bfloat16()
    return logprob_gap(narrow, requests)


@torch.no_grad()
def _judged(model: Model, pairs: Sequence[tuple[GenRequest, GenResult]]) -> torch.Tensor:
    """The trainer's log-probabilities of all sampled tokens, one packed batch."""
    paths = [(*request.prompt_ids, *result.token_ids) for request, result in pairs]
    tokens = torch.tensor([each for path in paths for each in path[:-1]])
    targets = torch.tensor([each for path in paths for each in path[1:]])
    hidden = model.hidden(tokens, [len(path) - 1 for path in paths])
    head = model.lm_head.weight
    logprobs = token_logprobs(hidden.to(head.dtype), head, targets)
    learned = torch.cat(
        [
            torch.arange(len(path) - 1) >= len(request.prompt_ids) - 1
            for path, (request, _) in zip(paths, pairs, strict=True)
        ]
    )
    return logprobs[learned]
