from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from rollmill.model.tokenizer import (
    CALL_MARKERS,
    END_MESSAGE,
    INVOKE,
    PAD,
    SPECIALS,
    Special,
    Tokenizer,
)

CODE = "def add(left, right):\n    if left > 10:\n        return left + right\n\n\treturn None\n"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([CODE] * 50, 320)


@given(st.text() | st.text(alphabet="]~!b[e<think/>\n \t1ä\r"))
def test_decoding_gives_the_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("special", SPECIALS)
def test_text_that_spells_a_marker_is_not_a_marker(tokenizer: Tokenizer, special: Special) -> None:
    ids = tokenizer.encode(f"a {special}{special} b")
    assert not set(ids) & {tokenizer.special_id(each) for each in SPECIALS}
    assert tokenizer.decode(ids) == f"a {special}{special} b"


def test_pieces_keep_markers_apart_from_their_spelling(tokenizer: Tokenizer) -> None:
    pieces = ["one ", str(END_MESSAGE), END_MESSAGE, PAD, "two"]
    ids = tokenizer.encode_pieces(pieces)
    assert ids.count(tokenizer.eos_id) == 1
    decoded = list(tokenizer.decode_pieces(ids))
    assert decoded == ["one [e~[", "[e~[", "]!p~[", "two"]
    assert [isinstance(piece, Special) for piece in decoded] == [False, True, True, False]


def test_every_digit_is_its_own_token(tokenizer: Tokenizer) -> None:
    text = "x = 31415, 0x92 6"
    digits = [tokenizer.decode([id_]) for id_ in tokenizer.encode(text)]
    assert [token for token in digits if any(c.isdigit() for c in token)] == list("314150926")


def test_line_break_and_indentation_are_one_token(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("\n        ")) == 1


def test_training_loading_and_saving_keep_the_fingerprint(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.encode(f"{CODE}<think>") == tokenizer.encode(f"{CODE}<think>")
    assert Tokenizer.train([CODE] * 50, 320).fingerprint == tokenizer.fingerprint
    assert Tokenizer.train([CODE] * 50, 275).fingerprint != tokenizer.fingerprint


def test_lone_surrogates_are_replaced(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 268, got 100"):
        Tokenizer.train([CODE], 100)


def test_the_published_tokenizer_needs_no_markers_of_calls(
    tokenizer: Tokenizer, as_published: Callable[[Tokenizer], Tokenizer], tmp_path: Path
) -> None:
    published = as_published(tokenizer)
    assert published.spells_calls
    assert set(published.markers) == set(SPECIALS) - set(CALL_MARKERS)
    ids = published.encode_pieces(["a", INVOKE, 'f">', PAD])
    assert ids == [*published.encode('a<invoke name="f">'), published.pad_id]
    strange = published.vocab_size - 1  # an added token with a space in it, a marker of nothing
    assert published.token_bytes(strange) == b"]<]start of image[>["
    assert published.decode([strange]) == "]<]start of image[>["
    published.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path).fingerprint == published.fingerprint


def test_a_foreign_tokenizer_is_refused(tmp_path: Path) -> None:
    foreign = tokenizers.Tokenizer(tokenizers.models.BPE())
    (tmp_path / "tokenizer.json").write_text(foreign.to_str())
    with pytest.raises(ValueError, match="without"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"model": 3}', "\xff"])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"expected a tokenizer in .*tokenizer\.json.*copy it"):
        Tokenizer.load(tmp_path)
