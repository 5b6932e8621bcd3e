"""The white-box agent's tools. A tool's failure is an observation; a dead workspace is an error.

Adding a tool: write one async function and name it, with its schema, in `TOOLS`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...model import ToolSpec
from ...workspaces import MIB, WORKDIR, DiskFull, ExecResult, FileRefused, Workspace
from .edit import Refusal, replace_at
from .observation import cap, numbered, steady

SUBMIT = "submit"
MAX_FILE_BYTES = 4 * MIB
MAX_COMMAND_CHARS = 30_000
"""The kernel takes one argument of at most 128 KiB."""
MAX_LINES = 200
"""Shown by one `read_file` that names no end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What a tool works on."""

    workspace: Workspace
    deadline: float
    """When the episode's time is over, on the clock of `time.monotonic`."""
    max_chars: int
    """Of one observation."""

    def timeout_s(self, wanted: float | None) -> float:
        """The deadline of one command: never past the end of the episode."""
        left = self.deadline - time.monotonic()
        return max(min(wanted or self.workspace.spec.limits.command_s, left), 0.1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A tool: what the model is told about it, and what it does."""

    spec: ToolSpec
    run: Callable[..., Awaitable[str]]
    """Called with a `Bench` and the arguments by name; returns the observation."""


async def use(tool: Tool, bench: Bench, arguments: Mapping[str, Any]) -> str:
    """The observation of one call, bounded.

    Raises:
        WorkspaceError: the workspace itself failed.
    """
    try:
        if any(isinstance(value, str) and "\0" in value for value in arguments.values()):
            raise Refusal("an argument holds a NUL byte; leave it out")
        text = await tool.run(bench, **arguments)
    except FileNotFoundError:
        text = f"error: there is no file {arguments['path']!r}; list the folder with bash"
    except (Refusal, FileRefused, DiskFull) as refusal:
        text = f"error: {refusal}"
    return cap(text, max_chars=bench.max_chars, rest="ask for a smaller part")


async def bash(bench: Bench, *, command: str, timeout_s: int | None = None) -> str:
    """Run a command line; its output, then its exit code where that is not 0."""
    if len(command) > MAX_COMMAND_CHARS:
        return "error: the command is too long; write it to a file with write_file and run that"
    result = await bench.workspace.exec(
        ["bash", "-c", command], timeout_s=bench.timeout_s(timeout_s)
    )
    rest = f"all of it is in {result.spill_path}" if result.spill_path else "use sed -n 'A,Bp'"
    output = cap(_streams(result), max_chars=bench.max_chars - 200, rest=rest)
    return "\n".join(filter(None, [output, _ending(result)])) or "(no output)"


def _streams(result: ExecResult) -> str:
    streams = [steady(stream).strip("\n") for stream in (result.stdout, result.stderr)]
    return "\n".join(filter(None, streams))


def _ending(result: ExecResult) -> str:
    if result.timed_out:
        return "[killed: it ran past its time limit]"
    return f"[exit code {result.exit_code}]" if result.exit_code else ""


async def read_file(bench: Bench, *, path: str, start: int = 1, end: int | None = None) -> str:
    """Lines `start` to `end` of a text file, numbered from 1."""
    lines = (await _text(bench, path)).split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        return f"{path} is empty"
    first = max(start, 1)
    last = min(end or first + MAX_LINES - 1, len(lines))
    if first > last:
        return f"error: nothing between lines {start} and {end}; {path} has {len(lines)} lines"
    shown = numbered(lines[first - 1 : last], first)
    if end is None and last < len(lines):
        shown += f"\n[{len(lines) - last} more lines; go on with start={last + 1}]"
    return shown


async def write_file(bench: Bench, *, path: str, content: str) -> str:
    """Write a whole file, over what was there."""
    return f"wrote {await _save(bench, path, content)} bytes to {path}"


async def edit_file(bench: Bench, *, path: str, line: int, old: str, new: str) -> str:
    """Replace a fragment that starts on one line."""
    changed, shown = replace_at(await _text(bench, path), line=line, old=old, new=new)
    await _save(bench, path, changed)
    return f"edited {path}:\n{shown}"


async def submit(bench: Bench) -> str:
    """Say that the work is done; the loop ends the episode."""
    return "submitted"


async def _text(bench: Bench, path: str) -> str:
    data = await bench.workspace.get(path, max_bytes=MAX_FILE_BYTES)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refusal(f"{path} is not UTF-8 text; look at it with bash") from None


async def _save(bench: Bench, path: str, text: str) -> int:
    """Write a file, leaving a program executable; returns its size in bytes."""
    data = text.encode()
    program = await bench.workspace.exec(["test", "-f", path, "-a", "-x", path])
    await bench.workspace.put(path, data, mode=0o644 if program.exit_code else 0o755)
    return len(data)


def _tool(run: Callable[..., Awaitable[str]], description: str, **properties: str) -> Tool:
    """A tool from `name="type: meaning"`; a trailing `?` of the type makes it optional."""
    schema, required = {}, []
    for name, written in properties.items():
        kind, _, meaning = written.partition(": ")
        schema[name] = {"type": kind.rstrip("?")} | ({"description": meaning} if meaning else {})
        if not kind.endswith("?"):
            required.append(name)
    parameters = {"type": "object", "properties": schema, "required": required}
    name = run.__name__
    return Tool(spec=ToolSpec(name=name, description=description, parameters=parameters), run=run)


TOOLS: dict[str, Tool] = {
    tool.spec.name: tool
    for tool in (
        _tool(
            bash,
            f"Run a command line with bash in {WORKDIR}. Nothing it starts outlives it.",
            command="string",
            timeout_s="integer?: seconds",
        ),
        _tool(
            read_file,
            "Show a text file with line numbers.",
            path="string",
            start="integer?: first line",
            end="integer?: last line",
        ),
        _tool(write_file, "Write a whole file.", path="string", content="string"),
        _tool(
            edit_file,
            "Replace the fragment `old` that starts on a line by `new`.",
            path="string",
            line="integer",
            old="string",
            new="string",
        ),
        _tool(submit, "Say that the task is done."),
    )
}
