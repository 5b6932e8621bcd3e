"""A checkpoint behind OpenAI's HTTP interface. Knows no task and no workspace."""

from .app import ServerSettings, build_app

__all__ = ["ServerSettings", "build_app"]
