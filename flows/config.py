"""What a flow is asked to do: parsed from flags and TOML files, checked before anything is made.

Values only. Whether an endpoint answers or an engine runs is found out by `checks.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..pipelines.rollout.policy import Sampling

ConfigT = TypeVar("ConfigT", bound=BaseModel)
M2 = Sampling()
_SPEED = frozenset({"out", "concurrency", "setup_concurrency", "grading_concurrency", "retries"})
"""Settings that do not decide what a run holds."""


class ConfigError(ValueError):
    """A setting that cannot be used; the message says which, and what would do."""


class GenerateConfig(BaseModel):
    """Tasks to make and episodes to roll out on them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path
    """The run directory. `{start}` in it becomes the start time: each start is a run of its own."""
    tasks: tuple[str, ...] = Field(default=("coding", "cowork"), min_length=1)
    """Domains and families."""
    n: int = Field(default=8, ge=1)
    """Tasks in all, split evenly over the families."""
    group: int = Field(default=1, ge=1)
    """Episodes of each task by each policy."""
    policy: tuple[str, ...] = Field(default=("gold",), min_length=1)
    judge: tuple[str, ...] = ()
    """Models that judge where a rubric does, a panel when several; as policies are named."""
    gate: Literal["quick", "full"] = "quick"
    """How much is tried on each task before it is admitted; see docs/gate.md."""
    gate_runs: int | None = Field(default=None, ge=1)
    """Runs of the gold solution and of doing nothing; None = as many as the gate has."""
    source: tuple[str, ...] = ()
    """Sources to make tasks from; empty = those that ship with the families."""
    split: Literal["train", "held_out", "all"] = "train"
    """Which of the shipped sources."""
    workspace: Literal["auto", "docker", "bwrap"] = "auto"
    temperature: float = Field(default=M2.temperature, ge=0)
    """0 = greedy. Policies that sample nothing pass over it and the two below."""
    top_p: float = Field(default=M2.top_p, gt=0, le=1)
    top_k: int = Field(default=M2.top_k, ge=0)
    """0 = no limit."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    shard_size: int = Field(default=64, ge=1)
    """Episodes in one shard, which is one Prefect task."""
    concurrency: int = Field(default_factory=lambda: 2 * (os.cpu_count() or 1), ge=1)
    """Episodes whose agent is at work at the same time; does not change the result."""
    setup_concurrency: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Workspaces that are started at the same time, where starting one costs."""
    grading_concurrency: int = Field(default_factory=lambda: 2 * (os.cpu_count() or 1), ge=1)
    """Episodes that are graded at the same time."""
    retries: int = Field(default=2, ge=0)
    """How often an episode that our machinery failed is tried again."""

    def identity(self) -> dict[str, Any]:
        """What decides the content of the run, as JSON values."""
        return self.model_dump(mode="json", exclude=set(_SPEED))

    @property
    def sampling(self) -> Sampling:
        """How the policies sample."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k)

    @property
    def run_id(self) -> str:
        """The same for runs that are to give equal rows."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:16]


class SftConfig(BaseModel):
    """A supervised fine-tuning on runs and exported datasets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: tuple[str, ...] = Field(min_length=1)
    """Run directories and dataset directories; `*` stands for any name."""
    out: Path
    """`{start}` in it becomes the start time."""
    init: str = "bundled"
    """First weights: `bundled`, `scratch` (the bundled shape, random), or a checkpoint folder."""
    steps: int = Field(default=200, ge=1)
    batch_tokens: int = Field(default=8192, ge=64)
    micro_batches: int = Field(default=1, ge=1)
    """Batches a step: a larger batch in the memory of one."""
    max_sample_tokens: int = Field(default=4096, ge=16)
    lr: float = Field(default=3e-4, gt=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    """None = 10, or all of fewer steps."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    fp32_head: bool = False
    """Keep the output head in fp32 beside bf16."""
    checkpoint_activations: bool = False
    """Less memory, more time, the same result."""
    mtp_modules: int = Field(default=0, ge=0, le=3)
    """Multi-token prediction modules to train along: those of the checkpoint, copies of its first
    for what is missing, or else copies of the model's last layer. 0 = none, and none are kept."""
    mtp_weight: float = Field(default=0.3, ge=0)
    """Of their loss."""
    mtp_final_weight: float = Field(default=0.1, ge=0)
    """What it falls to while the rate decays."""
    mtp_only_steps: int = Field(default=0, ge=0)
    """First steps that train the modules alone, because they are new."""
    device: str = "auto"
    """Where to train: cpu, cuda, cuda:1 and so on; auto = a GPU if there is one."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    checkpoint_every: int = Field(default=100, ge=1)
    ranks: int = Field(default=1, ge=1)
    """Processes that share the work on this machine, on its CPU."""
    keep: Literal["passed", "scored"] = "passed"
    """Which episodes are learned from."""

    @model_validator(mode="after")
    def _go_together(self) -> SftConfig:
        if self.max_sample_tokens > self.batch_tokens:
            raise ValueError(
                f"max_sample_tokens must be at most batch_tokens ({self.batch_tokens}), "
                f"got {self.max_sample_tokens}"
            )
        if self.warmup_steps is not None and self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps must be at most steps ({self.steps}), got {self.warmup_steps}"
            )
        if self.mtp_only_steps > (self.steps if self.mtp_modules else 0):
            raise ValueError(
                f"mtp_only_steps must be at most steps ({self.steps}) and needs mtp_modules, got "
                f"{self.mtp_only_steps} with {self.mtp_modules} modules"
            )
        if self.ranks > 1 and self.device not in ("auto", "cpu"):
            raise ValueError(f"device must be cpu on several ranks, got {self.device}")
        return self


class BundleConfig(BaseModel):
    """The recipe of the bundled policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path
    demos: int = Field(default=300, ge=2)
    """Tasks from training sources to learn from, split evenly over the families."""
    renamed_copies: int = Field(default=15, ge=0)
    """Of each demonstration, under other names: see `pipelines/renaming.py`."""
    recall_share: float = Field(default=0.15, ge=0, lt=1)
    """Of the tokens of the pre-training, random runs to be recalled (`pipelines/recall.py`); a
    third of it later."""
    slip_rate: float = Field(default=0.015, ge=0, le=1)
    """Slips a token of the agent's, in half of what the last stage learns: `pipelines/slips.py`."""
    held_out: int = Field(default=40, ge=2)
    """Tasks from held-out sources to be scored on."""
    vocab_size: int = Field(default=3072, ge=512)
    pretraining_steps: int = Field(default=3600, ge=1)
    sft_steps: int = Field(default=6000, ge=1)
    slip_steps: int = Field(default=1500, ge=1)
    batch_tokens: int = Field(default=4096, ge=64)
    max_sample_tokens: int = Field(default=4096, ge=16)
    lr: float = Field(default=3e-3, gt=0)
    """Peak learning rate of the pre-training; a half and a quarter of it in the later stages."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(default=0, ge=0, lt=2**63)


def load_config(kind: type[ConfigT], flags: Mapping[str, Any], file: Path | None) -> ConfigT:
    """A configuration from a TOML file and flags; flags win, a flag that is None was not given.

    Raises:
        ConfigError: the file cannot be read, or a value or key cannot be used.
    """
    values = _read_toml(file) if file else {}
    unknown = sorted(values.keys() - kind.model_fields.keys())
    if unknown:
        raise ConfigError(
            f"unknown key {unknown[0]!r} in {file}; choose from: {', '.join(kind.model_fields)}"
        )
    values |= {name: value for name, value in flags.items() if value not in (None, [], ())}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"expected a TOML file at {file}, got: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected TOML in {file}, got: {error}") from error


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"])) or "configuration"
    if first["type"] == "missing":
        return f"{name} is missing; give --{name.replace('_', '-')} or set it in the --config file"
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    return f"{name}: {message[0].lower()}{message[1:]}, got {first['input']!r}"
