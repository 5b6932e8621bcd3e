"""How a module of this folder answers the host: a request in, one JSON file out."""

from __future__ import annotations

import json
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARSER_BYTES = 1 << 30
"""Address space while a file is parsed."""


_bounded = False


class Refusal(Exception):
    """The file cannot be judged; the arguments are the ending and why."""


def answer(read: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer the request on standard input; the reading is left in the file that it names."""
    global _bounded
    _bounded = True
    request = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    try:
        reading = {"ending": "read", **read(request)}
    except Refusal as refusal:
        ending, detail = refusal.args
        reading = {"ending": ending, "detail": detail[:400]}
    Path(request["out"]).write_text(json.dumps(reading), encoding="utf-8")


@contextmanager
def parsing(kind: str) -> Iterator[None]:
    """Parse a hostile file: every failure is the file's own; in a workspace, memory is bounded.

    Raises:
        Refusal: `too_big` when memory ran out, `no_KIND` for whatever else the parser raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if _bounded:
        resource.setrlimit(resource.RLIMIT_AS, (PARSER_BYTES, hard))
    try:
        yield
    except Refusal:
        raise
    except MemoryError:
        raise Refusal("too_big", "it takes too much memory to read") from None
    except Exception as error:  # a parser raises whatever a broken file leads it to
        raise Refusal(f"no_{kind}", f"{type(error).__name__}: {error}") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
