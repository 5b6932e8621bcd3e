"""Requests that wait for a place. Clients take turns: no crowd holds up the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from .sequence import Running


class FairQueue:
    """First come first served within a client; between clients, who was served least goes first.

    A client's service is the tokens of its admitted prompts and those that were made for it; what a
    request might have used counts for nothing. One that comes anew starts level with the least
    served of those that wait, or with the last whose turn it was: silence earns no credit.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Running]] = {}
        self._served: dict[str, int] = {}
        self._returned: deque[Running] = deque()
        self._level = 0  # how much the client whose turn it was last had been served then

    def __len__(self) -> int:
        return len(self._returned) + sum(map(len, self._waiting.values()))

    def put(self, sequence: Running) -> None:
        """Add a request at the end of its client's line."""
        client = sequence.request.client
        if client not in self._waiting:
            level = min((self._served[each] for each in self._waiting), default=self._level)
            self._served[client] = max(self._served.get(client, 0), level)
            self._waiting[client] = deque()
        self._waiting[client].append(sequence)

    def give_back(self, sequence: Running) -> None:
        """Put a request that was admitted once before all others."""
        self._returned.appendleft(sequence)

    def in_turn(self) -> Iterator[Running]:
        """What may be admitted next, best first: the returned ones, then each client's first.

        The requests stay in the queue; `take` one that was admitted.
        """
        yield from list(self._returned)
        for client in sorted(self._waiting, key=lambda each: self._served[each]):
            yield self._waiting[client][0]

    def take(self, sequence: Running) -> None:
        """Remove a request and charge its client for the prompt."""
        if sequence in self._returned:
            self._returned.remove(sequence)
            return
        request = sequence.request
        self._level = max(self._level, self._served[request.client])
        self._drop(sequence)
        self.charge(request.client, len(request.prompt_ids))
        if not self._waiting and len(self._served) > 1024:
            self._served.clear()  # nobody waits, so nobody's past matters

    def charge(self, client: str, tokens: int) -> None:
        """Count what a client was served."""
        self._served[client] = self._served.get(client, 0) + tokens

    def drop_cancelled(self) -> None:
        """Forget requests whose futures were cancelled."""
        for sequence in [each for each in self if each.future.cancelled()]:
            if sequence in self._returned:
                self._returned.remove(sequence)
            else:
                self._drop(sequence)

    def __iter__(self) -> Iterator[Running]:
        yield from self._returned
        for line in self._waiting.values():
            yield from line

    def _drop(self, sequence: Running) -> None:
        line = self._waiting[sequence.request.client]
        line.remove(sequence)
        if not line:
            del self._waiting[sequence.request.client]
