"""A workspace reaches the hosts on its list by their names over TLS, and nothing else at all."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rollmill.workspaces import (
    EngineUnavailable,
    NetworkRefused,
    PooledProvider,
    Provider,
    ScriptedProvider,
    Workspace,
    WorkspaceSpec,
    leftovers,
    open_provider,
    opened,
)
from rollmill.workspaces.conformance import CHECKS, SMALL, SPEC
from rollmill.workspaces.proxy import HOSTS_VARIABLE, is_public, pins_of_environment

from ..engines import make_certificates
from .respecced import Respecced

PROBE = (Path(__file__).parent / "probe_network.py").read_text()
OPEN = replace(SPEC, network=("allowed.test", "localhost"))
KINDS = ["bwrap", pytest.param("docker", marks=pytest.mark.docker)]


class Server:
    """A TLS server on loopback that says its name and then echoes; it counts who came."""

    def __init__(self, name: str) -> None:
        self.name, self.visits, self.now = name, 0, 0

    async def start(self, context: ssl.SSLContext) -> asyncio.Server:
        server = await asyncio.start_server(self._visit, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits, self.now = self.visits + 1, self.now + 1
        with contextlib.suppress(OSError):
            await reader.readline()
            writer.write(f"I am {self.name}\n".encode())
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        self.now -= 1
        writer.close()


@pytest.fixture
async def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Server]]:
    """The allowed one and another; both names are pinned to this machine."""
    make_certificates(tmp_path / "certs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = tmp_path / "certs"
    context.load_cert_chain(folder / "server-cert.pem", folder / "server-key.pem")
    both = [Server("allowed.test"), Server("other.test")]
    running = [await server.start(context) for server in both]
    pins = ",".join(f"{server.name}=127.0.0.1:{server.port}" for server in both)
    monkeypatch.setenv(HOSTS_VARIABLE, pins)
    yield both
    for server in running:
        server.close()


@pytest.fixture(params=KINDS)
async def provider(
    request: pytest.FixtureRequest, servers: list[Server]
) -> AsyncIterator[Provider]:
    provider = open_provider(request.param, run_id="network")
    try:
        await provider.prepare(["python"])
    except EngineUnavailable as error:
        pytest.skip(str(error))
    yield provider
    await provider.close()


def address_of_this_machine() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.2"
        return str(one.getsockname()[0])


async def test_only_the_listed_host_is_reached_whatever_is_tried(
    provider: Provider, servers: list[Server]
) -> None:
    allowed, other = servers
    ports = [str(server.port) for server in servers]
    names = [allowed.name, other.name, address_of_this_machine()]
    async with opened(provider, OPEN) as workspace:
        result = await workspace.exec(["python3", "-c", PROBE, *names, *ports], timeout_s=120)
        assert result.exit_code == 0, result
        found = json.loads(await workspace.get("found.json", max_bytes=1 << 20))
        routes = await workspace.exec(["cat", "/proc/net/route"])
    seen = found["seen"]
    reached = {name for name, answer in seen.items() if not answer.startswith("refused")}
    assert reached == {"the allowed host", "the allowed host in capitals"}, seen
    assert seen["the allowed host"] == "I am allowed.test\n"
    for name in ("another name", f"127.0.0.1:{ports[0]} by proxy", "the variables, another host"):
        assert "is not on the list of this workspace" in seen[name], seen[name]
    assert "is not public" in seen["a name that is loopback"]
    assert "use https" in seen["the variables, no TLS"]
    assert "UNRECOGNIZED_NAME" in seen["another name in TLS"].upper(), seen
    assert other.visits == 0
    assert found["variables"] == ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"]
    assert found["trusted"] > 0
    assert len(routes.stdout.splitlines()) == 1, routes


MUCH = """
import socket, ssl, sys, threading
def link():
    plain = socket.create_connection(("127.0.0.1", 3128), 60)
    plain.sendall(b"CONNECT allowed.test:443 HTTP/1.1\\r\\n\\r\\n")
    while b"\\r\\n\\r\\n" not in plain.recv(1000): pass
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    secure = context.wrap_socket(plain, server_hostname="allowed.test")
    secure.sendall(b"hello\\n")
    assert secure.recv(100) == b"I am allowed.test\\n"
    return secure
deaf = link()
deaf.settimeout(2)
try:
    while True: deaf.sendall(bytes(65536))  # and never reads the echo
except TimeoutError: pass
ends = []
def work(number):
    secure, sent = link(), bytes([number]) * 200_000
    threading.Thread(target=secure.sendall, args=(sent,)).start()
    got = b""
    while len(got) < len(sent): got += secure.recv(65536)
    ends.append(got == sent)
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(ends.count(True))
"""


async def test_connections_share_the_stream_and_a_deaf_one_holds_up_nobody(
    provider: Provider, servers: list[Server]
) -> None:
    async with opened(provider, OPEN) as workspace:
        result = await workspace.exec(["python3", "-c", MUCH], timeout_s=120)
        assert (result.stdout, result.exit_code) == ("4\n", 0), result
        async with asyncio.timeout(30):
            while servers[0].now:  # the command's end is the end of its connections
                await asyncio.sleep(0.02)
        await workspace.put("big", bytes(8 << 20))
        assert len(await workspace.get("big", max_bytes=8 << 20)) == 8 << 20


@pytest.mark.parametrize(
    "check",
    [
        "stdin_env_and_cwd_reach_the_command",
        "children_do_not_outlive_a_command",
        "files_round_trip_with_mode_and_owner",
        "there_is_no_network_but_loopback",
        "commands_cannot_end_or_reach_the_runner",
        "the_lifetime_ends_a_workspace",
        "closing_twice_or_early_is_safe",
    ],
)
async def test_the_contract_holds_with_a_way_out(provider: Provider, check: str) -> None:
    await CHECKS[check](Respecced(provider, lambda spec: replace(spec, network=OPEN.network)))


@pytest.mark.docker
async def test_an_idle_workspace_ends_with_its_lifetime(servers: list[Server]) -> None:
    run_id = f"network-idle-{os.getpid()}"
    provider = open_provider("docker", run_id=run_id)
    async with opened(provider, replace(OPEN, limits=replace(SMALL, lifetime_s=1.0))):
        async with asyncio.timeout(30):
            while leftovers(run_id):  # nobody speaks to it
                await asyncio.sleep(0.1)
    await provider.close()


@pytest.mark.docker
async def test_a_workspace_with_a_way_out_is_never_used_again(servers: list[Server]) -> None:
    provider = open_provider("docker", run_id="network-apart")
    assert isinstance(provider, PooledProvider)

    async def name_of(workspace: Workspace) -> str:
        return (await workspace.exec(["cat", "/proc/sys/kernel/hostname"])).stdout

    names = set()
    for _ in range(3):
        async with opened(provider, OPEN) as workspace:
            names.add(await name_of(workspace))
    async with opened(provider, SPEC) as closed:
        assert (await closed.exec(["bash", "-c", "echo $HTTPS_PROXY"])).stdout == "\n"
        names.add(await name_of(closed))
    await provider.close()
    assert len(names) == 4
    assert not provider.counts["recycled"]


async def test_who_cannot_enforce_a_list_refuses_it() -> None:
    provider = ScriptedProvider()
    with pytest.raises(NetworkRefused, match="cannot be held to a list of hosts"):
        await provider.open(OPEN)
    with pytest.raises(NetworkRefused, match=r"allowed\.test"):
        async with opened(provider, OPEN):
            pass
    assert provider.opened == []


@pytest.mark.parametrize(
    "host",
    ["", "PyPI.org", "10.0.0.1", "10.1", "2130706433", "0x7f.1", "::1", "[::1]:443", "*.pypi.org",
     "https://pypi.org", "pypi.org/simple", "pypi.org:", "a b", "-a.org", "a..b", "a" * 64,
     "pypi.org\n", "127.0.0.1:443", ("a" * 60 + ".") * 5 + "org"],
)  # fmt: skip
def test_a_list_holds_plain_host_names_only(host: str) -> None:
    with pytest.raises(ValueError, match="host names such as"):
        WorkspaceSpec(image="python", network=("pypi.org", host))


def test_good_names_are_taken() -> None:
    hosts = ("pypi.org", "pypi.org:8443", "a-b.x1.io", "mirror", "3com.com", "xn--bcher-kva.ch")
    assert WorkspaceSpec(image="python", network=hosts).network == hosts


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.100.100.200",
     "0.0.0.0", "224.0.1.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00:ec2::254",
     "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff0e::1"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_told_apart(address: str) -> None:
    assert not is_public(address)
    assert is_public("1.1.1.1")
    assert is_public("2606:4700::1111")


def test_pins_are_read_and_what_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOSTS_VARIABLE, "a.test=10.0.0.1, b.test=10.0.0.2:8443,c.test=fd00::1")
    assert pins_of_environment() == {
        "a.test": ("10.0.0.1", None), "b.test": ("10.0.0.2", 8443), "c.test": ("fd00::1", None),
    }  # fmt: skip
    for wrong in ("a.test", "a.test=b.test", "a.test=10.0.0.1:x"):
        monkeypatch.setenv(HOSTS_VARIABLE, wrong)
        with pytest.raises(ValueError, match="expected name=address"):
            open_provider("bwrap")
