"""The collector that follows the plugin's ring: every event, at the broker's own speed, without the broker noticing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError
from topicwarden.events import COLUMNS, EventBatch, Notice, Tables, finish_batch
from topicwarden.sources import BlindSpot, Counters, SourceOptions
from topicwarden_collectors.mosquitto.ring_blind_spots import ring_blind_spots
from topicwarden_collectors.mosquitto.ring_decode import BLOCK_SLOTS, MALFORMED, RingDecoder
from topicwarden_collectors.mosquitto.ring_file import RingFile
from topicwarden_collectors.mosquitto.ring_position import Place, Reading, ReadingPosition

RESTARTED: Final = "TW906"

_BUSY_S: Final = 0.004
"""Pause after some events: they gather to a batch, and a steady trickle costs at most 250 small batches a second."""
_IDLE_S: Final = 0.016
"""Longest pause: an event after a long silence waits half of it on average."""
_HURRY_S: Final = 0.001
"""Pause when more than a sixteenth of the ring came at once."""
_SILENT_S: Final = 30
"""A heartbeat older than this is a broker that does not run; its loop turns several times a second."""


class RingCollector:
    """Follows a ring over broker restarts; `topicwarden.sources.Collector`."""

    def __init__(
        self,
        path: Path,
        options: SourceOptions | None = None,
        *,
        tables: Tables | None = None,
        clock: Callable[[], int] = time.time_ns,
        look_s: float = 1.0,
    ) -> None:
        """Open the ring; raises ObservationError when it cannot be read.

        `clock`: nanoseconds since the epoch, for the lag only; `look_s`: how often to look for a new ring.
        """
        options = options or SourceOptions()
        self.path = path
        self.broker = options.broker or path.stem
        self.counters = Counters()
        self._tables = tables or Tables()
        self._clock = clock
        self._look_s = look_s
        self._from_start = options.from_start
        self._ring = RingFile(path)
        self._mode = self._ring.mode
        self._start_at = self._ring.head
        self._kept: ReadingPosition | None = None
        if options.state_dir is not None:
            try:
                self._kept = ReadingPosition(options.state_dir, path)
            except BaseException:
                self._ring.close()
                raise
        self._decoder = self._new_decoder()
        self._next = 0
        self._stop_at: int | None = None
        self._iterating = False

    @property
    def title(self) -> str:
        """The mode in a few words."""
        return f"mosquitto plugin, every event ({self.path})"

    @property
    def observing(self) -> bool:
        """From the start: the place to begin at was noted when the ring was opened."""
        return True

    def blind_spots(self) -> Sequence[BlindSpot]:
        """What the plugin cannot show as the broker runs now."""
        heartbeat_ns = 0
        with contextlib.suppress(ObservationError):  # closed: it stands as it was
            self._mode, heartbeat_ns = self._ring.mode, self._ring.heartbeat_ns
        silent_s = (self._clock() - heartbeat_ns) // 10**9 if heartbeat_ns else 0
        spots = ring_blind_spots(self._mode)
        if silent_s <= _SILENT_S:
            return spots
        stopped = BlindSpot(
            f"the plugin has given no sign of life for {silent_s} seconds: the broker does not run, or runs without it",
            "start the broker with the plugin's lines; this collector goes on by itself",
        )
        return (stopped, *spots)

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Yield batches until closed, over restarts of the broker.

        Raises ObservationError when the ring is cut short under us or its successor cannot be read.
        """
        if self._stopping() is not None:
            return
        self._iterating = True
        try:
            for batch in self._begin():
                yield self._claimed(batch)
                self._done()
            pause, looked = _BUSY_S, time.monotonic()
            while True:
                stop_at, before = self._stopping(), self._next
                for batch in self._step():
                    yield self._claimed(batch)
                    self._done()
                taken = self._next - before
                if stop_at is not None and (self._next >= stop_at or not taken):
                    return
                if time.monotonic() - looked >= self._look_s:
                    for batch in self._look():
                        yield self._claimed(batch)
                        self._done()
                    looked = time.monotonic()
                if taken >= BLOCK_SLOTS:
                    pause = 0
                elif taken:
                    pause = _HURRY_S if taken > self._ring.slot_count // 16 else _BUSY_S
                await asyncio.sleep(pause)
                pause = min(_IDLE_S, max(_HURRY_S, pause * 1.25))
        finally:
            self._release()

    async def close(self) -> None:
        """Stop; `batches` hands over what is in the ring now, and ends."""
        if self._stopping() is not None:
            return
        self._stop_at = 0
        if self._iterating:
            with contextlib.suppress(ObservationError):  # then `batches` comes upon it too
                self._stop_at = self._ring.head
        else:
            self._release()

    def _stopping(self) -> int | None:
        """Return where to end, once `close` was called."""
        return self._stop_at

    def _release(self) -> None:
        self._ring.close()
        if self._kept is not None:
            self._kept.close()

    def _new_decoder(self) -> RingDecoder:
        return RingDecoder(
            self._tables,
            self.broker,
            slot_count=self._ring.slot_count,
            counters=self.counters,
            started_ns=self._ring.started_ns,
        )

    def _begin(self) -> Iterator[EventBatch]:
        """Find the place to begin at, and say what was missed on the way there."""
        ring, notices = self._ring, []
        saved, problem = (self._kept.saved, self._kept.problem) if self._kept is not None else (None, None)
        if saved is not None and saved.generation == ring.generation and saved.claimed.position > ring.head:
            saved, problem = None, "it is ahead of the ring"
        if problem is not None:
            self.counters.error("reading-position")
            notices.append(self._notice(MALFORMED, scope="reading-position", witness=problem))
        done = None
        if saved is not None and saved.generation == ring.generation:
            notices += self._resume(saved)
            done = saved.done  # until the notices, too, are done with
        elif saved is not None:
            self._decoder.resume(0, 0)
            unread = "what the broker did after our last batch and before its restart is not known"
            notices.append(self._restarted("reader-restart", {"unread": unread}))
        elif self._from_start:
            self._next = ring.oldest
            if self._next == 0:
                self._decoder.resume(0, 0)
        else:
            self._learn_until(self._start_at)
            if self._start_at == 0:
                self._decoder.resume(0, 0)
        self._keep_start(done)
        self._count_source()
        if notices:
            yield self._only(notices)

    def _resume(self, saved: Reading) -> list[Notice]:
        """Go on after what was claimed; what was claimed but not done may never have been judged."""
        claimed, done = saved.claimed.sequence, saved.done.sequence
        self._learn_until(saved.claimed.position)
        self._decoder.resume(saved.claimed.position, claimed, "reader-restart")
        if claimed is None or done is None or claimed <= done:
            return []
        return [self._decoder.loss(claimed - done, done, "reader-restart")]

    def _learn_until(self, stop: int) -> None:
        """Take in the announcements that events from `stop` on may refer to, and make it the next position."""
        position = max(0, stop - self._ring.slot_count // 2, self._ring.oldest)
        while position < stop:
            slots, at = self._ring.read(position, min(BLOCK_SLOTS, stop - position))
            self._decoder.learn(slots, at)
            if at + len(slots) == position:
                break
            position = at + len(slots)
        self._next = stop

    def _step(self) -> Iterator[EventBatch]:
        """Read what there is, at most one block."""
        ring, decoder = self._ring, self._decoder
        oldest, head = ring.oldest, ring.head
        if head < self._next:
            self.counters.error("ring")
            yield self._only([self._notice(MALFORMED, scope="ring-head", witness="the ring's head went back")])
            decoder.resume(head, decoder.sequence)
            self._next = head
        if self._next < oldest:
            # Lapped. A little further, so as not to be overtaken again at once.
            self._next = min(head, oldest + ring.slot_count // 16)
        slots, at = ring.read(self._next, BLOCK_SLOTS)
        self._next = at + len(slots)
        if len(slots):
            yield from decoder.decode(slots, at, events_total=ring.events)

    def _look(self) -> Iterator[EventBatch]:
        """Look whether a restarted broker has made a new ring; if so, read the old one to its end and go on there."""
        self._count_source()
        if not self._ring.replaced():
            return
        if not self._ring.overwritten:
            head, before = self._ring.head, -1
            while before < self._next < head:
                before = self._next
                yield from self._step()
        try:
            successor = RingFile(self.path)
        except ObservationError:
            if self.path.exists():
                raise
            return  # it went away between two looks; the next one will tell
        self._ring.close()
        self._ring, self._next = successor, 0
        self._decoder = self._new_decoder()
        self._decoder.resume(0, 0)
        self._keep_start()
        yield self._only([self._restarted("")])

    def _restarted(self, scope: str, more: Mapping[str, str] | None = None) -> Notice:
        ring = self._ring
        evidence: dict[str, str | int | float] = {
            "last_pid": ring.pid,
            "last_broker": ring.broker_version,
            "last_plugin": ring.plugin_version,
            **(more or {}),
        }
        return Notice(RESTARTED, ring.started_ns, self.broker, scope=scope, evidence=evidence)

    def _notice(self, code: str, scope: str, witness: str) -> Notice:
        return Notice(code, self._ring.started_ns, self.broker, scope=scope, witness=witness)

    def _only(self, notices: Sequence[Notice]) -> EventBatch:
        """Return a batch that holds nothing but notices."""
        return finish_batch(self._tables, dict.fromkeys(COLUMNS, ()), notices)

    def _count_source(self) -> None:
        self.counters.source.update(self._ring.counts())

    def _keep_start(self, done: Place | None = None) -> None:
        if self._kept is not None:
            self._kept.start(self._ring.generation, Place(self._next, self._decoder.sequence), done)

    def _claimed(self, batch: EventBatch) -> EventBatch:
        """Record that the batch is about to be handed out."""
        if len(batch):
            self.counters.lag_ns = max(0, self._clock() - int(batch.time_ns[-1]))
        if self._kept is not None:
            position = self._next if self._decoder.position is None else self._decoder.position
            self._kept.claim(Place(position, self._decoder.sequence), self._decoder.first_sequence)
        return batch

    def _done(self) -> None:
        if self._kept is not None:
            self._kept.done()
