"""What the policy learns from besides demonstrations: repair drills, copies of demonstrations under
other names, and random runs to recall.

The texts are those of the running interpreter's standard library (PSF licence). Nothing here is
executed or verified, and nothing of it enters a dataset.
"""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..model import Message
from ..model.chat import render, render_text
from ..model.tokenizer import Tokenizer
from ..model.train.samples import Sample, samples_from_row
from .coding.drills import repair_drills
from .recall import recall_samples
from .renaming import Row, names_by_source, renamed, vocabulary
from .rollout.agent import Agent
from .trajectory import Trajectory

MAX_FILE_CHARS = 120_000
SYSTEM = "You are an agent."
"""Of the drills: short, because the offer of tools would be half of every one of them."""
LEFT_OUT = {"site-packages", "idlelib", "lib2to3", "test", "tests", "turtledemo"}
LONGEST_RUN = 300
"""Tokens of a run to recall."""
TOKENIZER_SHARE = 1500
"""Drills that the tokenizer learns from, and at most as many demonstrations."""

Drill = tuple[Message, ...]


def standard_library() -> list[tuple[str, str]]:
    """Path and text of the standard library's own modules, without its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(root.rglob("*.py"))
    kept = [path for path in files if not LEFT_OUT & set(path.relative_to(root).parts)]
    texts = [(str(path.relative_to(root)), path.read_bytes()) for path in kept]
    return [(path, raw.decode()) for path, raw in texts if _usable(raw)]


def _usable(raw: bytes) -> bool:
    try:
        return len(raw.decode()) < MAX_FILE_CHARS
    except UnicodeDecodeError:
        return False


def drills(files: Sequence[tuple[str, str]], *, seed: int) -> list[Drill]:
    """The drills over some files."""
    return list(repair_drills(files, system=SYSTEM, seed=seed))


def drill_samples(
    conversations: Iterable[Drill], tokenizer: Tokenizer, *, max_tokens: int
) -> list[Sample]:
    """One sample a drill, every token learned; longer ones are left out."""
    rendered = (render(each, (), tokenizer, add_generation_prompt=False) for each in conversations)
    return [
        Sample(ids=np.array(ids, np.int32), trainable=np.ones(len(ids), np.bool_))
        for ids in rendered
        if len(ids) <= max_tokens
    ]


def whole_samples(
    rows: Iterable[Row], tokenizer: Tokenizer, *, max_tokens: int
) -> Iterator[Sample]:
    """Conversations to pre-train on: every token learned, and no offer of tools, which is the same
    in each; longer ones lose their end.
    """
    for row in rows:
        system = {"role": "system", "content": SYSTEM}
        spoken = [message for message in row["messages"] if message["role"] != "system"]
        brief = {"messages": [system, *spoken]}
        for sample in samples_from_row(brief, tokenizer):
            ids = sample.ids[:max_tokens]
            yield Sample(ids=ids, trainable=np.ones(len(ids), np.bool_))


def with_recall(
    samples: Sequence[Sample], tokenizer: Tokenizer, *, share: float, seed: int
) -> list[Sample]:
    """`samples`, and so many runs to recall that they are `share` of all tokens."""
    tokens = round(sum(map(len, samples)) * share / (1 - share))
    words = [each for each in range(tokenizer.vocab_size) if tokenizer.special(each) is None]
    runs = recall_samples(words, tokens=tokens, longest=LONGEST_RUN, seed=seed)
    return [*samples, *runs]


def renamed_copies(rows: Sequence[Row], *, each: int, seed: int) -> Iterator[Row]:
    """Every demonstration `each` times under other names, words of the standard library."""
    names = names_by_source(rows)
    pool = vocabulary(text for _, text in standard_library())
    for index, row in enumerate(rows):
        for copy in range(each):
            own = names[row["provenance"]["source"]]
            yield renamed(row, own, pool, seed=f"{seed} {index} {copy}")


def learn_tokenizer(
    conversations: Sequence[Drill],
    demonstrations: Sequence[Trajectory],
    *,
    vocab_size: int,
    seed: int,
) -> Tokenizer:
    """A tokenizer for what the pipelines make: drills, demonstrations, the offer of tools."""
    rng = random.Random(f"tokenizer {seed}")
    texts = [
        render_text(each, ())
        for each in rng.sample(conversations, min(TOKENIZER_SHARE, len(conversations)))
    ]
    shown = rng.sample(demonstrations, min(TOKENIZER_SHARE, len(demonstrations)))
    texts += [render_text(each.messages, ()) for each in shown]
    texts += [render_text((), Agent().specs)] * max(1, len(texts) // 50)
    return Tokenizer.train(texts, vocab_size)
