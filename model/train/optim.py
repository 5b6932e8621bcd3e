"""The optimizer and its schedule: AdamW on fp32 weights, whatever the model computes in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """The rate of a step, counted from 0: linear warm-up, then a cosine or a late linear decay.

    `wsd` (warm-up, stable, decay) stays at the peak until the last `decay_fraction` of the steps.
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule == "cosine":
        span = max(1, config.steps - config.warmup_steps)
        done = min(1.0, max(0, step - config.warmup_steps) / span)
        shape = (1 + math.cos(math.pi * done)) / 2
    else:
        left = (config.steps - step) / max(1.0, config.steps * config.decay_fraction)
        shape = min(1.0, max(0.0, left))
    floor = config.final_lr_fraction
    return config.lr * warm * (floor + (1 - floor) * shape)


class Optimizer:
    """AdamW with gradient clipping on the fp32 weights behind a model that computes in `dtype`."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        """Takes an fp32 model and turns its parameters (not its buffers) into `config.dtype`."""
        self._params: list[torch.Tensor] = list(model.parameters())
        self._grad_clip = config.grad_clip
        self._mixed = config.dtype == "bfloat16"
        self._masters = self._params
        self._wide: set[torch.Tensor] = set()
        if self._mixed:
            self._masters = [nn.Parameter(param.data) for param in self._params]
            self._wide = _heads(model) if config.fp32_head else self._wide
            self._round()
        self._adamw = torch.optim.AdamW(
            [
                {
                    "params": [each for each in self._masters if each.ndim >= 2],
                    "weight_decay": config.weight_decay,
                },
                {"params": [each for each in self._masters if each.ndim < 2], "weight_decay": 0.0},
            ],
            betas=config.betas,
            eps=config.eps,
            fused=True,
        )

    def step(self, lr: float) -> float:
        """Apply and clear the gradients; returns their norm before clipping."""
        if self._mixed:
            for param, master in zip(self._params, self._masters, strict=True):
                master.grad = None if param.grad is None else param.grad.float()
                param.grad = None
        norm = nn.utils.clip_grad_norm_(self._masters, self._grad_clip)
        for group in self._adamw.param_groups:
            group["lr"] = lr
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        self._publish()
        return float(norm)

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """While this is open the model's parameters are the fp32 weights: to save and to load."""
        for param, master in zip(self._params, self._masters, strict=True):
            param.data = master.data
        try:
            yield
        finally:
            if self._mixed:
                for param, master in zip(self._params, self._masters, strict=True):
                    master.data = param.data
                self._round()

    def state_dict(self) -> dict[str, Any]:
        """The moments and step counts."""
        return self._adamw.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._adamw.load_state_dict(state)

    def _publish(self) -> None:
        """Round the fp32 weights into the model."""
        if self._mixed:
            with torch.no_grad():
                torch._foreach_copy_(self._params, self._masters)

    def _round(self) -> None:
        """Give the model bf16 copies of the fp32 weights."""
        for param in self._params:
            param.data = param.data.clone() if param in self._wide else param.data.bfloat16()


def _heads(model: nn.Module) -> set[torch.Tensor]:
    """The weights of the output head."""
    return {param for name, param in model.named_parameters() if name.endswith("lm_head.weight")}
