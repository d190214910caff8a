"""Finds calls in the text of a script of any language, or of one that is cut: quotes and brackets are respected."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import Final

from topicwarden.hosts.code_model import MAX_ARGUMENTS, MAX_CALLS, MAX_LITERALS, READERS, Call, Literal, Value
from topicwarden.hosts.commands_shell_words import unescaped

_LITERAL: Final = re.compile(
    r"([rRbBuUfF]{0,2})(\"\"\"(?:\\.|[^\\])*?(?:\"\"\"|\Z)|'''(?:\\.|[^\\])*?(?:'''|\Z)"
    r"|\"(?:\\.|[^\"\\])*(?:\"|\Z)|'(?:\\.|[^'\\])*(?:'|\Z)|`(?:\\.|[^`\\])*(?:`|\Z))",
    re.DOTALL,
)
_NUMBER: Final = re.compile(r"\d{1,9}\b")
_NAMED: Final = re.compile(r"\s*+([A-Za-z_]\w{0,40})\s*+(?:=(?![=>~])|=>|:(?!:))\s*+", re.ASCII)
_CALLED: Final = re.compile(r"([A-Za-z_]\w{0,40}[!?]?)\s{0,4}(?:->\s{0,4})?\(", re.ASCII)
_GOES_ON: Final = re.compile(r"\s+[A-Za-z_]\w*\s*[.=(]", re.ASCII)
_SET: Final = re.compile(
    r"(?:^|[;\n{(]|(?<=[^,(\s])\s|\b(?:const|let|var|my)\s)\s{0,8}[$@]?([A-Za-z_]\w{0,40})\s{0,8}=\s{0,8}(?![=~>])",
    re.ASCII,
)
_FAT_COMMA: Final = re.compile(r"\s{0,8}=>")
_ENCODED: Final = re.compile(r"\s{0,4}\.(?:encode|bytes|b)\b(?:\([^()]{0,40}\))?")
_READING: Final = re.compile(rf"\b(?:{'|'.join(sorted(READERS))})\s{{0,4}}\([^()]{{0,200}}$")


def scanned_calls(text: str) -> tuple[Call, ...]:
    """Return the calls in a text of any language whose calls look like C's."""
    scan = _Scan(text)
    calls: list[Call] = []
    for match in _CALLED.finditer(text):
        if len(calls) >= MAX_CALLS:
            break
        if scan.in_literal(match.start()):
            continue
        calls.append(scan.call(match[1], match.end()))
    return tuple(calls)


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._literals = {match.start(): match for match in _LITERAL.finditer(text)}
        self._starts = list(self._literals)
        self._ends = [self._literals[start].end() for start in self._starts]
        self._set: dict[str, list[tuple[int, int]]] = {}
        self._read = 4 * len(text)
        self._closed = True
        for match in _SET.finditer(text):
            if not self.in_literal(match.start(1)):
                literal = self._literals.get(match.end())
                end = self._end(match.end(), "")
                if literal is not None and _GOES_ON.match(text, literal.end()) is not None:
                    # A line that ended here, before all were joined by spaces.
                    end = literal.end()
                self._set.setdefault(match[1], []).append((match.end(), end))

    def in_literal(self, at: int) -> bool:
        """Whether a character stands within quotes."""
        place = bisect_right(self._starts, at) - 1
        return place >= 0 and self._starts[place] < at < self._ends[place]

    def _end(self, at: int, closing: str) -> int:
        """Return where an expression ends that begins here."""
        depth, text = 0, self._text
        while at < len(text) and self._read > 0:
            self._read -= 1
            literal = self._literals.get(at)
            if literal is not None:
                at = literal.end()
                continue
            character = text[at]
            if character in "([{":
                depth += 1
            elif character in ")]}":
                if depth == 0:
                    return at
                depth -= 1
            elif depth == 0 and (character == "," if closing else character in ";\n"):
                return at
            at += 1
        return at

    def call(self, name: str, at: int) -> Call:
        """Return a call whose arguments begin here."""
        self._closed = True
        arguments: list[Value] = []
        named: dict[str, Value] = {}
        for start, end in list(self._pairs(at)):
            match = _NAMED.match(self._text, start, end)
            if match is not None and start not in self._literals:
                named.setdefault(match[1], self._value(match.end(), end))
                continue
            opening = re.compile(r"\s*\{").match(self._text, start, end)
            if opening is not None:
                # JavaScript's, Perl's and Ruby's way of naming arguments.
                for inner, last in self._parts(opening.end()):
                    match = re.compile(r"\s*[\"']?(\w{1,40})[\"']?\s*(?:=>|:)\s*").match(self._text, inner, last)
                    if match is not None:
                        named.setdefault(match[1], self._value(match.end(), last))
            arguments.append(self._value(start, end))
        return Call(name, tuple(arguments), named, self._closed)

    def _pairs(self, at: int) -> Iterator[tuple[int, int]]:
        """Yield arguments; Perl may have `=>` between them."""
        for start, end in self._parts(at):
            first = start
            while first < end and self._text[first].isspace():
                first += 1
            literal = self._literals.get(first)
            comma = None if literal is None else _FAT_COMMA.match(self._text, literal.end(), end)
            if comma is None:
                yield start, end
            else:
                yield start, comma.start()
                yield comma.end(), end

    def _parts(self, at: int) -> Iterator[tuple[int, int]]:
        """Yield what stands between commas from here on, up to the closing bracket."""
        for _ in range(2 * MAX_ARGUMENTS):
            end = self._end(at, ")")
            if end > at and self._text[at:end].strip():
                yield at, end
            if end >= len(self._text):
                self._closed = False
                return
            if self._text[end] != ",":
                return
            at = end + 1

    def _value(self, start: int, end: int, depth: int = 0) -> Value:
        text = self._text
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        literals = tuple(islice(self._within(start, end, depth), MAX_LITERALS))
        whole = self._literals.get(start)
        if whole is not None and whole.end() == end:
            return Value(_content(whole), literals=literals)
        if _NUMBER.fullmatch(text, start, end):
            return Value(number=int(text[start:end]))
        if end - start > 2 and text[start] in "([" and text[end - 1] in ")]" and depth < 3:
            items = tuple(self._value(at, stop, depth + 1) for at, stop in self._parts(start + 1))
            return Value(items=items, literals=literals)
        known = self._set.get(text[start:end].lstrip("$@"), [])
        if len(known) == 1 and depth < 3:
            return self._value(*known[0], depth + 1)
        return Value(literals=literals)

    def _within(self, start: int, end: int, depth: int) -> Iterator[Literal]:
        place = bisect_right(self._starts, start - 1)
        while place < len(self._starts) and self._starts[place] < end:
            match = self._literals[self._starts[place]]
            place += 1
            if _READING.search(self._text, max(start, match.start() - 256), match.start()) is not None:
                continue
            prefix = match[1] + (match[2][:3] if match[2][:3] in ('"""', "'''") else match[2][:1])
            encoded = _ENCODED.match(self._text, match.end(), end)
            whole = match.start() == start and (match.end() if encoded is None else encoded.end()) == end
            yield Literal(match.start(), match.end(), _content(match), prefix, whole)
        if depth < 2 and end - start <= 256:
            for word in re.findall(r"[A-Za-z_]\w{0,40}", text := self._text[start:end])[:8]:
                if word != text or depth < 2:
                    for known in self._set.get(word, [])[:4]:
                        if known[0] < start or known[0] >= end:
                            yield from self._within(*known, depth + 1)


def _content(match: re.Match[str]) -> str:
    quote = 3 if match[2][:3] in ('"""', "'''") else 1
    body = match[2][quote:]
    body = body[:-quote] if body.endswith(match[2][:quote]) else body
    return body if "r" in match[1].lower() else unescaped(body)
