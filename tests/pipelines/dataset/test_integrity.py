from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.model import Message
from rollmill.model.tokenizer import Tokenizer
from rollmill.model.train.samples import samples_from_row
from rollmill.pipelines.dataset import BrokenTrajectory, to_row
from rollmill.pipelines.dataset.integrity import check, learned, paths, prompt, prove
from rollmill.pipelines.trajectory import Trajectory, Turn

MakeTrajectory = Callable[..., Trajectory]


def turn(parent: int | None, number: int, **fields: Any) -> Turn:
    defaults: dict[str, Any] = {
        "parent": parent,
        "prompt_ids": (10 * number, 10 * number + 1),
        "completion_ids": (10 * number + 2, 10 * number + 3),
        "logprobs": (),
        "policy_version": "",
        "finish_reason": "stop",
        "format_error": None,
        "policy_s": 0.0,
        "tools_s": 0.0,
    }
    return Turn(**defaults | fields)


@st.composite
def forests(draw: st.DrawFn) -> tuple[Turn, ...]:
    """Turns with unlike tokens; each a root or a child of an earlier one."""
    count = draw(st.integers(1, 9))
    parents = [draw(st.none() | st.integers(0, i - 1)) if i else None for i in range(count)]
    return tuple(turn(parent, number) for number, parent in enumerate(parents, start=1))


@given(turns=forests())
def test_every_sampled_token_is_learned_on_exactly_one_path(turns: tuple[Turn, ...]) -> None:
    counts = Counter(index for _, fresh in learned(turns) for index in fresh)

    assert counts == Counter(range(len(turns)))
    assert all(fresh <= set(path) for path, fresh in learned(turns))


@settings(deadline=None)
@given(turns=forests())
def test_the_trainer_learns_the_same_tokens_after_the_same_prompts(
    turns: tuple[Turn, ...], make_trajectory: MakeTrajectory, tokenizer: Tokenizer
) -> None:
    trajectory = make_trajectory(turns=turns, messages=(), tokenizer=tokenizer.fingerprint)
    samples = samples_from_row(to_row(trajectory), tokenizer)
    learned_ids = [
        int(i) for s in samples for i, yes in zip(s.ids, s.trainable, strict=True) if yes
    ]

    assert sorted(learned_ids) == sorted(i for t in turns for i in t.completion_ids)
    sequences = [tuple(map(int, sample.ids)) for sample in samples]
    leaves = [path[-1] for path in paths(turns)]
    assert sequences == [prompt(turns, leaf) + turns[leaf].completion_ids for leaf in leaves]


@given(turns=forests())
def test_the_prompt_of_a_child_begins_with_all_that_its_parent_saw_and_made(
    turns: tuple[Turn, ...],
) -> None:
    for index, one in enumerate(turns):
        before: tuple[int, ...] = ()
        if one.parent is not None:
            before = prompt(turns, one.parent) + turns[one.parent].completion_ids
        assert prompt(turns, index) == before + one.prompt_ids


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"turns": (turn(0, 1),)}, "names 0 as its parent"),
        ({"turns": (turn(None, 1), turn(2, 2), turn(1, 3))}, "names 2 as its parent"),
        ({"turns": (turn(-1, 1),)}, "names -1"),
        ({"turns": (turn(None, 1, logprobs=(-1.0,)),)}, "2 tokens and 1 logprobs"),
        ({"tokenizer": ""}, "no tokenizer"),
        ({"messages": (Message(role="assistant", token_ids=(9, 9)),)}, "message 0 were sampled"),
    ],
)
def test_what_was_not_sampled_so_is_named(
    make_trajectory: MakeTrajectory, changes: dict[str, Any], complaint: str
) -> None:
    broken = replace(make_trajectory(), **{"messages": (), **changes})

    with pytest.raises(BrokenTrajectory, match=complaint):
        check(broken)


def test_a_proof_counts_what_it_proved_and_refuses_a_second_copy(
    make_trajectory: MakeTrajectory,
) -> None:
    proof = prove([make_trajectory(0), make_trajectory(1)])

    assert (proof.episodes, proof.turns, proof.sampled_tokens) == (2, 4, 6)
    with pytest.raises(BrokenTrajectory, match="comes twice"):
        prove([make_trajectory(0), make_trajectory(0)])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["to be or not to be"], vocab_size=400)
