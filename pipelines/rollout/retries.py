"""Patience with a busy endpoint: exponential backoff with jitter, Retry-After where it is given."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx
import tenacity

MAX_WAIT_S = 120.0


class Busy(Exception):
    """The server may answer later. `after_s` is when it says; None = it does not say."""

    def __init__(self, message: str, *, after_s: float | None) -> None:
        super().__init__(message)
        self.after_s = after_s


def patiently(*, tries: int, first_wait_s: float) -> tenacity.AsyncRetrying:
    """Retries `Busy` and lost connections; the last failure is raised as it is."""
    backoff = tenacity.wait_exponential_jitter(
        multiplier=first_wait_s, max=MAX_WAIT_S, jitter=first_wait_s
    )

    def wait_s(state: tenacity.RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        if isinstance(failure, Busy) and failure.after_s is not None:
            return min(failure.after_s, MAX_WAIT_S)
        return backoff(state)

    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(tries),
        wait=wait_s,
        retry=tenacity.retry_if_exception_type((Busy, httpx.TransportError)),
        reraise=True,
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The `Retry-After` header in seconds from now, from either of its forms; None = not given."""
    written = headers.get("retry-after", "").strip()
    if not written:
        return None
    try:
        return max(float(written), 0.0) if written.isdecimal() else _until(written)
    except ValueError:
        return None


def _until(date: str) -> float:
    return max(parsedate_to_datetime(date).timestamp() - time.time(), 0.0)
