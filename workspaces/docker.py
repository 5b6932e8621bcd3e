"""Workspaces as containers of a Docker Engine: the runner is process 1, its stream the link.

The engine may be anywhere that `dialling.py` and `tunnel.py` reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import docker
import docker.errors
from docker.types import Mount

from . import images
from .channel import RunnerWorkspace
from .container import first_process, host_settings
from .dialling import address_of, attach, way_to
from .engine import ENGINE_ERRORS, connect, knock
from .errors import EngineUnavailable
from .foreign import Foreign, fitted, is_foreign
from .ledger import LEDGER_ERRORS, Guard, Ledger
from .network import PROXY_ENV, equip
from .places import copied
from .proxy import pins_of_environment, way_out
from .reaper import default_ledger, held, labels, reap, remove
from .tunnel import Tunnel
from .types import WORKDIR, WorkspaceSpec

log = logging.getLogger(__name__)

REMOVAL_S = 15
RETURN_S = 60.0
"""How long an engine that answered before may take to come back, as at its restart."""

Result = TypeVar("Result")
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class DockerProvider:
    """Opens workspaces on one Docker Engine. One instance belongs to one event loop."""

    name = "docker"
    networks = True
    isolation_gaps: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        run_id: str = "",
        engine: str = "",
        ledger: Ledger | None = None,
        patience_s: float = RETURN_S,
    ) -> None:
        """Args:
        run_id: stands in the label of each container, so that a run's own can be found.
        engine: its address; empty = `DOCKER_HOST`, else the local one.
        ledger: where ownership is written down; None = this user's.
        patience_s: how long to wait for an engine that answered before.
        """
        self.run_id, self.engine, self.cpus = run_id, address_of(engine), 1.0
        self._patience_s = patience_s
        self._tunnel = Tunnel(self.engine) if self.engine.startswith("ssh:") else None
        self._address = self.engine
        """Where the engine is reached from here; differs from `engine` behind a tunnel."""
        self._ledger = ledger or default_ledger()
        self._client: docker.APIClient | None = None
        self._connecting = asyncio.Lock()
        self._guard = Guard(self._ledger)
        self._pins = pins_of_environment()
        self._pending: set[asyncio.Task[Any]] = set()
        self._images: dict[str, str] = {}
        self._fitting = asyncio.Lock()
        self._foreign: dict[str, Foreign] = {}
        self._places: dict[tuple[str, tuple[str, ...]], tuple[Mount, ...]] = {}
        self._open: set[RunnerWorkspace] = set()

    async def prepare(self, names: Sequence[str]) -> dict[str, str]:
        """See `Provider.prepare`."""
        client = await self._connected()
        missing = [name for name in dict.fromkeys(names) if name not in self._images]
        if missing:
            self._images |= await asyncio.to_thread(images.ensure_all, client, missing)
        return {name: self._images[name] for name in names}

    def expect(self, spec: WorkspaceSpec, times: int) -> None:
        """See `Provider.expect`; preparing is for a pool."""

    async def adopt(self, name: str, maker: DockerProvider) -> None:
        """Have the same image as another provider, copied from its engine when it is not here.

        Raises:
            EngineUnavailable: one of the two engines does not answer.
        """
        digest = (await maker.prepare([name]))[name]
        ours, theirs = await self._connected(), await maker._connected()
        try:
            await asyncio.to_thread(images.copy, theirs, ours, name, digest)
        except ENGINE_ERRORS as error:
            raise EngineUnavailable(f"could not copy {name} to {self.engine}: {error}") from error
        self._images[name] = digest

    def has(self, name: str, digest: str) -> bool:
        """Whether an image is known to be here in this very build."""
        return self._images.get(name) == digest

    @property
    def load(self) -> float:
        """Workspaces per CPU of its engine, those that are being opened included."""
        return (len(self._open) + len(self._pending)) / self.cpus

    async def open(self, spec: WorkspaceSpec, *, fresh: bool = False) -> RunnerWorkspace:
        """See `Provider.open`; every one is fresh."""
        image = (await self.prepare([spec.image]))[spec.image]
        client = await self._connected()
        if is_foreign(spec.image):
            await self._fit(client, spec.image, image)
        if spec.writable:
            await self._copy_places(client, spec, image)
        try:
            workspace = await self._started(client, spec, image)
        except EngineUnavailable:
            if not await self._answers_again(client):
                raise
            workspace = await self._started(client, spec, image)
        try:
            await workspace.begin()
            await equip(workspace)
        except BaseException:
            await workspace.close()
            raise
        return workspace

    async def _fit(self, client: docker.APIClient, name: str, image: str) -> None:
        """Find out, once, what it takes to run an image that others made."""
        async with self._fitting:
            if name in self._foreign:
                return
            async with self._owning() as owner:
                self._foreign[name] = await asyncio.to_thread(fitted, client, image, owner)
        log.warning(
            "%s is not an image of ours: its runner uses a Python of ours, which commands can see "
            "but not change; what runs in it is only as good as the image", name
        )  # fmt: skip

    async def _copy_places(self, client: docker.APIClient, spec: WorkspaceSpec, image: str) -> None:
        """Have the engine copy, once, the folders of an image that commands may change."""
        async with self._fitting:
            if (spec.image, spec.writable) in self._places:
                return
            async with self._owning() as owner:
                self._places[spec.image, spec.writable] = await asyncio.to_thread(
                    copied, client, image, spec.writable, owner
                )

    @contextlib.asynccontextmanager
    async def _owning(self) -> AsyncIterator[Mapping[str, str]]:
        """Labels of a container that is made and removed within the block."""
        lease = await asyncio.to_thread(self._ledger.intend, self._guard.holder)
        try:
            yield self._labels(lease, REMOVAL_S)
        finally:
            await asyncio.to_thread(self._ledger.end, lease)

    def _labels(self, lease: str, lifetime_s: float) -> dict[str, str]:
        holder = self._guard.holder
        return labels(run=self.run_id, holder=holder, lease=lease, lifetime_s=lifetime_s)

    async def _started(
        self, client: docker.APIClient, spec: WorkspaceSpec, image: str
    ) -> RunnerWorkspace:
        """A workspace whose container runs. An opening that is cancelled leaves none."""
        starting = self._background(self._start(client, spec, image))
        try:
            container, lease, streams = await asyncio.shield(starting)
            workspace = self._workspace(client, spec, container, lease, streams)
        except asyncio.CancelledError:
            self._background(self._abandon(client, starting))
            raise
        self._open.add(workspace)
        return workspace

    async def _answers_again(self, client: docker.APIClient) -> bool:
        """Wait for an engine that answered before: it may be restarting."""
        give_up = time.monotonic() + self._patience_s
        while time.monotonic() < give_up:
            with contextlib.suppress(EngineUnavailable, *ENGINE_ERRORS):
                if self._tunnel is not None:
                    await asyncio.to_thread(self._tunnel.open)
                await asyncio.to_thread(knock, self._address)
                await asyncio.to_thread(client.ping)
                return True
            await asyncio.sleep(0.5)
        return False

    async def close(self) -> None:
        """See `Provider.close`."""
        while self._pending:  # what starts may have to be abandoned
            await asyncio.gather(*self._pending, return_exceptions=True)
        await asyncio.gather(*(workspace.close() for workspace in list(self._open)))
        if self._client is not None:
            client, self._client = self._client, None
            await asyncio.to_thread(self._leave, client)
        if self._tunnel is not None:
            self._tunnel.close()

    def _leave(self, client: docker.APIClient) -> None:
        """Remove what an engine in trouble may have kept, and let go. Blocks."""
        with contextlib.suppress(*ENGINE_ERRORS):
            for container in held(client, self._guard.holder):
                remove(client, container)
        client.close()
        self._guard.dismiss()

    def _background(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """A task that `close` waits for."""
        task = asyncio.create_task(work)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return task

    async def _connected(self) -> docker.APIClient:
        async with self._connecting:
            if self._client is None:
                if self._tunnel is not None:
                    self._address = await asyncio.to_thread(self._tunnel.open)
                client, info = await asyncio.to_thread(connect, self._address)
                try:
                    self._guard.start(run=self.run_id, engine=self.engine)
                except LEDGER_ERRORS as error:
                    client.close()
                    raise _no_ledger(self._ledger, error) from error
                self._client, self.cpus = client, float(info["NCPU"])
                self._background(self._reap(client))
            return self._client

    async def _reap(self, client: docker.APIClient) -> None:
        """Remove what dead runs left on this engine; that it cannot be done stops nobody."""
        with contextlib.suppress(*ENGINE_ERRORS, *LEDGER_ERRORS):
            await asyncio.to_thread(reap, client, self._ledger, engine=self.engine)

    async def _start(
        self, client: docker.APIClient, spec: WorkspaceSpec, image: str
    ) -> tuple[str, str, Streams]:
        """Write down the intent, then create, attach, start: so no byte is lost."""
        container, streams = "", None
        try:
            lease = await asyncio.to_thread(self._ledger.intend, self._guard.holder)
            container = await asyncio.to_thread(self._create, client, spec, image, lease)
            streams = await attach(way_to(self._address), container)
            await asyncio.to_thread(client.start, container)
            return container, lease, streams
        except BaseException as error:  # a created container would stay for ever
            if streams is not None:
                streams[1].close()
            if container:
                await asyncio.to_thread(remove, client, container)
            if isinstance(error, LEDGER_ERRORS):
                raise _no_ledger(self._ledger, error) from error
            if isinstance(error, ENGINE_ERRORS):
                raise EngineUnavailable(
                    f"the engine could not start a container: {error}"
                ) from error
            raise

    def _create(self, client: docker.APIClient, spec: WorkspaceSpec, image: str, lease: str) -> str:
        """A container that is not started yet. Blocks."""
        knock(self._address)
        foreign = self._foreign.get(spec.image)
        copies = self._places.get((spec.image, spec.writable), ())
        made = client.create_container(
            image,
            command=first_process(spec, foreign),
            user="0:0",
            working_dir=WORKDIR,
            stdin_open=True,
            network_disabled=True,
            stop_signal="SIGKILL",  # the engine's own shutdown waits for nothing else
            labels=self._labels(lease, spec.limits.lifetime_s),
            host_config=client.create_host_config(
                **host_settings(spec, foreign, copies, self.cpus)
            ),
            **(foreign.overrules if foreign else {}),
        )
        return str(made["Id"])

    async def _abandon(
        self,
        client: docker.APIClient,
        starting: asyncio.Task[tuple[str, str, Streams]],
    ) -> None:
        """Remove the container of an opening that nobody waits for any more."""
        with contextlib.suppress(EngineUnavailable):
            container, lease, streams = await starting
            streams[1].close()
            await asyncio.to_thread(remove, client, container)
            await asyncio.to_thread(self._ledger.end, lease)

    def _workspace(
        self,
        client: docker.APIClient,
        spec: WorkspaceSpec,
        container: str,
        lease: str,
        streams: Streams,
    ) -> RunnerWorkspace:
        raw, writer = streams
        stdout, stderr = asyncio.StreamReader(), bytearray()
        pump = asyncio.create_task(_demultiplex(raw, stdout, stderr))
        carriage = way_out(spec, stdout, writer, self._pins)
        foreign = self._foreign.get(spec.image)

        async def remove() -> None:
            await asyncio.to_thread(_await_removal, client, container)
            await asyncio.to_thread(self._ledger.end, lease)
            await pump
            if carriage:
                await carriage.closed()
            self._open.discard(workspace)

        workspace = RunnerWorkspace(
            spec,
            carriage.control if carriage else stdout,
            carriage or writer,
            remove=remove,
            env={**(foreign.env if foreign else {}), **(PROXY_ENV if carriage else {})},
            last_words=lambda: stderr.decode(errors="replace"),
        )
        return workspace


def _no_ledger(ledger: Ledger, error: Exception) -> EngineUnavailable:
    return EngineUnavailable(
        f"expected to write who owns what to {ledger.path}, got: {error}; "
        "set XDG_STATE_HOME to a folder that can be written"
    )


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
        remove(client, container)
