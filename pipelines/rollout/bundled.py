"""The policy `bundled`: a checkpoint run in this process, with its exact tokens and logprobs.

Made for small models; it holds one engine on one device and serves no other process.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ... import model
from ...model.chat import parse_completion, render
from ...model.checkpoint import load_model
from ...model.digest import weights_digest
from ...model.engine import AsyncEngine, Engine, EngineError, GenRequest, PromptTooLong
from ...model.grammar import CallGrammar
from ...model.tokenizer import Tokenizer
from .policy import Completion, ContextOverflow, PolicyError, TurnRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    """A checkpoint ready to answer."""

    engine: AsyncEngine
    tokenizer: Tokenizer
    vocab_size: int
    """Of the model."""
    version: str
    """First 16 hex digits of the SHA-256 of the weights."""


class BundledPolicy:
    """A checkpoint folder as a policy; it is loaded when first used.

    Args:
        folder: None = the checkpoint that ships with the package.
        only_calls: every reply to which tools are offered is a well-formed call of them, unless its
            token limit cuts it. The logprobs stay those of the free model.
    """

    deterministic = False  # the order of sums depends on what else is in the batch

    def __init__(self, folder: Path | None = None, *, only_calls: bool = False) -> None:
        kind = "bundled-calls" if only_calls else "bundled"
        self.name = kind if folder is None else f"{kind}:{folder}"
        self._only_calls = only_calls
        self.tokenizer = ""  # until it is loaded
        self._folder = folder or Path(str(resources.files(model) / "bundled"))
        self._loaded: _Loaded | None = None
        self._loading = asyncio.Lock()

    async def check(self) -> None:
        """Load the checkpoint."""
        await self._ready()

    async def complete(self, request: TurnRequest) -> Completion:
        """Sample one reply; the history's own tokens are used as they were sampled."""
        loaded, sampling = await self._ready(), request.sampling
        prompt = tuple(
            render(request.messages, request.tools, loaded.tokenizer, add_generation_prompt=True)
        )
        try:
            result = await loaded.engine.complete(
                GenRequest(
                    prompt_ids=prompt,
                    max_tokens=sampling.max_tokens,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=sampling.top_k,
                    seed=sampling.seed,
                    stop_ids=frozenset({loaded.tokenizer.eos_id}),
                    mask=self._mask(request, loaded),
                )
            )
        except PromptTooLong as error:
            raise ContextOverflow(str(error)) from error
        except EngineError as error:
            raise PolicyError(f"the model in {self._folder} gave no answer: {error}") from error
        message, problem = parse_completion(result.token_ids, request.tools, loaded.tokenizer)
        return Completion(
            message=message,
            prompt_ids=prompt,
            completion_ids=result.token_ids,
            logprobs=result.logprobs,
            finish_reason=result.finish_reason,
            format_error=problem,
            version=loaded.version,
        )

    def _mask(self, request: TurnRequest, loaded: _Loaded) -> CallGrammar | None:
        if not self._only_calls or not request.tools:
            return None
        return CallGrammar(request.tools, loaded.tokenizer, loaded.vocab_size, required=True)

    async def close(self) -> None:
        """End the engine and free the weights."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            await asyncio.to_thread(loaded.engine.close)

    async def _ready(self) -> _Loaded:
        async with self._loading:
            if self._loaded is None:
                self._loaded = await asyncio.to_thread(_load, self._folder)
                self.tokenizer = self._loaded.tokenizer.fingerprint
            return self._loaded


def _load(folder: Path) -> _Loaded:
    try:
        tokenizer = Tokenizer.load(folder)
        weights = load_model(folder)
        version = weights_digest(folder)
    except (OSError, ValueError) as error:
        raise PolicyError(
            f"expected a checkpoint (config.json, model.safetensors, tokenizer.json) in {folder}: "
            f"{error}; train one with `rollmill train sft` or name another folder"
        ) from error
    return _Loaded(
        engine=AsyncEngine(Engine(weights)),
        tokenizer=tokenizer,
        vocab_size=weights.config.vocab_size,
        version=version,
    )
