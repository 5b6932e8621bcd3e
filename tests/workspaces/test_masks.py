"""What the host has that is nobody's business inside: planted, proven there, and not found."""

import contextlib
import ctypes
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rollmill.workspaces import EngineUnavailable, Provider, open_provider, opened
from rollmill.workspaces.conformance import SMALL, SPEC

PROBE = (Path(__file__).parent / "probe_masks.py").read_text()
ADD_KEY, KEYCTL, READ, REVOKE = 248, 250, 11, 3
SESSION_RING = -3
KINDS = ["bwrap", pytest.param("docker", marks=pytest.mark.docker)]


@dataclass(frozen=True, kw_only=True)
class Plants:
    """Where a mark lies on this host."""

    mark: str
    paths: tuple[str, ...]
    port: int
    key: int


def keyed(mark: str) -> int:
    """The mark in a key of our session; 0 where the kernel has no keys for us."""
    libc = ctypes.CDLL(None, use_errno=True)
    key = int(libc.syscall(ADD_KEY, b"user", b"plant", mark.encode(), len(mark), SESSION_RING))
    return max(key, 0)


def forget(key: int) -> None:
    ctypes.CDLL(None).syscall(KEYCTL, REVOKE, key)


def speaking(listener: socket.socket, mark: str) -> None:
    """Say the mark to everybody who connects, until the listener is shut."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as link:
                    link.sendall(mark.encode())

    threading.Thread(target=serve, daemon=True).start()


def folders_of_the_host() -> Iterator[Path]:
    for place in (Path.home(), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/run"),
                  Path("/etc"), Path("/opt"), Path("/srv"), Path("/var/lib")):  # fmt: skip
        if os.access(place, os.W_OK):
            yield place


@pytest.fixture
def plants(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plants]:
    mark = f"plant-{secrets.token_hex(16)}"
    key = keyed(mark)
    with contextlib.ExitStack() as stack:
        stack.callback(forget, key)
        paths = []
        for place in folders_of_the_host():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mask-", dir=place))
            Path(folder).chmod(0o755)
            file, address = Path(folder, "secret.txt"), f"{folder}/plant.sock"
            file.write_text(mark)
            file.chmod(0o644)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            Path(address).chmod(0o777)
            listener.listen()
            speaking(listener, mark)
            paths += [str(file), address]
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{mark[-8:]}.sock")
        abstract.listen()
        speaking(abstract, mark)
        loopback = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        speaking(loopback, mark)
        held = stack.enter_context(tempfile.TemporaryFile())
        held.write(mark.encode())
        held.flush()
        os.set_inheritable(held.fileno(), True)
        monkeypatch.setenv("PLANTED_SECRET", mark)
        paths.append(f"/{mark[-8:]}.sock")  # for the abstract one, by its name
        yield Plants(mark=mark, paths=tuple(paths), port=loopback.getsockname()[1], key=key)
        for listener in (abstract, loopback):
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(params=KINDS)
async def provider(request: pytest.FixtureRequest, plants: Plants) -> AsyncIterator[Provider]:
    provider = open_provider(request.param, run_id="masks")
    try:
        await provider.prepare(["python"])
    except EngineUnavailable as error:
        pytest.skip(str(error))
    yield provider
    await provider.close()


def question(plants: Plants) -> bytes:
    return "\n".join([plants.mark, str(plants.port), str(plants.key), *plants.paths]).encode()


async def test_no_secret_of_the_host_is_found_inside(provider: Provider, plants: Plants) -> None:
    spec = replace(SPEC, limits=replace(SMALL, output_bytes=1 << 20))
    async with opened(provider, spec) as workspace:
        result = await workspace.exec(
            ["python3", "-c", PROBE], stdin=question(plants), timeout_s=300
        )
    assert result.exit_code == 0, result
    assert json.loads(result.stdout) == []


def test_the_same_probe_finds_every_plant_from_the_host(plants: Plants) -> None:
    """Else the test above could not fail."""
    walk = PROBE.replace('os.walk("/", followlinks=False)', "()")  # the host's disk is not ours
    argv = [sys.executable, "-c", walk]
    done = subprocess.run(
        argv, input=question(plants), capture_output=True, close_fds=False, check=True
    )
    found = set(json.loads(done.stdout))
    expected = {"loopback", "environment", f"socket \0{plants.mark[-8:]}.sock"}
    expected |= {path for path in plants.paths if path.endswith(".txt")}
    expected |= {f"socket {path}" for path in plants.paths[:-1] if path.endswith(".sock")}
    expected |= {f"key {plants.key}"} if plants.key else set()
    assert expected <= found
    assert any(name.startswith("descriptor") for name in found)
