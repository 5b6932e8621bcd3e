"""Draws the next token of each row."""

from ..dispatch import dispatched
from . import cpu_batched

sample = dispatched(cpu_batched.sample, __name__)

__all__ = ["sample"]
