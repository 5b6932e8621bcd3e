"""SwiGLU experts, each applied to the tokens routed to it."""

from ..dispatch import dispatched
from . import cpu_native, cpu_sorted

grouped_experts = dispatched(
    cpu_sorted.grouped_experts, __name__, native=cpu_native.grouped_experts
)

__all__ = ["grouped_experts"]
