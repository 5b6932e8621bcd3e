"""Log-probabilities of given tokens, without a [tokens, vocabulary] tensor."""

from ..dispatch import dispatched
from . import cpu_chunked

token_logprobs = dispatched(cpu_chunked.token_logprobs, __name__)

__all__ = ["token_logprobs"]
