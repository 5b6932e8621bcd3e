"""How checks become a verdict."""

import pytest

from rollmill.verifiers import Check, Outcome, Verdict, judge


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
