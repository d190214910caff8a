r"""Regular expressions as PCRE 8.44 reads them on bytes, taken apart into a tree.

Erlang's `re` without options: bytes rather than characters, `.` matches all but LF, `$` and `\Z` also match before an
LF at the end, `^` matches at the start alone, and the tables are those of ISO 8859-1. What the tree cannot say has a
reason instead; nothing is guessed. Each construct here was tried in Erlang/OTP 25 (`re:run`), and PCRE2 where it
answers otherwise is told apart: `{,n}` and `{1, 2}` are text to PCRE 8.44 and counts to PCRE2 10.43, whose Python
package also reads `\x{41}` and `\x4` otherwise and refuses `[\d-z]`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from topicwarden.patterns.byte_sets import ALL, NEWLINE, folded
from topicwarden.patterns.regex_letters import LetterReader, UnsupportedError
from topicwarden.patterns.regex_tree import Alternation, Anchor, Concatenation, Lookahead, Node, OneOf, Repeat

MAX_REGEX_BYTES: Final = 4096
MAX_REPEAT: Final = 1000
_MAX_DEPTH: Final = 40

_COUNT: Final = re.compile(rb"\{(\d+)(?:,(\d*))?\}")
_COUNT_TO_PCRE2: Final = re.compile(rb"\{[\d\s]*,?[\d\s]*\}")
_FLAGS: Final = re.compile(rb"\(\?([imsxJUX]*)(?:-([imsxJUX]*))?([:)])")
_NAME: Final = re.compile(rb"\(\?(?:P?<([A-Za-z_][A-Za-z0-9_]{0,30})>|'([A-Za-z_][A-Za-z0-9_]{0,30})')")
_AROUND: Final = re.compile(rb"\(\?<?[=!]")


@dataclass(frozen=True, slots=True)
class RegexSyntax:
    """What an expression says, or why that cannot be said."""

    tree: Node | None
    problem: str | None
    """Why there is no tree, continuing the expression's text and a colon; None when there is one."""
    portable: bool
    """Whether PCRE2 answers as PCRE does for names of ASCII; also of some expressions without a tree."""
    latin1: bool
    """Whether what it says of bytes above 127 depends on tables, which PCRE2 has others of."""


def parse_regex(pattern: bytes) -> RegexSyntax:
    """Take an expression apart. Never raises."""
    if len(pattern) > MAX_REGEX_BYTES:
        return RegexSyntax(None, f"it is longer than {MAX_REGEX_BYTES} bytes", False, False)
    if 0 in pattern:
        # Erlang hands PCRE a C string, which ends there.
        return RegexSyntax(None, "it holds a zero byte, after which PCRE reads nothing", False, False)
    parser = _Parser(pattern)
    try:
        tree = parser.whole()
    except UnsupportedError as error:
        return RegexSyntax(None, str(error), False, False)
    problem = parser.undecidable
    if parser.looks_for and not _anchored(tree):
        # PCRE 8.44 takes the first letter looked for as the first of a match and the last as one behind it:
        # `(?=b) *b` is not found in `b`. PCRE2 finds it.
        return RegexSyntax(None, problem or "it looks ahead without a ^ at its start", False, parser.latin1)
    return RegexSyntax(tree if problem is None else None, problem, parser.portable, parser.latin1)


@dataclass(slots=True)
class _Group:
    """What holds within a group from some place on."""

    caseless: bool = False
    dot_all: bool = False
    multiline: bool = False
    behind: bool = False
    """Whether it is, or is within, a lookbehind."""


class _Parser(LetterReader):
    def __init__(self, pattern: bytes) -> None:
        super().__init__(pattern)
        self._depth = 0
        self._names: set[bytes] = set()
        self.looks_for = False
        """Whether it looks ahead for something (and not for its absence)."""

    def whole(self) -> Node:
        if self._pattern.startswith(b"(*"):
            raise UnsupportedError("it begins with a verb of PCRE")
        tree = self._alternation(_Group())
        if self._at < len(self._pattern):
            raise UnsupportedError("it has a ) too many")
        return tree

    def _alternation(self, group: _Group) -> Node:
        """Read up to the end of a group. Flags set in one branch hold in those after it too."""
        branches: list[Node] = []
        parts: list[Node] = []
        while True:
            repeatable = False
            match self._peek():
                case b"" | b")":
                    break
                case b"|":
                    if group.behind:
                        raise UnsupportedError("it looks behind for something of no fixed length")
                    self._at += 1
                    branches.append(_concatenation(parts))
                    parts = []
                case b"(":
                    part = self._group(group)
                    if part is not None:
                        parts.append(part)
                        repeatable = True
                case b"*" | b"+" | b"?":
                    raise UnsupportedError(f"it has a {self._peek().decode()} with nothing to repeat")
                case b"{" if _COUNT.match(self._pattern, self._at):
                    raise UnsupportedError("it has a count with nothing to repeat")
                case _:
                    repeatable = self._atom(group, parts)
            if repeatable:
                self._transparent()
                parts[-1] = self._quantified(parts[-1], group)
        return Alternation((*branches, _concatenation(parts))) if branches else _concatenation(parts)

    def _atom(self, group: _Group, parts: list[Node]) -> bool:
        """Read what is neither group nor quantifier; returns whether the last of the parts can be repeated."""
        byte = self._pattern[self._at]
        self._at += 1
        match byte:
            case 0x5C:  # \
                return self._escape(group, parts)
            case 0x5B:  # [
                parts.append(OneOf(self._character_class(group.caseless)))
            case 0x2E:  # .
                parts.append(OneOf(ALL if group.dot_all else ALL & ~NEWLINE))
            case 0x5E | 0x24:  # ^ $
                if group.multiline:
                    self._beyond("it searches line by line (?m)")
                parts.append(Anchor.START if byte == 0x5E else Anchor.END_OR_LAST_NEWLINE)
                return False
            case _:
                if byte == 0x7B and _COUNT_TO_PCRE2.match(self._pattern, self._at - 1):
                    self.portable = False
                parts.append(self._literal(byte, group))
        return True

    def _literal(self, byte: int, group: _Group) -> Node:
        if group.caseless:
            self.latin1 = self.latin1 or byte > 0x7F
            return OneOf(folded(1 << byte))
        return OneOf(1 << byte)

    def _transparent(self) -> None:
        """Skip what may stand between something and its quantifier: comments, and quotes that hold nothing."""
        while True:
            if self._peek(3) == b"(?#":
                self._comment()
            elif self._peek(4) == rb"\Q\E":
                self._at += 4
            elif self._peek(2) == rb"\E":
                self._at += 2
            else:
                return

    def _comment(self) -> None:
        end = self._pattern.find(b")", self._at)
        if end < 0:
            raise UnsupportedError("it has a comment that does not end")
        self._at = end + 1

    def _quantified(self, part: Node, group: _Group) -> Node:
        """Return what was read last as often as the quantifier after it says, if there is one."""
        least: int
        most: int | None
        match self._peek():
            case b"*":
                least, most, width = 0, None, 1
            case b"+":
                least, most, width = 1, None, 1
            case b"?":
                least, most, width = 0, 1, 1
            case b"{":
                count = _COUNT.match(self._pattern, self._at)
                if count is None:
                    return part
                least, most = _counts(count)
                width = len(count[0])
            case _:
                return part
        if group.behind:
            raise UnsupportedError("it looks behind for something of no fixed length")
        if isinstance(part, Lookahead):
            self._beyond("it repeats a look ahead")
        self._at += width
        if self._peek() == b"?":
            self._at += 1
        elif self._peek() == b"+":
            self._at += 1
            self._beyond("it has a possessive repeat, which gives nothing back")
        self._transparent()
        if self._peek() in (b"*", b"+", b"?") or _COUNT.match(self._pattern, self._at):
            raise UnsupportedError("it repeats a repeat")
        return part if least == most == 1 else Repeat(part, least, most)

    def _group(self, group: _Group) -> Node | None:
        """Read a group; returns None for what only looks like one: a comment, or flags."""
        if self._peek(3) == b"(?#":
            self._comment()
            return None
        inside = _Group(group.caseless, group.dot_all, group.multiline, group.behind)
        around: re.Match[bytes] | None = None
        if self._peek(2) == b"(*":
            raise UnsupportedError("it has a verb of PCRE")
        if self._peek(2) != b"(?":
            self._at += 1
        elif self._peek(3) == b"(?|":
            self._at += 3
        elif self._peek(3) == b"(?>":
            self._at += 3
            self._beyond("it has an atomic group, which gives nothing back")
        elif around := _AROUND.match(self._pattern, self._at):
            self._at = around.end()
            self.looks_for = self.looks_for or around[0] == b"(?="
            if around[0].startswith(b"(?<"):
                self._beyond("it looks behind")
                inside.behind = True
        elif name := _NAME.match(self._pattern, self._at):
            self._at = name.end()
            called = name[1] or name[2]
            if called in self._names:
                raise UnsupportedError("it has two groups of the same name")
            self._names.add(called)
        elif flags := _FLAGS.match(self._pattern, self._at):
            self._at = flags.end()
            changed = group if flags[3] == b")" else inside
            for letters, on in ((flags[1], True), (flags[2] or b"", False)):
                _set_flags(changed, letters, on)
            if flags[3] == b")":
                return None
        else:
            raise UnsupportedError("it has a condition, a recursion or another special group")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnsupportedError(f"its groups are nested more than {_MAX_DEPTH} deep")
        tree = self._alternation(inside)
        if self._peek() != b")":
            raise UnsupportedError("it has a ( that is not closed")
        self._at += 1
        self._depth -= 1
        return tree if around is None else Lookahead(tree, wanted=around[0].endswith(b"="))

    def _escape(self, group: _Group, parts: list[Node]) -> bool:
        """Read what follows a backslash outside a class; returns whether the last of the parts can be repeated."""
        letter = self._peek()
        match letter:
            case b"":
                raise UnsupportedError("it ends with a backslash")
            case b"Q":
                text = self._quoted()
                parts.extend(self._literal(byte, group) for byte in text)
                return bool(text)
            case b"E":  # closes nothing
                self._at += 1
                return False
            case b"A" | b"G":
                parts.append(Anchor.START)
            case b"z":
                parts.append(Anchor.END)
            case b"Z":
                parts.append(Anchor.END_OR_LAST_NEWLINE)
            case b"b" | b"B":
                self.latin1 = True
                self._beyond("it asks for the border of a word")
            case b"N" if self._peek(2) != b"N{":
                self._at += 1
                parts.append(OneOf(ALL & ~NEWLINE))
                return True
            case _:
                allowed = self._set_escape()
                parts.append(OneOf(allowed) if allowed is not None else self._literal(self._byte_escape(), group))
                return True
        self._at += 1
        return False


def _anchored(tree: Node) -> bool:
    """Whether each alternative begins with `^`."""
    match tree:
        case Alternation(branches):
            return all(map(_anchored, branches))
        case Concatenation(parts):
            return bool(parts) and _anchored(parts[0])
        case _:
            return tree is Anchor.START


def _concatenation(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Concatenation(tuple(parts))


def _counts(count: re.Match[bytes]) -> tuple[int, int | None]:
    least = int(count[1][:8])
    most = least if count[2] is None else int(count[2][:8]) if count[2] else None
    if max(least, most or 0) > MAX_REPEAT:
        raise UnsupportedError(f"it repeats something more than {MAX_REPEAT} times")
    if most is not None and most < least:
        raise UnsupportedError("it has a count out of order")
    return least, most


def _set_flags(group: _Group, letters: bytes, on: bool) -> None:
    for letter in letters.decode():
        match letter:
            case "i":
                group.caseless = on
            case "s":
                group.dot_all = on
            case "m":
                group.multiline = on
            case "U":  # greedy or not makes no difference to what matches
                pass
            case _:
                raise UnsupportedError(f"it sets the flag {letter}")
