"""Docker daemons of the tests' own: with their own data, started and ended by the test session."""

import contextlib
import fcntl
import hashlib
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

from rollmill.workspaces import EngineUnavailable, images
from rollmill.workspaces.engine import connect

UP_S = 60.0
ADD_BRIDGE, REMOVE_BRIDGE, SET_FLAGS = 0x89A0, 0x89A1, 0x8914
"""SIOCBRADDBR, SIOCBRDELBR and SIOCSIFFLAGS of <linux/sockios.h>."""


class OwnEngine:
    """A `dockerd` below a folder; it has what the `python` image of this machine's engine holds.

    Args:
        flags: more of the daemon's options, such as another `--host`.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder, self.flags = folder, flags
        self.bridge = f"rollmill{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"
        self.address = f"unix://{folder}/docker.sock"
        self.tls_address = ""
        self._daemon: subprocess.Popen[bytes] | None = None

    @classmethod
    def with_tls(cls, folder: Path) -> "OwnEngine":
        """One that listens on TCP too, to those who hold the certificates in `folder/certs`."""
        certs = folder / "certs"
        make_certificates(certs)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        engine = cls(
            folder, "--host", f"tcp://127.0.0.1:{port}", "--tlsverify",
            "--tlscacert", f"{certs}/ca.pem", "--tlscert", f"{certs}/server-cert.pem",
            "--tlskey", f"{certs}/server-key.pem",
        )  # fmt: skip
        engine.tls_address = f"tcp://127.0.0.1:{port}?certs={certs}"
        return engine

    def start(self) -> None:
        """Start the daemon on a bridge of its own: one without any would remove `docker0`."""
        if not self._bridged():
            _ask_kernel(ADD_BRIDGE, f"{self.bridge}\0".encode())
        command = [
            "dockerd", "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec",
            "--pidfile", f"{self.folder}/pid", "--host", self.address,
            "--bridge", self.bridge, "--iptables=false", "--ip-masq=false", *self.flags,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        give_up = time.monotonic() + UP_S
        while time.monotonic() < give_up and self._daemon.poll() is None:
            with contextlib.suppress(EngineUnavailable):
                client, _ = connect(self.address)
                client.close()
                return
            time.sleep(0.1)
        raise AssertionError(f"no engine: {(self.folder / 'log').read_text()[-3000:]}")

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(UP_S)
            self._daemon = None

    def remove(self) -> None:
        self.stop()
        if self._bridged():
            _ask_kernel(SET_FLAGS, struct.pack("16sh22x", self.bridge.encode(), 0))  # down
            _ask_kernel(REMOVE_BRIDGE, f"{self.bridge}\0".encode())
        shutil.rmtree(self.folder)

    def _bridged(self) -> bool:
        return self.bridge in (name for _, name in socket.if_nameindex())

    def take_image(self, name: str) -> None:
        """Copy an image from this machine's engine."""
        theirs, _ = connect()
        ours, _ = connect(self.address)
        with contextlib.closing(theirs), contextlib.closing(ours):
            images.ensure(theirs, name)
            ours.load_image(theirs.get_image(images.tag_of(name)))  # type: ignore[no-untyped-call]

    def commands(self) -> list[str]:
        """What runs in its containers now."""
        client, _ = connect(self.address)
        with contextlib.closing(client):
            rows = [
                row
                for container in client.containers()
                for row in client.top(container["Id"], ps_args="-o pid,args")["Processes"]
            ]
        return [str(row[-1]) for row in rows]

    def containers(self) -> list[dict[str, Any]]:
        client, _ = connect(self.address)
        with contextlib.closing(client):
            return list(client.containers(all=True))


def _ask_kernel(request: int, argument: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, request, argument)


def make_certificates(folder: Path) -> None:
    """An authority of our own, and what it signed for a server at 127.0.0.1 and for a client."""
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    for name, prefix, use in (("server", "server-", "serverAuth"), ("client", "", "clientAuth")):
        (folder / "ext").write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={use}\n")
        openssl("req", *key, "-keyout", f"{prefix}key.pem", "-out", "csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem",
                "-CAcreateserial", "-out", f"{prefix}cert.pem", "-days", "2",
                "-extfile", "ext")  # fmt: skip
