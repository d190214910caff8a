"""Reads AMQP frames so that no header a client makes up can end our connection.

pika 1.4.4 raises from within its reading when a header's value does not fit Python's types: a timestamp past the year
9999, tables nested a thousand deep. RabbitMQ 3.10.8 passes them on (of floats only those that are numbers: others end
the publisher's connection), and repeats a message's headers in its firehose: one message would blind whoever reads
that. Such a frame is read here instead, with None for what has no value in Python.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from pika import frame, spec
from pika.exceptions import InvalidFrameError
from pika.spec import BasicProperties

_HEAD: Final = struct.Struct(">BHL")
_DEEPEST: Final = 32
"""Tables and arrays nested deeper than this are left out."""
_NUMBERS: Final = {
    kind: struct.Struct(code)
    for kind, code in {
        "b": ">b",
        "B": ">B",
        "U": ">h",
        "s": ">h",
        "u": ">H",
        "I": ">i",
        "i": ">I",
        "l": ">q",
        "L": ">q",
        "t": ">?",
    }.items()
}
_WITHOUT_VALUE: Final = {"f": 4, "d": 8, "D": 5, "T": 8, "V": 0}
"""Kinds that may have no value in Python, with their lengths."""
_PROPERTIES: Final = (
    ("content_type", "text"),
    ("content_encoding", "text"),
    ("headers", "table"),
    ("delivery_mode", "B"),
    ("priority", "B"),
    ("correlation_id", "text"),
    ("reply_to", "text"),
    ("expiration", "text"),
    ("message_id", "text"),
    ("timestamp", "L"),
    ("type", "text"),
    ("user_id", "text"),
    ("app_id", "text"),
    ("cluster_id", "text"),
)
"""In the order of their flags, from the highest bit (AMQP 0-9-1, section 4.2.6.1)."""


def read_frame(data: bytes) -> tuple[int, Any]:
    """Return how many bytes the next frame of `data` takes (0: it is not complete) and the frame, as pika does.

    Raises pika's InvalidFrameError for what is no frame.
    """
    try:
        return frame.decode_frame(data)
    except InvalidFrameError:
        raise
    except Exception as error:
        # Whatever it is: pika's own exceptions for headers have no base that they could be told by.
        found = _header_frame(data)
        if found is None:
            raise InvalidFrameError(f"a frame that cannot be decoded: {type(error).__name__}") from error
        return found


def _header_frame(data: bytes) -> tuple[int, frame.Header] | None:
    """Return the content header frame at the beginning of `data`, its properties read as far as they make sense."""
    if len(data) < _HEAD.size:
        return None
    kind, channel, size = _HEAD.unpack_from(data)
    end = _HEAD.size + size + 1
    if kind != spec.FRAME_HEADER or size < 14 or len(data) < end:
        return None
    content = bytes(data[_HEAD.size : end - 1])
    (body_size,) = struct.unpack_from(">Q", content, 4)
    return end, frame.Header(channel, body_size, read_properties(content[12:]))


def read_properties(encoded: bytes) -> BasicProperties:
    """Decode a message's properties; those after something senseless stay None. Raises nothing."""
    properties = BasicProperties()
    reader = _Reader(encoded)
    try:
        flags = reader.number("u")
        for bit, (name, kind) in enumerate(_PROPERTIES):
            if not flags & 1 << 15 - bit:
                continue
            if kind == "text":
                value: object = reader.text(reader.number("B"))
            elif kind == "table":
                value = reader.table(_DEEPEST)
            else:
                value = reader.number(kind)
            setattr(properties, name, value)
    except (struct.error, ValueError):
        pass
    return properties


class _Reader:
    """A place in encoded properties."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, kind: str) -> int:
        code = _NUMBERS[kind]
        (value,) = code.unpack_from(self._data, self._at)
        self._at += code.size
        return value  # type: ignore[no-any-return] # every code in _NUMBERS is of an integer

    def octets(self, length: int) -> bytes:
        if self._at + length > len(self._data):
            raise ValueError("it ends early")
        self._at += length
        return self._data[self._at - length : self._at]

    def text(self, length: int) -> str | bytes:
        octets = self.octets(length)
        try:
            return octets.decode()
        except UnicodeDecodeError:
            return octets

    def table(self, depth: int) -> dict[Any, Any] | None:
        end = self._end()
        if depth == 0:
            self._at = end
            return None
        table = {}
        while self._at < end:
            key = self.text(self.number("B"))
            table[key] = self.value(depth)
        return table

    def array(self, depth: int) -> list[Any] | None:
        end = self._end()
        if depth == 0:
            self._at = end
            return None
        values = []
        while self._at < end:
            values.append(self.value(depth))
        return values

    def value(self, depth: int) -> Any:
        kind = chr(self.number("B"))
        if kind in _NUMBERS:
            value = self.number(kind)
            return bool(value) if kind == "t" else value
        if kind == "S":
            return self.text(self.number("i"))
        if kind == "x":
            return self.octets(self.number("i"))
        if kind == "F":
            return self.table(depth - 1)
        if kind == "A":
            return self.array(depth - 1)
        if kind in _WITHOUT_VALUE:
            self.octets(_WITHOUT_VALUE[kind])
            return None
        raise ValueError(f"no kind of value: {kind!r}")

    def _end(self) -> int:
        length = self.number("i")
        if self._at + length > len(self._data):
            raise ValueError("it ends early")
        return self._at + length
