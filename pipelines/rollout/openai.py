"""The policy `openai:URL#MODEL`: any server that speaks OpenAI's chat completions with tools.

It adapts to what the server shows: where thinking travels, and whether it takes sampling and
token-id options beyond OpenAI's own. It does not stream and does not re-tokenise anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus

import httpx
from pydantic import ValidationError

from .openai_messages import Dialect, Reply, request_body, to_completion
from .policy import Completion, ContextOverflow, PolicyError, TurnRequest
from .retries import Busy, patiently, retry_after_s

KEY_VARIABLES = ("ROLLMILL_API_KEY", "OPENAI_API_KEY")
REPLY_TIMEOUT_S = 900.0
"""For the server to answer once; episodes have time limits of their own."""

_HINTS: Mapping[int, str] = {
    401: f"set {' or '.join(KEY_VARIABLES)} to a valid key",
    403: f"set {' or '.join(KEY_VARIABLES)} to a key that may use this model",
    404: "check the model's name, and that the URL ends where /chat/completions begins (.../v1)",
}
_OVERFLOW_SIGNS = ("context_length_exceeded", "context length", "max_model_len")


class OpenAIPolicy:
    """A model behind an HTTP address.

    Args:
        url: up to and without `/chat/completions`, such as `http://localhost:8000/v1`.
        tries: how often a busy or broken connection is asked, the first time included.
    """

    deterministic = False

    def __init__(self, url: str, model: str, *, tries: int = 6, first_wait_s: float = 0.5) -> None:
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"expected an http(s) URL, got {url!r}; as in openai:URL#MODEL")
        if parsed.userinfo:
            raise ValueError(f"expected a URL without a password; put it in {KEY_VARIABLES[0]}")
        self.name = f"openai:{url}#{model}"
        self.tokenizer = f"remote:{model}"
        self._url, self._model = url.rstrip("/"), model
        self._key = next(filter(None, map(os.environ.get, KEY_VARIABLES)), "")
        self._patience = patiently(tries=tries, first_wait_s=first_wait_s)
        self._dialect = Dialect()
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(REPLY_TIMEOUT_S, connect=10.0),
        )

    async def check(self) -> None:
        """Ask for the list of models: is the server there, and does it serve this one?"""
        try:
            answer = await self._client.get(f"{self._url}/models", timeout=10.0)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if answer.status_code in (404, 405):
            return  # reachable, but without this optional call
        if answer.is_error:
            raise self._refused(answer)
        served = _model_names(answer)
        if served and self._model not in served:
            raise PolicyError(
                f"{self._url} does not serve {self._model!r}; choose one of: {', '.join(served)}"
            )

    async def complete(self, request: TurnRequest) -> Completion:
        """One chat completion; busy servers and lost connections are asked again."""
        try:
            async for attempt in self._patience.copy():
                with attempt:
                    answer = await self._post(request)
        except Busy as error:
            raise PolicyError(f"{error}; try later or with fewer episodes at once") from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        try:
            reply = Reply.model_validate_json(answer.content)
        except ValidationError as error:
            first = error.errors()[0]
            raise PolicyError(
                f"expected a chat completion from {self._url}, got {first['msg']} at "
                f"{'.'.join(map(str, first['loc'])) or 'the top'}; check that it is an "
                "OpenAI-compatible server"
            ) from error
        self._dialect = self._dialect.after(reply)
        return to_completion(reply, request.tools)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _post(self, request: TurnRequest) -> httpx.Response:
        """One try.

        Raises:
            Busy: the server asks for patience (429 or 5xx).
            PolicyError: it refuses for good.
        """
        answer = await self._send(request, self._dialect)
        if answer.status_code in (400, 422) and self._dialect.extras and not _overflows(answer):
            plain = replace(self._dialect, extras=False)  # perhaps it knows only OpenAI's options
            answer = await self._send(request, plain)
            if answer.is_success:
                self._dialect = plain
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Busy(self._told(answer), after_s=retry_after_s(answer.headers))
        if _overflows(answer):
            raise ContextOverflow(self._told(answer))
        if answer.status_code != 200:
            raise self._refused(answer)
        return answer

    async def _send(self, request: TurnRequest, dialect: Dialect) -> httpx.Response:
        body = request_body(request, self._model, dialect)
        return await self._client.post(f"{self._url}/chat/completions", json=body)

    def _told(self, answer: httpx.Response) -> str:
        """What the server answered, in one line and without the key, which some repeat."""
        words = " ".join(answer.text.split())[:300]
        if self._key:
            words = words.replace(self._key, "***")
        return f"{self._url} answered {answer.status_code} {_phrase(answer)}: {words or '(empty)'}"

    def _refused(self, answer: httpx.Response) -> PolicyError:
        hint = _HINTS.get(answer.status_code, "check the address and the model")
        return PolicyError(f"{self._told(answer)}; {hint}")

    def _unreachable(self, error: httpx.TransportError) -> PolicyError:
        return PolicyError(
            f"no answer from {self._url} ({str(error) or type(error).__name__}); start the server "
            "or correct the address"
        )


def _phrase(answer: httpx.Response) -> str:
    try:
        return HTTPStatus(answer.status_code).phrase
    except ValueError:
        return ""


def _overflows(answer: httpx.Response) -> bool:
    return answer.status_code in (400, 413, 422) and any(
        sign in answer.text for sign in _OVERFLOW_SIGNS
    )


def _model_names(answer: httpx.Response) -> list[str]:
    try:
        return [str(model["id"]) for model in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return []
