"""Root-mean-square normalisation with a learned scale. Always computed in fp32."""

from ..dispatch import dispatched
from . import cpu_fused, cpu_native

rms_norm = dispatched(cpu_fused.rms_norm, __name__, native=cpu_native.rms_norm)

__all__ = ["rms_norm"]
