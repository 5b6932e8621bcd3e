"""What can be seen to be wrong with a request at once, before anything is started or made."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..pipelines.families import family_names, get_family
from ..pipelines.rollout.judging import open_judge
from ..pipelines.rollout.policies import open_policy
from ..pipelines.task import Task
from ..verifiers import RubricVerifier
from ..workspaces import MIB, DiskFull
from .config import ConfigError, GenerateConfig, SftConfig
from .sources import choose_sources

if TYPE_CHECKING:
    import torch

FREE_BYTES = 512 * MIB
"""What a run must find free where it writes."""


def check_generate(config: GenerateConfig) -> None:
    """Names, places and room; engines and endpoints are asked later.

    Raises:
        UnknownFamily, UnknownPolicy, SourceError: the message lists the choices.
        ConfigError, DiskFull: `out` cannot be used.
    """
    families = [get_family(name) for name in family_names(config.tasks)]
    choose_sources(families, config.source, config.split)
    _demand_distinct("policy", config.policy)
    for spec in config.policy:
        open_policy(spec)
    check_judges((), config.judge)
    _demand_room(config.out)


def check_judges(tasks: Iterable[Task], judges: Sequence[str]) -> None:
    """Tasks of a rubric have somebody to judge them.

    Raises:
        ConfigError: nobody was named, or one twice.
        UnknownPolicy: one of them names no model.
    """
    _demand_distinct("judge", judges)
    for spec in judges:
        open_judge(spec)
    unjudged = [task.task_id for task in tasks if task.verifier.name == RubricVerifier.name]
    if unjudged and not judges:
        raise ConfigError(
            f"expected --judge openai:URL#MODEL, since a rubric judges task {unjudged[0]}; "
            "several are a panel"
        )


def check_sft(config: SftConfig) -> None:
    """The data and the device are there, and so is room for the result.

    Raises:
        ConfigError, DiskFull: a path or the device cannot be used.
    """
    data_folders(config.data)
    if config.device != "auto":
        training_device(config)
    _demand_room(config.out)


def training_device(config: SftConfig) -> torch.device:
    """Where to train.

    Raises:
        ConfigError: there is no such device.
    """
    import torch  # not for the commands that need none

    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and config.ranks == 1 else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"expected cpu, cuda or cuda:N for the device, got {name}")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # an assertion where PyTorch has no CUDA
        raise ConfigError(
            f"expected a device that PyTorch has here, got {name}: {str(error).splitlines()[0]}; "
            "leave --device out, or install PyTorch for it"
        ) from None


def data_folders(patterns: Sequence[str]) -> list[Path]:
    """The folders that patterns name, each once.

    Raises:
        ConfigError: a pattern names none.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        folders = [Path(name) for name in sorted(glob.glob(pattern)) if Path(name).is_dir()]  # noqa: PTH207
        if not folders:
            raise ConfigError(
                f"expected a run or dataset directory at {pattern}, found none; "
                "make one with `rollmill generate --out` or `rollmill export --to`"
            )
        found |= dict.fromkeys(folders)
    return list(found)


def _demand_room(out: Path) -> None:
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"expected a folder we may write for --out {out}, got {there}")
    free = shutil.disk_usage(there).free
    if free < FREE_BYTES:
        raise DiskFull(
            f"{out} needs {FREE_BYTES // MIB} MiB free to start, its disk has {free // MIB}; "
            "make room or choose another --out"
        )


def _demand_distinct(name: str, values: Sequence[str]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ConfigError(f"expected each --{name} once, got {twice[0]!r} again; drop one")
