"""What a policy scores, and the model card that says so."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import rollmill.flows.bundle as bundle
from rollmill.flows.config import BundleConfig
from rollmill.flows.scores import scores
from rollmill.model.checkpoint import load_bundled

from ..pipelines.conftest import build_trajectory


def test_each_policy_is_scored_apart_and_turns_count_as_parsed_or_not() -> None:
    free = [build_trajectory(n, policy="bundled:here", family="bugs") for n in range(3)]
    held = [build_trajectory(9, policy="bundled-calls", family="bugs", turns=(), messages=())]

    first, second = scores([*held, *free])

    assert (first.policy, first.episodes, first.parsed) == ("bundled", 3, 0.5)
    assert (second.policy, second.episodes, second.mean_turns) == ("bundled-calls", 1, 0.0)
    assert second.parsed is None


def test_the_card_shows_a_line_for_each_score(tmp_path: Path) -> None:
    templates = Environment(
        loader=FileSystemLoader(Path(bundle.__file__).parent), undefined=StrictUndefined
    )
    rows = [build_trajectory(0, policy="bundled", family="bugs")]

    text = templates.get_template(bundle.CARD).render(
        version="1",
        config=BundleConfig(out=tmp_path),
        model=load_bundled().config,
        parameters=1,
        demonstrations=2,
        sources=[("tiny==1.0", "MIT")],
        scores=scores(rows),
    )

    assert "| bundled | bugs |" in text
    assert "50.0 %" in text
