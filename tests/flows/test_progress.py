"""Progress in a pipe: few lines, and a resumed stage goes on where it stood."""

import pytest

from rollmill.flows.progress import current, shown


def test_a_resumed_stage_ends_at_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    with shown():
        current().begin("steps", 10)
        current().reach("steps", 9, "loss 0.5")
        current().reach("steps", 10, "loss 0.4")
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("steps 9/10: loss 0.5 (")
    assert last.startswith("steps 10/10: loss 0.4 (")


def test_things_are_counted_by_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with shown():
        current().begin("tasks", 2)
        current().count("tasks", "admitted")
        current().count("tasks", "rejected", advance=0)
        current().count("tasks", "admitted")
    assert capsys.readouterr().err.splitlines()[-1].startswith("tasks 2/2: admitted 2, rejected 1")


def test_nothing_is_said_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(quiet=True):
        current().begin("steps", 1)
        current().reach("steps", 1, "loss 0.4")
    assert capsys.readouterr().err == ""
