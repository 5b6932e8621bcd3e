"""A source examined once: its stable tests, how long each takes and which lines each one runs.

Two runs of the unmutated suite in a workspace, the second one traced; what they say is cached. A
suite with failures is run once more in between.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...verifiers.pytest_run import SuiteRun, run_suite
from ...workspaces import MIB, Limits, Provider, WorkspaceSpec, opened, pack_tree
from ..family import SourceError
from .fetch import Tree, fetch
from .layout import Layout, choose_layout
from .mutations import Mutation, mutations_of
from .sources import Source

IMAGE = "python"
SLOW_TEST_S = 1.0
"""Slower tests are left out: every task runs the suite many times."""
FORMAT = 4
"""Of the cached examination; raised whenever its meaning changes."""
ENV = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}
"""Of every workspace: nothing is left beside the sources; tests made from sets have the names that
the verifier gives them; pytest starts three times faster."""


@dataclass(frozen=True, kw_only=True)
class Codebase:
    """A source that can give tasks."""

    source: Source
    licence: str
    layout: Layout
    durations_s: Mapping[str, float]
    """Stable test -> processor seconds, in the order of the suite."""
    lines: Mapping[str, Mapping[int, int]]
    """Path -> line -> bit mask of the tests that run it, bit i = i-th of `durations_s`."""
    dropped: Mapping[str, str]
    """Test -> why it is left out: `skipped`, `flaky` or `slow`."""

    @functools.cached_property
    def tests(self) -> list[str]:
        """The stable tests in the order of the suite."""
        return list(self.durations_s)

    @functools.cached_property
    def mutations(self) -> Mapping[str, Mutation]:
        """Every mutation of a line that some stable test runs, by key."""
        found = (
            mutation
            for path in self.layout.modules()
            if path in self.lines
            for mutation in mutations_of(path, self.text(path))
        )
        return {m.key: m for m in found if self._mask(m)}

    def text(self, path: str) -> str:
        """The content of a module."""
        return self.layout.files[path].decode("utf-8")

    def tests_of(self, mutation: Mutation) -> list[str]:
        """The stable tests that run the mutated line."""
        mask = self._mask(mutation)
        return [test for index, test in enumerate(self.tests) if mask >> index & 1]

    def _mask(self, mutation: Mutation) -> int:
        """Who runs the line; a default value is used by whoever runs any line of the function."""
        lines = self.lines[mutation.path]
        if mutation.kind != "default_value":
            return lines.get(mutation.line, 0)
        own = range(mutation.first_line, mutation.last_line + 1)
        return functools.reduce(operator.or_, (lines.get(line, 0) for line in own))


def test_files(tests: Iterable[str]) -> list[str]:
    """The files that hold these tests, each once."""
    return list(dict.fromkeys(test.split("::")[0] for test in tests))


def spec_of(files: Tree) -> WorkspaceSpec:
    """A workspace for our own runs of a suite; the report of a large one passes whole."""
    limits = Limits(output_bytes=64 * MIB)
    return WorkspaceSpec(image=IMAGE, seed=pack_tree(files), env=ENV, limits=limits)


async def examine(source: Source, provider: Provider, cache: Path) -> Codebase:
    """Fetch a source and learn its tests; the second time it comes from the cache.

    Raises:
        SourceError: it cannot be had, has no tests, or its tests fail unmutated.
        WorkspaceError: the machinery failed.
    """
    tree, licence = fetch(source, cache)
    layout = choose_layout(source, tree)
    image = (await provider.prepare([IMAGE]))[IMAGE]
    kept = cache / "coding" / f"{_key(source, layout, image)}.json"
    if kept.exists():
        learnt = json.loads(kept.read_text(encoding="utf-8"))
    else:
        learnt = await _learn(source, layout, provider)
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(learnt), encoding="utf-8")
        fresh.replace(kept)
    return Codebase(
        source=source,
        licence=licence,
        layout=layout,
        durations_s=learnt["durations_s"],
        lines={
            path: {int(line): int(mask, 16) for line, mask in lines.items()}
            for path, lines in learnt["lines"].items()
        },
        dropped=learnt["dropped"],
    )


def _key(source: Source, layout: Layout, image: str) -> str:
    digest = hashlib.sha256(f"{FORMAT} {SLOW_TEST_S} {image} {source.model_dump_json()}".encode())
    digest.update(pack_tree(layout.files))
    return digest.hexdigest()[:24]


async def _learn(source: Source, layout: Layout, provider: Provider) -> dict[str, Any]:
    plain = await _run(source, layout, provider, trace=False)
    if plain.named("failed") or plain.uncollected:
        _demand_green(source, plain, await _run(source, layout, provider, trace=False))
    traced = await _run(source, layout, provider, trace=True)
    dropped = {test: _why_dropped(test, plain, traced) for test in plain.outcomes}
    stable = [test for test, why in dropped.items() if not why]
    place = {test: index for index, test in enumerate(traced.outcomes)}
    moved = [(place[test], index) for index, test in enumerate(stable)]
    lines = {
        path: {line: f"{_moved(mask, moved):x}" for line, mask in masks.items()}
        for path, masks in traced.lines.items()
        if not layout.is_test(path)
    }
    return {
        "durations_s": {test: plain.durations_s[test] for test in stable},
        "lines": lines,
        "dropped": {test: why for test, why in dropped.items() if why},
    }


async def _run(source: Source, layout: Layout, provider: Provider, *, trace: bool) -> SuiteRun:
    async with opened(provider, spec_of(layout.files)) as workspace:
        run = await run_suite(
            workspace,
            paths=layout.tests,
            deselect=source.ignore,
            timeout_s=source.suite_timeout_s * (5 if trace else 1),
            trace=layout.packages if trace else (),
            durations=True,
        )
    if run.ending != "reported" or not (run.outcomes or run.uncollected):
        said = f"{run.ending}: {run.detail}" if run.detail else "pytest collected none"
        raise SourceError(
            f"the tests of source {source.name} did not run ({said}); try them by hand in the "
            f"{IMAGE} image, then correct `tests` or `include`, or choose another source"
        )
    return run


def _demand_green(source: Source, run: SuiteRun, again: SuiteRun) -> None:
    """Refuse a source of which the same tests fail twice; those that fail once are flaky."""
    failed = [test for test in again.named("failed") if run.outcomes.get(test) == "failed"]
    lost = [why.split(": ")[0] for why in run.uncollected]
    if failed or lost:
        told = [each.message for each in again.failures if each.test in failed] + [*run.uncollected]
        raise SourceError(
            f"source {source.name} fails {len(failed) + len(lost)} of its own tests unmutated: "
            f"{', '.join([*failed, *lost][:5])}; the first says: "
            f"{''.join(told[:1]).strip()[-300:]}; name tests to leave out in `ignore` of a list "
            "of sources, or choose another source"
        )


def _why_dropped(test: str, plain: SuiteRun, traced: SuiteRun) -> str:
    if plain.outcomes[test] == "skipped":
        return "skipped"
    if traced.outcomes.get(test) != plain.outcomes[test] or plain.outcomes[test] == "failed":
        return "flaky"
    return "slow" if plain.durations_s[test] > SLOW_TEST_S else ""


def _moved(mask: int, moved: Iterable[tuple[int, int]]) -> int:
    return sum(1 << new for old, new in moved if mask >> old & 1)
