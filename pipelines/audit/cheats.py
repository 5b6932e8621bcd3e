"""The battery of cheats: agents that want the reward and not the work, one shell script each.

They run through the ordinary path, in a workspace like any agent's. What fits a task follows from
its artifacts; none of them knows the answer. New one: a line in `cheats_code` or `cheats_office`.
"""

from __future__ import annotations

import hashlib
import random
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...model import Message, ToolCall
from ...workspaces import unpack_tree
from ..rollout.authored import AuthoredPolicy
from ..rollout.policy import TurnRequest
from ..rollout.tools import SUBMIT
from ..task import Task
from .cheats_code import CODE_CHEATS
from .cheats_office import FILE_CHEATS, PACKAGE_CHEATS, TEXT_CHEATS

OFFICE_PACKAGES = tuple(PACKAGE_CHEATS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cheat:
    """One way to get a reward without the work."""

    name: str
    flags: tuple[str, ...]
    """The kinds as which it may be recognised; empty = by nothing but its score."""
    script: str
    """For bash, in the workspace."""

    def policy(self) -> AuthoredPolicy:
        """An agent that runs the script and submits."""
        return AuthoredPolicy(f"cheat:{self.name}", self._move)

    def _move(self, request: TurnRequest) -> Message:
        if request.turn_index:
            return Message(role="assistant", tool_calls=(ToolCall(name=SUBMIT),))
        call = ToolCall(name="bash", arguments={"command": self.script})
        return Message(role="assistant", tool_calls=(call,))


def cheats_for(task: Task, limit: int | None = None) -> list[Cheat]:
    """The cheats that fit a task.

    Args:
        limit: at most so many, drawn by the task's id, so that the tasks of a run share the
            battery out between them; None = all.
    """
    setting, tables = _setting(task)
    cheats = [
        Cheat(name=name, flags=flags, script=f"{setting}\n{script.strip()}")
        for table in tables
        for name, (flags, script) in table.items()
    ]
    if limit is None or limit >= len(cheats):
        return cheats
    return random.Random(f"cheats {task.task_id}").sample(cheats, limit)


def module_of(task: Task) -> str:
    """The source file that the gold solution edits, else the first one that is handed in."""
    for move in task.solution:
        for call in move.calls:
            if call.name == "edit_file":
                return str(call.arguments["path"])
    roots = task.artifacts
    below = [p for p in unpack_tree(task.workspace.seed) if p.startswith(roots)]
    return next((path for path in sorted(below) if path.endswith(".py")), roots[0])


def _setting(task: Task) -> tuple[str, tuple[dict[str, tuple[tuple[str, ...], str]], ...]]:
    """Shell variables that the scripts use, and the tables of cheats that fit."""
    output = task.artifacts[0]
    words = {"OUTPUT": output, "SALT": hashlib.sha256(task.task_id.encode()).hexdigest()[:8]}
    if task.verifier.name == "test_suite":
        words |= {
            "MODULE": module_of(task),
            "PACKAGE": output if not output.endswith(".py") else ".",
            "TESTS": " ".join(task.verifier.params["tests"]),
        }
        return _shell(words), (CODE_CHEATS,)
    if output.endswith(OFFICE_PACKAGES):
        words["ANY"] = _package_in(task)
        return _shell(words), (FILE_CHEATS, PACKAGE_CHEATS[PurePosixPath(output).suffix])
    return _shell(words), (FILE_CHEATS, TEXT_CHEATS)


def _package_in(task: Task) -> str:
    """A file of the output's kind in the seed, to tamper with; the output itself if it is one."""
    output = task.artifacts[0]
    kind = PurePosixPath(output).suffix
    there = sorted(path for path in unpack_tree(task.workspace.seed) if path.endswith(kind))
    return output if output in there or not there else there[0]


def _shell(words: dict[str, str]) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in words.items())
