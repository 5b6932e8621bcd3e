"""A build back end that builds nothing: it answers pip with the metadata an sdist already carries.

pip asks an sdist's own back end for its metadata even when it only downloads, which would run the
package's code on the host. `fetch.py` lays this file on pip's path as `sitecustomize`, so that
the hook process names it instead, whatever the package asks for.
"""

from __future__ import annotations

import os
from email.parser import HeaderParser
from pathlib import Path

MARK = "ROLLMILL_INERT_BUILD_MARK"
"""Names a file that this back end touches: its presence proves that pip asked it."""

_BACKENDS = ("PEP517_BUILD_BACKEND", "_PYPROJECT_HOOKS_BUILD_BACKEND")
_PATHS = (
    "PEP517_BACKEND_PATH",
    "_PYPROJECT_HOOKS_BACKEND_PATH",
    "_PYPROJECT_HOOKS_BACKEND_PATH_JSON",
)
"""What pip's hook process is told, oldest name first; pip 25.0 and 26 renamed them."""

for _name in _BACKENDS:
    if _name in os.environ:
        os.environ[_name] = "sitecustomize"
        for _path in _PATHS:
            os.environ.pop(_path, None)


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: object) -> str:
    """The PEP 517 hook: copy PKG-INFO of the current folder as the wheel's METADATA."""
    text = Path("PKG-INFO").read_text(encoding="utf-8")
    headers = HeaderParser().parsestr(text)
    folder = f"{headers['Name'].replace('-', '_')}-{headers['Version']}.dist-info"
    target = Path(metadata_directory, folder)
    target.mkdir()
    (target / "METADATA").write_text(text, encoding="utf-8")
    Path(os.environ[MARK]).touch()
    return folder
