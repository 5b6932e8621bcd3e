"""Which pages hold which tokens: a radix tree whose edges are pages.

A prompt finds the longest run of tokens that any earlier or running sequence had in common with
it. Full pages are shared; of the page where they part, the common start can be copied.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile

from .pages import PAGE, Pages


@dataclass(eq=False, slots=True)
class _Node:
    tokens: tuple[int, ...]  # PAGE of them, fewer only in a leaf
    page: int
    parent: _Node | None
    used: int = 0
    children: dict[tuple[int, ...], _Node] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """What the tree holds of a prompt."""

    pages: tuple[int, ...]
    """Full pages, in order."""
    partial: tuple[int, int] | None
    """A page and how many of its first tokens go on where `pages` end; None = no page does."""

    @property
    def tokens(self) -> int:
        """How many tokens of the prompt are known."""
        return len(self.pages) * PAGE + (self.partial[1] if self.partial else 0)


class RadixTree:
    """Holds each of its pages once; gives up the least recently used ones."""

    def __init__(
        self, pages: Pages, on_evict: Callable[[Sequence[int], int], None] | None = None
    ) -> None:
        """`on_evict` = told of each full page that is given up and of all tokens up to its end."""
        self._pages = pages
        self._on_evict = on_evict
        self._root = _Node((), -1, None)
        self._clock = count(1)

    def __len__(self) -> int:
        """How many pages the tree holds."""
        return sum(1 for _ in self._nodes())

    def match(self, tokens: Sequence[int]) -> Match:
        """The longest known start of `tokens`; what it names counts as just used."""
        now, node, pages = next(self._clock), self._root, []
        for start in range(0, len(tokens), PAGE):
            child = node.children.get(tuple(tokens[start : start + PAGE]))
            if child is None or len(child.tokens) < PAGE:
                break
            node = child
            node.used = now
            pages.append(node.page)
        best, length = None, 0
        rest = tokens[len(pages) * PAGE : (len(pages) + 1) * PAGE]
        for child in node.children.values():
            if (common := _common(child.tokens, rest)) > length:
                best, length = child, common
        if best is None:
            return Match(pages=tuple(pages), partial=None)
        best.used = now
        return Match(pages=tuple(pages), partial=(best.page, length))

    def insert(self, tokens: Sequence[int], pages: Sequence[int]) -> None:
        """Remember that `pages` hold `tokens`; pages with known tokens are not taken."""
        now, node = next(self._clock), self._root
        for index, start in enumerate(range(0, len(tokens), PAGE)):
            key = tuple(tokens[start : start + PAGE])
            child = node.children.get(key)
            if child is None:
                if len(key) < PAGE and any(each[: len(key)] == key for each in node.children):
                    return
                for shorter in [each for each in node.children if each == key[: len(each)]]:
                    self._remove(node.children[shorter])
                child = _Node(key, pages[index], node)
                self._pages.hold(child.page)
                node.children[key] = child
            child.used = now
            node = child

    def evict(self, wanted: int) -> int:
        """Give up leaves that no sequence uses, oldest first, until `wanted` pages are free.

        Returns:
            How many pages were freed.
        """
        if wanted <= 0:
            return 0
        order = count()
        heap = [
            (node.used, next(order), node) for node in self._nodes() if self._is_evictable(node)
        ]
        heapq.heapify(heap)
        freed = 0
        while heap and freed < wanted:
            _, _, node = heapq.heappop(heap)
            parent = node.parent
            if self._on_evict is not None and len(node.tokens) == PAGE:
                self._on_evict(_path(node), node.page)
            self._remove(node)
            freed += 1
            if parent is not None and parent is not self._root and self._is_evictable(parent):
                heapq.heappush(heap, (parent.used, next(order), parent))
        return freed

    def clear(self) -> None:
        """Forget everything."""
        self._pages.release([node.page for node in self._nodes()])
        self._root = _Node((), -1, None)

    def _is_evictable(self, node: _Node) -> bool:
        return not node.children and self._pages.holders(node.page) == 1

    def _remove(self, node: _Node) -> None:
        assert node.parent is not None
        assert not node.children
        del node.parent.children[node.tokens]
        self._pages.release([node.page])

    def _nodes(self) -> Iterator[_Node]:
        stack = list(self._root.children.values())
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            yield node


def _path(node: _Node) -> list[int]:
    """All tokens up to the end of a node's page."""
    parts = []
    at: _Node | None = node
    while at is not None:
        parts.append(at.tokens)
        at = at.parent
    return [token for part in reversed(parts) for token in part]


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = zip(left, right, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
