"""The compiled kernels' way through a processor's matrix tiles, emulated where it has none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILT_ON_TILES = ("grouped_experts", "tree_attention", "paged_attention", "decode_step")


COMPILES = shutil.which("g++") and os.environ.get("ROLLMILL_NATIVE") != "0"


@pytest.mark.skipif(not COMPILES, reason="nothing is compiled here")
@pytest.mark.timeout(900)
def test_the_bf16_kernels_pass_their_tests_in_tiles() -> None:
    files = [str(HERE / f"test_{name}.py") for name in BUILT_ON_TILES]
    command = [sys.executable, "-m", "pytest", "-q", "-k", "bf16 and not triton", *files]
    settings = {**os.environ, "ROLLMILL_CXXFLAGS": "-DEMULATED_TILES"}
    done = subprocess.run(
        command, cwd=HERE.parent.parent, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_every_kernel_that_holds_tiles_is_among_them() -> None:
    sources = (HERE.parent.parent / "kernels").glob("*/cpu_native.cpp")
    holds = {path.parent.name for path in sources if "Tiles held" in path.read_text("utf-8")}
    assert holds == set(BUILT_ON_TILES)
