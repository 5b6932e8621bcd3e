"""A schedule on a real Prefect server, carried out by a real worker, leaves a dataset."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollmill.pipelines.dataset.store import read_rows

from .conftest import environment

ROOT = Path(__file__).parent.parent.parent
PREFECT = str(Path(sys.executable).with_name("prefect"))
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """`prefect server start` on a port of its own; the environment that finds it."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_CLI_PROMPT": "false",
    }
    words = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(words, env, home / "server.log"):
        wait(lambda: answers(env["PREFECT_API_URL"]), "the server answers")
        yield env


@pytest.mark.docker
def test_scheduled_run_fires_and_leaves_a_dataset(
    run: Command, server: dict[str, str], tally: Path, tmp_path: Path
) -> None:
    out = tmp_path / "nightly"
    generate = ["generate", "--tasks", "bugs", "--source", str(tally), "--n", "1"]
    generate += ["--out", str(out)]
    flags = ["--interval", "3600", "--name", "nightly", "--work-pool", "mill", "--json"]
    made = run("deploy", *flags, "--", *generate, env=server).json()
    assert made["deployment"] == "generate/nightly"
    run_now = run("deploy", "--interval", "5", *flags[2:], "--", *generate, env=server).json()
    assert run_now["id"] == made["id"]  # the same name again replaces the schedule

    worker = ["worker", "start", "--pool", "mill", "--limit", "1"]
    with running(worker, server, tmp_path / "worker.log"):
        wait(lambda: any(out.glob("*/manifest.json")), "a scheduled run finishes", timeout_s=400)
    finished = next(out.glob("*/manifest.json")).parent
    rows = list(read_rows(finished))
    assert [(row["policy"], row["outcome"]) for row in rows] == [("gold", "pass")]


def test_training_is_deployed_with_places_that_hold_anywhere(
    run: Command, server: dict[str, str], tmp_path: Path
) -> None:
    words = ["train", "sft", "runs/*", "--steps", "20", "--out", "sft"]
    flags = ["--cron", "0 6 * * *", "--name", "nightly", "--work-pool", "mill", "--json"]
    made = run("deploy", *flags, "--", *words, cwd=tmp_path, env=server).json()
    stored = httpx.get(f"{server['PREFECT_API_URL']}/deployments/{made['id']}").json()
    config = stored["parameters"]["config"]
    assert stored["entrypoint"] == "rollmill.flows.train.train_sft"
    assert stored["schedules"][0]["schedule"]["cron"] == "0 6 * * *"
    assert config["data"] == [str(tmp_path / "runs/*")]
    assert config["out"] == str(tmp_path / "sft" / "{start}")


def test_prefect_yaml_deploys_both_flows(server: dict[str, str], tmp_path: Path) -> None:
    shutil.copy(ROOT / "prefect.yaml", tmp_path)
    pool = ["work-pool", "create", "rollmill", "--type", "process"]
    deploy = ["--no-prompt", "deploy", "--all"]
    for words in (pool, deploy):
        done = subprocess.run(
            [PREFECT, *words],
            cwd=tmp_path,
            env=environment(server),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    url = f"{server['PREFECT_API_URL']}/deployments/name"
    for flow in ("generate", "train-sft"):
        assert httpx.get(f"{url}/{flow}/nightly").json()["schedules"][0]["active"]


@contextmanager
def running(words: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """A `prefect` process for the length of a block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PREFECT, *words],
            env=environment(env),
            cwd=log.parent,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


def wait(condition: Callable[[], bool], what: str, timeout_s: float = 180.0) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, f"waited {timeout_s:g} s, but not: {what}"
        time.sleep(0.5)
