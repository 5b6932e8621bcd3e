"""RMS norm of a whole query or key vector, then partial rotary of its heads, in one pass."""

from ..dispatch import dispatched
from . import cpu_fused, cpu_native
from .reference import rotary_table

qk_norm_rotary = dispatched(cpu_fused.qk_norm_rotary, __name__, native=cpu_native.qk_norm_rotary)

__all__ = ["qk_norm_rotary", "rotary_table"]
