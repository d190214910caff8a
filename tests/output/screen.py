"""A terminal just able enough to show what our live output leaves on a screen."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

_PIECE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|.", re.DOTALL)


@dataclass
class Screen:
    """Lines as a person sees them; folds at `columns`, knows carriage return, line feed, clear to end, colours."""

    columns: int
    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0

    def feed(self, text: str) -> None:
        """Act on what a program wrote; fails on any sequence a simple terminal does not know."""
        for piece in _PIECE.findall(text):
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif piece in ("\x1b[J", "\x1b[0J"):
                self.lines[self.row] = self.lines[self.row][: self.column]
                del self.lines[self.row + 1 :]
            elif piece == "\x1b[K":
                self.lines[self.row] = self.lines[self.row][: self.column]
            elif re.fullmatch(r"\x1b\[[0-9;]*m", piece):
                pass
            else:
                assert piece.isprintable(), f"the terminal was sent {piece!r}"
                self._put(piece)

    def resize(self, columns: int) -> None:
        """Fold the cursor's line anew as terminals that reflow do; the cursor stays with the letter it was on."""
        whole, column = self.lines[self.row], self.column
        folded = [whole[start : start + columns] for start in range(0, max(len(whole), 1), columns)]
        self.lines[self.row : self.row + 1] = folded
        self.row += column // columns
        self.column, self.columns = column % columns, columns

    def _put(self, letter: str) -> None:
        if self.column == self.columns:
            self.column = 0
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append("")
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + letter + line[self.column + 1 :]
        self.column += 1


@dataclass
class Terminal:
    """A real pseudo-terminal whose output lands on a Screen."""

    master: int
    stream: TextIO
    screen: Screen
    _decoder: codecs.IncrementalDecoder = field(default_factory=codecs.getincrementaldecoder("utf-8"))

    def resize(self, columns: int) -> None:
        """Make the window this wide."""
        self.update()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.screen.resize(columns)

    def update(self) -> Screen:
        """Take in everything written so far."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # EIO: the other side is closed and everything is read
                break
            if not data:
                break
            self.screen.feed(self._decoder.decode(data))
        return self.screen


@contextmanager
def terminal(columns: int = 80) -> Iterator[Terminal]:
    """Open a pseudo-terminal of this width."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        try:
            yield Terminal(master, stream, Screen(columns))
        finally:
            os.close(master)
