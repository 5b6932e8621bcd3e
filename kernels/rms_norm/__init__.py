"""Root-mean-square normalisation with a learned scale. Always computed in fp32."""

from ..dispatch import dispatched
from . import cpu_fused

rms_norm = dispatched(cpu_fused.rms_norm, __name__)

__all__ = ["rms_norm"]
