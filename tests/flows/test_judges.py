"""Judges are named on the command line and sit on the panel of a rubric."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rollmill.pipelines.dataset.store import Run
from rollmill.pipelines.rollout.authored import ScriptedPolicy
from rollmill.pipelines.rollout.episode import run_episode
from rollmill.pipelines.rollout.policy import PolicyError
from rollmill.pipelines.taskfolder import save_task
from rollmill.verifiers import Verdict
from rollmill.workspaces import Artifact, ScriptedProvider

from ..judges import findings
from ..pipelines.test_judged import HONEST, memo_task

Command = Callable[..., Any]


class Handler(BaseHTTPRequestHandler):
    """Chat completions by an honest reader of the memo."""

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
        content = findings(asked[0]["content"], asked[1]["content"], HONEST)
        message = {"role": "assistant", "content": f"Here it is:\n```json\n{content}\n```"}
        body = json.dumps({"choices": [{"message": message}], "model": "reader"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def reader_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"openai:http://127.0.0.1:{server.server_port}/v1#reader"
        server.shutdown()
        thread.join()


@pytest.mark.docker
async def test_named_judges_audit_a_rubric_and_judge_a_run_again(
    run: Command, reader_url: str, tmp_path: Path
) -> None:
    task, folder = memo_task(), tmp_path / "task"
    save_task(task, folder)
    ran = run("tasks", "audit", str(folder), "--quick", "--judge", reader_url)
    assert ran.code == 0, ran.err
    assert "judges: 6 of 6 votes on gold agree" in ran.out
    evidence = json.loads((folder / "admission.json").read_text())
    assert evidence["agreement"] == {"gold": [6, 6], "null": [6, 6]}
    assert f"judges: {reader_url}" in json.dumps(evidence["gold"])

    lost = ScriptedPolicy([PolicyError("down")])
    row = await run_episode(task, lost, ScriptedProvider(), run_id="r", attempt=0, seed=0)
    memo = Artifact(files={"memo.md": b"Oslo, 3 May 2024: all is well.\n"})
    unscored = Verdict(outcome="unscored", score=0.0)
    row = replace(row, status="verifier_error", artifact=memo, verdict=unscored)
    with Run.open(tmp_path / "run", {"seed": 0}) as made:
        made.save_task(task, {})
        made.write_shard(0, [row])
        made.finish()
    ran = run("reverify", str(tmp_path / "run"), "--judge", reader_url, "--json")
    assert ran.json()["outcomes"] == {"unscored -> fail": 1}
    ran = run("reverify", str(tmp_path / "run"), "--judge", reader_url)
    assert f"{task.task_id}: judges: 2 of 2 votes on gold agree" in ran.err


@pytest.mark.parametrize("command", [("tasks", "audit"), ("reverify",)])
def test_a_rubric_without_a_judge_is_refused_before_anything_runs(
    run: Command, command: tuple[str, ...], tmp_path: Path
) -> None:
    with Run.open(tmp_path / "run", {"seed": 0}) as made:
        made.save_task(memo_task(), {})
        made.write_shard(0, [])
        made.finish()
    ran = run(*command, str(tmp_path / "run"))
    assert ran.code == 2
    assert f"a rubric judges task {memo_task().task_id}" in ran.err
    ran = run("generate", "--judge", "gold", "--out", str(tmp_path / "new"))
    assert ran.code == 2
    assert "'gold' cannot judge" in ran.err
