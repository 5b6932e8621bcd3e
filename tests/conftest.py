"""What every test stands on: a Prefect home of its own, and a look at what was left behind."""

import contextlib
import gc
import os
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rollmill.workspaces import EngineUnavailable, leftovers

from .engines import OwnEngine

GRACE_S = 10.0
"""How long a container may outlive what it was made for."""


@pytest.fixture(scope="session", autouse=True)
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prefect's database and logs of this session; the user's are not touched."""
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.setenv("DO_NOT_TRACK", "1")
        yield home


@pytest.fixture(scope="session")
def own_engines() -> Iterator[tuple[OwnEngine, OwnEngine]]:
    """Two daemons of our own, with the `python` image; a test that ends one starts it again.

    The second listens on TCP with TLS too.
    """
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("a daemon of our own needs root and dockerd (`rollmill doctor --fix`)")
    folders = [Path(tempfile.mkdtemp(prefix="dockerd-")) for _ in range(2)]
    engines = [OwnEngine(folders[0]), OwnEngine.with_tls(folders[1])]
    before = _interfaces()
    with ThreadPoolExecutor() as both:
        try:
            list(both.map(lambda engine: engine.start(), engines))
            list(both.map(lambda engine: engine.take_image("python"), engines))
            yield engines[0], engines[1]
        finally:
            list(both.map(lambda engine: engine.remove(), engines))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # sockets of the SDK to engines now gone
        gc.collect()
    after, ours = _interfaces(), {engine.bridge for engine in engines}
    assert before <= after, f"network interfaces of this machine are gone: {before - after}"
    assert not ours & after, f"bridges left behind: {ours & after}"


def _interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No container of ours is there at the end that was not there at the start.

    Looked at where the engine is this session's alone, as `make test` says it is.
    """
    if "ROLLMILL_OWN_ENGINE" not in os.environ:
        yield
        return
    before = _containers()
    yield
    give_up = time.monotonic() + GRACE_S
    while (left := _containers() - before) and time.monotonic() < give_up:
        time.sleep(0.5)
    assert not left, f"containers left behind: {left}"


def _containers() -> set[str]:
    with contextlib.suppress(EngineUnavailable):
        return set(leftovers())
    return set()
