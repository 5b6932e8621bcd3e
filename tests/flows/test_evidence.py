"""Tasks keep the evidence for them, which can be gathered again; verdicts can be given again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rollmill import workspaces
from rollmill.flows.commands import tasks
from rollmill.pipelines.taskfolder import load_task, save_task

from ..pipelines.rollout.handmade import TESTS, bug_task
from ..pipelines.rollout.test_episode import FailingProvider

Command = Callable[..., Any]


@pytest.mark.docker
@pytest.mark.usefixtures("prefect_server")
def test_a_run_is_audited_and_judged_again(run: Command, tally: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("--tasks", "bugs", "--source", str(tally), "--n", "1", "--gate-runs", "1")
    assert run("generate", *words, "--out", str(out), "--json").code == 0
    (folder,) = (out / "tasks").iterdir()
    made = json.loads((folder / "admission.json").read_text())
    assert made["reason"] == "admitted"
    assert len(made["cheats"]) == 2
    assert len(made["gold"]) == len(made["null"]) == 1
    assert {tried["outcome"] for tried in made["cheats"]} == {"fail"}

    (folder / "admission.json").unlink()
    ran = run("tasks", "audit", str(folder), "--quick", "--json")
    assert ran.code == 0
    told = json.loads(ran.out)["audits"][folder.name]
    again = json.loads((folder / "admission.json").read_text())
    assert len(again["gold"]) == 3
    assert told["verifier_strength"] == again["verifier_strength"] == made["verifier_strength"]
    assert [each["name"] for each in again["cheats"]] == [each["name"] for each in made["cheats"]]

    broken = tmp_path / "tasks" / "broken"
    save_task(replace(load_task(folder), solution=()), broken)
    audited = ("tasks", "audit", str(folder), str(broken), "--quick", "--runs", "1")
    ran = run(*audited, "--out", str(tmp_path / "held"), "--json")
    assert ran.code == 1  # the one without a solution
    assert [*json.loads(ran.out)["tasks"].values()] == ["admitted", "gold_fails"]
    (held,) = (tmp_path / "held" / "tasks").iterdir()
    assert load_task(held) == load_task(folder)
    assert json.loads((held / "admission.json").read_text())["admitted"]

    ran = run("reverify", str(out), "--out", str(tmp_path / "again"))
    assert ran.code == 0
    assert "0 of 1 verdicts changed (pass -> pass: 1)" in ran.out
    assert (tmp_path / "again" / "manifest.json").exists()


@pytest.mark.docker
def test_an_audited_task_is_written_anew_without_its_flaky_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    moody = b"\n\ndef test_moody():\n    import os\n    assert 'SPOILED' not in os.environ\n"
    steady = ("test_calc.py::test_one",)
    task = bug_task(tests=TESTS + moody, pass_to_pass=(*steady, "test_calc.py::test_moody"))
    folder, out = tmp_path / "task", tmp_path / "held"
    save_task(task, folder)
    opened = workspaces.open_provider

    def spoiling(_: str) -> FailingProvider:
        return FailingProvider(opened("docker"), spoiled={4})  # where the first gold run is judged

    monkeypatch.setattr(workspaces, "open_provider", spoiling)
    words = ["audit", str(folder), "--quick", "--runs", "1"]
    ran = CliRunner().invoke(tasks.app, words)
    assert ran.exit_code == 1
    assert "flaky, to be dropped: test_calc.py::test_moody" in ran.output
    assert CliRunner().invoke(tasks.app, [*words, "--out", str(out)]).exit_code == 0
    (anew,) = (out / "tasks").iterdir()
    assert load_task(anew).verifier.params["pass_to_pass"] == [*steady]
    assert load_task(folder) == task
