"""Bytes that leave the server: answers, events and errors as OpenAI's clients read them.

Half a surrogate pair, which no encoding can carry, becomes `?`, as it does in prompts.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import JSONResponse


class Answer(JSONResponse):
    """JSON."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return _encoded(content)


def event(data: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: " + _encoded(data) + b"\n\n"


def usage(prompt: int, made: int) -> dict[str, int]:
    """Counts of tokens."""
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def refusal(status: int, message: str, code: str | None = None) -> Answer:
    """An error with its status."""
    kind = "invalid_request_error" if status < 429 else "server_error"
    detail = {"message": message, "type": kind, "code": code, "param": None}
    headers = {"Retry-After": "1"} if status == 429 else None
    return Answer({"error": detail}, status, headers)


def _encoded(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
