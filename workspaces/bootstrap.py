"""How an image is made: from Debian packages with `mmdebstrap`, else on a base from a registry.

Needs the host's apt sources, or a registry. Decides neither what is in an image nor its name.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import docker
import docker.errors

from . import layers
from .engine import ENGINE_ERRORS
from .errors import ImageError
from .imagespecs import SHARED, ImageSpec, suite

log = logging.getLogger(__name__)

LABELS = {"rollmill": "1"}
SCRATCH_PREFIX = "rollmill-image-"


def build(client: docker.APIClient, spec: ImageSpec, tag: str) -> None:
    """Make an image and give it its tag. Blocks.

    Raises:
        ImageError: neither way works; says what was tried.
    """
    log.info("building %s: %d Debian packages, about a minute", tag, len(spec.packages))
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-") as scratch:
        Path(scratch).chmod(0o755)
        try:
            _bootstrap(client, spec, tag, Path(scratch))
            return
        except ImageError as error:
            first = error
            log.info("cannot bootstrap %s (%s); trying a base from a registry", tag, error)
        try:
            _build_on_base(client, spec, tag, Path(scratch))
        except ENGINE_ERRORS as error:
            raise ImageError(
                f"cannot build {tag}. By registry: {error}\nBy mmdebstrap: {first}"
            ) from error


def check_platform(client: docker.APIClient) -> None:
    """Refuse to make an image here for an engine on another kind of machine.

    Raises:
        ImageError: says which two they are.
    """
    theirs = client.version(api_version=False)["Arch"]
    if theirs != layers.architecture():
        raise ImageError(
            f"this machine is {layers.architecture()}, the engine {theirs}; "
            "build the image there, with `rollmill images build`"
        )


def _bootstrap(client: docker.APIClient, spec: ImageSpec, tag: str, scratch: Path) -> None:
    check_platform(client)
    if shutil.which("mmdebstrap") is None:
        raise ImageError("mmdebstrap is missing (Debian: apt-get install mmdebstrap)")
    archive = scratch / "root.tar"
    _lay_files(spec, scratch / "files")
    command = _mmdebstrap(spec, scratch / "files", archive)
    run = subprocess.run(
        command,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False,
    )  # fmt: skip
    if run.returncode != 0:
        raise ImageError(f"mmdebstrap failed with {run.returncode}:\n{run.stdout[-3000:]}")
    log.info("loading %s (%d MB)", tag, archive.stat().st_size >> 20)
    try:
        parts = layers.archive(layers.cut(archive, SHARED, scratch), tag, LABELS)
        client.load_image(parts)  # type: ignore[no-untyped-call]
    except ENGINE_ERRORS as error:
        raise ImageError(f"the engine refused to load {tag}: {error}") from error


def _mmdebstrap(spec: ImageSpec, files: Path, archive: Path) -> list[str]:
    hooks = [
        'chroot "$1" useradd --uid 1000 --create-home --shell /bin/bash agent',
        'mkdir -p "$1/workspace"',
        f'cp -r {shlex.quote(str(files))}/. "$1"/',
    ]
    if spec.requirements:
        hooks.append(pip_hook(spec.requirements))
    without = [f"--dpkgopt=path-exclude=/usr/share/{x}/*" for x in ("man", "locale", "info", "doc")]
    return [
        "mmdebstrap",
        "--mode=root" if os.geteuid() == 0 else "--mode=unshare",
        "--variant=apt",
        f"--include={','.join(spec.packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        *without,
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *(f"--customize-hook={hook}" for hook in hooks),
        suite(),
        str(archive),
        *_host_sources(),
    ]


def pip_hook(requirements: Sequence[str]) -> str:
    """Install wheels into the new root from outside: pip need not be in the image."""
    lay = "from rollmill.workspaces.wheelhouse import main; main()"
    return (
        'v=$(basename "$(readlink "$1/usr/bin/python3")"); '
        f"{shlex.join([sys.executable, '-P', '-c', lay])} "
        f'"${{v#python}}" "$1/usr/local/lib/$v/dist-packages" {shlex.join(requirements)}'
    )


def _lay_files(spec: ImageSpec, root: Path) -> None:
    root.mkdir()
    for path, text in spec.files.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(0o755 if text.startswith("#!") else 0o644)


def _host_sources() -> list[str]:
    """The host's own apt sources of this release; none means mmdebstrap's default mirrors."""
    folder = Path("/etc/apt/sources.list.d")
    files = [*folder.glob("*.sources"), *folder.glob("*.list"), Path("/etc/apt/sources.list")]
    return [str(file) for file in files if file.is_file() and _serves(file, suite())]


def _serves(file: Path, release: str) -> bool:
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    return any(release in line.split() for line in lines)


def _build_on_base(client: docker.APIClient, spec: ImageSpec, tag: str, scratch: Path) -> None:
    """The same content on `debian:SUITE-slim` with the classic builder."""
    context = scratch / "context"
    context.mkdir()
    _lay_files(spec, context / "files")
    pip = ""
    if spec.requirements:
        pip = (
            "RUN apt-get update && apt-get install -y --no-install-recommends python3-pip && "
            "pip install --break-system-packages --no-cache-dir --no-deps "
            f"{shlex.join(spec.requirements)} && rm -rf /var/lib/apt/lists/*\n"
        )
    (context / "Dockerfile").write_text(
        f"FROM debian:{suite()}-slim\n"
        "LABEL rollmill=1\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends "
        f"{shlex.join(spec.packages)} && rm -rf /var/lib/apt/lists/*\n"
        f"{pip}"
        "RUN useradd --uid 1000 --create-home --shell /bin/bash agent && mkdir -p /workspace\n"
        "COPY files/ /\n"
    )
    for line in client.build(path=str(context), tag=tag, rm=True, forcerm=True, decode=True):
        if "error" in line:
            raise docker.errors.BuildError(line["error"], iter(()))
