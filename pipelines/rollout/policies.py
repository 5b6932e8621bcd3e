"""Policies by name. Adding one: a class behind `Policy`, and a line in `POLICIES`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from .authored import gold_policy, null_policy
from .openai import OpenAIPolicy
from .policy import Policy


class UnknownPolicy(ValueError):
    """A policy specification that names nothing known or lacks a part."""


def open_policy(spec: str) -> Policy:
    """The policy that a specification names; nothing is loaded or contacted before it is used.

    Args:
        spec: `gold`, `null`, `bundled`, `bundled:FOLDER`, a checkpoint folder, or
            `openai:URL#MODEL`.

    Raises:
        UnknownPolicy: the message lists the choices.
    """
    scheme, _, rest = spec.partition(":")
    if scheme in POLICIES:
        try:
            return POLICIES[scheme](rest)
        except ValueError as error:
            raise UnknownPolicy(f"policy {spec!r}: {error}") from error
    if (Path(spec) / "config.json").is_file():
        return _bundled(spec)
    raise UnknownPolicy(
        f"unknown policy {spec!r}; choose one of: {', '.join(_CHOICES)}, or a checkpoint folder"
    )


@asynccontextmanager
async def answering(policy: Policy) -> AsyncIterator[Policy]:
    """Inside the block the policy was found able to answer; it is closed at the end.

    Raises:
        PolicyError: it cannot answer.
    """
    try:
        await policy.check()
        yield policy
    finally:
        await policy.close()


def _without_argument(make: Callable[[], Policy]) -> Callable[[str], Policy]:
    def checked(rest: str) -> Policy:
        if rest:
            raise ValueError(f"expected nothing after the name, got {rest!r}")
        return make()

    return checked


def _openai(rest: str) -> Policy:
    url, _, model = rest.rpartition("#")
    if not url or not model:
        raise ValueError("expected openai:URL#MODEL, as in openai:http://localhost:8000/v1#m2")
    return OpenAIPolicy(url, model)


def _bundled(rest: str) -> Policy:
    from .bundled import BundledPolicy  # brings torch, which costs the others a second for nothing

    return BundledPolicy(Path(rest) if rest else None)


def _bundled_calls(rest: str) -> Policy:
    from .bundled import BundledPolicy

    return BundledPolicy(Path(rest) if rest else None, only_calls=True)


POLICIES: dict[str, Callable[[str], Policy]] = {
    "bundled": _bundled,
    "bundled-calls": _bundled_calls,
    "gold": _without_argument(gold_policy),
    "null": _without_argument(null_policy),
    "openai": _openai,
}
_CHOICES = (
    *("bundled", "bundled:FOLDER", "bundled-calls", "bundled-calls:FOLDER"),
    *("gold", "null", "openai:URL#MODEL"),
)
