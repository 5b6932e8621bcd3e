"""The runner's bookkeeping of what a command writes: head, tail, true counts and a spill file.

Part of `runner.py`, kept apart for the reader; sent into the workspace with it.
"""

# File descriptors and names; and it starts faster without pathlib.
# ruff: noqa: PTH108, PTH208

from __future__ import annotations

import contextlib
import os
import time

TYPE_CHECKING = False  # as in `runner.py`
if TYPE_CHECKING:
    from typing import Any

SPILL_DIR = "/tmp/.output"
SPILLS_KEPT = 4
CHUNK = 1 << 16


class Stream:
    """Head and tail of one output stream, and how long it was."""

    def __init__(self, cap: int, text: bytes = b"") -> None:
        self.head_room, self.tail_room = cap - cap // 2, cap // 2
        self.head, self.tail, self.total = bytearray(), bytearray(), 0
        self.add(text)

    def add(self, chunk: bytes) -> None:
        """Count a chunk and keep what belongs to head or tail."""
        self.total += len(chunk)
        room = self.head_room - len(self.head)
        self.head += chunk[:room] if room > 0 else b""
        self.tail += chunk[max(room, 0) :]
        if len(self.tail) > self.tail_room + CHUNK:
            del self.tail[: -self.tail_room]

    @property
    def cut(self) -> int:
        """Bytes that are neither in the head nor in the tail."""
        return max(0, self.total - self.head_room - self.tail_room)

    def kept(self, spill: str) -> bytes:
        """Head and tail, with a note between them where something was cut."""
        if not self.cut:
            return bytes(self.head + self.tail)
        note = f"\n[... {self.cut} bytes cut; the whole output is in {spill} ...]\n"
        return bytes(self.head) + note.encode() + bytes(self.tail[-self.tail_room :])


class Spill:
    """The whole output of a command, in order of arrival; becomes a file once a stream is cut."""

    def __init__(self, number: int, max_bytes: int) -> None:
        self.path = f"{SPILL_DIR}/{number:04d}.txt"
        self.room, self.waiting, self.fd = max_bytes, bytearray(), -1

    def add(self, chunk: bytes, *, to_file: bool) -> None:
        """Remember a chunk, in the file from the first `to_file` on."""
        self.waiting += chunk
        if not to_file and self.fd < 0:
            return
        with contextlib.suppress(OSError):  # /tmp is full: the file is shorter than the output
            if self.fd < 0:
                self.fd = self._create()
            self.room -= os.write(self.fd, self.waiting[: max(self.room, 0)])
        self.waiting.clear()

    def _create(self) -> int:
        spills = sorted(name for name in os.listdir(SPILL_DIR) if name[0].isdigit())
        for name in spills[: 1 - SPILLS_KEPT]:
            os.unlink(f"{SPILL_DIR}/{name}")
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)

    def close(self) -> None:
        """Close the file, if there is one."""
        if self.fd >= 0:
            os.close(self.fd)


def take(fd: int, stream: Stream, spill: Spill) -> bool:
    """Read one chunk; False at the end of the stream."""
    chunk = os.read(fd, CHUNK)
    stream.add(chunk)
    spill.add(chunk, to_file=stream.cut > 0)
    return bool(chunk)


class Work:
    """One command: what it wrote and how it ended."""

    def __init__(self, number: int, config: dict[str, Any]) -> None:
        self.started = time.monotonic()
        self.out, self.err = Stream(config["output_bytes"]), Stream(config["output_bytes"])
        self.spill = Spill(number, config["spill_bytes"])

    def outcome(self, exit_code: int, *, why: str | None) -> tuple[dict[str, Any], bytes]:
        """The reply to the host."""
        self.spill.close()
        kept = self.out.kept(self.spill.path)
        header = {
            "exit_code": exit_code,
            "why": why,
            "duration_s": time.monotonic() - self.started,
            "bytes": [self.out.total, self.err.total],
            "cut": len(kept),
            "spill": self.spill.path if self.out.cut or self.err.cut else None,
        }
        return header, kept + self.err.kept(self.spill.path)
