"""The runner's way out, where a workspace may reach some hosts: one stream carries it all.

Part of `runner.py`; sent into the workspace with it. Commands speak to a listener on loopback. What
they say goes to the host as frames beside the runner's own requests and replies, so there is no
route, no interface and no socket that leads out of the workspace. It checks no name: the proxy at
the other end does (`network.py`). Each connection has a window of bytes in flight, so none of them
fills memory or holds up another.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import threading

PROXY_PORT = 3128
HEAD = struct.Struct(">IBI")
"""Connection, kind, size of what follows. Connection 0 is the runner's own stream."""
DATA, OPEN, END, CREDIT = range(4)
AMOUNT = struct.Struct(">I")
WINDOW = 1 << 17
MOST_OPEN = 64
MOST_WAITING = 1 << 20
"""Bytes for one reader; above it nothing more is taken in."""
CHUNK = 1 << 14


class Connection:
    """One connection of a command to the listener."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.waiting = bytearray()
        self.may_send = WINDOW
        self.ends = False
        """True when the host has said all: it is closed once `waiting` is out."""


class Carrier:
    """Moves bytes between the host, the runner and the commands. One thread, no lock."""

    def __init__(self, host: tuple[int, int], runner: tuple[int, int]) -> None:
        self.from_host, self.to_host = host
        self.from_runner, self.to_runner = runner
        for fd in (self.to_host, self.to_runner):
            os.set_blocking(fd, False)
        self.listener = socket.create_server(("127.0.0.1", PROXY_PORT), backlog=MOST_OPEN)
        self.listener.setblocking(False)
        self.came = bytearray()
        self.for_host, self.for_runner = bytearray(), bytearray()
        self.open: dict[int, Connection] = {}
        self.last = 0

    def run(self) -> None:
        """Carry until the host is gone, which ends the workspace."""
        # The lifetime's alarm has to wake the runner's own thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            while True:
                poll = select.poll()
                for fd, events in self.interests().items():
                    poll.register(fd, events)
                for fd, events in poll.poll():
                    self.serve(fd, events)
        except BaseException as error:  # without its carrier the runner would wait for ever
            os.write(2, f"the carrier failed: {error!r}\n".encode())
        finally:
            os._exit(1)

    def interests(self) -> dict[int, int]:
        """Descriptor -> what to wait for; a full buffer stops what fills it."""
        room = len(self.for_host) < MOST_WAITING
        wanted: dict[int, int] = {}
        if len(self.for_runner) < MOST_WAITING:
            wanted[self.from_host] = select.POLLIN
        if self.for_host:
            wanted[self.to_host] = select.POLLOUT
        if self.for_runner:
            wanted[self.to_runner] = select.POLLOUT
        if room:
            wanted[self.from_runner] = select.POLLIN
            if len(self.open) < MOST_OPEN:
                wanted[self.listener.fileno()] = select.POLLIN
        for one in self.open.values():
            reads = select.POLLIN if room and one.may_send and not one.ends else 0
            writes = select.POLLOUT if one.waiting else 0
            if reads or writes:
                wanted[one.link.fileno()] = reads | writes
        return wanted

    def serve(self, fd: int, events: int) -> None:
        """Do what a descriptor is ready for."""
        if fd == self.from_host:
            self.take_frames()
        elif fd == self.to_host:
            write(fd, self.for_host)
        elif fd == self.to_runner:
            write(fd, self.for_runner)
        elif fd == self.from_runner:
            self.say(0, DATA, os.read(fd, CHUNK))
        elif fd == self.listener.fileno():
            self.accept()
        else:
            for number, one in list(self.open.items()):
                if one.link.fileno() == fd:
                    self.move(number, one, events)

    def say(self, number: int, kind: int, data: bytes = b"") -> None:
        """Put a frame in line."""
        self.for_host += HEAD.pack(number, kind, len(data)) + data

    def accept(self) -> None:
        """Take one more connection of a command."""
        with contextlib.suppress(OSError):  # it has hung up again
            link, _ = self.listener.accept()
            link.setblocking(False)
            self.last += 1
            self.open[self.last] = Connection(link)
            self.say(self.last, OPEN)

    def move(self, number: int, one: Connection, events: int) -> None:
        """Read from a command or write to it; whoever hangs up ends the connection."""
        try:
            if events & select.POLLOUT:
                sent = one.link.send(one.waiting)
                del one.waiting[:sent]
                self.say(number, CREDIT, AMOUNT.pack(sent))
            elif events:
                data = one.link.recv(min(CHUNK, one.may_send))
                one.may_send -= len(data)
                self.say(number, DATA if data else END, data)
                one.ends = one.ends or not data
                one.waiting = one.waiting if data else bytearray()
        except BlockingIOError:
            return
        except OSError:
            self.say(number, END)
            one.ends, one.waiting = True, bytearray()
        self.close_if_done(number, one)

    def close_if_done(self, number: int, one: Connection) -> None:
        """Forget a connection that has ended and owes its command nothing."""
        if one.ends and not one.waiting:
            one.link.close()
            del self.open[number]

    def take_frames(self) -> None:
        """Read from the host and hand on what is whole."""
        data = os.read(self.from_host, CHUNK)
        if not data:
            os._exit(0)  # the host is gone
        self.came += data
        while len(self.came) >= HEAD.size:
            number, kind, size = HEAD.unpack_from(self.came)
            if len(self.came) < HEAD.size + size:
                return
            content = bytes(self.came[HEAD.size : HEAD.size + size])
            del self.came[: HEAD.size + size]
            self.take(number, kind, content)

    def take(self, number: int, kind: int, content: bytes) -> None:
        """Act on one frame; what belongs to a connection that has ended is dropped."""
        if number == 0:
            self.for_runner += content
        elif number in self.open:
            one = self.open[number]
            if kind == DATA:
                one.waiting += content
            elif kind == CREDIT:
                one.may_send += AMOUNT.unpack(content)[0]
            elif kind == END:
                one.ends = True
                self.close_if_done(number, one)


def write(fd: int, waiting: bytearray) -> None:
    """Write what goes in without waiting."""
    with contextlib.suppress(BlockingIOError):
        del waiting[: os.write(fd, waiting)]


def routes() -> list[str]:
    """Ways out that the kernel knows, loopback apart; there has to be none."""
    found = []
    for table, device in (("route", 0), ("ipv6_route", -1)):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{table}") as lines:  # noqa: PTH123
            names = [line.split()[device] for line in lines if line.split()]
            found += [name for name in names if name not in ("Iface", "lo")]
    return found


def carried(requests: int, replies: int) -> tuple[int, int]:
    """Put the carrier between the host and the runner; returns the runner's own two ends."""
    if routes():
        sys.exit(f"expected no route but loopback, found one by {', '.join(routes())}")
    theirs, to_runner = os.pipe()
    from_runner, ours = os.pipe()
    carrier = Carrier((requests, replies), (from_runner, to_runner))
    threading.Thread(target=carrier.run, daemon=True).start()
    return theirs, ours
