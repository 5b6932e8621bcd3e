"""Who runs, on which pages, and what each feeds in a step.

Decoding sequences feed one token each; what is left of the step's budget goes to prompts, in
pieces. When pages run out, unused cached ones go first, then the youngest sequence waits again.
"""

from __future__ import annotations

from collections.abc import Sequence

from .decoder import Span
from .pages import PAGE, Pages
from .queue import FairQueue
from .radix import Match, RadixTree
from .sequence import Running
from .spill import LowerLevels

Plan = list[tuple[Running, Span]]
"""What running sequences feed."""


class Scheduler:
    """Owns the pages, the radix tree, the queue and the running sequences."""

    def __init__(
        self, pages: Pages, *, slots: int, step_tokens: int, lower: LowerLevels | None = None
    ) -> None:
        """`lower` = where evicted pages go and come back from; None = they are lost."""
        self.pages = pages
        self.tree = RadixTree(pages, on_evict=lower.keep if lower else None)
        self._lower = lower
        self.waiting = FairQueue()
        self.running: list[Running] = []  # oldest first
        self.epoch = 0
        """Counts the weights; keys of other weights never enter the tree."""
        self.preempted = 0
        """How often a sequence lost its pages and waits again."""
        self._slots = slots
        self._step_tokens = step_tokens

    def admit(self) -> None:
        """Start waiting sequences while there are places and pages for their prompts.

        A prompt that a running one is about to compute waits for it, and others pass: a group
        computes its prompt once. One that lacks pages is passed by none: what becomes free is its.
        """
        self.waiting.drop_cancelled()
        while len(self.running) < self._slots and self._start_next():
            pass

    def plan(self) -> Plan:
        """What each running sequence feeds; its pages have room for it."""
        budget = self._step_tokens
        spare = max(0, budget - len(self.running))  # guesses take no decoding sequence's turn
        chosen = []
        for sequence in sorted(self.running, key=lambda each: each.pending > 1):  # stable
            tokens = min(sequence.pending, budget)
            if tokens > 0 and sequence in self.running and self._make_room(sequence, tokens):
                if sequence.drafts:
                    del sequence.drafts[min(spare, self._room_for_guesses(sequence, tokens)) :]
                    spare -= len(sequence.drafts)
                budget -= tokens + len(sequence.drafts)
                chosen.append((sequence, tokens))
        return [
            (sequence, _span(sequence, tokens))
            for sequence, tokens in chosen
            if sequence in self.running  # not preempted by a later one
        ]

    def fed(self, sequence: Running, tokens: int) -> None:
        """The keys of that many further tokens are there; others may use full pages of a prompt."""
        before, sequence.held = sequence.held, sequence.held + tokens
        prompt = len(sequence.request.prompt_ids)
        if before < prompt:
            known = min(sequence.held, prompt)
            self._remember(sequence, known if known == prompt else known // PAGE * PAGE)

    def stop(self, sequence: Running, *, keep: bool) -> None:
        """End a sequence; `keep` = later prompts may go on from its keys."""
        self.running.remove(sequence)
        if keep:
            self._remember(sequence, sequence.held)
        self._vacate(sequence)

    def forget(self) -> None:
        """The weights changed: nothing cached serves new prompts."""
        self.epoch += 1
        self.tree.clear()
        for sequence in self.running:
            if sequence.held:
                sequence.epoch = -1

    def restart(self) -> None:
        """Make the running sequences compute their keys again."""
        for sequence in self.running:
            self._vacate(sequence)
            sequence.epoch = self.epoch

    def _start_next(self) -> bool:
        for sequence in self.waiting.in_turn():
            ids = sequence.reusable  # the last one's logits are needed
            if self._lower is not None:
                self._lower.bring_back(ids, self.tree, self.pages)
            match = self.tree.match(ids)
            if not self._is_being_computed(ids, match.tokens):
                return self._start(sequence, match)
        return False

    def _start(self, sequence: Running, match: Match) -> bool:
        ids = sequence.token_ids
        for page in match.pages:
            self.pages.hold(page)
        sequence.pages = list(match.pages)
        sequence.held = len(match.pages) * PAGE
        missing = -(-len(ids) // PAGE) - len(match.pages)
        if match.partial is not None:
            self._copy_partial(sequence, *match.partial, missing)
            missing = -(-len(ids) // PAGE) - len(sequence.pages)
        self.tree.evict(missing - self.pages.free)
        if missing > self.pages.free:
            self._vacate(sequence)
            return False
        sequence.pages += [self.pages.take() for _ in range(missing)]
        if sequence.cached is None:
            sequence.cached = sequence.held
        sequence.epoch = self.epoch
        self.waiting.take(sequence)
        self.running.append(sequence)
        return True

    def _copy_partial(self, sequence: Running, source: int, tokens: int, missing: int) -> None:
        """Take over the start of a page, if there is room beside it for all that is missing."""
        self.pages.hold(source)  # must not be evicted before it is copied
        self.tree.evict(missing - self.pages.free)
        if missing <= self.pages.free:
            page = self.pages.take()
            self.pages.copy_start(source, page, tokens)
            sequence.pages.append(page)
            sequence.held += tokens
        self.pages.release([source])

    def _is_being_computed(self, ids: Sequence[int], known: int) -> bool:
        """Whether a running prompt will soon hold more of `ids` than is known now, by a page or
        by all that can be shared."""
        end = min(known + PAGE, len(ids))
        return end > known and any(
            sequence.held < end <= len(sequence.request.prompt_ids)
            and sequence.epoch == self.epoch
            and sequence.token_ids[:end] == ids[:end]
            for sequence in self.running
        )

    def _make_room(self, sequence: Running, tokens: int) -> bool:
        """Give a sequence pages for its next tokens; False = it was put back into the queue."""
        missing = -(-(sequence.held + tokens) // PAGE) - len(sequence.pages)
        if missing <= 0:
            return True
        self.tree.evict(missing - self.pages.free)
        while missing > self.pages.free:
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
            self.tree.evict(missing - self.pages.free)
        sequence.pages += [self.pages.take() for _ in range(missing)]
        return True

    def _room_for_guesses(self, sequence: Running, tokens: int) -> int:
        """How many of its guesses fit behind its next tokens; nobody gives up pages for them."""
        end = sequence.held + tokens
        missing = -(-(end + len(sequence.drafts)) // PAGE) - len(sequence.pages)
        self.tree.evict(missing - self.pages.free)
        taken = max(0, min(missing, self.pages.free))
        sequence.pages += [self.pages.take() for _ in range(taken)]
        return min(len(sequence.drafts), len(sequence.pages) * PAGE - end)

    def _preempt(self, sequence: Running) -> None:
        self.preempted += 1
        self.stop(sequence, keep=True)  # what nobody else needs meanwhile is found again
        self.waiting.give_back(sequence)

    def _remember(self, sequence: Running, tokens: int) -> None:
        if sequence.epoch == self.epoch:
            self.tree.insert(sequence.token_ids[:tokens], sequence.pages)

    def _vacate(self, sequence: Running) -> None:
        self.pages.release(sequence.pages)
        sequence.pages, sequence.held = [], 0
        sequence.drafts, sequence.trail = [], None


def _span(sequence: Running, tokens: int) -> Span:
    held = sequence.held
    return Span(
        pages=sequence.pages,
        start=held,
        tokens=[*sequence.token_ids[held : held + tokens], *sequence.drafts],
        wanted=1 + len(sequence.drafts) if tokens == sequence.pending else 0,
        scored=sequence.is_scored,
    )
