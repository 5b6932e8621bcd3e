"""Finding a Docker Engine, and bringing one up where we may. Touches no engine that answers."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

from .dialling import ENGINES_VARIABLE, address_of, addresses, way_to
from .errors import EngineUnavailable
from .tunnel import reached

log = logging.getLogger(__name__)

DEBIAN_PACKAGES = ("docker.io", "mmdebstrap", "bubblewrap")
START_S = 60.0
KNOCK_S = 5.0
ENGINE_ERRORS = (docker.errors.DockerException, requests.RequestException, OSError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that works on this machine, or does not."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    """What to do about it, as a command or a sentence; empty when `ok`."""


class _Client(docker.APIClient):
    """An SDK client that takes certificates and proxies from nobody's environment but its own."""

    @property
    def trust_env(self) -> bool:
        """Never: REQUESTS_CA_BUNDLE would win over the authority of the engine."""
        return False

    @trust_env.setter
    def trust_env(self, _: bool) -> None:
        """What `requests` sets at its start is passed over."""


def connect(engine: str = "") -> tuple[docker.APIClient, dict[str, Any]]:
    """A client of the engine at an address (see `address_of`) and the engine's facts.

    Raises:
        EngineUnavailable: none answers.
    """
    address = address_of(engine)
    try:
        knock(address)
        way = way_to(address)
        client = _Client(base_url=way.url, tls=way.tls() or False, version="auto", timeout=120)
        return client, client.info()
    except ENGINE_ERRORS as error:
        raise EngineUnavailable(
            f"no Docker Engine answers at {address}: {error}. "
            "Run `rollmill doctor --fix`, or use `--workspace bwrap`"
        ) from error


def knock(address: str) -> None:
    """Fail early where nobody listens: the SDK would leave an open socket behind."""
    way = way_to(address)
    if way.path:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(way.path)
    else:
        socket.create_connection((way.host, way.port), timeout=KNOCK_S).close()


def ensure_engine(*, fix: bool = False) -> Finding:
    """Is an engine answering? With `fix`, install and start one where that is allowed. Blocks."""
    finding = _answering()
    if finding.ok or not fix:
        return finding
    if not _may_install():
        return finding
    missing = [p for p in DEBIAN_PACKAGES if shutil.which(_PROGRAMS[p]) is None]
    try:
        if missing:
            log.info("installing %s", ", ".join(missing))
            _run(["apt-get", "update", "-q"])
            _run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing])
        _start_daemon()
    except EngineUnavailable as error:
        return Finding(name="engine", ok=False, detail=str(error), fix=_ADVICE)
    return _answering()


_PROGRAMS = {"docker.io": "dockerd", "mmdebstrap": "mmdebstrap", "bubblewrap": "bwrap"}
_ADVICE = (
    "install Docker Engine (Debian: apt-get install docker.io mmdebstrap bubblewrap), start it"
)


def _answering() -> Finding:
    found, failures = [], []
    for engine in addresses():
        try:
            with reached(engine) as address:
                client, info = connect(address)
        except EngineUnavailable as error:
            failures.append(str(error))
        else:
            client.close()
            found.append(f"Docker Engine {info['ServerVersion']}")
    if not found:
        fix = "rollmill doctor --fix" if _may_install() else _ADVICE
        return Finding(name="engine", ok=False, detail="; ".join(failures), fix=fix)
    return Finding(name="engine", ok=True, detail="; ".join([*found, *failures]))


def _may_install() -> bool:
    local = not {"DOCKER_HOST", ENGINES_VARIABLE} & os.environ.keys()
    return local and os.geteuid() == 0 and shutil.which("apt-get") is not None


def _run(command: list[str]) -> None:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = (done.stdout + done.stderr)[-2000:]
        raise EngineUnavailable(f"`{' '.join(command)}` failed:\n{tail}")


def _start_daemon() -> None:
    """Start `dockerd` so that it outlives us, and wait until it answers."""
    program = shutil.which("dockerd")
    if program is None:
        raise EngineUnavailable("dockerd is not installed")
    log_file = Path("/var/log/dockerd.log")
    log.info("starting dockerd; its log is %s", log_file)
    with log_file.open("ab") as out:
        daemon = subprocess.Popen(
            [program], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up:
        if _answering().ok:
            return
        if daemon.poll() is not None:
            break
        time.sleep(0.3)
    tail = log_file.read_text(errors="replace")[-2000:]
    raise EngineUnavailable(f"dockerd did not answer within {START_S:g} s; its log ends:\n{tail}")
