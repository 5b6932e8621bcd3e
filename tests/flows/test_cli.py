"""The command line answers fast, says what went wrong in one sentence, and writes nothing then."""

import importlib
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rollmill
from rollmill.flows.cli import main
from rollmill.flows.errors import BAD_INPUTS, FAILURES

Command = Callable[..., Any]
COMMANDS = (
    ("generate",),
    ("tasks", "make"),
    ("tasks", "audit"),
    ("tasks", "show"),
    ("train", "sft"),
    ("train", "bundled"),
    ("report",),
    ("export",),
    ("reverify",),
    ("deploy",),
    ("doctor",),
    ("clean",),
    ("images", "ls"),
    ("images", "build"),
    ("images", "gc"),
)


def test_help_costs_less_than_a_second_of_cpu(run: Command) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run("--help").code == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_help_loads_nothing_heavy() -> None:
    heavy = ("prefect", "torch", "pyarrow", "docker", "pydantic", "httpx")
    code = f"import sys, rollmill.flows.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_shows_an_example(run: Command, command: tuple[str, ...]) -> None:
    ran = run(*command, "--help")
    assert ran.code == 0
    assert "Example" in ran.out
    assert "--json" in ran.out


def test_version(run: Command) -> None:
    assert run("--version").out == f"rollmill {rollmill.__version__}\n"


BAD = {
    "family": (["--tasks", "bugz"], "choose from: coding, cowork"),
    "policy": (["--policy", "golden"], "choose one of: bundled"),
    "policy without a model": (["--policy", "openai:http://localhost"], "openai:URL#MODEL"),
    "policy twice": (["--policy", "gold", "--policy", "gold"], "drop one"),
    "workspace": (["--workspace", "vm"], "'docker' or 'bwrap'"),
    "source": (["--source", "nosuchthing"], "one of: "),
    "source for another family": (["--tasks", "cowork", "--source", "a==1"], "one of: "),
    "n": (["--n", "0"], "greater than or equal to 1, got 0"),
    "n is no number": (["--n", "many"], "valid integer"),
    "temperature": (["--temperature", "-1"], "greater than or equal to 0, got -1"),
    "option": (["--polixy", "gold"], "--polixy"),
    "config file": (["--config", "none.toml"], "expected a TOML file at none.toml"),
}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.replace(" ", "-"))
def test_bad_input_is_one_sentence_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    flags, expected = BAD[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["generate", "--out", "run", *flags])
    shown = capsys.readouterr()
    assert left.value.code == 2
    assert shown.out == ""
    assert shown.err.startswith("rollmill: ")
    assert shown.err.count("\n") == 1
    assert expected in shown.err
    assert list(tmp_path.iterdir()) == []


def test_out_is_asked_for(run: Command) -> None:
    ran = run("generate")
    assert ran.code == 2
    assert "give --out" in ran.err


def test_unreachable_endpoint_is_bad_input(
    run: Command, tmp_path: Path, prefect_server: str
) -> None:
    policy = "openai:http://127.0.0.1:9/v1#m2"
    ran = run("generate", "--out", "run", "--policy", policy, cwd=tmp_path)
    assert ran.code == 2, ran.err
    assert "127.0.0.1:9" in ran.err
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_no_run_is_bad_input(run: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ran = run("report", ".", cwd=tmp_path)
    assert ran.code == 2
    assert "Traceback" not in ran.err


def test_training_data_that_is_not_there_is_bad_input(run: Command, tmp_path: Path) -> None:
    ran = run("train", "sft", "nowhere", "--out", "sft", cwd=tmp_path)
    assert ran.code == 2
    assert "expected a run or dataset directory at nowhere" in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda:77", "expected a device that PyTorch has here, got cuda:77"),
        ("meta", "expected cpu, cuda or cuda:N for the device, got meta"),
    ],
)
def test_a_device_that_is_not_there_is_bad_input(
    run: Command, tmp_path: Path, device: str, said: str
) -> None:
    (tmp_path / "data").mkdir()
    ran = run("train", "sft", "data", "--out", "sft", "--device", device, cwd=tmp_path)
    assert ran.code == 2
    assert said in ran.err
    assert not (tmp_path / "sft").exists()


def test_json_error_is_one_object(run: Command, tmp_path: Path) -> None:
    ran = run("generate", "--out", "run", "--tasks", "bugz", "--json", cwd=tmp_path)
    error = json.loads(ran.out)
    assert ran.code == error["exit_code"] == 2
    assert "bugz" in error["error"]


def test_debug_shows_where(run: Command, tmp_path: Path) -> None:
    ran = run("--debug", "generate", "--out", "run", "--tasks", "bugz", cwd=tmp_path)
    assert "Traceback" in ran.err


def test_json_of_the_doctor(run: Command) -> None:
    findings = json.loads(run("doctor", "--json").out)["findings"]
    assert {"engine", "bwrap"} <= {finding["name"] for finding in findings}


@pytest.mark.docker
def test_images_are_listed_built_and_spared_as_json(run: Command) -> None:
    built = json.loads(run("images", "build", "python", "--json").out)["images"]
    listed = json.loads(run("images", "ls", "--json").out)["engines"]
    ours = [one for found in listed.values() for one in found["images"]]
    here = [one for one in ours if one["digest"] == built["python"] and one["state"] == "current"]
    assert [one["name"] for one in here] == ["python"]
    assert here[0]["bytes"] == here[0]["unique_bytes"] + here[0]["shared_bytes"] > 50_000_000
    assert here[0]["used_s"] is not None
    spared = json.loads(run("images", "gc", "--keep-mib", "1000000", "--dry-run", "--json").out)
    assert here[0]["tag"] not in spared["removed"]
    unknown = run("images", "build", "pyhton", "--json")
    assert unknown.code == 2
    assert "office, python" in unknown.err


@pytest.mark.parametrize("name", sorted(BAD_INPUTS | FAILURES))
def test_named_errors_exist(name: str) -> None:
    module, _, kind = name.rpartition(".")
    found = getattr(importlib.import_module(module), kind)
    assert f"{found.__module__}.{found.__qualname__}" == name
