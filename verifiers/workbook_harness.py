"""Reads a workbook inside a workspace: what stands in its cells, and what LibreOffice makes of it.

Never imported on the host: `workbook_reading.py` passes this file's text to `python3 -I -c`. The
request arrives on standard input, the reading is left in a file. Only the agent's file is parsed
here, none of its code runs; size caps and the limits of the workspace hold a hostile file.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
import zipfile
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

MAX_MEMBERS = 1000
MAX_UNPACKED_BYTES = 48 << 20
MAX_CELLS = 50_000
PARSER_BYTES = 1 << 30
"""Address space while a file is parsed."""
CALCULATION_CPU_S = 60
"""Processor time of LibreOffice; an honest workbook takes two seconds, however busy the machine."""
FILTER = "Calc MS Excel 2007 XML"
ALWAYS_RECALCULATE = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry">
<item oor:path="/org.openoffice.Office.Calc/Formula/Load">
<prop oor:name="OOXMLRecalcMode" oor:op="fuse"><value>0</value></prop>
</item>
</oor:items>
"""

Sheets = dict[str, dict[str, list[Any]]]
"""Sheet -> cell -> [kind, value]; empty cells are left out."""


class Refusal(Exception):
    """The file cannot be judged; the arguments are the ending and why."""


def main() -> None:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    try:
        reading = read(request)
    except Refusal as refusal:
        ending, detail = refusal.args
        reading = {"ending": ending, "detail": detail[:400]}
    Path(request["out"]).write_text(json.dumps(reading), encoding="utf-8")


def read(request: dict[str, Any]) -> dict[str, Any]:
    """Everything the host compares. What holds no formula needs no recalculation."""
    path = Path(request["path"])
    written = parse(path, data_only=False)
    original = request["original"]
    values: Sheets = {}
    if any(kind == "formula" for cells in written.values() for kind, _ in cells.values()):
        with tempfile.TemporaryDirectory() as scratch:
            values = parse(recalculate(path, Path(scratch), request["timeout_s"]), data_only=True)
    return {
        "ending": "read",
        "written": written,
        "values": values,
        "original": parse(Path(original), data_only=False) if original else {},
    }


def parse(path: Path, *, data_only: bool) -> Sheets:
    """The cells of a workbook: formulas, or the values saved with them."""
    weigh(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (PARSER_BYTES, hard))
    try:
        import openpyxl

        book = openpyxl.load_workbook(path, data_only=data_only)
    except MemoryError:
        raise Refusal("too_big", "it takes too much memory to read") from None
    except Exception as error:  # the parser raises whatever a broken file leads it to
        raise Refusal("no_workbook", f"{type(error).__name__}: {error}") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    sheets: Sheets = {}
    left = MAX_CELLS
    for sheet in book.worksheets:
        left -= len(sheet._cells)  # iterating over rows would walk through the empty ones too
        if left < 0:
            raise Refusal("too_big", f"it has more than {MAX_CELLS} cells")
        filled = (cell for cell in sheet._cells.values() if cell.value is not None)
        sheets[sheet.title] = {cell.coordinate: described(cell) for cell in filled}
    return sheets


def weigh(path: Path) -> None:
    """Refuse what is no zip archive or would unpack to too much."""
    if not path.exists():
        raise Refusal("missing", "there is no such file")
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise Refusal("no_workbook", "it is not a zip archive, as every .xlsx file is")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Refusal("no_workbook", f"{type(error).__name__}: {error}") from None
    size = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS or size > MAX_UNPACKED_BYTES:
        raise Refusal("too_big", f"{len(members)} parts unpack to {size} bytes")


def described(cell: Any) -> list[Any]:
    """A cell as [kind, value] with a JSON value."""
    value = cell.value
    if cell.data_type == "f":
        return ["formula", str(getattr(value, "text", value))]
    if cell.data_type == "e":
        return ["error", str(value)]
    if isinstance(value, bool):
        return ["bool", value]
    if isinstance(value, (int, float)):
        return ["number", value]
    if isinstance(value, (datetime, date, time)):
        return ["date", value.isoformat()]
    if isinstance(value, timedelta):
        return ["number", value.total_seconds() / 86400]
    return ["text", str(value)]


def recalculate(path: Path, scratch: Path, timeout_s: float) -> Path:
    """A copy in which LibreOffice calculated every formula anew; saved values are not believed."""
    profile = scratch / "profile" / "user"
    profile.mkdir(parents=True)
    (profile / "registrymodifications.xcu").write_text(ALWAYS_RECALCULATE, encoding="utf-8")
    copy, out = scratch / "book.xlsx", scratch / "out"
    copy.write_bytes(path.read_bytes())
    command = [
        *("soffice", f"-env:UserInstallation=file://{profile.parent}", "--headless"),
        *("--norestore", "--nologo", f"--infilter={FILTER}"),
        *("--convert-to", f"xlsx:{FILTER}", "--outdir", str(out), str(copy)),
    ]
    with (scratch / "log").open("w+b") as log:
        try:
            ending = run(command, log.fileno(), timeout_s)
        except FileNotFoundError:
            raise Refusal("no_office", "soffice is not installed in this image") from None
        log.seek(0)
        said = log.read(2000).decode("utf-8", "replace").strip()
    done = out / "book.xlsx"
    if done.exists():
        return done
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    if spent.ru_utime + spent.ru_stime >= CALCULATION_CPU_S:
        raise Refusal("too_big", f"calculating it takes over {CALCULATION_CPU_S} s")
    raise Refusal("not_recalculated", f"soffice {ending}: {said}")


def run(command: list[str], output: int, timeout_s: float) -> str:
    """Run a program with all its children; how it ended, in words."""
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    resource.prlimit(child.pid, resource.RLIMIT_CPU, (CALCULATION_CPU_S, CALCULATION_CPU_S + 5))
    try:
        return f"ended with {child.wait(timeout_s)}"
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return f"ran past {timeout_s:g} s"


if __name__ == "__main__":
    main()
