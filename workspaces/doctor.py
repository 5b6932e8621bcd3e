"""What works on this machine for workspaces, and how to fix what does not."""

from __future__ import annotations

import contextlib
import shutil

from . import images
from .bwrap import usable
from .cleaning import answering, holdings
from .engine import Finding, ensure_engine
from .errors import EngineUnavailable

DISK_FREE_GIB = 5
MOST_NAMED = 5


def findings(*, fix: bool = False) -> list[Finding]:
    """Every check for workspaces, in the order in which to fix them. Blocks; only `fix` changes."""
    engine = ensure_engine(fix=fix)
    return [
        engine, _mmdebstrap(), _bwrap(), *_images(), _disk(), _soffice(engine.ok),
        _left_behind(),
    ]  # fmt: skip


def _mmdebstrap() -> Finding:
    found = shutil.which("mmdebstrap")
    return Finding(
        name="mmdebstrap",
        ok=found is not None,
        detail=found or "missing: images can only be built on a base from a registry",
        fix="" if found else "apt-get install mmdebstrap",
    )


def _bwrap() -> Finding:
    try:
        _, python = usable()
    except EngineUnavailable as error:
        return Finding(name="bwrap", ok=False, detail=str(error), fix="apt-get install bubblewrap")
    return Finding(name="bwrap", ok=True, detail=f"works, with {python}")


def _images() -> list[Finding]:
    """Of the first engine that answers."""
    tags = {name: images.tag_of(name) for name in images.SPECS}
    with contextlib.closing(answering()) as engines:
        for _, client in engines:
            there = {name: images.present(client, tag) for name, tag in tags.items()}
            return [
                Finding(name=f"image {name}", ok=True, detail=_state(there[name], tag))
                for name, tag in tags.items()
            ]
    return []


def _state(digest: str, tag: str) -> str:
    return f"{tag} is present" if digest else f"{tag} is built at its first use"


def _disk() -> Finding:
    place = images.cache_dir()
    free = shutil.disk_usage(place).free / 2**30
    ok = free >= DISK_FREE_GIB
    fix = "" if ok else f"free {DISK_FREE_GIB} GiB there; `rollmill clean --images` removes ours"
    return Finding(name="disk", ok=ok, detail=f"{free:.0f} GiB free at {place}", fix=fix)


def _left_behind() -> Finding:
    found = holdings()
    living = f"{len(found.living)} containers at work; ledger {found.ledger}"
    if not found.dead:
        return Finding(name="left behind", ok=True, detail=f"nothing; {living}")
    dead = ", ".join(found.dead[:MOST_NAMED]) + (", ..." if len(found.dead) > MOST_NAMED else "")
    return Finding(name="left behind", ok=False, detail=f"{dead}; {living}", fix="rollmill clean")


def _soffice(engine: bool) -> Finding:
    found = shutil.which("soffice")
    if found or engine:
        detail = found or "not on the host; the office image has its own"
        return Finding(name="soffice", ok=True, detail=detail)
    fix = "apt-get install libreoffice-calc-nogui libreoffice-writer-nogui python3-uno"
    detail = "missing, and no engine to run the office image: no workbook tasks"
    return Finding(name="soffice", ok=False, detail=detail, fix=fix)
