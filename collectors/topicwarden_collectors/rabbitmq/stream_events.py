"""Follows the plugin's stream, message by message, and makes event batches of it: no I/O, no clock.

Everything the plugin counted is accounted for: an event comes out in a batch, belongs to something that was left out on
purpose (`Counters.source` says what), counts as unresolved, or counts as lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from topicwarden.events import (
    COLUMNS,
    ENTROPY_UNKNOWN,
    QOS_UNKNOWN,
    RETAIN_UNKNOWN,
    SIZE_UNKNOWN,
    Action,
    Certainty,
    EventBatch,
    GrantChange,
    Notice,
    Outcome,
    Resource,
    ResourceKind,
    Shape,
    Tables,
    finish_batch,
)
from topicwarden.sources import Counters
from topicwarden_collectors.rabbitmq import stream_layout as layout
from topicwarden_collectors.rabbitmq.grants import Grants
from topicwarden_collectors.rabbitmq.stream_decode import Actor, Change, Note, WireBatch, read_batch
from topicwarden_collectors.rabbitmq.stream_names import Names
from topicwarden_collectors.rabbitmq.stream_reconcile import OTHER, Reconciler, Rows, other_row, rows_of

LOST: Final = "TW901"
UNDECODABLE: Final = "TW903"
RESTARTED: Final = "TW906"
_MOST_NOTES: Final = 32
_Columns = dict[str, npt.NDArray[Any]]


class StreamDecoder:
    """Turns genuine messages of one node's stream, in order, into event batches over `tables`.

    Decoders of several nodes may share tables, one batch after the other.
    """

    def __init__(
        self,
        tables: Tables,
        broker: str,
        grants: Grants,
        *,
        node: str = "",
        counters: Counters | None = None,
        ours: Callable[[Actor], bool] = lambda _actor: False,
        started_ns: int = 0,
    ) -> None:
        """`node` is for notices; `ours` tells our own link's channels; `started_ns`: the time before any event's."""
        self.tables = tables
        self.broker = broker
        self.node = node
        self.counters = Counters() if counters is None else counters
        self.notes: dict[str, str] = {}
        """What the plugin last said of each code."""
        self.joined = False
        """Whether the beginning of an epoch was seen, and events are understood."""
        self.time_ns = started_ns
        """The last event's time."""
        self._grants = grants
        self._ours = ours
        self._names, self._reconciler = self._start()
        self._boot: int | None = None
        self._epoch = 0
        self._number = 0
        self._first_event = 0
        self._dropped = 0
        self._ahead = 0
        """Events counted as dropped that the events' numbers have not skipped yet."""
        self._changes: dict[int, Change] = {}
        self._next_change = 0
        self._notices: list[Notice] = []
        # A batch uses at most half of a table, as `must_flush` asks; two less for what changes of grants need.
        self._most = min(tables.clients.capacity, tables.resources.capacity) // 2 - 64

    @property
    def waiting(self) -> int:
        """How many events are held back because a refusal may still come."""
        return self._reconciler.waiting

    def decode(self, bodies: Iterable[bytes]) -> Iterator[EventBatch]:
        """Yield the batches that messages make; be done with each before taking the next, and exhaust it.

        Raises nothing for what the messages hold.
        """
        for body in bodies:
            batch = read_batch(body)
            if batch is None:
                self._undecodable("batch", 1, f"a message of {len(body)} bytes that is no batch")
                continue
            if batch.malformed:
                self._undecodable("record", batch.malformed, "definitions or events that make no sense")
            if batch.boot != self._boot:
                yield from self._new_boot(batch)
            elif batch.number < self._number:
                self._undecodable("order", 1, "a batch that came twice, or too late")
                continue
            else:
                yield from self._follow(batch)
            self._number = batch.number + 1
            self._first_event = batch.first_event + batch.events_total
            if batch.first_of_epoch or batch.epoch != self._epoch:
                yield from self._new_epoch(batch)
            if not self.joined:
                self._count("skipped_at_join", batch.events_total)
                continue
            self._take_in(batch)
        yield from self.settle()

    def settle(self, *, everything: bool = False) -> Iterator[EventBatch]:
        """Yield what is known by now; `everything`: wait no longer for refusals, because none came for a while."""
        yield from self._batches(self._reconciler.take(everything=everything))
        if self._notices:
            yield self._finish([])

    def unsure(self) -> Iterator[EventBatch]:
        """Yield what was held back: something may be missing, so until the next epoch nothing that rests on what did
        not come is exact."""
        yield from self.settle(everything=True)
        self._reconciler.sure = False

    # Sequence ------------------------------------------------------------------------------------------------------

    def _start(self) -> tuple[Names, Reconciler]:
        names = Names(self.tables, self.broker, self._grants, self._ours)
        return names, Reconciler(names.about, names.channel_of)

    def _new_boot(self, batch: WireBatch) -> Iterator[EventBatch]:
        """Begin with a plugin that was started (again): its numbers have nothing to do with those before."""
        if self._boot is not None:
            yield from self.settle(everything=True)
            self._count_source()
            evidence: dict[str, str | int | float] = {"node": self.node, "batches_before": self._number}
            self._notices.append(Notice(RESTARTED, self.time_ns, self.broker, scope=self.node, evidence=evidence))
            self._names, self._reconciler = self._start()
        self._boot, self._epoch, self.joined = batch.boot, batch.epoch, False
        self._dropped, self._ahead = batch.dropped, 0

    def _follow(self, batch: WireBatch) -> Iterator[EventBatch]:
        """Count what is missing between the batch before and this one."""
        skipped = batch.first_event - self._first_event
        dropped = batch.dropped - self._dropped
        between = batch.number - self._number
        if skipped < 0 or dropped < 0:
            self._undecodable("order", 1, "a batch whose counts go back")
            skipped, dropped = max(0, skipped), max(0, dropped)
        self._dropped = max(self._dropped, batch.dropped)
        if dropped or between or skipped:
            yield from self.unsure()
        if dropped:
            self._lost(dropped, "plugin", "the plugin's buffer was full")
        # The plugin may count a drop one batch before the events' numbers show it.
        self._ahead += dropped
        explained = min(self._ahead, skipped)
        self._ahead -= explained
        if skipped > explained:
            self._lost(skipped - explained, "queue", "our queue at the broker was full: we read too slowly")

    def _lost(self, count: int, scope: str, why: str) -> None:
        self.counters.lost += count
        self.counters.gaps += 1
        self._notices.append(
            Notice(LOST, self.time_ns, self.broker, scope=scope, count=count, evidence={"why": why, "sum_gaps": 1})
        )

    def _new_epoch(self, batch: WireBatch) -> Iterator[EventBatch]:
        """Forget what numbers mean; what is held back stays."""
        yield from self._batches(self._reconciler.take())
        self._epoch = batch.epoch
        waiting = self._reconciler.renumber()
        for actor in self._names.begin(waiting):
            self._reconciler.reopened(actor)
        self._reconciler.restore(waiting)
        self.joined = self.joined or batch.first_of_epoch
        self._reconciler.sure = batch.first_of_epoch

    def _take_in(self, batch: WireBatch) -> None:
        names = self._names
        too_many = sum(names.define_actor(actor) is None for actor in batch.actors)
        too_many += sum(not names.define_resource(resource) for resource in batch.resources)
        if too_many:
            self._undecodable("record", too_many, "more names in an epoch than we keep")
        for note in batch.notes:
            self._note(note)
        rows = self._rows(batch)
        for change in batch.changes:
            number = self._next_change = self._next_change + 1
            self._changes[number] = change
            at = int(np.searchsorted(rows["time_us"], change.time_us))
            rows = np.concatenate([rows[:at], other_row(change.time_us, number), rows[at:]])
        self._reconciler.add(rows)

    def _note(self, note: Note) -> None:
        if len(self.notes) < _MOST_NOTES or note.code in self.notes:
            self.notes[note.code] = note.detail
        if note.code == "overflow" and note.detail.isdecimal() and note.detail.isascii():
            self._lost(int(note.detail[:12]), "broker-events", "connections, failed logins or changes came too fast")

    def _rows(self, batch: WireBatch) -> Rows:
        actor, resource, known = self._names.resolve(batch.events)
        events = batch.events
        if not known.all():
            unresolved = len(known) - int(np.count_nonzero(known))
            self.counters.unresolved += unresolved
            self._notices.append(Notice(LOST, self.time_ns, self.broker, scope="unresolved", count=unresolved))
            events, actor, resource = events[known], actor[known], resource[known]
        ours = self._names.is_ours(actor)
        if ours.any():
            self._count("our_own", int(np.count_nonzero(ours)))
            events, actor, resource = events[~ours], actor[~ours], resource[~ours]
        return rows_of(events, actor, resource)

    def _undecodable(self, stage: str, count: int, witness: str) -> None:
        self.counters.error(stage, count)
        self._notices.append(
            Notice(UNDECODABLE, self.time_ns, self.broker, scope=f"stream {stage}", count=count, witness=witness)
        )

    # Batches -------------------------------------------------------------------------------------------------------

    def _batches(self, rows: Rows) -> Iterator[EventBatch]:
        for start in range(0, len(rows), self._most):
            yield self._finish(self._pieces(rows[start : start + self._most]))

    def _pieces(self, rows: Rows) -> Iterator[_Columns | GrantChange]:
        """Yield columns, and between them the changes of grants, in order."""
        others = np.flatnonzero(rows["action"] == OTHER)
        start = 0
        for at in others.tolist():
            if at > start:
                yield self._columns(rows[start:at])
            change = self._changes.pop(int(rows["resource"][at]))
            granted = self._grants.apply(change.time_us * 1000, change.event, change.pairs)
            if granted is not None:
                yield granted
            start = at + 1
        if start < len(rows):
            yield self._columns(rows[start:])

    def _finish(self, pieces: Iterable[_Columns | GrantChange]) -> EventBatch:
        columns: list[_Columns] = []
        changes: list[GrantChange] = []
        for piece in pieces:
            if isinstance(piece, GrantChange):
                changes.append(piece)
                columns.append(self._change_columns(piece))
            else:
                columns.append(piece)
        joined = {
            name: np.concatenate([one[name] for one in columns]) if columns else np.empty(0, dtype)
            for name, dtype in COLUMNS.items()
        }
        notices, self._notices = self._notices, []
        batch = finish_batch(self.tables, joined, notices, changes)
        self.counters.events += len(batch)
        if len(batch):
            self.time_ns = int(batch.time_ns[-1])
        self._count_source()
        return batch

    def _columns(self, rows: Rows) -> _Columns:
        client, resource, keep = self._names.numbers(rows)
        if not keep.all():
            rows, client, resource = rows[keep], client[keep], resource[keep]
        size = rows["size"].astype(np.int64)
        size[(rows["size"] == layout.NO_SIZE) | (rows["action"] != layout.PUBLISH)] = SIZE_UNKNOWN
        action = rows["action"].copy()
        if (rows["wire"] == layout.REFUSED).any():
            action = _refused_action(rows, action)
        return {
            "time_ns": rows["time_us"] * 1000,
            "action": action,
            "outcome": rows["outcome"].copy(),
            "certainty": rows["certainty"].copy(),
            "client": client,
            "resource": resource,
            "size": size,
            "entropy": np.full(len(rows), ENTROPY_UNKNOWN, np.float32),
            "shape": np.full(len(rows), Shape.UNKNOWN, np.uint8),
            "qos": np.full(len(rows), QOS_UNKNOWN, np.uint8),
            "retain": np.full(len(rows), RETAIN_UNKNOWN, np.uint8),
            "count": np.ones(len(rows), np.uint32),
        }

    def _change_columns(self, change: GrantChange) -> _Columns:
        """Return the row that stands for a change among the events, as `EventBuilder.change` makes it."""
        who = change.grantee
        about = f"{change.what} of {who.user or 'everybody'}" + (f" in {who.vhost}" if who.vhost else "")
        values = {
            "time_ns": change.time_ns,
            "action": Action.GRANT_CHANGE,
            "outcome": Outcome.ALLOWED,
            "certainty": Certainty.EXACT,
            "client": self.tables.clients.intern(change.by or who),
            "resource": self.tables.resources.intern(Resource(ResourceKind.GRANT, about)),
            "size": SIZE_UNKNOWN,
            "entropy": ENTROPY_UNKNOWN,
            "shape": Shape.UNKNOWN,
            "qos": QOS_UNKNOWN,
            "retain": RETAIN_UNKNOWN,
            "count": 1,
        }
        return {name: np.array([values[name]], dtype) for name, dtype in COLUMNS.items()}

    def _count(self, what: str, count: int) -> None:
        if count:
            self.counters.source[what] = self.counters.source.get(what, 0) + count

    def _count_source(self) -> None:
        """Move what was counted on the way to the counters."""
        counts, names = self._reconciler.counts, self._names
        for what in ("not_carried_out", "passive", "late", "unmatched"):
            self._count(_SOURCE_NAMES[what], getattr(counts, what))
            setattr(counts, what, 0)
        self._count("gateway_plumbing", names.plumbing)
        names.plumbing = 0


_SOURCE_NAMES: Final = {
    "not_carried_out": "attempts_not_carried_out",
    "passive": "passive_declares",
    "late": "late_refusals",
    "unmatched": "refusals_without_attempt",
}


def _refused_action(rows: Rows, action: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return what was tried, for refusals without an attempt: what they name may be the channel's operation before."""
    alone = rows["wire"] == layout.REFUSED
    right = rows["right"]
    action[alone & (right == layout.Permission.CONFIGURE)] = layout.CONFIGURE
    action[alone & (right == layout.Permission.READ) & (action == layout.PUBLISH)] = layout.SUBSCRIBE
    return action
