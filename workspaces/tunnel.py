"""An engine behind ssh, brought to a unix socket here by the `ssh` program. Stores no password."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from .errors import EngineUnavailable

UP_S = 30.0
REMOTE_SOCKET = "/var/run/docker.sock"


@contextlib.contextmanager
def reached(engine: str) -> Iterator[str]:
    """An address at which an engine can be dialled from here, through a tunnel where it needs one.

    Raises: as `Tunnel.open`.
    """
    with contextlib.ExitStack() as stack:
        tunnelled = engine.startswith("ssh:")
        yield stack.enter_context(Tunnel(engine).opened()) if tunnelled else engine


class Tunnel:
    """A forwarded socket. `ssh` must get in without asking: by key, by agent, by its own config.

    It ends when we do, however that is: what it runs over there reads our end of a pipe.

    Args:
        address: `ssh://[USER@]HOST[:PORT][/SOCKET]`.
        options: more words for the `ssh` command line.
    """

    def __init__(self, address: str, *, options: tuple[str, ...] = ()) -> None:
        self.address, self.options = address, options
        self._folder = ""
        self._ssh: subprocess.Popen[bytes] | None = None

    def open(self) -> str:
        """Start it, or again when it has broken; returns the local `unix://` address. Blocks.

        Raises:
            EngineUnavailable: ssh did not get through; its last words are in the message.
        """
        if self._ssh is not None and self._ssh.poll() is None:
            return f"unix://{self._folder}/docker.sock"
        self._folder = self._folder or tempfile.mkdtemp(prefix="rollmill-ssh-")
        local = Path(self._folder) / "docker.sock"
        local.unlink(missing_ok=True)
        log = Path(self._folder) / "log"
        with log.open("wb") as words:
            self._ssh = subprocess.Popen(
                self._command(str(local)), stdin=subprocess.PIPE, stdout=words, stderr=words
            )
        give_up = time.monotonic() + UP_S
        while time.monotonic() < give_up and self._ssh.poll() is None:
            if local.exists():
                return f"unix://{local}"
            time.sleep(0.05)
        said = log.read_text(errors="replace").strip()[-500:]
        self.close()
        raise EngineUnavailable(
            f"expected a tunnel to {self.address}, ssh says: {said or 'nothing'}; "
            f"try `ssh {urlsplit(self.address).netloc} docker version`"
        )

    @contextlib.contextmanager
    def opened(self) -> Iterator[str]:
        """The local address, for the length of a `with` block."""
        try:
            yield self.open()
        finally:
            self.close()

    def _command(self, local: str) -> list[str]:
        parts = urlsplit(self.address)
        remote = parts.path if parts.path.strip("/") else REMOTE_SOCKET
        user = f"{parts.username}@" if parts.username else ""
        port = ["-p", str(parts.port)] if parts.port else []
        return [
            "ssh", "-T", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes",
            "-o", "ServerAliveInterval=15", *port, *self.options,
            "-L", f"{local}:{remote}", f"{user}{parts.hostname}", "cat > /dev/null",
        ]  # fmt: skip

    def close(self) -> None:
        """End it. Safe to call twice."""
        if self._ssh is not None:
            assert self._ssh.stdin is not None
            self._ssh.stdin.close()
            self._ssh.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._ssh.wait(5)
            self._ssh = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""
