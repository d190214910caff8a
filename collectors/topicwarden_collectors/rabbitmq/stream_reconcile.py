"""Turns attempts and refusals into what happened: no I/O, no clock.

The plugin records an attempt before the broker checks it, and a refusal when the broker's check says no: in the same
process, so the refusal follows its attempt in the stream, and nothing else of that actor stands between. Hence

- a refusal makes the actor's last attempt denied, if it can belong to it, and else is an event of its own;
- an attempt that the same actor has gone on after was allowed, exactly: its refusal would have come before;
- an attempt that nothing followed for a while was allowed, inferred;
- after a refusal, and after a publish or binding to an exchange that is not there, the broker closes the channel
  (RabbitMQ 3.10.8) and carries out nothing that still waits for it: those attempts are dropped, and counted.

Rows come out in the order they came in, so a row may wait for one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from topicwarden.events import Certainty, Outcome
from topicwarden_collectors.rabbitmq import stream_layout as layout
from topicwarden_collectors.rabbitmq.stream_decode import Events, Named
from topicwarden_collectors.rabbitmq.stream_layout import Method, Permission

SETTLED_US: Final = 20_000
"""An attempt this much older than the newest event, with no refusal, was allowed. A check takes microseconds with
RabbitMQ's own database, but on a saturated node a process may wait some milliseconds for its turn in between."""
_SET_BACK_US: Final = 1_000_000
"""An event this much newer than the newest came before the clock was set back."""
_LATE_US: Final = 1_000_000
"""A refusal that comes later than its attempt was settled still belongs to it within this time."""

ROW: Final = np.dtype(
    [
        ("time_us", "i8"),
        ("actor", "i4"),
        ("resource", "i4"),
        ("size", "u4"),
        ("method", "u4"),
        ("action", "u1"),
        ("wire", "u1"),
        ("flags", "u1"),
        ("right", "u1"),
        ("outcome", "u1"),
        ("certainty", "u1"),
        ("open", "u1"),
    ],
    align=True,
)
"""An event with internal numbers. `wire` is the outcome in the stream, `outcome` and `certainty` ours; `open`: an
attempt of which a refusal may still come."""
DECIDED: Final = 0
"""`wire` of an attempt that no refusal can belong to any more."""
OTHER: Final = 9
"""Action of a row that is no event of the stream, and only keeps its place: `resource` says which."""

Rows = npt.NDArray[Any]
"""Of dtype `ROW`."""
Flags = npt.NDArray[np.bool_]

_ATTEMPTS: Final = (layout.PUBLISH, layout.SUBSCRIBE, layout.UNSUBSCRIBE, layout.CONFIGURE)
"""What is recorded before the broker checks it; all else it tells when it has happened."""
_DECLARES: Final = (Method.QUEUE_DECLARE, Method.EXCHANGE_DECLARE)


@dataclass(slots=True)
class Counts:
    """What became no event."""

    not_carried_out: int = 0
    """Attempts on a channel that was already being closed."""
    passive: int = 0
    """Passive declares: questions whether something is there, which need no permission."""
    late: int = 0
    """Refusals that came after their attempt had been handed out as allowed."""
    unmatched: int = 0
    """Refusals without an attempt."""


def rows_of(events: Events, actor: npt.NDArray[np.int32], resource: npt.NDArray[np.int32]) -> Rows:
    """Return events of the stream as rows."""
    rows = np.empty(len(events), ROW)
    for name in ("time_us", "size", "method", "action", "flags", "right"):
        rows[name] = events[name]
    rows["actor"], rows["resource"], rows["wire"] = actor, resource, events["outcome"]
    rows["outcome"], rows["certainty"] = Outcome.ALLOWED, Certainty.EXACT
    rows["open"] = rows["action"] > layout.DISCONNECT
    wire = rows["wire"]
    if (wire != layout.ATTEMPTED).any():
        rows["outcome"][wire != layout.ATTEMPTED] = Outcome.DENIED
        rows["certainty"][wire == layout.NO_EXCHANGE] = Certainty.INFERRED
    return rows


def other_row(time_us: int, number: int) -> Rows:
    """Return one row that stands for something else."""
    row = np.zeros(1, ROW)
    row["time_us"], row["actor"], row["resource"], row["action"] = time_us, -1, number, OTHER
    return row


@dataclass(slots=True)
class _View:
    """Rows by actor: a place is an index into `order`, which leads to the row. All but `ends` have the rows' length."""

    rows: Rows
    order: npt.NDArray[np.intp]
    """Row of each place: sorted by actor, and for each actor in the stream's order."""
    actor: npt.NDArray[np.int32]
    begins: Flags
    """Whether a place is its actor's first."""
    head: npt.NDArray[np.int32]
    """The place where the operation of a place begins."""
    ends: npt.NDArray[np.intp]
    """The last place of each actor."""
    gone: Flags
    """By row: whether it is no event."""
    old: int
    """Rows from this one on are new."""


class Reconciler:
    """Holds rows back until it is known what became of them."""

    def __init__(
        self, about: Callable[[int], Named | None], channel_of: Callable[[int], int], counts: Counts | None = None
    ) -> None:
        """`about`: the resource of an internal number; `channel_of`: an actor's channel number, 0 for a connection."""
        self.counts = counts or Counts()
        self.sure = True
        """Whether nothing is missing from the stream: else nothing is exact that rests on what did not come."""
        self._about = about
        self._channel_of = channel_of
        self._waiting = np.empty(0, ROW)
        self._new: list[Rows] = []
        self._closing = np.zeros(256, np.uint8)
        """Of each actor: 1 when its channel is being closed, 2 when attempts were dropped since."""
        self._last = np.zeros(256, ROW)
        """Each actor's last row that was handed out, in case it was allowed by inference and its refusal is late."""

    @property
    def waiting(self) -> int:
        """How many rows are held back."""
        return len(self._waiting) + sum(map(len, self._new))

    def add(self, rows: Rows) -> None:
        """Take rows, in the order of the stream."""
        if len(rows):
            self._new.append(rows)
            highest = int(rows["actor"].max())
            if highest >= len(self._closing):
                more = max(highest + 1, 2 * len(self._closing)) - len(self._closing)
                self._closing = np.append(self._closing, np.zeros(more, np.uint8))
                self._last = np.append(self._last, np.zeros(more, ROW))

    def reopened(self, actor: int) -> None:
        """The actor is gone: its number may be given to another one."""
        if actor < len(self._closing):
            self._closing[actor] = 0

    def take(self, *, everything: bool = False) -> Rows:
        """Return the rows of which it is known what became of them; `everything`: wait no longer for refusals."""
        old = len(self._waiting)
        if not self._new and not (everything and old):
            return self._waiting[:0]
        rows = np.concatenate([self._waiting, *self._new]) if self._new else self._waiting
        self._new = []
        rows = rows[~self._decide(rows, old, everything)]
        still_open = rows["open"].argmax() if len(rows) else 0
        ready = int(still_open) if len(rows) and rows["open"][still_open] else len(rows)
        self._waiting = rows[ready:]
        return self._remember(rows[:ready])

    def renumber(self) -> Rows:
        """Return what is held back and forget all actors, because their numbers get another meaning.

        The caller gives the rows back, with their new numbers, to `restore`.
        """
        waiting = np.concatenate([self._waiting, *self._new])
        self._waiting, self._new = waiting[:0], []
        self._closing[:] = 0
        self._last[:] = np.zeros((), ROW)
        return waiting

    def restore(self, rows: Rows) -> None:
        """Take back what `renumber` returned; nothing was added or taken meanwhile."""
        self._waiting = rows

    def _decide(self, rows: Rows, old: int, everything: bool) -> Flags:
        """Decide what can be decided, in place; returns which rows are no events. The first `old` were here before."""
        order = _by_actor(rows["actor"])
        actor = rows["actor"][order]
        begins = np.empty(len(rows), np.bool_)
        begins[:1] = True
        np.not_equal(actor[1:], actor[:-1], out=begins[1:])
        places = np.arange(len(rows), dtype=np.int32)
        is_head = ~_continues(rows)[order]
        is_head |= begins
        head = np.maximum.accumulate(np.where(is_head, places, 0))
        ends = np.append(np.flatnonzero(begins)[1:], len(rows)) - 1
        gone = np.zeros(len(rows), np.bool_)
        view = _View(rows, order, actor, begins, head, ends, gone, old)
        self._drop_closing(view)
        self._follow_refusals(view)
        passive = (rows["flags"] & layout.PASSIVE) != 0
        if passive.any():
            passive &= (rows["wire"] != layout.REFUSED) & ~gone
            self.counts.passive += int(np.count_nonzero(passive))
            gone |= passive
        self._settle(view, everything)
        return gone

    def _drop_closing(self, view: _View) -> None:
        """Drop what came for channels that were being closed before."""
        starts = np.flatnonzero(view.begins)
        closing = (self._closing[view.actor[starts]] != 0) & (view.actor[starts] >= 0)
        if not closing.any():
            return
        for start, end in zip(starts[closing].tolist(), view.ends[closing].tolist(), strict=True):
            fresh = start + int(np.searchsorted(view.order[start : end + 1], view.old))
            # Further keys of the publish that the channel is closed for.
            actor = int(view.actor[start])
            while start < fresh <= end and view.head[fresh] == view.head[fresh - 1] and self._closing[actor] == 1:
                _fail(view.rows, view.order[fresh])
                fresh += 1
            self._close(view, actor, fresh, end)

    def _close(self, view: _View, actor: int, start: int, end: int) -> None:
        """Drop an actor's rows from `start` to `end` (places by actor), up to its disconnect."""
        rows = view.order[start : end + 1]
        left = np.flatnonzero(view.rows["action"][rows] == layout.DISCONNECT)
        if len(left):
            rows = rows[: left[0]]
        dropped = rows[(view.rows["wire"][rows] != layout.REFUSED) & ~view.gone[rows]]
        view.gone[dropped] = True
        self.counts.not_carried_out += len(dropped)
        self._closing[actor] = 0 if len(left) else 2 if len(dropped) else max(1, self._closing[actor])

    def _follow_refusals(self, view: _View) -> None:
        """Find the attempts that refusals, and missing exchanges, belong to."""
        wire = view.rows["wire"][view.order]
        enders = np.flatnonzero((wire != layout.ATTEMPTED) & (view.order >= view.old))
        for place in enders.tolist():
            row = view.rows[view.order[place]]
            if row["action"] == OTHER or view.gone[view.order[place]]:
                continue
            end = int(view.ends[np.searchsorted(view.ends, place)])
            if row["wire"] == layout.NO_EXCHANGE:
                after = place + 1
                while after <= end and view.head[after] == view.head[place]:
                    _fail(view.rows, view.order[after])
                    after += 1
                if self._channel_of(int(row["actor"])):
                    self._close(view, int(row["actor"]), after, end)
                continue
            self._refuse(view, place, end)

    def _refuse(self, view: _View, place: int, end: int) -> None:
        """Give a refusal to the attempt before it, or let it be an event of its own."""
        rows, index = view.rows, view.order[place]
        refusal = rows[index]
        actor = int(refusal["actor"])
        refusal["open"] = 0
        if refusal["right"] in (Permission.VHOST, Permission.LOGIN):
            return
        if not view.begins[place]:
            operation = view.order[int(view.head[place - 1]) : place]
            if not view.gone[operation[0]] and self._belongs(refusal, rows[operation]):
                rows["wire"][operation] = DECIDED
                rows["outcome"][operation], rows["certainty"][operation] = Outcome.DENIED, Certainty.EXACT
                rows["open"][operation] = 0
                rows["right"][operation] = refusal["right"]
                view.gone[index] = True
            else:
                # Should it be that attempt's after all, then it was not allowed; so that is not claimed to be exact.
                still_open = operation[rows["open"][operation] != 0]
                rows["certainty"][still_open] = Certainty.INFERRED
                rows["open"][still_open] = 0
                self.counts.unmatched += 1
                return
        else:
            last = self._last[actor : actor + 1]
            late = 0 <= int(refusal["time_us"]) - int(last["time_us"][0]) <= _LATE_US
            if not late or not self._belongs(refusal, last):
                self.counts.unmatched += 1
                return
            for name in ("resource", "size", "method", "action", "flags"):
                refusal[name] = last[name][0]
            last["action"] = 0
            self.counts.late += 1
        if self._channel_of(actor):
            self._close(view, actor, place + 1, end)

    def _belongs(self, refusal: Any, operation: Rows) -> bool:
        """Whether what was refused can have been part of an operation (its head, then its further keys)."""
        head = operation[0]
        if head["wire"] not in (layout.ATTEMPTED, layout.NO_EXCHANGE) or head["action"] not in _ATTEMPTS:
            return False
        if head["flags"] & layout.PASSIVE:
            return False
        if refusal["method"] not in (0, head["method"]):
            return False
        refused = self._about(int(refusal["resource"]))
        attempts = [self._about(int(number)) for number in operation["resource"]]
        return _fits(int(refusal["right"]), refused, int(head["method"]), int(head["action"]), attempts)

    def _settle(self, view: _View, everything: bool) -> None:
        """Decide about attempts that no refusal came for."""
        rows = view.rows
        is_open = rows["open"] != 0
        if not is_open.any():
            return
        followed = np.empty(len(rows), np.bool_)
        lengths = np.diff(view.ends, prepend=-1)
        followed[view.order] = view.head != np.repeat(view.head[view.ends], lengths)
        followed &= is_open
        newest = int(rows["time_us"][-1])
        if everything:
            aged = is_open & ~followed
        else:
            times = rows["time_us"]
            aged = is_open & ~followed & ((times <= newest - SETTLED_US) | (times > newest + _SET_BACK_US))
        inferred = aged | (followed & ((rows["flags"] & layout.IN_TRANSACTION) != 0)) if self.sure else aged | followed
        rows["certainty"][inferred] = Certainty.INFERRED
        rows["open"][aged | followed] = 0
        rows["wire"][followed] = DECIDED

    def _remember(self, rows: Rows) -> Rows:
        heads = rows[(rows["actor"] >= 0) & ~_continues(rows)]
        # Of several rows of one actor the last one stays.
        self._last[heads["actor"]] = heads
        return rows


def _fail(rows: Rows, row: np.intp) -> None:
    """Let a row share the fate of the operation it belongs to, which found no exchange."""
    rows["wire"][row], rows["outcome"][row], rows["certainty"][row] = (
        layout.NO_EXCHANGE,
        Outcome.DENIED,
        Certainty.INFERRED,
    )


def _continues(rows: Rows) -> Flags:
    """Tell which rows belong to the operation of the row before: further keys, and the destination of a binding."""
    continues: Flags = (rows["flags"] & layout.FURTHER_KEY) != 0
    configures = rows["action"] == layout.CONFIGURE
    if configures.any():
        method = rows["method"]
        continues |= configures & ((method == Method.EXCHANGE_BIND) | (method == Method.EXCHANGE_UNBIND))
        continues &= rows["wire"] != layout.REFUSED
    return continues


def _by_actor(actor: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """Return the stable order by actor."""
    if len(actor) and actor.max() < np.iinfo(np.uint16).max:
        # NumPy sorts 16-bit numbers by radix, ten times as fast.
        return np.argsort(actor.astype(np.uint16), kind="stable")
    return np.argsort(actor, kind="stable")


def _fits(right: int, refused: Named | None, method: int, action: int, attempts: Sequence[Named | None]) -> bool:
    """Whether an operation can have asked for the permission on what was refused (`rabbit_channel`, 3.10.8)."""
    if right == Permission.CONFIGURE and action != layout.CONFIGURE:
        return False
    if right == Permission.READ and action == layout.PUBLISH:
        return False
    if right not in (Permission.CONFIGURE, Permission.WRITE, Permission.READ):
        return False
    if right == Permission.WRITE and method in (Method.BASIC_CONSUME, Method.BASIC_GET, Method.QUEUE_PURGE):
        return False
    if refused is None:
        return True
    head = attempts[0]
    if refused.kind in (layout.KEY, layout.BINDING):
        return any(one is not None and (one.within, one.name) == (refused.within, refused.name) for one in attempts)
    if refused.kind == layout.QUEUE:
        # A binding asks for write on the queue, which is not what the attempt names; '' is the one declared last.
        return method in (Method.QUEUE_BIND, Method.QUEUE_UNBIND) or (
            head is not None and head.kind == layout.QUEUE and head.name in (refused.name, "")
        )
    if method in _DECLARES and right != Permission.CONFIGURE:
        return True  # its alternate or dead letter exchange
    if method in (Method.EXCHANGE_BIND, Method.EXCHANGE_UNBIND):
        return True  # its other end
    if head is None:
        return False
    return refused.name == (head.name if head.kind == layout.EXCHANGE_ITSELF else head.within)
