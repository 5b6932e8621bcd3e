"""The optimizer and its schedule: AdamW on fp32 weights, whatever the model computes in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...kernels.adamw import adamw, squared_norm
from .config import TrainConfig
from .parallel import Ranks, local


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

    def __init__(self, model: nn.Module, config: TrainConfig, ranks: Ranks | None = None) -> None:
        """Takes an fp32 model and turns its parameters (not its buffers) into `config.dtype`.

        Args:
            ranks: among which the model is spread, whose parameters then stay fp32, as
                `parallelise` has them; None = this process has it all.
        """
        self._config = config
        self._ranks = ranks or Ranks()
        self._params: list[torch.Tensor] = list(model.parameters())
        self._mixed = config.dtype == "bfloat16" and self._ranks.alone
        self._masters: list[torch.Tensor] = [local(param.data) for param in self._params]
        self._means = [torch.zeros_like(each) for each in self._masters]
        self._squares = [torch.zeros_like(each) for each in self._masters]
        self._steps = [0] * len(self._params)
        self._wide: set[torch.Tensor] = set()
        if self._mixed:
            self._wide = _heads(model) if config.fp32_head else self._wide
            self._round()

    @torch.no_grad()
    def step(self, lr: float) -> float:
        """Apply and clear the gradients; returns their norm before clipping.

        Parameters without a gradient stay as they are, and so do their moments.
        """
        touched = [index for index, each in enumerate(self._params) if each.grad is not None]
        grads = [_gradient(self._params[index]) for index in touched]
        squares = torch.stack([squared_norm(grad) for grad in grads]).sum()
        norm = float(self._ranks.sum(squares).sqrt())
        scale = min(1.0, self._config.grad_clip / (norm + 1e-6))
        for index, grad in zip(touched, grads, strict=True):
            self._update(index, grad, lr, scale)
        return norm

    def _update(self, index: int, grad: torch.Tensor, lr: float, scale: float) -> None:
        param, master = self._params[index], self._masters[index]
        self._steps[index] += 1
        adamw(
            master,
            grad,
            self._means[index],
            self._squares[index],
            param.data if self._mixed else None,
            step=self._steps[index],
            lr=lr,
            betas=self._config.betas,
            eps=self._config.eps,
            weight_decay=self._config.weight_decay if param.ndim >= 2 else 0.0,
            grad_scale=scale,
        )
        param.grad = None

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """While this is open the model's parameters are the fp32 weights: to save and to load."""
        if not self._mixed:
            yield
            return
        for param, master in zip(self._params, self._masters, strict=True):
            param.data = master
        try:
            yield
        finally:
            self._masters = [param.data for param in self._params]
            self._round()

    def state_dict(self) -> dict[str, Any]:
        """The moments, whole, and step counts; every rank has to call it."""
        return {
            "means": self._whole(self._means),
            "squares": self._whole(self._squares),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, among any number of ranks.

        Raises:
            ValueError: it is something else.
        """
        if state.keys() != {"means", "squares", "steps"}:
            raise ValueError(
                f"expected an optimizer state of means, squares and steps, got one of "
                f"{', '.join(state)}, as an earlier version wrote it; start a new folder from the "
                "model in its last checkpoint"
            )
        for name, ours in (("means", self._means), ("squares", self._squares)):
            for moment, whole, param in zip(ours, state[name], self._params, strict=True):
                moment.copy_(self._ranks.part(whole, param))
        self._steps = list(state["steps"])

    def whole_weights(self) -> list[torch.Tensor]:
        """The fp32 weights in the order of the model's parameters; every rank has to call it."""
        return self._whole(self._masters)

    def _whole(self, parts: list[torch.Tensor]) -> list[torch.Tensor]:
        pairs = zip(parts, self._params, strict=True)
        return [self._ranks.whole(part, param) for part, param in pairs]

    def _round(self) -> None:
        """Give the model bf16 copies of the fp32 weights."""
        for param in self._params:
            param.data = param.data.clone() if param in self._wide else param.data.bfloat16()


def _gradient(param: torch.Tensor) -> torch.Tensor:
    assert param.grad is not None
    return local(param.grad)


def _heads(model: nn.Module) -> set[torch.Tensor]:
    """The weights of the output head."""
    return {param for name, param in model.named_parameters() if name.endswith("lm_head.weight")}
