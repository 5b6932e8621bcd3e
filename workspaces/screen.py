"""A terminal's screen, from the bytes a program wrote: what a person would see, as text.

It understands what an xterm's programs use: the cursor, erasing, inserting, scrolling, the second
screen, line drawing, wide characters. It keeps no colours and no history, and answers no question
that a program asks its terminal.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable

KEYS = {
    "Enter": b"\r", "Tab": b"\t", "Escape": b"\x1b", "Space": b" ", "BSpace": b"\x7f",
    "Up": b"\x1b[A", "Down": b"\x1b[B", "Right": b"\x1b[C", "Left": b"\x1b[D",
    "Home": b"\x1b[H", "End": b"\x1b[F", "PageUp": b"\x1b[5~", "PageDown": b"\x1b[6~",
    "Insert": b"\x1b[2~", "Delete": b"\x1b[3~", "BTab": b"\x1b[Z",
    **{f"F{n}": b"\x1bO" + bytes([79 + n]) for n in range(1, 5)},
    **{f"F{n}": b"\x1b[%d~" % code for n, code in zip(
        range(5, 13), (15, 17, 18, 19, 20, 21, 23, 24), strict=True)},
    **{f"C-{chr(code + 96)}": bytes([code]) for code in range(1, 27)},
    **{f"M-{letter}": b"\x1b" + letter.encode() for letter in "abcdefghijklmnopqrstuvwxyz"},
}  # fmt: skip
"""Names of keys, as tmux calls them -> what a terminal sends for them."""

_TOKEN = re.compile(
    r"\x1b\[(?P<csi>[0-9:;<=>?]*[ -/]*[@-~])"
    r"|\x1b[\]PX^_](?:[^\x07\x1b]|\x1b(?!\\))*?(?:\x07|\x1b\\)"
    r"|\x1b(?P<escape>[ -/]*[0-Z\\^-~])"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f\x7f])"
    r"|(?P<text>[^\x00-\x1f\x7f]+)",
    re.DOTALL,
)
_UNFINISHED = re.compile(
    r"\x1b(?:\[[0-9:;<=>?]{0,64}[ -/]{0,4}|[\]PX^_][^\x07]{0,4096}|[ -/]{0,4})?"
)
"""The beginning of a sequence; a longer one is none."""
_MARKS = 8
"""Most combining characters of one cell."""
_LINES = str.maketrans("`afgjklmnopqrstuvwxyz{|}~", "◆▒°±┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")


class Screen:
    """Rows of characters and a cursor."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.reset()

    def reset(self) -> None:
        """Make everything as at the start."""
        self._decode.reset()
        self._waiting = ""
        self._cells = [self._blank() for _ in range(self.rows)]
        self._other: list[list[str]] | None = None
        self.row, self.column = 0, 0
        self._saved = (0, 0)
        self._top, self._bottom = 0, self.rows - 1
        self._wraps, self._drawing = True, False
        self._last = " "

    def resize(self, rows: int, columns: int) -> None:
        """Cut or widen; programs draw anew when their terminal changes."""
        blank = [[" "] * columns for _ in range(rows)]
        for new, old in zip(blank, self._cells, strict=False):
            new[: min(columns, len(old))] = old[:columns]
        self.rows, self.columns, self._cells = rows, columns, blank
        self._top, self._bottom, self._other = 0, rows - 1, None
        self._move(self.row, self.column)

    @property
    def lines(self) -> list[str]:
        """Every row, without the blanks at its end."""
        return ["".join(row).rstrip() for row in self._cells]

    @property
    def text(self) -> str:
        """The rows down to the last one that is not empty."""
        return "\n".join(self.lines).rstrip("\n")

    def feed(self, data: bytes) -> None:
        """Take what a program wrote; a sequence may be torn between two calls."""
        text = self._waiting + self._decode.decode(data)
        end = 0
        while end < len(text):
            found = _TOKEN.match(text, end)
            if found is None:
                if _UNFINISHED.fullmatch(text, end):
                    break
                end += 1
                continue
            end = found.end()
            if found["text"]:
                self._write(found["text"])
            elif found["control"]:
                self._control(found["control"])
            elif found["csi"]:
                self._sequence(found["csi"])
            elif found["escape"]:
                self._escape(found["escape"])
        self._waiting = text[end:]

    def _blank(self) -> list[str]:
        return [" "] * self.columns

    def _move(self, row: int, column: int) -> None:
        self.row = max(0, min(row, self.rows - 1))
        self.column = max(0, min(column, self.columns - 1))

    def _write(self, text: str) -> None:
        for char in text.translate(_LINES) if self._drawing else text:
            width = _width(char)
            if width == 0:
                row, column = self._cells[self.row], min(self.column, self.columns) - 1
                if column >= 0 and len(row[column]) < _MARKS:
                    row[column] += char
            elif width <= self.columns:
                self._put(char, width)

    def _put(self, char: str, width: int) -> None:
        if self.column + width > self.columns:  # the last column was filled before
            if self._wraps:
                self.column = 0
                self._line_feed()
            else:
                self.column = self.columns - width
        row, column = self._cells[self.row], self.column
        if column and not row[column]:  # the right half of a wide character
            row[column - 1] = " "
        row[column : column + width] = [char, ""][:width]
        if column + width < self.columns and not row[column + width]:
            row[column + width] = " "
        self._last = char
        self.column += width

    def _line_feed(self) -> None:
        if self.row == self._bottom:
            self._scroll(self._top, 1)
        else:
            self._move(self.row + 1, self.column)

    def _scroll(self, top: int, count: int) -> None:
        """Lines from `top` to the end of the region go up by `count`; down where it is negative."""
        part = self._cells[top : self._bottom + 1]
        count = max(-len(part), min(count, len(part)))
        fresh = [self._blank() for _ in range(abs(count))]
        moved = part[count:] + fresh if count > 0 else fresh + part[: len(part) + count]
        self._cells[top : self._bottom + 1] = moved

    def _control(self, char: str) -> None:
        if char in "\n\v\f":
            self._line_feed()
        elif char == "\r":
            self.column = 0
        elif char == "\b":
            self._move(self.row, min(self.column, self.columns - 1) - 1)
        elif char == "\t":
            self._move(self.row, (self.column // 8 + 1) * 8)

    def _escape(self, kind: str) -> None:
        if kind == "7":
            self._saved = (self.row, self.column)
        elif kind == "8":
            self._move(*self._saved)
        elif kind == "c":
            self.reset()
        elif kind in "DE":
            self.column = 0 if kind == "E" else self.column
            self._line_feed()
        elif kind == "M":
            if self.row == self._top:
                self._scroll(self._top, -1)
            else:
                self._move(self.row - 1, self.column)
        elif kind[0] == "(":
            self._drawing = kind[1:] == "0"

    def _sequence(self, body: str) -> None:
        kind, private = body[-1], body.startswith("?")
        numbers = [int(n[:5]) if n.isdigit() else 0 for n in body[:-1].lstrip("?>=").split(";")]
        if private and kind in "hl":
            for mode in numbers:
                self._mode(mode, on=kind == "h")
        elif not private and kind in _SEQUENCES and body[0] not in ">=<":
            self.column = min(self.column, self.columns - 1)
            _SEQUENCES[kind](self, numbers)

    def _mode(self, mode: int, *, on: bool) -> None:
        if mode == 7:
            self._wraps = on
        elif mode in (47, 1047, 1049) and on != (self._other is not None):
            if on:
                self._saved = (self.row, self.column)
                self._other, self._cells = self._cells, [self._blank() for _ in range(self.rows)]
            elif self._other is not None:
                self._cells, self._other = self._other, None
                self._move(*self._saved)

    def _erase_display(self, n: list[int]) -> None:
        if n[0] == 0:
            self._erase_line([0])
            rows = range(self.row + 1, self.rows)
        elif n[0] == 1:
            self._erase_line([1])
            rows = range(self.row)
        else:
            rows = range(self.rows)
        for row in rows:
            self._cells[row] = self._blank()

    def _erase_line(self, n: list[int]) -> None:
        first = 0 if n[0] in (1, 2) else self.column
        last = self.column + 1 if n[0] == 1 else self.columns
        self._cells[self.row][first:last] = [" "] * (last - first)

    def _lines_at_cursor(self, count: int) -> None:
        if self._top <= self.row <= self._bottom:
            self._scroll(self.row, count)
            self.column = 0

    def _insert(self, count: int) -> None:
        row = self._cells[self.row]
        blanks = [" "] * min(count, self.columns - self.column)
        row[self.column : self.column] = blanks
        del row[self.columns :]

    def _delete(self, count: int) -> None:
        row = self._cells[self.row]
        del row[self.column : self.column + count]
        row += [" "] * (self.columns - len(row))

    def _blank_out(self, count: int) -> None:
        last = min(self.column + count, self.columns)
        self._cells[self.row][self.column : last] = [" "] * (last - self.column)

    def _region(self, n: list[int]) -> None:
        top, bottom = _at_least_1(n[0]) - 1, (n[1] if len(n) > 1 and n[1] else self.rows) - 1
        if 0 <= top < bottom < self.rows:
            self._top, self._bottom = top, bottom
            self._move(0, 0)


def _width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _at_least_1(n: int) -> int:
    return max(n, 1)


def _moving(rows: int, columns: int) -> Callable[[Screen, list[int]], None]:
    def move(screen: Screen, n: list[int]) -> None:
        count = _at_least_1(n[0])
        screen._move(screen.row + rows * count, screen.column + columns * count)

    return move


_SEQUENCES: dict[str, Callable[[Screen, list[int]], None]] = {
    "A": _moving(-1, 0), "B": _moving(1, 0), "C": _moving(0, 1), "D": _moving(0, -1),
    "E": lambda s, n: s._move(s.row + _at_least_1(n[0]), 0),
    "F": lambda s, n: s._move(s.row - _at_least_1(n[0]), 0),
    "G": lambda s, n: s._move(s.row, n[0] - 1),
    "`": lambda s, n: s._move(s.row, n[0] - 1),
    "d": lambda s, n: s._move(n[0] - 1, s.column),
    "H": lambda s, n: s._move(n[0] - 1, (n[1] if len(n) > 1 else 1) - 1),
    "f": lambda s, n: s._move(n[0] - 1, (n[1] if len(n) > 1 else 1) - 1),
    "J": Screen._erase_display,
    "K": Screen._erase_line,
    "L": lambda s, n: s._lines_at_cursor(-_at_least_1(n[0])),
    "M": lambda s, n: s._lines_at_cursor(_at_least_1(n[0])),
    "P": lambda s, n: s._delete(_at_least_1(n[0])),
    "X": lambda s, n: s._blank_out(_at_least_1(n[0])),
    "@": lambda s, n: s._insert(_at_least_1(n[0])),
    "S": lambda s, n: s._scroll(s._top, _at_least_1(n[0])),
    "T": lambda s, n: s._scroll(s._top, -_at_least_1(n[0])),
    "b": lambda s, n: s._write(s._last * min(_at_least_1(n[0]), s.columns * s.rows)),
    "r": Screen._region,
}  # fmt: skip
