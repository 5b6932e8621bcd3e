"""Every kind of fault: one natural line, still Python, and another behaviour."""

import ast
from typing import Any

import pytest

from rollmill.pipelines.coding.gold import gold_moves, shortest_fragment
from rollmill.pipelines.coding.mutations import KINDS, Mutation, mutations_of
from rollmill.pipelines.rollout.edit import replace_at

SNIPPETS: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "comparison": ("def f(a, b):\n    return a <= b  # ü\n", [(1, 1), (2, 1)]),
    "arithmetic": ("def f(a, b):\n    return (a) + b\n", [(1, 2)]),
    "off_by_one": ("def f(a, b):\n    return a[1:], list(range(b))\n", [("abc", 3)]),
    "boolean": ("def f(a, b):\n    return 'ü', a and b\n", [(0, 1)]),
    "negated_condition": ("def f(a, b):\n    return 1 if a else 2\n", [(0, 1)]),
    "deleted_not": ("def f(a, b):\n    return not (a or b)\n", [(0, 1)]),
    "wrong_variable": ("def f(a, b):\n    c = a\n    return c\n", [(1, 2)]),
    "swapped_arguments": ("def f(a, b):\n    return divmod((a), b)\n", [(7, 2)]),
    "return_value": ("def f(a, b):\n    return a, b\n", [(1, 2)]),
    "default_value": ("def f(a, b, *, more=True):\n    return more and a\n", [(1, 2)]),
    "keyword_constant": (
        "def f(a, b):\n    return sorted(a, reverse=True)\n",
        [([1, 2], 0)],
    ),
    "lost_guard": ("def f(a, b):\n    if a:\n        return b\n    return -1\n", [(1, 2)]),
    "sibling_call": ("def f(a, b):\n    return a.lstrip(b)\n", [("xax", "x")]),
}


def behaviour(text: str, calls: list[tuple[Any, ...]]) -> list[Any]:
    scope: dict[str, Any] = {}
    exec(text, scope)
    seen = []
    for arguments in calls:
        try:
            seen.append(scope["f"](*arguments))
        except Exception as error:
            seen.append(type(error))
    return seen


def made(text: str, kind: str | None = None) -> list[Mutation]:
    return [m for m in mutations_of("m.py", text) if kind in (None, m.kind)]


def test_every_kind_has_a_snippet() -> None:
    assert set(SNIPPETS) == set(KINDS)
    assert len(KINDS) >= 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_changes_one_line_and_the_behaviour(kind: str) -> None:
    text, calls = SNIPPETS[kind]
    found = made(text, kind)
    assert found
    for mutation in found:
        changed = mutation.apply(text)
        ast.parse(changed)
        pairs = list(zip(text.split("\n"), changed.split("\n"), strict=True))
        assert [a for a, b in pairs if a != b] == [mutation.before]
    assert any(behaviour(m.apply(text), calls) != behaviour(text, calls) for m in found)


def test_formatting_comments_and_line_ends_stay() -> None:
    text = "def f(a,  b):\r\n    return a  <  b  # why\r\n\x0c\n"
    (mutation,) = made(text, "comparison")
    assert mutation.apply(text) == text.replace("<", "<=")


@pytest.mark.parametrize(
    "text",
    [
        "X = 1 + 2 < 3\n",
        "def f(a: int | None = None) -> int | str:\n    '''Not 1 < 2.'''\n",
        "def f(a):\n    return None\n",
        "def f(a):\n    f'{a + 1}'\n",
        "def f(a):\n    'x' % a\n",
        "class C:\n    n = 3\n",
    ],
)
def test_what_no_test_could_notice_is_left_alone(text: str) -> None:
    assert made(text) == []


def test_a_variable_is_replaced_by_one_that_is_bound_before() -> None:
    text = "def f(a):\n    b = a\n    print(b)\n    c = 1\n"
    assert {m.new for m in made(text, "wrong_variable")} == {"a"}


def test_no_line_is_made_twice_and_the_order_is_fixed() -> None:
    text = "".join(snippet for snippet, _ in SNIPPETS.values())
    found = made(text)
    assert len({(m.line, m.after) for m in found}) == len(found)
    assert [m.key for m in found] == [m.key for m in made(text)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_gold_edit_gives_the_source_back(kind: str) -> None:
    text, _ = SNIPPETS[kind]
    for mutation in made(text, kind):
        *_, edit, _ = gold_moves(mutation, test="test_m.py::test_f", seed=3)
        (call,) = edit.calls
        where = {name: value for name, value in call.arguments.items() if name != "path"}
        assert replace_at(mutation.apply(text), **where)[0] == text
        assert call.arguments["old"] in edit.thought


@pytest.mark.parametrize(
    ("wrong", "right", "fragment"),
    [
        ("    a < b", "    a <= b", ("<", "<=")),
        ("    if x:", "    if not x:", ("x", "not x")),
        ("    return a + a - a", "    return a + a + a", ("-", "+")),
        ("    foo(a, a)", "    foo(a, b)", ("a)", "b)")),
        ("    pass", "    return None", ("pass", "return None")),
    ],
)
def test_the_fragment_is_the_shortest_of_whole_tokens(
    wrong: str, right: str, fragment: tuple[str, str]
) -> None:
    assert shortest_fragment(wrong, right) == fragment


def test_a_long_function_is_read_around_the_fault() -> None:
    body = "".join(f"    x{n} = a\n" for n in range(90))
    text = f"def f(a):\n{body}    return a > 1\n    # end\n"
    (mutation,) = made(text, "comparison")
    for seed in range(20):
        read = gold_moves(mutation, test="t.py::t", seed=seed)[2].calls[0].arguments
        assert read["start"] <= mutation.line <= read["end"] < read["start"] + 40
