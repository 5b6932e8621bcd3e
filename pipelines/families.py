"""Every task family by name. Adding one: its class, and a line in its domain's `FAMILIES`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import coding, cowork
from .family import Family

FAMILIES: dict[str, type[Family[Any]]] = {**coding.FAMILIES, **cowork.FAMILIES}
DOMAINS: dict[str, tuple[str, ...]] = {
    "coding": tuple(coding.FAMILIES),
    "cowork": tuple(cowork.FAMILIES),
}


class UnknownFamily(ValueError):
    """A name that is neither a task family nor a domain."""

    def __init__(self, name: str) -> None:
        choices = ", ".join([*DOMAINS, *sorted(FAMILIES)])
        super().__init__(f"unknown task family {name!r}; choose from: {choices}")


def family_names(names: Sequence[str]) -> list[str]:
    """Family names in the order given, each once; a domain stands for all of its families.

    Raises:
        UnknownFamily: the message lists the choices.
    """
    found: dict[str, None] = {}
    for name in names:
        if name not in FAMILIES and name not in DOMAINS:
            raise UnknownFamily(name)
        found |= dict.fromkeys(DOMAINS.get(name, (name,)))
    return list(found)


def get_family(name: str) -> Family[Any]:
    """A family by its name.

    Raises:
        UnknownFamily: the message lists the choices.
    """
    if name not in FAMILIES:
        raise UnknownFamily(name)
    return FAMILIES[name]()
