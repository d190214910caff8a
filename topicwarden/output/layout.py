"""Lines that fit a width: wrapping with hanging indents, and columns. Works on rich's Text, so colours survive."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.text import Text

# No place to break a line: inside a grouped number and before its "times", inside the sign for a shortened name.
_WORD = re.compile(r"\d{1,3}(?: \d{3})*(?!\d)(?: times?\b)?\S*|(?:…\[\d+ chars #[0-9a-f]{8}\]…|\S)+")


def wrap(text: Text, width: int | None, first: str = "", rest: str = "") -> list[Text]:
    """Return `text` in lines of at most `width` columns, the first after `first`, the others after `rest`.

    A word that is too long for a line is cut where the line ends. None: one line. Runs of spaces at a break are lost.
    """
    if width is None:
        return [Text.assemble(first, text)]
    lines: list[Text] = []
    indent = first
    start: int | None = None
    end = 0
    plain = text.plain

    def flush() -> None:
        nonlocal start, indent
        if start is not None:
            lines.append(Text.assemble(indent, text[start:end]))
            indent, start = rest, None

    for word in _WORD.finditer(plain):
        begin = word.start() if lines or start is not None else 0  # what leads the text is kept: it aligns columns
        if start is not None and cell_len(indent) + cell_len(plain[start : word.end()]) > width:
            flush()
        while cell_len(indent) + cell_len(plain[begin : word.end()]) > width:
            cut = begin + _fitting(plain[begin : word.end()], width - cell_len(indent))
            start, end = begin, cut
            flush()
            begin = cut
        if begin < word.end():
            start, end = begin if start is None else start, word.end()
    flush()
    return lines or [Text(first.rstrip())]


def _fitting(word: str, room: int) -> int:
    """Return how many characters of `word` fit into `room` columns; at least one, so that wrapping ends."""
    used = 0
    for index, letter in enumerate(word):
        used += cell_len(letter)
        if used > room:
            return max(index, 1)
    return len(word)


def columns(rows: Sequence[Sequence[Text]], right: Iterable[int] = (), gap: int = 2, indent: str = "") -> list[Text]:
    """Return rows as lines whose cells stand below each other; `right` are the columns aligned to the right."""
    if not rows:
        return []
    widths = [max(cell_len(row[index].plain) for row in rows) for index in range(len(rows[0]))]
    to_right = set(right)
    lines = []
    for row in rows:
        line = Text(indent)
        for index, cell in enumerate(row):
            padding = " " * (widths[index] - cell_len(cell.plain))
            line.append_text(Text.assemble(padding, cell) if index in to_right else Text.assemble(cell, padding))
            line.append(" " * gap)
        line.rstrip()
        lines.append(line)
    return lines
