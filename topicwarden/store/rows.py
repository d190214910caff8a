"""The rows of a store: their columns, the numbers that clients and resources have in them, and the digest of a part.

A digest is of the content, whatever file it is in: SHA-256 over each column's name and values in order. Numbers are
little-endian, of a fixed width; of text, first the lengths in bytes as int32 (-1: none), then the bytes of all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b, sha256
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from topicwarden.events import COLUMNS, Client, Identity, Resource, ResourceKind
from topicwarden.events.rows import client_from_row, client_row, resource_from_row, resource_row
from topicwarden.store.model import Kind

SEGMENT: Final = "segment"
"""The column every kind has: the number of the segment a row belongs to. It is not part of the digest."""
_UTF8: Final = "utf-8"
_CLIENT_TEXT: Final = ("broker", "protocol", "client_id", "user", "address", "tls_subject", "vhost")

_EVENT_COLUMNS: Final = {
    name: pa.uint64() if name in ("client", "resource") else pa.from_numpy_dtype(dtype)
    for name, dtype in COLUMNS.items()
}
SCHEMAS: Final[Mapping[Kind, pa.Schema]] = {
    Kind.EVENTS: pa.schema([(SEGMENT, pa.uint32()), *_EVENT_COLUMNS.items()]),
    Kind.CLIENTS: pa.schema(
        [
            (SEGMENT, pa.uint32()),
            ("id", pa.uint64()),
            *((name, pa.string()) for name in _CLIENT_TEXT),
            ("port", pa.int32()),
            ("identity", pa.string()),
            ("raw", pa.string()),
        ]
    ),
    Kind.RESOURCES: pa.schema(
        [
            (SEGMENT, pa.uint32()),
            ("id", pa.uint64()),
            ("kind", pa.string()),
            ("name", pa.string()),
            ("within", pa.string()),
            ("length", pa.int64()),
            ("raw", pa.string()),
        ]
    ),
    **{
        kind: pa.schema(
            [
                (SEGMENT, pa.uint32()),
                ("time_ns", pa.int64()),
                ("about", pa.string()),
                ("what", pa.string()),
                ("document", pa.string()),
            ]
        )
        for kind in (Kind.NOTICES, Kind.CHANGES, Kind.HOSTS, Kind.FINDINGS)
    },
}
"""The columns of each kind. `raw`: the whole as JSON in ASCII, where a name is no valid UTF-8 and its column cannot
hold it. `about`: the broker, or the host; `what`: a code or kind; `document`: the whole as JSON in ASCII."""

STREAMED: Final = frozenset({*_EVENT_COLUMNS, "id", "length"})
"""Columns of numbers that every row has: their digest can be computed piece by piece."""
NO_RESOURCE_ID: Final = 0
"""The number of events without a resource."""


def client_id(salt: bytes, client: Client) -> int:
    """Return a client's number: keyed, so that nobody can make two clients with the same one."""
    return _number(salt, b"c", json.dumps(client_row(client), separators=(",", ":")))


def resource_id(salt: bytes, resource: Resource) -> int:
    """Return a resource's number."""
    if resource.kind is ResourceKind.NONE:
        return NO_RESOURCE_ID
    return _number(salt, b"r", json.dumps(resource_row(resource), separators=(",", ":")))


def _number(salt: bytes, kind: bytes, text: str) -> int:
    found = int.from_bytes(blake2b(text.encode(), digest_size=8, key=salt, person=kind).digest(), "little")
    return found or 1


def client_fields(number: int, client: Client) -> dict[str, Any]:
    """Return a client as a row of `clients`."""
    row = client_row(client)
    fields = {name: None if row.get(name) is None else shown(str(row[name])) for name in _CLIENT_TEXT}
    damaged = any(fields[name] != row.get(name) for name in _CLIENT_TEXT)
    return {
        "id": number,
        **fields,
        "port": client.port,
        "identity": client.identity.value,
        "raw": json.dumps(row) if damaged else None,
    }


def resource_fields(number: int, resource: Resource) -> dict[str, Any]:
    """Return a resource as a row of `resources`."""
    name, within = shown(resource.name), shown(resource.within)
    damaged = (name, within) != (resource.name, resource.within)
    return {
        "id": number,
        "kind": resource.kind.name.lower(),
        "name": name,
        "within": within,
        "length": resource.length,
        "raw": json.dumps(resource_row(resource)) if damaged else None,
    }


def client_of(row: Mapping[str, Any]) -> Client:
    """Return the client a row of `clients` describes; raises ValueError, KeyError or TypeError for another row."""
    if row["raw"] is not None:
        return client_from_row(json.loads(row["raw"]))
    text = {name: row[name] for name in _CLIENT_TEXT}
    return Client(**text, port=row["port"], identity=Identity(row["identity"]))


def resource_of(row: Mapping[str, Any]) -> Resource:
    """Return the resource a row of `resources` describes; raises as `client_of` does."""
    if row["raw"] is not None:
        return resource_from_row(json.loads(row["raw"]))
    return Resource(ResourceKind[row["kind"].upper()], row["name"], row["length"], row["within"])


def shown(text: str) -> str:
    """Return text that every Parquet reader takes: lone surrogates become U+FFFD, and NUL stays."""
    return text if text.isascii() else text.encode(_UTF8, "surrogatepass").decode(_UTF8, "replace")


def table_of(kind: Kind, segment: int, columns: Mapping[str, Any]) -> pa.Table:
    """Return rows as a table: `columns` by the schema's names, but for the segment's number."""
    schema = SCHEMAS[kind]
    arrays = [
        pa.array(np.full(len(columns[schema.names[1]]), segment, np.uint32))
        if name == SEGMENT
        else pa.array(columns[name], schema.field(name).type)
        for name in schema.names
    ]
    return pa.table(arrays, schema=schema)


def rows_table(kind: Kind, segment: int, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows that are dictionaries as a table."""
    return table_of(kind, segment, {name: [row[name] for row in rows] for name in SCHEMAS[kind].names[1:]})


def digest_of(table: pa.Table) -> str:
    """Return the digest of rows of one segment, in their order, as 64 hex digits."""
    digest = sha256()
    for name in table.schema.names:
        if name == SEGMENT:
            continue
        digest.update(column_head(name, len(table)))
        column = table.column(name)
        for chunk in [column.combine_chunks()] if column.num_chunks != 1 else column.chunks:
            digest_column(digest, chunk)
    return digest.hexdigest()


def column_head(name: str, rows: int) -> bytes:
    """Return what a digest has before a column's values."""
    return f"{name}:{rows}\n".encode()


def digest_column(digest: Any, column: Any) -> None:
    """Add a column's values, of rows of one segment, to a digest that knows its name and their number already."""
    if isinstance(column, pa.ChunkedArray):  # of no rows
        column = pa.array([], column.type)
    if pa.types.is_string(column.type):
        lengths = pc.fill_null(pc.binary_length(column), -1)
        digest.update(lengths.to_numpy(zero_copy_only=False).astype("<i4").tobytes())
        filled = pc.fill_null(column, "") if column.null_count else column
        _, offsets, data = filled.buffers()
        if data is not None and len(filled):
            bounds = np.frombuffer(offsets, np.int32)[filled.offset : filled.offset + len(filled) + 1]
            digest.update(memoryview(data)[int(bounds[0]) : int(bounds[-1])])
        return
    if column.null_count:
        digest.update(np.packbits(column.is_null().to_numpy(zero_copy_only=False)).tobytes())
        column = pc.fill_null(column, 0)
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    digest.update(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
