"""`query`: SQL over a store's views, as a table, CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
from rich.cells import cell_len

from topicwarden.cli import EXIT_BLIND, EXIT_CLEAN
from topicwarden.cli.options import one_of
from topicwarden.cli.period import Period
from topicwarden.cli.signals import Interrupt, told_at_once
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.output.escape import MIN_COLUMNS, encodable, shorten, visible
from topicwarden.output.jsonl import encode
from topicwarden.output.sinks import terminal_width
from topicwarden.store.reader import Store
from topicwarden.store.views import DEFAULT_MEMORY, Scope, Views, failures
from topicwarden.store.views_sql import VIEWS

FORMATS: Final = ("text", "csv", "jsonl")
_MEASURED: Final = 200
"""Rows that say how wide a table's columns are."""
_GAP: Final = 2
_BATCH: Final = 2048
_SIZE: Final = re.compile(r"(\d+)\s*(KiB|MiB|GiB)", re.IGNORECASE)
_UNITS: Final = {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_MIN_MEMORY: Final = 64 << 20
_NULL: Final = "NULL"
_FORMULA: Final = ("=", "+", "-", "@", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What spreadsheets take a cell that begins with it for a formula (OWASP, CSV injection); and our own mark."""


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """How a query runs and prints."""

    output_format: str = "text"
    memory: int = DEFAULT_MEMORY
    threads: int | None = None
    period: Period = field(default_factory=Period)


def run(folder: Path, sql: str, options: QueryOptions) -> int:
    """Run one statement and print its rows; raises ConfigurationError or ObservationError."""
    write = {"text": _text, "csv": _csv, "jsonl": _jsonl}[one_of("--format", options.output_format, FORMATS)]
    scope = Scope(options.period.first_ns, options.period.last_ns)
    with (
        Views(Store(folder), scope, memory=options.memory, threads=options.threads) as views,
        Interrupt() as interrupt,
        told_at_once(views.interrupt),
    ):
        try:
            with failures():
                write(_rows(views, sql, interrupt))
        except duckdb.InterruptException:
            sys.stdout.flush()
            sys.stderr.write("interrupted\n")
            return EXIT_BLIND
    return EXIT_CLEAN


def list_views() -> int:
    """Print the views and their columns; needs no store."""
    for name, view in VIEWS.items():
        print(f"{name}: {view.about}")
        width = max(map(len, view.columns))
        for column, meaning in view.columns.items():
            print(f"  {column:<{width}}  {meaning.replace('`', '')}")
        print()
    return EXIT_CLEAN


def memory_named(text: str) -> int:
    """Return the bytes that `512MiB` names; raises ConfigurationError."""
    found = _SIZE.fullmatch(text.strip())
    size = int(found[1]) * _UNITS[found[2].lower()] if found else 0
    if size < _MIN_MEMORY:
        raise ConfigurationError(
            Problem(f"--memory {text!r} is no size of 64MiB or more", hint="such as 512MiB or 4GiB")
        )
    return size


@dataclass(frozen=True, slots=True)
class _Result:
    """What a statement gives."""

    names: Sequence[str]
    rigid: Sequence[bool]
    """Whether a column's values must not be shortened: numbers and times."""
    rows: Iterator[list[Any]]
    """They come as they are asked for."""


def _rows(views: Views, sql: str, interrupt: Interrupt) -> _Result:
    reader = views.reader(sql, _BATCH)

    def rows() -> Iterator[list[Any]]:
        for batch in reader:
            if interrupt.happened:  # between two batches no statement runs that could be interrupted
                raise duckdb.InterruptException
            yield from map(list, zip(*map(_values, batch.columns), strict=True))

    rigid = [not (pa.types.is_string(kind) or pa.types.is_nested(kind)) for kind in reader.schema.types]
    return _Result([str(name) for name in reader.schema.names], rigid, rows())


def _values(column: pa.Array) -> list[Any]:
    """Return a column's values as JSON has them, times as ISO 8601."""
    if pa.types.is_timestamp(column.type):
        return [None if text is None else _iso(text, zone=True) for text in column.cast(pa.string()).to_pylist()]
    plain = _without_timestamps(column.type)
    return [_plain(value) for value in (column if plain == column.type else column.cast(plain)).to_pylist()]


def _without_timestamps(kind: pa.DataType) -> pa.DataType:
    """Return a type whose values Python can hold: datetime has no nanoseconds."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_timestamps(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _without_timestamps(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_without_timestamps(kind.key_type), _without_timestamps(kind.item_type))
    return kind


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "nanoseconds"):
        return [_plain(inner) for inner in value]
    return str(value)


def _iso(text: str, *, zone: bool) -> str:
    """Return `2026-11-28 20:15:00.500000000` as ISO 8601 in UTC, without zeros at its end."""
    whole, dot, fraction = text.removesuffix("Z").partition(".")
    fraction = fraction.rstrip("0")
    return whole.replace(" ", "T") + (f"{dot}{fraction}" if fraction else "") + ("Z" if zone else "")


def _cell(value: Any) -> str:
    """Return a value as a person sees it, fit to be printed."""
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return visible(encode({"": value})[4:-1])
    return visible(str(value))


def _text(result: _Result) -> None:
    """Write a table that fits the terminal, or where it cannot, a list; into a pipe, cells with tabs between them."""
    width = terminal_width(sys.stdout)
    heads = [visible(name) for name in result.names]
    if width is None:
        for cells in chain([heads], (map(_cell, row) for row in result.rows)):
            _put("\t".join(cells))
        return
    first = list(islice(result.rows, _MEASURED))
    numeric = [
        all(row[place] is None or isinstance(row[place], int | float) for row in first) for place in range(len(heads))
    ]
    wanted = [
        max(cell_len(text) for text in (head, *(_cell(row[place]) for row in first)))
        for place, head in enumerate(heads)
    ]
    widths = fitted(wanted, result.rigid, width)
    if widths is not None:
        _put(_line(result.names, widths, numeric))
        _put(_line(["-" * room for room in widths], widths, numeric))
    count = 0
    for row in chain(first, result.rows):
        count += 1
        if widths is not None:
            _put(_line(row, widths, numeric))
            continue
        _put(f"-- row {count}")
        for head, value in zip(heads, row, strict=True):
            _put(f"{head:<{max(map(cell_len, heads))}}  {_cell(value)}")
    sys.stderr.write(f"{count} {'row' if count == 1 else 'rows'}\n")


def fitted(wanted: Sequence[int], rigid: Sequence[bool], width: int) -> list[int] | None:
    """Return widths of columns that fit together: the widest give way, none below what a shortened name needs.

    None: they do not fit. Rigid ones do not give way.
    """
    room = width - _GAP * (len(wanted) - 1)
    limit = max(max(wanted, default=0), MIN_COLUMNS)
    while True:
        widths = [one if fixed else min(one, limit) for one, fixed in zip(wanted, rigid, strict=True)]
        if sum(widths) <= room:
            return widths
        if limit == MIN_COLUMNS:
            return None
        limit -= 1


def _line(values: Sequence[Any], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    """Return values below each other; those that are too long lose their middle."""
    parts = []
    for value, room, right in zip(values, widths, numeric, strict=True):
        text = _cell(value)
        # Only what came later than what was measured can be too long and rigid; it sticks out.
        fitting = text
        if cell_len(text) > room >= MIN_COLUMNS:
            fitting = shorten(value if isinstance(value, str) else text, room)
        padding = " " * (room - cell_len(fitting))
        parts.append(padding + fitting if right else fitting + padding)
    return (" " * _GAP).join(parts).rstrip()


def _csv(result: _Result) -> None:
    """Write CSV (RFC 4180) that no spreadsheet takes for formulas, and that is safe to look at."""
    for row in chain([list(result.names)], result.rows):
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow(["" if value is None else inert(value) for value in row])
        sys.stdout.write(encodable(line.getvalue(), sys.stdout.encoding))
    sys.stdout.flush()


def inert(value: Any) -> str:
    """Return a value as a cell that is no formula: text that could be one gets an apostrophe before it."""
    text = _cell(value)
    if isinstance(value, str) and text.lstrip().startswith(_FORMULA):
        return f"'{text}"
    return text


def _jsonl(result: _Result) -> None:
    """Write an object a row."""
    keys = _different(result.names)
    for row in result.rows:
        sys.stdout.write(encode(dict(zip(keys, row, strict=True))) + "\n")
    sys.stdout.flush()


def _different(names: Sequence[str]) -> list[str]:
    """Return the names, those that were there before with a number behind them."""
    found: list[str] = []
    for name in names:
        key, number = name, 1
        while key in found:
            key, number = f"{name}_{number}", number + 1
        found.append(key)
    return found


def _put(line: str) -> None:
    sys.stdout.write(encodable(line, sys.stdout.encoding) + "\n")
