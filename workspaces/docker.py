"""Workspaces as containers of a Docker Engine: the runner is process 1, its stream the link.

The engine may be remote (`DOCKER_HOST` with unix:// or tcp://); TLS and ssh addresses are not
supported because their sockets cannot be handed to an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import docker
import docker.errors

from . import images
from .channel import RunnerWorkspace, runner_argv
from .engine import ENGINE_ERRORS, connect
from .errors import EngineUnavailable
from .types import WORKDIR, WorkspaceSpec

LABEL = "rollmill"
RUN_LABEL = "rollmill.run"
OWNER_LABEL = "rollmill.owner"
RUNNER_CAPABILITIES = ("SETUID", "SETGID", "KILL", "CHOWN")
REMOVAL_S = 15

Result = TypeVar("Result")


class DockerProvider:
    """Opens workspaces on one Docker Engine. One instance belongs to one event loop."""

    name = "docker"
    isolation_gaps: tuple[str, ...] = ()

    def __init__(self, *, run_id: str = "") -> None:
        """Args:
        run_id: stands in the label of each container, so that a run's own can be found.
        """
        self.run_id = run_id
        self._client: docker.APIClient | None = None
        self._connecting = asyncio.Lock()
        self._guard = Guard()
        self._pending: set[asyncio.Task[Any]] = set()
        self._cpus = 1.0
        self._images: dict[str, str] = {}
        self._open: set[RunnerWorkspace] = set()

    async def prepare(self, names: Sequence[str]) -> dict[str, str]:
        """See `Provider.prepare`."""
        client = await self._connected()
        for name in names:
            if name not in self._images:
                self._images[name] = await asyncio.to_thread(images.ensure, client, name)
        return {name: self._images[name] for name in names}

    def expect(self, spec: WorkspaceSpec, times: int) -> None:
        """See `Provider.expect`; preparing is for a pool."""

    async def open(self, spec: WorkspaceSpec, *, fresh: bool = False) -> RunnerWorkspace:
        """See `Provider.open`; every one is fresh."""
        image = (await self.prepare([spec.image]))[spec.image]
        client = await self._connected()
        starting = self._background(asyncio.to_thread(self._start, client, spec, image))
        try:
            container, link = await asyncio.shield(starting)
            workspace = await self._attach(client, spec, container, link)
        except asyncio.CancelledError:
            self._background(_abandon(client, starting))
            raise
        self._open.add(workspace)
        try:
            await workspace.start()
        except BaseException:
            await workspace.close()
            raise
        return workspace

    async def close(self) -> None:
        """See `Provider.close`."""
        while self._pending:  # what starts may have to be abandoned
            await asyncio.gather(*self._pending, return_exceptions=True)
        await asyncio.gather(*(workspace.close() for workspace in list(self._open)))
        if self._client is not None:
            self._client.close()
            self._client = None
            await asyncio.to_thread(self._guard.dismiss)

    def _background(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """A task that `close` waits for."""
        task = asyncio.create_task(work)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return task

    async def _connected(self) -> docker.APIClient:
        async with self._connecting:
            if self._client is None:
                client, info = await asyncio.to_thread(connect)
                self._client, self._cpus = client, float(info["NCPU"])
                self._guard.start()
            return self._client

    def _start(
        self, client: docker.APIClient, spec: WorkspaceSpec, image: str
    ) -> tuple[str, socket.socket]:
        """Create, attach, start: in this order no byte of the runner is lost. Blocks."""
        container = ""
        try:
            container = client.create_container(
                image,
                command=runner_argv(spec.limits),
                user="0:0",
                working_dir=WORKDIR,
                environment={},
                stdin_open=True,
                network_disabled=True,
                labels={LABEL: "1", RUN_LABEL: self.run_id, OWNER_LABEL: self._guard.owner},
                host_config=client.create_host_config(**self._host_config(spec)),
            )["Id"]
            link = _attached(client, container)
            client.start(container)
            return container, link
        except BaseException as error:  # a created container would stay for ever
            if container:
                _remove(client, container)
            if isinstance(error, ENGINE_ERRORS):
                raise EngineUnavailable(
                    f"the engine could not start a container: {error}"
                ) from error
            raise

    def _host_config(self, spec: WorkspaceSpec) -> Mapping[str, Any]:
        limits = spec.limits
        owned = "exec,nosuid,nodev,mode=0755,uid=1000,gid=1000"
        return {
            "auto_remove": True,
            "read_only": True,
            "network_mode": "none",
            "log_config": {"Type": "none", "Config": {}},
            "cap_drop": ["ALL"],
            "cap_add": list(RUNNER_CAPABILITIES),
            "security_opt": ["no-new-privileges"],
            "mem_limit": limits.memory_bytes,
            "memswap_limit": limits.memory_bytes,
            "shm_size": min(limits.tmp_bytes, 64 << 20),
            "pids_limit": limits.pids,
            "nano_cpus": int(min(limits.cpus, self._cpus) * 1e9),
            "tmpfs": {
                WORKDIR: f"{owned},size={limits.workspace_bytes}",
                "/home/agent": f"{owned},size={limits.tmp_bytes}",
                "/tmp": f"exec,nosuid,nodev,mode=1777,size={limits.tmp_bytes}",
            },
        }

    async def _attach(
        self, client: docker.APIClient, spec: WorkspaceSpec, container: str, link: socket.socket
    ) -> RunnerWorkspace:
        raw, writer = await asyncio.open_connection(sock=link)
        stdout, stderr = asyncio.StreamReader(), bytearray()
        pump = asyncio.create_task(_demultiplex(raw, stdout, stderr))

        async def remove() -> None:
            await asyncio.to_thread(_await_removal, client, container)
            await pump
            self._open.discard(workspace)

        workspace = RunnerWorkspace(
            spec,
            stdout,
            writer,
            remove=remove,
            last_words=lambda: stderr.decode(errors="replace"),
        )
        return workspace


class Guard:
    """A small process that removes our containers if we are killed.

    A container that runs ends by itself when its stream does; this one is for those that were
    created and not started yet.
    """

    def __init__(self) -> None:
        self.owner = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start watching; the guard sleeps on a pipe until we say goodbye or are gone."""
        program = (
            "import sys\n"
            "if not sys.stdin.buffer.read():\n"
            f"    from {__name__} import remove_owned\n"
            f"    remove_owned({self.owner!r})\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
        )  # fmt: skip

    def dismiss(self) -> None:
        """Say goodbye: there is nothing to remove. Blocks for a moment."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(b"goodbye", timeout=5)
            self._process = None


def remove_owned(owner: str) -> None:
    """Remove the containers of one provider, twice: a last request may still be under way."""
    client, _ = connect()
    with contextlib.closing(client):
        for _ in range(2):
            for found in client.containers(all=True, filters={"label": f"{OWNER_LABEL}={owner}"}):
                _remove(client, found["Id"])
            time.sleep(1)


def _attached(client: docker.APIClient, container: str) -> socket.socket:
    """A socket of our own on the container's standard streams."""
    params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    answer = client.attach_socket(container, params)
    try:
        return socket.socket(fileno=os.dup(answer.fileno()))
    finally:
        answer._response.close()  # gives the connection back; our duplicate stays open


async def _abandon(
    client: docker.APIClient, starting: asyncio.Task[tuple[str, socket.socket]]
) -> None:
    """Remove the container of an opening that nobody waits for any more."""
    with contextlib.suppress(EngineUnavailable):
        container, link = await starting
        link.close()
        await asyncio.to_thread(_remove, client, container)


def _remove(client: docker.APIClient, container: str) -> None:
    """Remove a container at once; it may be on its way out already. Blocks."""
    with contextlib.suppress(*ENGINE_ERRORS):
        client.remove_container(container, force=True)


async def _demultiplex(
    raw: asyncio.StreamReader, stdout: asyncio.StreamReader, stderr: bytearray
) -> None:
    """Split the engine's frames: [stream, 0, 0, 0, length (4 bytes, big-endian)] + bytes."""
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        while True:
            stream, size = struct.unpack(">BxxxI", await raw.readexactly(8))
            data = await raw.readexactly(size)
            if stream == 1:
                stdout.feed_data(data)
            else:
                stderr += data
                del stderr[:-4096]
    stdout.feed_eof()


def _await_removal(client: docker.APIClient, container: str) -> None:
    """Wait until a container whose stream is closed has removed itself; else remove it. Blocks."""
    try:
        client.wait(container, timeout=REMOVAL_S, condition="removed")
    except docker.errors.NotFound:
        return
    except ENGINE_ERRORS:
        _remove(client, container)


def leftovers(run_id: str | None = None) -> list[str]:
    """Names of our containers that exist now; of one run, or of all when `run_id` is None.

    Raises:
        EngineUnavailable: no engine answers.
    """
    label = LABEL if run_id is None else f"{RUN_LABEL}={run_id}"
    client, _ = connect()
    with contextlib.closing(client):
        found = client.containers(all=True, filters={"label": label})
    return sorted(container["Names"][0].lstrip("/") for container in found)
