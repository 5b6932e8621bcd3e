"""What the admission gate tries on a task: cheats, near misses and other right answers."""

from .cheats import Cheat, cheats_for
from .variants import Variant, alternatives_of, mutants_of

__all__ = ["Cheat", "Variant", "alternatives_of", "cheats_for", "mutants_of"]
