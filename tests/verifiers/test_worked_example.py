"""The verifier that docs/verifiers.md shows whole works as it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rollmill.verifiers import VerifierSpec
from rollmill.workspaces import ScriptedWorkspace, WorkspaceSpec, pack_tree

DOCS = Path(__file__).parents[2] / "docs/verifiers.md"
SPEC = VerifierSpec(name="text", params={"path": "a.txt"})


@pytest.fixture
def shown() -> dict[str, Any]:
    """What the example defines."""
    _, _, rest = DOCS.read_text(encoding="utf-8").partition("## Adding one")
    names: dict[str, Any] = {"__name__": "text"}
    exec(rest.split("```python\n")[1].split("```")[0], names)
    return names


@pytest.mark.parametrize(
    ("seed", "outcome", "told"),
    [
        ({"a.txt": b"x  y\n"}, "pass", ""),
        ({"a.txt": b"x z\n"}, "fail", "expected b'x y', got b'x z"),
        ({"b.txt": b"x y"}, "fail", "a.txt"),
    ],
    ids=["right", "wrong", "missing"],
)
async def test_it_judges(
    shown: dict[str, Any], seed: dict[str, bytes], outcome: str, told: str
) -> None:
    workspace = ScriptedWorkspace(WorkspaceSpec(image="python", seed=pack_tree(seed)), [])
    verdict = await shown["TextVerifier"]().verify(workspace, SPEC, {"expected.txt": b"x y"})
    assert (verdict.outcome, verdict.verifier) == (outcome, "text@1")
    assert told in verdict.checks[0].evidence
