"""A Prefect server for the length of one command, unless the user runs one.

Prefect starts such a server by itself, but that one outlives a killed parent and writes to the
screen. Ours reads a pipe that closes when the parent dies, and logs to a file. Not for production:
set PREFECT_API_URL to a server of your own there.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

START_TIMEOUT_S = 180.0
ANSWER_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0


class NoOrchestrator(RuntimeError):
    """The Prefect server named by PREFECT_API_URL, or our own, does not answer."""


@contextmanager
def orchestrated(load: Callable[[], Any] = lambda: None) -> Iterator[Any]:
    """Inside the block Prefect has a server, its own home, and no voice on the screen.

    Enter it before Prefect is imported.

    Args:
        load: imports what the block needs, while the server starts; the block gets its result.

    Raises:
        NoOrchestrator: no server answers.
    """
    home = _configure_prefect()
    url = os.environ.get("PREFECT_API_URL")
    if url:
        _await_health(url, None, hint="start that server or unset PREFECT_API_URL")
        yield load()
        return
    os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")
    with socket.socket() as listener, (home / "start.lock").open("w") as lock:
        listener.bind(("127.0.0.1", 0))
        fcntl.flock(lock, fcntl.LOCK_EX)  # two servers would migrate one database at once
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        server = _start(listener, home / "server.log")
        os.environ["PREFECT_API_URL"] = url
        try:
            loaded = load()
            _await_health(url, server, hint=f"see {home / 'server.log'}")
            fcntl.flock(lock, fcntl.LOCK_UN)
            yield loaded
        finally:
            del os.environ["PREFECT_API_URL"]
            _stop(server)


def _configure_prefect() -> Path:
    home = Path(os.environ.setdefault("PREFECT_HOME", str(_default_home())))
    home.mkdir(parents=True, exist_ok=True)
    logging_config = Path(__file__).with_name("logging.yml")
    os.environ.setdefault("PREFECT_LOGGING_SETTINGS_PATH", str(logging_config))
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    return home


def _default_home() -> Path:
    return platformdirs.user_state_path("rollmill") / "prefect"


def _start(listener: socket.socket, log: Path) -> subprocess.Popen[bytes]:
    fd = listener.fileno()
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(fd)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(fd,),
            start_new_session=True,  # Ctrl-C is for us: we still have states to write
            env=os.environ | {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
        )


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.communicate(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.communicate()


def _await_health(url: str, server: subprocess.Popen[bytes] | None, *, hint: str) -> None:
    import httpx

    end = time.monotonic() + (START_TIMEOUT_S if server else 0.0)
    with httpx.Client(timeout=ANSWER_TIMEOUT_S) as client:
        while True:
            try:
                client.get(f"{url}/health").raise_for_status()
                return
            except httpx.HTTPError as error:
                dead = server is not None and server.poll() is not None
                if dead or time.monotonic() > end:
                    raise NoOrchestrator(
                        f"expected a Prefect server at {url}, got: {error}; {hint}"
                    ) from error
            time.sleep(0.1)


def _serve(fd: int) -> None:
    import uvicorn

    threading.Thread(target=_exit_with_parent, daemon=True).start()
    app = "prefect.server.api.server:create_app"
    uvicorn.run(app, factory=True, fd=fd, lifespan="on", log_config=None)


def _exit_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # empty once the parent's end of the pipe is closed
        pass
    os._exit(0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
