from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.pipelines.rollout.edit import Refusal, replace_at

TEXT = "def low(a, b):\n    if a < b:\n        return a < a\n    return b\n"


def test_only_the_fragment_on_the_named_line_changes() -> None:
    changed, shown = replace_at(TEXT, line=2, old="a < b", new="a <= b")
    assert changed == TEXT.replace("a < b", "a <= b")
    assert shown == "   2|     if a <= b:"


def test_a_fragment_may_span_lines_and_what_stands_there_is_shown() -> None:
    changed, shown = replace_at(TEXT, line=2, old="b:\n        return a", new="b:\n        x\n   y")
    assert changed.split("\n")[1:4] == ["    if a < b:", "        x", "   y < a"]
    assert shown.split("\n")[-1] == "   4|    y < a"


@pytest.mark.parametrize(
    ("line", "old", "new", "told"),
    [
        (1, "a < b", "x", "not on line 1 but on line 2"),
        (3, " a", "x", "occurs 2 times on line 3"),
        (2, "nowhere", "x", "does not occur"),
        (9, "a", "x", "the file has 4 lines"),
        (0, "a", "x", "the file has 4 lines"),
        (2, "", "x", "is empty"),
        (2, "a < b", "a < b", "nothing would change"),
        (1, "return", "x", "it is on line(s) 3, 4"),
    ],
)
def test_a_refusal_says_what_to_do(line: int, old: str, new: str, told: str) -> None:
    with pytest.raises(Refusal) as refusal:
        replace_at(TEXT, line=line, old=old, new=new)
    assert told in str(refusal.value)


_texts = st.text(alphabet="ab \n\r", max_size=40)


@given(_texts, st.integers(-1, 12), st.text(alphabet="ab \n", max_size=4), st.text(max_size=3))
def test_an_edit_is_one_replacement_that_begins_on_its_line_or_a_refusal(
    text: str, line: int, old: str, new: str
) -> None:
    try:
        changed, _ = replace_at(text, line=line, old=old, new=new)
    except Refusal:
        return
    starts = [
        at
        for at in range(len(text))
        if text.startswith(old, at) and text.count("\n", 0, at) == line - 1
    ]
    assert len(starts) == 1
    assert changed == text[: starts[0]] + new + text[starts[0] + len(old) :]
