"""Everything that decides how a training run goes, apart from its data and first weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Settings of one run. The defaults suit the bundled policy on two CPU cores.

    Raises:
        ValueError: a setting makes no sense.
    """

    steps: int
    batch_tokens: int = 8192
    """Upper bound; batches are not padded."""
    micro_batches: int = 1
    """Batches a step, whose gradients are added up: a larger batch in the memory of one."""
    max_sample_tokens: int = 2048
    """Longer samples lose their end."""
    lr: float = 3e-3
    """Peak learning rate."""
    schedule: Literal["wsd", "cosine"] = "wsd"
    warmup_steps: int = 50
    decay_fraction: float = 0.3
    """Share of the steps over which `wsd` decays."""
    final_lr_fraction: float = 0.05
    weight_decay: float = 0.1
    """Of matrices; vectors are not decayed."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-15
    """As published for M1, whose gradients are mostly below 1e-14."""
    grad_clip: float = 1.0
    router_bias_speed: float = 1e-3
    """Step of the sign update that evens out the experts. M2's is not published."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in; weights and optimizer are fp32 either way. bf16 pays only where
    the processor multiplies it (AVX512-BF16, AMX, a GPU); elsewhere it is far slower."""
    fp32_head: bool = False
    """Keep the output head in fp32 when the rest computes in bf16, as M1 did: the trainer's and the
    sampler's probabilities agree better."""
    checkpoint_activations: bool = False
    """Keep the input of each layer alone and compute the rest again going backward."""
    mtp_weight: float = 0.3
    """Of the MTP loss, the mean over the depths, beside the main loss. As published."""
    mtp_final_weight: float = 0.1
    """What it falls to, linearly, over the last `decay_fraction` of the steps. As published."""
    mtp_only_steps: int = 0
    """So many first steps leave the main model as it is and train new MTP modules alone."""
    seed: int = 0
    checkpoint_every: int = 200
    """Steps; the last two checkpoints are kept."""
    validate_every: int = 200

    def __post_init__(self) -> None:
        positive = (
            "steps",
            "batch_tokens",
            "micro_batches",
            "lr",
            "eps",
            "grad_clip",
            "checkpoint_every",
            "validate_every",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("mtp_weight", "mtp_final_weight", "mtp_only_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("decay_fraction", "final_lr_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        choices = {"schedule": ("wsd", "cosine"), "dtype": ("float32", "bfloat16")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
