"""Draws the next token of each row."""

from .cpu_batched import sample

__all__ = ["sample"]
