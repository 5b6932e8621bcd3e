"""LibreOffice as a converter: one run for many files, bounded, with a profile of its own."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .answering import Refusal

CPU_S = 60
"""Processor time of a run; an honest file takes two seconds, however busy the machine."""
SETTINGS = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry">
<item oor:path="/org.openoffice.Office.Calc/Formula/Load">
<prop oor:name="OOXMLRecalcMode" oor:op="fuse"><value>0</value></prop>
</item>
<item oor:path="/org.openoffice.Office.Common/Security/Scripting">
<prop oor:name="MacroSecurityLevel" oor:op="fuse"><value>3</value></prop>
</item>
</oor:items>
"""
"""Every formula is calculated anew, and no macro runs."""


def convert(files: Sequence[Path], to: str, scratch: Path, timeout_s: float, reader: str) -> None:
    """Convert files into `scratch/out`. Which ones came out is for the caller to see.

    Args:
        to: the format, with its filter where that is not the default.
        reader: the filter that reads the files.

    Raises:
        Refusal: `no_office` without LibreOffice, `too_big` when it used up its processor time,
            `not_converted` when it left nothing.
    """
    profile, out = scratch / "profile" / "user", scratch / "out"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "registrymodifications.xcu").write_text(SETTINGS, encoding="utf-8")
    command = [
        *("soffice", f"-env:UserInstallation=file://{profile.parent}", "--headless"),
        *("--norestore", "--nologo", f"--infilter={reader}"),
        *("--convert-to", to, "--outdir", str(out), *map(str, files)),
    ]
    with (scratch / "log").open("w+b") as log:
        try:
            ending = run(command, log.fileno(), timeout_s)
        except FileNotFoundError:
            raise Refusal("no_office", "soffice is not installed in this image") from None
        log.seek(0)
        said = log.read(2000).decode("utf-8", "replace").strip()
    if out.is_dir() and len(list(out.iterdir())) == len(files):
        return
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    if spent.ru_utime + spent.ru_stime >= CPU_S:
        raise Refusal("too_big", f"LibreOffice takes over {CPU_S} s for it")
    raise Refusal("not_converted", f"soffice {ending}: {said}")


def run(command: list[str], output: int, timeout_s: float) -> str:
    """Run a program with all its children; how it ended, in words."""
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    resource.prlimit(child.pid, resource.RLIMIT_CPU, (CPU_S, CPU_S + 5))
    try:
        return f"ended with {child.wait(timeout_s)}"
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return f"ran past {timeout_s:g} s"
