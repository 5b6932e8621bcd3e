"""The flow `train-bundled`: the recipe of the policy that ships with the package.

Gold demonstrations from the training sources, a tokenizer, pre-training on repair drills and whole
conversations, supervised fine-tuning on the agent's turns, the same with slips in them, an honest
score on held-out sources, a model card.
Run it again with the same configuration to go on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prefect import flow

from .. import __version__
from ..model.checkpoint import load_model, save_checkpoint
from ..model.config import ModelConfig
from ..model.model import Model
from ..model.tokenizer import Tokenizer
from ..model.train.config import TrainConfig
from ..model.train.loop import train
from ..model.train.run_folder import StepMetrics
from ..model.train.samples import Sample, samples_from_row
from ..pipelines.dataset import read_rows, read_run
from ..pipelines.dataset.lock import WriteLock
from ..pipelines.pretraining import (
    drill_samples,
    drills,
    learn_tokenizer,
    renamed_copies,
    standard_library,
    whole_samples,
    with_recall,
)
from ..pipelines.renaming import Row
from ..pipelines.slips import with_slips
from ..pipelines.trajectory import Trajectory
from . import progress
from .config import BundleConfig, GenerateConfig
from .generate import generate
from .scores import Score, scores

CARD = "model_card.md.j2"


@flow(name="train-bundled")
async def train_bundled(config: BundleConfig) -> dict[str, Any]:
    """Make the bundled policy from nothing.

    Returns: where the checkpoint lies, and its scores by policy and family.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    with WriteLock(config.out):
        return await _train_bundled(config)


async def _train_bundled(config: BundleConfig) -> dict[str, Any]:
    demos, held_out = config.out / "demos", config.out / "held-out"
    await generate(_generate(config, demos, "gold", split="train", n=config.demos))
    passed = [row for row in read_run(demos) if row.outcome == "pass"]
    conversations = drills(standard_library(), seed=config.seed)
    tokenizer = _tokenizer(config, conversations, passed)
    rows = _demonstrations(config, demos)
    limit = config.max_sample_tokens
    read = [
        *drill_samples(conversations, tokenizer, max_tokens=limit),
        *whole_samples(rows, tokenizer, max_tokens=limit),
    ]
    stage, share = partial(_stage, config, tokenizer), config.recall_share
    read = with_recall(read, tokenizer, share=share, seed=config.seed)
    untrained = _untrained(config, tokenizer)
    first = stage("pretraining", untrained, read, config.pretraining_steps, config.lr)
    said = [sample for row in rows for sample in samples_from_row(row, tokenizer)]
    slips = list(with_slips(said, tokenizer, rate=config.slip_rate, seed=config.seed))
    said, slips = (
        with_recall(samples, tokenizer, share=share / 3, seed=config.seed + 1)
        for samples in (said, slips)
    )
    second = stage("demonstrations", load_model(first), said, config.sft_steps, config.lr / 2)
    third = stage("slips", load_model(second), slips, config.slip_steps, config.lr / 4)
    bundle = config.out / "bundled"
    save_checkpoint(load_model(third), bundle, torch.bfloat16)
    tokenizer.save(bundle / "tokenizer.json")
    policies = (f"bundled:{bundle}", f"bundled-calls:{bundle}")
    await generate(_generate(config, held_out, *policies, split="held_out", n=config.held_out))
    scored = scores(read_run(held_out))
    _write_card(config, bundle, passed, scored)
    return {
        "model": str(bundle),
        "demonstrations": len(passed),
        "scores": [asdict(each) for each in scored],
    }


def _generate(
    config: BundleConfig, out: Path, *policies: str, split: str, n: int
) -> GenerateConfig:
    return GenerateConfig.model_validate(
        {"out": out, "n": n, "policy": policies, "split": split, "seed": config.seed}
    )


def _tokenizer(
    config: BundleConfig, conversations: Sequence[Any], passed: Sequence[Trajectory]
) -> Tokenizer:
    """Learned once: a resumed run must go on with the same ids."""
    file = config.out / "tokenizer.json"
    if not file.exists():
        learned = learn_tokenizer(
            conversations, passed, vocab_size=config.vocab_size, seed=config.seed
        )
        partial = file.with_suffix(".partial")
        learned.save(partial)
        partial.replace(file)
    return Tokenizer.load(file)


def _untrained(config: BundleConfig, tokenizer: Tokenizer) -> Model:
    """Small enough for two CPU cores; every part of M2's architecture is in it.

    The head starts as a copy of the embedding, so that to copy a token is easy from the start.
    """
    torch.manual_seed(config.seed)
    shape = ModelConfig(
        vocab_size=config.vocab_size,
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        rotary_dim=16,
        rope_theta=10_000.0,
        intermediate_size=96,
        num_local_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    model = Model(shape)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
    return model


def _demonstrations(config: BundleConfig, demos: Path) -> list[Row]:
    """What passed, and its copies under other names."""
    rows = [row for row in read_rows(demos) if row["outcome"] == "pass"]
    return [*rows, *renamed_copies(rows, each=config.renamed_copies, seed=config.seed)]


def _stage(
    config: BundleConfig,
    tokenizer: Tokenizer,
    name: str,
    model: Model,
    samples: Sequence[Sample],
    steps: int,
    lr: float,
) -> Path:
    settings = TrainConfig(
        steps=steps,
        batch_tokens=config.batch_tokens,
        max_sample_tokens=config.max_sample_tokens,
        lr=lr,
        warmup_steps=min(40, steps),
        router_bias_speed=1e-2,
        dtype=config.dtype,
        seed=config.seed,
        checkpoint_every=100,
    )

    def tell(metrics: StepMetrics) -> None:
        progress.current().reach(name, metrics.step, f"loss {metrics.loss:.3f}")

    progress.current().begin(name, steps)
    return train(settings, model, tokenizer, samples, config.out / name, progress=tell)


def _write_card(
    config: BundleConfig,
    folder: Path,
    passed: Sequence[Trajectory],
    scored: Sequence[Score],
) -> None:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    model = load_model(folder)
    sources = {row.provenance.source: row.provenance.licence for row in passed}
    text = templates.get_template(CARD).render(
        version=__version__,
        config=config,
        model=model.config,
        parameters=sum(param.numel() for param in model.parameters()),
        demonstrations=len(passed),
        sources=sorted(sources.items()),
        scores=scored,
    )
    (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
