"""Family `bugs`: one small fault in a function that tests run; the agent finds and repairs it."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

from ...verifiers import VerifierSpec
from ...verifiers.pytest_run import SuiteRun, run_suite
from ...workspaces import Provider, Workspace, WorkspaceSpec, opened, pack_tree
from ..family import Proposal, Rejected, Split
from ..task import Domain, Provenance, Task
from .codebase import ENV, IMAGE, Codebase, examine, spec_of, test_files
from .fetch import Tree
from .gold import gold_moves
from .issue import shown_failure, write_issue
from .mutations import Mutation
from .sources import find_source, read_sources, shipped_sources

MOST_BROKEN = 0.4
"""A fault that breaks a larger share of the suite is no realistic bug."""
HANG_S = 5.0
"""Processor seconds; no stable test takes a fifth of it, so a mutant's test that does hangs."""
START_S = 10.0
"""Processor seconds for starting Python and collecting, on top of what the tests take."""
SLOWDOWN = 4.0
"""How many times the processor seconds of the examination a suite may take."""


class Bugs:
    """Makes tasks from single-line mutations of real packages."""

    name: ClassVar[str] = "bugs"
    domain: ClassVar[Domain] = "coding"
    version: ClassVar[str] = "1"
    images: ClassVar[tuple[str, ...]] = (IMAGE,)

    def __init__(self, sources: Path | None = None) -> None:
        """Args: sources: a list of sources as `sources.toml`; None = the one that ships."""
        self._known = shipped_sources() if sources is None else read_sources(sources)

    def sources(self, split: Split = "all") -> Sequence[str]:
        """The names of the listed sources of a split."""
        return tuple(name for name, each in self._known.items() if split in ("all", each.split))

    async def prepare(self, source: str, provider: Provider, cache: Path) -> Codebase:
        """Examine a listed source, a `name==version`, a folder or a git URL."""
        return await examine(find_source(source, self._known), provider, cache)

    def propose(self, source: Codebase, *, seed: int) -> Iterator[Proposal]:
        """One mutation each, the kinds in turn, within a kind the least used functions first."""
        rng = random.Random(f"{seed} {source.source.name}")
        by_kind: dict[str, list[Mutation]] = defaultdict(list)
        for mutation in source.mutations.values():
            by_kind[mutation.kind].append(mutation)
        kinds = sorted(by_kind)
        rng.shuffle(kinds)
        queues = [_spread(by_kind[kind], rng) for kind in kinds]
        for layer in zip_longest(*queues):
            for mutation in layer:
                if mutation is not None:
                    number = rng.getrandbits(31)
                    yield Proposal(key=mutation.key, source=source.source.name, seed=number)

    async def build(self, source: Codebase, proposal: Proposal, provider: Provider) -> Task:
        """Run the suite on the mutated package and make a task of what it breaks."""
        mutation = source.mutations[proposal.key]
        files = _mutated(source, mutation)
        async with opened(provider, spec_of(files)) as workspace:
            run = await _failing(workspace, source, source.tests_of(mutation))
        broken = [test for test in source.tests if run.outcomes[test] != "passed"]
        shown = shown_failure(run.failures)
        instruction = write_issue(
            package=source.layout.packages[0].split("/")[-1].removesuffix(".py"),
            failure=shown,
            others=len(broken) - 1,
            seed=proposal.seed,
        )
        _refuse_leak(instruction, mutation)
        return Task(
            family=self.name,
            domain=self.domain,
            instruction=instruction,
            workspace=WorkspaceSpec(image=IMAGE, seed=pack_tree(files), env=ENV),
            verifier=_verifier(source, broken),
            hidden={p: data for p, data in source.layout.files.items() if source.layout.is_test(p)},
            artifacts=source.layout.packages,
            solution=gold_moves(mutation, test=shown.test, seed=proposal.seed),
            provenance=self._provenance(source, mutation, proposal),
        )

    def _provenance(self, source: Codebase, mutation: Mutation, proposal: Proposal) -> Provenance:
        return Provenance(
            source=source.source.requirement,
            licence=source.licence,
            url=source.source.url,
            seed=proposal.seed,
            generator=self.name,
            generator_version=self.version,
            detail={
                "mutation": mutation.kind,
                "file": mutation.path,
                "function": mutation.function,
                "split": source.source.split,
            },
        )


def _spread(mutations: list[Mutation], rng: random.Random) -> list[Mutation]:
    """A shuffled list in which every function comes once before any comes twice."""
    shuffled = rng.sample(mutations, len(mutations))
    turns: Counter[tuple[str, str]] = Counter()
    turn_of = {}
    for mutation in shuffled:
        place = (mutation.path, mutation.function)
        turn_of[mutation.key] = turns[place]
        turns[place] += 1
    return sorted(shuffled, key=lambda mutation: turn_of[mutation.key])


def _mutated(source: Codebase, mutation: Mutation) -> Tree:
    text = mutation.apply(source.text(mutation.path))
    try:
        compile(text, mutation.path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise Rejected("does_not_compile", str(error)) from error
    return {**source.layout.files, mutation.path: text.encode("utf-8")}


async def _failing(workspace: Workspace, source: Codebase, first: Sequence[str]) -> SuiteRun:
    """Run the suite, the tests that reach the fault first; some must fail, but not too many."""
    most = max(1, int(MOST_BROKEN * len(source.tests)))
    run = await run_suite(
        workspace,
        paths=test_files(source.tests),
        tests=source.tests,
        first=first,
        max_failed=most,
        timeout_s=_timeout_s(source),
        test_timeout_s=HANG_S,
    )
    if run.ending == "timed_out":
        raise Rejected("hangs", run.detail)
    if run.ending != "reported":
        raise Rejected("crashes", run.detail)
    if run.uncollected:
        raise Rejected("uncollectable", run.uncollected[0])
    failed = run.named("failed")
    if not failed:
        raise Rejected("no_failing_test")
    if len(failed) > most:
        raise Rejected("breaks_everything", f"over {most} of {len(source.tests)} tests fail")
    return run


def _timeout_s(source: Codebase) -> float:
    return START_S + SLOWDOWN * sum(source.durations_s.values())


def _verifier(source: Codebase, broken: Sequence[str]) -> VerifierSpec:
    failing = set(broken)
    params: Mapping[str, object] = {
        "fail_to_pass": list(broken),
        "pass_to_pass": [test for test in source.tests if test not in failing],
        "tests": list(source.layout.tests),
        "timeout_s": _timeout_s(source),
    }
    return VerifierSpec(name="test_suite", params=params)


def _refuse_leak(instruction: str, mutation: Mutation) -> None:
    """The report may quote the test; never the faulty or the right line, or where it stands."""
    lines = [line.strip() for line in (mutation.before, mutation.after)]
    places = [f"{mutation.path}:{mutation.line}", f"line {mutation.line}"]
    told = [text for text in (*lines, *places) if len(text) > 5 and text in instruction]
    if told:
        raise Rejected("leaks", told[0])
