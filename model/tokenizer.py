"""Byte-level BPE with MiniMax-M2's markers as single tokens. Lossless: no normalisation.

Text is never encoded to a marker, even when it spells one; markers enter as `Special` pieces. To
M2's own tokenizer the markers inside a call are plain text: it is read as it is, and there they are
spelled out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Self

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers


class Special(str):
    """A marker that is one token. Joined with other strings it is its spelling."""

    __slots__ = ()


PAD = Special("]!p~[")
BEGIN_TEXT = Special("]~!b[")
BEGIN_MESSAGE = Special("]~b]")
END_MESSAGE = Special("[e~[")
THINK = Special("<think>")
END_THINK = Special("</think>")
TOOL_CALL = Special("<minimax:tool_call>")
END_TOOL_CALL = Special("</minimax:tool_call>")
# Plain text to M2's own tokenizer. As tokens, as `Tokenizer.train` makes them, they cost one id
# each, and an argument may contain their spelling without ending.
INVOKE = Special('<invoke name="')
END_INVOKE = Special("</invoke>")
PARAMETER = Special('<parameter name="')
END_PARAMETER = Special("</parameter>")

CALL_MARKERS = (INVOKE, END_INVOKE, PARAMETER, END_PARAMETER)
SPECIALS = (
    PAD,
    BEGIN_TEXT,
    BEGIN_MESSAGE,
    END_MESSAGE,
    THINK,
    END_THINK,
    TOOL_CALL,
    END_TOOL_CALL,
    *CALL_MARKERS,
)

# A word or a run of punctuation with at most one space before it; each digit alone, so that
# numbers are copied digit by digit; a line break with the indentation after it; other whitespace.
_PRE_TOKENS = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|(?:\r?\n)+[ \t]*|[ \t]{2,}|\s"


def _byte_names() -> dict[str, int]:
    """Byte-level BPE writes bytes as characters: those that can be seen as themselves, the others
    from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + n): b for n, b in enumerate(others)}


_BYTES = _byte_names()


class Tokenizer:
    """Turns text and markers into token ids and back."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """Raises `ValueError` when `backend` lacks a marker that is not one of `CALL_MARKERS`."""
        found = {special: backend.token_to_id(special) for special in SPECIALS}
        self.spells_calls = any(found[special] is None for special in CALL_MARKERS)
        """Whether `CALL_MARKERS` are text, as to M2's own tokenizer."""
        if self.spells_calls:
            found = {each: id_ for each, id_ in found.items() if each not in CALL_MARKERS}
        self._special_ids = {special: id_ for special, id_ in found.items() if id_ is not None}
        if missing := [special for special in found if special not in self._special_ids]:
            raise ValueError(
                f"expected a tokenizer with the chat markers, got one without {missing}; "
                "train one with Tokenizer.train, or take the one of a MiniMax-M2 checkpoint"
            )
        self._added = backend.get_added_tokens_decoder()
        # M2's own has some of them as ordinary added tokens, which text would be encoded to.
        plain = [id_ for id_ in self._special_ids.values() if not _is_special(self._added, id_)]
        backend.add_special_tokens(
            [AddedToken(backend.id_to_token(id_), normalized=False, special=True) for id_ in plain]
        )
        backend.encode_special_tokens = True
        self._backend = backend
        self._specials = {token_id: special for special, token_id in self._special_ids.items()}
        self.pad_id = self._special_ids[PAD]
        self.bos_id = self._special_ids[BEGIN_TEXT]
        self.eos_id = self._special_ids[END_MESSAGE]

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """Learn merges from `texts`; the result depends on nothing else.

        Raises:
            ValueError: `vocab_size` does not hold the 256 bytes and the markers.
        """
        smallest = 256 + len(SPECIALS)
        if vocab_size < smallest:
            raise ValueError(f"vocab_size must be at least {smallest}, got {vocab_size}")
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_PRE_TOKENS), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=[str(special) for special in SPECIALS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a `tokenizer.json`, or the one in the folder `path`.

        Raises:
            ValueError: it is damaged, or lacks a marker.
            FileNotFoundError: there is none.
        """
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            backend = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except OSError:
            raise
        except Exception as error:  # `tokenizers` raises nothing more precise
            raise ValueError(
                f"expected a tokenizer in {file}, could not read one ({error}); copy it again"
            ) from error
        return cls(backend)

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json` that `tokenizers` and `transformers` read."""
        path.write_text(self._backend.to_str(), encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """Number of ids, markers included."""
        return int(self._backend.get_vocab_size())

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of the tokenizer.json."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()[:16]

    @property
    def markers(self) -> Mapping[Special, int]:
        """The markers that are tokens, and their ids."""
        return self._special_ids

    def special_id(self, special: Special) -> int:
        """The id of a marker that is a token."""
        return self._special_ids[special]

    def special(self, token_id: int) -> Special | None:
        """The marker of an id; None = the id is text."""
        return self._specials.get(token_id)

    def token_bytes(self, token_id: int) -> bytes | None:
        """The bytes of a text token; None = it is a marker, or there is no such token."""
        token = self._backend.id_to_token(token_id)
        if token is None or token_id in self._specials:
            return None
        if token_id in self._added:  # it stands for itself, not for the names of bytes
            return token.encode()
        return bytes(_BYTES[character] for character in token)

    def encode(self, text: str) -> list[int]:
        """Encode plain text; never yields a marker's id. Lone surrogates become `?`."""
        return list(self._backend.encode(_encodable(text), add_special_tokens=False).ids)

    def encode_pieces(self, pieces: Iterable[str]) -> list[int]:
        """Encode text and markers; neighbouring texts are joined before they are encoded.

        A marker that is no token is text.
        """
        ids: list[int] = []
        for is_special, run in groupby(pieces, key=self._is_marker):
            if is_special:
                ids.extend(self._special_ids[Special(piece)] for piece in run)
            else:
                ids.extend(self.encode("".join(run)))
        return ids

    def _is_marker(self, piece: str) -> bool:
        return isinstance(piece, Special) and piece in self._special_ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, markers spelled out. Bytes that are not UTF-8 become U+FFFD."""
        return "".join(self.decode_pieces(ids))

    def decode_pieces(self, ids: Sequence[int]) -> Iterator[str]:
        """Text runs and markers, in order."""
        for is_special, run in groupby(ids, key=self._specials.__contains__):
            if is_special:
                yield from (self._specials[token_id] for token_id in run)
            else:
                yield self._backend.decode(list(run), skip_special_tokens=False)


def _is_special(added: Mapping[int, AddedToken], token_id: int) -> bool:
    return token_id in added and added[token_id].special


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def load_bundled_tokenizer() -> Tokenizer:
    """The tokenizer of the bundled policy."""
    file = resources.files(__package__) / "bundled" / "tokenizer.json"
    return Tokenizer(tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8")))
