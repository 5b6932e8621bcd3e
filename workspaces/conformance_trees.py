"""What every provider must do with whole trees: tars, differences, snapshots, forks, as checks."""

# The name of a check is what it claims.
# ruff: noqa: D103

from __future__ import annotations

import io
import tarfile

from .base import Provider, Workspace, forked, opened
from .conformance_kit import SPEC, bash, provider_check, refused, workspace_check
from .difference import difference
from .errors import FileRefused
from .types import MIB, Snapshot

WORK = r"""
echo 'x = 2' > pkg/mod.py; rm seed.txt; printf 'new\nfile' > 'a name.txt'
printf '\xff\xfe' > binary; printf '#!/bin/sh\n' > tool; chmod 755 tool
printf 'odd\n' > $'tab\tname'; mkdir empty
"""
EVERYTHING = r"""
mkdir -p a/b ~/c /tmp/d; echo one > a/one; ln a/one a/two; ln -s one a/link; ln -s /etc/passwd out
mkfifo pipe; printf '\xff' > $'\xff\xfe'; truncate -s 100K holes; rm seed.txt
mkdir locked; echo s > locked/secret; chmod 000 locked/secret; chmod 511 locked; chmod 4750 a/one
echo h > ~/c/h; echo t > /tmp/d/t; touch -d '2001-02-03 04:05:06.5' a/b ~/c; chmod 711 ~
"""
LISTED = (
    "cd /; find workspace home/agent tmp -not -path 'tmp/.output*' -not -path tmp -printf "
    "'%p %y %m %n %s %l %T@\\n' | sort; cat workspace/a/two home/agent/c/h tmp/d/t; "
    "stat -c %a workspace/locked/secret"
)


@workspace_check
async def a_tar_carries_modes_and_folders_and_no_links(workspace: Workspace) -> None:
    await bash(workspace, "mkdir -p t/empty; echo x > t/x; chmod 750 t/x; ln t/x t/y; echo 1 > one")
    with tarfile.open(fileobj=io.BytesIO(await workspace.get_tar("t", max_bytes=MIB))) as tar:
        found = {member.name: (member.type, member.mode) for member in tar}
        assert tar.extractfile("x").read() == b"x\n"  # type: ignore[union-attr]
    file, folder = (tarfile.REGTYPE, 0o750), (tarfile.DIRTYPE, 0o755)
    assert found == {".": folder, "empty": folder, "x": file, "y": file}, found
    await workspace.put_tree(await workspace.get_tar("t", max_bytes=MIB), "again")
    same = await bash(workspace, "diff -r t again && stat -c %a again/x")
    assert same.stdout == "750\n", same
    await workspace.put_tree(await workspace.get_tar("one", max_bytes=MIB), "again")
    assert await workspace.get("again/one", max_bytes=9) == b"1\n"
    await bash(workspace, "head -c 2M /dev/zero > big; mkdir l; ln -s / l/root; ln -s t to")
    await refused(workspace.get_tar("big", max_bytes=MIB))
    for path in ("l", "l/root", "to/x", "..", "/etc", "/proc"):
        await refused(workspace.get_tar(path, max_bytes=MIB))
    await refused(workspace.get_tar("gone", max_bytes=MIB), FileNotFoundError)


@provider_check
async def a_difference_says_what_changed_and_its_patch_makes_it(provider: Provider) -> None:
    async with opened(provider, SPEC) as first:
        same = await difference(first)
        assert (same.added, same.changed, same.removed, same.patch) == ({}, {}, (), ""), same
        await bash(first, WORK)
        found = await difference(first)
        assert list(found.added) == ["a name.txt", "binary", "tab\tname", "tool"], found
        assert (list(found.changed), found.removed) == (["pkg/mod.py"], ("seed.txt",)), found
        assert "-x = 1\n+x = 2\n" in found.patch, found.patch
        assert "Binary files a/binary and b/binary differ" in found.patch, found.patch
        assert list((await difference(first, ["pkg"])).changed) == ["pkg/mod.py"]
        await bash(first, "ln -s /etc pkg/link; mkfifo pkg/pipe; rm pkg/mod.py; mkdir pkg/mod.py")
        kinds = await difference(first, ["pkg"])
        assert {path: entry.kind for path, entry in kinds.added.items()} == {
            "pkg/link": "link", "pkg/pipe": "other"
        }, kinds  # fmt: skip
        assert kinds.removed == ("pkg/mod.py",), kinds
    async with opened(provider, SPEC) as second:
        parts = found.patch.split("diff --git ")
        applied = "".join(f"diff --git {part}" for part in parts[1:] if "Binary files" not in part)
        done = await second.exec(["git", "apply", "-"], stdin=applied.encode())
        assert done.exit_code == 0, done
        again = await difference(second)
        assert again.patch == applied, again.patch


@workspace_check
async def a_snapshot_brings_everything_back(workspace: Workspace) -> None:
    await bash(workspace, EVERYTHING)
    before = await bash(workspace, LISTED)
    snapshot = await workspace.snapshot()
    assert (await bash(workspace, LISTED)).stdout == before.stdout  # taking it changes nothing
    service = await workspace.start(["sleep", "54321"])
    await bash(workspace, "chmod 700 locked; rm -rf * ~/c /tmp/d; echo junk > junk; touch ~/junk")
    await workspace.restore(snapshot)
    after = await bash(workspace, LISTED)
    assert after.stdout == before.stdout, (before.stdout, after.stdout)
    await refused(service.report())
    await refused(workspace.snapshot(max_bytes=1000))
    assert (await bash(workspace, "seq 100000")).truncated  # spilling still works


@provider_check
async def forks_begin_alike_and_go_on_apart(provider: Provider) -> None:
    async with opened(provider, SPEC) as trunk:
        await bash(trunk, "echo trunk > work; echo h > ~/h; echo t > /tmp/t")
        async with forked(provider, trunk) as left, forked(provider, left, fresh=True) as right:
            for fork in (left, right):
                seen = await bash(fork, "cat work ~/h /tmp/t seed.txt; echo $FROM_SPEC")
                assert seen.stdout == "trunk\nh\nt\nseed\nspec\n", seen
            await bash(left, "echo left > work")
            await bash(right, "rm work")
        assert await trunk.get("work", max_bytes=9) == b"trunk\n"


@workspace_check
async def a_snapshot_that_was_tampered_with_stays_in_its_place(workspace: Workspace) -> None:
    for name in ("etc/passwd", "../etc/x", "workspace/../etc/x", "dev/shm/x"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            tar.addfile(tarfile.TarInfo(name))
        await refused(workspace.restore(Snapshot(image=workspace.spec.image, data=out.getvalue())))
    await refused(workspace.restore(Snapshot(image="office", data=b"")), ValueError)
    await refused(
        workspace.restore(Snapshot(image=workspace.spec.image, data=b"no tar")), FileRefused
    )
    assert (await bash(workspace, "ls; echo ok")).stdout == "ok\n"
