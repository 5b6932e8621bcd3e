"""Counts of the server and its engine in Prometheus' text format."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from ..engine import AsyncEngine

_ENGINE = {
    # name of the statistic: (kind, what it is)
    "running": ("gauge", "Sequences that run."),
    "waiting": ("gauge", "Requests that wait for a place."),
    "pages": ("gauge", "Pages of keys and values, 16 tokens each."),
    "pages_used": ("gauge", "Pages held by sequences or the prefix cache."),
    "prompt_tokens": ("counter", "Prompt tokens of admitted requests."),
    "cached_tokens": ("counter", "Prompt tokens found in the prefix cache."),
    "completion_tokens": ("counter", "Sampled tokens."),
    "drafted_tokens": ("counter", "Guesses of MTP modules that the model was asked about."),
    "accepted_tokens": ("counter", "Guesses that the model agreed with."),
    "kept_pages": ("counter", "Evicted pages that went to memory or disk."),
    "recalled_pages": ("counter", "Pages that came back from there."),
    "damaged_pages": ("counter", "Files of pages that were no good."),
    "preemptions": ("counter", "Sequences that lost their pages and waited again."),
    "steps": ("counter", "Forward passes."),
    "version": ("gauge", "Version of the weights."),
}


class Metrics:
    """Counts requests by endpoint and status."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()

    def count(self, path: str, status: int) -> None:
        """Note one answered request."""
        self._requests[path, status] += 1

    def text(self, engine: AsyncEngine) -> str:
        """All metrics, one family after another."""
        lines = []
        stats = asdict(engine.stats)
        for name, (kind, about) in _ENGINE.items():
            full = f"rollmill_{name}" + ("_total" if kind == "counter" else "")
            lines += [
                f"# HELP {full} {about}",
                f"# TYPE {full} {kind}",
                f"{full} {stats[name]}",
            ]
        lines += [
            "# HELP rollmill_http_requests_total Answered requests.",
            "# TYPE rollmill_http_requests_total counter",
        ]
        for (path, status), number in sorted(self._requests.items()):
            lines.append(
                f'rollmill_http_requests_total{{path="{path}",status="{status}"}} {number}'
            )
        return "\n".join(lines) + "\n"
