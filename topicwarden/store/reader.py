"""Reads a store, also while somebody writes it: what is sealed, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from topicwarden.errors import ObservationError, Problem
from topicwarden.events import EventBatch
from topicwarden.store.files import ROW_GROUP, RowFile, row_files
from topicwarden.store.identity import StoreInfo, read_info
from topicwarden.store.log import Log, LogDamageError
from topicwarden.store.log_summary import summarized
from topicwarden.store.model import Entry, EntryKind, Kind
from topicwarden.store.replay import Replay, parts_of
from topicwarden.store.rows import SCHEMAS


class Store:
    """A store on disk."""

    def __init__(self, folder: Path) -> None:
        """Raises ObservationError for what is none, is of a newer format, or whose log cannot be read."""
        self.folder = folder
        self.info: StoreInfo = read_info(folder)
        self.opened: list[Entry] = []
        """When writers began, and what they watched."""
        self.gaps: list[Entry] = []
        self.sealed = -1
        """Number of the newest sealed segment."""
        try:
            for newest, told in summarized(Log(folder / "log"), self.info.verifier, self.info.origin):
                self.opened += [entry for entry in told if entry.kind is EntryKind.OPENED]
                self.gaps += [entry for entry in told if entry.kind is EntryKind.GAP]
                self.sealed = self.sealed if newest is None else newest
        except LogDamageError as error:
            raise ObservationError(
                Problem(f"its log was changed: {error}", str(folder), hint="`topicwarden verify` says more")
            ) from error
        except OSError as error:
            raise ObservationError(Problem(f"its log cannot be read: {error.strerror}", str(folder))) from error

    def files(self, kind: Kind) -> list[RowFile]:
        """Return the files of a kind with sealed rows, by hour, broker and segment."""
        return [file for file in row_files(self.folder, kind) if file.first <= self.sealed]

    def table(self, file: RowFile) -> pa.Table:
        """Return a file's sealed rows; raises ObservationError when it is damaged."""
        parts = list(self.parts(file, ROW_GROUP))
        return pa.Table.from_batches(parts, SCHEMAS[file.kind])

    def parts(self, file: RowFile, rows: int) -> Iterator[Any]:
        """Yield a file's sealed rows in record batches of at most so many; raises ObservationError when damaged."""
        return parts_of(file, rows, self.sealed)

    def batches(
        self, *, first_ns: int | None = None, last_ns: int | None = None, brokers: Collection[str] | None = None
    ) -> Iterator[EventBatch]:
        """Yield all that happened as it was written, within a time (both ends included)."""
        return Replay(self, first_ns, last_ns, brokers).batches()

    def documents(self, kind: Kind) -> Iterator[dict[str, Any]]:
        """Yield the documents of findings, notices, changes or hosts, in the order they were written."""
        for file in self.files(kind):
            for text in self.table(file).column("document").to_pylist():
                yield json.loads(text)
