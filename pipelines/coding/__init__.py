"""Coding tasks from real open-source packages. `FAMILIES` names what can be made."""

from .bugs import Bugs

FAMILIES: dict[str, type[Bugs]] = {"bugs": Bugs}

__all__ = ["FAMILIES", "Bugs"]
