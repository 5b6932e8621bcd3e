"""An app's state: what was asked for, and the price of what was not."""

import copy
import json
from typing import Any

import pytest

from rollmill.verifiers import VerifierSpec
from rollmill.verifiers.state import StateVerifier, flat, judge_state
from rollmill.workspaces import ScriptedWorkspace, WorkspaceSpec, pack_tree

BEFORE: dict[str, Any] = {
    "orders": [
        {"id": "a1", "status": "open", "total": 10},
        {"id": "b/2", "status": "open", "total": 20.5},
    ],
    "log": ["start"],
    "users": {"ann": {"mail": "ann@example.org"}},
}
IDS = {"/orders": "id"}
CHANGES: dict[str, dict[str, Any]] = {
    "/orders/a1/status": {"after": "shipped"},
    "/orders/b~12": {"absent": True},
    "/orders/c3": {"after": {"id": "c3", "status": "open", "total": 5}},
    "/users/ann": {"absent": True},
}


def worked() -> dict[str, Any]:
    state = copy.deepcopy(BEFORE)
    state["orders"][0]["status"] = "shipped"
    state["orders"] = [{"id": "c3", "status": "open", "total": 5}, state["orders"][0]]
    state["users"] = {}
    state["log"].append("more")
    return state


def score(after: dict[str, Any]) -> tuple[str, float]:
    verdict = judge_state(
        flat(BEFORE, IDS), flat(after, IDS), CHANGES, ignore=["/log/*"], verifier="state@1"
    )
    return verdict.outcome, verdict.score


def test_the_asked_changes_pass_whatever_the_order_and_the_log() -> None:
    assert score(worked()) == ("pass", 1.0)


def test_doing_nothing_earns_nothing() -> None:
    assert score(BEFORE) == ("fail", 0.0)


def test_each_missing_and_each_undesired_change_costs() -> None:
    half = worked()
    half["orders"][1]["status"] = "open"
    assert score(half) == ("fail", 0.75)
    spoiled = worked()
    spoiled["orders"][1]["total"] = 11
    assert score(spoiled) == ("fail", 0.75)
    spoiled["admin"] = True
    assert score(spoiled) == ("fail", 0.5)
    for at in range(9):
        spoiled[f"x{at}"] = 1
    assert score(spoiled) == ("fail", 0.0)


def test_a_field_more_in_a_new_item_and_true_for_one_fail() -> None:
    more = worked()
    more["orders"][0]["gift"] = True
    assert score(more)[0] == "fail"
    typed = worked()
    typed["orders"][0]["total"] = True
    assert score(typed)[0] == "fail"


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"a": 1}, {"a": 1, "more": "(absent)"}, False),
        ({"a": 1, "more": "(absent)"}, {"a": 1}, False),
        ({"a": 1, "more": None}, {"a": 1}, False),
        ({"a": 10**17}, {"a": 10**17 + 1}, False),
        ({"a": 10**17 + 1}, {"a": 1e17}, False),
        ({"a": 10**400}, {"a": 10**400 + 1}, False),
        ({"a": 10**17}, {"a": 1e17}, True),
        ({"a": 0.3}, {"a": 0.1 + 0.2}, True),
        ({"a": 2}, {"a": 2.0}, True),
    ],
)
def test_whatever_came_went_or_changed_is_seen(before: Any, after: Any, same: bool) -> None:
    changes = {"/done": {"after": True}}
    verdict = judge_state(
        flat({**before, "done": False}), flat({**after, "done": True}), changes, verifier="state@2"
    )
    assert (verdict.outcome == "pass") is same, verdict


def test_two_items_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one item named"):
        flat({"orders": [{"id": "a"}, {"id": "a"}]}, IDS)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"a": NaN}', b'{"a": 1, "a": 2}', b'{"a":' * 5000 + b"1" + b"}" * 5000]
)
async def test_a_state_that_cannot_be_read_fails(data: bytes) -> None:
    spec = WorkspaceSpec(image="python", seed=pack_tree({"s.json": json.dumps(BEFORE).encode()}))
    workspace = ScriptedWorkspace(spec, [])
    await workspace.put("s.json", data)
    hidden = {"expected.json": json.dumps({"changes": CHANGES, "ids": IDS}).encode()}
    judged = VerifierSpec(name="state", params={"path": "s.json"})
    verdict = await StateVerifier().verify(workspace, judged, hidden)
    assert (verdict.outcome, verdict.score) == ("fail", 0.0)


async def test_before_is_the_seed_and_after_the_file() -> None:
    spec = WorkspaceSpec(image="python", seed=pack_tree({"s.json": json.dumps(BEFORE).encode()}))
    workspace = ScriptedWorkspace(spec, [])
    expected = {"changes": CHANGES, "ids": IDS, "ignore": ["/log/*"]}
    hidden = {"expected.json": json.dumps(expected).encode()}
    judged = VerifierSpec(name="state", params={"path": "s.json"})
    assert (await StateVerifier().verify(workspace, judged, hidden)).score == 0.0
    await workspace.put("s.json", json.dumps(worked()).encode())
    assert (await StateVerifier().verify(workspace, judged, hidden)).outcome == "pass"
