"""Reading what stands for one byte in an expression: escapes and character classes."""

from __future__ import annotations

import re
from typing import Final

from topicwarden.patterns.byte_sets import ALL, ESCAPES, POSIX, ByteSet, byte_range, folded

_LITERAL_ESCAPES: Final = {0x61: 0x07, 0x65: 0x1B, 0x66: 0x0C, 0x6E: 0x0A, 0x72: 0x0D, 0x74: 0x09}
"""What `\\a`, `\\e`, `\\f`, `\\n`, `\\r` and `\\t` stand for."""
_POSIX_NAME: Final = re.compile(rb"\[:(\^?)([a-z]+):\]")
_OCTAL: Final = re.compile(rb"[0-7]{0,2}")
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{0,2}")
_HEX_BRACED: Final = re.compile(rb"\{([0-9A-Fa-f]{1,8})\}")


class UnsupportedError(Exception):
    """What is read here has no meaning that we are sure of."""


class LetterReader:
    """An expression, the place reached in it, and what was learnt about it on the way; its parser goes on from here."""

    def __init__(self, pattern: bytes) -> None:
        self._pattern = pattern
        self._at = 0
        self._sets: set[int] = set()
        self.undecidable: str | None = None
        """The first thing that PCRE2 can match and a tree cannot say."""
        self.portable = True
        self.latin1 = False

    def _beyond(self, reason: str) -> None:
        self.undecidable = self.undecidable or reason

    def _peek(self, width: int = 1) -> bytes:
        return self._pattern[self._at : self._at + width]

    def _quoted(self) -> bytes:
        """Read from the Q of `\\Q` to behind its `\\E`, or to the end."""
        start = self._at + 1
        end = self._pattern.find(rb"\E", start)
        if end < 0:
            end = self._at = len(self._pattern)
        else:
            self._at = end + 2
        return self._pattern[start:end]

    def _set_escape(self) -> ByteSet | None:
        """Read `\\d` and the like; returns None for other escapes, which are not read."""
        letter = self._pattern[self._at]
        allowed = ESCAPES.get(letter)
        if allowed is not None:
            self._at += 1
            self.latin1 = self.latin1 or letter in b"wW"
            self._sets.add(letter)
            if 0x53 in self._sets and not self._sets.isdisjoint(b"hv"):
                # PCRE 8.44 takes them for disjoint and gives nothing back, but the bytes 0x85 and 0xA0 are in both:
                # `\S*\h` is not found in 0xA0.
                self._beyond("it uses \\S together with \\h or \\v")
        return allowed

    def _byte_escape(self) -> int:
        """Read an escape that stands for one byte, behind its backslash."""
        letter = self._pattern[self._at]
        self._at += 1
        if letter in _LITERAL_ESCAPES:
            return _LITERAL_ESCAPES[letter]
        if letter == 0x78:  # x
            return self._hex()
        if letter == 0x30:  # 0 and up to two octal digits more
            return int(b"0" + self._digits(_OCTAL), 8)
        if chr(letter).isascii() and chr(letter).isalnum():
            if 0x31 <= letter <= 0x39 or letter in b"gk":
                raise UnsupportedError("it refers back to what a group matched, or uses a number like that")
            raise UnsupportedError(f"it uses \\{chr(letter)}")
        return letter

    def _hex(self) -> int:
        if self._peek() == b"{":
            braced = _HEX_BRACED.match(self._pattern, self._at)
            if braced is None or int(braced[1], 16) > 0xFF:
                raise UnsupportedError("it has a \\x{...} that is no byte")
            self._at = braced.end()
            self.portable = False
            return int(braced[1], 16)
        digits = self._digits(_HEX)
        if len(digits) < 2:
            self.portable = False
        return int(b"0" + digits, 16)

    def _digits(self, wanted: re.Pattern[bytes]) -> bytes:
        found = wanted.match(self._pattern, self._at)
        digits = found[0] if found else b""
        self._at += len(digits)
        return digits

    def _character_class(self, caseless: bool) -> ByteSet:
        """Read a class behind its opening bracket."""
        self._at -= 1
        if self._posix_like():
            raise UnsupportedError("it has [: [. or [= outside of a character class")
        self._at += 1
        negated = self._peek() == b"^"
        if negated:
            self._at += 1
        allowed: ByteSet = 0
        first, quoted, after_set = True, False, False
        while True:
            quoted = self._skip_quotes(quoted)
            if after_set and not quoted and self._peek() == b"-" and self._peek(2) != b"-]":
                # Text to PCRE 8.44, and an error to PCRE2.
                self.portable = False
            if self._peek() == b"]" and not first and not quoted:
                self._at += 1
                return ALL & ~allowed if negated else allowed
            first = False
            one = None if quoted else self._class_set(caseless)
            after_set = one is not None
            if one is not None:
                allowed |= one
                continue
            start = self._class_byte(quoted)
            end, quoted = self._range_end(start, quoted)
            one = byte_range(start, end)
            if caseless:
                self.latin1 = self.latin1 or end > 0x7F
                one = folded(one)
            allowed |= one

    def _skip_quotes(self, quoted: bool) -> bool:
        r"""Skip `\Q` and `\E` in a class; returns whether what follows is quoted."""
        while True:
            if self._peek(2) == rb"\E":
                quoted = False
            elif self._peek(2) == rb"\Q" and not quoted:
                quoted = True
            else:
                return quoted
            self._at += 2

    def _range_end(self, start: int, quoted: bool) -> tuple[int, bool]:
        """Return the last byte of the range that begins with `start`, itself where it is none; and whether quoted."""
        while self._peek(2) == rb"\E":
            self._at += 2
            quoted = False
        if quoted or self._peek() != b"-":
            return start, quoted
        hyphen = self._at
        self._at += 1
        quoted = self._skip_quotes(False)
        if not quoted and self._peek() == b"]":
            self._at = hyphen
            return start, False
        if not quoted and (self._posix_like() or self._peek(2) in _SETS):
            raise UnsupportedError("it has a range that ends with a set")
        end = self._class_byte(quoted)
        if end < start:
            raise UnsupportedError("it has a range out of order")
        return end, quoted

    def _class_set(self, caseless: bool) -> ByteSet | None:
        """Read a set within a class; returns None for a single byte, which is not read."""
        if self._posix_like():
            found = _POSIX_NAME.match(self._pattern, self._at)
            if found is None or found[2] not in POSIX:
                raise UnsupportedError("it has [: [. or [= in a character class that is not known")
            self._at = found.end()
            self.latin1 = True
            name = b"alpha" if caseless and found[2] in (b"lower", b"upper") else found[2]
            return ALL & ~POSIX[name] if found[1] else POSIX[name]
        if self._peek() == b"[" and self._peek(2) in (b"[:", b"[.", b"[="):
            self.portable = False
        if self._peek() == b"\\" and self._at + 1 < len(self._pattern):
            self._at += 1
            one = self._set_escape()
            if one is None:
                self._at -= 1
            return one
        return None

    def _class_byte(self, quoted: bool) -> int:
        """Read one byte of a class."""
        if self._at >= len(self._pattern):
            raise UnsupportedError("it has a character class that does not end")
        byte = self._pattern[self._at]
        self._at += 1
        if byte != 0x5C or quoted:
            return byte
        following = self._peek()
        if following == b"":
            raise UnsupportedError("it ends with a backslash")
        if following == b"b":
            self._at += 1
            return 0x08
        return self._byte_escape()

    def _posix_like(self) -> bool:
        """Whether what begins here is `[:name:]` or the like, as PCRE's `check_posix_syntax` tells."""
        if self._peek(2) not in (b"[:", b"[.", b"[="):
            return False
        terminator = self._pattern[self._at + 1]
        at = self._at + 2
        while at < len(self._pattern):
            byte, after = self._pattern[at], self._pattern[at + 1 : at + 2]
            if byte == 0x5C and after in (b"]", b"\\"):
                at += 1
            elif (byte == 0x5B and after == bytes([terminator])) or byte == 0x5D:
                return False
            elif byte == terminator and after == b"]":
                return True
            at += 1
        return False


_SETS: Final = frozenset(bytes((0x5C, letter)) for letter in ESCAPES)
