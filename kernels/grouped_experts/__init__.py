"""SwiGLU experts, each applied to the tokens routed to it."""

from .cpu_sorted import grouped_experts

__all__ = ["grouped_experts"]
