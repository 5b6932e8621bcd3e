"""Cowork families: tasks from real tables and documents."""

from __future__ import annotations

from typing import Any

from ..family import Family
from .workbooks import Workbooks

FAMILIES: dict[str, type[Family[Any]]] = {"workbooks": Workbooks}
