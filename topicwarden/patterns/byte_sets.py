"""Sets of bytes as 256-bit integers, and the ones that PCRE has names for.

Erlang's PCRE (8.44 in OTP 25) is built with tables of ISO 8859-1, so that `\\w` and `[[:alpha:]]` hold bytes above 127,
whatever the locale. The sets here were asked of it byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

ByteSet = int
"""Bit number n stands for byte n."""


def byte_range(first: int, last: int) -> ByteSet:
    """Return the bytes from `first` to `last`, both included."""
    return (1 << (last + 1)) - (1 << first)


def byte_set(members: Iterable[int]) -> ByteSet:
    """Return these bytes."""
    found = 0
    for byte in members:
        found |= 1 << byte
    return found


def members(one: ByteSet) -> Iterator[int]:
    """Yield the bytes of a set in ascending order."""
    while one:
        lowest = one & -one
        yield lowest.bit_length() - 1
        one ^= lowest


ALL: Final = byte_range(0, 255)
NEWLINE: Final = 1 << 0x0A

_ASCII_UPPER: Final = byte_range(0x41, 0x5A)
_ASCII_LOWER: Final = byte_range(0x61, 0x7A)
_UPPER: Final = _ASCII_UPPER | byte_range(0xC0, 0xD6) | byte_range(0xD8, 0xDE)
_WITH_UPPER: Final = _ASCII_LOWER | byte_range(0xE0, 0xF6) | byte_range(0xF8, 0xFE)
_LOWER: Final = _WITH_UPPER | byte_set((0xAA, 0xB5, 0xBA, 0xDF, 0xFF))
_ALPHA: Final = _UPPER | _LOWER
_DIGIT: Final = byte_range(0x30, 0x39)
_ALNUM: Final = _ALPHA | _DIGIT
_WORD: Final = _ALNUM | 1 << 0x5F
_SPACE: Final = byte_range(0x09, 0x0D) | 1 << 0x20
_GRAPH: Final = byte_range(0x21, 0x7E) | byte_range(0xA0, 0xFF)

POSIX: Final[Mapping[bytes, ByteSet]] = {
    b"alpha": _ALPHA,
    b"lower": _LOWER,
    b"upper": _UPPER,
    b"alnum": _ALNUM,
    b"ascii": ALL,  # to PCRE the printable and the control characters together, and those go to 255 here
    b"blank": byte_set((0x09, 0x20)),
    b"cntrl": byte_range(0x00, 0x1F) | byte_range(0x7F, 0x9F),
    b"digit": _DIGIT,
    b"graph": _GRAPH,
    b"print": _GRAPH | 1 << 0x20,
    b"punct": _GRAPH & ~_ALNUM,
    b"space": _SPACE,
    b"word": _WORD,
    b"xdigit": _DIGIT | byte_range(0x41, 0x46) | byte_range(0x61, 0x66),
}

ESCAPES: Final[Mapping[int, ByteSet]] = {
    letter: one
    for small, inside in {
        "d": _DIGIT,
        "w": _WORD,
        "s": _SPACE,
        "h": byte_set((0x09, 0x20, 0xA0)),
        "v": byte_range(0x0A, 0x0D) | 1 << 0x85,
    }.items()
    for letter, one in ((ord(small), inside), (ord(small.upper()), ALL & ~inside))
}
"""By the letter after the backslash."""


def folded(one: ByteSet) -> ByteSet:
    """Return a set with the other case of each of its letters; in ISO 8859-1 all pairs are 32 apart."""
    return one | (one & _UPPER) << 32 | (one & _WITH_UPPER) >> 32


def partition(sets: Iterable[ByteSet]) -> tuple[bytes, dict[ByteSet, tuple[int, ...]]]:
    """Sort all bytes into classes that none of the sets tells apart (minterms).

    Returns the class of each byte as a table for `bytes.translate`, and for each set the classes it consists of.
    """
    different = list(dict.fromkeys(sets))
    blocks = [ALL]
    for one in different:
        blocks = [part for block in blocks for part in (block & one, block & ~one) if part]
    biggest = max(range(len(blocks)), key=lambda number: blocks[number].bit_count())
    table = bytearray([biggest]) * 256
    for number, block in enumerate(blocks):
        if number != biggest:
            for byte in members(block):
                table[byte] = number
    return bytes(table), {one: tuple(number for number, block in enumerate(blocks) if block & one) for one in different}
