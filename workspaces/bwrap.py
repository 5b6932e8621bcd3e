"""Workspaces by bubblewrap, for machines without an engine: the host's /usr, all else private.

It needs unprivileged user namespaces. It builds no root file system: what a logical image adds
besides Python packages has to be installed on the host. See `isolation_gaps`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import images, wheelhouse
from .channel import RunnerWorkspace
from .errors import EngineUnavailable, ImageError
from .network import PROXY_ENV, equip
from .program import runner_argv
from .proxy import pins_of_environment, way_out
from .types import MIB, WORKDIR, Limits, WorkspaceSpec

SITE = "/opt/rollmill"
GRACE_S = 10.0
CGROUP_PREFIX = "rollmill-"
CGROUPS = Path("/sys/fs/cgroup")
CPU_PERIOD_US = 100_000  # the kernel's own
HOST_FILES = (
    "/etc/alternatives", "/etc/fonts", "/etc/ld.so.cache", "/etc/libreoffice", "/etc/localtime",
    "/etc/mime.types", "/var/cache/fontconfig", "/var/lib/libreoffice",
)  # fmt: skip
SWITCHES = tuple(
    f"/proc/{name}"
    for name in ("sys", "irq", "bus", "fs", "acpi", "scsi", "driver", "mtrr", "sysrq-trigger")
)
ACCOUNTS = {
    "passwd": "agent:x:1000:1000::/home/agent:/bin/bash\n",
    "group": "agent:x:1000:\n",
}
HOST_PROGRAMS = {"python": {"git": "git"}, "office": {"soffice": "libreoffice-calc-nogui"}}
GAPS = (
    "The host's /usr is visible read-only, so installed programs and their versions leak in.",
    "The runner and the commands share one user; only pid 1 and prctl keep them apart.",
    "There is no seccomp filter: the whole kernel interface of an unprivileged user is open.",
    "Files are not counted: many empty ones take memory up to its limit.",
)
AS_ROOT = (
    "Started by root, commands keep root's user id, though none of its capabilities; "
    "a file in the host's /usr that only root may read is readable.",
)
NO_CGROUPS = (
    "Memory and processes are limited by rlimits, per process, since no cgroup is writable.",
    "CPU is not limited, since no cgroup is writable.",
)


class BwrapProvider:
    """Opens workspaces on this host. One instance belongs to one event loop."""

    name = "bwrap"
    networks = True

    def __init__(self, *, run_id: str = "") -> None:
        """Args:
        run_id: accepted for symmetry; these workspaces are our own child processes.
        """
        self.run_id = run_id
        self._pins = pins_of_environment()
        self._cgroups = writable_cgroups()
        self.isolation_gaps: tuple[str, ...] = (
            *GAPS,
            *(AS_ROOT if os.geteuid() == 0 else ()),
            *(() if self._cgroups else NO_CGROUPS),
        )
        self._sites: dict[str, Path] = {}
        self._bwrap = self._python = ""
        self._open: set[RunnerWorkspace] = set()

    async def prepare(self, names: Sequence[str]) -> dict[str, str]:
        """See `Provider.prepare`."""
        if not self._python:
            self._bwrap, self._python = await asyncio.to_thread(usable)
        for name in names:
            if name not in self._sites:
                self._sites[name] = await asyncio.to_thread(site_packages, name, self._python)
        return {name: f"bwrap:{self._sites[name].name}" for name in names}

    def expect(self, spec: WorkspaceSpec, times: int) -> None:
        """See `Provider.expect`; a new one costs no more than a clean one."""

    async def open(self, spec: WorkspaceSpec, *, fresh: bool = False) -> RunnerWorkspace:
        """See `Provider.open`; every one is fresh."""
        if spec.writable:
            raise ImageError(
                f"expected nothing under `writable`, got {', '.join(spec.writable)}: folders of an "
                "image can be changed on a Docker Engine only"
            )
        await self.prepare([spec.image])
        groups = [make_cgroup(root, spec.limits) for root in self._cgroups]
        process = await asyncio.create_subprocess_exec(
            *_joining(groups),
            *self._command(spec),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MIB,
            env={},
        )
        assert process.stdin
        assert process.stdout
        assert process.stderr
        stderr = bytearray()
        listening = asyncio.create_task(_keep_tail(process.stderr, stderr))
        carriage = way_out(spec, process.stdout, process.stdin, self._pins)

        async def remove() -> None:
            try:
                await asyncio.wait_for(process.wait(), GRACE_S)
            except TimeoutError:
                process.kill()
                await process.wait()
            await listening
            if carriage:
                await carriage.closed()
            for group in groups:
                await _remove_cgroup(group)
            self._open.discard(workspace)

        workspace = RunnerWorkspace(
            spec,
            carriage.control if carriage else process.stdout,
            carriage or process.stdin,
            remove=remove,
            last_words=lambda: stderr.decode(errors="replace"),
            env={
                **(PROXY_ENV if carriage else {}),
                "PATH": f"{SITE}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                "PYTHONPATH": SITE,
            },
        )
        self._open.add(workspace)
        try:
            await workspace.begin()
            await equip(workspace)
        except BaseException:
            await workspace.close()
            raise
        return workspace

    async def close(self) -> None:
        """See `Provider.close`."""
        await asyncio.gather(*(workspace.close() for workspace in list(self._open)))

    def _command(self, spec: WorkspaceSpec) -> list[str]:
        limits = spec.limits
        rlimits: Mapping[int, int] = (
            {}
            if self._cgroups
            else {
                resource.RLIMIT_NPROC: limits.pids,
                resource.RLIMIT_DATA: limits.memory_bytes,
            }
        )
        return [
            self._bwrap,
            "--unshare-all", "--unshare-user", "--disable-userns", "--uid", "1000", "--gid", "1000",
            "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL",
            "--clearenv", "--hostname", "workspace",
            *_host_view(self._python, self._sites[spec.image]),
            "--ro-bind", str(self._sites[spec.image]), SITE,
            "--proc", "/proc", *_switches(), "--dev", "/dev",
            *_tmpfs("/dev/shm", min(limits.tmp_bytes, 64 * MIB), "1777"),
            "--remount-ro", "/dev",
            *_tmpfs(WORKDIR, limits.workspace_bytes, "0755"),
            *_tmpfs("/tmp", limits.tmp_bytes, "1777"),
            *_tmpfs("/home/agent", limits.tmp_bytes, "0755"),
            "--remount-ro", "/",
            "--chdir", WORKDIR,
            "--", *runner_argv(
                limits, python=self._python, rlimits=rlimits, network=bool(spec.network)
            ),
        ]  # fmt: skip


def _switches() -> list[str]:
    """Read-only: the kernel's switches obey whoever is root outside, capabilities or not."""
    return [word for path in SWITCHES for word in ("--ro-bind-try", path, path)]


def _tmpfs(path: str, size: int, mode: str) -> list[str]:
    return ["--perms", mode, "--size", str(size), "--tmpfs", path]


def _host_view(python: str, site: Path) -> list[str]:
    """What of the host is bound, all of it read-only; accounts are our own two files."""
    view = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib64"):
        root = Path("/") / name
        if root.is_symlink():
            view += ["--symlink", str(root.readlink()), str(root)]
        elif root.exists():
            view += ["--ro-bind", str(root), str(root)]
    for path in HOST_FILES:
        view += ["--ro-bind-try", path, path]
    if not python.startswith("/usr/"):
        view += ["--ro-bind", sys.base_prefix, sys.base_prefix]
    for name in ACCOUNTS:
        view += ["--ro-bind", str(site / "etc" / name), f"/etc/{name}"]
    return view


def usable() -> tuple[str, str]:
    """Bubblewrap and the Python for workspaces, once they are known to work. Blocks.

    Raises:
        EngineUnavailable: bubblewrap is missing or may not make namespaces.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise EngineUnavailable("bubblewrap is missing (Debian: apt-get install bubblewrap)")
    probe = [program, "--unshare-all", "--unshare-user", "--ro-bind", "/", "/", "/bin/true"]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        raise EngineUnavailable(
            f"bubblewrap may not make namespaces here: {tried.stderr.strip()}; "
            "allow unprivileged user namespaces, or use a Docker Engine"
        )
    return program, _python()


def _python() -> str:
    """The distribution's Python when it is recent, else the one that runs us."""
    own = "/usr/bin/python3"
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    if Path(own).exists() and subprocess.run([own, "-I", "-c", check], check=False).returncode == 0:
        return own
    return str(Path(sys.base_prefix) / "bin" / "python3")


def site_packages(name: str, python: str) -> Path:
    """A folder with the Python packages of a logical image, built once. Blocks.

    Raises:
        UnknownImage: nothing defines the name.
        ImageError: the host lacks a program of the image, or pip failed.
    """
    spec = images.spec_of(name)
    for program, package in HOST_PROGRAMS.get(name, {}).items():
        if shutil.which(program) is None:
            raise ImageError(
                f"image {name!r} without an engine needs {program} on the host "
                f"(Debian: apt-get install {package})"
            )
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, check=True)
    key = f"{images.tag_of(name)} {version.stdout} {python}"
    place = images.cache_dir() / "site" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    with images.building(place.name):
        if not place.exists():
            _fill(place, spec, python, version.stdout.strip())
    return place


def _fill(place: Path, spec: images.ImageSpec, python: str, version: str) -> None:
    draft = place.with_suffix(f".{uuid.uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        wheelhouse.install(spec.requirements, version, draft)
        shutil.rmtree(draft / "bin", ignore_errors=True)
        (draft / "bin").mkdir()
        (draft / "bin" / "python").symlink_to(python)
        (draft / "bin" / "python3").symlink_to(python)
        for path, text in spec.files.items():
            program = draft / "bin" / Path(path).name
            program.write_text(text.replace("#!/usr/bin/python3", f"#!{python}"))
            program.chmod(0o755)
        (draft / "etc").mkdir()
        for name, line in ACCOUNTS.items():
            (draft / "etc" / name).write_text(line)
        draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def writable_cgroups() -> tuple[Path, ...]:
    """The cgroup folders we may make children in: memory, pids and cpu (v1). Empty = none."""
    roots = (CGROUPS / "memory", CGROUPS / "pids", CGROUPS / "cpu")
    return roots if all(os.access(root / "cgroup.procs", os.W_OK) for root in roots) else ()


def make_cgroup(root: Path, limits: Limits) -> Path:
    """A fresh child of a v1 hierarchy with its limit set."""
    group = root / f"{CGROUP_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}"
    group.mkdir()
    settings = {
        "memory": {  # in this order; the second counts swap too, where the kernel counts it
            "memory.limit_in_bytes": limits.memory_bytes,
            "memory.memsw.limit_in_bytes": limits.memory_bytes,
        },
        "pids": {"pids.max": limits.pids},
        "cpu": {"cpu.cfs_quota_us": max(int(limits.cpus * CPU_PERIOD_US), 1000)},
    }
    for name, value in settings[root.name].items():
        if "memsw" not in name or (group / name).exists():
            (group / name).write_text(str(value))
    return group


def _joining(groups: Sequence[Path]) -> list[str]:
    """A prefix that enters the cgroups before it becomes the command after it."""
    joins = "".join(f"echo $$ > {group}/cgroup.procs; " for group in groups)
    return ["/bin/sh", "-c", f'{joins}exec "$@"', "sh"]


async def _remove_cgroup(group: Path) -> None:
    for _ in range(100):  # the kernel lets go of the last process a moment after its end
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        await asyncio.sleep(0.02)


async def _keep_tail(stream: asyncio.StreamReader, tail: bytearray) -> None:
    while chunk := await stream.read(4096):
        tail += chunk
        del tail[:-4096]
