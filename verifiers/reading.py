"""Has an agent's file read inside a workspace and returns plain data of bounded size.

Hostile files are parsed there by a module of `inside/`, as the command user and under the
workspace's limits; the host sees JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from signal import SIGKILL
from typing import Any

from ..workspaces import MIB, Workspace, WorkspaceError, pack_tree, unpack_tree
from .types import Check, Outcome

MODULES = Path(__file__).with_name("inside")
PLACE = "/tmp/inside"
READING = "/tmp/reading.json"
MAX_READING_BYTES = 16 * MIB
CONVERT_S = 240.0
"""Wall clock of LibreOffice, generous: a machine may be busy. Its processor time is bounded."""
READ_S = 60.0
"""Allowed for parsing, on top of the conversion."""
START = "import sys; sys.path.insert(0, sys.argv[1]); from inside.{module} import main; main()"
UNTOLD = ("not_converted",)
"""Endings that say nothing about the file."""


def modules() -> dict[str, bytes]:
    """What is laid in a workspace below `PLACE`: path -> content."""
    return {f"inside/{path.name}": path.read_bytes() for path in sorted(MODULES.glob("*.py"))}


async def read_inside(
    workspace: Workspace, module: str, request: Mapping[str, Any]
) -> dict[str, Any]:
    """Run a module of `inside/` on a request.

    Returns: what it found, with `ending`: `read`, or why not, with `detail` then.

    Raises:
        WorkspaceError: the workspace failed, or its image cannot read any such file.
    """
    await workspace.put_tree(pack_tree(modules()), PLACE)
    done = await workspace.exec(
        ["python3", "-I", "-B", "-c", START.format(module=module), PLACE],
        stdin=json.dumps({**request, "out": READING, "timeout_s": CONVERT_S}).encode(),
        timeout_s=CONVERT_S + READ_S,
    )
    if done.timed_out:
        return {"ending": "not_converted", "detail": "reading it took too long"}
    if done.exit_code == 128 + SIGKILL:
        return {"ending": "too_big", "detail": "reading it took all memory"}
    if done.exit_code != 0:
        raise WorkspaceError(f"the reader {module!r} broke: {done.stderr.strip()[-400:]}")
    reading: dict[str, Any] = json.loads(await workspace.get(READING, max_bytes=MAX_READING_BYTES))
    if reading["ending"] == "no_office":
        raise WorkspaceError(f"{reading['detail']}; the task must name the image 'office'")
    return reading


async def lay_original(workspace: Workspace, path: str) -> str | None:
    """Lay the seed's file of the same path beside the agent's; None = the seed has none."""
    seed = unpack_tree(workspace.spec.seed).get(path)
    if seed is None:
        return None
    original = f"/tmp/original{Path(path).suffix}"
    await workspace.put(original, seed)
    return original


async def saved_by_office(workspace: Workspace, original: str) -> list[Any]:
    """What the module of a seed's document or deck finds after LibreOffice saved it unchanged."""
    found = await read_inside(workspace, "resaved", {"original": original})
    return list(found["saved"]) if found["ending"] == "read" else []


def unreadable(path: str, wanted: str, ending: str, detail: str) -> Check:
    """A file that is no such file fails; one that LibreOffice cannot take tells nothing."""
    outcome: Outcome = "unscored" if ending in UNTOLD else "fail"
    evidence = f"expected {wanted} at {path}: {ending}, {detail}"
    return Check(name="readable", outcome=outcome, evidence=evidence[:500])


def summary(name: str, wrong: list[str], shown: int = 3) -> Check:
    """A check that passes when nothing is wrong, else names the first few things."""
    if not wrong:
        return Check(name=name, outcome="pass")
    more = f"; and {len(wrong) - shown} more" if len(wrong) > shown else ""
    evidence = "; ".join(text[:200] for text in wrong[:shown]) + more
    return Check(name=name, outcome="fail", evidence=evidence)
