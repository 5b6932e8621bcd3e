"""Who owns which container on this machine: a small SQLite file, and the guard that keeps it true.

Intent is written before anything is created. A holder (one provider of one process) lives as long
as its guard renews it; what an expired holder owns may be reaped by anybody. Run as a program, this
file is the guard, so it needs nothing but the standard library. It removes no container itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEDGER_ERRORS = (sqlite3.Error,)
HOLDER_S = 60.0
"""How long a holder lives without being renewed."""
BEATS = 6
"""How often a guard renews its holder in that time."""

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS holders (holder TEXT PRIMARY KEY, run TEXT NOT NULL, "
    "engine TEXT NOT NULL, pid INTEGER NOT NULL, expires REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS leases (lease TEXT PRIMARY KEY, "
    "holder TEXT NOT NULL REFERENCES holders ON DELETE CASCADE)",
)


class Ledger:
    """The ledger at a path; it is made when missing. Safe in threads and across processes."""

    def __init__(self, path: Path, *, holder_s: float = HOLDER_S) -> None:
        """Args:
        holder_s: how long a holder lives without being renewed.
        """
        self.path, self.holder_s = path, holder_s

    def hold(self, holder: str, *, run: str, engine: str) -> None:
        """Enter a holder, alive from now on."""
        row = (holder, run, engine, os.getpid(), time.time() + self.holder_s)
        with self._open() as db:
            db.execute("INSERT INTO holders VALUES (?, ?, ?, ?, ?)", row)

    def renew(self, holder: str) -> None:
        """Let a holder live on."""
        with self._open() as db:
            expires = time.time() + self.holder_s
            db.execute("UPDATE holders SET expires = ? WHERE holder = ?", (expires, holder))

    def intend(self, holder: str) -> str:
        """A new lease, written down before the container is created that will carry it."""
        lease = uuid.uuid4().hex
        with self._open() as db:
            db.execute("INSERT INTO leases VALUES (?, ?)", (lease, holder))
        return lease

    def end(self, lease: str) -> None:
        """Its container is gone."""
        with self._open() as db:
            db.execute("DELETE FROM leases WHERE lease = ?", (lease,))

    def let_go(self, holder: str) -> None:
        """Forget a holder and its leases."""
        with self._open() as db:
            db.execute("DELETE FROM holders WHERE holder = ?", (holder,))

    def lives(self, lease: str) -> bool | None:
        """Whether the holder of a lease is alive; None = the lease is not in this ledger."""
        with self._open() as db:
            found = db.execute(
                "SELECT expires FROM leases JOIN holders USING (holder) WHERE lease = ?", (lease,)
            ).fetchone()
        return None if found is None else bool(found[0] > time.time())

    def holders(self) -> list[dict[str, Any]]:
        """Every holder: `holder`, `run`, `engine`, `pid`, `expires`, `lives`, `leases` (count)."""
        with self._open() as db:
            rows = db.execute(
                "SELECT holder, run, engine, pid, expires, count(lease) "
                "FROM holders LEFT JOIN leases USING (holder) GROUP BY holder ORDER BY holder"
            ).fetchall()
        names = ("holder", "run", "engine", "pid", "expires", "leases")
        return [
            dict(zip(names, row, strict=True)) | {"lives": row[4] > time.time()} for row in rows
        ]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection with one transaction, committed at the end of the block."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from error
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as db:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA synchronous = OFF")  # a machine that falls takes its containers
            for table in SCHEMA:
                db.execute(table)
            with db:
                yield db


class Guard:
    """A small process that renews our holder, and removes our containers if we are killed.

    A container that runs ends by itself when its stream does; the removal is for those that were
    created and not started yet.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.holder = uuid.uuid4().hex
        self.ledger = ledger
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, run: str, engine: str) -> None:
        """Enter the holder and start watching."""
        self.ledger.hold(self.holder, run=run, engine=engine)
        ledger, holder_s = str(self.ledger.path), str(self.ledger.holder_s)
        command = [sys.executable, "-P", __file__, ledger, holder_s, self.holder, engine]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
        )  # fmt: skip

    def dismiss(self) -> None:
        """Say goodbye: there is nothing to remove. Blocks for a moment."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(b"goodbye", timeout=5)
            self._process = None
            self.ledger.let_go(self.holder)


def _watch(path: str, holder_s: str, holder: str, engine: str) -> None:
    """Renew a holder until its process says goodbye or is gone."""
    ledger = Ledger(Path(path), holder_s=float(holder_s))
    while not select.select([sys.stdin], [], [], ledger.holder_s / BEATS)[0]:
        with contextlib.suppress(sqlite3.Error):  # a busy ledger; the next beat is soon
            ledger.renew(holder)
    if not sys.stdin.buffer.read():
        from rollmill.workspaces.reaper import remove_held  # heavy, and rarely needed

        remove_held(holder, engine)
        ledger.let_go(holder)


if __name__ == "__main__":
    _watch(*sys.argv[1:])
