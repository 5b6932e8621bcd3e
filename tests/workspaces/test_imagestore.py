"""What images take is counted, the least recently used go first, and no room is said beforehand."""

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace

import docker
import pytest

from rollmill.workspaces import DiskFull, ImageError, images
from rollmill.workspaces.bootstrap import check_platform
from rollmill.workspaces.engine import connect
from rollmill.workspaces.imagestore import (
    Stored,
    admit,
    note_use,
    remove,
    stored,
    to_evict,
    total_bytes,
)
from rollmill.workspaces.layers import architecture

OLD = Stored(
    name="a", tag="rollmill/a:1", digest="sha256:1", platform="linux/amd64", state="current",
    bytes=100, shared_bytes=60, containers=0, used_s=1.0,
)  # fmt: skip
NEW = replace(OLD, name="b", tag="rollmill/b:1", used_s=2.0)
BUSY = replace(OLD, name="c", tag="rollmill/c:1", used_s=None, containers=1)
GONE_BY = replace(OLD, name="a", tag="rollmill/a:0", used_s=3.0, state="superseded")


def test_shared_layers_count_once() -> None:
    assert total_bytes([]) == 0
    assert total_bytes([OLD, NEW]) == 40 + 40 + 60
    assert total_bytes([OLD, replace(NEW, shared_bytes=0)]) == 40 + 100 + 60


def test_the_superseded_go_then_the_least_recently_used_and_the_busy_never() -> None:
    found = [NEW, OLD, BUSY, GONE_BY]
    assert to_evict(found) == [GONE_BY]
    assert to_evict(found, keep_bytes=1000) == [GONE_BY]
    assert to_evict(found, keep_bytes=40 + 40 + 60) == [GONE_BY, OLD]
    assert to_evict(found, keep_bytes=0) == [GONE_BY, OLD, NEW]
    assert to_evict([replace(NEW, used_s=None), OLD], keep_bytes=100)[0].used_s is None


@pytest.fixture
def engine() -> Iterator[docker.APIClient]:
    client, _ = connect()
    with contextlib.closing(client):
        yield client


def one_file(name: str, size: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = size
        tar.addfile(info, io.BytesIO(os.urandom(size)))
    return out.getvalue()


@pytest.mark.docker
def test_images_are_found_with_platform_sizes_and_use_and_removed(
    engine: docker.APIClient,
) -> None:
    label = f"rollmill-test-{os.getpid()}"
    tags = [f"{label}/{name}:1" for name in ("first", "second")]
    for tag in tags:
        repository, _, version = tag.partition(":")
        engine.import_image_from_data(
            one_file(tag.replace("/", "-"), 300_000), repository=repository, tag=version,
            changes=[f"LABEL {label}=1"],
        )  # fmt: skip
    assert {one.used_s for one in stored(engine, label=label)} == {None}
    for tag in reversed(tags):
        note_use(tag)
    found = stored(engine, label=label)
    assert [one.tag for one in found] == tags
    assert {one.platform for one in found} == {f"linux/{architecture()}"}
    assert all(one.unique_bytes >= 300_000 for one in found)
    assert {one.state for one in found} == {"superseded"}
    assert [one.tag for one in remove(engine, found)] == tags
    assert stored(engine, label=label) == []


@pytest.mark.docker
def test_a_build_without_room_is_refused_before_it_begins(engine: docker.APIClient) -> None:
    spec = images.ImageSpec(packages=("python3",), disk_bytes=1 << 60)
    with pytest.raises(DiskFull, match=r"needs about \d+ MiB at .* `rollmill images gc`"):
        admit(engine, "huge", spec)
    admit(engine, "small", replace(spec, disk_bytes=1))


@pytest.mark.docker
def test_no_image_is_made_here_for_another_kind_of_machine(
    engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_platform(engine)
    here = images.tag_of("python")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ImageError, match="this machine is riscv64, the engine "):
        check_platform(engine)
    assert images.tag_of("python") != here
