"""A policy on the panel is asked the question alone; when it fails, its voice is missing."""

import json
from typing import Any

import pytest
from fastapi import Response

from rollmill.model import Message
from rollmill.pipelines.rollout.authored import ScriptedPolicy
from rollmill.pipelines.rollout.judging import open_judge, opened_judges, panel_of
from rollmill.pipelines.rollout.policies import UnknownPolicy
from rollmill.pipelines.rollout.policy import PolicyError
from rollmill.verifiers import JudgeError, Question

from .conftest import ModelServer
from .handmade import bug_task

ASKED = Question(instructions="Judge it.", content="===\n> work\n===", number=1)


async def test_a_server_judges_without_tools_and_greedily(server: ModelServer) -> None:
    choice = {"message": {"role": "assistant", "content": '{"findings": []}'}}
    answer: dict[str, Any] = {"choices": [choice], "model": "m2"}
    server.script = [Response(json.dumps(answer), media_type="application/json")]
    async with opened_judges([f"openai:{server.url}#m2"]) as policies:
        (judge,) = panel_of(policies, bug_task())
        assert judge.name == f"openai:{server.url}#m2"
        assert await judge.ask(ASKED) == '{"findings": []}'
    (sent,) = server.seen
    assert [(m["role"], m["content"]) for m in sent["messages"]] == [
        ("system", ASKED.instructions),
        ("user", ASKED.content),
    ]
    assert (sent["temperature"], sent["seed"]) == (0.0, 1)
    assert "tools" not in sent
    assert bug_task().instruction not in json.dumps(sent)


async def test_a_script_judges_and_its_failure_is_a_missing_voice() -> None:
    script: list[Message | PolicyError] = [
        PolicyError("down"),
        Message(role="assistant", content="met"),
    ]
    (judge,) = panel_of([ScriptedPolicy(script)], bug_task())
    assert await judge.ask(ASKED) == "met"
    with pytest.raises(JudgeError, match="down"):
        await judge.ask(Question(instructions="", content="", number=0))


@pytest.mark.parametrize("spec", ["gold", "null", "opnai:x", "openai:here"])
def test_what_cannot_judge_is_refused_by_name(spec: str) -> None:
    with pytest.raises(UnknownPolicy, match=spec):
        open_judge(spec)
