"""Hot loops, one folder each: `reference.py` beside the fast versions."""
