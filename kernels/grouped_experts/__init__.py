"""SwiGLU experts, each applied to the tokens routed to it."""

from ..dispatch import dispatched
from . import cpu_sorted

grouped_experts = dispatched(cpu_sorted.grouped_experts, __name__)

__all__ = ["grouped_experts"]
