"""The runner's command line works in the Python that made it, and in any other one."""

import subprocess
import sys
from importlib.util import MAGIC_NUMBER

import pytest

from rollmill.workspaces.program import AT_START, LATER, program, runner_argv
from rollmill.workspaces.types import Limits

LOAD_ALL = f"""
import importlib
for name in {[*AT_START, *LATER]}:
    importlib.import_module("box." + name)
print(len(usable))
"""


@pytest.mark.parametrize(("magic", "used"), [(MAGIC_NUMBER, len(AT_START)), (b"other", 0)])
def test_every_part_loads_compiled_or_from_source(magic: bytes, used: int) -> None:
    code = program(magic)
    assert code.endswith("\nmain()\n")
    code = code.removesuffix("main()\n") + LOAD_ALL
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == (f"{used}\n", "")


def test_each_argument_is_short_enough_for_the_kernel() -> None:
    assert max(map(len, runner_argv(Limits()))) < 120 * 1024
