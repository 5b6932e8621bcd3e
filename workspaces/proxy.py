"""The proxy on the host: says which hosts a workspace may reach, by CONNECT and by TLS server name.

Only TLS goes through, and only when both names are the same and on the list. A name is looked up
here, and one whose addresses are not public is refused unless the operator pinned it. It does not
look into TLS: what a host on the list does for its visitors is up to that host.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from .channel import Writer
from .hello import MOST_BYTES, UNRECOGNISED_NAME, NoHello, name_wanted
from .network import Carriage, Connection
from .types import HOST, WorkspaceSpec

log = logging.getLogger(__name__)

HOSTS_VARIABLE = "ROLLMILL_HOSTS"
"""Pinned addresses, `name=address` or `name=address:port`, separated by commas."""
TLS_PORT = 443
MOST_HEAD_BYTES = 1 << 13
DIAL_S = 15.0
FIRST_WORDS_S = 30.0
LINGER_S = 2.0
CHUNK = 1 << 14
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Pins: TypeAlias = Mapping[str, tuple[str, int | None]]
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def way_out(
    spec: WorkspaceSpec, reader: asyncio.StreamReader, writer: Writer, pins: Pins
) -> Carriage | None:
    """The carriage on the stream of a runner, when its workspace may reach some hosts."""
    return Carriage(reader, writer, Proxy(spec.network, pins).serve) if spec.network else None


class Refused(Exception):
    """A connection that is not allowed; says why, and what is."""


def pins_of_environment() -> Pins:
    """Host name -> address and perhaps port, as `ROLLMILL_HOSTS` pins them.

    Raises:
        ValueError: it cannot be read.
    """
    pins: dict[str, tuple[str, int | None]] = {}
    for entry in filter(None, map(str.strip, os.environ.get(HOSTS_VARIABLE, "").split(","))):
        name, _, place = entry.partition("=")
        address, _, port = place.rpartition(":") if place.count(":") == 1 else (place, "", "")
        try:
            pins[name] = str(ipaddress.ip_address(address.strip("[]"))), int(port) if port else None
        except ValueError as error:
            raise ValueError(
                f"expected name=address or name=address:port in {HOSTS_VARIABLE}, got {entry!r}"
            ) from error
    return pins


class Proxy:
    """Serves the connections of one workspace.

    Args:
        allow: as `WorkspaceSpec.network`.
        pins: names whose address the operator set, wherever it leads.
    """

    def __init__(self, allow: Sequence[str], pins: Pins = MappingProxyType({})) -> None:
        self._allow = {host if ":" in host else f"{host}:{TLS_PORT}" for host in allow}
        self._pins = pins

    async def serve(self, client: Connection) -> None:
        """Serve one connection to its end. What is refused is said to the client and logged."""
        try:
            async with asyncio.timeout(FIRST_WORDS_S):
                name, port, early = await self._wanted(client)
            try:
                reader, writer = await self._dialled(name, port)
            except OSError as error:
                await _answer(client, 502, f"{name}:{port} does not answer: {error}")
                return
        except Refused as refusal:
            await _answer(client, 403, str(refusal))
            return
        except TimeoutError:
            return
        try:
            await self._joined(client, reader, writer, name, early)
        finally:
            await _hung_up(writer)

    async def _joined(
        self,
        client: Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        name: str,
        early: bytes,
    ) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            await client.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            try:
                async with asyncio.timeout(FIRST_WORDS_S):
                    hello = await _hello_to(name, client, early)
            except NoHello as error:
                log.info("a workspace was refused %s: %s", name, error)
                await client.send(UNRECOGNISED_NAME)
                return
            writer.write(hello)
            await _either_way(client, reader, writer)

    async def _wanted(self, client: Connection) -> tuple[str, int, bytes]:
        """The host and port that a CONNECT asks for, and what came after it."""
        head = b""
        while b"\r\n\r\n" not in head:
            part = await client.read()
            if not part or len(head) > MOST_HEAD_BYTES:
                raise Refused("expected one CONNECT request, got none")
            head += part
        line, _, early = head.partition(b"\r\n\r\n")
        words = line.split(b"\r\n")[0].decode("ascii", errors="replace").split(" ")
        if len(words) != 3 or words[0] != "CONNECT" or not words[2].startswith("HTTP/1."):
            raise Refused(f"only CONNECT for TLS is served, not {words[0][:20]!r}; use https")
        wanted = words[1].lower()
        if not HOST.fullmatch(wanted) or wanted not in self._allow:
            raise Refused(
                f"{words[1][:300]!r} is not on the list of this workspace: "
                f"{', '.join(sorted(self._allow))}"
            )
        name, _, port = wanted.partition(":")
        return name, int(port), early

    async def _dialled(self, name: str, port: int) -> Streams:
        if name in self._pins:
            address, pinned_port = self._pins[name]
            return await _connected(address, pinned_port or port)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        closed = [address for address in addresses if not is_public(address)]
        if closed:
            raise Refused(
                f"{name!r} has the address {closed[0]}, which is not public; the operator may pin "
                f"it with {HOSTS_VARIABLE}={name}={closed[0]}"
            )
        failure: OSError = OSError("it has no address")
        for address in addresses:
            try:
                return await _connected(address, port)
            except OSError as error:
                failure = error
        raise failure


def is_public(address: str) -> bool:
    """Whether an address leads to the open internet, by whatever notation it is written."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else None
        ip = ip.ipv4_mapped or ip.sixtofour or inner or ip
    return ip.is_global and not ip.is_multicast


async def _connected(address: str, port: int) -> Streams:
    try:
        async with asyncio.timeout(DIAL_S):
            return await asyncio.open_connection(address, port)
    except TimeoutError:
        raise OSError(f"no answer within {DIAL_S:g} s") from None


async def _hello_to(name: str, client: Connection, early: bytes) -> bytes:
    """The first words of a TLS client that wants this very name.

    Raises:
        NoHello: it is none, or wants another name.
    """
    data = early
    while not data or (wanted := name_wanted(data)) is None:
        part = await client.read()
        if not part or len(data) > MOST_BYTES:
            raise NoHello("its hello is cut short")
        data += part
    if wanted != name:
        raise NoHello(f"its TLS asks for {wanted[:300]!r}, its CONNECT for {name!r}")
    return data


async def _hung_up(writer: asyncio.StreamWriter) -> None:
    """Close, with a moment for what is in line; a server that reads no more gets no longer."""
    writer.close()
    try:
        async with asyncio.timeout(LINGER_S):
            await writer.wait_closed()
    except OSError:  # its own, or the time is up
        pass
    finally:
        writer.transport.abort()


async def _either_way(
    client: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Move bytes until one of the two hangs up; what the server said before still arrives."""

    async def out() -> None:
        while data := await client.read():
            writer.write(data)
            await writer.drain()

    async def back() -> None:
        while data := await reader.read(CHUNK):
            await client.send(data)

    both = [asyncio.create_task(out()), asyncio.create_task(back())]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def _answer(client: Connection, status: int, text: str) -> None:
    """Say in HTTP why there is no connection; most clients show the first line alone."""
    log.info("a workspace was refused: %s", text)
    reason = text.encode("ascii", errors="replace").replace(b"\r", b"?").replace(b"\n", b"?")
    head = b"HTTP/1.1 %d %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(ConnectionError):
        await client.send(head % (status, reason))
