"""The push, over real HTTP, to a Hub that lives on loopback and keeps what it gets in a folder."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rollmill.pipelines.dataset import Run
from rollmill.pipelines.trajectory import Trajectory


class Hub(ThreadingHTTPServer):
    """Answers what a dataset push asks for; `failures` requests are turned away first."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = folder
        self.failures = 0
        self.refusal = 503
        self.tokens: set[str | None] = set()
        self.created: list[Any] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            return self.reply([])
        return self.reply({"id": "me/data", "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers["Authorization"])
        if self.server.failures:
            self.server.failures -= 1
            return self.reply({"error": "not now"}, status=self.server.refusal)
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            return self.reply({"url": f"{self.server.address}/datasets/me/data"})
        if "/preupload/" in self.path:
            wanted = json.loads(body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return self.reply({"files": [{"path": file["path"], **modes} for file in wanted]})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                self.keep(line)
            return self.reply({"commitUrl": f"{self.server.address}/c/1", "commitOid": "1" * 40})
        return self.reply({"warnings": []})

    def keep(self, line: Any) -> None:
        if line["key"] == "file":
            path = self.server.folder / line["value"]["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(line["value"]["content"]))

    def reply(self, answer: Any, status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def run(tmp_path: Path, make_trajectory: Callable[..., Trajectory]) -> Path:
    with Run.open(tmp_path / "r", {}) as run:
        run.write_shard(0, [make_trajectory(0), make_trajectory(1)])
        run.finish()
    return tmp_path / "r"


PUSH = """
import sys
from pathlib import Path
from rollmill.pipelines.dataset import ExportError, hub
from rollmill.pipelines.dataset.export import export
hub.FIRST_WAIT_S = 0.05
try:
    print(export([Path(sys.argv[1])], "hf://me/data").to)
except ExportError as error:
    sys.exit(str(error))
"""


def push(run: Path, address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, because the client reads its settings when it is imported."""
    names = {"HF_ENDPOINT": address, "HF_HOME": str(run.parent / "home"), "HF_TOKEN": "secret"}
    command = [sys.executable, "-c", PUSH, str(run)]
    settings = {**os.environ, **names, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=settings, cwd=run)


def test_a_push_outlives_failures_and_sends_what_a_folder_would_hold(hub: Hub, run: Path) -> None:
    hub.failures = 2
    done = push(run, hub.address)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.address}/datasets/me/data"
    assert hub.tokens == {"Bearer secret"}
    assert [(repo["type"], repo["visibility"]) for repo in hub.created] == [("dataset", "private")]
    names = {str(path.relative_to(hub.folder)) for path in hub.folder.rglob("*") if path.is_file()}
    assert {"README.md", "funnel.png"} < names
    (data,) = names - {"README.md", "funnel.png"}
    assert data.startswith("data/")
    assert (hub.folder / data).read_bytes()[:4] == b"PAR1"


def test_a_refusal_is_one_sentence_and_is_not_repeated(hub: Hub, run: Path) -> None:
    hub.failures, hub.refusal = 99, 403
    done = push(run, hub.address)

    assert done.returncode == 1
    assert "did not take hf://me/data" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.failures > 90
    assert not hub.folder.exists()


def test_no_token_and_no_network_are_one_sentence_each(run: Path) -> None:
    tokenless = push(run, "http://127.0.0.1:9", HF_TOKEN="")
    assert "set HF_TOKEN or run `hf auth login`" in tokenless.stderr
    unreachable = push(run, "http://127.0.0.1:9")
    assert "check the network" in unreachable.stderr
    assert len(unreachable.stderr.strip().splitlines()) == 1
