"""A small table in a wheel of its own, so that no test needs a registry."""

import hashlib
import random
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollmill.pipelines.cowork.workbooks import LoadedTable, Workbooks
from rollmill.workspaces import DockerProvider, ScriptedProvider

WHEEL = "small_tables-1.0-py3-none-any.whl"
COLUMNS = (
    "Shop label",
    "City category",
    "Opened date",
    "Sales number",
    "Staff number",
    "Area number",
)


def rows() -> list[str]:
    pick = random.Random(7)
    cities = ("Oslo", "Bergen", "Århus", "Turku", "Malmö")
    return [
        f"Shop {chr(65 + at % 26)}{at},{pick.choice(cities)},{2010 + at % 4}-{1 + at % 12:02}-03,"
        f"{pick.randint(800, 9000)},{pick.randint(2, 40)},{pick.uniform(5, 90):.2f}"
        for at in range(90)
    ]


def make_wheel(folder: Path, *, padding: bytes = b"") -> str:
    """Write the wheel, `padding` in it to make it large; returns its SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    info = "small_tables-1.0.dist-info"
    parts = {
        "small_tables/shops.csv": "\n".join(
            [",".join(column.split()[0] for column in COLUMNS), *rows(), ",Oslo,,1,1,1", ""]
        ),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: small_tables\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name), text)
        archive.writestr(zipfile.ZipInfo("small_tables/padding"), padding)
    return hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()


def listed(sha256: str) -> str:
    """A list of tables with that one."""
    columns = "".join(
        f'  {{ field = "{name}", kind = "{kind}", name = "{name}" }},\n'
        for name, kind in (column.split() for column in COLUMNS)
    )
    return (
        f'[shops]\nrequirement = "small_tables==1.0"\nsha256 = "{sha256}"\n'
        f'member = "small_tables/shops.csv"\nlicence = "MIT"\norigin = "made up"\n'
        f"columns = [\n{columns}]\n"
    )


@pytest.fixture
def family(tmp_path: Path) -> Workbooks:
    sha256 = make_wheel(tmp_path / "cache" / "wheels" / "small_tables==1.0")
    tables = tmp_path / "tables.toml"
    tables.write_text(listed(sha256))
    return Workbooks(tables)


@pytest.fixture
async def shops(family: Workbooks, tmp_path: Path) -> LoadedTable:
    return await family.prepare("shops", ScriptedProvider([]), tmp_path / "cache")


@pytest.fixture
async def provider() -> AsyncIterator[DockerProvider]:
    provider = DockerProvider()
    yield provider
    await provider.close()
