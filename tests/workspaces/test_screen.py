"""A screen shows what a terminal would, however its bytes are torn, and survives any bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.workspaces.screen import KEYS, Screen

CASES: dict[str, tuple[str | bytes, str]] = {
    "plain lines": ("one\r\ntwo", "one\ntwo"),
    "carriage return writes over": ("hello\rJ", "Jello"),
    "back space": ("abc\b\bX", "aXc"),
    "tabs": ("a\tb", "a       b"),
    "wraps at the edge and not before": ("0123456789ab", "0123456789\nab"),
    "a full line waits for the next character": ("0123456789\r\nx", "0123456789\nx"),
    "scrolls": ("1\r\n2\r\n3\r\n4\r\n5", "2\n3\n4\n5"),
    "moves": ("\x1b[2;3Hx\x1b[Ay\x1b[2Dz\x1b[3Bw", "  zy\n  x\n\n   w"),
    "erases a line": ("abcdef\x1b[3D\x1b[K", "abc"),
    "erases to the cursor": ("abcdef\x1b[3D\x1b[1K", "    ef"),
    "erases the screen": ("abc\r\ndef\x1b[2J\x1b[Hx", "x"),
    "erases below": ("a\r\nb\r\nc\x1b[2;1H\x1b[J", "a"),
    "inserts lines": ("a\r\nb\x1b[1;1H\x1b[L", "\na\nb"),
    "deletes lines": ("a\r\nb\r\nc\x1b[1;1H\x1b[M", "b\nc"),
    "inserts characters": ("abc\x1b[1G\x1b[2@", "  abc"),
    "deletes characters": ("abcdef\x1b[2G\x1b[2P", "adef"),
    "blanks characters": ("abcdef\x1b[2G\x1b[2X", "a  def"),
    "a scrolling region": ("a\r\nb\r\nc\r\nd\x1b[2;3r\x1b[3;1H\r\nX", "a\nc\nX\nd"),
    "reverse line feed": ("a\r\nb\x1b[H\x1bMz", "z\na\nb"),
    "the second screen comes and goes": ("shell\x1b[?1049h\x1b[Hvim\x1b[?1049l$", "shell$"),
    "the second screen": ("shell\x1b[?1049h\x1b[Hvim", "vim"),
    "saves the cursor": ("ab\x1b7\r\nxyz\x1b8c", "abc\nxyz"),
    "colours and titles are not seen": ("\x1b[1;31mred\x1b[0m\x1b]0;title\x07!", "red!"),
    "a title that ends with ST": ("\x1b]2;t\x1b\\x", "x"),
    "line drawing": ("\x1b(0lqk\x1b(B x", "┌─┐ x"),
    "wide characters": ("日本x", "日本x"),
    "a wide character does not fit": ("012345678日", "012345678\n日"),
    "half a wide character written over": ("日x\x1b[1;2Hy", " yx"),
    "combining marks": ("e\u0301x", "e\u0301x"),
    "repeats": ("ab\x1b[3b", "abbbb"),
    "an unknown sequence": ("a\x1b[99zb\x1b[>4;2mc", "abc"),
    "not UTF-8": (b"a\xffb", "a\ufffdb"),
}


@pytest.mark.parametrize("name", CASES)
def test_shows_what_a_terminal_shows(name: str) -> None:
    written, seen = CASES[name]
    data = written if isinstance(written, bytes) else written.encode()
    whole, torn = Screen(4, 10), Screen(4, 10)
    whole.feed(data)
    for byte in data:
        torn.feed(bytes([byte]))
    assert whole.text == torn.text == seen
    assert (whole.row, whole.column) == (torn.row, torn.column)


_PIECES = st.one_of(
    st.binary(max_size=20),
    st.builds(
        lambda numbers, kind: f"\x1b[{numbers}{kind}".encode(),
        st.from_regex(r"\A\??[0-9;]{0,6}\Z"),
        st.sampled_from("ABCDEFGHJKLMPSTXbdfhlmr@`"),
    ),
    st.sampled_from([b"\x1bM", b"\x1b7", b"\x1b8", b"\x1bc", "日".encode(), "é".encode(), b"\r\n"]),
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(_PIECES, max_size=30), st.integers(1, 5), st.integers(1, 5))
def test_any_bytes_leave_a_whole_screen(pieces: list[bytes], rows: int, columns: int) -> None:
    screen = Screen(rows, columns)
    for piece in pieces:
        screen.feed(piece)
    assert len(screen.lines) == rows
    assert all(len(row) == columns for row in screen._cells)
    assert 0 <= screen.row < rows
    assert 0 <= screen.column <= columns
    screen.resize(3, 3)
    assert len(screen.lines) == 3


def test_an_endless_sequence_does_not_hold_back_the_rest() -> None:
    screen = Screen(2, 20)
    screen.feed(b"\x1b]" + b"x" * 10_000 + b"\r\nend")
    assert "end" in screen.text


def test_keys_have_the_names_that_tmux_gives_them() -> None:
    assert (KEYS["C-c"], KEYS["Enter"], KEYS["Up"]) == (b"\x03", b"\r", b"\x1b[A")
    assert (KEYS["F1"], KEYS["F5"], KEYS["F12"]) == (b"\x1bOP", b"\x1b[15~", b"\x1b[24~")
