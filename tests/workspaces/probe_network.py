"""Every way out that a command can try; what came of it is in found.json. Runs inside."""

import json
import os
import socket
import ssl
import sys
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

ALLOWED, OTHER, HOST_ADDRESS = sys.argv[1:4]
PORTS = [int(port) for port in sys.argv[4:]]
PROXY = ("127.0.0.1", 3128)
WAIT_S = 20


def unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def asked(link: socket.socket) -> str:
    link.sendall(b"who are you\n")
    answer = link.recv(100)
    if not answer or answer[0] == 21:  # nothing, or a TLS alert
        raise OSError(f"no answer: {answer!r}")
    return answer.decode()


def tunnel(target: str) -> socket.socket:
    link = socket.create_connection(PROXY, WAIT_S)
    link.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        part = link.recv(1000)
        if not part:
            raise OSError("hung up")
        head += part
    if b" 200 " not in head:
        raise OSError(head.decode())
    return link


def through(target: str, name: str | None) -> str:
    return asked(unchecked().wrap_socket(tunnel(target), server_hostname=name))


def bare(target: str) -> str:
    return asked(tunnel(target))


def direct(host: str, port: int) -> str:
    return asked(unchecked().wrap_socket(socket.create_connection((host, port), WAIT_S)))


def plain(url: str, *, proxied: bool = True) -> str:
    handlers = [] if proxied else [urllib.request.ProxyHandler({})]
    opener = urllib.request.build_opener(*handlers)
    return str(opener.open(url, timeout=WAIT_S).read())


def datagram(host: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.sendto(b"x", (host, 53))
        return "sent"


ATTEMPTS: dict[str, Callable[[], str]] = {
    "the allowed host": lambda: through(f"{ALLOWED}:443", ALLOWED),
    "the allowed host in capitals": lambda: through(f"{ALLOWED.upper()}:443", ALLOWED),
    "another name": lambda: through(f"{OTHER}:443", OTHER),
    "another name in TLS": lambda: through(f"{ALLOWED}:443", OTHER),
    "no name in TLS": lambda: through(f"{ALLOWED}:443", None),
    "no TLS": lambda: bare(f"{ALLOWED}:443"),
    "another port": lambda: through(f"{ALLOWED}:22", ALLOWED),
    "no port": lambda: through(ALLOWED, ALLOWED),
    "a name below": lambda: through(f"x.{ALLOWED}:443", ALLOWED),
    "a dot behind": lambda: through(f"{ALLOWED}.:443", ALLOWED),
    "a name that is loopback": lambda: through("localhost:443", "localhost"),
    "the variables, another host": lambda: plain(f"https://{OTHER}/"),
    "the variables, no TLS": lambda: plain(f"http://{ALLOWED}/"),
    "no variables": lambda: plain(f"https://{ALLOWED}/", proxied=False),
    "no variables, another host": lambda: plain(f"https://{OTHER}/", proxied=False),
    "the metadata address": lambda: direct("169.254.169.254", 80),
    "the metadata address by proxy": lambda: bare("169.254.169.254:80"),
    "a datagram": lambda: datagram("192.0.2.1"),
    "a lookup": lambda: socket.gethostbyname("example.org"),
}
for port in PORTS:
    for address in ("127.0.0.1", "::1", HOST_ADDRESS):
        ATTEMPTS[f"{address} port {port}"] = partial(direct, address, port)
    for address in ("127.0.0.1", "[::1]", "2130706433", "0x7f.1", "127.1", HOST_ADDRESS):
        target = f"{address}:{port}"
        ATTEMPTS[f"{target} by proxy"] = partial(through, target, ALLOWED)

seen = {}
for name, attempt in ATTEMPTS.items():
    try:
        seen[name] = attempt()
    except (OSError, ValueError) as error:
        seen[name] = f"refused: {error}"
trusted = len(ssl.create_default_context().get_ca_certs())
found = {
    "seen": seen,
    "trusted": trusted,
    "variables": sorted(n for n in os.environ if "PROXY" in n),
}
Path("found.json").write_text(json.dumps(found))
