"""Where a store's rows lie: the names of its files, and how they are written so that each is there whole or not."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from topicwarden.store.log import sync_folder
from topicwarden.store.model import Kind
from topicwarden.store.rows import SCHEMAS, SEGMENT

HOUR_NS: Final = 3_600_000_000_000
ROW_GROUP: Final = 1 << 20
_NAME: Final = re.compile(r"(\d{10})-(\d{10})\.parquet")
_HOUR: Final = re.compile(r"hour=(-?\d{4,6}\d{4}T\d{2})")
_BROKER: Final = "broker="
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LISTINGS: Final = 16
_MAX_FOLDER: Final = 200
_DELTA: Final = ("time_ns", SEGMENT)
"""Columns that mostly grow. Of all others few different values are the rule, even of entropy, which brokers' plugins
round: a dictionary takes a third of what splitting its bytes does."""
_PLAIN: Final = ("document", "raw")


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file of rows."""

    path: Path
    kind: Kind
    broker: str
    """'' for kinds that are not kept by broker."""
    hour: int
    """Hours since the epoch."""
    first: int
    """Number of the first segment it has rows of."""
    last: int


def hour_name(hour: int) -> str:
    """Return an hour since the epoch as `20261128T20`; hours outside of the years 1 to 9999 become the nearest."""
    clipped = min(max(hour, -17_259_888), 70_389_527)
    return f"{_EPOCH + timedelta(hours=clipped):%Y%m%dT%H}".rjust(11, "0")


def hour_of_name(name: str) -> int:
    """Return the hour of such a name; raises ValueError."""
    found = datetime.strptime(name, "%Y%m%dT%H").replace(tzinfo=UTC)
    return (found - _EPOCH) // timedelta(hours=1)


def folder_of(root: Path, kind: Kind, broker: str, hour: int) -> Path:
    """Return the folder of a kind's, broker's and hour's rows."""
    folder = root / kind.value
    if kind is Kind.EVENTS:
        # No separator, dot name or other trick of a broker's name reaches the file system.
        name = quote(broker, safe="", errors="surrogatepass").replace(".", "%2E")
        if len(name) > _MAX_FOLDER:
            # Two long names that begin alike stay two folders.
            name = f"{name[: _MAX_FOLDER - 65]}~{sha256(name.encode()).hexdigest()}"
        folder /= _BROKER + name
    return folder / f"hour={hour_name(hour)}"


def file_name(first: int, last: int) -> str:
    """Return the name of a file with the rows of these segments."""
    return f"{first:010}-{last:010}.parquet"


def row_files(root: Path, kind: Kind) -> list[RowFile]:
    """Return a kind's files by hour, broker and segment, without those whose rows another one has too.

    A crash while files are merged leaves both; the merged one is whole, or it would not have its name.
    """
    found: list[RowFile] = []
    for folder in hour_folders(root, kind):
        found += files_in(folder, kind)
    return _without_doubles(found)


def files_in(folder: Path, kind: Kind) -> list[RowFile]:
    """Return all files of one folder, also those whose rows another one has too; none for what is no such folder."""
    hour = _HOUR.fullmatch(folder.name)
    broker = ""
    if kind is Kind.EVENTS:
        broker = unquote(folder.parent.name.removeprefix(_BROKER), errors="surrogatepass")
    try:
        number = hour_of_name(hour[1]) if hour is not None else None
        names = [(folder / path, name) for path in _steady(folder) if (name := _NAME.fullmatch(path)) is not None]
    except (ValueError, FileNotFoundError, NotADirectoryError):
        return []
    if number is None:
        return []
    found = [RowFile(path, kind, broker, number, int(name[1]), int(name[2])) for path, name in names]
    return sorted(found, key=lambda file: (file.first, -file.last))


def _steady(folder: Path) -> list[str]:
    """Return the names in a folder; where files are merged meanwhile, one listing may have neither old nor new ones."""
    before = sorted(path.name for path in folder.iterdir())
    for _ in range(_LISTINGS):
        after = sorted(path.name for path in folder.iterdir())
        if after == before:
            break
        before = after
    return before


def is_row_file(path: Path) -> bool:
    """Whether a file has the name of one with rows."""
    return _NAME.fullmatch(path.name) is not None


def is_temporary(path: Path) -> bool:
    """Whether a file has the name of one that is not whole yet."""
    return path.name.startswith(".") and path.name.endswith(".new")


def is_hour(folder: Path) -> bool:
    """Whether a folder has the name that its hour's has."""
    hour = _HOUR.fullmatch(folder.name)
    try:
        return hour is not None and hour_name(hour_of_name(hour[1])) == hour[1]
    except ValueError:
        return False


def hour_folders(root: Path, kind: Kind) -> Iterator[Path]:
    """Yield the folders that hold a kind's files."""
    top = root / kind.value
    if not top.is_dir():
        return
    for folder in sorted(top.iterdir()):
        if kind is Kind.EVENTS and folder.is_dir():
            yield from sorted(folder.iterdir())
        elif folder.is_dir():
            yield folder


def _without_doubles(files: Sequence[RowFile]) -> list[RowFile]:
    """Return files without those that lie within another one of the same folder."""
    kept: list[RowFile] = []
    for file in sorted(files, key=lambda f: (f.hour, f.broker, f.first, -f.last)):
        before = kept[-1] if kept else None
        same = before is not None and (before.hour, before.broker) == (file.hour, file.broker)
        if same and before is not None and file.last <= before.last:
            continue
        kept.append(file)
    return kept


class RowFileWriter:
    """Writes a file row group by row group; it is there, whole, once `finish` returns, and before not at all.

    Power loss: the rows are synced before the name is given, and the folder after; so a name always has its rows.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Raises OSError."""
        self._path = path
        self._temporary = path.with_name(f".{path.name}.new")
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        self._file = os.fdopen(descriptor, "wb")
        names = schema.names
        delta = {name: "DELTA_BINARY_PACKED" for name in _DELTA if name in names}
        self._writer = pq.ParquetWriter(
            self._file,
            schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=[name for name in names if name not in delta and name not in _PLAIN],
            column_encoding=delta,
            write_statistics=True,
            store_schema=False,
        )

    def write(self, table: pa.Table) -> None:
        """Write rows as row groups of their own and sync them, so that `finish` has little to wait for."""
        self._writer.write_table(table, row_group_size=ROW_GROUP)
        self._sync()

    def finish(self) -> None:
        """Give the file its name; raises OSError."""
        self._writer.close()
        self._sync()
        self._file.close()
        self._temporary.replace(self._path)
        sync_folder(self._path.parent)

    def abandon(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):  # the next writer takes it away, then
            self._temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError, pa.ArrowException):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()


def write_rows(path: Path, table: pa.Table) -> None:
    """Write rows so that the file is there whole or not at all; raises OSError."""
    with RowFileWriter(path, table.schema) as file:
        file.write(table)
        file.finish()


def open_rows(path: Path) -> pq.ParquetFile:
    """Open a file to read row group by row group; raises OSError or pa.ArrowException for one that is damaged."""
    return pq.ParquetFile(path, pre_buffer=False)


@contextlib.contextmanager
def open_kept(file: RowFile) -> Iterator[tuple[pq.ParquetFile, bool] | None]:
    """Open a file that may have been merged or retired since it was listed; raises as `open_rows` does.

    Yields whether it is itself, or one that has rows of other segments too; None when its rows were retired.
    """
    opened, itself = None, True
    for _ in range(_LISTINGS):
        try:
            opened = open_rows(file.path)
            break
        except FileNotFoundError:
            there = [one for one in files_in(file.path.parent, file.kind) if one.first <= file.first]
            larger = next((one for one in there if file.last <= one.last), None)
            if larger is None:
                break
            file, itself = larger, False
    if opened is None:
        yield None
        return
    with opened:
        yield opened, itself


def read_rows(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file's rows; raises OSError or pa.ArrowException for one that is damaged."""
    with open_rows(path) as file:
        return file.read(columns=columns)


def is_of(schema: pa.Schema, kind: Kind) -> bool:
    """Whether a file's columns are exactly those of the kind."""
    wanted = SCHEMAS[kind]
    return bool(schema.names == wanted.names and schema.types == wanted.types)
