"""The Arrow form of a trajectory: one fixed, versioned schema; one row is one episode.

Knows no files: `shards.py` writes them. Log-probabilities are kept in single precision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from ...model import Message, ToolCall, ToolSpec
from ...verifiers import Check, Verdict
from ...workspaces import Artifact
from ..task import Provenance
from ..trajectory import Timings, Trajectory, Turn

VERSION = "1"
ROOT = -1
"""`turns.parent` of a turn that extends no other."""

Row = dict[str, Any]


def _struct(**fields: pa.DataType) -> pa.DataType:
    return pa.struct(list(fields.items()))


_STRING, _INT, _SECONDS = pa.string(), pa.int32(), pa.float64()
_IDS = pa.list_(pa.int32())
_TOOL_CALL = _struct(name=_STRING, arguments=_STRING)
_MESSAGE = _struct(
    role=_STRING,
    content=_STRING,
    reasoning=_STRING,
    tool_calls=pa.list_(_TOOL_CALL),
    token_ids=_IDS,
)
_TURN = _struct(
    parent=_INT,
    prompt_ids=_IDS,
    completion_ids=_IDS,
    logprobs=pa.list_(pa.float32()),
    policy_version=_STRING,
    finish_reason=_STRING,
    format_error=_STRING,
    policy_s=_SECONDS,
    tools_s=_SECONDS,
)
_CHECK = _struct(name=_STRING, outcome=_STRING, evidence=_STRING)
_VERDICT = _struct(outcome=_STRING, score=pa.float64(), checks=pa.list_(_CHECK), verifier=_STRING)
_PROVENANCE = _struct(
    source=_STRING,
    licence=_STRING,
    url=_STRING,
    seed=pa.int64(),
    generator=_STRING,
    generator_version=_STRING,
    detail=pa.list_(_struct(name=_STRING, value=_STRING)),
)

SCHEMA = pa.schema(
    {
        "episode_id": _STRING,
        "task_id": _STRING,
        "group_id": _STRING,
        "attempt": _INT,
        "family": _STRING,
        "domain": _STRING,
        "policy": _STRING,
        "tokenizer": _STRING,
        "agent": _STRING,
        "image_digest": _STRING,
        "status": _STRING,
        "outcome": _STRING,
        "error": _STRING,
        "messages": pa.list_(_MESSAGE),
        "tools": _STRING,
        "turns": pa.list_(_TURN),
        "artifact": pa.list_(_struct(path=_STRING, content=pa.binary(), deleted=pa.bool_())),
        "verdict": _VERDICT,
        "reward": pa.float64(),
        "reward_parts": pa.list_(_struct(name=_STRING, value=pa.float64())),
        "timings": _struct(
            setup_s=_SECONDS, policy_s=_SECONDS, tools_s=_SECONDS, verify_s=_SECONDS
        ),
        "provenance": _PROVENANCE,
    },
    metadata={"rollmill.schema": VERSION},
)


def to_row(trajectory: Trajectory) -> Row:
    """The row of a trajectory, as `pyarrow` and `datasets` take it."""
    row: Row = {name: getattr(trajectory, name) for name in SCHEMA.names}
    row["messages"] = [_message_row(message) for message in trajectory.messages]
    row["tools"] = _json([asdict(tool) for tool in trajectory.tools])
    row["turns"] = [_turn_row(turn) for turn in trajectory.turns]
    row["artifact"] = [
        {"path": path, "content": content, "deleted": content is None}
        for path, content in trajectory.artifact.files.items()
    ]
    row["verdict"] = _verdict_row(trajectory.verdict) if trajectory.verdict else None
    row["reward_parts"] = _pairs(trajectory.reward_parts)
    row["timings"] = asdict(trajectory.timings)
    row["provenance"] = {
        **asdict(trajectory.provenance),
        "detail": _pairs(trajectory.provenance.detail),
    }
    return row


def from_row(row: Mapping[str, Any]) -> Trajectory:
    """The trajectory of a row; `from_row(to_row(t)) == t`."""
    fields = {name: row[name] for name in SCHEMA.names if name != "outcome"}
    fields["messages"] = tuple(_message(message) for message in row["messages"])
    fields["tools"] = tuple(ToolSpec(**tool) for tool in json.loads(row["tools"]))
    fields["turns"] = tuple(_turn(turn) for turn in row["turns"])
    fields["artifact"] = Artifact(
        files={
            file["path"]: None if file["deleted"] else file["content"] for file in row["artifact"]
        }
    )
    fields["verdict"] = _verdict(row["verdict"]) if row["verdict"] else None
    fields["reward_parts"] = _mapping(row["reward_parts"])
    fields["timings"] = Timings(**row["timings"])
    detail = _mapping(row["provenance"]["detail"])
    fields["provenance"] = Provenance(**{**row["provenance"], "detail": detail})
    return Trajectory(**fields)


def _message_row(message: Message) -> Row:
    calls = [{"name": call.name, "arguments": _json(call.arguments)} for call in message.tool_calls]
    ids = None if message.token_ids is None else list(message.token_ids)
    return {
        "role": message.role,
        "content": message.content,
        "reasoning": message.reasoning,
        "tool_calls": calls,
        "token_ids": ids,
    }


def _message(row: Row) -> Message:
    calls = tuple(
        ToolCall(name=call["name"], arguments=json.loads(call["arguments"]))
        for call in row["tool_calls"]
    )
    ids = None if row["token_ids"] is None else tuple(row["token_ids"])
    return Message(**{**row, "tool_calls": calls, "token_ids": ids})


def _turn_row(turn: Turn) -> Row:
    row: Row = {name: getattr(turn, name) for name in Turn.__slots__}
    row["parent"] = ROOT if turn.parent is None else turn.parent
    for name in ("prompt_ids", "completion_ids", "logprobs"):
        row[name] = list(row[name])
    return row


def _turn(row: Row) -> Turn:
    parent = None if row["parent"] == ROOT else row["parent"]
    ids = {name: tuple(row[name]) for name in ("prompt_ids", "completion_ids", "logprobs")}
    return Turn(**{**row, **ids, "parent": parent})


def _verdict_row(verdict: Verdict) -> Row:
    return {**asdict(verdict), "checks": [asdict(check) for check in verdict.checks]}


def _verdict(row: Row) -> Verdict:
    return Verdict(**{**row, "checks": tuple(Check(**check) for check in row["checks"])})


def _pairs(mapping: Mapping[str, Any]) -> list[Row]:
    return [{"name": name, "value": value} for name, value in mapping.items()]


def _mapping(pairs: list[Row]) -> dict[str, Any]:
    return {pair["name"]: pair["value"] for pair in pairs}


def _json(value: Any) -> str:
    """JSON text; the order of keys is kept, because a chat template shows it to the model."""
    return json.dumps(value, ensure_ascii=False)
