"""An engine behind ssh is an engine like any other, and its tunnel ends with us."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollmill.workspaces import EngineUnavailable, opened
from rollmill.workspaces.conformance import SPEC
from rollmill.workspaces.docker import DockerProvider
from rollmill.workspaces.tunnel import Tunnel

from .engines import OwnEngine

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.docker


@pytest.fixture
def ssh_address(
    own_engines: tuple[OwnEngine, OwnEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """An ssh server of our own that lets us in to the first engine's socket, by key."""
    if SSHD is None:
        pytest.skip("needs an ssh server (Debian: apt-get install openssh-server)")
    for name in ("host", "mine"):
        subprocess.run(
            ["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", tmp_path / name], check=True
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {tmp_path}/host\nPidFile none\n"
        f"AuthorizedKeysFile {tmp_path}/mine.pub\nStrictModes no\nUsePAM no\n"
    )
    (tmp_path / "passwd").write_text("mill:x:1000:1000::/tmp:/bin/sh\n")
    command = [
        "bwrap", "--bind", "/", "/", "--dev", "/dev", "--uid", "1000", "--gid", "1000",
        "--unshare-user", "--ro-bind", str(tmp_path / "passwd"), "/etc/passwd",
        "--die-with-parent", SSHD, "-D", "-e", "-f", str(tmp_path / "sshd_config"),
    ]  # fmt: skip
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "ssh"
    wrapper.write_text(
        f"#!/bin/sh\nexec {shutil.which('ssh')} -F none -i {tmp_path}/mine "
        '-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    said = (tmp_path / "log").read_bytes
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: b"Server listening" in said() or server.poll() is not None)
        assert server.poll() is None, said()
        path = own_engines[0].address.removeprefix("unix://")
        yield f"ssh://mill@127.0.0.1:{port}{path}"
    finally:
        server.terminate()
        server.wait()


def wait_for(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.05)


async def test_a_workspace_opens_behind_ssh_and_the_tunnel_ends(ssh_address: str) -> None:
    provider = DockerProvider(engine=ssh_address)
    async with opened(provider, SPEC) as workspace:
        assert (await workspace.exec(["cat", "seed.txt"])).stdout == "seed\n"
        assert tunnels(ssh_address)
    await provider.close()
    assert not tunnels(ssh_address)


HOST = """
import sys, time
from rollmill.workspaces.tunnel import Tunnel
tunnel = Tunnel(sys.argv[1])
print(tunnel.open(), flush=True)
time.sleep(600)
"""


def test_a_tunnel_ends_with_its_killed_host(ssh_address: str) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, ssh_address], stdout=subprocess.PIPE, text=True, cwd="/"
    )
    assert host.stdout is not None
    with host.stdout:
        folder = Path(host.stdout.readline().strip().removeprefix("unix://")).parent
        assert tunnels(ssh_address)
        host.send_signal(signal.SIGKILL)
        host.wait()
    wait_for(lambda: not tunnels(ssh_address))
    shutil.rmtree(folder)


def test_a_host_that_does_not_answer_says_what_ssh_said() -> None:
    with pytest.raises(EngineUnavailable, match="Connection refused"):
        Tunnel("ssh://mill@127.0.0.1:1").open()


def tunnels(address: str) -> list[str]:
    """The ssh processes that serve an address."""
    remote = "/" + address.partition("@")[2].partition("/")[2]
    seen = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"ssh") and any(w.endswith(f":{remote}".encode()) for w in words):
            seen.append(file.parent.name)
    return seen
