"""Owners are written down first, live as long as they are renewed, and lose only their own."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from rollmill.workspaces import (
    DockerProvider,
    EngineUnavailable,
    bootstrap,
    images,
    leftovers,
    opened,
)
from rollmill.workspaces.cleaning import holdings, remove_all
from rollmill.workspaces.conformance import SPEC
from rollmill.workspaces.engine import connect
from rollmill.workspaces.ledger import Guard, Ledger
from rollmill.workspaces.reaper import default_ledger, labels, reap

GONE_S = 30.0


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state" / "leases.sqlite")


def until(true: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + GONE_S
    while not true() and time.monotonic() < give_up:
        time.sleep(0.05)
    return true()


def test_a_lease_lives_as_long_as_its_holder(ledger: Ledger) -> None:
    ledger.hold("h", run="r", engine="e")
    lease = ledger.intend("h")
    assert ledger.lives(lease) is True
    Ledger(ledger.path, holder_s=-1.0).renew("h")
    assert ledger.lives(lease) is False
    ledger.renew("h")
    assert ledger.lives(lease) is True
    assert [(one["run"], one["leases"]) for one in ledger.holders()] == [("r", 1)]
    ledger.end(lease)
    assert ledger.lives(lease) is None
    ledger.intend("h")
    ledger.let_go("h")
    assert ledger.holders() == []


def test_threads_and_connections_do_not_lose_each_others_entries(ledger: Ledger) -> None:
    def work(number: int) -> None:
        mine = Ledger(ledger.path)
        mine.hold(str(number), run="r", engine="e")
        for _ in range(20):
            mine.intend(str(number))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one["leases"] for one in ledger.holders()] == [20] * 4


def test_a_guard_renews_its_holder_until_it_is_dismissed(ledger: Ledger) -> None:
    guard = Guard(Ledger(ledger.path, holder_s=1.2))
    guard.start(run="r", engine="e")
    first = ledger.holders()[0]["expires"]
    assert until(lambda: ledger.holders()[0]["expires"] > first)
    guard.dismiss()
    assert ledger.holders() == []


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    client, _ = connect()
    with contextlib.closing(client):
        yield client


def container(client: docker.APIClient, marks: dict[str, str]) -> str:
    """A container that was created and never started, as a kill at a bad moment leaves it."""
    made = client.create_container(images.ensure(client, "python"), ["true"], labels=marks)
    return str(client.inspect_container(made["Id"])["Name"]).lstrip("/")


@pytest.mark.docker
def test_a_reaper_takes_what_dead_owners_left_and_nothing_else(
    client: docker.APIClient, ledger: Ledger, tmp_path: Path
) -> None:
    run, elsewhere = f"reaped-{os.getpid()}", Ledger(tmp_path / "other machine")

    def left(book: Ledger, holder: str, lifetime_s: float = 3600.0) -> str:
        lease = book.intend(holder)
        return container(client, labels(run=run, holder=holder, lease=lease, lifetime_s=lifetime_s))

    for book in (ledger, elsewhere):
        book.hold("living", run=run, engine="e")
    Ledger(ledger.path, holder_s=-1.0).hold("dead", run=run, engine="e")
    kept = [left(ledger, "living"), left(elsewhere, "living")]
    kept += [container(client, {"rollmill": "1", "rollmill.run": run})]  # says of no lease
    gone = [left(ledger, "dead"), left(elsewhere, "living", lifetime_s=-3600.0)]
    try:
        assert set(reap(client, ledger, engine="e")) & {*kept, *gone} == set(gone)
        assert leftovers(run) == sorted(kept)
        assert [one["holder"] for one in ledger.holders()] == ["living"]
    finally:
        for name in leftovers(run):
            client.remove_container(name, force=True)


@pytest.mark.docker
async def test_runs_on_one_engine_never_touch_each_others_containers(
    client: docker.APIClient, tmp_path: Path
) -> None:
    run = f"neighbour-{os.getpid()}"
    mine = DockerProvider(run_id=run)
    async with opened(mine, SPEC) as workspace:
        same_machine = DockerProvider(run_id=run)
        other_machine = DockerProvider(run_id=run, ledger=Ledger(tmp_path / "leases"))
        for other in (same_machine, other_machine):
            async with opened(other, SPEC):
                assert len(leftovers(run)) == 2
            await other.close()
        assert remove_all() is not None
        assert (await workspace.exec(["echo", "here"])).stdout == "here\n"
        assert any(run in one for one in holdings().living)
    await mine.close()
    assert leftovers(run) == []


HOST = """
import asyncio, sys
from rollmill.workspaces import DockerProvider
from rollmill.workspaces.conformance import SPEC

async def main():
    await DockerProvider(run_id=sys.argv[1]).open(SPEC)
    print("open", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.docker
def test_the_holder_of_a_killed_host_is_forgotten() -> None:
    run = f"forgotten-{os.getpid()}"

    def holders() -> list[str]:
        return [one["run"] for one in default_ledger().holders() if one["run"] == run]

    host = subprocess.Popen(
        [sys.executable, "-c", HOST, run], stdout=subprocess.PIPE, text=True, cwd="/"
    )
    assert host.stdout is not None
    with host.stdout:
        assert host.stdout.readline() == "open\n"
        assert holders() == [run]
        host.send_signal(signal.SIGKILL)
        host.wait()
    assert until(lambda: not holders())
    assert leftovers(run) == []


@pytest.mark.docker
def test_a_ledger_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    provider = DockerProvider(ledger=Ledger(tmp_path / "file" / "leases"))
    with pytest.raises(EngineUnavailable, match="XDG_STATE_HOME"):
        asyncio.run(provider.open(SPEC))


def test_scratch_of_a_dead_builder_is_removed_and_of_a_living_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""], cwd="/")
    ended.wait()
    dead = tmp_path / f"{bootstrap.SCRATCH_PREFIX}{ended.pid}-x"
    living = tmp_path / f"{bootstrap.SCRATCH_PREFIX}{os.getpid()}-x"
    for folder in (dead, living):
        (folder / "files").mkdir(parents=True)
    assert str(dead) in holdings().dead
    assert str(dead) in remove_all()
    assert (dead.exists(), living.exists()) == (False, True)


def test_what_the_ledger_says_of_engines_that_are_gone_is_struck_out() -> None:
    ledger, holder = default_ledger(), f"gone-{os.getpid()}"
    Ledger(ledger.path, holder_s=-1.0).hold(holder, run=holder, engine="unix:///gone.sock")
    entry = f"ledger entry of run {holder!r}, pid {os.getpid()}"
    assert entry in holdings().dead
    assert entry in remove_all()
    assert holder not in [one["holder"] for one in ledger.holders()]
