"""Reads the journal's export format (systemd, "Journal Export Formats"), fed line by line.

An entry is lines `FIELD=value`, or `FIELD` and then a value in binary form: its length in eight bytes, little-endian,
and the value, which may hold line feeds. Any program may send such values, so the length is what counts: else a program
could write whole entries of others into a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CURSOR: Final = b"__CURSOR"
"""The field that tells the place of an entry in the journal; it is an entry's first."""
_KEPT: Final = frozenset({CURSOR, b"MESSAGE", b"SYSLOG_IDENTIFIER", b"_UID"})
_MAX_VALUE: Final = 4 << 20


class JournalExport:
    """Puts entries together; keeps the fields that matter."""

    def __init__(self) -> None:
        self._entry: dict[bytes, bytes] = {}
        self._name: bytes | None = None
        """The field whose binary value is being read."""
        self._value: list[bytes] = []
        self._came = 0
        self._lost = False

    def lose(self) -> None:
        """Say that a line is missing; within a binary value nothing after it can be told from the value."""
        if self._name is not None:
            self._lost = True

    def line(self, line: bytes) -> Mapping[bytes, bytes] | None:
        """Add a line; return the entry that it ends."""
        if self._lost:
            return None
        if self._name is not None:
            self._more(self._name, line)
        elif not line:
            return self._take()
        else:
            name, equals, value = line.partition(b"=")
            if not equals:
                self._name, self._value, self._came = name, [], 0
            elif name in _KEPT:
                self._entry[name] = value
        return None

    def finish(self) -> tuple[Mapping[bytes, bytes], bool]:
        """Return the last entry, and whether it ends within a value."""
        cut = self._name is not None
        self._name = None
        return ({} if cut else self._take()), cut

    def _more(self, name: bytes, line: bytes) -> None:
        self._came += len(line) + 1
        if self._came <= _MAX_VALUE or len(self._value) < 9:
            self._value += [line, b"\n"]
        if self._came < 9:
            return
        if len(self._value) > 2 and len(self._value[0]) < 8:
            self._value = [b"".join(self._value)]
        length = int.from_bytes(self._value[0][:8], "little")
        if self._came <= 8 + length:
            return
        if name in _KEPT and length <= _MAX_VALUE:
            self._entry[name] = b"".join(self._value)[8 : 8 + length]
        self._name, self._value = None, []

    def _take(self) -> Mapping[bytes, bytes]:
        entry, self._entry = self._entry, {}
        return entry
