"""Any image runs: one with Python where nobody looks and traps in its settings; a bare one."""

import contextlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from rollmill.workspaces import (
    BwrapProvider,
    ImageError,
    PooledProvider,
    Provider,
    WorkspaceSpec,
    images,
    leftovers,
    open_provider,
    opened,
)
from rollmill.workspaces.conformance import CHECKS, SMALL
from rollmill.workspaces.engine import connect
from rollmill.workspaces.reaper import LABEL

from .respecced import Respecced

pytestmark = pytest.mark.docker

STATIC = Path("/sbin/ldconfig")
"""A program that needs nothing else; Debian has it."""
MOVE = (
    "mkdir -p /opt/own /data && mv $(readlink -f /usr/bin/python3) /opt/own/python3 && "
    "rm -f /usr/bin/python3* && echo kept > /data/file && chmod 777 /data"
)
TRAPS = [
    "ENV PATH=/opt/own:/usr/local/bin:/usr/bin:/bin", "ENV HOME=/root", "ENV FROM_IMAGE=yes",
    "ENV LD_LIBRARY_PATH=/opt/own",
    'ENTRYPOINT ["/bin/false"]', "VOLUME /data", "USER nobody", "WORKDIR /nowhere",
]  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.APIClient]:
    client, _ = connect()
    with contextlib.closing(client):
        yield client


def volumes_of(engine: docker.APIClient, **filters: str) -> set[str]:
    return {volume["Name"] for volume in engine.volumes(filters)["Volumes"] or ()}


@pytest.fixture(scope="module")
def other(engine: docker.APIClient) -> Iterator[str]:
    """Our own image as somebody else may have made it: Python elsewhere, and traps."""
    name = f"rollmill-test-other:{os.getpid()}"
    closed = engine.create_host_config(network_mode="none")
    made = engine.create_container(
        images.ensure(engine, "python"), ["sh", "-c", MOVE], user="0", host_config=closed
    )
    repository, _, tag = name.partition(":")
    try:
        engine.start(made["Id"])
        assert engine.wait(made["Id"])["StatusCode"] == 0
        engine.commit(made["Id"], repository=repository, tag=tag, changes=TRAPS)
    finally:
        engine.remove_container(made["Id"], v=True, force=True)
    before = volumes_of(engine)
    yield f"docker:{name}"
    for volume in volumes_of(engine) - before:
        if "-runtime-" not in volume:  # which is for all images
            engine.remove_volume(volume)
    engine.remove_image(name, force=True)


@pytest.fixture(scope="module")
def bare(engine: docker.APIClient) -> Iterator[str]:
    """An image with one program in it: no shell, no library, no account, no folder."""
    if not STATIC.exists():
        pytest.skip(f"expected a static program at {STATIC} (Debian's libc-bin)")
    out, name = io.BytesIO(), f"rollmill-test-bare:{os.getpid()}"
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("only")
        info.size, info.mode = STATIC.stat().st_size, 0o755
        tar.addfile(info, io.BytesIO(STATIC.read_bytes()))
    repository, _, tag = name.partition(":")
    engine.import_image_from_data(out.getvalue(), repository=repository, tag=tag)
    yield f"docker:{name}"
    engine.remove_image(name, force=True)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = open_provider("docker", run_id=f"foreign-{os.getpid()}")
    yield provider
    await provider.close()


@pytest.mark.parametrize("check", CHECKS)
async def test_the_contract_holds_in_an_image_of_others(
    provider: Provider, other: str, check: str
) -> None:
    await CHECKS[check](Respecced(provider, lambda spec: replace(spec, image=other)))


async def test_what_an_image_says_of_itself_is_kept_where_it_harms_nobody(
    provider: Provider, other: str
) -> None:
    script = (
        "echo $FROM_IMAGE $HOME $PWD; which python3; cat /data/file; touch /data/x; "
        "touch /.rollmill/x /.rollmill/lib/x; id -u; python3 -c 'import json'"
    )
    async with opened(provider, WorkspaceSpec(image=other, limits=SMALL)) as workspace:
        seen = await workspace.exec(["bash", "-c", script])
    assert seen.stdout == "yes /home/agent /workspace\n/opt/own/python3\nkept\n1000\n", seen
    assert seen.stderr.count("Read-only file system") == 3, seen
    assert seen.exit_code == 0, seen


async def test_an_image_with_one_program_runs_it_and_moves_files(
    provider: Provider, bare: str
) -> None:
    spec = WorkspaceSpec(image=bare, limits=SMALL, network=("allowed.test",))
    async with opened(provider, spec) as workspace:
        ran = await workspace.exec(["/only", "--version"])
        assert (ran.exit_code, ran.stdout[:9]) == (0, "ldconfig "), ran
        missing = await workspace.exec(["sh", "-c", "true"])
        assert (missing.exit_code, "cannot start 'sh'" in missing.stderr) == (-1, True), missing
        await workspace.put("a/b", b"bytes")
        assert await workspace.get_tree(["."], max_bytes=99) == {"a/b": b"bytes"}


async def test_it_is_recycled_as_ours_are_and_said_once(
    provider: Provider, bare: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(provider, PooledProvider)
    spec = WorkspaceSpec(image=bare, limits=SMALL)
    for _ in range(3):
        async with opened(provider, spec) as workspace:
            await workspace.put("left", b"behind")
            assert list(await workspace.get_tree(["."], max_bytes=99)) == ["left"]
    assert provider.counts["recycled"] == 2
    notes = [r.getMessage() for r in caplog.records if "is not an image of ours" in r.getMessage()]
    assert len(notes) == 1
    assert bare in notes[0]


async def test_the_volumes_of_an_image_are_shared_labelled_and_never_nameless(
    engine: docker.APIClient, other: str
) -> None:
    run_id = f"foreign-left-{os.getpid()}"
    provider = open_provider("docker", run_id=run_id)
    spec = WorkspaceSpec(image=other, limits=SMALL)
    async with opened(provider, spec, fresh=True):
        known = volumes_of(engine)
        async with opened(provider, spec, fresh=True):
            assert volumes_of(engine) == known
    await provider.close()
    ours = volumes_of(engine, label=LABEL)
    assert leftovers(run_id) == []
    assert known - ours == volumes_of(engine) - ours


async def test_a_reference_that_leads_nowhere_is_one_clear_error(provider: Provider) -> None:
    with pytest.raises(ImageError, match=r"neither has 127\.0\.0\.1:9/no/such nor can fetch"):
        await provider.prepare(["docker:127.0.0.1:9/no/such"])


async def test_bwrap_says_that_it_needs_an_engine() -> None:
    provider = BwrapProvider()
    with pytest.raises(ImageError, match="on a Docker Engine only"):
        await provider.open(WorkspaceSpec(image="docker:debian:12"))
    await provider.close()
