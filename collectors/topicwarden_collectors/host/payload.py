"""What a payload looks like: its entropy and its shape, as the plugin in Mosquitto judges them (payload.c).

A sensor may log only the beginning of a payload: then what its end would tell is not asked.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

from topicwarden.events import Shape

LOOKED_AT: Final = 1024
"""Bytes of a payload that are looked at, from its beginning."""
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_JSON_BEGINS: Final = re.compile(rb'\{\s*(?:"|\}|$)|\[\s*(?:[\[{"\]\d-]|true\b|false\b|null\b|$)')
_HEX: Final = re.compile(rb"[0-9A-Fa-f]+")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]+")
_BLANKS: Final = b" \t\n\r"
_CLASS: Final = bytes(
    0 if 65 <= c <= 90 else 1 if 97 <= c <= 122 else 2 if 48 <= c <= 57 else 3 if c in b"+/" else 4 for c in range(256)
)
"""Upper case, lower case, digits, the two signs of the plain alphabet, the rest (of the URL alphabet)."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What is kept of a payload."""

    entropy: float
    """Bits per byte of the first `LOOKED_AT` bytes."""
    shape: Shape


def measure(payload: bytes, *, cut: bool = False) -> Looks:
    """Judge a payload, or with `cut` its beginning."""
    if not payload:
        return Looks(0.0, Shape.UNKNOWN if cut else Shape.EMPTY)
    looked = payload[:LOOKED_AT]
    total = len(looked)
    bits = math.log2(total) - sum(n * math.log2(n) for n in Counter(looked).values()) / total
    return Looks(max(0.0, bits), _shape(payload, looked, cut=cut))


def _shape(payload: bytes, looked: bytes, *, cut: bool) -> Shape:
    if _CONTROL.search(looked):
        return Shape.BINARY
    ascii_only = looked.isascii()
    if not ascii_only and not _printable_utf8(looked, cut=cut or len(payload) > len(looked)):
        return Shape.BINARY
    if _is_json(payload, cut=cut):
        return Shape.JSON
    if not ascii_only:
        return Shape.TEXT
    if _is_hex(payload, looked, cut=cut):
        return Shape.HEX
    if _is_base64(payload, looked, cut=cut):
        return Shape.BASE64
    return Shape.TEXT


def _printable_utf8(data: bytes, *, cut: bool) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if not cut or error.reason != "unexpected end of data":
            return False
        text = data[: error.start].decode()
    return not any("\x80" <= character <= "\x9f" for character in text)


def _is_json(payload: bytes, *, cut: bool) -> bool:
    blanks = len(payload[:64]) - len(payload[:64].lstrip(_BLANKS))
    if cut:
        return _JSON_BEGINS.match(payload, blanks) is not None
    ending = payload[-64:]
    end = len(payload) - (len(ending) - len(ending.rstrip(_BLANKS)))
    if end - blanks < 2:
        return False
    return (payload[blanks], payload[end - 1]) in ((0x7B, 0x7D), (0x5B, 0x5D))


def _is_hex(payload: bytes, looked: bytes, *, cut: bool) -> bool:
    if len(payload) < 16 or (len(payload) % 2 and not cut) or _HEX.fullmatch(looked) is None:
        return False
    return not looked.isdigit() and not looked.isalpha()


def _is_base64(payload: bytes, looked: bytes, *, cut: bool) -> bool:
    """Tell base64 from words by how often neighbours differ in class: payload.c has the figures."""
    length = len(payload)
    if payload.endswith(b"\n"):
        length -= 1
        looked = looked[:length]
    if length < 16:
        return False
    padding = 0
    if payload[length - 1 : length] == b"=":
        padding = 2 if payload[length - 2 : length - 1] == b"=" else 1
    if not cut and (length % 4 != 0 if padding else length % 4 == 1):
        return False
    looked = looked[: length - padding]
    if _BASE64.fullmatch(looked) is None:
        return False
    plain, url = any(c in looked for c in b"+/"), any(c in looked for c in b"-_")
    if (plain and url) or not re.search(rb"[A-Z]", looked) or not re.search(rb"[a-z]", looked):
        return False
    if not padding and not (plain or url or re.search(rb"\d", looked)):
        return False
    classes = looked.translate(_CLASS)
    changes = sum(map(int.__ne__, classes, classes[1:]))
    return changes * 8 >= len(looked) * 3
