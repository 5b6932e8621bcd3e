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


def test_context_and_cache_are_as_large_as_asked() -> None:
    sizes = ["--context", "64", "--cache-tokens", "128", "--spill-ram-mb", "1"]
    with subprocess.Popen(
        [*SERVE, "--port", "0", *sizes], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = _address(process)
            assert httpx.get(f"{address}/v1/models").json()["data"][0]["max_model_len"] == 64
            assert "\nrollmill_pages 8\n" in httpx.get(f"{address}/metrics").text
        finally:
            process.kill()


def test_a_context_beyond_the_model_is_bad_input() -> None:
    done = subprocess.run(
        [*SERVE, "--context", "9999999"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "for --context, as the model was made for, got 9999999" in " ".join(done.stderr.split())
