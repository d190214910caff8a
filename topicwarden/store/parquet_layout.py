"""Reads how a Parquet file is laid out, byte for byte, and refuses what another reader may understand otherwise.

pyarrow forgives much in a file's description, ends the process for some of it (26.0: a column chunk whose type is not
the schema's), and DuckDB refuses or skips other things. So the description is read here first: nothing in it that we
do not know, every page where it should be, no byte that belongs to nothing. Formats: Apache Thrift's compact protocol,
and parquet.thrift of format 2.11.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa

MAGIC: Final = b"PAR1"
MAX_FOOTER: Final = 64 << 20
MAX_PAGE_HEADER: Final = 1 << 16
_MAX_DEPTH: Final = 16
KNOWN_WRITER: Final = 26
"""The newest major version of pyarrow whose files were looked at; what newer ones add is passed over."""
_WRITER: Final = re.compile(rb"parquet-cpp-arrow version (\d{1,4})\.")
Fields = Mapping[int, Any]
"""A Thrift structure: its fields by number."""
_ZSTD: Final = 6
_OPTIONAL: Final = 1
_BOOL, _BYTE, _INT, _BINARY, _LIST, _STRUCT = range(6)
_TEXT_TYPE: Final[Fields] = {1: {}}


def _unsigned(bits: int) -> dict[int, Any]:
    return {10: {1: bits, 2: False}}


_TYPES: Final[Mapping[str, tuple[int, int | None, Any]]] = {
    "int32": (1, None, None),
    "int64": (2, None, None),
    "float": (4, None, None),
    "uint8": (1, 11, _unsigned(8)),
    "uint32": (1, 13, _unsigned(32)),
    "uint64": (2, 14, _unsigned(64)),
    "string": (6, 0, _TEXT_TYPE),
}
"""The physical, converted and logical type of each of our columns' types."""


@dataclass(frozen=True, slots=True)
class _Struct:
    """Which fields a structure has, and of which kinds; `never`: those that no file of ours has."""

    fields: Mapping[int, Any]
    never: frozenset[int] = frozenset()


_I16, _I32, _I64 = (_INT, 4), (_INT, 5), (_INT, 6)
_ENCODING = (_INT, 5, frozenset({0, 2, 3, 4, 5, 6, 7, 8, 9}))
_PAGE_KIND = (_INT, 5, frozenset({0, 1, 2, 3}))
_TEXT = (_BINARY, 8)
_FLAG = (_BOOL, 1)


def _of(fields: Mapping[int, Any], never: Iterable[int] = ()) -> tuple[int, int, _Struct]:
    return (_STRUCT, 12, _Struct(fields, frozenset(never)))


def _many(of: Any) -> tuple[int, int, Any]:
    return (_LIST, 9, of)


_SUMMARY = _of({1: _TEXT, 2: _TEXT, 3: _I64, 4: _I64, 5: _TEXT, 6: _TEXT, 7: _FLAG, 8: _FLAG})
_COLUMN = _of(
    {
        1: _I32,
        2: _many(_ENCODING),
        3: _many(_TEXT),
        4: _I32,
        5: _I64,
        6: _I64,
        7: _I64,
        9: _I64,
        11: _I64,
        12: _SUMMARY,
        13: _many(_of({1: _PAGE_KIND, 2: _ENCODING, 3: _I32})),
        16: _of({1: _I64, 2: _many(_I64), 3: _many(_I64)}),
    },
    never=(10, 14, 15),  # an index, a Bloom filter
)
_CHUNK = _of({2: _I64, 3: _COLUMN}, never=(1, 4, 5, 6, 7, 8, 9))  # another file, indexes, encryption
_GROUP = _of({1: _many(_CHUNK), 2: _I64, 3: _I64, 5: _I64, 6: _I64, 7: _I16}, never=(4,))  # a sorting
_LOGICAL = _of({1: _of({}), 10: _of({1: (_BYTE, 3), 2: _FLAG})})
_ELEMENT = _of({1: _I32, 3: _I32, 4: _TEXT, 5: _I32, 6: _I32, 9: _I32, 10: _LOGICAL})
_FILE = _of(
    {
        1: _I32,
        2: _many(_ELEMENT),
        3: _I64,
        4: _many(_GROUP),
        5: _many(_of({1: _TEXT, 2: _TEXT})),
        6: _TEXT,
        7: _many(_of({1: _of({})})),
    },
    never=(8, 9),  # encryption
)
_PAGE = _of(
    {
        1: _PAGE_KIND,
        2: _I32,
        3: _I32,
        5: _of({1: _I32, 2: _ENCODING, 3: _ENCODING, 4: _ENCODING, 5: _SUMMARY}),
        7: _of({1: _I32, 2: _ENCODING, 3: _FLAG}),
    }
)
_PAGE_KINDS: Final = (0, 2)
"""Of rows (version 1), and a dictionary."""


class LayoutError(ValueError):
    """A file that is not laid out as we write it."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a row group says of a column."""

    nulls: int | None
    bounds: Sequence[tuple[Any, bool, bool]]
    """Each value it names, whether that is the least (or else the greatest), and whether that is exact."""


@dataclass(frozen=True, slots=True)
class Group:
    """A row group."""

    rows: int
    statistics: Mapping[str, Statistics | None]
    """Of each column."""


def read_layout(path: Path, schema: pa.Schema) -> list[Group]:
    """Return a file's row groups; raises OSError, and LayoutError for a file that is damaged or has other columns."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size < 12 or file.read(4) != MAGIC:
            raise LayoutError("it does not begin as a Parquet file does")
        file.seek(size - 8)
        length, magic = struct.unpack("<I4s", file.read(8))
        end = size - 8 - length
        if magic != MAGIC or end < 4 or length > MAX_FOOTER:
            raise LayoutError("it does not end as a Parquet file does: it was cut, or something was added")
        file.seek(end)
        data = file.read(length)
        writer = _WRITER.search(data)
        strict = writer is None or int(writer[1]) <= KNOWN_WRITER
        reader = _Reader(data, strict=strict)
        about = reader.structure(_FILE[2])
        if reader.place != len(data):
            raise LayoutError(f"{len(data) - reader.place} bytes behind its description belong to nothing")
        try:
            return _groups(file, about, end, schema, strict=strict)
        except (KeyError, TypeError, AttributeError, IndexError, struct.error, UnicodeDecodeError) as error:
            raise LayoutError(f"its description is not one of ours ({error!r})") from error


def _groups(file: BinaryIO, about: Fields, end: int, schema: pa.Schema, *, strict: bool) -> list[Group]:
    _check_schema(about[2], schema)
    groups = []
    place = 4
    for said in about[4]:
        if len(said[1]) != len(schema.names):
            raise LayoutError("a row group has not as many columns as the file")
        statistics: dict[str, Statistics | None] = {}
        for chunk, name, kind in zip(said[1], schema.names, schema.types, strict=True):
            column = chunk[3]
            wanted = (_TYPES[str(kind)][0], [name.encode()], _ZSTD, said[3])
            if (column[1], column[3], column[4], column[5]) != wanted:
                raise LayoutError(f"column {name} is described otherwise than the file")
            if place != column.get(11, column[9]):
                raise LayoutError(f"column {name} is said to begin at {column.get(11, column[9])}, not {place}")
            place = _pages(file, place, column, name, end, strict=strict)
            statistics[name] = _statistics(column.get(12), str(kind))
        groups.append(Group(said[3], statistics))
    if place != end:
        raise LayoutError(f"{end - place} bytes belong to no column")
    if sum(group.rows for group in groups) != about[3]:
        raise LayoutError("its row groups have another number of rows than it says")
    return groups


def _check_schema(elements: Sequence[Fields], schema: pa.Schema) -> None:
    wanted = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        physical, converted, logical = _TYPES[str(kind)]
        wanted.append((name.encode(), physical, _OPTIONAL, None, converted, logical))
    found = [tuple(element.get(field) for field in (4, 1, 3, 5, 6, 10)) for element in elements[1:]]
    if found != wanted or (elements[0].get(3), elements[0].get(5)) != (0, len(wanted)):
        names = ", ".join(str(one[0]) for one in found)
        raise LayoutError(f"its columns are {names[:400]}, not {', '.join(schema.names)}, or of other types")


def _pages(file: BinaryIO, start: int, column: Fields, name: str, end: int, *, strict: bool) -> int:
    """Go from page to page; returns where the column ends."""
    until = start + column[7]
    if column[7] <= 0 or until > end:
        raise LayoutError(f"column {name} is said to end behind the rows")
    values, place = 0, start
    while place < until:
        file.seek(place)
        reader = _Reader(file.read(min(MAX_PAGE_HEADER, until - place)), strict=strict)
        header = reader.structure(_PAGE[2])
        kind = header[1]
        if kind not in _PAGE_KINDS or (5 if kind == 0 else 7) not in header or len({5, 7} & set(header)) != 1:
            raise LayoutError(f"column {name} has a page of kind {kind}, or of two kinds, which we never write")
        if (kind == 2) != (place == start and 11 in column):
            raise LayoutError(f"column {name} has its pages in another order than it says")
        if kind == 0:
            if values == 0 and place != column[9]:
                raise LayoutError(f"column {name} is said to have its rows at {column[9]}, they are at {place}")
            values += header[5][1]
        if header[2] < 0 or header[3] < 0:
            raise LayoutError(f"column {name} has a page of less than nothing")
        place += reader.place + header[3]
    if place != until or values != column[5]:
        raise LayoutError(f"column {name} has pages of {values} rows, and is said to have {column[5]}")
    return place


def _statistics(said: Fields | None, kind: str) -> Statistics | None:
    if said is None:
        return None
    # Fields 1 and 2 are the old form of 5 and 6, which old readers believe.
    bounds = [
        (_value(said[field], kind), least, bool(said.get(exact, True)))
        for field, least, exact in ((1, False, 7), (2, True, 8), (5, False, 7), (6, True, 8))
        if field in said
    ]
    return Statistics(said.get(3), bounds)


def _value(data: bytes, kind: str) -> Any:
    if kind == "string":
        return data
    if kind == "float":
        return struct.unpack("<f", data)[0]
    if len(data) != (8 if kind.endswith("64") else 4):
        raise LayoutError("a column's summary has a value of another length than the column")
    return int.from_bytes(data, "little", signed=not kind.startswith("u"))


class _Reader:
    """Thrift's compact protocol, as strict as it can be read."""

    def __init__(self, data: bytes, *, strict: bool) -> None:
        """`strict`: refuse fields that we do not know."""
        self.place = 0
        self._data = data
        self._strict = strict

    def structure(self, about: _Struct, depth: int = 0) -> dict[int, Any]:
        """Read a structure's fields; those we do not know are read and left out."""
        if depth > _MAX_DEPTH:
            raise LayoutError("its description is nested too deep")
        found: dict[int, Any] = {}
        last = 0
        while (head := self._byte()) != 0:
            kind = head & 15
            if head >> 4 == 0:
                raise LayoutError("its description has fields in another order than ours")
            last += head >> 4
            known = about.fields.get(last)
            if known is None:
                if self._strict or last in about.never:
                    raise LayoutError(f"its description has a field {last} that we never write")
                self._skip(kind, depth)
            elif known == _FLAG and kind in (1, 2):
                found[last] = kind == 1
            elif known[1] == kind:
                found[last] = self._value(known, depth)
            else:
                raise LayoutError(f"its description has a field {last} of kind {kind}, not {known[1]}")
        return found

    def _value(self, known: Any, depth: int) -> Any:
        if known[0] == _INT:
            number = self._varint()
            number = (number >> 1) ^ -(number & 1)
            if len(known) > 2 and number not in known[2]:
                raise LayoutError(f"its description has a {number} that stands for nothing")
            return number
        if known[0] == _BINARY:
            return self._bytes(self._varint())
        if known[0] == _LIST:
            size, kind = self._list()
            # Of an empty list the kind says nothing.
            if kind != known[2][1] and size:
                raise LayoutError(f"its description has a list of kind {kind}, not {known[2][1]}")
            return [self._value(known[2], depth + 1) for _ in range(size)]
        if known[0] == _STRUCT:
            return self.structure(known[2], depth + 1)
        return self._byte()

    def _skip(self, kind: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise LayoutError("its description is nested too deep")
        if kind in (4, 5, 6):
            self._varint()
        elif kind == 8:
            self._bytes(self._varint())
        elif kind in (9, 10):
            size, of = self._list()
            for _ in range(size):
                self._skip(3 if of in (1, 2) else of, depth + 1)
        elif kind == 12:
            while (head := self._byte()) != 0:
                if head >> 4 == 0:
                    self._varint()
                self._skip(head & 15, depth + 1)
        elif kind in (3, 7):
            self._bytes(1 if kind == 3 else 8)
        elif kind not in (1, 2):
            raise LayoutError(f"its description has a value of kind {kind}, which there is not")

    def _list(self) -> tuple[int, int]:
        head = self._byte()
        size = head >> 4 if head >> 4 != 15 else self._varint()
        if size > len(self._data) - self.place:
            raise LayoutError("its description is cut short")
        return size, head & 15

    def _byte(self) -> int:
        if self.place >= len(self._data):
            raise LayoutError("its description is cut short")
        self.place += 1
        return self._data[self.place - 1]

    def _bytes(self, length: int) -> bytes:
        if length > len(self._data) - self.place:
            raise LayoutError("its description is cut short")
        self.place += length
        return self._data[self.place - length : self.place]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                if number >> 64 or (byte == 0 and shift):
                    raise LayoutError("its description has a number that is written in no usual way")
                return number
            shift += 7
            if shift > 63:
                raise LayoutError("its description has a number that is too large")
