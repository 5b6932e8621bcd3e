"""How checks become a verdict."""

import pytest

from rollmill.verifiers import Check, Outcome, Verdict, judge, judge_edit
from rollmill.verifiers.types import new_work


def checks(*outcomes: Outcome) -> tuple[Check, ...]:
    return tuple(Check(name=str(at), outcome=outcome) for at, outcome in enumerate(outcomes))


@pytest.mark.parametrize(
    ("outcomes", "outcome", "score"),
    [
        (("pass", "pass"), "pass", 1.0),
        (("pass", "fail", "fail", "fail"), "fail", 0.25),
        (("fail",), "fail", 0.0),
        (("fail", "unscored"), "unscored", 0.0),
        (("pass", "unscored"), "unscored", 0.0),
        ((), "unscored", 0.0),
    ],
)
def test_one_check_that_could_not_tell_leaves_the_whole_unscored(
    outcomes: tuple[Outcome, ...], outcome: Outcome, score: float
) -> None:
    verdict = judge(checks(*outcomes), verifier="any@1")
    assert (verdict.outcome, verdict.score) == (outcome, score)


@pytest.mark.parametrize(
    ("outcome", "score"), [("pass", 0.5), ("fail", 1.0), ("unscored", 1.0), ("fail", -0.1)]
)
def test_a_verdict_cannot_contradict_its_score(outcome: Outcome, score: float) -> None:
    with pytest.raises(ValueError, match="must go with"):
        Verdict(outcome=outcome, score=score)


def test_what_was_only_kept_earns_nothing_and_damage_costs() -> None:
    kept, harmed = checks("pass", "pass"), checks("pass", "fail")
    assert judge_edit(checks("pass", "pass"), kept, verifier="any@1").score == 1.0
    assert judge_edit(checks("fail", "fail"), kept, verifier="any@1").score == 0.0
    assert judge_edit(checks("pass", "fail"), kept, verifier="any@1").score == 0.5
    assert judge_edit(checks("pass", "pass"), harmed, verifier="any@1").score == 0.5
    assert judge_edit(checks("unscored"), harmed, verifier="any@1").outcome == "unscored"


def test_what_the_seed_already_had_is_no_work() -> None:
    work, held = new_work(checks("pass", "pass"), checks("fail", "pass"))
    assert [check.name for check in work] == ["0"]
    assert [check.name for check in held] == ["1"]
