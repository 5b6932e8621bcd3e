"""`rollmill train`: a checkpoint from runs and datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .running import ConfigFile, Json, run_flow, show

if TYPE_CHECKING:
    from ..config import SftConfig

app = typer.Typer(help="Train the bundled policy.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Train the bundled policy."""


Data = Annotated[
    list[str] | None, typer.Argument(help="Runs and exported datasets; * stands for any name.")
]
Out = Annotated[Path | None, typer.Option(help="Training directory; give it again to resume.")]
Init = Annotated[
    str | None, typer.Option(help="bundled, scratch or a checkpoint folder. [bundled]")
]
MicroBatches = Annotated[int | None, typer.Option(help="Batches a step, in the memory of one. [1]")]
MaxSampleTokens = Annotated[int | None, typer.Option(help="Longer samples lose their end. [4096]")]
Fp32Head = Annotated[
    bool | None, typer.Option(help="Keep the output head in fp32 beside bf16. [no]")
]
CheckpointActivations = Annotated[
    bool | None, typer.Option(help="Less memory, more time, the same result. [no]")
]
MtpModules = Annotated[
    int | None, typer.Option(help="Modules that guess ahead, trained along: 0 to 3. [0]")
]
MtpOnlySteps = Annotated[int | None, typer.Option(help="First steps for new modules alone. [0]")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 and so on. [a GPU if there is one]")
]
Ranks = Annotated[int | None, typer.Option(help="Processes that share the work, on the CPU. [1]")]


@app.command()
def sft(
    data: Data = None,
    out: Out = None,
    init: Init = None,
    steps: Annotated[int | None, typer.Option(help="[200]")] = None,
    batch_tokens: Annotated[int | None, typer.Option(help="[8192]")] = None,
    micro_batches: MicroBatches = None,
    max_sample_tokens: MaxSampleTokens = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. [3e-4]")] = None,
    warmup_steps: Annotated[int | None, typer.Option(help="[10, or all of fewer steps]")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16. [float32]")] = None,
    fp32_head: Fp32Head = None,
    checkpoint_activations: CheckpointActivations = None,
    mtp_modules: MtpModules = None,
    mtp_only_steps: MtpOnlySteps = None,
    device: Device = None,
    keep: Annotated[str | None, typer.Option(help="passed or scored episodes. [passed]")] = None,
    seed: Annotated[int | None, typer.Option(help="[0]")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps. [100]")] = None,
    ranks: Ranks = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Supervised fine-tuning on the episodes that passed.

    Examples:

    `rollmill train sft runs/demo --steps 100 --out runs/demo-sft`

    `rollmill train sft 'runs/nightly/*' --init scratch --lr 3e-3 --out runs/from-scratch`
    """
    settings = sft_config(
        config=config,
        data=data,
        out=out,
        init=init,
        steps=steps,
        batch_tokens=batch_tokens,
        micro_batches=micro_batches,
        max_sample_tokens=max_sample_tokens,
        lr=lr,
        warmup_steps=warmup_steps,
        dtype=dtype,
        fp32_head=fp32_head,
        checkpoint_activations=checkpoint_activations,
        mtp_modules=mtp_modules,
        mtp_only_steps=mtp_only_steps,
        device=device,
        keep=keep,
        seed=seed,
        checkpoint_every=checkpoint_every,
        ranks=ranks,
    )
    from ..checks import check_sft

    check_sft(settings)
    result = run_flow(_flow, settings, quiet=json)
    show(result, as_json=json, text=_summary(result))


@app.command()
def bundled(
    out: Annotated[
        Path | None, typer.Option(help="Folder of all stages; the same to resume.")
    ] = None,
    demos: Annotated[int | None, typer.Option(help="Tasks to learn from. [300]")] = None,
    held_out: Annotated[int | None, typer.Option(help="Tasks to be scored on. [40]")] = None,
    pretraining_steps: Annotated[int | None, typer.Option(help="[3600]")] = None,
    sft_steps: Annotated[int | None, typer.Option(help="[6000]")] = None,
    slip_steps: Annotated[int | None, typer.Option(help="[1500]")] = None,
    seed: Annotated[int | None, typer.Option(help="[0]")] = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Make the bundled policy from nothing: the recipe behind its model card.

    Examples:

    `rollmill train bundled --out runs/bundled`

    `rollmill train bundled --demos 20 --held-out 4 --sft-steps 5 --out runs/try`
    """
    from ..config import BundleConfig, load_config

    flags = {
        "out": out,
        "demos": demos,
        "held_out": held_out,
        "pretraining_steps": pretraining_steps,
        "sft_steps": sft_steps,
        "slip_steps": slip_steps,
        "seed": seed,
    }
    settings = load_config(BundleConfig, flags, config)
    result = run_flow(_recipe, settings, quiet=json)
    show(result, as_json=json, text=f"checkpoint and model card: {result['model']}")


def _recipe() -> Any:
    from ..bundle import train_bundled

    return train_bundled


def sft_config(config: Path | None, **flags: Any) -> SftConfig:
    """The configuration that flags and file give.

    Raises:
        ConfigError: a value cannot be used.
    """
    from ..config import SftConfig, load_config

    return load_config(SftConfig, flags, config)


def _flow() -> Any:
    from ..train import train_sft

    return train_sft


def _summary(result: dict[str, Any]) -> str:
    model = result["model"]
    return (
        f"{result['samples']} samples, {result['steps']} steps, "
        f"loss {result['first_loss']:.3f} -> {result['last_loss']:.3f}\n"
        f"checkpoint: {model}; next:\n"
        f"  rollmill generate --policy bundled:{model} --split held_out --out runs/held-out"
    )
