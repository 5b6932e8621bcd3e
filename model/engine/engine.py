"""The engine's loop: admit, feed, sample, finish. One thread steps it; `submit` may come from any.

No text: token ids in and out.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

import torch

from ..model import Model
from ..mtp import MtpModules
from .decoder import Decoder, OneByOne, TorchDecoder
from .drafter import Drafter
from .native import FEW_TOKENS, NativeDecoder
from .pages import PAGE, Pages
from .request import (
    EngineError,
    FinishReason,
    GenRequest,
    GenResult,
    PromptTooLong,
    QueueFull,
    Token,
)
from .sampling import Place, draw
from .scheduler import Plan, Scheduler
from .scoring import SCORED_ROWS, score_prompts, with_states
from .sequence import Running
from .spill import LowerLevels, PageStore, SpillSettings
from .stats import EngineStats
from .swaps import Swap, Swaps


class Engine:
    """Runs requests step by step in the calling thread."""

    def __init__(
        self,
        model: Model,
        *,
        mtp: MtpModules | None = None,
        slots: int = 16,
        context: int | None = None,
        step_tokens: int = 2048,
        cache_tokens: int | None = None,
        max_waiting: int | None = None,
        deterministic: bool = False,
        record_routes: bool = False,
        native: bool = True,
        spill: SpillSettings | None = None,
    ) -> None:
        """Take a model in the type it is to compute in.

        Args:
            mtp: modules that guess the next tokens, in the type of the model. Requests get the
                same tokens with and without, sooner or later. None = one token a step.
            slots: how many sequences run at once.
            context: most tokens of a sequence; None = as many as the model was made for.
            step_tokens: most tokens of a step, so that prompts do not stall the others.
            cache_tokens: for how many tokens there are keys and values, prefix cache included;
                None = `slots` full contexts. Memory is taken from the machine as it fills.
            max_waiting: how many requests may wait; None = no limit.
            deterministic: the same request gives the same bits whatever runs beside it and
                whatever the cache held. Prompts are slower.
            record_routes: keep the experts of every token, for requests that ask.
            native: use the compiled decoder where it can be had.
            spill: where pages go that the cache has no room for; None = they are lost.

        Raises:
            ValueError: sizes make no sense.
        """
        self.model = model.eval()
        longest = model.config.max_position_embeddings
        self.context = longest if context is None else context
        tokens = slots * (self.context + PAGE) if cache_tokens is None else cache_tokens
        _check_sizes(self.context, slots, step_tokens, tokens, max_waiting)
        self.context = min(self.context, tokens // PAGE * PAGE)
        pages = Pages.of(model, tokens // PAGE, with_routes=record_routes, mtp=mtp)
        self._deterministic = deterministic
        self._torch: Decoder = TorchDecoder(self.model, pages)
        self._native = NativeDecoder.build(self.model, pages, self.context) if native else None
        self._drafter: Drafter | None = None
        if mtp is not None:
            self._drafter = Drafter(self.model, mtp, pages, context=self.context, native=native)
        self._max_waiting = max_waiting
        weights = self.model.state_dict() | (mtp.state_dict() if mtp else {})
        self._swaps = Swaps(weights)
        origin = [repr(model.config), pages.layout, self._precision()]
        self._lower = LowerLevels(PageStore(spill, pages), weights, origin) if spill else None
        self._scheduler = Scheduler(pages, slots=slots, step_tokens=step_tokens, lower=self._lower)
        self._lock = threading.Lock()  # of the queue's entrance
        self._arrived: list[Running] = []
        self._version = 0
        self._steps = self._prompt = self._cached = self._made = self._drafted = self._accepted = 0

    @property
    def version(self) -> int:
        """Of the weights; 0 = those that the engine was made with."""
        return self._version

    @property
    def busy(self) -> bool:
        """Whether a step has something to do."""
        scheduler = self._scheduler
        return bool(self._arrived or scheduler.waiting or scheduler.running or self._swaps.waiting)

    @property
    def stats(self) -> EngineStats:
        """Counts, exact between steps."""
        scheduler = self._scheduler
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + len(self._arrived),
            pages=scheduler.pages.count,
            pages_used=scheduler.pages.count - scheduler.pages.free,
            prompt_tokens=self._prompt,
            cached_tokens=self._cached,
            completion_tokens=self._made,
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
            kept_pages=self._lower.store.kept if self._lower else 0,
            recalled_pages=self._lower.store.recalled if self._lower else 0,
            damaged_pages=self._lower.store.damaged if self._lower else 0,
            preemptions=scheduler.preempted,
            steps=self._steps,
            version=self._version,
        )

    def generate(self, requests: Sequence[GenRequest]) -> list[GenResult]:
        """Complete all requests, in order.

        Raises:
            EngineError: one of them cannot be answered; the others are given up.
        """
        futures = [self.submit(request) for request in requests]
        try:
            while not all(future.done() for future in futures):
                self.step()
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def submit(
        self, request: GenRequest, on_token: Callable[[Token], None] | None = None
    ) -> Future[GenResult]:
        """Queue a request. Its future may be cancelled at any time.

        Args:
            on_token: called in the stepping thread with each token as it is made, those of a
                prompt with `prompt_logprobs` first; must not raise.

        The future raises:
            PromptTooLong: the context has no room for an answer.
            QueueFull: `max_waiting` requests wait already.
            EngineError: a token id is unknown, the mask failed, or the model gave something that
                is no number.
        """
        future: Future[GenResult] = Future()
        sequence = Running(
            request=request,
            future=future,
            on_token=on_token,
            rng=random.Random(request.seed),
            token_ids=list(request.prompt_ids),
        )
        if error := self._refusal(request):
            future.set_exception(error)
            return future
        with self._lock:
            waiting = len(self._arrived) + len(self._scheduler.waiting)
            if self._max_waiting is not None and waiting >= self._max_waiting:
                future.set_exception(
                    QueueFull(f"{waiting} requests wait already; try again when some are done")
                )
            else:
                self._arrived.append(sequence)
        return future

    def swap_weights(
        self, weights: Mapping[str, torch.Tensor], version: int, *, recompute: bool = False
    ) -> Future[None]:
        """Take other weights before the next step; tokens made from then on carry `version`.

        Args:
            weights: as `Model.state_dict()` names them, and `MtpModules.state_dict()`; all or some.
            recompute: whether running sequences compute their keys anew. Otherwise they go on
                with the old ones, and later prompts never reuse those.

        The future raises:
            EngineError: a tensor is unknown, misshapen or not finite, or other weights were asked
                for before these were taken; nothing was changed.
        """
        future: Future[None] = Future()
        self._swaps.ask(Swap(weights=weights, version=version, recompute=recompute, future=future))
        return future

    @torch.inference_mode()
    def step(self) -> None:
        """Feed every running sequence once; finished ones resolve their futures."""
        scheduler = self._scheduler
        self._take_weights()
        with self._lock:
            for sequence in self._arrived:
                scheduler.waiting.put(sequence)
            self._arrived.clear()
        for sequence in [each for each in scheduler.running if each.future.cancelled()]:
            scheduler.stop(sequence, keep=True)
        self._admit()
        if self._drafter is not None:
            self._drafter.propose(scheduler.running)
        if not (planned := scheduler.plan()):
            return
        self._steps += 1
        started = time.perf_counter()
        fed = [
            (part, decoder([span for _, span in part])) for decoder, part in self._split(planned)
        ]
        tokens = sum(len(span.tokens) for _, span in planned)
        if self._lower is not None and tokens > 2 * PAGE:  # few tokens say nothing about prompts
            self._lower.store.costs.computed(tokens, time.perf_counter() - started)
        for part, _ in fed:
            for sequence, span in part:
                scheduler.fed(sequence, span.certain)
        for part, (logits, states) in fed:
            if any(span.scored for _, span in part):
                at_once = 1 if self._deterministic else SCORED_ROWS
                score_prompts(part, states, self.model.head, self._version, at_once=at_once)
            kept = self._extend([sequence for sequence, span in part if span.wanted], logits)
            if self._drafter is not None:
                for sequence, span, mine in with_states(part, states):
                    right = span.certain + kept.get(id(sequence), 0)
                    self._drafter.follow(sequence, span.start, mine[:right])

    def fail_all(self, error: BaseException) -> None:
        """Give `error` to every request and start anew with an empty cache."""
        scheduler = self._scheduler
        with self._lock:
            arrived, self._arrived = self._arrived, []
        for sequence in [*arrived, *scheduler.waiting]:
            sequence.settle(error)
            sequence.future.cancel()
        for sequence in list(scheduler.running):
            scheduler.stop(sequence, keep=False)
            sequence.settle(error)
        for sequence in list(scheduler.waiting):
            scheduler.waiting.take(sequence)
        scheduler.tree.clear()

    def give_up(self, error: EngineError) -> None:
        """Nobody will step again: `fail_all`, and weights that wait get `error` too."""
        self.fail_all(error)
        self._swaps.give_up(error)

    def _admit(self) -> None:
        scheduler = self._scheduler
        before = set(map(id, scheduler.running))
        scheduler.admit()
        for sequence in scheduler.running:
            if id(sequence) not in before and not sequence.tokens:
                self._prompt += len(sequence.request.prompt_ids)
                self._cached += sequence.cached or 0

    def _precision(self) -> str:
        """Pages of different names may differ in their last bits."""
        if not self._deterministic:
            return "of any decoder"
        return self._native.code if self._native else f"of PyTorch {torch.__version__}"

    def _split(self, planned: Plan) -> list[tuple[Decoder, Plan]]:
        """Which decoder feeds what."""
        if self._native is None:
            if not self._deterministic:
                return [(self._torch, planned)]
            return [(OneByOne(self._torch), planned)]
        if self._deterministic or sum(len(span.tokens) for _, span in planned) <= FEW_TOKENS:
            return [(self._native, planned)]
        longest = 1 + (self._drafter.depth if self._drafter else 0)
        single = [each for each in planned if len(each[1].tokens) <= longest]
        several = [each for each in planned if len(each[1].tokens) > longest]
        parts: list[tuple[Decoder, Plan]] = [(self._native, single), (self._torch, several)]
        return [each for each in parts if each[1]]

    def _take_weights(self) -> None:
        if (swap := self._swaps.take()) is None:
            return
        self._version = swap.version
        self._scheduler.forget()
        if self._lower is not None:
            self._lower.renew()
        if swap.recompute:
            self._scheduler.restart()
        swap.future.set_result(None)

    def _refusal(self, request: GenRequest) -> EngineError | None:
        prompt, vocab = request.prompt_ids, self.model.config.vocab_size
        if len(prompt) >= self.context:
            return PromptTooLong(
                f"expected a prompt of fewer than {self.context} tokens, got {len(prompt)}; "
                "shorten the conversation"
            )
        if not 0 <= min(prompt) <= max(prompt) < vocab:
            return EngineError(
                f"expected token ids below {vocab}, got {min(prompt)} to {max(prompt)}; "
                "check that the tokenizer belongs to the model"
            )
        biased = request.logit_bias
        if biased and not 0 <= min(biased) <= max(biased) < vocab:
            return EngineError(
                f"expected token ids below {vocab} in logit_bias, got {min(biased)} to "
                f"{max(biased)}"
            )
        if request.routes and self._scheduler.pages.routes is None:
            return EngineError(
                "expected an engine that records routes, got one that does not; make it with "
                "record_routes=True"
            )
        return None

    def _extend(self, sequences: list[Running], logits: torch.Tensor) -> dict[int, int]:
        """Sample each sequence's next tokens, as many as it guessed right and one; finish what is
        done. Gives how many guesses each had right, by `id`."""
        places = [
            Place(sequence=sequence, guesses=sequence.drafts[:at])
            for sequence in sequences
            for at in range(len(sequence.drafts) + 1)
        ]
        outcomes = iter(draw(places, logits, self._version) if places else ())
        right = {}
        for sequence in sequences:
            mine = [next(outcomes) for _ in range(len(sequence.drafts) + 1)]
            right[id(sequence)] = self._take(sequence, mine)
        return right

    def _take(self, sequence: Running, outcomes: list[Token | EngineError]) -> int:
        """Give a sequence its tokens up to the first that it did not guess; how many it guessed."""
        self._drafted += len(sequence.drafts)
        for at, outcome in enumerate(outcomes):
            outcome = sequence.failure or outcome
            if isinstance(outcome, EngineError):
                self._scheduler.stop(sequence, keep=False)
                sequence.settle(outcome)
                return at
            self._made += 1
            self._scheduler.waiting.charge(sequence.request.client, 1)
            sequence.add(outcome)
            if reason := sequence.finish_reason(self.context):
                self._finish(sequence, reason)
                return at
            if at == len(sequence.drafts) or outcome.token_id != sequence.drafts[at]:
                return at
            self._accepted += 1
            self._scheduler.fed(sequence, 1)
        raise AssertionError("the last outcome is no guess")

    def _finish(self, sequence: Running, reason: FinishReason) -> None:
        asked = sequence.request
        result = GenResult(
            tokens=tuple(sequence.tokens),
            finish_reason=reason,
            cached_tokens=sequence.cached or 0,
            prompt_tokens=tuple(sequence.prompt_tokens) if asked.prompt_logprobs else None,
            routes=self._routes(sequence) if asked.routes else None,
        )
        self._scheduler.stop(sequence, keep=True)
        sequence.settle(result)

    def _routes(self, sequence: Running) -> torch.Tensor:
        routes = self._scheduler.pages.routes
        assert routes is not None
        return routes[sequence.pages].flatten(0, 1)[: sequence.held].cpu()


def _check_sizes(
    context: int, slots: int, step_tokens: int, cache_tokens: int, max_waiting: int | None
) -> None:
    if (
        min(context, slots) < 1
        or step_tokens < slots
        or cache_tokens < PAGE
        or (max_waiting is not None and max_waiting < 0)
    ):
        raise ValueError(
            "expected a context and at least one slot, a step token for each slot, a page of "
            f"{PAGE} tokens and no fewer than 0 that wait, got context={context}, slots={slots}, "
            f"step_tokens={step_tokens}, cache_tokens={cache_tokens}, max_waiting={max_waiting}"
        )
