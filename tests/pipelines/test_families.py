from __future__ import annotations

import pytest

from rollmill.pipelines.families import DOMAINS, FAMILIES, UnknownFamily, family_names, get_family


def test_a_domain_stands_for_its_families_and_none_comes_twice() -> None:
    assert family_names(["coding", "bugs", "cowork"]) == [*DOMAINS["coding"], *DOMAINS["cowork"]]


def test_every_family_opens_by_its_own_name_and_domain() -> None:
    for name in FAMILIES:
        family = get_family(name)
        assert family.name == name
        assert name in DOMAINS[family.domain]
        assert family.sources()


@pytest.mark.parametrize("name", ["bug", "", "coding"])
def test_an_unknown_family_names_the_choices(name: str) -> None:
    with pytest.raises(UnknownFamily) as refusal:
        get_family(name)
    assert all(choice in str(refusal.value) for choice in [*DOMAINS, *FAMILIES])
    if name != "coding":
        with pytest.raises(UnknownFamily):
            family_names([name])


@pytest.mark.parametrize("name", FAMILIES)
def test_training_and_held_out_sources_share_nothing(name: str) -> None:
    family = get_family(name)
    train, held_out = set(family.sources("train")), set(family.sources("held_out"))
    assert train
    assert held_out
    assert train.isdisjoint(held_out)
    assert train | held_out == set(family.sources())
