"""Log-probabilities of given tokens, without a [tokens, vocabulary] tensor."""

from .cpu_chunked import token_logprobs

__all__ = ["token_logprobs"]
