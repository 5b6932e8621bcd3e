"""Root-mean-square normalisation with a learned scale. Always computed in fp32."""

from .cpu_fused import rms_norm

__all__ = ["rms_norm"]
