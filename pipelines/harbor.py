"""The files of a Harbor task folder that Harbor's own tools run: Dockerfile, solve.sh, test.sh.

They are derived from a task and never read back. Rollmill's verifiers stay the judge: what is
written here for Harbor users is weaker, and where it would be a guess it gives no reward.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from ..model import ToolCall
from ..workspaces import WORKDIR
from .task import Move, Task

SEED = "workspace.tar.gz"

_EDIT = """\
edit_file() {  # path line old new
  python3 - "$@" <<'PYTHON'
import sys
path, line, old, new = sys.argv[1:]
with open(path, newline="") as file:
    text = file.read()
start = sum(map(len, text.splitlines(keepends=True)[: int(line) - 1]))
at = text.index(old, start)
with open(path, "w", newline="") as file:
    file.write(text[:at] + new + text[at + len(old) :])
PYTHON
}
"""

_TEST_SUITE = """\
#!/bin/bash
# Runs the listed tests of the package on what the agent left. Weaker than rollmill's verifier:
# it looks for no planted plug-ins and has no canary tests.
mkdir -p /logs/verifier
python3 - <<'PYTHON'
import json, os, pathlib, shutil, subprocess, sys, tempfile
import xml.etree.ElementTree as xml

params = json.loads(pathlib.Path("/tests/verifier.json").read_text())["params"]
work, hidden = pathlib.Path("WORKDIR"), pathlib.Path("/tests/hidden")
for name in params["tests"]:
    tests = work / name
    shutil.rmtree(tests) if tests.is_dir() else tests.unlink(missing_ok=True)
if hidden.is_dir():
    shutil.copytree(hidden, work, dirs_exist_ok=True)
wanted = params["fail_to_pass"] + params["pass_to_pass"]
report = pathlib.Path(tempfile.mkdtemp()) / "report.xml"
fresh = {**os.environ, "PYTHONPYCACHEPREFIX": str(report.parent)}
arguments = report.with_name("tests.txt")
arguments.write_text("\\n".join(wanted))
pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"]
exit_code = subprocess.run([*pytest, f"@{arguments}"], cwd=work, env=fresh).returncode
passed = 0
if report.exists():
    cases = xml.parse(report).getroot().iter("testcase")
    passed = sum(all(child.tag not in BAD for child in case) for case in cases)
reward = int(exit_code == 0 and passed == len(wanted))
pathlib.Path("/logs/verifier/reward.txt").write_text(str(reward))
PYTHON
""".replace("WORKDIR", WORKDIR).replace("BAD", '("failure", "error", "skipped")')

_NO_VERDICT = """\
#!/bin/bash
# This task is judged by rollmill's verifier "{name}", which needs more than one shell script.
# Install rollmill and judge the exported artifacts with it; this script gives no reward.
echo 'no verdict: the verifier "{name}" of rollmill is needed; see the head of test.sh' >&2
exit 1
"""


def dockerfile(task: Task) -> str:
    """The agent's container: rollmill's image of that name with the seed laid."""
    image = task.workspace.image
    base = (
        image.removeprefix("docker:") if image.startswith("docker:") else f"rollmill/{image}:latest"
    )
    seed = f"ADD {SEED} {WORKDIR}/\n" if task.workspace.seed else ""
    return (
        f"# `rollmill doctor --fix` builds the base; tag it so, or give another one that holds\n"
        f"# the same tools: docker build --build-arg BASE=...\n"
        f"ARG BASE={base}\n"
        f"FROM ${{BASE}}\n"
        f"WORKDIR {WORKDIR}\n{seed}"
    )


def solve_script(moves: tuple[Move, ...]) -> str:
    """The gold solution in plain bash and Python."""
    calls = [call for move in moves for call in move.calls]
    helper = _EDIT if any(call.name == "edit_file" for call in calls) else ""
    steps = [_step(move) for move in moves]
    return "\n".join(["#!/bin/bash", f"cd {WORKDIR} || exit 1", helper, *steps])


def test_script(task: Task) -> str:
    """The verdict for Harbor users, or a plain word that there is none."""
    if task.verifier.name == "test_suite":
        return _TEST_SUITE
    return _NO_VERDICT.format(name=task.verifier.name)


def _step(move: Move) -> str:
    thought = [f"# {line}" for line in move.thought.splitlines()]
    return "\n".join([*thought, *(_command(call) for call in move.calls), ""])


def _command(call: ToolCall) -> str:
    known = _COMMANDS.get(call.name)
    if known is None:
        return f"echo 'no shell form of the tool {call.name}' >&2; exit 1"
    return known(call.arguments)


def _write(arguments: Mapping[str, Any]) -> str:
    path = shlex.quote(arguments["path"])
    content = shlex.quote(arguments["content"])
    return f'mkdir -p "$(dirname {path})"\nprintf %s {content} > {path}'


def _edit(arguments: Mapping[str, Any]) -> str:
    words = (str(arguments[name]) for name in ("path", "line", "old", "new"))
    return f"edit_file {shlex.join(words)}"


_COMMANDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "bash": lambda arguments: f"bash -c {shlex.quote(arguments['command'])} < /dev/null",
    "write_file": _write,
    "edit_file": _edit,
    "read_file": lambda arguments: f"cat {shlex.quote(arguments['path'])}",
    "submit": lambda _: "",
}
