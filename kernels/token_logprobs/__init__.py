"""Log-probabilities of given tokens, without a [tokens, vocabulary] tensor."""

from ..dispatch import dispatched
from . import cpu_chunked, cpu_native

token_logprobs = dispatched(cpu_chunked.token_logprobs, __name__, native=cpu_native.token_logprobs)

__all__ = ["token_logprobs"]
