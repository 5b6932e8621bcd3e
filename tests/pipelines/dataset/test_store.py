import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollmill.pipelines.dataset import (
    CorruptRun,
    CorruptShard,
    NotARun,
    ProposalRecord,
    Run,
    RunLocked,
    RunMismatch,
    content_digest,
    read_rows,
    read_run,
    to_row,
)
from rollmill.pipelines.dataset.manifest import read_manifest
from rollmill.pipelines.files import room_for
from rollmill.pipelines.task import Task
from rollmill.pipelines.trajectory import Timings, Trajectory
from rollmill.workspaces import DiskFull

MakeTrajectory = Callable[..., Trajectory]
CONFIG: dict[str, Any] = {"seed": 1, "policies": ["gold"], "sources": {"coding": ["tiny"]}}


def record(key: str, **fields: Any) -> ProposalRecord:
    defaults: dict[str, Any] = {"family": "bugs", "source": "tiny==1.0", "stage": "admitted"}
    return ProposalRecord(key=key, **defaults | fields)


def in_subprocess(script: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, **options)


def test_a_run_resumes_with_all_that_was_kept(
    tmp_path: Path, make_trajectory: MakeTrajectory, make_task: Callable[..., Task]
) -> None:
    done = make_trajectory(0)
    with Run.open(tmp_path / "r", CONFIG) as run:
        run.record_proposal(record("a"))
        run.save_task(make_task(), {"gold": ["pass"]})
        run.add_episode(3, done)
    with Run.open(tmp_path / "r", CONFIG) as run:
        assert run.proposals() == [record("a")]
        assert run.tasks() == {make_task().task_id: make_task()}
        assert run.done_episodes(3) == {done.episode_id: done}
        assert run.done_episodes(0) == {}
        assert not run.finished


def test_another_configuration_is_refused_key_by_key(tmp_path: Path) -> None:
    Run.open(tmp_path / "r", CONFIG).close()
    other = {"seed": 2, "policies": ["gold"], "sources": {"coding": []}, "new": None, "n": 4}

    with pytest.raises(RunMismatch) as caught:
        Run.open(tmp_path / "r", other)
    assert caught.value.differing == {
        "n": (None, 4),
        "seed": (1, 2),
        "sources.coding": (["tiny"], []),
    }
    assert "seed is 1 there and 2 here" in str(caught.value)
    Run.open(tmp_path / "r", CONFIG).close()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(NotARun, match="holds no run"):
        Run.open(tmp_path, CONFIG)
    with pytest.raises(NotARun, match="is no folder"):
        Run.open(tmp_path / "thesis.tex", CONFIG)
    with pytest.raises(NotARun):
        list(read_rows(tmp_path / "nothing"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_only_one_writer_at_a_time_and_a_dead_one_does_not_count(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from rollmill.pipelines.dataset import Run
        run = Run.open(Path(sys.argv[1]), {})
        print("open", flush=True)
        time.sleep(60)
    """
    with in_subprocess(script, tmp_path / "r") as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(RunLocked, match=f"process {holder.pid} is writing"):
            Run.open(tmp_path / "r", {})
        holder.kill()
    Run.open(tmp_path / "r", {}).close()


def test_a_torn_record_is_owed_again_and_glues_to_nothing(tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", {}) as run:
        run.record_proposal(record("a"))
        run.record_proposal(record("b"))
    log = tmp_path / "r/proposals.jsonl"
    log.write_bytes(log.read_bytes()[:-9])

    with Run.open(tmp_path / "r", {}) as run:
        assert run.proposals() == [record("a")]
        run.record_proposal(record("c"))
        assert run.proposals() == [record("a"), record("c")]


def test_a_later_record_of_a_key_replaces_the_earlier(tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", {}) as run:
        run.record_proposal(record("a", stage="built", reason="gold_fails"))
        run.record_proposal(record("b"))
        run.record_proposal(record("a"))
        assert run.proposals() == [record("a"), record("b")]


def test_a_whole_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", {}) as run:
        run.record_proposal(record("a"))
        (tmp_path / "r/proposals.jsonl").write_text('{"family": 1}\n')
        with pytest.raises(CorruptRun, match=r"line 1 of .*proposals\.jsonl"):
            run.proposals()


def test_rows_lie_in_one_order_whoever_finished_first(
    tmp_path: Path, make_trajectory: MakeTrajectory
) -> None:
    trajectories = [make_trajectory(i) for i in range(9)]
    orders = [trajectories, random.Random(0).sample(trajectories, 9)]
    for name, order in zip("ab", orders, strict=True):
        with Run.open(tmp_path / name, {}) as run:
            for trajectory in order:
                run.add_episode(0, trajectory)
            run.write_shard(0, order)
            run.finish()

    assert list(read_run(tmp_path / "a")) == list(read_run(tmp_path / "b"))
    assert read_manifest(tmp_path / "a") == read_manifest(tmp_path / "b")
    assert not (tmp_path / "a/journal/shard-00000").exists()


def test_an_episode_cannot_stand_in_a_shard_twice(
    tmp_path: Path, make_trajectory: MakeTrajectory
) -> None:
    with Run.open(tmp_path / "r", {}) as run, pytest.raises(ValueError, match="twice"):
        run.write_shard(0, [make_trajectory(0), make_trajectory(0)])


def test_what_our_machinery_failed_is_kept_and_still_owed(
    tmp_path: Path, make_trajectory: MakeTrajectory
) -> None:
    failed = make_trajectory(status="workspace_error", verdict=None, reward=None, error="died")
    with Run.open(tmp_path / "r", {}) as run:
        run.add_episode(0, failed)
        run.add_episode(0, failed)
        assert run.done_episodes(0) == {}
    names = sorted(path.name for path in (tmp_path / "r/attempts").iterdir())
    assert names == [f"{failed.episode_id}.{n:03d}.arrow" for n in (0, 1)]


def test_the_digest_sees_content_and_neither_seconds_nor_our_errors(
    make_trajectory: MakeTrajectory,
) -> None:
    one, two = make_trajectory(0), make_trajectory(1)
    slower = replace(
        one,
        timings=Timings(setup_s=99.0),
        error="other words",
        turns=tuple(replace(turn, policy_s=9.0, tools_s=9.0) for turn in one.turns),
    )
    digest = content_digest([to_row(one), to_row(two)])

    assert digest == content_digest([to_row(two), to_row(slower)])
    assert digest != content_digest([to_row(two), to_row(replace(one, reward=0.5))])
    assert digest != content_digest([to_row(two), to_row(two)])


WRITER = """
    import importlib.util, sys, time
    from pathlib import Path
    from rollmill.pipelines.dataset import ProposalRecord, Run
    spec = importlib.util.spec_from_file_location("builders", sys.argv[2])
    builders = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builders)
    with Run.open(Path(sys.argv[1]), {"seed": 1}) as run:
        print("begun", flush=True)
        known = {record.key for record in run.proposals()}
        for key in map(str, range(10)):
            if key not in known:
                run.record_proposal(
                    ProposalRecord(family="bugs", source="s", key=key, stage="admitted")
                )
        run.save_task(builders.build_task(), {})
        for shard in range(4):
            episodes = [builders.build_trajectory(8 * shard + i) for i in range(8)]
            done = run.done_episodes(shard)
            for episode in episodes:
                if episode.episode_id not in done:
                    time.sleep(0.01)
                    run.add_episode(shard, episode)
                    done[episode.episode_id] = episode
            if not run.has_shard(shard):
                run.write_shard(shard, list(done.values()))
        run.finish()
"""


def test_kill_9_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    builders = Path(__file__).parents[1] / "conftest.py"
    chance = random.Random(0)
    for _ in range(4):
        with in_subprocess(WRITER, tmp_path / "killed", builders) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(chance.uniform(0, 0.2))
            before = journaled(tmp_path / "killed")
            os.kill(writer.pid, signal.SIGKILL)
        assert journaled(tmp_path / "killed") >= before
    for name in ("killed", "whole"):
        with in_subprocess(WRITER, tmp_path / name, builders) as writer:
            writer.communicate()
        assert writer.returncode == 0

    killed, whole = (read_manifest(tmp_path / name) for name in ("killed", "whole"))
    assert killed is not None
    assert killed == whole
    assert killed.rows == 32
    assert list((tmp_path / "killed").rglob(".partial-*")) == []


def journaled(run: Path) -> int:
    """Episodes that are safe: in a journal or in a whole shard."""
    whole = {path.stem for path in run.glob("shards/*.arrow")}
    waiting = [path for path in run.glob("journal/*/*.arrow") if path.parent.name not in whole]
    return 8 * len(whole) + len(waiting)


def test_a_damaged_shard_is_named_and_made_anew(
    tmp_path: Path, make_trajectory: MakeTrajectory
) -> None:
    trajectories = [make_trajectory(i) for i in range(4)]
    with Run.open(tmp_path / "r", {}) as run:
        shard = run.write_shard(0, trajectories)
        before = run.finish()
        assert run.finished
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    shard.write_bytes(damaged)

    with pytest.raises(CorruptShard, match=r"shard-00000\.arrow is damaged"):
        list(read_rows(tmp_path / "r"))
    shard.unlink()
    with pytest.raises(CorruptRun, match="is missing"):
        list(read_rows(tmp_path / "r"))
    with Run.open(tmp_path / "r", {}) as run:
        assert not run.finished
        assert not run.has_shard(0)
        run.write_shard(0, trajectories)
        assert run.finish().content_digest == before.content_digest


CRAMPED = """
    import importlib.util, json, resource, sys
    from pathlib import Path
    from rollmill.pipelines.dataset import ProposalRecord, Run
    from rollmill.workspaces import Artifact, DiskFull
    import random
    spec = importlib.util.spec_from_file_location("builders", sys.argv[2])
    builders = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builders)
    big = random.Random(0).randbytes(200_000)
    episode = builders.build_trajectory(0, artifact=Artifact(files={"x": big}))
    task = builders.build_task(hidden={"x": big})
    run = Run.open(Path(sys.argv[1]), {})
    run.record_proposal(ProposalRecord(family="bugs", source="s", key="a", stage="built"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    long = ProposalRecord(family="bugs", source="s", key="b", stage="built", detail="d" * 200_000)
    for act in (
        lambda: run.add_episode(0, episode),
        lambda: run.write_shard(0, [episode]),
        lambda: run.save_task(task, {}),
        lambda: run.record_proposal(long),
    ):
        try:
            act()
        except DiskFull as error:
            print(error)
    assert len(run.proposals()) == 1
"""


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    builders = Path(__file__).parents[1] / "conftest.py"
    with in_subprocess(CRAMPED, tmp_path / "r", builders) as writer:
        printed = writer.communicate()[0].splitlines()
    assert writer.returncode == 0
    assert len(printed) == 4
    assert all(
        "no room left to write" in line and "run the same command" in line for line in printed
    )
    files = {path.name for path in (tmp_path / "r").rglob("*") if path.is_file()}
    assert files == {"run.json", ".lock", "proposals.jsonl"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_the_system_saying_no_space_is_a_full_disk() -> None:
    full = Path("/dev/full")
    with pytest.raises(DiskFull, match="no room left"), room_for(full):
        full.write_bytes(b"x")


def test_the_manifest_tells_what_is_there(tmp_path: Path, make_trajectory: MakeTrajectory) -> None:
    failed = make_trajectory(5, verdict=None, reward=None, status="verifier_error")
    with Run.open(tmp_path / "r", CONFIG) as run:
        run.write_shard(0, [make_trajectory(0), make_trajectory(1)])
        run.write_shard(1, [failed])
        run.finish()

    manifest = json.loads((tmp_path / "r/manifest.json").read_text())
    assert manifest["outcomes"] == {"pass": 2, "unscored": 1}
    assert [(shard["name"], shard["rows"]) for shard in manifest["shards"]] == [
        ("shard-00000.arrow", 2),
        ("shard-00001.arrow", 1),
    ]
