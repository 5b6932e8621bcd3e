"""Trains on several processes of this machine: starts them, hands on what they tell, ends them.

They meet over gloo through a file. One machine only: on several, call `train` with a mesh of your
own in each process, under `torchrun` for instance.
"""

from __future__ import annotations

import copy
import os
import queue
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

from ..model import Model
from ..mtp import MtpModules
from ..tokenizer import Tokenizer
from .config import TrainConfig
from .loop import Progress, train
from .run_folder import StepMetrics
from .samples import Sample

_POLL_S = 0.5


class RankFailed(RuntimeError):
    """A process ended before the training did; the last checkpoint stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """What each process is given."""

    config: TrainConfig
    model: Model
    mtp: MtpModules | None
    tokenizer: Tokenizer
    samples: Sequence[Sample]
    validation: Sequence[Sample]
    out: Path
    ranks: int
    threads: int
    meeting: Path


def train_on_ranks(
    ranks: int,
    config: TrainConfig,
    model: Model,
    tokenizer: Tokenizer,
    samples: Sequence[Sample],
    out: Path,
    *,
    mtp: MtpModules | None = None,
    validation: Sequence[Sample] = (),
    progress: Progress | None = None,
) -> Path:
    """As `loop.train`, on so many processes; this process's `model` and `mtp` stay as they are.

    A script that calls this needs the usual `if __name__ == "__main__":`.

    Raises:
        RankFailed: says what the first failing process raised.
    """
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        task = _Task(
            config=config,
            model=model,
            mtp=mtp,
            tokenizer=tokenizer,
            samples=samples,
            validation=validation,
            out=out,
            ranks=ranks,
            threads=max(1, torch.get_num_threads() // ranks),
            meeting=Path(folder) / "meeting",
        )
        context = mp.get_context("spawn")
        told: Any = context.Queue()
        processes = [
            context.Process(target=_rank, args=(rank, task, told), daemon=True)
            for rank in range(ranks)
        ]
        try:
            for each in processes:
                each.start()
            return _follow(processes, told, progress)
        finally:
            for each in processes:
                each.kill()
                each.join()


def _follow(processes: Sequence[BaseProcess], told: Any, progress: Progress | None) -> Path:
    """Hand on the metrics until the first rank tells the result."""
    while True:
        try:
            message = told.get(timeout=_POLL_S)
        except queue.Empty:
            if any(each.exitcode is not None for each in processes) and told.empty():
                codes = [each.exitcode for each in processes]
                raise RankFailed(
                    f"expected {len(processes)} processes to train, got exit codes {codes}; look "
                    "at the memory, and give the command again to go on from the last checkpoint"
                ) from None
            continue
        if isinstance(message, StepMetrics):
            if progress:
                progress(message)
        elif isinstance(message, Path):
            return message
        else:
            raise RankFailed(f"expected all processes to train, one raised:\n{message}")


def _rank(rank: int, task: _Task, told: Any) -> None:
    """The life of one process."""
    try:
        torch.set_num_threads(task.threads)
        meeting = f"file://{task.meeting}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=task.ranks)
        result = train(
            task.config,
            copy.deepcopy(task.model),  # it arrives in memory that all ranks share
            task.tokenizer,
            task.samples,
            task.out,
            mtp=copy.deepcopy(task.mtp),
            validation=task.validation,
            progress=told.put if rank == 0 else None,
            mesh=init_device_mesh("cpu", (task.ranks,)),
        )
        if rank == 0:
            told.put(result)
    except BaseException:  # the parent raises it
        told.put(traceback.format_exc())
    told.close()
    told.join_thread()
    os._exit(0)  # gloo's threads may abort the interpreter's own way out
