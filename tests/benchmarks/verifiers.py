"""How well verifiers tell right from wrong: cheats paid, honest work refused, the gate.

`--json` prints one object and nothing else; `--quick` takes fewer tasks and gold runs; nothing is
measured while the red team's tests fail for another reason than the two counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs

from rollmill.pipelines.admission import FULL, Admission, Plan, admit
from rollmill.pipelines.coding import Bugs
from rollmill.pipelines.coding.codebase import Codebase
from rollmill.pipelines.family import Proposal, Rejected
from rollmill.pipelines.rollout.authored import gold_policy
from rollmill.pipelines.rollout.episode import attempt_episode
from rollmill.pipelines.task import Task
from rollmill.workspaces import Provider, open_provider

ROOT = Path(__file__).parents[2]
PACKAGES = 6
FIRST_PROBES = ("null_passes", "null_unscored")


def red_team() -> dict[str, int]:
    """Run the red team's tests and count what they found."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "tests/redteam", f"--junitxml={report}"]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONSAFEPATH": "1"}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        cases = list(xml.parse(report).iter("testcase")) if report.exists() else []
    attacks = [case for case in cases if "attack_earns" in case.attrib["name"]]
    honest = [case for case in cases if "honest_work" in case.attrib["name"]]
    paid, refused = _failed(attacks), _failed(honest)
    if not attacks or not honest or _failed(cases) > paid + refused:
        sys.exit(f"the red team's tests are red, so nothing is measured:\n{done.stdout[-3000:]}")
    return {
        "cheats": len(attacks),
        "cheats_paid": paid,
        "honest": len(honest),
        "honest_refused": refused,
    }


def _failed(cases: list[xml.Element]) -> int:
    return sum(any(child.tag in ("failure", "error") for child in case) for case in cases)


async def gate(provider: Provider, *, tasks: int, plan: Plan, more_gold: int) -> dict[str, Any]:
    """Admit `bugs` tasks over six packages and run the gold solution of each some more."""
    family, cache = Bugs(), platformdirs.user_cache_path("rollmill")
    sources = [
        await family.prepare(name, provider, cache) for name in family.sources("train")[:PACKAGES]
    ]
    admissions: list[Admission] = []
    ideas = _ideas(family, sources)
    while sum(one.admitted for one in admissions) < tasks:
        source, proposal = next(ideas)
        try:
            task = await family.build(source, proposal, provider)
        except Rejected:
            continue
        admissions.append(await admit(task, provider, plan=plan))
        _say(f"{len(admissions)} audited, the last: {admissions[-1].reason}")
    admitted = [one for one in admissions if one.admitted]
    flakes = [await _flakes(one.task, provider, more_gold) for one in admitted]
    strengths = [s for one in admitted if (s := one.verifier_strength) is not None]
    return {
        "packages": len(sources),
        "tasks": len(admitted),
        "gold_passes": sum(all(v.outcome == "pass" for v in one.gold) for one in admitted),
        "null_fails": sum(all(v.outcome == "fail" for v in one.null) for one in admitted),
        "runs": plan.runs,
        "cheats_tried": sum(len(one.cheats) for one in admissions),
        "cheats_paid_on_bugs": sum(t.outcome == "pass" for one in admissions for t in one.cheats),
        "mutants": sum(one.mutants for one in admitted),
        "verifier_strength_median": statistics.median(strengths) if strengths else None,
        "gold_reruns": more_gold * len(admitted),
        "flake_rate": sum(flakes) / max(more_gold * len(admitted), 1),
        "audit_s_per_task": statistics.median(one.wall_s for one in admissions),
        "rejected": len(admissions) - len(admitted),
        "rejected_by_first_probe": sum(one.reason in FIRST_PROBES for one in admissions),
    }


def _ideas(family: Bugs, sources: list[Codebase]) -> Iterator[tuple[Codebase, Proposal]]:
    """Each package in turn gives one."""
    turns = [(source, family.propose(source, seed=0)) for source in sources]
    while turns:
        for turn in list(turns):
            proposal = next(turn[1], None)
            if proposal is None:
                turns.remove(turn)
            else:
                yield turn[0], proposal


async def _flakes(task: Task, provider: Provider, runs: int) -> int:
    """How many of some more gold runs did not pass."""
    slots = asyncio.Semaphore(os.cpu_count() or 1)

    async def once(attempt: int) -> bool:
        async with slots:
            rows = await attempt_episode(
                task, gold_policy(), provider, run_id="bench", attempt=attempt, seed=attempt
            )
        return rows[-1].outcome == "pass"

    return (await asyncio.gather(*map(once, range(runs)))).count(False)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every figure."""
    began = time.monotonic()
    found: dict[str, Any] = {} if options.no_red_team else red_team()
    provider = open_provider("docker")
    plan = replace(FULL, cheats=options.cheats, mutants=options.mutants, at_once=2)
    try:
        bugs = await gate(provider, tasks=options.tasks, plan=plan, more_gold=options.more_gold)
    finally:
        await provider.close()
    return {**found, "bugs": bugs, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    """Parse the flags, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the object alone")
    parser.add_argument("--quick", action="store_true", help="few tasks, part of the battery")
    parser.add_argument("--out", type=Path, help="also write the object there")
    parser.add_argument("--tasks", type=int, help="admitted `bugs` tasks [200, quick: 3]")
    parser.add_argument("--cheats", type=int, help="of the battery, each task [all, quick: 2]")
    parser.add_argument("--mutants", type=int, help="at most, each task [24, quick: 4]")
    parser.add_argument("--more-gold", type=int, help="more gold runs, each task [10, quick: 2]")
    parser.add_argument("--no-red-team", action="store_true", help="only the gate's figures")
    options = parser.parse_args()
    usual = {"tasks": 200, "cheats": None, "mutants": 24, "more_gold": 10}
    quick = {"tasks": 3, "cheats": 2, "mutants": 4, "more_gold": 2}
    for name, value in (quick if options.quick else usual).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    found = asyncio.run(measure(options))
    text = json.dumps(found, indent=None if options.json else 2)
    if options.out:
        options.out.write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    main()
