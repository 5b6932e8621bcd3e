"""One step of AdamW on one tensor, in place, in one pass over memory."""

from ..dispatch import dispatched
from . import cpu_native, cpu_torch

adamw = dispatched(cpu_torch.adamw, __name__, native=cpu_native.adamw)

__all__ = ["adamw"]
