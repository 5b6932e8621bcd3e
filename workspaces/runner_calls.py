"""What the host may ask of services: start, run in, log, send, stop. Part of the runner.

It is compiled when a service is first asked for; most workspaces have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .runner_services import Services, read_log, resize
from .runner_shell import SHELL, Turn

if TYPE_CHECKING:
    from .runner import Runner

Reply = tuple[dict[str, Any], bytes]


class ServiceCalls:
    """Answers for the services of one workspace."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.services = Services(runner.config)
        self.keepers, self.forget = self.services.keepers, self.services.forget

    def on_start(
        self, _: bytes, *, argv: list[str], env: dict[str, str], cwd: str, lifetime_s: float,
        size: list[int] | None, shell: bool,
    ) -> Reply:  # fmt: skip
        """Start a service. Its output goes to a log, a shell's to whom runs commands in it."""
        argv = SHELL if shell else argv
        try:
            started = self.services.start(
                argv, env, cwd, lifetime_s=lifetime_s, size=size, shell=shell
            )
        except OSError as error:
            text = f"cannot start {argv[0]!r} in {cwd!r}: {error.strerror}"
            return {"error": "not_started", "message": text}, b""
        return {"service": started.number}, b""

    def on_run(self, command: bytes, *, service: int, timeout_s: float) -> Reply:
        """Run one command in a shell that stays; the reply is that of an `exec`."""
        work, shell = self.runner.work(), self.services.all.get(service)
        if shell is None:
            work.err.add(b"the shell has ended\n")
            header, payload = work.outcome(-1, why="not_started")
            return {**header, "alive": False}, payload
        turn = Turn(shell, (work.out, work.err), work.spill)
        host, until = self.runner.requests.fileno(), work.started + timeout_s
        code, timed_out, alive = turn.run(command.decode(errors="surrogateescape"), until, host)
        if not alive:
            self._forget(service)
        header, payload = work.outcome(code, why="timed_out" if timed_out else None)
        return {**header, "alive": alive}, payload

    def on_log(self, _: bytes, *, service: int, offset: int, max_bytes: int) -> Reply:
        """How a service does, and what it wrote from an offset on."""
        state = self.services.find(service).state()  # before its log, so that none of it is missed
        start, data, end = read_log(service, offset, max_bytes)
        return {**state, "start": start, "end": end}, data

    def on_send(self, data: bytes, *, service: int, close: bool, size: list[int] | None) -> Reply:
        """Write to a service's input what it takes now; then close it, or set its terminal."""
        found = self.services.find(service)
        try:
            if size:
                resize(found.feed, *size)
            sent = found.send(data) if found.feed >= 0 else 0
        except OSError:  # it has ended, or closed its input
            return {"sent": 0, "closed": True}, b""
        if close:
            found.close_input()
        return {"sent": sent, "closed": found.feed < 0}, b""

    def on_stop(self, _: bytes, *, service: int) -> Reply:
        """End a service with all that descends from it; the reply says how it ended."""
        state = self.services.find(service).finish(0)
        self._forget(service)
        return state, b""

    def _forget(self, service: int) -> None:
        self.services.all.pop(service).forget()
