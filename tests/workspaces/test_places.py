"""Folders of an image that commands may change: copies, limited, each for one use."""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import docker
import pytest

from rollmill.workspaces import (
    MIB,
    BwrapProvider,
    ImageError,
    PooledProvider,
    WorkspaceSpec,
    forked,
    images,
    open_provider,
    opened,
)
from rollmill.workspaces.conformance import CHECKS, SMALL, bash
from rollmill.workspaces.engine import connect
from rollmill.workspaces.foreign import volume, volume_name

from .respecced import Respecced

PLACE = "/opt/app"
LAY = (
    f"mkdir -p {PLACE}/private && cd {PLACE} && echo 'print(1)' > main.py && ln -s main.py link && "
    "echo kept > private/file && chmod 700 private && chmod 755 main.py && chown -R 33 private && "
    "touch -d 2001-02-03T04:05:06Z main.py"
)
pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.APIClient]:
    client, _ = connect()
    with contextlib.closing(client):
        yield client


def volumes_of(engine: docker.APIClient) -> set[str]:
    return {one["Name"] for one in engine.volumes()["Volumes"] or ()}


@pytest.fixture(scope="module")
def spec(engine: docker.APIClient) -> Iterator[WorkspaceSpec]:
    """An image with an application in /opt/app, which is also a volume of the image."""
    name = f"rollmill-test-places:{os.getpid()}"
    closed = engine.create_host_config(network_mode="none")
    made = engine.create_container(
        images.ensure(engine, "python"), ["sh", "-c", LAY], user="0", host_config=closed
    )
    repository, _, tag = name.partition(":")
    before = volumes_of(engine)
    try:
        engine.start(made["Id"])
        assert engine.wait(made["Id"])["StatusCode"] == 0
        engine.commit(made["Id"], repository=repository, tag=tag, changes=[f"VOLUME {PLACE}"])
    finally:
        engine.remove_container(made["Id"], v=True, force=True)
    yield WorkspaceSpec(image=f"docker:{name}", limits=SMALL, writable=(PLACE, "/opt/new"))
    left = {one for one in volumes_of(engine) - before if "-runtime-" not in one}
    for one in left:  # but for the runtime, which is for all images
        engine.remove_volume(one)
    engine.remove_image(name, force=True)
    assert all(one.startswith("rollmill-") for one in left), left


@pytest.fixture
async def provider() -> AsyncIterator[PooledProvider]:
    provider = open_provider("docker", run_id=f"places-{os.getpid()}")
    assert isinstance(provider, PooledProvider)
    yield provider
    await provider.close()


LOOK = (
    f"cd {PLACE} && stat -c '%n %a %U %s' . * private/file && stat -c %Y main.py && readlink link"
)
SEEN = """\
. 755 agent 100
link 777 agent 7
main.py 755 agent 9
private 700 agent 60
private/file 644 agent 5
981173106
main.py
"""


async def test_commands_change_copies_and_nobody_else_sees_it(
    provider: PooledProvider, spec: WorkspaceSpec
) -> None:
    for _ in range(2):
        async with opened(provider, spec) as workspace:
            seen = await bash(workspace, LOOK)
            assert (seen.stdout, seen.stderr) == (SEEN, ""), seen
            changed = await bash(
                workspace, f"cd {PLACE} && echo 'print(2)' > main.py && rm -r private && "
                "touch /opt/new/file && ./link 2>&1; python3 link; touch /opt/x"
            )  # fmt: skip
            assert changed.stdout.endswith("2\n"), changed
            assert "'/opt/x': Read-only file system" in changed.stderr, changed
    assert (provider.counts["started"], provider.counts["recycled"]) == (2, 0)


async def test_each_is_limited_as_the_workspace_is(
    provider: PooledProvider, spec: WorkspaceSpec
) -> None:
    small = replace(spec, limits=replace(SMALL, workspace_bytes=4 * MIB))
    async with opened(provider, small) as workspace:
        for place in spec.writable:
            filled = await bash(
                workspace, f"head -c 1G /dev/zero > {place}/a; stat -c %s {place}/a"
            )
            assert "No space left" in filled.stderr, filled
            assert int(filled.stdout) <= 4 * MIB


async def test_a_folder_that_does_not_fit_says_so(
    provider: PooledProvider, spec: WorkspaceSpec
) -> None:
    tiny = replace(spec, limits=replace(SMALL, inodes=3))
    with pytest.raises(Exception, match=rf"cannot copy the image's {PLACE} .*No space left"):
        await provider.open(tiny)


async def test_snapshots_forks_and_transfers_know_them(
    provider: PooledProvider, spec: WorkspaceSpec
) -> None:
    async with opened(provider, spec) as workspace:
        await workspace.put(f"{PLACE}/main.py", b"print(3)\n")
        async with forked(provider, workspace) as branch:
            assert (await bash(branch, f"python3 {PLACE}/main.py")).stdout == "3\n"
            await bash(branch, f"rm {PLACE}/main.py")
        snapshot = await workspace.snapshot()
        await bash(workspace, f"cd {PLACE} && rm -r main.py private && touch more")
        await workspace.restore(snapshot)
        assert await workspace.get(f"{PLACE}/main.py", max_bytes=99) == b"print(3)\n"
        left = await bash(workspace, f"cd {PLACE} && stat -c '%n %a %U' . *")
        assert left.stdout == (
            ". 755 agent\nlink 777 agent\nmain.py 644 agent\nprivate 700 agent\n"
        ), left


async def test_a_copy_that_was_cut_off_is_made_again(
    engine: docker.APIClient, spec: WorkspaceSpec
) -> None:
    digest = images.ensure(engine, spec.image)
    content = f"{digest} {PLACE}"
    for kind in ("place", "whole"):
        with contextlib.suppress(docker.errors.NotFound):
            engine.remove_volume(volume_name(kind, content))
    torn = docker.types.Mount("/etc/skel", volume(engine, "place", content), type="volume")
    config = engine.create_host_config(network_mode="none", mounts=[torn])
    made = engine.create_container(digest, ["true"], host_config=config)
    engine.remove_container(made["Id"], v=True)
    provider = open_provider("docker", run_id=f"places-{os.getpid()}")
    async with opened(provider, spec) as workspace:
        assert (await bash(workspace, LOOK)).stdout == SEEN
    await provider.close()


TOUCHED = (
    "a_tar_carries_modes_and_folders_and_no_links",
    "a_difference_says_what_changed_and_its_patch_makes_it",
    "a_snapshot_brings_everything_back",
    "a_snapshot_that_was_tampered_with_stays_in_its_place",
    "forks_begin_alike_and_go_on_apart",
    "transfers_refuse_links_escapes_devices_and_oversize",
    "commands_have_no_privilege",
    "only_the_declared_places_are_writable",
    "commands_cannot_end_or_reach_the_runner",
    "a_full_workspace_is_a_result_and_then_a_clear_error",
    "using_too_much_memory_ends_the_command_alone",
    "workspaces_do_not_see_each_other",
)
"""Of the contract, what further places could break."""


@pytest.mark.parametrize("check", TOUCHED)
async def test_the_contract_holds(
    provider: PooledProvider, spec: WorkspaceSpec, check: str
) -> None:
    await CHECKS[check](
        Respecced(provider, lambda one: replace(one, image=spec.image, writable=spec.writable))
    )


async def test_bwrap_says_that_it_needs_an_engine() -> None:
    provider = BwrapProvider()
    with pytest.raises(ImageError, match=r"got /opt/app: .* on a Docker Engine only"):
        await provider.open(WorkspaceSpec(image="python", writable=(PLACE,)))
    await provider.close()


@pytest.mark.parametrize(
    "places",
    [
        ("/",), ("opt",), ("/opt/../etc",), ("/opt/",), ("/workspace/x",), ("/home",), ("/tmp",),
        ("/opt", "/opt/app"), ("/opt/a", "/opt/a"), ("/proc/sys",), ("/opt/a:b",), ("/etc",),
    ],
)  # fmt: skip
def test_places_are_plain_folders_apart_from_ours(places: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="writable must list folders such as '/opt/app'"):
        WorkspaceSpec(image="python", writable=places)
