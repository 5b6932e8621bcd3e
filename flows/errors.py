"""What to tell the user when something went wrong, and with which exit code to leave.

2 = what was asked for cannot be done as it stands; 1 = the work failed; 130 = stopped by the user.
Nothing is imported to find out, so that an error shows as fast as `--help`.
"""

from __future__ import annotations

BAD_INPUT = 2
FAILED = 1
CANCELLED = 130

BAD_INPUTS = frozenset(
    {
        "typer._click.exceptions.ClickException",
        "rollmill.flows.config.ConfigError",
        "rollmill.flows.orchestrator.NoOrchestrator",
        "rollmill.model.checkpoint.CheckpointError",
        "rollmill.model.train.run_folder.RunMismatch",
        "rollmill.pipelines.dataset.errors.RunError",
        "rollmill.pipelines.families.UnknownFamily",
        "rollmill.pipelines.family.SourceError",
        "rollmill.pipelines.rollout.policies.UnknownPolicy",
        "rollmill.pipelines.rollout.policy.PolicyError",
        "rollmill.pipelines.taskfolder.TaskFolderError",
        "rollmill.workspaces.errors.DiskFull",
        "rollmill.workspaces.errors.EngineUnavailable",
        "rollmill.workspaces.errors.ImageError",
    }
)
"""Classes whose instances, those of subclasses included, are the request's fault."""
FAILURES = frozenset(
    {
        "rollmill.flows.errors.WorkFailed",
        "rollmill.model.train.loop.TrainingDiverged",
        "rollmill.workspaces.errors.WorkspaceError",
    }
)
"""The same for failures that explain themselves."""


class WorkFailed(RuntimeError):
    """The request was fine, the work was not."""


def exit_code(error: Exception) -> int:
    """The code to leave with."""
    return BAD_INPUT if _names(error) & BAD_INPUTS else FAILED


def sentence(error: Exception) -> str:
    """One line for a person."""
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    line = " ".join(text.split())
    if _names(error) & (BAD_INPUTS | FAILURES):
        return line
    return f"{type(error).__name__}: {line} (`rollmill --debug …` shows where)"


def _names(error: Exception) -> set[str]:
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
