"""The runner as a command line: what the first process of a workspace is told to run.

The parts travel compiled as well as in source, since to compile them takes longer than to start
Python. The compiled ones are for a Python whose byte code is that of the host's; any other one
compiles the source. Nothing here knows how a process is started.
"""

from __future__ import annotations

import base64
import json
import marshal
import resource
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType, MappingProxyType

from .types import Limits

AT_START = ("runner", "runner_files", "runner_output", "runner_process", "runner_reset")
LATER = (
    "runner_archive", "runner_calls", "runner_net", "runner_places", "runner_services",
    "runner_shell", "runner_swift",
)  # fmt: skip
"""What most workspaces never need travels as source alone: a command line has its limits."""
SYSTEM_PYTHON = "/usr/bin/python3"
NO_RLIMITS: Mapping[int, int] = MappingProxyType({})

_BOOT = """
import binascii,marshal,sys,zlib
from _frozen_importlib_external import MAGIC_NUMBER
magic,compiled,sources=marshal.loads(zlib.decompress(binascii.a2b_base64(PACKED)))
usable=compiled if magic==MAGIC_NUMBER else {}
class Box:
    def find_spec(name,path=None,target=None):
        if name=="box" or name.startswith("box."):
            return type(sys.__spec__)(name,Box,is_package=name=="box")
    def create_module(spec):
        return None
    def exec_module(module):
        name=module.__name__.partition(".")[2]
        if name:
            code=usable.get(name)
            code=marshal.loads(code) if code else compile(sources[name],name+".py","exec")
            exec(code,module.__dict__)
sys.meta_path.insert(0,Box)
from box.runner import main
main()
"""
"""Makes the parts into modules of a package `box`, each when it is first imported."""


def runner_argv(
    limits: Limits,
    *,
    python: str = SYSTEM_PYTHON,
    rlimits: Mapping[int, int] = NO_RLIMITS,
    network: bool = False,
    places: Sequence[tuple[str, str]] = (),
) -> list[str]:
    """The command line of a workspace's first process: it carries the whole runner.

    Args:
        places: (copy of what the image has, where commands may change it), see `places.py`.
        network: the stream also carries connections, see `network.py`.
        rlimits: `resource.RLIMIT_*` -> value for the commands, where no cgroup does it.
    """
    config = {
        "lifetime_s": limits.lifetime_s,
        "output_bytes": limits.output_bytes,
        "spill_bytes": limits.tmp_bytes // 8,
        "rlimits": list({**_always(limits), **rlimits}.items()),
        "network": network,
        "places": list(places),
    }
    return [python, "-I", "-S", "-c", program(MAGIC_NUMBER), json.dumps(config)]


@cache
def program(magic: bytes) -> str:
    """What Python is told to run.

    Args:
        magic: of the Python that may use the compiled parts.
    """
    here = Path(__file__).parent
    sources = {name: (here / f"{name}.py").read_bytes() for name in (*AT_START, *LATER)}
    compiled = {name: marshal.dumps(_compiled(name, sources[name])) for name in AT_START}
    parts = marshal.dumps((magic, compiled, sources), 2)  # a form that all versions read
    packed = base64.b64encode(zlib.compress(parts, 9))
    return _BOOT.replace("PACKED", repr(packed))


def _compiled(name: str, source: bytes) -> CodeType:
    return compile(source, f"{name}.py", "exec", dont_inherit=True, optimize=0)


def _always(limits: Limits) -> dict[int, int]:
    """What no cgroup limits. A core may be handed to a program of the host, so there is none."""
    return {resource.RLIMIT_NOFILE: limits.open_files, resource.RLIMIT_CORE: 0}
