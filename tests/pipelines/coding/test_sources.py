"""Sources come as they were pinned, run nothing on the host, and say what is wrong with them."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from rollmill.pipelines.coding import inert_build
from rollmill.pipelines.coding.fetch import fetch
from rollmill.pipelines.coding.layout import choose_layout
from rollmill.pipelines.coding.sources import Source, find_source, read_sources, shipped_sources
from rollmill.pipelines.family import SourceError

from .packages import SHOP, WORDS, write_package

BOOBY_TRAP = "import pathlib; pathlib.Path({mark!r}).touch()\n"


def sdist(folder: Path, members: dict[str, str], **attributes: str) -> Path:
    archive = folder / "tiny-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
        for name, target in attributes.items():
            link = tarfile.TarInfo(f"tiny-1.0/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    return archive


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes sdists from, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_shipped_sources_are_pinned_licensed_and_split() -> None:
    sources = shipped_sources()
    assert len(sources) >= 14
    assert sum(source.split == "held_out" for source in sources.values()) >= 3
    for source in sources.values():
        assert "==" in source.requirement
        assert len(source.sha256) == 64
        assert source.licence in {"MIT", "BSD-3-Clause", "BSD-2-Clause", "Apache-2.0", "PSF-2.0"}
        assert source.url.startswith("https://pypi.org/project/")


@pytest.mark.parametrize("with_pyproject", [False, True])
def test_an_sdist_is_fetched_without_running_its_code(
    tmp_path: Path, index: Path, with_pyproject: bool
) -> None:
    trap = BOOBY_TRAP.format(mark=str(tmp_path / "sprung"))
    members = {
        "tiny-1.0/PKG-INFO": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        "Classifier: License :: OSI Approved :: MIT License\n",
        "tiny-1.0/setup.py": trap,
        "tiny-1.0/tiny.py": "x = 1\n",
    }
    if with_pyproject:
        members["tiny-1.0/backend.py"] = trap
        members["tiny-1.0/pyproject.toml"] = (
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
    sdist(index, members, link="tiny.py")
    source = Source(name="tiny", requirement="tiny==1.0")
    tree, licence = fetch(source, tmp_path / "cache")
    assert tree["tiny.py"] == b"x = 1\n"
    assert "link" not in tree
    assert licence == "MIT"
    assert not (tmp_path / "sprung").exists()
    (index / "tiny-1.0.tar.gz").unlink()
    assert fetch(source, tmp_path / "cache")[0] == tree


@pytest.mark.parametrize(
    ("backend", "path"),
    [
        ("PEP517_BUILD_BACKEND", "PEP517_BACKEND_PATH"),  # pip 23 and 24
        ("_PYPROJECT_HOOKS_BUILD_BACKEND", "_PYPROJECT_HOOKS_BACKEND_PATH"),  # pip 25
        ("_PYPROJECT_HOOKS_BUILD_BACKEND", "_PYPROJECT_HOOKS_BACKEND_PATH_JSON"),
    ],
)
def test_the_hook_process_of_any_pip_is_turned_away_from_the_package(
    tmp_path: Path, backend: str, path: str
) -> None:
    shutil.copy(inert_build.__file__, tmp_path / "sitecustomize.py")
    ask = f"import os; print(os.environ[{backend!r}], os.environ.get({path!r}))"
    env = {**os.environ, "PYTHONPATH": str(tmp_path), backend: "backend", path: "."}
    done = subprocess.run([sys.executable, "-c", ask], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["sitecustomize", "None"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"sha256": "0" * 64}, "is pinned"), ({"licence": "Apache-2.0"}, "states MIT")],
)
def test_a_source_that_is_not_what_was_declared_is_refused(
    tmp_path: Path, index: Path, fields: dict[str, str], says: str
) -> None:
    info = "Metadata-Version: 2.4\nName: tiny\nVersion: 1.0\nLicense-Expression: MIT\n"
    sdist(index, {"tiny-1.0/PKG-INFO": info, "tiny-1.0/setup.py": "", "tiny-1.0/tiny.py": ""})
    declared = {"name": "tiny", "requirement": "tiny==1.0", **fields}
    with pytest.raises(SourceError, match=says):
        fetch(Source.model_validate(declared), tmp_path / "cache")


def test_an_sdist_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "sdists" / "tiny==1.0"
    folder.mkdir(parents=True)
    sdist(folder, {"tiny-1.0/../../evil.py": ""})
    with pytest.raises(SourceError, match="out of its own folder"):
        fetch(Source(name="tiny", requirement="tiny==1.0"), tmp_path)


def test_an_unknown_requirement_says_what_pip_said(tmp_path: Path, index: Path) -> None:
    with pytest.raises(SourceError, match=r"could not be fetched .*nowhere"):
        fetch(Source(name="nowhere", requirement="nowhere==1.0"), tmp_path / "cache")


def test_an_unknown_source_names_the_choices() -> None:
    with pytest.raises(SourceError, match=r"unknown source 'mre-itertools'.*more-itertools"):
        find_source("mre-itertools", shipped_sources())


def test_a_bad_list_of_sources_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[a]\nrequirement = "a==1"\nlicense = "MIT"\n')
    with pytest.raises(SourceError, match=r"mine\.toml.*license"):
        read_sources(path)


def test_git_and_folder_give_the_same_files(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "shop", SHOP)
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    from_folder, _ = fetch(find_source(str(folder), {}), tmp_path)
    from_git, _ = fetch(find_source(f"file://{folder}", {}), tmp_path)
    assert from_folder == from_git
    assert set(from_folder) == set(SHOP)


def test_layout_finds_code_and_tests_and_leaves_the_rest(tmp_path: Path) -> None:
    clutter = {"setup.cfg": "[tool:pytest]\naddopts = --cov\n", "docs/x.md": "", "noxfile.py": ""}
    shop, _ = fetch(
        find_source(str(write_package(tmp_path / "shop", SHOP | clutter)), {}), tmp_path
    )
    layout = choose_layout(Source(name="shop", requirement="x"), shop)
    assert (layout.packages, layout.tests) == (("shop",), ("tests",))
    assert set(layout.files) == {*SHOP, "pytest.ini"}

    words, _ = fetch(find_source(str(write_package(tmp_path / "words", WORDS)), {}), tmp_path)
    layout = choose_layout(Source(name="words", requirement="x"), words)
    assert (layout.packages, layout.tests) == (("src/words",), ("src/words/tests",))
    assert b"pythonpath = src" in layout.files["pytest.ini"]
    assert layout.modules() == ["src/words/__init__.py"]


def test_a_source_without_tests_says_so() -> None:
    with pytest.raises(SourceError, match="ships no tests"):
        choose_layout(Source(name="x", requirement="x"), {"x/__init__.py": b""})
