"""Partial rotary position embedding, in halves."""

from .reference import rotary, rotary_table

__all__ = ["rotary", "rotary_table"]
