"""The summed cross-entropy of a head, for training: value and gradients in one pass over logits."""

from ..dispatch import dispatched
from . import cpu_chunked, cpu_native

cross_entropy = dispatched(cpu_chunked.cross_entropy, __name__, native=cpu_native.cross_entropy)

__all__ = ["cross_entropy"]
