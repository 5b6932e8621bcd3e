"""Wheels are fetched once; laying them again asks no index, and what cannot be had says why."""

import subprocess
from pathlib import Path

import pytest

from rollmill.workspaces import ImageError, wheelhouse

PIN = "six==1.17.0"
NOWHERE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null",
}  # fmt: skip


def test_what_was_fetched_is_laid_again_without_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    house = wheelhouse.fetched([PIN], "3.11")
    assert [wheel.name.split("-")[0] for wheel in house.iterdir()] == ["six"]
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)
    wheelhouse.install([PIN], "3.11", tmp_path / "site")
    assert (tmp_path / "site/six.py").exists()
    with pytest.raises(ImageError, match="pip download failed"):
        wheelhouse.install(["attrs==26.1.0"], "3.11", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert [place.name for place in house.parent.iterdir()] == [house.name]


def test_a_cache_that_cannot_be_written_costs_the_wheels_and_not_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wheelhouse.install([PIN], "3.11", tmp_path / "site")
    assert (tmp_path / "site/six.py").exists()


def test_an_image_without_wheels_asks_for_nothing(tmp_path: Path) -> None:
    wheelhouse.install([], "3.11", tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_build_of_an_image_calls_it_as_a_program(tmp_path: Path) -> None:
    from rollmill.workspaces.bootstrap import pip_hook

    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/python3").symlink_to("python3.11")
    hook = pip_hook([PIN])
    subprocess.run(["sh", "-c", hook, "sh", str(root)], check=True, capture_output=True)
    assert (root / "usr/local/lib/python3.11/dist-packages/six.py").exists()
