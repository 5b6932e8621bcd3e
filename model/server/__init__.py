"""A checkpoint behind OpenAI's HTTP interface. Knows no task and no workspace."""

from .app import build_app
from .service import ServerSettings

__all__ = ["ServerSettings", "build_app"]
