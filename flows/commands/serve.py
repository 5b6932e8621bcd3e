"""`rollmill serve`: a checkpoint as an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import WorkFailed

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from ...model.engine import Engine, SpillSettings
    from ...model.model import Model
    from ...model.mtp import MtpModules
    from ...model.tokenizer import Tokenizer

Context = Annotated[
    int | None,
    typer.Option(min=16, help="Most tokens of prompt and answer. [as many as the model has]"),
]
CacheTokens = Annotated[
    int | None,
    typer.Option(min=16, help="Tokens with keys in memory, cache included. [a context a slot]"),
]
MaxWaiting = Annotated[int, typer.Option(min=0, help="More waiting requests get status 429.")]
DrainS = Annotated[
    int, typer.Option(min=0, help="How long running answers may take after a stop signal.")
]
SpillRamMb = Annotated[
    int, typer.Option(min=0, help="Memory for such keys, before the folder, in MiB.")
]


def serve(
    model: Annotated[
        str, typer.Argument(help="bundled, or a checkpoint folder with its tokenizer.json.")
    ] = "bundled",
    host: Annotated[str, typer.Option(help="Address to listen at; there are no passwords.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 = any free one; it is printed.")] = 8000,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    slots: Annotated[int, typer.Option(min=1, help="Sequences that run at once.")] = 16,
    context: Context = None,
    cache_tokens: CacheTokens = None,
    max_waiting: MaxWaiting = 256,
    drain_s: DrainS = 60,
    deterministic: Annotated[
        bool, typer.Option(help="Same request and seed, same bits, whatever runs beside it.")
    ] = False,
    guess: Annotated[
        bool, typer.Option(help="Guess ahead with the checkpoint's MTP modules: same tokens.")
    ] = False,
    spill: Annotated[Path | None, typer.Option(help="Folder for keys of evicted prompts.")] = None,
    spill_mb: Annotated[int, typer.Option(min=1, help="Bound of that folder, in MiB.")] = 1024,
    spill_ram_mb: SpillRamMb = 0,
) -> None:
    """Serve a checkpoint: chat completions, completions, /health, /metrics. Ctrl-C drains.

    Examples:

    `rollmill serve`

    `rollmill serve RUN-sft/checkpoint --port 0 --dtype bfloat16`
    """
    from importlib import resources

    from ... import model as package
    from ...model.digest import weights_digest
    from ...model.engine import AsyncEngine
    from ...model.server import ServerSettings, build_app

    folder = Path(str(resources.files(package) / "bundled")) if model == "bundled" else Path(model)
    weights, mtp, tokenizer = _load(folder, dtype, guess)
    engine = _engine(
        weights,
        mtp=mtp,
        slots=slots,
        context=context,
        cache_tokens=cache_tokens,
        max_waiting=max_waiting + slots,
        deterministic=deterministic,
        spill=_spill(spill, spill_mb * 2**20, spill_ram_mb * 2**20),
    )
    settings = ServerSettings(
        name=model,
        fingerprint=weights_digest(folder),
        context=engine.context,
        vocab_size=weights.config.vocab_size,
    )
    with AsyncEngine(engine) as front:
        app = build_app(front, tokenizer, settings)
        _run(app, host, port, drain_s)


def _load(folder: Path, dtype: str, guess: bool) -> tuple[Model, MtpModules | None, Tokenizer]:
    import torch

    from ...model.checkpoint import CheckpointError, load_model, load_mtp
    from ...model.tokenizer import Tokenizer

    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in types:
        raise typer.BadParameter(f"expected one of {', '.join(types)} for --dtype, got {dtype}")
    try:
        model, tokenizer = load_model(folder, types[dtype]), Tokenizer.load(folder)
        mtp = load_mtp(folder, types[dtype]) if guess else None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot serve {folder}: {error}") from error
    if guess and mtp is None:
        raise CheckpointError(
            f"expected MTP modules (mtp.safetensors) in {folder} for --guess, found none; leave "
            "--guess out or train some"
        )
    return model, mtp, tokenizer


def _engine(model: Model, *, context: int | None, **settings: Any) -> Engine:
    from ...model.engine import Engine

    longest = model.config.max_position_embeddings
    if context is not None and context > longest:
        raise typer.BadParameter(
            f"expected at most {longest} for --context, as the model was made for, got {context}"
        )
    try:
        return Engine(model, context=context, **settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _spill(folder: Path | None, disk_bytes: int, ram_bytes: int) -> SpillSettings | None:
    from ...model.engine import SpillSettings

    if folder is None and not ram_bytes:
        return None
    return SpillSettings(ram_bytes=ram_bytes, folder=folder, disk_bytes=disk_bytes if folder else 0)


def _run(app: FastAPI, host: str, port: int, drain_s: int) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="info",
        access_log=False,
        timeout_graceful_shutdown=drain_s,
    )
    server = uvicorn.Server(config)
    with _stopped_by_signals(server):
        asyncio.run(server.serve())
    if not server.started:
        raise WorkFailed(f"could not listen at {host}:{port}; choose another --port")


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """A signal drains the server, a second one stops it at once; neither kills the process.

    uvicorn would raise the signal again after draining, and so end as if it had failed.
    """
    before = {
        each: signal.signal(each, server.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)
    }
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
