"""The bundled Mixture-of-Experts policy: architecture, inference, training. Knows no task."""

from .messages import Message, Role, ToolCall, ToolSpec

__all__ = ["Message", "Role", "ToolCall", "ToolSpec"]
