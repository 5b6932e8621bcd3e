"""Several engines are one pool: shared by load, over any way to them, and a dead one is drained."""

import asyncio
import gc
from collections import Counter
from collections.abc import Sequence

import pytest

from rollmill.workspaces import EngineUnavailable, WorkspaceGone, leftovers, open_provider
from rollmill.workspaces.conformance import SPEC
from rollmill.workspaces.dialling import ENGINES_VARIABLE, way_to
from rollmill.workspaces.docker import DockerProvider
from rollmill.workspaces.doctor import findings
from rollmill.workspaces.fleet import Fleet
from rollmill.workspaces.pool import PooledProvider

from .engines import OwnEngine

Engines = tuple[OwnEngine, OwnEngine]
pytestmark = [
    pytest.mark.docker,
    # the SDK leaves its sockets to an engine that is gone to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def counts(engines: Sequence[OwnEngine]) -> list[int]:
    return [len(engine.containers()) for engine in engines]


async def test_workspaces_are_shared_among_engines_by_load(own_engines: Engines) -> None:
    fleet = Fleet([own_engines[0].address, own_engines[1].tls_address])
    digests = await fleet.prepare(["python"])
    assert set(digests) == {"python"}
    opened = [await fleet.open(SPEC) for _ in range(4)]
    assert counts(own_engines) == [2, 2]
    for workspace in opened:
        assert (await workspace.exec(["cat", "seed.txt"])).stdout == "seed\n"
    await asyncio.gather(*(workspace.close() for workspace in opened[:2]))
    await fleet.close()
    assert counts(own_engines) == [0, 0]


async def test_a_dead_engine_is_drained_and_joins_again(own_engines: Engines) -> None:
    fleet = Fleet([engine.address for engine in own_engines], drained_s=0.5)
    pool = PooledProvider(fleet)
    before = [await pool.open(SPEC) for _ in range(2)]
    await asyncio.to_thread(own_engines[0].stop)
    lost = Counter[str]()
    for workspace in before:
        try:
            lost[(await workspace.exec(["echo", "here"])).stdout] += 1
        except WorkspaceGone:
            lost["gone"] += 1
        await workspace.close()
    assert lost["gone"] >= 1
    after = [await pool.open(SPEC, fresh=True) for _ in range(3)]
    assert len(own_engines[1].containers()) >= 3
    await asyncio.to_thread(own_engines[0].start)
    await asyncio.sleep(0.6)
    after += [await pool.open(SPEC, fresh=True) for _ in range(3)]
    assert own_engines[0].containers()
    await asyncio.gather(*(workspace.close() for workspace in after))
    await pool.close()
    assert counts(own_engines) == [0, 0]
    gc.collect()


async def test_an_engine_that_never_answered_does_not_stop_the_others(
    own_engines: Engines,
) -> None:
    fleet = Fleet(["unix:///no/engine.sock", own_engines[0].address])
    workspace = await fleet.open(SPEC)
    assert (await workspace.exec(["true"])).exit_code == 0
    await fleet.close()
    nobody = Fleet(["unix:///no/engine.sock"], patience_s=0.0)
    with pytest.raises(EngineUnavailable, match=r"no/engine\.sock"):
        await nobody.open(SPEC)
    await nobody.close()
    gc.collect()


async def test_the_environment_names_the_engines(
    own_engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = f"{own_engines[0].address}, {own_engines[1].tls_address}"
    monkeypatch.setenv(ENGINES_VARIABLE, addresses)
    provider = open_provider("docker", run_id="fleet")
    opened = await asyncio.gather(*(provider.open(SPEC) for _ in range(2)))
    assert min(counts(own_engines)) >= 1
    assert len(leftovers("fleet")) >= 2
    engine = findings()[0]
    assert (engine.ok, engine.detail.count("Docker Engine")) == (True, 2)
    await asyncio.gather(*(workspace.close() for workspace in opened))
    await provider.close()
    assert leftovers("fleet") == []


async def test_who_holds_no_certificate_is_not_served(own_engines: Engines) -> None:
    plain = own_engines[1].tls_address.partition("?")[0]
    provider = DockerProvider(engine=plain)
    with pytest.raises(EngineUnavailable):
        await provider.open(SPEC)
    await provider.close()
    gc.collect()


@pytest.mark.parametrize("address", ["http://x", "tcp://host", "npipe:////./pipe", "x"])
def test_an_address_that_cannot_be_used_says_what_can(address: str) -> None:
    with pytest.raises(EngineUnavailable, match="unix:///PATH"):
        way_to(address)
