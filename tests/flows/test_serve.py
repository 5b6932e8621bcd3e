"""`rollmill serve` as a process: it listens, answers, drains and leaves with 0."""

import re
import signal
import subprocess
import sys

import httpx
import pytest

SERVE = [sys.executable, "-c", "from rollmill.flows.cli import main; main()", "serve"]


def test_a_stop_signal_lets_a_running_answer_end() -> None:
    with subprocess.Popen(
        [*SERVE, "--port", "0", "--slots", "2"], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = _address(process)
            body = {
                "prompt": "def f(",
                "max_tokens": 400,
                "stream": True,
                "logit_bias": {"3": -100},
            }
            with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=60) as reply:
                lines = reply.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                rest = list(lines)
            assert rest[-2:] == ["data: [DONE]", ""]
            assert any('"finish_reason": "length"' in line for line in rest)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]
    raise AssertionError("it never listened")


def test_a_folder_without_a_model_is_bad_input(tmp_path: object) -> None:
    done = subprocess.run([*SERVE, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "cannot serve" in done.stderr
