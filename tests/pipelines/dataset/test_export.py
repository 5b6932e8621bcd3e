import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from rollmill.pipelines.dataset import BrokenTrajectory, ExportError, Run
from rollmill.pipelines.dataset.export import export
from rollmill.pipelines.dataset.splits import by_hash, by_list, origin
from rollmill.pipelines.task import Provenance
from rollmill.pipelines.trajectory import Trajectory
from rollmill.verifiers import Verdict

MakeTrajectory = Callable[..., Trajectory]
MakeRun = Callable[[str, Sequence[Trajectory]], Path]
FAILED: dict[str, Any] = {"verdict": Verdict(outcome="fail", score=0.0), "reward": 0.0}
UNSCORED: dict[str, Any] = {"verdict": None, "reward": None, "status": "policy_error"}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(name: str, trajectories: Sequence[Trajectory]) -> Path:
        with Run.open(tmp_path / name, {"name": name}) as run:
            run.write_shard(0, trajectories)
            run.finish()
        return tmp_path / name

    return make


def sourced(source: str, licence: str = "MIT") -> Provenance:
    return Provenance(
        source=source,
        licence=licence,
        url="https://example.invalid/" + source,
        seed=0,
        generator="bugs",
        generator_version="1",
    )


LOADER = """
import json, sys
sys.modules["rollmill"] = None  # importing it fails from here on
import datasets
whole = datasets.load_dataset(sys.argv[1])
streamed = datasets.load_dataset(sys.argv[1], streaming=True)
assert {name: list(rows) for name, rows in streamed.items()} == {
    name: list(rows) for name, rows in whole.items()
}
sources = {
    name: sorted({row["provenance"]["source"] for row in rows}) for name, rows in whole.items()
}
row = whole["train"][0]
seen = [row["verdict"]["outcome"], row["turns"][0]["completion_ids"], row["artifact"][1]["content"]]
print(json.dumps([sources, {name: len(rows) for name, rows in whole.items()}, seen]))
"""


def load(folder: Path, cache: Path) -> Any:
    """What a process without rollmill and without a network reads."""
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", LOADER, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cache)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_datasets_loads_and_streams_it_offline_without_rollmill(
    make_run: MakeRun, make_trajectory: MakeTrajectory, tmp_path: Path
) -> None:
    names = [f"package{n}" for n in range(30)]
    run = make_run(
        "r", [make_trajectory(n, provenance=sourced(name)) for n, name in enumerate(names)]
    )
    summary = export([run], str(tmp_path / "out"))

    (tmp_path / "cache").mkdir()
    sources, counts, seen = load(tmp_path / "out", tmp_path / "cache")
    assert counts == summary.splits
    assert sorted(name for split in sources.values() for name in split) == sorted(names)
    assert seen == ["pass", [4, 5], None]


def test_no_source_crosses_splits_in_any_version() -> None:
    for name in map(str, range(200)):
        versions = [f"P{name}==1.0", f"p{name}==2.0rc1", f"p{name}"]
        assert len({by_hash(version) for version in versions}) == 1
    assert origin("git+https://host/a/b.git@v1") == origin("git+https://host/a/b.git@v2")
    assert origin("git@host:a/b.git") != origin("git@host:a/c.git")
    assert by_list(["Tiny==1.0"])("tiny==2.0") == "test"
    assert by_list(["tiny==1.0"])("other==1.0") == "train"


def test_the_hash_splits_about_eight_to_one_to_one() -> None:
    splits = [by_hash(f"package{n}") for n in range(2000)]
    assert 0.75 < splits.count("train") / 2000 < 0.85
    assert 0.07 < splits.count("test") / 2000 < 0.13


@pytest.mark.parametrize(("keep", "rows"), [("all", 3), ("scored", 2), ("passed", 1)])
def test_only_what_is_asked_for_is_kept(
    make_run: MakeRun, make_trajectory: MakeTrajectory, tmp_path: Path, keep: Any, rows: int
) -> None:
    trajectories = [
        make_trajectory(0),
        make_trajectory(1, **FAILED),
        make_trajectory(2, **UNSCORED),
    ]
    summary = export([make_run("r", trajectories)], str(tmp_path / "out"), keep=keep)

    assert sum(summary.splits.values()) == rows
    assert summary.dropped == 3 - rows


def test_an_episode_of_two_runs_is_kept_once(
    make_run: MakeRun, make_trajectory: MakeTrajectory, tmp_path: Path
) -> None:
    runs = [
        make_run("a", [make_trajectory(0)]),
        make_run("b", [make_trajectory(i) for i in (0, 1)]),
    ]
    summary = export(runs, str(tmp_path / "out"), held_out=["tiny"])

    assert summary.splits == {"test": 2}
    assert summary.repeated == 1


def test_the_card_tells_licences_sources_funnel_and_how_to_load(
    make_run: MakeRun, make_trajectory: MakeTrajectory, tmp_path: Path
) -> None:
    run = make_run(
        "r",
        [
            make_trajectory(0, provenance=sourced("a==1", "MIT")),
            make_trajectory(1, provenance=sourced("b==1", "PSF-2.0"), **FAILED),
        ],
    )
    export([run], str(tmp_path / "out"), held_out=["b"])

    card = DatasetCard.load(tmp_path / "out/README.md")
    body, data = card.text, card.data.to_dict()
    assert data["license"] == ["mit", "other"]
    files = data["configs"][0]["data_files"]
    assert [entry["split"] for entry in files] == ["train", "test"]
    assert "| b==1 | PSF-2.0 | https://example.invalid/b==1 | test | 1 |" in body
    assert "| bugs | 1 | 1 | 0 |" in body
    assert "| passed | 1 |" in body
    assert "datasets.load_dataset(" in body
    assert "2 rows have a reward: mean 0.500" in body
    assert (tmp_path / "out/funnel.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_on_the_makers_machine_is_not_published(
    make_run: MakeRun, make_trajectory: MakeTrajectory, tmp_path: Path
) -> None:
    local = Provenance(
        source="mine",
        licence="MIT",
        url="/home/someone/mine",
        seed=0,
        generator="bugs",
        generator_version="1",
    )
    export([make_run("r", [make_trajectory(provenance=local)])], str(tmp_path / "out"))
    assert "/home/someone" not in (tmp_path / "out/README.md").read_text()


def test_what_cannot_be_exported_leaves_nothing_behind(
    make_run: MakeRun, make_trajectory: MakeTrajectory, tmp_path: Path
) -> None:
    good = make_run("good", [make_trajectory()])
    empty = make_run("empty", [make_trajectory(**UNSCORED)])
    broken = make_run("broken", [make_trajectory(tokenizer="")])
    before = sorted(path.name for path in tmp_path.iterdir())

    with pytest.raises(ExportError, match="none of the 1 rows"):
        export([empty], str(tmp_path / "out"))
    with pytest.raises(BrokenTrajectory, match="no tokenizer"):
        export([broken], str(tmp_path / "out"))
    with pytest.raises(ExportError, match="is taken"):
        export([good], str(good))
    with pytest.raises(ExportError, match="hf://owner/name"):
        export([good], "hf://nobody")
    with pytest.raises(ExportError, match="all, scored, passed"):
        export([good], str(tmp_path / "out"), keep="some")  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == before
