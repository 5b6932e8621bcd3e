import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollmill.model import Message, ToolCall, ToolSpec
from rollmill.pipelines.dataset import SCHEMA, CorruptShard, from_row, to_row
from rollmill.pipelines.dataset.shards import BATCH_ROWS, read_shard, write_shard
from rollmill.pipelines.trajectory import Timings, Trajectory, Turn
from rollmill.verifiers import Check, Verdict
from rollmill.workspaces import Artifact

MakeTrajectory = Callable[..., Trajectory]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=3)
IDS = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple)
SECONDS = st.floats(0, 1e6)
TURNS = st.builds(
    Turn,
    parent=st.none() | st.integers(0, 100),
    prompt_ids=IDS,
    completion_ids=IDS,
    logprobs=st.lists(st.floats(max_value=0, width=32), max_size=5).map(tuple),
    policy_version=st.text(),
    finish_reason=st.sampled_from(["stop", "length"]),
    format_error=st.none() | st.text(),
    policy_s=SECONDS,
    tools_s=SECONDS,
)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=st.text(),
    reasoning=st.text(),
    tool_calls=st.lists(st.builds(ToolCall, name=st.text(), arguments=OBJECTS), max_size=2).map(
        tuple
    ),
    token_ids=st.none() | IDS,
)
VERDICTS = st.builds(
    Verdict,
    outcome=st.sampled_from(["fail", "unscored"]),
    score=st.floats(0, 0.99),
    checks=st.lists(
        st.builds(
            Check,
            name=st.text(),
            outcome=st.sampled_from(["pass", "fail", "unscored"]),
            evidence=st.text(),
        ),
        max_size=2,
    ).map(tuple),
    verifier=st.text(),
)
PARTS = st.fixed_dictionaries(
    {
        "messages": st.lists(MESSAGES, max_size=3).map(tuple),
        "tools": st.lists(
            st.builds(ToolSpec, name=st.text(), description=st.text(), parameters=OBJECTS),
            max_size=2,
        ).map(tuple),
        "turns": st.lists(TURNS, max_size=3).map(tuple),
        "artifact": st.builds(
            Artifact, files=st.dictionaries(st.text(), st.none() | st.binary(), max_size=3)
        ),
        "verdict": st.none() | VERDICTS,
        "reward": st.none() | st.floats(allow_nan=False),
        "reward_parts": st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=3),
        "timings": st.builds(
            Timings, setup_s=SECONDS, policy_s=SECONDS, tools_s=SECONDS, verify_s=SECONDS
        ),
        "error": st.text(),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parts=st.lists(PARTS, max_size=3))
def test_what_goes_through_a_shard_comes_back_equal(
    parts: list[dict[str, Any]],
    make_trajectory: MakeTrajectory,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("shard") / "x.arrow"
    trajectories = [make_trajectory(i, **fields) for i, fields in enumerate(parts)]
    write_shard(path, [to_row(trajectory) for trajectory in trajectories])

    assert [from_row(row) for row in read_shard(path)] == trajectories


def test_the_order_of_arguments_survives(make_trajectory: MakeTrajectory, tmp_path: Path) -> None:
    call = ToolCall(name="edit", arguments={"path": "b", "line": 1, "a": "last"})
    message = Message(role="assistant", tool_calls=(call,))
    write_shard(tmp_path / "x.arrow", [to_row(make_trajectory(messages=(message,)))])

    (row,) = read_shard(tmp_path / "x.arrow")
    assert list(from_row(row).messages[0].tool_calls[0].arguments) == ["path", "line", "a"]


def test_a_lone_surrogate_costs_one_character_and_no_row(
    make_trajectory: MakeTrajectory, tmp_path: Path
) -> None:
    odd = Message(role="assistant", content="a\ud800b")
    trajectories = [make_trajectory(0), make_trajectory(1, messages=(odd,))]
    write_shard(tmp_path / "x.arrow", [to_row(trajectory) for trajectory in trajectories])

    back = [from_row(row) for row in read_shard(tmp_path / "x.arrow")]
    assert back[0] == trajectories[0]
    assert back[1].messages[0].content == "a?b"


def test_every_truncation_is_noticed(make_trajectory: MakeTrajectory, tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    write_shard(path, [to_row(make_trajectory(i)) for i in range(3 * BATCH_ROWS)])
    whole = path.read_bytes()

    for length in [*range(0, len(whole) - 8, 997), len(whole) - 9]:
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptShard, match="give the command that made the run again"):
            list(read_shard(path))


def test_a_tail_cut_between_two_batches_is_noticed(
    make_trajectory: MakeTrajectory, tmp_path: Path
) -> None:
    rows = [to_row(make_trajectory(i)) for i in range(2 * BATCH_ROWS)]
    path = tmp_path / "x.arrow"
    write_shard(path, rows)
    schema = pa.ipc.open_stream(path.read_bytes()).schema
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist(rows[:BATCH_ROWS], schema=schema))

    with pytest.raises(CorruptShard, match=f"{BATCH_ROWS} of its rows are missing"):
        list(read_shard(path))


def test_a_foreign_arrow_file_is_refused(tmp_path: Path) -> None:
    table = pa.table({"a": [1]})
    path = str(tmp_path / "x.arrow")
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)

    with pytest.raises(CorruptShard, match="columns"):
        list(read_shard(tmp_path / "x.arrow"))


READER = """
import sys
sys.modules["rollmill"] = None  # importing it fails from here on
import datasets
rows = datasets.Dataset.from_file(sys.argv[1])
row = rows[0]
print(len(rows), row["episode_id"], row["turns"][1]["parent"], row["verdict"]["outcome"])
print(rows[1]["verdict"], row["artifact"][0]["content"])
"""


def test_datasets_reads_a_shard_where_rollmill_cannot_be_imported(
    make_trajectory: MakeTrajectory, tmp_path: Path
) -> None:
    unscored = make_trajectory(1, verdict=None, reward=None, status="policy_error")
    write_shard(tmp_path / "x.arrow", [to_row(make_trajectory(0)), to_row(unscored)])

    command = [sys.executable, "-c", READER, str(tmp_path / "x.arrow")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == ["2 0000000000000000 0 pass", "None b'x\\x00'"]


def test_the_outcome_column_says_what_the_verdict_says(make_trajectory: MakeTrajectory) -> None:
    assert to_row(make_trajectory())["outcome"] == "pass"
    assert to_row(replace(make_trajectory(), verdict=None))["outcome"] == "unscored"
    assert set(to_row(make_trajectory())) == set(SCHEMA.names)
