"""Attention of new tokens over keys and values that lie in pages."""

from ..dispatch import dispatched
from . import cpu_gathered, cpu_native

paged_attention = dispatched(
    cpu_gathered.paged_attention, __name__, native=cpu_native.paged_attention
)

__all__ = ["paged_attention"]
