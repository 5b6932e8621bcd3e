"""Attention of one new token a sequence over keys and values that lie in pages. No gradient."""

from ..dispatch import dispatched
from . import cpu_gathered

paged_attention = dispatched(cpu_gathered.paged_attention, __name__)

__all__ = ["paged_attention"]
