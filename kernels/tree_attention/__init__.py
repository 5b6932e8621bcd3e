"""Causal attention in trees of shared prefixes, for training: a prefix is run once."""

from ..dispatch import dispatched
from . import cpu_native, cpu_runs

tree_attention = dispatched(cpu_runs.tree_attention, __name__, native=cpu_native.tree_attention)

__all__ = ["tree_attention"]
