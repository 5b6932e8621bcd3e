from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.pipelines.rollout.observation import cap, numbered, steady


@pytest.mark.parametrize(
    ("output", "steadied"),
    [
        ("1 failed, 2 passed in 0.12s", "1 failed, 2 passed"),
        ("=== 3 passed in 71.20s (0:01:11) ===", "=== 3 passed ==="),
        ("no tests ran in 0.00s", "no tests ran"),
        ("Ran 3 tests in 0.001s\n\nOK", "Ran 3 tests\n\nOK"),
        ("<a.Box object at 0x7f3a2c10>", "<a.Box object at 0x...>"),
    ],
)
def test_what_a_rerun_would_not_repeat_is_removed(output: str, steadied: str) -> None:
    assert steady(output) == steadied


@pytest.mark.parametrize(
    "output",
    ["the kettle boils in 0.12s", "mask = 0x7f3a2c10", "E   assert 1.5 == 2", "passed in time"],
)
def test_other_output_stays_as_it_is(output: str) -> None:
    assert steady(output) == output


@given(st.text(max_size=300), st.integers(2, 100))
def test_a_capped_text_keeps_head_and_tail_and_counts_what_is_missing(text: str, n: int) -> None:
    seen = cap(text, max_chars=n, rest="page on")
    if len(text) <= n:
        assert seen == text
        return
    head, tail = text[: n // 2], text[len(text) - (n - n // 2) :]
    assert seen == f"{head}\n[... {len(text) - n} characters cut; page on ...]\n{tail}"


def test_lines_are_numbered_from_the_first_shown() -> None:
    assert numbered(["a", "", "c"], 9) == "   9| a\n  10| \n  11| c"
