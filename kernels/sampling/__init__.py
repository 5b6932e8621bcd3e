"""Draws the next token of each row."""

from ..dispatch import dispatched
from . import cpu_batched, cpu_native

sample = dispatched(cpu_batched.sample, __name__)
sample_whole = dispatched(cpu_batched.sample_whole, __name__, native=cpu_native.sample_whole)

__all__ = ["sample", "sample_whole"]
