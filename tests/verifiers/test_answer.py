"""What counts as the right answer in a JSON file, and what does not."""

import json
from typing import Any

import pytest

from rollmill.verifiers import VerifierSpec
from rollmill.verifiers.answer import AnswerVerifier, compare_answer, parse_answer
from rollmill.workspaces import DockerProvider, WorkspaceSpec, opened

EXPECTED: dict[str, dict[str, Any]] = {
    "name": {"value": "New York"},
    "total": {"value": 1200.5},
    "count": {"value": 7},
    "percent": {"value": 33.3333, "absolute": 0.01},
}
RIGHT: dict[str, Any] = {"name": "New York", "total": 1200.5, "count": 7, "percent": 33.3333}


def passes(**changes: Any) -> bool:
    checks = compare_answer(RIGHT | changes, EXPECTED)
    return all(check.outcome == "pass" for check in checks)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": " new  york\n"},
        {"count": 7.0},
        {"percent": 33.34},
        {"total": 1200.5 * (1 + 1e-9)},
    ],
)
def test_a_right_answer_passes_however_it_is_written(changes: dict[str, Any]) -> None:
    assert passes(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "York"},
        {"name": ["New York"]},
        {"name": None},
        {"total": 1200.51},
        {"total": "1200.5"},
        {"count": True},
        {"count": 10**400},
        {"percent": 33.35},
        {"percent": 0.333333},
        {"guess": "New York"},
        {"name": "\ud800"},
    ],
)
def test_a_wrong_value_type_or_key_fails_with_evidence(changes: dict[str, Any]) -> None:
    wrong = [c for c in compare_answer(RIGHT | changes, EXPECTED) if c.outcome == "fail"]
    assert len(wrong) == 1
    assert "expected" in wrong[0].evidence
    wrong[0].evidence.encode()  # whatever the agent wrote, the evidence can be stored


def test_true_is_not_one() -> None:
    checks = compare_answer({"ok": 1}, {"ok": {"value": True}})
    assert checks[0].outcome == "fail"


def test_a_missing_key_fails_and_the_others_still_count() -> None:
    checks = compare_answer({"count": 7}, EXPECTED)
    assert [check.outcome for check in checks] == ["fail", "fail", "pass", "fail"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[1]",
        b"7",
        b'{"total": NaN}',
        b'{"total": -Infinity}',
        b'{"total": 1, "total": 2}',
        b'{"name": "\xff"}',
        b'{"a":' * 50_000,
        b'{"total": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda data: str(data[:20]),
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"xpect|Exceeds"):
        parse_answer(data)


@pytest.mark.docker
async def test_a_file_that_cannot_be_read_fails_and_a_right_one_passes(
    provider: DockerProvider,
) -> None:
    hidden = {"expected.json": json.dumps(EXPECTED).encode()}
    spec = VerifierSpec(name="answer", params={"path": "answer.json"})
    async with opened(provider, WorkspaceSpec(image="python")) as workspace:

        async def outcome(command: str) -> str:
            await workspace.exec(["bash", "-c", f"rm -rf answer.json; {command}"])
            return (await AnswerVerifier().verify(workspace, spec, hidden)).outcome

        assert await outcome("true") == "fail"
        assert await outcome("mkdir answer.json") == "fail"
        assert await outcome("ln -s /etc/passwd answer.json") == "fail"
        assert await outcome("mkfifo answer.json") == "fail"
        assert await outcome("head -c 100000 /dev/zero > answer.json") == "fail"
        assert await outcome(f"echo '{json.dumps(RIGHT)}' > answer.json") == "pass"
