"""What is in each logical image, and the tag that says so. Builds nothing.

An image is named by the hash of its specification, so an unchanged one is never built again.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import ImageError, UnknownImage

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
    disk_bytes: int = 1 << 30
    """About how large it is; no part of its name."""


_TOOLS = ("bash", "diffutils", "file", "less", "make", "patch", "procps")
_PYTHON = ("python3", "python-is-python3")

SHARED = (_TOOLS, _PYTHON)
"""Packages whose files are layers of their own, lowest first: images share those that are equal."""

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
        disk_bytes=250 << 20,
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
