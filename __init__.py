"""Rollmill: executable workspaces into training data for agents."""

__version__ = "0.1.0"
