"""Runs a module of `verifiers/inside/` on this machine, as a workspace would."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rollmill.verifiers.reading import START, modules


def run_inside(module: str, folder: Path, **request: Any) -> Any:
    """What a module answers; `folder` is for its files."""
    place, out = folder / "modules", folder / "reading.json"
    for name, source in modules().items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(source)
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", START.format(module=module), str(place)],
        input=json.dumps({**request, "out": str(out), "timeout_s": 60}).encode(),
        capture_output=True,
        check=True,
    )
    assert done.stdout == b""
    return json.loads(out.read_text())
