import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from rollmill.pipelines.dataset import NotARun, ProposalRecord, Run
from rollmill.pipelines.dataset.report import Report, make_report
from rollmill.pipelines.dataset.report_view import amount, plot, tables
from rollmill.pipelines.trajectory import Timings, Trajectory
from rollmill.verifiers import Verdict


@pytest.fixture
def report(tmp_path: Path, make_trajectory: Callable[..., Trajectory]) -> Report:
    proposals = [
        ("bugs", "a", "admitted", ""),
        ("bugs", "b", "gold_valid", "gold_flaky"),
        ("bugs", "c", "proposed", "no_failing_test"),
        ("bugs", "d", "proposed", "no_failing_test"),
        ("workbooks", "a", "built", "gold_fails"),
    ]
    failed = Verdict(outcome="fail", score=0.5)
    with Run.open(tmp_path / "r", {}) as run:
        for family, key, stage, reason in proposals:
            run.record_proposal(
                ProposalRecord(
                    family=family,
                    key=key,
                    source="s",
                    stage=stage,  # type: ignore[arg-type]
                    reason=reason,
                    build_s=1.0,
                    admit_s=2.0,
                    bytes=100,
                )
            )
        rows = [
            make_trajectory(0, timings=Timings(setup_s=1.0, verify_s=2.0)),
            make_trajectory(1, verdict=failed, reward=0.0, policy="null", turns=()),
            make_trajectory(2, verdict=None, reward=None, status="policy_error"),
        ]
        run.add_episode(0, rows[2])
        run.write_shard(0, rows)
    return make_report([tmp_path / "r"])


def test_the_funnel_counts_what_reached_each_stage(report: Report) -> None:
    counts = {line.stage: line.count for line in report.funnel}

    assert counts == {
        "proposed": 5,
        "built": 3,
        "gold_valid": 2,
        "admitted": 1,
        "episodes": 3,
        "passed": 1,
        "failed": 1,
        "unscored": 1,
        "kept": 2,
    }


def test_seconds_bytes_and_tokens_are_those_of_what_reached_the_stage(report: Report) -> None:
    built, passed = report.line("built"), report.line("passed")

    assert (built.seconds, built.bytes, built.tokens) == (9.0, 300, 0)
    assert (passed.seconds, passed.bytes, passed.tokens) == (3.0, 2, 3)


def test_families_policies_and_reasons_are_told_apart(report: Report) -> None:
    assert report.rejections == {
        "bugs": {"no_failing_test": 2, "gold_flaky": 1},
        "workbooks": {"gold_fails": 1},
    }
    assert [line.count for line in report.families["workbooks"]][:4] == [1, 1, 0, 0]
    assert {name: lines[0].count for name, lines in report.policies.items()} == {
        "gold": 2,
        "null": 1,
    }
    assert report.failed_attempts == 1
    assert report.statuses == {"submitted": 2, "policy_error": 1}


def test_people_machines_and_eyes_get_the_same_numbers(report: Report, tmp_path: Path) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(tables(report))
    text = console.export_text()
    plot(report, tmp_path / "funnel.png")

    assert "no_failing_test" in text
    assert "workbooks" in text
    assert json.loads(report.to_json())["funnel"][0]["count"] == 5
    assert (tmp_path / "funnel.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_anything_has_an_empty_report(tmp_path: Path) -> None:
    Run.open(tmp_path / "r", {}).close()
    report = make_report([tmp_path / "r"])

    assert all(line.count == 0 for line in report.funnel)
    Console(file=io.StringIO()).print(tables(report))
    plot(report, tmp_path / "funnel.png")
    with pytest.raises(NotARun):
        make_report([tmp_path / "nothing"])


def test_amounts_are_short() -> None:
    assert [amount(n) for n in (0, 999, 1000, 1234567, 2e9)] == ["0", "999", "1.0k", "1.2M", "2.0G"]
