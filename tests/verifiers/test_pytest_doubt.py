"""Canaries and false tests keep every line where it was, and say exactly what they made false."""

from __future__ import annotations

import ast
import re

import pytest

from rollmill.verifiers.pytest_canaries import Canaries, plant
from rollmill.verifiers.pytest_doubt import doubted

TESTS = b'''"""Tests of prices."""
import unittest
from unittest import mock


def test_sum_of_two():
    assert total([1, 2]) == 3  # three
    assert isinstance(total([]), int)


@mock.patch("shop.tax", 0)
def test_tax_free_sum(): assert total([1]) == 1


class TotalTest(unittest.TestCase):
    def test_half_price(self):
        self.assertEqual(total([8, 10], 50), 9)

    def test_unit(self):
        with self.subTest("x"):
            self.assertTrue(total([1]))

    def test_early(self):
        if total([]):
            return
        self.assertEqual(total([]), 0)


def test_text():
    text = """

blank lines that are a text

"""
    assert text
'''
PATH = "tests/test_price.py"
NAMES = [
    *("test_sum_of_two", "test_tax_free_sum", "test_text"),
    *("TotalTest::test_half_price", "TotalTest::test_unit", "TotalTest::test_early"),
]
WORDS = {"sum", "of", "two", "tax", "free", "text", "half", "price", "unit", "early"}
IDS = [f"{PATH}::{name}" for name in NAMES]


def numbered(source: bytes) -> list[bytes]:
    return source.splitlines()


def test_canaries_take_blank_lines_and_the_words_of_their_neighbours() -> None:
    seen = set()
    for _ in range(30):
        changed, planted = plant(PATH, TESTS, IDS)
        assert len(planted) == 3
        before, after = numbered(TESTS), numbered(changed)
        moved = [i for i, line in enumerate(before) if line != after[i]]
        assert len(before) == len(after)
        assert [before[i].strip() for i in moved] == [b""] * 3
        assert b"blank lines that are a text\n\n" in changed
        assert not {*planted} & {*IDS}
        words = {word for test in planted for word in test.split("::")[-1].split("_")[1:]}
        assert words <= {
            *["sum", "of", "two", "tax", "free", "text", "half", "price", "unit", "early"]
        }
        seen |= {*moved}
    assert len(seen) > 5  # another place each time


@pytest.mark.parametrize(
    "source",
    [
        TESTS + b"pytestmark = pytest.mark.parametrize('a', [1])\n",
        b"\xef\xbb\xbf" + TESTS,
        b"# coding: latin-1\n" + TESTS,
        b"def test_text(:",
        b"\x00\xff",
    ],
)
def test_a_file_in_which_one_more_test_might_not_run_is_left_as_it_is(source: bytes) -> None:
    assert plant(PATH, source, IDS) == (source, [])


def test_tests_that_run_under_other_names_only_get_no_neighbours() -> None:
    assert plant(PATH, TESTS, [f"{PATH}::test_text[a]"]) == (TESTS, [])


def test_each_test_is_made_false_in_one_place_where_it_surely_runs() -> None:
    for _ in range(30):
        files, false = doubted(IDS, {PATH: TESTS})
        assert {*false} == {test for test in IDS if "early" not in test}
        before, after = numbered(TESTS), numbered(files[PATH])
        assert len(before) == len(after)
        changed = {before[i]: after[i] for i in range(len(before)) if before[i] != after[i]}
        assert len(changed) == 4 or b"" in changed
        ast.parse(files[PATH])
        assert b"total([1, 2]) ==" in files[PATH]
        assert b"assert total([1, 2]) == 3  # three" not in files[PATH]
        assert b"total([8, 10], 50), 9)" not in files[PATH]
        assert b"text; assert '" in files[PATH]


@pytest.mark.parametrize(
    "source",
    [
        b"@retried\ndef test_a():\n    assert f() == 1\n",
        b"def test_a():\n    yield f() == 1\n",
        b"def test_b():\n    pass\n",
        b"def test_a():\n    with x:\n        pass\n",
        b"def test_a(",
    ],
)
def test_a_test_that_cannot_be_made_false_for_sure_is_left_out(source: bytes) -> None:
    assert doubted(["t.py::test_a"], {"t.py": source}) == ({}, [])


def test_a_test_with_parameters_is_doubted_in_all_its_forms() -> None:
    source = b"def test_a(x):\n    assert f(x) == {'k': [1, -2.5, None, b'y', True]}\n"
    ids = ["t.py::test_a[1]", "t.py::test_a[x::y]"]
    for _ in range(30):
        files, false = doubted(ids, {"t.py": source})
        assert false == ids or {*false} == {*ids}
        literal = files["t.py"].partition(b"== ")[2]
        assert ast.literal_eval(literal.decode()) != {"k": [1, -2.5, None, b"y", True]}


@pytest.mark.parametrize(
    ("statement", "becomes"),
    [
        ("assert f(x) == y", r"assert f\(x\) == \(y, '....'\)"),
        ("assert y == f(x)", r"assert \(y, '....'\) == f\(x\)"),
        ("self.assertEqual(f(x), g(\n        y))", r"\(f\(x\), '....'\)|\(g\(\n +y\), '....'\)"),
        ("assert (y or z) == f(x)", r"assert \(\(y or z, '....'\)\) == f\(x\)"),
        ("assert 'é' in f(x)", r"assert 'é....' in f\(x\)"),
        ("assert f(x)", r"assert f\(x\); assert '.{8}' == '.{8}'"),
        ("assert f(x) != 3", r"assert f\(x\) != 3; assert "),
        ("assert 1 < f(x) < 4", r"assert 1 < f\(x\) < 4; assert "),
    ],
)
def test_a_comparison_becomes_false_whatever_it_compares(statement: str, becomes: str) -> None:
    source = f"def test_a(self, x, y):\n    {statement}\n".encode()
    files, _ = doubted(["t.py::test_a"], {"t.py": source})
    assert re.search(becomes, files["t.py"].decode()), files["t.py"].decode()
    assert files["t.py"].count(b"\n") == source.count(b"\n")


def test_no_more_are_doubted_than_tell() -> None:
    source = b"\n".join(b"def test_%d():\n    assert f() == %d\n" % (n, n) for n in range(50))
    files, false = doubted([f"t.py::test_{n}" for n in range(50)], {"t.py": source})
    assert len(false) == 8
    assert len(files) == 1


def test_tests_whose_files_are_not_hidden_get_canaries_of_their_own_file_alone() -> None:
    canaries = Canaries.fresh(IDS, {})
    assert (canaries.files, canaries.planted) == ({}, ())
    assert sorted(canaries.expected.values()) == ["failed", "failed", "passed", "passed"]
