"""What is asked near the inputs of tests, and which answers count as other ones."""

import re

import pytest

from rollmill.verifiers import VerifierSpec
from rollmill.verifiers.pytest_near import differing, questions

TESTS = b"""
def test_sum():
    assert total([100, 140], 25) == 180


class TestText:
    def test_word(self):
        self.assertEqual(word("seven"), 'VII')

    def test_flag(self):
        assert flag(True) == 'x'


def test_no_call():
    assert SIZE == 3


@pytest.mark.parametrize("given, wanted", [(3, 9), ("ab", "ba")])
def test_rows(given, wanted):
    found = turned(given)
    assert found == wanted
"""


def spec(*tests: str) -> VerifierSpec:
    return VerifierSpec(name="test_suite", params={"fail_to_pass": [f"t.py::{t}" for t in tests]})


def test_one_input_changes_by_little_and_the_result_is_asked_for() -> None:
    for _ in range(20):
        for files, tests in questions(spec("test_sum", "TestText::test_word"), {"t.py": TESTS}):
            text = files["t.py"].decode()
            assert tests == ["t.py::test_sum", "t.py::TestText::test_word"]
            assert not re.search(r"== 180|'VII'", text)
            figures = re.search(r"total\(\[(\d+), (\d+)\], (\d+)\) == '\w{8}'", text)
            assert figures
            assert 1 <= sum(map(int, figures.groups())) - 265 <= 3
            assert re.search(r"word\('seve[aeiou]n'\), '\w{8}'", text)
            assert text.count("\n") == TESTS.decode().count("\n")


def test_all_cases_of_a_test_are_asked_through_its_names() -> None:
    for files, tests in questions(spec("test_rows[3-9]", "test_rows[ab-ba]"), {"t.py": TESTS}):
        assert tests == ["t.py::test_rows[3-9]", "t.py::test_rows[ab-ba]"]
        text = files["t.py"].decode()
        (near,) = re.findall(r"found = turned\((\(lambda v: .*\))\(given\)\)", text)
        assert re.search(r"assert found == '\w{8}'", text)
        values = 3, 2.5, "ab", [1, 2], (4,)
        assert [*map(eval(near), values)] == [5, 4.5, "aeb", [1, 4], (6,)]
        others: tuple[object, ...] = None, [], "", True, int
        for other in others:
            with pytest.raises(IndexError):
                eval(near)(other)


@pytest.mark.parametrize("test", ["TestText::test_flag", "test_no_call", "test_gone", "test_a[1]"])
def test_tests_of_another_form_are_not_asked(test: str) -> None:
    assert questions(spec(test), {"t.py": TESTS}) == []


def test_answers_differ_by_more_than_rounding() -> None:
    gold = [
        "AssertionError: assert 180.75 == 'ab'",
        "AssertionError: 9 != 'ab'",
        "AssertionError: assert 'VII' == 'ab'",
        "AssertionError: assert <A at 0x7f> == 'ab'",
        "KeyError: 405",
        "",
    ]
    same = [
        "AssertionError: assert 180.75000000001 == 'ab'",
        "AssertionError: 9.0 != 'ab'",
        *gold[2:],
    ]
    assert differing(gold, same) == (0, 3)
    assert differing(gold, ["", "AssertionError: 8 != 'ab'", "KeyError: 1", "", "", ""]) == (3, 3)
