"""Decodes the slots of the plugin's ring into event batches: no I/O, no clock.

The format is `brokers/mosquitto/topicwarden_wire.h`. Announcements are read in a loop, events by column. Everything
handed in is accounted for: an event comes out in a batch or counts as unresolved (at the join: as skipped); what never
was handed in counts as lost, by the events' sequence numbers; whatever makes no sense counts as a decode error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from topicwarden.events import (
    ENTROPY_UNKNOWN,
    NO_RESOURCE,
    QOS_UNKNOWN,
    RETAIN_UNKNOWN,
    SIZE_UNKNOWN,
    Client,
    EventBatch,
    Notice,
    Resource,
    Tables,
    finish_batch,
)
from topicwarden.sources import Counters
from topicwarden_collectors.mosquitto import ring_layout as layout
from topicwarden_collectors.mosquitto.ring_announcements import read_announcements
from topicwarden_collectors.mosquitto.ring_names import NameWindow

Slots = npt.NDArray[np.uint8]
"""Whole slots: shape (n, 32)."""

BLOCK_SLOTS: Final = 60 << 10
"""Most slots decoded at once; so many events fit one batch over tables of the default size."""
LOST: Final = "TW901"
MALFORMED: Final = "TW903"

_WITH_MESSAGE: Final = np.zeros(256, np.bool_)
_WITH_MESSAGE[[layout.ACTION_PUBLISH, layout.ACTION_DELIVER]] = True
"""Actions that carry a message, so that its size and retain flag mean something."""


@dataclass(slots=True)
class _Block:
    """What one block of slots holds."""

    at: int
    """The stream position of its first slot."""
    events: npt.NDArray[Any]
    """The well-formed events, `layout.EVENT`."""
    places: npt.NDArray[np.intp]
    """Each event's index in the block."""
    kept: int
    """Slots dealt with; those after it are the beginning of an announcement."""
    notices: list[Notice]


class RingDecoder:
    """Turns the slots of one ring, in stream order, into event batches over `tables`.

    One decoder serves one generation of a ring. The tables must have no other producer meanwhile.
    """

    def __init__(
        self,
        tables: Tables,
        broker: str,
        *,
        slot_count: int = 1 << 20,
        counters: Counters | None = None,
        started_ns: int = 0,
    ) -> None:
        """`slot_count`: the ring's, a power of two; `started_ns`: the time of notices before any event's time."""
        self.tables = tables
        self.broker = broker
        self.counters = Counters() if counters is None else counters
        self.position: int | None = None
        """Everything before this stream position has been handed out or counted; None before the first slot."""
        self.sequence: int | None = None
        """The next event's sequence number, counted on past 2^32; None while none is known."""
        self.first_sequence: int | None = None
        """The first event's sequence number, when nothing told it beforehand."""
        self._slot_count = slot_count
        self._block = min(BLOCK_SLOTS, slot_count)
        # Events of a block can refer to half a ring before it, and all of the block's own announcements come first.
        window = 1 << (slot_count // 2 + self._block + layout.MAX_MORE - 1).bit_length()
        self._clients: NameWindow[Client] = NameWindow(tables.clients, window)
        self._topics: NameWindow[Resource] = NameWindow(tables.resources, window)
        self._nobody = Client(broker, "mqtt", "")
        # A batch uses at most half of a table, as `must_flush` asks, so that there always is something else to forget.
        # Two less: for "none", and because the name window may touch one number needlessly.
        self._batch_events = min(tables.clients.capacity, tables.resources.capacity) // 2 - 2
        self._carry: Slots = np.empty((0, layout.SLOT_SIZE), np.uint8)
        self._resolvable_from = 0
        self._excused_more = 0
        self._gap_scope = "ring"
        self._time_ns = started_ns

    def resume(self, position: int, sequence: int | None, scope: str = "ring") -> None:
        """Go on as if everything before `position` had been read and the next event's sequence number were `sequence`.

        `scope` names the cause of the gap, if there turns out to be one before the next event.
        """
        self.position, self.sequence, self._gap_scope = position, sequence, scope
        self._carry = self._carry[:0]
        self._resolvable_from = 0

    def learn(self, slots: Slots, position: int) -> None:
        """Take only the announcements, and the last event's sequence number, from slots before the place to begin."""
        for data, at in self._blocks(slots, position):
            block = self._parse(data, at)
            if len(block.events):
                last = int(block.events["sequence"][-1])
                self.sequence = (last if self.sequence is None else _nearest(last, self.sequence)) + 1
            self.position = at + block.kept

    def decode(self, slots: Slots, position: int, *, events_total: int | None = None) -> Iterator[EventBatch]:
        """Yield the batches that `slots`, of which the first is number `position` of the stream, make.

        Exhaust it before the next call, and be done with each batch before taking the next. While a batch is handed
        out, `position` and `sequence` stand just after its last event. Slots need not follow those of the call
        before: what was left out is counted as lost. `events_total` (the ring header's `events`, if known) keeps that
        count exact past 2^32. Never raises for what the slots hold.
        """
        for data, at in self._blocks(slots, position):
            jumped = self.position is not None and at != self.position
            block = self._parse(data, at)
            if len(block.events):
                self._follow_sequence(block, events_total if jumped else None)
            self._drop_unresolved(block)
            yield from self._batches(block)

    def _blocks(self, slots: Slots, position: int) -> Iterator[tuple[Slots, int]]:
        """Cut into blocks with their positions, each led by what the one before left over."""
        if self.position is None or position != self.position + len(self._carry):
            self._carry = self._carry[:0]
            # The first slots may be the rest of a group whose head is out of reach.
            self._excused_more = layout.MAX_MORE if position else 0
            if self.position is None and position:
                self._resolvable_from = position + self._slot_count // 2
        for start in range(0, len(slots), self._block):
            at = position + start - len(self._carry)
            data = slots[start : start + self._block]
            yield np.ascontiguousarray(np.concatenate([self._carry, data]) if len(self._carry) else data), at

    def _parse(self, data: Slots, at: int) -> _Block:
        """Split a block into its kinds of slots, and take in its announcements.

        Before any of its events: identifiers are not reused within a ring, so an event cannot be given a name that
        was announced after it.
        """
        events = data.view(layout.EVENT).reshape(-1)
        is_event = data[:, 0] == layout.TYPE_EVENT
        malformed: list[tuple[str, npt.NDArray[np.intp]]] = []
        kept = len(data)
        if is_event.all():
            places = np.arange(len(data))
            self._excused_more = 0
        else:
            places = np.flatnonzero(is_event)
            found = read_announcements(data, np.flatnonzero(~is_event), self.broker, self._excused_more)
            kept = found.kept
            self._excused_more = found.excused_more
            self._clients.announce(found.client_ids, found.clients)
            self._topics.announce(found.topic_ids, found.topics)
            malformed += found.malformed
            events = events[places]
        self._carry = data[kept:].copy()
        outcome, certainty = events["verdict"] & 0x0F, events["verdict"] >> 4
        good = (
            (events["action"] - np.uint8(layout.ACTION_FIRST) < layout.ACTION_LAST)  # wraps, so 0 is out of range too
            & (outcome <= layout.OUTCOME_LAST)
            & (certainty <= layout.CERTAINTY_LAST)
            & (events["shape"] <= layout.SHAPE_LAST)
            & (events["time_ns"].view(np.int64) >= 0)
        )
        if not good.all():
            malformed.append(("event", places[~good]))
            events, places = events[good], places[good]
        if len(events):
            self._time_ns = int(events["time_ns"][-1])
        return _Block(at, events, places, kept, self._complain(malformed, at))

    def _complain(self, malformed: Sequence[tuple[str, npt.NDArray[np.intp]]], at: int) -> list[Notice]:
        """Count malformed slots and sum them up in one notice: a hostile ring must not make one each."""
        kinds = {what: places for what, places in malformed if len(places)}
        if not kinds:
            return []
        count = sum(len(places) for places in kinds.values())
        self.counters.error("ring", count)
        what, first = min(((what, int(places[0])) for what, places in kinds.items()), key=lambda kind: kind[1])
        return [
            Notice(
                MALFORMED,
                self._time_ns,
                self.broker,
                scope="ring",
                count=count,
                witness=f"malformed {what} slot",
                evidence={
                    "first_position": at + first,
                    "last_position": at + max(int(places[-1]) for places in kinds.values()),
                    **{f"sum_{what}_slots": len(places) for what, places in kinds.items()},
                },
            )
        ]

    def _follow_sequence(self, block: _Block, events_total: int | None) -> None:
        """Count the events missing before and between a block's own."""
        sequences = block.events["sequence"].copy()
        first = int(sequences[0])
        if self.sequence is None:
            self.first_sequence = first
        expected = first if self.sequence is None else self.sequence
        start = _nearest(first, expected)
        if events_total is not None:
            exact = _nearest(first, events_total)
            start = exact if exact >= expected else expected + (first - expected) % (1 << 32)
        steps = (sequences[1:] - sequences[:-1]).view(np.int32)
        gaps = np.flatnonzero(steps > 1)
        end = _congruent(start + int(steps.sum(dtype=np.int64)))
        self.sequence = end + 1
        scope, self._gap_scope = self._gap_scope, "ring"
        times = block.events["time_ns"]
        if start > expected:
            block.notices.append(self.loss(start - expected, expected, scope, int(times[0])))
        if len(gaps):
            lost = int(steps[gaps].sum(dtype=np.int64)) - len(gaps)
            missing = _nearest(int(sequences[gaps[0]]), start) + 1
            last = _nearest(int(sequences[gaps[-1] + 1]), end) - 1
            block.notices.append(self.loss(lost, missing, "ring", int(times[gaps[-1] + 1]), gaps=len(gaps), last=last))
        # Within what a plugin writes the numbers never stand still or go back.
        backwards = np.flatnonzero(steps < 1) + 1
        if start < expected:
            backwards = np.concatenate([[0], backwards])
        block.notices += self._complain([("sequence", block.places[backwards])], block.at)

    def loss(
        self,
        lost: int,
        first_missing: int,
        scope: str,
        time_ns: int | None = None,
        *,
        gaps: int = 1,
        last: int | None = None,
    ) -> Notice:
        """Count lost events and return the notice that says so. `first_missing`, `last`: sequence numbers."""
        self.counters.lost += lost
        self.counters.gaps += gaps
        return Notice(
            LOST,
            self._time_ns if time_ns is None else time_ns,
            self.broker,
            scope=scope,
            count=lost,
            evidence={
                "first_missing": first_missing,
                "last_missing": first_missing + lost - 1 if last is None else last,
                "sum_gaps": gaps,
            },
        )

    def _drop_unresolved(self, block: _Block) -> None:
        """Leave only the events whose names are known."""
        events = block.events
        known = self._clients.knows(events["client"]) & self._topics.knows(events["topic"])
        if known.all():
            return
        skipped = int(np.count_nonzero(block.places[~known] + block.at < self._resolvable_from))
        unresolved = len(known) - int(np.count_nonzero(known)) - skipped
        block.events, block.places = events[known], block.places[known]
        source = self.counters.source
        source["skipped_at_join"] = source.get("skipped_at_join", 0) + skipped
        self.counters.unresolved += unresolved
        if unresolved:
            block.notices.append(Notice(LOST, self._time_ns, self.broker, scope="unresolved", count=unresolved))

    def _batches(self, block: _Block) -> Iterator[EventBatch]:
        end, end_sequence, notices = block.at + block.kept, self.sequence, block.notices
        for start in range(0, len(block.events), self._batch_events):
            stop = start + self._batch_events
            events = block.events[start:stop]
            self.position, self.sequence = end, end_sequence
            if stop < len(block.events) and end_sequence is not None:
                self.position = block.at + int(block.places[stop - 1]) + 1
                self.sequence = _nearest(int(events["sequence"][-1]), end_sequence) + 1
            self.counters.events += len(events)
            yield self._batch(events, notices)
            notices = []
        self.position, self.sequence = end, end_sequence
        if notices:
            yield self._batch(block.events[:0], notices)

    def _batch(self, events: npt.NDArray[Any], notices: Sequence[Notice]) -> EventBatch:
        action, verdict, delivery = events["action"].copy(), events["verdict"].copy(), events["delivery"].copy()
        size = events["size"].astype(np.int64)
        retain = (delivery & layout.DELIVERY_RETAIN) // layout.DELIVERY_RETAIN
        with_message = _WITH_MESSAGE[action]
        if not with_message.all():
            size[~with_message] = SIZE_UNKNOWN
            retain[~with_message] = RETAIN_UNKNOWN
        qos = delivery & layout.DELIVERY_QOS_MASK
        qos[qos == layout.DELIVERY_QOS_UNKNOWN] = QOS_UNKNOWN
        entropy = events["entropy"].astype(np.float32)
        entropy[entropy > layout.ENTROPY_MAX] = ENTROPY_UNKNOWN
        entropy /= layout.ENTROPY_SCALE
        columns = {
            "time_ns": events["time_ns"].view(np.int64).copy(),
            "action": action,
            "outcome": verdict & 0x0F,
            "certainty": verdict >> 4,
            "client": self._clients.numbers(events["client"], self._nobody),
            "resource": self._topics.numbers(events["topic"], NO_RESOURCE),
            "size": size,
            "entropy": entropy,
            "shape": events["shape"].copy(),
            "qos": qos,
            "retain": retain,
            "count": np.ones(len(events), np.uint32),
        }
        return finish_batch(self.tables, columns, notices)


def _nearest(low: int, near: int) -> int:
    """Return the number closest to `near` whose low 32 bits are those of `low`."""
    step = (low - near + (1 << 31)) % (1 << 32) - (1 << 31)
    return _congruent(near + step)


def _congruent(number: int) -> int:
    """Return the number itself, or the smallest that is not negative and has the same low 32 bits."""
    return number if number >= 0 else number % (1 << 32)
