"""What every provider must do, as checks that run against a real one. The contract, executable.

`CHECKS` maps a property to an async check that takes a provider and raises `AssertionError`. A new
provider passes them all, or lists what it cannot do, with the reason, in tests/workspaces.
"""

# The name of a check is what it claims.

from __future__ import annotations

import asyncio
import io
import tarfile

from . import conformance_sessions, conformance_trees  # noqa: F401  (register their checks)
from .artifact import Artifact, collect, lay
from .base import Provider, Workspace, opened
from .conformance_kit import CHECKS, SMALL, SPEC, bash, provider_check, refused, workspace_check
from .errors import DiskFull, WorkspaceGone
from .trees import pack_tree
from .types import KIB, MIB, Limits, WorkspaceSpec

__all__ = ["CHECKS", "SMALL", "SPEC", "bash"]


@workspace_check
async def a_failing_command_is_a_result(workspace: Workspace) -> None:
    result = await bash(workspace, "echo out; echo err >&2; exit 7")
    assert (result.exit_code, result.stdout, result.stderr) == (7, "out\n", "err\n"), result
    assert (result.stdout_bytes, result.stderr_bytes) == (4, 4), result
    assert not result.timed_out, result
    assert not result.truncated, result


@workspace_check
async def a_signal_is_reported_as_a_shell_does(workspace: Workspace) -> None:
    assert (await bash(workspace, "kill -TERM $$")).exit_code == 143


@workspace_check
async def a_command_that_cannot_start_says_why(workspace: Workspace) -> None:
    result = await workspace.exec(["no-such-program"])
    assert result.exit_code == -1, result
    assert "no-such-program" in result.stderr, result
    assert (await workspace.exec(["true"], cwd="no/such/folder")).exit_code == -1


@workspace_check
async def stdin_env_and_cwd_reach_the_command(workspace: Workspace) -> None:
    data = bytes(range(256)) * 1000
    result = await workspace.exec(["sha256sum"], stdin=data)
    check = await workspace.exec(["python3", "-c", _HASH_OF_BYTES])
    assert result.stdout.split()[0] == check.stdout.strip(), (result, check)
    script = "echo $FROM_SPEC $FROM_CALL $PWD; cat /dev/stdin; echo x > /dev/stdout"
    argv = ["bash", "-c", script]
    result = await workspace.exec(argv, env={"FROM_CALL": "call"}, cwd="pkg", stdin=b"in\n")
    assert result.stdout == "spec call /workspace/pkg\nin\nx\n", result
    assert (await workspace.exec(["pwd"], cwd="/tmp")).stdout == "/tmp\n"
    assert (await workspace.exec(["cat"])).stdout == ""


_HASH_OF_BYTES = "import hashlib; print(hashlib.sha256(bytes(range(256)) * 1000).hexdigest())"


@workspace_check
async def the_deadline_kills_every_child_and_keeps_the_output(workspace: Workspace) -> None:
    result = await bash(workspace, f"echo early; {_DAEMON} sleep 60", timeout_s=1.5)
    assert result.timed_out, result
    assert result.stdout == "early\n", result
    assert result.duration_s < 10, result
    await _nobody_is_left(workspace)


@workspace_check
async def children_do_not_outlive_a_command(workspace: Workspace) -> None:
    result = await bash(workspace, f"{_DAEMON} (sleep 60; echo late) & echo done")
    assert not result.timed_out, result
    assert result.stdout == "done\n", result
    assert result.duration_s < 10, result
    await _nobody_is_left(workspace)


_DAEMON = """python3 -c '
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
' ;"""


async def _nobody_is_left(workspace: Workspace) -> None:
    others = await bash(workspace, "ps -e -o pid= -o stat= -o args= | grep -v ps | tail -n +2")
    alive = [line for line in others.stdout.splitlines() if "sleep" in line]
    assert not alive, alive


@workspace_check
async def a_fork_bomb_ends_at_the_deadline(workspace: Workspace) -> None:
    result = await bash(workspace, "f() { f | f & }; f 2>/dev/null; sleep 60", timeout_s=2)
    assert result.exit_code != 0, result
    assert (await workspace.exec(["echo", "alive"])).stdout == "alive\n"


@workspace_check
async def long_output_keeps_head_and_tail_and_spills_the_whole(workspace: Workspace) -> None:
    result = await bash(workspace, "seq 100000; echo err >&2")
    assert result.stdout_bytes == 588895, result.stdout_bytes
    assert result.stdout.startswith("1\n2\n"), result.stdout[:20]
    assert result.stdout.endswith("\n100000\n"), result.stdout[-20:]
    assert len(result.stdout) < SMALL.output_bytes + 200, len(result.stdout)
    assert result.truncated, result
    assert result.stderr == "err\n", result
    page = await bash(workspace, f"sed -n 50000p {result.spill_path}; wc -c < {result.spill_path}")
    assert page.stdout == "50000\n588899\n", page


@workspace_check
async def undecodable_output_is_replaced_in_text_and_survives_in_bytes(
    workspace: Workspace,
) -> None:
    result = await bash(workspace, r"printf 'a\xff\xfeb'; echo fine >&2")
    assert (result.stdout, result.stdout_bytes) == ("a\ufffd\ufffdb", 4), result
    assert result.streams == (b"a\xff\xfeb", b"fine\n"), result.streams
    valid = await bash(workspace, "echo \u00e4")
    assert (valid.raw, valid.streams[0]) == (None, "\u00e4\n".encode()), valid


@workspace_check
async def why_a_command_ended_stands_apart_from_its_exit_code(workspace: Workspace) -> None:
    async def why(script: str, timeout_s: float = 20.0) -> str | None:
        return (await bash(workspace, script, timeout_s)).error

    assert await why("exit 137") is None
    assert await why("kill -9 $$") == "signal"
    assert await why("sleep 60", 0.5) == "timed_out"
    assert (await workspace.exec(["no-such-program"])).error == "not_started"
    hog = await workspace.exec(["python3", "-c", "x = bytearray(1 << 30)"])
    assert hog.error in ("out_of_memory", "signal", None), hog  # None: it could not even map it


@workspace_check
async def a_spill_file_is_read_page_by_page(workspace: Workspace) -> None:
    result = await bash(workspace, "seq 100000")
    assert result.spill_path is not None, result
    whole, size = b"", 1
    while len(whole) < size:
        page = await workspace.page(result.spill_path, offset=len(whole), max_bytes=100_000)
        whole, size = whole + page.data, page.size
    assert whole == "".join(f"{n}\n" for n in range(1, 100001)).encode(), len(whole)
    assert (await workspace.page(result.spill_path, offset=size + 5)).data == b""
    await bash(workspace, "ln -s /etc/passwd link")
    await refused(workspace.page("link"))
    await refused(workspace.page("nothing"), FileNotFoundError)


@workspace_check
async def files_round_trip_with_mode_and_owner(workspace: Workspace) -> None:
    data = bytes(range(256)) * 4096 * 8  # 8 MiB
    await workspace.put("deep/er/big.bin", data, mode=0o755)
    assert await workspace.get("deep/er/big.bin", max_bytes=len(data)) == data
    listing = await bash(workspace, "stat -c '%u %a %s' deep/er/big.bin; stat -c %u deep")
    assert listing.stdout == f"1000 755 {len(data)}\n1000\n", listing
    for path in ("/tmp/x", "/home/agent/x"):
        await workspace.put(path, b"")
        assert await workspace.get(path, max_bytes=0) == b""
    await refused(workspace.get("nothing", max_bytes=9), FileNotFoundError)
    await refused(workspace.get("no/folder/x", max_bytes=9), FileNotFoundError)


@workspace_check
async def transfers_refuse_links_escapes_devices_and_oversize(workspace: Workspace) -> None:
    await bash(
        workspace,
        "ln -s /etc/passwd link; ln -s /etc etc; mkfifo pipe; mkdir dir; ln -s dir here; "
        "truncate -s 100 big; touch dir/x",
    )
    for path in ("link", "etc/passwd", "here/x", "pipe", "dir", "big", ".", "/etc/passwd",
                 "../etc/passwd", "/workspace/../etc/passwd", "/proc/1/environ", "/dev/null",
                 "/workspacex", "a\0b"):  # fmt: skip
        await refused(workspace.get(path, max_bytes=99))
        if path != "big":
            await refused(workspace.put(path, b"x"))
    assert (await bash(workspace, "cat dir/x; ls")).stdout == (
        "big\ndir\netc\nhere\nlink\npipe\npkg\nseed.txt\n"
    )
    for path in ("link", "pipe", "etc", "here/x", "..", "/etc", "."):
        await refused(workspace.get_tree([path], max_bytes=MIB))


@workspace_check
async def trees_refuse_links_devices_and_escapes(workspace: Workspace) -> None:
    for name, kind in (
        ("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("device", tarfile.CHRTYPE),
        ("pipe", tarfile.FIFOTYPE), ("../up", tarfile.REGTYPE), ("/tmp/abs", tarfile.REGTYPE),
    ):  # fmt: skip
        await refused(workspace.put_tree(_tar_of(name, kind)))
    await refused(workspace.put_tree(b"no tar at all"))
    assert (await bash(workspace, "ls; ls /tmp")).stdout == "pkg\nseed.txt\n"


def _tar_of(name: str, kind: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "seed.txt"
        tar.addfile(info)
    return out.getvalue()


@workspace_check
async def trees_round_trip(workspace: Workspace) -> None:
    files = {"a/b/c.txt": b"c", "a/\u00e4 space.bin": bytes(range(256)), "empty": b""}
    await workspace.put_tree(pack_tree(files), "tree")
    expected = {f"tree/{name}": data for name, data in files.items()}
    assert await workspace.get_tree(["tree", "gone"], max_bytes=MIB) == expected
    assert await workspace.get_tree(["tree/empty", "tree/a"], max_bytes=257) == expected
    await refused(workspace.get_tree(["tree"], max_bytes=256))


@provider_check
async def the_seed_is_laid_and_owned_and_an_artifact_carries_the_difference(
    provider: Provider,
) -> None:
    async with opened(provider, SPEC) as first:
        listing = await bash(first, "stat -c '%n %u %g' . seed.txt pkg pkg/mod.py; cat seed.txt")
        assert listing.stdout == (
            ". 1000 1000\nseed.txt 1000 1000\npkg 1000 1000\npkg/mod.py 1000 1000\nseed\n"
        ), listing
        assert (await collect(first, ["."])).files == {}
        await bash(first, "rm seed.txt; echo 'x = 2' > pkg/mod.py; echo new > pkg/new.py")
        artifact = await collect(first, ["."])
    expected = {"pkg/mod.py": b"x = 2\n", "pkg/new.py": b"new\n", "seed.txt": None}
    assert artifact == Artifact(files=expected), artifact
    async with opened(provider, SPEC) as second:
        await lay(second, artifact)
        listing = await bash(second, "find . -type f | sort; cat pkg/mod.py")
        assert listing.stdout == "./pkg/mod.py\n./pkg/new.py\nx = 2\n", listing


@workspace_check
async def there_is_no_network_but_loopback(workspace: Workspace) -> None:
    assert (await bash(workspace, "tail -n +3 /proc/net/dev | cut -d: -f1")).stdout.strip() == "lo"
    probe = "import socket; socket.create_connection(('192.0.2.1', 80), 3)"
    assert (await workspace.exec(["python3", "-c", probe])).exit_code != 0


@workspace_check
async def commands_have_no_privilege(workspace: Workspace) -> None:
    assert (await bash(workspace, "id -u; id -g; id -G")).stdout == "1000\n1000\n1000\n"
    status = (await bash(workspace, "cat /proc/self/status")).stdout
    for line in ("CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in status, status


@workspace_check
async def every_command_starts_the_same_whoever_was_before_it(workspace: Workspace) -> None:
    # glibc leaves its own two signals, 32 and 33, ignored where it spawns and where it does not
    seen = "grep -E '^(Uid|Gid|SigBlk|Cap|Threads)' /proc/self/status; "
    seen += "echo $((0x$(grep SigIgn /proc/self/status | cut -f 2) & 0x7FFFFFFF)) ignored; "
    seen += "cat /proc/self/oom_score_adj; ls /proc/$$/fd; umask; ulimit -a; "
    seen += "test $(ps -o sid= $$) = $$ && pwd; echo $PATH"
    first = await bash(workspace, seen)
    assert "Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000" in first.stdout, first
    assert "SigBlk:\t0000000000000000\n" in first.stdout, first
    assert "\n0 ignored\n1000\n0\n1\n2\n" in first.stdout, first
    for script in ("true", "no-such", _DAEMON, "kill -9 -1", "sleep 60 &", "ulimit -n 9; umask 0"):
        await bash(workspace, f"cd /tmp; {script}")
        again = await bash(workspace, seen)
        assert again.stdout == first.stdout, (script, first, again)


@workspace_check
async def only_the_declared_places_are_writable(workspace: Workspace) -> None:
    for folder in ("/", "/usr", "/etc", "/opt", "/var", "/dev", "/proc", "/sys", "/root", "/home"):
        attempt = await workspace.exec(["touch", f"{folder}/x"])
        assert attempt.exit_code != 0, f"{folder} is writable"
    writable = await bash(workspace, "touch /workspace/x /tmp/x ~/x && echo ok")
    assert writable.stdout == "ok\n", writable


@workspace_check
async def commands_cannot_end_or_reach_the_runner(workspace: Workspace) -> None:
    await bash(workspace, "kill -9 1; kill -TERM 1; kill -HUP 1; kill -INT 1; kill -ALRM 1")
    await bash(workspace, "trap '' TERM; kill -STOP 1; kill -9 -1")
    reach = await bash(
        workspace, "echo x > /proc/1/fd/1; cat /proc/1/fd/* /proc/1/mem; readlink /proc/1/fd/*"
    )
    assert reach.exit_code != 0, reach
    assert reach.stdout == "", reach
    assert (await workspace.exec(["echo", "alive"])).stdout == "alive\n"


@workspace_check
async def a_full_workspace_is_a_result_and_then_a_clear_error(workspace: Workspace) -> None:
    fill = await bash(workspace, "head -c 100M /dev/zero > filler")
    assert fill.exit_code != 0, fill
    assert "No space left" in fill.stderr, fill
    await refused(workspace.put("more", bytes(64 * KIB)), DiskFull)
    assert (await bash(workspace, "ls | grep -v -e pkg -e seed; rm filler")).stdout == "filler\n"
    await workspace.put("more", b"fits")
    await bash(workspace, "head -c 100M /dev/zero > /tmp/filler; head -c 100M /dev/zero > ~/filler")
    result = await bash(workspace, "seq 100000")  # cannot be spilled, still ends well
    assert result.stdout.endswith("100000\n"), result


@workspace_check
async def using_too_much_memory_ends_the_command_alone(workspace: Workspace) -> None:
    hog = "x = bytearray(1 << 30); print('got it')"
    result = await workspace.exec(["python3", "-c", hog])
    assert result.exit_code != 0, result
    assert "got it" not in result.stdout, result
    assert (await workspace.exec(["echo", "alive"])).stdout == "alive\n"


@workspace_check
async def processes_are_limited(workspace: Workspace) -> None:
    result = await bash(workspace, "for i in $(seq 200); do sleep 5 & done; wait", timeout_s=15)
    assert result.exit_code != 0, result
    assert "Resource temporarily unavailable" in result.stderr, result.stderr[:500]


@provider_check
async def the_lifetime_ends_a_workspace(provider: Provider) -> None:
    brief = WorkspaceSpec(image="python", limits=Limits(lifetime_s=2.0))
    async with opened(provider, brief) as workspace:
        await refused(workspace.exec(["sleep", "30"]), WorkspaceGone)
        await refused(workspace.exec(["true"]), WorkspaceGone)
        await refused(workspace.get("x", max_bytes=1), WorkspaceGone)


@provider_check
async def closing_twice_or_early_is_safe(provider: Provider) -> None:
    workspace = await provider.open(SPEC)
    running = asyncio.create_task(workspace.exec(["sleep", "30"]))
    await asyncio.sleep(0.2)
    await asyncio.gather(workspace.close(), workspace.close())
    await workspace.close()
    await refused(running, WorkspaceGone)
    await refused(workspace.exec(["true"]), WorkspaceGone)


@provider_check
async def workspaces_do_not_see_each_other(provider: Provider) -> None:
    async with opened(provider, SPEC) as first, opened(provider, SPEC) as second:
        running = asyncio.create_task(bash(first, "touch /tmp/mine mine; exec sleep 4.75"))
        await asyncio.sleep(0.3)
        seen = await bash(second, "ls /tmp /workspace; ps -e -o args")
        assert "mine" not in seen.stdout, seen
        assert "4.75" not in seen.stdout, seen
        await running


@workspace_check
async def a_cancelled_command_leaves_the_stream_in_step(workspace: Workspace) -> None:
    running = asyncio.create_task(bash(workspace, "sleep 1; echo late"))
    await asyncio.sleep(0.2)
    running.cancel()
    await refused(running, asyncio.CancelledError)  # type: ignore[arg-type]
    assert (await workspace.exec(["echo", "mine"])).stdout == "mine\n"


@provider_check
async def many_workspaces_work_at_once(provider: Provider) -> None:
    async def one(number: int) -> str:
        async with opened(provider, SPEC) as workspace:
            await workspace.put("n", str(number).encode())
            return (await workspace.exec(["cat", "n"])).stdout

    assert await asyncio.gather(*map(one, range(16))) == [str(n) for n in range(16)]
