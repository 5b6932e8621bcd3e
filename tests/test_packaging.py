"""What is on disk is what gets installed, and it runs without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("flows", "kernels", "model", "pipelines", "verifiers", "workspaces")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_package_list_names_the_folders_on_disk() -> None:
    inits = [path for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")]
    on_disk = {".".join(("rollmill", *path.parent.relative_to(ROOT).parts)) for path in inits}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == on_disk | {"rollmill"}


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {_plain(line.partition("==")[0]) for line in lines if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(name for names in extras for name in names)]
    assert {_plain(name) for name in wanted} - pinned == set()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new environment holding the wheel; dependencies are those of the test environment.

    A `.pth` line puts the test environment's packages on the path. `.pth` files inside that
    folder are not read then, so the editable install of the checkout stays out.
    """
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT,
        folder / "source",
        ignore=shutil.ignore_patterns(".*", "runs*", "build", "dist", "*.egg-info", "__pycache__"),
    )
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    _run(sys.executable, "-P", *build, str(folder / "source"))
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    wheel = next(folder.glob("*.whl"))
    flags = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    _run(sys.executable, "-P", "-m", "pip", "--python", str(python), "install", *flags, str(wheel))
    packages = _run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    link = Path(packages.strip()) / "dependencies.pth"
    link.write_text(sysconfig.get_path("purelib") + "\n")
    yield environment
    shutil.rmtree(folder)


def test_wheel_runs_without_the_checkout(installed: Path) -> None:
    assert "generate" in _run(str(installed / "bin" / "rollmill"), "--help", cwd=installed)
    where = "import rollmill.flows.cli as cli; print(cli.__file__)"
    assert Path(_run(str(installed / "bin/python"), "-c", where).strip()).is_relative_to(installed)


def test_wheel_carries_the_data_files(installed: Path) -> None:
    package = next(installed.glob("lib/python*/site-packages/rollmill"))
    suffixes = {".toml", ".j2", ".yml", ".typed", ".safetensors"}
    on_disk = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes or "bundled" in path.parts
        if path.is_file()
    }
    assert {name for name in on_disk if not (package / name).exists()} == set()


def _run(*argv: str, cwd: Path | None = None) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _plain(name: str) -> str:
    head = name
    for mark in "<>=!~;[ ":
        head = head.partition(mark)[0]
    return head.lower().replace("_", "-")
