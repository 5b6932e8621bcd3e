"""Verifiers by name."""

import pytest

from rollmill.verifiers import VERIFIERS, get_verifier


@pytest.mark.parametrize("name", VERIFIERS)
def test_each_verifier_is_found_by_its_own_name_and_states_a_version(name: str) -> None:
    verifier = get_verifier(name)
    assert verifier.name == name
    assert verifier.version


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"answer, deck, .*table, test_suite, workbook"):
        get_verifier("wrokbook")
