"""An answer must rest on passages that exist, hold its quotes, and hold the answer itself."""

import json
from typing import Any

import pytest

from rollmill.verifiers import VerifierSpec
from rollmill.verifiers.answer import AnswerVerifier, compare_answer
from rollmill.verifiers.evidence import EvidenceRule, check_evidence, stands_in
from rollmill.workspaces import ScriptedWorkspace, WorkspaceSpec, pack_tree

PASSAGES = {
    "docs/k7.txt": "The bridge was opened in 1932 by “Anna Berg”, its engineer.".encode(),
    "docs/q2.txt": b"Another bridge,\n   opened in 1950.",
}
RULE = EvidenceRule(required=[["docs/k7.txt"]], most=2, supports=["who"])
GOOD = {"passage": "docs/k7.txt", "quote": 'opened in  1932 by "anna Berg"'}


def told(sources: Any, who: str = "Anna Berg") -> str:
    return check_evidence({"who": who, "sources": sources}, RULE, PASSAGES).evidence


def test_a_named_passage_that_holds_the_answer_is_evidence() -> None:
    assert told([GOOD]) == ""
    assert told(["docs/k7.txt", "docs/q2.txt"]) == ""


@pytest.mark.parametrize(
    ("sources", "why"),
    [
        (None, "a list of passages"),
        ([], "a list of passages"),
        ("docs/k7.txt", "a list of passages"),
        (["docs/zz.txt"], "that exists"),
        ([7], "that exists"),
        (["docs/q2.txt"], "among the sources"),
        ([GOOD, "docs/q2.txt", "docs/q2.txt"], "at most 2"),
        ([{"passage": "docs/k7.txt", "quote": "opened in 1933 by"}], "a quote that stands there"),
        ([{"passage": "docs/k7.txt", "quote": "1932"}], "a quote that stands there"),
        ([{"passage": "docs/q2.txt", "quote": "opened in 1932"}], "a quote that stands there"),
    ],
)
def test_what_is_no_evidence_is_told(sources: Any, why: str) -> None:
    assert why in told(sources)


def test_an_answer_that_stands_in_no_named_passage_fails() -> None:
    assert "to stand in a named passage" in told([GOOD], who="Anna Bergman")
    assert "to stand in a named passage" in told([GOOD], who="")


@pytest.mark.parametrize(
    ("value", "stands"),
    [
        (1932, True),
        (1932.0, True),
        ("1,932", True),
        (1200, True),
        (1200.5, False),
        ("1200", True),
        ("$1,200", True),
        (1200.0, True),
        (12.5, True),
        (-12.5, False),
        (12, False),
        (932, False),
        (35, True),
        (-35, False),
        (True, False),
        (["Anna Berg", 1932], True),
        (["Anna Berg", 1950], False),
        ([], False),
        (None, False),
    ],
)
def test_a_number_stands_there_however_it_is_written(value: Any, stands: bool) -> None:
    passages = {"a.txt": b"In 1932-35, Anna Berg paid 1,200, or 12.50 a day."}
    rule = EvidenceRule(supports=["x"])
    told = check_evidence({"x": value, "sources": ["a.txt"]}, rule, passages).evidence
    assert (told == "") is stands, told


def test_a_quote_is_whole_words() -> None:
    assert stands_in("opened in 1950", PASSAGES["docs/q2.txt"].decode())
    assert not stands_in("pened in 1950", PASSAGES["docs/q2.txt"].decode())


@pytest.mark.parametrize(
    ("wanted", "right", "wrong"),
    [
        ({"value": 1200.5, "loose": True}, "$1,200.50", "1.200,50"),
        ({"value": "The Åre Hotel", "loose": True}, "are hotel.", "are hostel"),
        ({"value": "UK", "any_of": ["United Kingdom"]}, "united kingdom", "England"),
        ({"value": ["a", "b"], "ordered": False}, ["B", "a"], ["a", "a"]),
        ({"value": ["a", "b"]}, ["a", "b"], ["b", "a"]),
        ({"value": [1, 2], "absolute": 0.1}, [1.05, 2], [1.2, 2]),
        ({"value": 5}, 5, "5"),
    ],
)
def test_normalisation_goes_as_far_as_the_task_says(
    wanted: dict[str, Any], right: Any, wrong: Any
) -> None:
    assert compare_answer({"x": right}, {"x": wanted})[0].outcome == "pass"
    assert compare_answer({"x": wrong}, {"x": wanted})[0].outcome == "fail"


async def test_passages_are_those_of_the_seed_not_those_that_the_agent_wrote() -> None:
    workspace = ScriptedWorkspace(WorkspaceSpec(image="python", seed=pack_tree(PASSAGES)), [])
    hidden = {
        "expected.json": json.dumps({"who": {"value": "Anna Berg"}}).encode(),
        "evidence.json": json.dumps({"required": [["docs/k7.txt"]], "quotes": True}).encode(),
    }
    spec = VerifierSpec(name="answer", params={"path": "answer.json"})

    async def outcome(sources: Any) -> str:
        answer = {"who": "Anna Berg", "sources": sources}
        await workspace.put("answer.json", json.dumps(answer).encode())
        return (await AnswerVerifier().verify(workspace, spec, hidden)).outcome

    assert await outcome([GOOD]) == "pass"
    assert await outcome(["docs/k7.txt"]) == "fail"
    await workspace.put("docs/k7.txt", b"I wrote this passage myself")
    forged = {"passage": "docs/k7.txt", "quote": "I wrote this passage myself"}
    assert await outcome([forged]) == "fail"
