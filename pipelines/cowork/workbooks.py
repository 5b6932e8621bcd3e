"""Family `workbooks`: small office jobs on real tables, judged cell by cell or answer by answer."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from ...verifiers import VerifierSpec
from ...workspaces import Provider, WorkspaceSpec, pack_tree
from ..family import Proposal, SourceError, Split
from ..task import Budget, Domain, Provenance, Task
from .scene import Scene
from .tables import Table, load_table, read_tables
from .templates import TEMPLATES, Template

IMAGE = "office"
VARIANTS = 1000
"""Proposals a template gives of one table."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedTable:
    """A table with its rows at hand."""

    table: Table
    rows: pd.DataFrame


class Workbooks:
    """Makes tasks from real tables by templates."""

    name: ClassVar[str] = "workbooks"
    domain: ClassVar[Domain] = "cowork"
    version: ClassVar[str] = "3"
    images: ClassVar[tuple[str, ...]] = (IMAGE,)

    def __init__(self, tables: Path | None = None) -> None:
        """Args: tables: a list of tables as `tables.toml`; None = the one that ships."""
        self._known = read_tables(tables) if tables else read_tables()

    def sources(self, split: Split = "all") -> Sequence[str]:
        """The names of the listed tables of a split."""
        return tuple(name for name, each in self._known.items() if split in ("all", each.split))

    async def prepare(self, source: str, provider: Provider, cache: Path) -> LoadedTable:
        """Load a listed table; its wheel is kept below `cache`."""
        if source not in self._known:
            raise SourceError(
                f"unknown table {source!r}; choose one of: {', '.join(sorted(self._known))}"
            )
        table = self._known[source]
        rows = await asyncio.to_thread(load_table, table, cache)
        return LoadedTable(table=table, rows=rows)

    def propose(self, source: LoadedTable, *, seed: int) -> Iterator[Proposal]:
        """The templates that fit the table in turn, each time with another seed."""
        rng = random.Random(f"{seed} {source.table.name}")
        fitting = [name for name, template in TEMPLATES.items() if _fits(template, source.table)]
        for _ in range(VARIANTS):
            for name in rng.sample(fitting, len(fitting)):
                number = rng.getrandbits(31)
                key = f"{source.table.name}/{name}/{number}"
                yield Proposal(key=key, source=source.table.name, seed=number)

    async def build(self, source: LoadedTable, proposal: Proposal, provider: Provider) -> Task:
        """Lay the rows out and state the task; needs no workspace."""
        template = TEMPLATES[proposal.key.split("/")[1]]
        scene = Scene(source.table, source.rows, seed=proposal.key)
        draft = template.make(scene)
        return Task(
            family=self.name,
            domain=self.domain,
            instruction=draft.instruction,
            workspace=WorkspaceSpec(image=IMAGE, seed=pack_tree(draft.files)),
            verifier=VerifierSpec(name=draft.verifier, params={"path": draft.output}),
            hidden={"expected.json": json.dumps(draft.expected, allow_nan=False).encode()},
            artifacts=(draft.output,),
            solution=draft.solution,
            provenance=Provenance(
                source=f"{source.table.requirement}#{source.table.name}",
                licence=source.table.licence,
                url=source.table.url,
                seed=proposal.seed,
                generator=self.name,
                generator_version=self.version,
                detail={
                    **draft.detail,
                    "template": template.name,
                    "origin": source.table.origin,
                    "split": source.table.split,
                },
            ),
            budget=Budget(max_turns=10),
        )


def _fits(template: Template, table: Table) -> bool:
    kinds = [column.kind for column in table.columns]
    return all(kinds.count(kind) >= count for kind, count in template.needs.items())  # type: ignore[arg-type]
