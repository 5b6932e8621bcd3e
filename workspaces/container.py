"""What the container of a workspace is made from: its limits, its places, its first process."""

from __future__ import annotations

from typing import Any

from docker.types import Mount

from .foreign import LOADER, PYTHON, Foreign
from .places import sources
from .program import SYSTEM_PYTHON, runner_argv
from .types import MIB, WORKDIR, WorkspaceSpec

RUNNER_CAPABILITIES = ("SETUID", "SETGID", "KILL", "CHOWN")
SHM_BYTES = 64 * MIB


def first_process(spec: WorkspaceSpec, foreign: Foreign | None) -> list[str]:
    """The runner, on the image's Python or on ours."""
    loader, python = (LOADER, PYTHON) if foreign else ((), SYSTEM_PYTHON)
    network, places = bool(spec.network), sources(spec.writable)
    return [*loader, *runner_argv(spec.limits, python=python, network=network, places=places)]


def host_settings(
    spec: WorkspaceSpec, foreign: Foreign | None, copies: tuple[Mount, ...], cpus: float
) -> dict[str, Any]:
    """What the engine grants: see `docker.APIClient.create_host_config`.

    Args:
        copies: of the folders that commands may change.
        cpus: that the engine has.
    """
    limits = spec.limits
    room = f"nosuid,nodev,nr_inodes={limits.inodes}"
    owned = f"exec,{room},mode=0755,uid=1000,gid=1000"
    declared = (
        [one for one in foreign.mounts if one["Target"] not in spec.writable] if foreign else []
    )
    return {
        "auto_remove": True,
        "read_only": True,
        "network_mode": "none",
        "log_config": {"Type": "none", "Config": {}},
        "cap_drop": ["ALL"],
        "cap_add": list(RUNNER_CAPABILITIES),
        "security_opt": ["no-new-privileges"],
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "pids_limit": limits.pids,
        "nano_cpus": int(min(limits.cpus, cpus) * 1e9),
        "tmpfs": {
            **dict.fromkeys((WORKDIR, *spec.writable), f"{owned},size={limits.workspace_bytes}"),
            "/home/agent": f"{owned},size={limits.tmp_bytes}",
            "/tmp": f"exec,{room},mode=1777,size={limits.tmp_bytes}",
            "/dev/shm": f"noexec,{room},mode=1777,size={min(limits.tmp_bytes, SHM_BYTES)}",
        },
        "mounts": [*declared, *copies],
    }
