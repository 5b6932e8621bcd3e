"""New weights on their way into an engine: they wait for the gap between two steps."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from .request import EngineError


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap:
    """Weights to take, by the names of a state dict; all or some."""

    weights: Mapping[str, torch.Tensor]
    version: int
    recompute: bool
    """Whether running sequences compute their keys anew."""
    future: Future[None]


class Swaps:
    """Holds the latest swap that was asked for. `ask` may come from any thread."""

    def __init__(self, own: Mapping[str, torch.Tensor]) -> None:
        """`own` = the engine's weights, which are changed in place."""
        self._own = own
        self._lock = threading.Lock()
        self._asked: Swap | None = None

    @property
    def waiting(self) -> bool:
        """Whether there is one to take."""
        return self._asked is not None

    def ask(self, swap: Swap) -> None:
        """Wait for the next gap; one that waits already is superseded and fails."""
        with self._lock:
            superseded, self._asked = self._asked, swap
        if superseded is not None:
            _refuse(
                superseded,
                EngineError(
                    f"weights of version {superseded.version} were superseded by version "
                    f"{swap.version} before they were taken"
                ),
            )

    def give_up(self, error: EngineError) -> None:
        """Nobody will take what waits: it fails."""
        with self._lock:
            swap, self._asked = self._asked, None
        if swap is not None:
            _refuse(swap, error)

    def take(self) -> Swap | None:
        """Copy the weights that wait; None = none do, or they do not fit and nothing was changed.

        The future of a swap that does not fit gets an `EngineError`; that of one that was taken
        is the caller's to resolve. One that was cancelled is not taken.
        """
        with self._lock:
            swap, self._asked = self._asked, None
        if swap is None or not swap.future.set_running_or_notify_cancel():
            return None
        if problem := self._problem(swap.weights):
            swap.future.set_exception(EngineError(problem))
            return None
        for name, tensor in swap.weights.items():
            self._own[name].copy_(tensor)
        return swap

    def _problem(self, weights: Mapping[str, torch.Tensor]) -> str | None:
        """Why these are not to be had; None = they are."""
        for name, tensor in weights.items():
            if name not in self._own or self._own[name].shape != tensor.shape:
                expected = list(self._own[name].shape) if name in self._own else "no such tensor"
                return f"expected {expected} for {name}, got {list(tensor.shape)}"
            if not tensor.is_floating_point() or tensor.element_size() < 2:
                return f"expected numbers of 16 bits or more for {name}, got {tensor.dtype}"
            if not tensor.isfinite().all():
                return f"expected finite weights, got NaN or infinity in {name}"
        return None


def _refuse(swap: Swap, error: EngineError) -> None:
    """Fail a swap that was not taken, unless it was cancelled."""
    if swap.future.set_running_or_notify_cancel():
        swap.future.set_exception(error)
