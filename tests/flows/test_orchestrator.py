"""Prefect is not seen, not heard, and not left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import environment

FLOW = """
import asyncio, os, sys
from rollmill.flows.orchestrator import orchestrated

with orchestrated():
    from prefect import flow

    @flow
    async def nap():
        print("started", os.environ["PREFECT_API_URL"], flush=True)
        await asyncio.sleep(float(sys.argv[1]))

    asyncio.run(nap())
"""


def start(home: Path, nap_s: float) -> subprocess.Popen[str]:
    env = environment({"XDG_STATE_HOME": str(home)})
    for name in ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_LOGGING_TO_API_ENABLED"):
        env.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", FLOW, str(nap_s)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def servers(home: Path) -> set[int]:
    """Processes of ours whose home this is."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            env = (process / "environ").read_bytes()
            if b"-m\0rollmill.flows.orchestrator" in command and f"{home}".encode() in env:
                found.add(int(process.name))
    return found


def test_server_dies_with_a_killed_command_and_screen_stays_empty(tmp_path: Path) -> None:
    command = start(tmp_path, nap_s=300)
    assert command.stdout is not None
    assert command.stdout.readline().startswith("started http://127.0.0.1:")
    assert len(servers(tmp_path)) == 1
    command.send_signal(signal.SIGKILL)
    _, err = command.communicate()
    give_up = time.monotonic() + 10
    while servers(tmp_path) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert servers(tmp_path) == set()
    assert err == ""

    again = start(tmp_path, nap_s=0)  # the database it left is usable
    out, err = again.communicate(timeout=300)
    assert (again.returncode, err, out.count("\n")) == (0, "", 1)
    assert servers(tmp_path) == set()
    assert (tmp_path / "rollmill" / "prefect" / "prefect.db").exists()


def test_unreachable_server_is_bad_input(run: Callable[..., Any], tmp_path: Path) -> None:
    nowhere = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    words = ["generate", "--tasks", "bugs", "--out", "r"]
    ran = run(*words, cwd=tmp_path, env=nowhere)
    assert ran.code == 2
    assert "expected a Prefect server at http://127.0.0.1:9/api" in ran.err
    assert "unset PREFECT_API_URL" in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("prefect_server")
def test_schedule_needs_a_server_that_stays(run: Callable[..., Any]) -> None:
    command = ["--", "generate", "--tasks", "bugs", "--out", "r"]
    without = run("deploy", "--cron", "0 2 * * *", *command, env={"PREFECT_API_URL": ""})
    assert without.code == 2
    assert "prefect server start" in without.err


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--cron", "at noon"], "cron"),
        (["--cron", "0 2 * * *", "--interval", "60"], "exactly one of --cron and --interval"),
        ([], "exactly one of --cron and --interval"),
    ],
)
def test_schedule_that_is_none_is_bad_input(
    run: Callable[..., Any], flags: list[str], expected: str
) -> None:
    ran = run("deploy", *flags, "--", "generate", "--tasks", "bugs", "--out", "r")
    assert ran.code == 2, ran.err
    assert expected in ran.err


def test_what_cannot_be_deployed_is_bad_input(run: Callable[..., Any]) -> None:
    ran = run("deploy", "--cron", "0 2 * * *", "--", "doctor")
    assert ran.code == 2
    assert "-- generate …" in ran.err
    assert os.linesep * 2 not in ran.err
