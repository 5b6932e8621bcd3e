"""Logical images: what is in them, and how a missing one is built. Nothing is fetched at run time.

An image is named by the hash of its specification, so an unchanged one is never built again. It is
bootstrapped from Debian packages with `mmdebstrap`; where that cannot run, it is built on a base
from a registry. The runner is not part of an image.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import docker
import docker.errors
import platformdirs

from .engine import ENGINE_ERRORS
from .errors import ImageError, UnknownImage

log = logging.getLogger(__name__)

SCRATCH_PREFIX = "rollmill-image-"
FOREIGN = "docker:"
"""A name that begins so is a reference to an image that others made, see `foreign.py`."""
RECIPE = 1
"""Raise it when the way images are built changes what is in them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    """What is in an image besides Debian's essential packages and the user `agent`."""

    packages: tuple[str, ...]
    """Debian packages; python3 must be among them."""
    requirements: tuple[str, ...] = ()
    """Every Python package, pinned (`name==version`)."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Absolute path -> text; executable when it starts with `#!`."""


_TOOLS = ("bash", "diffutils", "file", "less", "make", "patch", "procps")
_PYTHON = ("python3", "python-is-python3")

PYTEST = "#!/usr/bin/python3\nimport sys, pytest\n\nsys.exit(pytest.main())\n"

SPECS: dict[str, ImageSpec] = {
    "python": ImageSpec(
        packages=(*_TOOLS, *_PYTHON, "git"),
        requirements=(
            "attrs==26.1.0",
            "coverage==7.17.3",
            "freezegun==1.5.5",
            "hypothesis==6.170.15",
            "iniconfig==2.3.1",
            "packaging==26.3",
            "parameterized==0.9.0",
            "pluggy==1.7.0",
            "Pygments==2.21.0",
            "pytest==9.2.0",
            "pytest-asyncio==1.5.0",
            "pytest-cov==7.1.0",
            "pytest-mock==3.17.0",
            "pytest-timeout==2.4.0",
            "python-dateutil==4.0.0",
            "PyYAML==6.0.3",
            "six==1.17.0",
            "sortedcontainers==2.4.0",
            "typing_extensions==4.16.0",
            "tzdata==2026.6",
        ),
        files={"/usr/local/bin/pytest": PYTEST},
    ),
    "office": ImageSpec(
        packages=(
            *_TOOLS,
            *_PYTHON,
            "fonts-dejavu-core",
            "fonts-liberation",
            "libreoffice-calc-nogui",
            "libreoffice-impress-nogui",
            "libreoffice-writer-nogui",
            "poppler-utils",
            "python3-uno",
        ),
        requirements=(
            "et_xmlfile==2.0.0",
            "lxml==6.1.3",
            "openpyxl==3.1.5",
            "pillow==13.0.0",
            "pyarrow==26.0.1",
            "python-docx==1.2.0",
            "python-pptx==1.0.2",
            "typing_extensions==4.16.0",
            "xlsxwriter==3.3.1",
        ),
    ),
}


def spec_of(name: str) -> ImageSpec:
    """The specification behind a logical name.

    Raises:
        UnknownImage: nothing defines it.
        ImageError: others made it, so nothing is known of what is in it.
    """
    if name.startswith(FOREIGN):
        raise ImageError(f"{name!r} runs on a Docker Engine only; nothing here can build it")
    if name not in SPECS:
        raise UnknownImage(name, SPECS)
    return SPECS[name]


def tag_of(name: str) -> str:
    """`rollmill/NAME:HASH` of an image as it would be built on this host; of others', their own."""
    if name.startswith(FOREIGN):
        return name.removeprefix(FOREIGN)
    spec = spec_of(name)
    content = [
        RECIPE, suite(), platform.machine(), spec.packages, spec.requirements, dict(spec.files)
    ]  # fmt: skip
    return f"rollmill/{name}:{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}"


def suite() -> str:
    """The Debian or Ubuntu release images are made of: the host's, else Debian 12."""
    release = platform.freedesktop_os_release()
    return release.get("VERSION_CODENAME") or "bookworm" if _debian(release) else "bookworm"


def _debian(release: Mapping[str, str]) -> bool:
    return "debian" in (release["ID"], *release.get("ID_LIKE", "").split())


def ensure(client: docker.APIClient, name: str) -> str:
    """The digest of an image, which is built when the engine does not have it. Blocks.

    Raises:
        UnknownImage: nothing defines the name.
        ImageError: it cannot be built; says what was tried.
    """
    tag = tag_of(name)
    found = present(client, tag)
    if found:
        return found
    if name.startswith(FOREIGN):
        return _pulled(client, tag)
    with building(tag.replace("/", "-").replace(":", "-")):
        found = present(client, tag)
        if not found:
            _build(client, spec_of(name), tag)
            found = present(client, tag)
    if not found:
        raise ImageError(f"the engine lost {tag} right after it was built; try again")
    return found


def _pulled(client: docker.APIClient, reference: str) -> str:
    log.info("fetching %s", reference)
    try:
        client.pull(reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest")
    except ENGINE_ERRORS as error:
        raise ImageError(
            f"the engine neither has {reference} nor can fetch it: {error}; "
            "build, load or import it there, or correct the name"
        ) from error
    return present(client, reference)


def present(client: docker.APIClient, tag: str) -> str:
    """The digest behind a tag; empty when the engine does not have it."""
    try:
        return str(client.inspect_image(tag)["Id"])  # type: ignore[no-untyped-call]
    except docker.errors.ImageNotFound:
        return ""


def copy(theirs: docker.APIClient, ours: docker.APIClient, name: str, digest: str) -> None:
    """Give an engine the image that another has under the same name, unless it has it. Blocks."""
    tag = tag_of(name)
    if present(ours, tag) != digest:
        log.info("copying %s to another engine", tag)
        ours.load_image(theirs.get_image(tag))  # type: ignore[no-untyped-call]


def cache_dir() -> Path:
    """Where locks and downloads are kept between runs."""
    path = Path(platformdirs.user_cache_dir("rollmill"))
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def building(name: str) -> Iterator[None]:
    """One builder at a time on this host; the others wait."""
    with (cache_dir() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(client: docker.APIClient, spec: ImageSpec, tag: str) -> None:
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


def _bootstrap(client: docker.APIClient, spec: ImageSpec, tag: str, scratch: Path) -> None:
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
    log.info("importing %s (%d MB)", tag, archive.stat().st_size >> 20)
    repository, _, version = tag.partition(":")
    try:
        client.import_image(
            str(archive), repository=repository, tag=version, changes=["LABEL rollmill=1"]
        )
    except ENGINE_ERRORS as error:
        raise ImageError(f"the engine refused to import {tag}: {error}") from error


def _mmdebstrap(spec: ImageSpec, files: Path, archive: Path) -> list[str]:
    hooks = [
        'chroot "$1" useradd --uid 1000 --create-home --shell /bin/bash agent',
        'mkdir -p "$1/workspace"',
        f'cp -r {shlex.quote(str(files))}/. "$1"/',
    ]
    if spec.requirements:
        hooks.append(_pip_hook(spec.requirements))
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


def _pip_hook(requirements: Sequence[str]) -> str:
    """Install wheels into the new root from outside: pip need not be in the image."""
    pip = shlex.join([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"])
    return (
        'v=$(basename "$(readlink "$1/usr/bin/python3")"); '
        f'{pip} --only-binary=:all: --python-version "${{v#python}}" '
        '--no-compile --root-user-action=ignore --target "$1/usr/local/lib/$v/dist-packages" '
        f"{shlex.join(requirements)}"
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
