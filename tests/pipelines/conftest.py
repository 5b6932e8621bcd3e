"""Small tasks and trajectories to build tests from; every field can be overridden."""

from collections.abc import Callable
from typing import Any

import pytest

from rollmill.model import Message, ToolCall, ToolSpec
from rollmill.pipelines.task import Budget, Move, Provenance, Task
from rollmill.pipelines.trajectory import Timings, Trajectory, Turn
from rollmill.verifiers import Check, Verdict, VerifierSpec
from rollmill.workspaces import Artifact, Limits, WorkspaceSpec, pack_tree


def build_provenance(**fields: Any) -> Provenance:
    defaults: dict[str, Any] = {
        "source": "tiny==1.0",
        "licence": "MIT",
        "url": "https://example.invalid/tiny",
        "seed": 7,
        "generator": "bugs",
        "generator_version": "1",
        "detail": {"mutation": "swap_compare"},
    }
    return Provenance(**defaults | fields)


def build_task(**fields: Any) -> Task:
    moves = (
        Move(thought="Look.", calls=(ToolCall(name="bash", arguments={"command": "ls -1"}),)),
        Move(
            thought="Write it\nin two lines.",
            calls=(
                ToolCall(name="write_file", arguments={"path": "a/b.py", "content": "x = 'ü'"}),
                ToolCall(
                    name="edit_file",
                    arguments={"path": "tiny.py", "line": 2, "old": "a - b", "new": "a + b"},
                ),
            ),
        ),
    )
    defaults: dict[str, Any] = {
        "family": "bugs",
        "domain": "coding",
        "instruction": "Make `add` add.\r\n\nÜber all else.",
        "workspace": WorkspaceSpec(
            image="python",
            seed=pack_tree({"tiny.py": b"def add(a, b):\n    return a - b\n"}),
            env={"LANG": "C.UTF-8"},
            limits=Limits(cpus=1, command_s=60),
        ),
        "verifier": VerifierSpec(
            name="test_suite",
            params={
                "fail_to_pass": ["tests/test_tiny.py::test_add"],
                "pass_to_pass": [],
                "tests": ["tests"],
                "timeout_s": 60,
            },
        ),
        "hidden": {
            "tests/test_tiny.py": b"import tiny\n\ndef test_add():\n    assert tiny.add(1, 2) == 3",
            "tests/data/\xfc.bin": bytes(range(256)),
        },
        "artifacts": ("tiny.py", "a"),
        "solution": moves,
        "provenance": build_provenance(),
        "budget": Budget(max_turns=5, time_limit_s=30),
    }
    return Task(**defaults | fields)


def build_trajectory(number: int = 0, **fields: Any) -> Trajectory:
    turns = (
        Turn(
            parent=None,
            prompt_ids=(1, 2, 3),
            completion_ids=(4, 5),
            logprobs=(-0.5, -0.25),
            policy_version="v1",
            finish_reason="stop",
            format_error=None,
            policy_s=0.5,
            tools_s=0.1,
        ),
        Turn(
            parent=0,
            prompt_ids=(6,),
            completion_ids=(7,),
            logprobs=(),
            policy_version="v1",
            finish_reason="length",
            format_error="no tool call",
            policy_s=0.25,
            tools_s=0.0,
        ),
    )
    call = ToolCall(name="bash", arguments={"command": "ls", "timeout_s": 5})
    defaults: dict[str, Any] = {
        "episode_id": f"{number:016x}",
        "task_id": f"task{number // 2}",
        "group_id": f"group{number // 2}",
        "attempt": number % 2,
        "family": "bugs",
        "domain": "coding",
        "policy": "gold",
        "tokenizer": "t0",
        "agent": "rollmill@1",
        "image_digest": "sha256:0",
        "status": "submitted",
        "error": "",
        "messages": (
            Message(role="system", content="Be good."),
            Message(role="user", content=f"Do {number}."),
            Message(role="assistant", reasoning="Hm.", tool_calls=(call,), token_ids=(4, 5)),
            Message(role="tool", content="tiny.py"),
        ),
        "tools": (ToolSpec(name="bash", description="Run.", parameters={"type": "object"}),),
        "turns": turns,
        "artifact": Artifact(files={"tiny.py": b"x\x00", "old.py": None}),
        "verdict": Verdict(
            outcome="pass",
            score=1.0,
            checks=(Check(name="t", outcome="pass", evidence="ok"),),
            verifier="test_suite@1",
        ),
        "reward": 1.0,
        "reward_parts": {"outcome": 1.0},
        "timings": Timings(setup_s=0.1, policy_s=0.75, tools_s=0.1, verify_s=0.4),
        "provenance": build_provenance(),
    }
    return Trajectory(**defaults | fields)


@pytest.fixture(scope="session")
def make_task() -> Callable[..., Task]:
    return build_task


@pytest.fixture(scope="session")
def make_trajectory() -> Callable[..., Trajectory]:
    return build_trajectory
