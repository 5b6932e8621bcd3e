"""Ways to an engine: its address taken apart, and the byte stream of one container attached to.

Addresses: `unix:///PATH`, `tcp://HOST:PORT`, the same with TLS (`?certs=FOLDER`, or Docker's own
`DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`), and `ssh://[USER@]HOST[:PORT]`, which a tunnel serves.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from docker.constants import DEFAULT_UNIX_SOCKET
from docker.tls import TLSConfig

from .errors import EngineUnavailable

ENGINES_VARIABLE = "ROLLMILL_ENGINES"
"""Addresses of engines that are one pool, separated by commas."""
MOST_HEADER_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """Where an engine listens."""

    path: str = ""
    """Of a unix socket; empty = `host` and `port`."""
    host: str = ""
    port: int = 0
    certs: Path | None = None
    """A folder with ca.pem, cert.pem and key.pem; None = no TLS."""

    @property
    def url(self) -> str:
        """As the SDK wants it."""
        return f"unix://{self.path}" if self.path else f"tcp://{self.host}:{self.port}"

    def tls(self) -> TLSConfig | None:
        """As the SDK wants it."""
        if self.certs is None:
            return None
        cert = (str(self.certs / "cert.pem"), str(self.certs / "key.pem"))
        return TLSConfig(client_cert=cert, ca_cert=str(self.certs / "ca.pem"), verify=True)

    def context(self) -> ssl.SSLContext | None:
        """As asyncio wants it."""
        if self.certs is None:
            return None
        context = ssl.create_default_context(cafile=self.certs / "ca.pem")
        context.load_cert_chain(self.certs / "cert.pem", self.certs / "key.pem")
        return context


def addresses() -> list[str]:
    """The engines to use: those named in `ROLLMILL_ENGINES`, else the one of `address_of`."""
    named = [one.strip() for one in os.environ.get(ENGINES_VARIABLE, "").split(",")]
    return [one for one in named if one] or [address_of()]


def address_of(engine: str = "") -> str:
    """The address of an engine; empty = `DOCKER_HOST`, else the local one."""
    return engine or os.environ.get("DOCKER_HOST") or DEFAULT_UNIX_SOCKET


def way_to(address: str) -> Way:
    """An address taken apart.

    Raises:
        EngineUnavailable: it is none that can be used.
    """
    parts = urlsplit(address.removeprefix("http+"))
    if parts.scheme == "unix":
        return Way(path="/" + (parts.netloc + parts.path).lstrip("/"))
    if parts.scheme in ("tcp", "https") and parts.hostname and parts.port:
        folder = parse_qs(parts.query).get("certs", [_certs_of_environment()])[0]
        certs = Path(folder) if folder else None
        return Way(host=parts.hostname, port=parts.port, certs=certs)
    raise EngineUnavailable(
        f"expected unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST as an engine, got {address!r}"
    )


def _certs_of_environment() -> str:
    folder = os.environ.get("DOCKER_CERT_PATH", "")
    wanted = bool(folder or os.environ.get("DOCKER_TLS_VERIFY"))
    return (folder or str(Path.home() / ".docker")) if wanted else ""


async def attach(way: Way, container: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The standard streams of a container, as the engine multiplexes them.

    Raises:
        OSError: the engine does not answer as it should.
    """
    if way.path:
        reader, writer = await asyncio.open_unix_connection(way.path)
    else:
        reader, writer = await asyncio.open_connection(way.host, way.port, ssl=way.context())
    try:
        writer.write(
            f"POST /containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\n"
            "Host: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        writer.close()
        raise OSError(f"the engine hung up on an attach: {error}") from error
    except BaseException:
        writer.close()
        raise
    status = head.split(b"\r\n", 1)[0].decode(errors="replace")
    if " 101 " not in status + " ":
        writer.close()
        raise OSError(f"expected 101 as answer to an attach, got {status!r}")
    return reader, writer
