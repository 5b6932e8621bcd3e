"""One step of AdamW on one tensor, in place, in one pass over memory; and what clips it."""

from ..dispatch import dispatched
from . import cpu_native, cpu_torch

adamw = dispatched(cpu_torch.adamw, __name__, native=cpu_native.adamw)
squared_norm = dispatched(cpu_torch.squared_norm, __name__, native=cpu_native.squared_norm)

__all__ = ["adamw", "squared_norm"]
