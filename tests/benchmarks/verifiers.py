"""How well verifiers tell right from wrong: cheats paid, honest work refused, the gate.

`--json` prints one object and nothing else; `--quick` takes fewer tasks and gold runs. With
`--work` what is measured is kept there, task by task, and the same command goes on with the rest;
`--seconds` ends a call early with what there is. Nothing is measured while the red team's tests
fail for another reason than the two counts.
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
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs

from rollmill.pipelines.admission import FULL, AdmissionError, Plan, admit
from rollmill.pipelines.coding import Bugs
from rollmill.pipelines.cowork.workbooks import Workbooks
from rollmill.pipelines.family import Family, Proposal, Rejected
from rollmill.pipelines.rollout.authored import gold_policy
from rollmill.pipelines.rollout.episode import attempt_episode, verify
from rollmill.pipelines.task import Task
from rollmill.workspaces import Provider, open_provider

ROOT = Path(__file__).parents[2]
FIRST_PROBES = ("null_passes", "null_unscored")
PACKAGES = ("addict", "isodate", "munch", "parse", "schema", "unidiff")
"""The six shipped ones whose suites take least: a task costs some thirty runs of its suite."""
QUICK = {"tasks": 3, "workbooks": 3, "cheats": 2, "mutants": 4, "more_gold": 2}
USUAL = {"tasks": 200, "workbooks": 100, "cheats": None, "mutants": 24, "more_gold": 10}


def red_team(kept: Path) -> dict[str, int]:
    """Run the red team's tests and count what they found; once for a work folder."""
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "tests/redteam", "-o", "timeout=7200"]
        command.append(f"--junitxml={report}")  # a busy machine is no failure
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
    found = {
        "cheats": len(attacks),
        "cheats_paid": paid,
        "honest": len(honest),
        "honest_refused": refused,
    }
    kept.write_text(json.dumps(found))
    return found


def _failed(cases: list[xml.Element]) -> int:
    return sum(any(child.tag in ("failure", "error") for child in case) for case in cases)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Audits tasks of one family until enough are admitted, and keeps each result in a file."""

    family: Family[Any]
    sources: Sequence[str]
    """Each in turn gives a proposal."""
    tasks: int
    """Admitted ones to reach."""
    plan: Plan
    more_gold: int
    kept: Path
    verifier: str
    """Only tasks that it judges count."""

    async def measure(self, provider: Provider, until: float) -> dict[str, Any]:
        """Go on from what is kept until there are enough tasks, or until a monotonic time."""
        rows = [json.loads(line) for line in _whole_lines(self.kept)]
        known = {row["key"] for row in rows}
        cache = platformdirs.user_cache_path("rollmill")
        sources = [await self.family.prepare(name, provider, cache) for name in self.sources]
        for source, proposal in self._ideas(sources):
            if self._admitted(rows) >= self.tasks or time.monotonic() > until:
                break
            if proposal.key in known:
                continue
            row = {"key": proposal.key, **await self._audit(source, proposal, provider)}
            rows.append(row)
            with self.kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            _say(f"{self.family.name}: {self._admitted(rows)} admitted; {row['reason']}")
        return self._figures(rows)

    def _admitted(self, rows: Sequence[dict[str, Any]]) -> int:
        return sum(row["reason"] == "admitted" for row in rows)

    def _ideas(self, sources: Sequence[Any]) -> Iterator[tuple[Any, Proposal]]:
        turns = [(source, self.family.propose(source, seed=0)) for source in sources]
        while turns:
            for turn in list(turns):
                proposal = next(turn[1], None)
                if proposal is None:
                    turns.remove(turn)
                else:
                    yield turn[0], proposal

    async def _audit(self, source: Any, proposal: Proposal, provider: Provider) -> dict[str, Any]:
        try:
            task = await self.family.build(source, proposal, provider)
        except Rejected as rejection:
            return {"reason": "not_built", "detail": str(rejection)[:200]}
        if task.verifier.name != self.verifier:
            return {"reason": "another_verifier", "detail": task.verifier.name}
        try:
            found = await admit(task, provider, plan=self.plan)
        except AdmissionError as error:
            return {"reason": "machinery", "detail": str(error)[:300]}
        reruns = self.more_gold if found.admitted else 0
        return {
            "reason": found.reason,
            "detail": found.detail[:300],
            "gold": [verdict.outcome for verdict in found.gold],
            "null": [verdict.outcome for verdict in found.null],
            "why": [c.evidence[:200] for v in found.gold for c in v.checks if c.outcome != "pass"],
            "cheats": [tried.outcome for tried in found.cheats],
            "mutants": found.mutants,
            "killed": found.killed,
            "survivors": list(found.survivors),
            "strength": found.verifier_strength,
            "wall_s": found.wall_s,
            "gold_reruns": reruns,
            "gold_reruns_failed": await _flakes(found.task, provider, reruns),
        }

    def _figures(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        audited = [row for row in rows if "gold" in row]
        admitted = [row for row in audited if row["reason"] == "admitted"]
        strengths = [row["strength"] for row in admitted if row["strength"] is not None]
        reruns = sum(row["gold_reruns"] for row in admitted)
        mutants = sum(row["mutants"] for row in admitted)
        first = sum(row["reason"] in FIRST_PROBES for row in audited)
        return {
            "sources": len(self.sources),
            "wanted": self.tasks,
            "tasks": len(admitted),
            "runs": self.plan.runs,
            "gold_passes": sum({*row["gold"]} == {"pass"} for row in admitted),
            "null_fails": sum({*row["null"]} == {"fail"} for row in admitted),
            "cheats_tried": sum(len(row["cheats"]) for row in audited),
            "cheats_paid": sum(row["cheats"].count("pass") for row in audited),
            "mutants": mutants,
            "kill_rate": sum(row["killed"] for row in admitted) / mutants if mutants else None,
            "survivors": Counter(
                label.partition(": ")[2] for row in admitted for label in row["survivors"]
            ).most_common(8),
            "verifier_strength_median": statistics.median(strengths) if strengths else None,
            "gold_reruns": reruns,
            "flake_rate": sum(r["gold_reruns_failed"] for r in admitted) / reruns
            if reruns
            else None,
            "audit_s_per_task": statistics.median(r["wall_s"] for r in audited)
            if audited
            else None,
            "audited": len(audited),
            "rejected_by_first_probe": first / len(audited) if audited else None,
            "reasons": dict(Counter(row["reason"] for row in rows)),
        }


async def _flakes(task: Task, provider: Provider, runs: int) -> int:
    """How many of some more gold runs did not pass: a whole one, then verdicts on what it left."""
    if not runs:
        return 0
    tries = await attempt_episode(task, gold_policy(), provider, run_id="bench", attempt=0, seed=0)
    slots = asyncio.Semaphore(os.cpu_count() or 1)

    async def again(_: int) -> str:
        async with slots:
            return (await verify(task, tries[-1].artifact, provider)).outcome

    outcomes = [tries[-1].outcome, *await asyncio.gather(*map(again, range(1, runs)))]
    return runs - outcomes.count("pass")


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a file but for a torn last one, which is cut off."""
    if not path.exists():
        return []
    *lines, torn = path.read_bytes().split(b"\n")
    if torn:
        path.write_bytes(b"".join(line + b"\n" for line in lines))
    return lines


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


async def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Every figure of the parts that were asked for."""
    began = time.monotonic()
    until = began + options.seconds
    found: dict[str, Any] = {}
    if "red-team" in options.part:
        found |= red_team(work / "red_team.json")
    plan = replace(FULL, cheats=options.cheats, mutants=options.mutants, at_once=2)
    bugs, workbooks = Bugs(), Workbooks()
    gates = {
        "bugs": Gate(
            family=bugs, sources=PACKAGES, tasks=options.tasks, plan=plan,
            more_gold=options.more_gold, kept=work / "bugs.jsonl", verifier="test_suite",
        ),
        "workbooks": Gate(
            family=workbooks, sources=workbooks.sources("train"), tasks=options.workbooks,
            more_gold=0,
            plan=replace(plan, runs=1, cheats=0, mutants=None), kept=work / "workbooks.jsonl",
            verifier="workbook",
        ),
    }  # fmt: skip
    provider = open_provider("docker")
    try:
        await provider.prepare(["python", "office"])
        for name, gate in gates.items():
            if name in options.part:
                found[name] = await gate.measure(provider, until)
    finally:
        await provider.close()
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    """Parse the flags, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the object alone")
    parser.add_argument("--quick", action="store_true", help="few tasks, part of the battery")
    parser.add_argument("--out", type=Path, help="also write the object there")
    parser.add_argument("--work", type=Path, help="keep and find results in this folder")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then stop")
    parser.add_argument(
        "--part", action="append", choices=["red-team", "bugs", "workbooks"], help="[all]"
    )
    parser.add_argument("--tasks", type=int, help="admitted `bugs` tasks [200, quick: 3]")
    parser.add_argument("--workbooks", type=int, help="admitted tasks [100, quick: 3]")
    parser.add_argument("--cheats", type=int, help="of the battery, each task [all, quick: 2]")
    parser.add_argument("--mutants", type=int, help="at most, each task [24, quick: 4]")
    parser.add_argument("--more-gold", type=int, help="more gold runs, each task [10, quick: 2]")
    options = parser.parse_args()
    for name, value in (QUICK if options.quick else USUAL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.part = options.part or ["red-team", "bugs", "workbooks"]
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        found = asyncio.run(measure(options, work))
    text = json.dumps(found, indent=None if options.json else 2)
    if options.out:
        options.out.write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    main()
