"""Gives a store's rows back in the order in which they were written, whatever files they lie in.

The order matters: a right is revoked before somebody publishes all the same, a program starts before it connects. A
segment is the smallest thing whose order is known; what stands beside events comes before the events of its segment,
as it does in a batch. Each broker of each run has tables of its own, so that one's clock is not taken for another's.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from topicwarden.errors import ObservationError, Problem
from topicwarden.events import COLUMNS, NO_RESOURCE, EventBatch, EventBuilder, Tables, finish_batch
from topicwarden.events.host_rows import host_from_row
from topicwarden.events.rows import change_from_row, notice_from_row
from topicwarden.store.files import HOUR_NS, RowFile, open_kept
from topicwarden.store.model import Kind
from topicwarden.store.rows import NO_RESOURCE_ID, SEGMENT, client_of, resource_of

if TYPE_CHECKING:
    from topicwarden.store.reader import Store

BATCH: Final = 1 << 16
_NAMED_HOURS: Final = 3
"""Hours whose clients and resources are kept at hand."""
_BESIDE: Final = (Kind.NOTICES, Kind.CHANGES, Kind.HOSTS)
_EVER: Final = 1 << 63


class _Names:
    """What the numbers in the events of an hour stand for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files: dict[tuple[Kind, int], list[RowFile]] = {}
        for kind in (Kind.CLIENTS, Kind.RESOURCES):
            for file in store.files(kind):
                self._files.setdefault((kind, file.hour), []).append(file)
        self._known: OrderedDict[int, tuple[dict[int, Any], dict[int, Any]]] = OrderedDict()

    def of(self, hour: int) -> tuple[dict[int, Any], dict[int, Any]]:
        """Return an hour's clients and resources by number."""
        known = self._known.get(hour)
        if known is None:
            clients = self._read(Kind.CLIENTS, hour, client_of)
            resources = self._read(Kind.RESOURCES, hour, resource_of)
            resources[NO_RESOURCE_ID] = NO_RESOURCE
            known = self._known[hour] = (clients, resources)
            if len(self._known) > _NAMED_HOURS:
                self._known.popitem(last=False)
        self._known.move_to_end(hour)
        return known

    def _read(self, kind: Kind, hour: int, read: Any) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for file in self._files.get((kind, hour), ()):
            with _whole(file):
                found.update((row["id"], read(row)) for row in self._store.table(file).to_pylist())
        return found


class _Cursor:
    """A place in a file of events or of what stands beside them, whose rows are in the order of their segments."""

    def __init__(self, store: Store, file: RowFile) -> None:
        self.file = file
        self.segment = file.first
        """Of the next row; before the file is open, the first it may be."""
        self._store = store
        self._parts: Iterator[Any] | None = None
        self._part: Any = None
        self._segments: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._place = 0

    def open(self) -> bool:
        """Go to the next row; False: there is none."""
        if self._parts is None:
            self._parts = self._store.parts(self.file, BATCH)
        while self._place >= len(self._segments):
            self._part = next(self._parts, None)
            if self._part is None:
                return False
            self._segments, self._place = self._part.column(SEGMENT).to_numpy(), 0
        self.segment = int(self._segments[self._place])
        return True

    def take(self, until: int) -> Any:
        """Return the next rows of segments before `until`, at most BATCH; there is one if `segment` is before it."""
        end = int(np.searchsorted(self._segments, until))
        rows = self._part.slice(self._place, end - self._place)
        self._place = end
        return rows


class Replay:
    """One reading of a store from its beginning to its end."""

    def __init__(
        self, store: Store, first_ns: int | None, last_ns: int | None, brokers: Collection[str] | None
    ) -> None:
        self._within = (-_EVER if first_ns is None else first_ns, _EVER - 1 if last_ns is None else last_ns)
        self._brokers = brokers
        self._names = _Names(store)
        self._runs = [0 if entry.segment is None else entry.segment + 1 for entry in store.opened[1:]]
        """The first segment of each run but the first."""
        self._run = 0
        self._tables: dict[str, Tables] = {}
        self._events = [
            _Cursor(store, file)
            for file in self._inside(store, Kind.EVENTS)
            if brokers is None or file.broker in brokers
        ]
        self._beside = [_Cursor(store, file) for kind in _BESIDE for file in self._inside(store, kind)]

    def _inside(self, store: Store, kind: Kind) -> list[RowFile]:
        first, last = (moment // HOUR_NS for moment in self._within)
        return [file for file in store.files(kind) if first <= file.hour <= last]

    def batches(self) -> Iterator[EventBatch]:
        """Yield everything, in the order it was written."""
        events, beside = _Merge(self._events), _Merge(self._beside)
        while True:
            cursor, other = events.first(), beside.first()
            if other is not None and (cursor is None or other.segment <= cursor.segment):
                self._begin_run(other.segment)
                until = self._run_ends() if cursor is None else min(cursor.segment + 1, self._run_ends())
                yield from self._told(beside, until)
            elif cursor is not None:
                self._begin_run(cursor.segment)
                until = self._run_ends() if other is None else min(other.segment, self._run_ends())
                yield from self._happened(cursor, until)
            else:
                return

    def _begin_run(self, segment: int) -> None:
        run = int(np.searchsorted(self._runs, segment, "right"))
        if run != self._run:
            self._run, self._tables = run, {}

    def _run_ends(self) -> int:
        """Return the first segment that is not of this run."""
        return self._runs[self._run] if self._run < len(self._runs) else _EVER - 1

    def _of(self, broker: str) -> Tables:
        return self._tables.setdefault(broker, Tables())

    def _told(self, beside: _Merge, until: int) -> Iterator[EventBatch]:
        """Yield what stands beside the events, of segments before `until`."""
        builder = EventBuilder(self._of(""))
        while (cursor := beside.first()) is not None and cursor.segment < until:
            with _whole(cursor.file):
                for row in cursor.take(cursor.segment + 1).to_pylist():
                    self._tell(builder, cursor.file.kind, row)
            if len(builder) >= BATCH:
                yield builder.take()
        if not builder.empty:
            yield builder.take()

    def _tell(self, builder: EventBuilder, kind: Kind, row: dict[str, Any]) -> None:
        if not self._within[0] <= row["time_ns"] <= self._within[1]:
            return
        document = json.loads(row["document"])
        if kind is Kind.HOSTS:
            builder.host(host_from_row(document))
        elif kind is Kind.NOTICES:
            notice = notice_from_row(document)
            if self._brokers is None or notice.of_host or notice.broker in self._brokers:
                builder.notice(notice)
        else:
            change = change_from_row(document)
            if self._brokers is None or change.grantee.broker in self._brokers:
                builder.change(change, with_event=False)

    def _happened(self, cursor: _Cursor, until: int) -> Iterator[EventBatch]:
        """Yield events of a file, of segments before `until`."""
        rows = cursor.take(until)
        columns = {name: rows.column(name).to_numpy(zero_copy_only=False) for name in COLUMNS}
        time = columns["time_ns"]
        inside = (time >= self._within[0]) & (time <= self._within[1])
        if not inside.all():
            columns = {name: column[inside] for name, column in columns.items()}
        clients, resources = self._names.of(cursor.file.hour)
        tables = self._of(cursor.file.broker)
        step = min(BATCH, tables.clients.capacity // 4, tables.resources.capacity // 4)
        for start in range(0, len(columns["time_ns"]), step):
            part: dict[str, Any] = {name: column[start : start + step] for name, column in columns.items()}
            part["client"] = _interned(part["client"], clients, tables.clients.intern, cursor.file)
            part["resource"] = _interned(part["resource"], resources, tables.resources.intern, cursor.file)
            yield finish_batch(tables, part)


class _Merge:
    """Files side by side; those whose turn has not come are not open."""

    def __init__(self, cursors: Sequence[_Cursor]) -> None:
        # Where segments are the same, by hour and broker, as they were written.
        self._waiting = sorted(cursors, key=lambda cursor: cursor.file.first, reverse=True)
        self._open: list[_Cursor] = []

    def first(self) -> _Cursor | None:
        """Return the open file whose next row is the oldest; None: all are read."""
        while True:
            self._open = [cursor for cursor in self._open if cursor.open()]
            first = min(self._open, key=lambda cursor: cursor.segment, default=None)
            if not self._waiting or (first is not None and first.segment < self._waiting[-1].segment):
                return first
            self._open.append(self._waiting.pop())


@contextmanager
def _whole(file: RowFile) -> Iterator[None]:
    """Make of rows that nobody wrote so an ObservationError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ObservationError(
            Problem(f"damaged: {error!r}", str(file.path), hint="`topicwarden verify` says what was changed")
        ) from error


def _interned(ids: npt.NDArray[np.uint64], names: dict[int, Any], intern: Any, file: RowFile) -> npt.NDArray[np.uint32]:
    """Return table numbers for the store's; raises ObservationError for one that nothing is known of."""
    used, inverse = np.unique(ids, return_inverse=True)
    numbers = []
    for number in used.tolist():
        entry = names.get(number)
        if entry is None:
            raise ObservationError(
                Problem(
                    f"no client or resource has the number {number}",
                    str(file.path),
                    hint="rows are missing: `topicwarden verify` says which",
                )
            )
        numbers.append(intern(entry))
    return np.array(numbers, np.uint32)[inverse]


def parts_of(file: RowFile, rows: int, sealed: int) -> Iterator[Any]:
    """Yield a file's sealed rows in record batches of at most so many; raises ObservationError when it is damaged."""
    try:
        with open_kept(file) as found:
            opened, itself = found or (None, True)
            for part in () if opened is None else opened.iter_batches(rows):
                if file.last > sealed or not itself:
                    segment = part.column(SEGMENT)
                    last = min(file.last, sealed)
                    part = part.filter(pc.and_(pc.greater_equal(segment, file.first), pc.less_equal(segment, last)))
                if len(part):
                    yield part
    except (OSError, pa.ArrowException) as error:
        raise ObservationError(
            Problem(f"damaged: {error}", str(file.path), hint="`topicwarden verify` says what is missing")
        ) from error
