"""Recordings: event batches in a file, so that what was watched once can be checked again with the same result.

Two forms, told apart by content when read and by suffix when written:

- Arrow IPC stream (`.arrow`): the batch's columns; `client` and `resource` are dictionary columns of structs whose
  text fields are UTF-8 bytes (binary, because brokers pass names that are not always valid UTF-8). Any Arrow reader
  opens it. Notices, grant changes and what hosts did travel in each batch's custom metadata under `notices`, `changes`
  and `hosts`, as JSON.
- JSON lines (`.jsonl`): one event (see `topicwarden.events.rows`), `{"notice": …}`, `{"change": …}` or `{"host": …}` a
  line, after a header line.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden.events.batch import COLUMNS, EventBatch, EventBuilder, GrantChange, Notice, finish_batch
from topicwarden.events.host_events import HostEvent
from topicwarden.events.host_rows import host_from_row, host_row
from topicwarden.events.rows import (
    change_from_row,
    change_row,
    client_row,
    event_from_row,
    notice_from_row,
    notice_row,
    resource_row,
    to_rows,
)
from topicwarden.events.tables import NO_RESOURCE, Client, Identity, Resource, ResourceKind, Tables

VERSION: Final = 3
_READABLE: Final = (2, 3)
"""Format 2 has no events of hosts."""
ARROW_MAGIC: Final = b"\xff\xff\xff\xff"
JSONL_MAGIC: Final = b'{"topicwarden_events"'
MAX_LINE: Final = 1 << 20
"""Longest line read from a JSON lines recording, in bytes; names are at most 64 KiB."""

_CLIENT = pa.struct(
    [
        *((name, pa.binary()) for name in ("broker", "protocol", "client_id", "user", "address")),
        ("port", pa.uint16()),
        *((name, pa.binary()) for name in ("tls_subject", "vhost", "identity")),
    ]
)
_RESOURCE = pa.struct([("kind", pa.uint8()), ("name", pa.binary()), ("length", pa.int64()), ("within", pa.binary())])
_DICTIONARIES: Final = {"client": _CLIENT, "resource": _RESOURCE}
_SCHEMA = pa.schema(
    [
        (name, pa.dictionary(pa.int32(), _DICTIONARIES[name]) if name in _DICTIONARIES else pa.from_numpy_dtype(dtype))
        for name, dtype in COLUMNS.items()
    ]
)


class Recorder(ABC):
    """Keeps batches in a file; a context manager that finishes the file when left."""

    @abstractmethod
    def write(self, batch: EventBatch) -> None:
        """Append a batch and hand it to the operating system."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file and close it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ArrowRecorder(Recorder):
    """Writes the Arrow form. A recording cut short by a crash is readable up to its last whole batch."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._file = path.open("wb")
        metadata = {"topicwarden_events": str(VERSION), "about": json.dumps(about)}
        self._writer = pa.ipc.new_stream(self._file, _SCHEMA.with_metadata(metadata))

    def write(self, batch: EventBatch) -> None:
        """Append a batch and hand it to the operating system."""
        columns = [
            _dictionary(batch, name) if name in _DICTIONARIES else pa.array(getattr(batch, name)) for name in COLUMNS
        ]
        beside = {
            "notices": json.dumps([notice_row(notice) for notice in batch.notices]),
            "changes": json.dumps([change_row(change) for change in batch.changes]),
            "hosts": json.dumps([host_row(event) for event in batch.hosts]),
        }
        self._writer.write_batch(pa.record_batch(columns, schema=_SCHEMA), custom_metadata=beside)
        self._file.flush()

    def close(self) -> None:
        """Write the end-of-stream mark and close the file."""
        self._writer.close()
        self._file.close()


class JsonlRecorder(Recorder):
    """Writes the JSON lines form."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._file = path.open("w", encoding="ascii")
        self._file.write(json.dumps({"topicwarden_events": VERSION, "about": about}) + "\n")

    def write(self, batch: EventBatch) -> None:
        """Append a batch and hand it to the operating system."""
        self._file.writelines(json.dumps({"notice": notice_row(notice)}) + "\n" for notice in batch.notices)
        self._file.writelines(json.dumps({"change": change_row(change)}) + "\n" for change in batch.changes)
        self._file.writelines(json.dumps({"host": host_row(event)}) + "\n" for event in batch.hosts)
        self._file.writelines(json.dumps(row) + "\n" for row in to_rows(batch))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_recorder(path: Path, about: Mapping[str, Any]) -> Recorder:
    """Start a recording; its suffix chooses the form. `about` (JSON values) says what was watched and how.

    Raises ConfigurationError for another suffix, a file that is already there, or one that cannot be written.
    """
    kinds: dict[str, Callable[[Path, Mapping[str, Any]], Recorder]] = {".arrow": ArrowRecorder, ".jsonl": JsonlRecorder}
    kind = kinds.get(path.suffix)
    if kind is None:
        raise ConfigurationError(
            Problem(f"cannot tell the recording's form from {path.name!r}", hint="end it in .arrow or .jsonl")
        )
    if path.exists():
        raise ConfigurationError(
            Problem("already there, and a recording is evidence", str(path), hint="use a new name")
        )
    try:
        return kind(path, about)
    except OSError as error:
        raise ConfigurationError(Problem(f"cannot be written: {error.strerror}", str(path))) from error


def is_recording(head: bytes) -> bool:
    """Whether a file that begins with `head` (16 bytes or more) looks like a recording."""
    return head.startswith((ARROW_MAGIC, JSONL_MAGIC))


class Recording:
    """A recording opened for reading; iterate to get its batches. `about` is what its writer said of it."""

    def __init__(self, path: Path, tables: Tables | None = None) -> None:
        self.path = path
        self.tables = tables or Tables()
        self.about: dict[str, Any] = {}
        try:
            with path.open("rb") as file:
                self._arrow = file.read(4) == ARROW_MAGIC
                file.seek(0)
                self._read_header(pa.ipc.open_stream(file).schema.metadata if self._arrow else file.readline(MAX_LINE))
        except OSError as error:
            raise ObservationError(Problem(f"cannot be read: {error.strerror or error}", str(path))) from error
        except (pa.ArrowInvalid, ValueError) as error:
            raise ObservationError(Problem(f"not a recording: {error}", str(path))) from error

    def _read_header(self, header: Mapping[bytes, bytes] | bytes | None) -> None:
        if isinstance(header, bytes):
            first = json.loads(header)
            version, about = first["topicwarden_events"], first.get("about", {})
        elif header and b"topicwarden_events" in header:
            version, about = int(header[b"topicwarden_events"]), json.loads(header.get(b"about", b"{}"))
        else:
            raise ValueError("an Arrow stream without topicwarden's mark")
        if version not in _READABLE:
            raise ObservationError(
                Problem(
                    f"a recording of format {version}, this topicwarden reads {VERSION}",
                    str(self.path),
                    hint="read it with the topicwarden that wrote it",
                )
            )
        self.about = about if isinstance(about, dict) else {}

    def __iter__(self) -> Iterator[EventBatch]:
        """Yield the batches; what is damaged becomes a notice (TW903), and reading goes on where it can."""
        return self._arrow_batches() if self._arrow else self._jsonl_batches()

    def _arrow_batches(self) -> Iterator[EventBatch]:
        newest = 0
        with self.path.open("rb") as file:
            try:
                reader = pa.ipc.open_stream(file)
                if not reader.schema.equals(_SCHEMA):
                    raise pa.ArrowInvalid("columns differ from the format's")
                while True:
                    got = reader.read_next_batch_with_custom_metadata()
                    beside = got.custom_metadata or {}
                    notices = [notice_from_row(row) for row in json.loads(beside.get(b"notices", b"[]"))]
                    changes = [change_from_row(row) for row in json.loads(beside.get(b"changes", b"[]"))]
                    hosts = [host_from_row(row) for row in json.loads(beside.get(b"hosts", b"[]"))]
                    for batch in _from_arrow(got.batch, (notices, changes, hosts), self.tables):
                        newest = max(newest, int(batch.time_ns.max(initial=0)), *(e.time_ns for e in batch.hosts))
                        yield batch
            except StopIteration:
                return
            except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, EOFError) as error:
                yield self._damage(str(error), newest)

    def _jsonl_batches(self) -> Iterator[EventBatch]:
        builder = EventBuilder(self.tables)
        newest = 0
        with self.path.open("rb") as file:
            file.readline(MAX_LINE)
            number = 1
            while line := file.readline(MAX_LINE):
                number += 1
                try:
                    row = json.loads(line)
                    if "notice" in row:
                        builder.notice(notice_from_row(row["notice"]))
                    elif "change" in row:
                        builder.change(change_from_row(row["change"]), with_event=False)
                    elif "host" in row:
                        builder.host(host_from_row(row["host"]))
                    else:
                        event_from_row(row, builder)
                        newest = max(newest, row["time_ns"])
                except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                    builder.notice(self._notice(f"line {number}: {error!r}", newest))
                if len(builder) >= 1 << 16 or self.tables.must_flush:
                    yield builder.take()
        if not builder.empty:
            yield builder.take()

    def _damage(self, what: str, time_ns: int) -> EventBatch:
        builder = EventBuilder(self.tables)
        builder.notice(self._notice(what, time_ns))
        return builder.take()

    def _notice(self, what: str, time_ns: int) -> Notice:
        return Notice(
            "TW903",
            time_ns,
            broker=str(self.about.get("broker", "")),
            scope="recording",
            witness=what[:200],
            evidence={"file": str(self.path)},
        )


def _dictionary(batch: EventBatch, name: str) -> pa.DictionaryArray:
    """Return the batch's client or resource column with a dictionary of just what this batch uses."""
    used, indices = np.unique(getattr(batch, name), return_inverse=True)
    values: list[dict[str, Any]] = []
    for number in used.tolist():
        if name == "client":
            row = client_row(batch.tables.clients.entries[number])
        else:
            resource = batch.tables.resources.entries[number]
            row = resource_row(resource) or {"name": ""}
            row["kind"] = int(resource.kind) if resource else 0
        values.append({key: _to_bytes(value) if isinstance(value, str) else value for key, value in row.items()})
    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int32)), pa.array(values, _DICTIONARIES[name]))


def _from_arrow(
    record: pa.RecordBatch,
    beside: tuple[Sequence[Notice], Sequence[GrantChange], Sequence[HostEvent]],
    tables: Tables,
) -> Iterator[EventBatch]:
    """Intern a record batch's dictionaries; yields several batches when it names more than the tables take at once."""
    columns: dict[str, Any] = {
        name: record.column(name).to_numpy(zero_copy_only=False) for name in COLUMNS if name not in _DICTIONARIES
    }
    indices = {name: record.column(name).indices.to_numpy(zero_copy_only=False) for name in _DICTIONARIES}
    clients = [_client(row) for row in record.column("client").dictionary.to_pylist()]
    resources = [_resource(row) for row in record.column("resource").dictionary.to_pylist()]
    step = min(tables.clients.capacity, tables.resources.capacity) // 4
    rows = len(columns["time_ns"])
    parts = [(0, rows)] if max(len(clients), len(resources)) <= step else _parts(rows, step)
    for start, stop in parts or [(0, 0)]:
        part = {name: column[start:stop] for name, column in columns.items()}
        part["client"] = _intern(indices["client"][start:stop], clients, tables.clients.intern)
        part["resource"] = _intern(indices["resource"][start:stop], resources, tables.resources.intern)
        yield finish_batch(tables, part, *(beside if start == 0 else ()))


def _parts(rows: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def _intern(indices: Any, entries: Sequence[Any], intern: Any) -> Any:
    """Return table numbers for dictionary indices, interning only those that occur; raises ValueError out of range."""
    used, inverse = np.unique(indices, return_inverse=True)
    if len(used) and not (used[0] >= 0 and used[-1] < len(entries)):
        raise ValueError("a dictionary index out of range")
    return np.array([intern(entries[index]) for index in used.tolist()], np.uint32)[inverse] if len(used) else used


def _client(row: Mapping[str, Any]) -> Client:
    text: dict[str, Any] = {key: _to_text(value) if isinstance(value, bytes) else value for key, value in row.items()}
    text["identity"] = Identity(text["identity"])
    return Client(**text)


def _resource(row: Mapping[str, Any]) -> Resource:
    kind = ResourceKind(row["kind"])
    if kind is ResourceKind.NONE:
        return NO_RESOURCE
    return Resource(kind, _to_text(row["name"]), row["length"] or -1, _to_text(row["within"] or b""))


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
