"""What an episode's parts are worth, and that they can be weighed again."""

from itertools import pairwise

import pytest

from rollmill.verifiers.reward import (
    Step,
    Weights,
    mixes_languages,
    process_parts,
    rewards_per_turn,
    speed,
)

GOOD = Step(text="I look at the failing test first.", calls=('bash {"command": "ls"}',))
OTHER = Step(text="Now I repair it.", calls=('edit_file {"path": "a.py"}',))
BAD = Step(text="Sorry?", calls=(), format_error=True)
TASK = "Fix the package so that its tests pass."


def test_each_fault_is_kept_by_term_and_turn() -> None:
    chinese = Step(text="先看一下失败的测试用例然后再修复这个函数中的错误吧", calls=("x",))
    parts = process_parts([GOOD, GOOD, BAD, chinese, OTHER], instruction=TASK)
    assert parts == {"repeat@1": -1.0, "format@2": -1.0, "language@3": -1.0}


def test_running_a_command_again_after_a_change_is_no_fault() -> None:
    assert process_parts([GOOD, OTHER, GOOD], instruction=TASK) == {}
    assert process_parts([BAD, BAD], instruction=TASK).keys() == {"format@0", "format@1"}


@pytest.mark.parametrize(
    ("text", "instruction", "mixed"),
    [
        ("Let α be the angle in µm; it is 3 Ω for all of them, I think.", TASK, False),
        ("The naïve façade of Ångström is fine in all of these words.", TASK, False),
        (
            "修复这个包，使其测试通过；我先运行失败的测试，谢谢你们",
            "修复 total 函数",
            False,
        ),
        ("The word 测试 alone in a long English sentence about tests.", TASK, False),
        ("I will 修复 the 函数 because 测试 失败了 and then 再 run 一次", TASK, True),
        ("Теперь я исправлю эту функцию", TASK, True),
        ("да", TASK, False),
    ],
)
def test_languages_are_told_by_their_script(text: str, instruction: str, mixed: bool) -> None:
    assert mixes_languages(text, instruction) is mixed


def test_speed_falls_and_is_a_half_at_the_baseline() -> None:
    values = [speed(t, 10) for t in (0, 1, 5, 10, 100, 1e9)]
    assert values[0] == 1.0
    assert values[3] == 0.5
    assert all(later < earlier for earlier, later in pairwise(values))
    assert values[-1] > 0
    for wrong in ((-1, 10), (1, 0)):
        with pytest.raises(ValueError, match="baseline"):
            speed(*wrong)


def test_the_last_turn_gets_the_outcome_and_each_turn_its_own_faults() -> None:
    parts = {"outcome": 1.0, "format@0": -1.0, "repeat@2": -1.0}
    assert rewards_per_turn(parts, 3) == pytest.approx([-0.1, 0.0, 0.95])
    heavy = Weights(alpha=1.0, format=2.0, repeat=0.0)
    assert rewards_per_turn(parts, 3, weights=heavy) == pytest.approx([-2.0, 0.0, 1.0])


def test_being_fast_pays_only_those_who_did_the_work() -> None:
    assert rewards_per_turn({"outcome": 1.0}, 1, speed=0.5) == pytest.approx([1.05])
    assert rewards_per_turn({"outcome": 0.0}, 1, speed=1.0) == [0.0]
    assert rewards_per_turn({"outcome": 0.0}, 0) == []


@pytest.mark.parametrize("name", ["format@3", "format", "style@0", "format@-1"])
def test_an_unknown_part_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected TERM@TURN|unknown process term"):
        rewards_per_turn({name: -1.0}, 3)
