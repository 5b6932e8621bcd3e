"""`generate` end to end in real workspaces: what passes, what a kill costs, what a run holds."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rollmill.flows.config import GenerateConfig
from rollmill.pipelines.dataset.lock import WriteLock
from rollmill.pipelines.dataset.store import read_rows
from rollmill.workspaces import leftovers

from .conftest import ROLLMILL, environment

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("prefect_server")]
Command = Callable[..., Any]
GONE_S = 10.0


@pytest.fixture(scope="module")
def flags(tally: Path) -> list[str]:
    return ["--tasks", "bugs", "--source", str(tally), "--n", "2", "--shard-size", "3"]


@pytest.fixture(scope="module")
def whole(run: Command, flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What an uninterrupted run says of itself."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    policies = ["--policy", "gold", "--policy", "null"]
    return run("generate", *flags, *policies, "--group", "2", "--out", str(out), "--json").json()


def test_gold_passes_and_null_does_not(whole: Any) -> None:
    outcomes: dict[str, list[str]] = {"gold": [], "null": []}
    for row in read_rows(Path(whole["run"])):
        outcomes[row["policy"]].append(row["outcome"])
    assert outcomes == {"gold": ["pass"] * 4, "null": ["fail"] * 4}
    assert whole["outcomes"] == {"pass": 4, "fail": 4, "unscored": 0}
    assert (whole["tasks"], whole["episodes"]) == (2, 8)


def test_killed_run_goes_on_to_the_same_content(
    run: Command, flags: list[str], whole: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["generate", *flags, "--policy", "gold", "--policy", "null", "--group", "2"]
    words += ["--out", str(out), "--concurrency", "1", "--json"]
    killed = subprocess.Popen(
        [ROLLMILL, *words], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _await(lambda: any(out.glob("journal/*/*.arrow")), "an episode is journaled")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (out / "manifest.json").exists()
    run_id = whole["run_id"]
    _await(lambda: not leftovers(run_id), "no container is left", timeout_s=GONE_S)

    tasks_before = _times(out / "tasks")
    resumed = run(*words).json()
    assert resumed["content_digest"] == whole["content_digest"]
    assert resumed["episodes"] == whole["episodes"]
    assert _times(out / "tasks") == tasks_before


def test_same_command_again_changes_nothing(run: Command, flags: list[str], whole: Any) -> None:
    out = Path(whole["run"])
    shards = _times(out / "shards")
    policies = ["--policy", "gold", "--policy", "null"]
    again = run("generate", *flags, *policies, "--group", "2", "--out", str(out), "--json").json()
    assert again == whole
    assert _times(out / "shards") == shards


def test_other_configuration_is_refused(run: Command, flags: list[str], whole: Any) -> None:
    ran = run("generate", *flags, "--seed", "5", "--out", whole["run"])
    assert ran.code == 2
    assert "made by another configuration" in ran.err
    assert "seed is 0 there and 5 here" in ran.err


def test_ctrl_c_stops_without_traceback_and_can_go_on(flags: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["generate", *flags, "--out", str(out)]
    stopped = subprocess.Popen(
        [ROLLMILL, *words],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # `make test &` ignores it
    )
    _await(lambda: (out / "run.json").exists(), "the run is open")
    time.sleep(1.0)
    stopped.send_signal(signal.SIGINT)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert "Traceback" not in err
    assert "the same command goes on" in err
    config = json.loads((out / "run.json").read_text())["config"]
    assert not leftovers(GenerateConfig.model_validate(config | {"out": out}).run_id)


def test_piped_progress_is_plain_lines(run: Command, flags: list[str], whole: Any) -> None:
    policies = ["--policy", "gold", "--policy", "null"]
    ran = run("generate", *flags, *policies, "--group", "2", "--out", whole["run"])
    assert "episodes 8/8: fail 4, pass 4" in ran.err
    assert "\x1b" not in ran.err + ran.out
    assert "rollmill export" in ran.out


def test_training_on_a_run_resumes_to_its_end(run: Command, whole: Any, tmp_path: Path) -> None:
    words = ["train", "sft", whole["run"], "--out", str(tmp_path / "sft"), "--dtype", "float32"]
    words += ["--steps", "2", "--batch-tokens", "4096", "--json"]
    trained = run(*words).json()
    assert trained["samples"] == 4  # the null policy's episodes did not pass
    names = {path.name for path in Path(trained["model"]).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    with WriteLock(tmp_path / "sft"):
        refused = run(*words)
    assert (refused.code, f"process {os.getpid()} is writing" in refused.err) == (2, True)
    assert run(*words).json() == trained


def test_source_without_tests_leaves_nothing(run: Command, tmp_path: Path) -> None:
    source = tmp_path / "untested"
    source.mkdir()
    (source / "untested.py").write_text("def one():\n    return 1\n")
    ran = run("generate", "--tasks", "bugs", "--source", str(source), "--out", "r", cwd=tmp_path)
    assert ran.code == 2, ran.err
    assert "Traceback" not in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["untested"]


def test_no_engine_is_bad_input(run: Command, flags: list[str], tmp_path: Path) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    words = ["generate", *flags, "--workspace", "docker", "--out", "r"]
    ran = run(*words, cwd=tmp_path, env=nowhere)
    assert ran.code == 2
    assert "no Docker Engine answers" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint_is_a_policy_and_samples_as_asked(
    run: Command, flags: list[str], tmp_path: Path
) -> None:
    with endpoint() as (url, seen):
        words = ["--policy", f"openai:{url}#m2", "--temperature", "0.3", "--top-k", "7"]
        made = run("generate", *flags, *words, "--out", str(tmp_path / "run"), "--json").json()
    assert made["outcomes"] == {"pass": 0, "fail": 2, "unscored": 0}
    assert {(one["temperature"], one["top_p"], one["top_k"]) for one in seen} == {(0.3, 0.95, 7)}
    turns = [turn for row in read_rows(tmp_path / "run") for turn in row["turns"]]
    assert [turn["policy_version"] for turn in turns] == ["m2", "m2"]


@pytest.mark.office
def test_gold_passes_on_workbooks(run: Command, tmp_path: Path) -> None:
    words = ["--n", "2", "--policy", "gold", "--tasks", "workbooks"]
    made = run("generate", *words, "--out", str(tmp_path / "run"), "--json").json()
    assert made["outcomes"] == {"pass": 2, "fail": 0, "unscored": 0}


@contextmanager
def endpoint() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An OpenAI-compatible server on loopback that always submits; its URL and what it was sent."""
    seen: list[dict[str, Any]] = []
    call = {"id": "1", "type": "function", "function": {"name": "submit", "arguments": "{}"}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    answer = {"model": "m2", "choices": [{"message": message, "finish_reason": "tool_calls"}]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({"data": [{"id": "m2"}]})

        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.reply(answer)

        def reply(self, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", seen
        finally:
            server.shutdown()
            thread.join()


def _await(condition: Callable[[], bool], what: str, timeout_s: float = 400.0) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, f"waited {timeout_s:g} s, but not: {what}"
        time.sleep(0.05)


def _times(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }
