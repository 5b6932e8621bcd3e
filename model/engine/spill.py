"""Keys and values that lost their pages: kept in main memory, then in files, and brought back.

A page is named by the weights, by how it was computed and laid out, and by all tokens up to its
end, so what is found under a name is what would be computed again. It is brought back only where
reading costs less time than computing, by what both took so far. Files outlive the process and
carry a checksum: a damaged one is deleted and its page computed again. Reads and writes happen in
the engine's thread; a folder serves one process at a time.
"""

from __future__ import annotations

import hashlib
import logging
import time
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch

from .pages import PAGE, Pages
from .radix import RadixTree

_SUFFIX = ".kv"
_CHECK_BYTES = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpillSettings:
    """Where evicted pages go and how much there may be."""

    ram_bytes: int = 0
    folder: Path | None = None
    """None = nothing goes to disk."""
    disk_bytes: int = 0

    def __post_init__(self) -> None:
        if self.ram_bytes < 0 or self.disk_bytes < 0:
            raise ValueError(
                f"expected ram_bytes and disk_bytes of 0 or more, got {self.ram_bytes} and "
                f"{self.disk_bytes}"
            )
        if (self.folder is None) != (self.disk_bytes == 0):
            raise ValueError(
                f"expected folder and disk_bytes together or neither, got {self.folder} and "
                f"{self.disk_bytes}"
            )


class Costs:
    """What computing a token and reading a byte take, as running means; None = never measured."""

    def __init__(self) -> None:
        self.token_s: float | None = None
        self.disk_byte_s: float | None = None

    def computed(self, tokens: int, seconds: float) -> None:
        """Note a forward pass."""
        self.token_s = _mean(self.token_s, seconds / tokens)

    def read(self, size: int, seconds: float) -> None:
        """Note a file."""
        self.disk_byte_s = _mean(self.disk_byte_s, seconds / size)

    def reading_pays(self, tokens: int, disk_bytes: int) -> bool:
        """Whether `tokens` are brought back sooner than computed; yes while nobody knows."""
        if self.token_s is None or self.disk_byte_s is None:
            return True
        return disk_bytes * self.disk_byte_s < tokens * self.token_s


def _mean(before: float | None, now: float) -> float:
    return now if before is None else 0.8 * before + 0.2 * now


class PageStore:
    """The second and third level below the pages."""

    def __init__(self, settings: SpillSettings, pages: Pages) -> None:
        """Adopt the files that an earlier process left in the folder."""
        self._settings = settings
        self._pages = pages
        self._ram: OrderedDict[str, bytes] = OrderedDict()  # least recently used first
        self._disk: OrderedDict[str, int] = OrderedDict()  # sizes
        self._ram_bytes = self._disk_bytes = 0
        self.costs = Costs()
        self.kept = 0
        """How many pages came."""
        self.recalled = 0
        """How many were brought back."""
        self.damaged = 0
        """How many files were no good."""
        if settings.folder is not None:
            settings.folder.mkdir(parents=True, exist_ok=True)
            self._adopt(settings.folder)

    def known(self, names: Sequence[str]) -> int:
        """How many of `names`, from the first on, it has and would rather read than compute."""
        count = sum(
            1 for _ in takewhile(lambda each: each in self._ram or each in self._disk, names)
        )
        on_disk = sum(self._disk[name] for name in names[:count] if name not in self._ram)
        return count if self.costs.reading_pays(count * PAGE, on_disk) else 0

    def keep(self, name: str, page: int) -> None:
        """Take what a page holds."""
        self.kept += 1
        self._hold(name, self._pages.dump(page))

    def recall(self, name: str, page: int) -> bool:
        """Fill a page; False = its file is damaged or gone, and was forgotten."""
        if name in self._ram:
            self._ram.move_to_end(name)
            data = self._ram[name]
        else:
            found = self._read(name)
            if found is None:
                return False
            data = found
        self._pages.restore(page, data)
        self.recalled += 1
        return True

    def _hold(self, name: str, data: bytes) -> None:
        if name in self._ram:
            self._ram.move_to_end(name)
            return
        self._ram[name] = data
        self._ram_bytes += len(data)
        while self._ram_bytes > self._settings.ram_bytes:
            oldest, leaving = self._ram.popitem(last=False)
            self._ram_bytes -= len(leaving)
            self._write(oldest, leaving)

    def _write(self, name: str, data: bytes) -> None:
        folder = self._settings.folder
        if folder is None or name in self._disk:
            return
        whole = zlib.crc32(data).to_bytes(_CHECK_BYTES, "little") + data
        partial = folder / f"{name}.partial"
        try:
            partial.write_bytes(whole)
            partial.replace(folder / f"{name}{_SUFFIX}")
        except OSError as error:  # a full disk costs a page and no request
            _log.warning("could not keep a page in %s: %s", folder, error)
            partial.unlink(missing_ok=True)
            return
        self._disk[name] = len(whole)
        self._disk_bytes += len(whole)
        self._shrink()

    def _shrink(self) -> None:
        while self._disk_bytes > self._settings.disk_bytes:
            self._forget(next(iter(self._disk)))

    def _forget(self, name: str) -> None:
        assert self._settings.folder is not None
        self._disk_bytes -= self._disk.pop(name)
        (self._settings.folder / f"{name}{_SUFFIX}").unlink(missing_ok=True)

    def _read(self, name: str) -> bytes | None:
        assert self._settings.folder is not None
        start = time.perf_counter()
        try:
            whole = (self._settings.folder / f"{name}{_SUFFIX}").read_bytes()
        except OSError:
            whole = b""
        data = whole[_CHECK_BYTES:]
        check = zlib.crc32(data).to_bytes(_CHECK_BYTES, "little")
        if len(data) != self._pages.page_bytes or whole[:_CHECK_BYTES] != check:
            self.damaged += 1
            self._forget(name)
            return None
        self.costs.read(len(whole), time.perf_counter() - start)
        self._disk.move_to_end(name)
        return data

    def _adopt(self, folder: Path) -> None:
        for partial in folder.glob("*.partial"):
            partial.unlink()
        for file in sorted(folder.glob(f"*{_SUFFIX}"), key=lambda each: each.stat().st_mtime):
            self._disk[file.stem] = size = file.stat().st_size
            self._disk_bytes += size
        self._shrink()


class LowerLevels:
    """What the scheduler sees of the store: pages of the present weights, by their tokens."""

    def __init__(
        self, store: PageStore, weights: Mapping[str, torch.Tensor], origin: Sequence[str]
    ) -> None:
        """Name pages by all that they depend on.

        Args:
            weights: changed in place by swaps.
            origin: what else keys and values depend on, and how they lie in a page.
        """
        self.store = store
        self._weights = weights
        self._origin = origin
        self._identity = identity(weights, origin)

    def renew(self) -> None:
        """The weights changed: what was kept of others serves no more, unless they come back."""
        self._identity = identity(self._weights, self._origin)

    def keep(self, tokens: Sequence[int], page: int) -> None:
        """Take a full page that is given up; `tokens` = all up to its end."""
        self.store.keep(page_names(self._identity, tokens)[-1], page)

    def bring_back(self, tokens: Sequence[int], tree: RadixTree, pages: Pages) -> None:
        """Put what is kept of `tokens` behind what the tree knows, if there is room and it pays."""
        held = list(tree.match(tokens).pages)
        names = page_names(self._identity, tokens)[len(held) :]
        count = self.store.known(names)
        if not count:
            return
        for page in held:
            pages.hold(page)
        tree.evict(count - pages.free)
        for name in names[: min(count, pages.free)]:
            page = pages.take()
            if not self.store.recall(name, page):
                pages.release([page])
                break
            held.append(page)
        tree.insert(tokens[: len(held) * PAGE], held)
        pages.release(held)


def identity(weights: Mapping[str, torch.Tensor], origin: Sequence[str]) -> str:
    """A name of the weights, by every byte of them, and of `origin`."""
    digest = hashlib.sha256("\n".join(origin).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def page_names(start: str, tokens: Sequence[int]) -> list[str]:
    """The names of the full pages of `tokens`, behind the page (or the weights) named `start`."""
    names = []
    for at in range(0, len(tokens) - len(tokens) % PAGE, PAGE):
        text = " ".join(map(str, tokens[at : at + PAGE]))
        start = hashlib.sha256(f"{start} {text}".encode()).hexdigest()[:40]
        names.append(start)
    return names
