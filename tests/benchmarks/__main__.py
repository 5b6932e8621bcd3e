"""Runs the benchmarks one after the other and writes `docs/benchmarks.md`.

A benchmark is a file beside this one with `--json` and `--quick`; it prints nothing when a test of
what it measures is red, and its section then says so. What each found last is kept, so the page
shows those that were not run now too. This file measures nothing itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
KEPT = ROOT / "runs" / "benchmarks"
LONG = ("verifiers",)
"""Take hours, and go on where they were stopped when they are given a folder for it."""
VERSIONS = ("torch", "transformers", "docker", "mini-swe-agent", "swe-rex")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the page; 0 = every benchmark ran."""
    known = sorted(path.stem for path in HERE.glob("[!_]*.py"))
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python tests/benchmarks --quick model"
    )
    parser.add_argument("names", nargs="*", choices=[*known, []], help="all when none is named")
    parser.add_argument("--quick", action="store_true", help="smaller counts, under a minute each")
    parser.add_argument("--kept", type=Path, default=KEPT, help="where the last figures are kept")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page to write")
    options = parser.parse_args(arguments)
    options.kept.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in options.names or known:
        command = [sys.executable, f"tests/benchmarks/{name}.py", "--json"]
        command += ["--quick"] * options.quick
        if name in LONG and not options.quick:
            command += ["--work", str(options.kept / name)]
        print(f"{name}: running", file=sys.stderr, flush=True)
        began, conditions = time.monotonic(), _conditions()
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        failed |= done.returncode != 0
        record = {
            "command": " ".join(["python", *command[1:3], *["--quick"] * options.quick]),
            "conditions": conditions,
            "figures": json.loads(done.stdout) if done.stdout.strip() else None,
        }
        draft = options.kept / f".{name}.json"
        draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        draft.rename(options.kept / f"{name}.json")
    records = {path.stem: json.loads(path.read_bytes()) for path in options.kept.glob("[!.]*.json")}
    options.out.write_text(page(records), encoding="utf-8")
    print(f"wrote {options.out}", file=sys.stderr)
    return 1 if failed else 0


def page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as Markdown; a section without figures says why."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Ours and the peers ran in turn in one run; a ratio over 1 means "
        "that ours is better.",
    ]
    for name, record in sorted(records.items()):
        lines += ["", f"## {name}", "", f"`{record['command']}`: {record['conditions']}", ""]
        if (figures := record["figures"]) is None:
            lines.append("No figures: a test of what it measures is red, or it broke.")
        else:
            lines += ["| figure | ours | peers | ratio | more |", "|---|---|---|---|---|"]
            lines += [f"| {' | '.join(row)} |" for row in _rows(figures)]
    return "\n".join(lines) + "\n"


def _conditions() -> str:
    """When, on what and beside what."""
    found = ", ".join(f"{name} {found}" for name in VERSIONS if (found := _version(name)))
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} x {_processor()}, load "
        f"{os.getloadavg()[0]:.1f} before, Python {platform.python_version()}, {found}"
    )


def _rows(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, ...]]:
    """A row a figure: what is compared with peers, a number, or a group of numbers."""
    for name, value in figures.items():
        label = f"`{above}{name}`"
        if not isinstance(value, Mapping):
            yield label, _text(value), "", "", ""
        elif "ours" in value:
            names = [key.removeprefix("ratio_") for key in value if key.startswith("ratio_")]
            peers = [f"{peer} {_text(value[peer])}" for peer in names]
            shown = {"ours", "ratio", *names, *(f"ratio_{peer}" for peer in names)}
            more = {key: each for key, each in value.items() if key not in shown}
            ratio = _text(value.get("ratio", ""))
            yield label, _text(value["ours"]), ", ".join(peers), ratio, _listed(more)
        else:
            groups = {key: each for key, each in value.items() if isinstance(each, Mapping)}
            numbers = {key: each for key, each in value.items() if key not in groups}
            if numbers:
                yield label, "", "", "", _listed(numbers)
            yield from _rows(groups, f"{above}{name}.")


def _listed(values: Mapping[str, Any]) -> str:
    """Numbers by name, as deep as they lie."""
    return ", ".join(
        f"{name} ({_listed(value)})" if isinstance(value, Mapping) else f"{name} {_text(value)}"
        for name, value in values.items()
    )


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", r"\|")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """The model's name where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
