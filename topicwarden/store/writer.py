"""Writes a store: takes rows without making anybody wait, and seals them about twice a second.

Rows are sealed in this order, so that a crash at any moment loses only what was not sealed: the files of the segment,
each written under another name, synced and renamed; then the segment's entry in the log, synced. A file whose segment
is not in the log was never sealed and is removed when the next writer begins, who notes the gap.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa

from topicwarden import __version__
from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden.events import EventBatch
from topicwarden.store.compaction import Compactor
from topicwarden.store.files import file_name, folder_of, row_files, write_rows
from topicwarden.store.identity import STORE_DIGEST, begun, info_digest, locked, settle
from topicwarden.store.log import Log, LogDamageError, LogWriter, sync_folder
from topicwarden.store.log_packing import Packer
from topicwarden.store.model import PACKED_FORMAT, Entry, EntryKind, Kind, Part
from topicwarden.store.notes import Checkpoint, Signer
from topicwarden.store.pending import Pending, Rows
from topicwarden.store.retention import (
    MARK,
    Hour,
    Retention,
    delete,
    facts_of,
    hours_kept,
    mark,
    marked,
    relisted,
    to_retire,
)
from topicwarden.store.rows import digest_of
from topicwarden.store.timestamps import Timestamper

SEAL_SECONDS: Final = 0.5
CHECKPOINT_SECONDS: Final = 10.0
KEEP_SECONDS: Final = 3600.0
"""How often a checkpoint is kept for ever."""
RETIRE_SECONDS: Final = 3600.0
TIDY_SHARE: Final = 0.5
"""Share of the time between two seals in which files may be merged or deleted."""
TIDY_AGAIN_SECONDS: Final = 30.0
"""When merging is tried again that failed: the disk was full."""
MAX_PENDING: Final = 4 << 20
"""Rows that may wait to be sealed; more are dropped, counted and noted as a gap."""
MAX_PENDING_BYTES: Final = 512 << 20
_MAX_LASTING: Final = 4096
_SEAL_AT: Final = 1 << 18
"""Rows after which a segment is sealed before its time."""


class StoreWriter:
    """The one writer of a store."""

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        *,
        about: Mapping[str, Any] | None = None,
        retention: Retention | None = None,
        timestamp_url: str | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        seal_seconds: float = SEAL_SECONDS,
    ) -> None:
        """Open or begin the store; `about` says what is watched, `retention` what may go, `timestamp_url` which
        authority timestamps the checkpoints that stay.

        Raises ConfigurationError when another writer has it, the key is another, or it cannot be written;
        ObservationError when it is damaged or of a newer format.
        """
        self.dropped = 0
        """Rows that were let go: too many waited, or they could not be written."""
        self.sealed = 0
        """Rows sealed."""
        self.gap_ns: tuple[int, int] | None = None
        """From when to when nothing was kept because the writer before us died; None: it did not."""
        self.error: OSError | None = None
        """Why the last attempt to seal failed; None: it did not."""
        self.tidy_error: OSError | None = None
        """Why files could not be merged or deleted the last time; None: they could. No row is lost by that."""
        self.timestamps: Timestamper | None = None
        """Who asks for timestamps; its `error` says why there are none."""
        self._folder = folder
        self._now_ns = now_ns
        self._seal_seconds = seal_seconds
        self._retention = retention
        self._compactor = Compactor(folder)
        self._packer: Packer | None = None
        self._lasting: set[Path] = set()
        """Folders whose names this writer knows to be on disk."""
        self._retiring: Iterator[None] | None = None
        self._began = (now_ns(), time.monotonic_ns())
        self._tidy_at = self._retire_at = time.monotonic()
        self._opened: LogWriter | None = None
        self._lock = locked(folder)
        try:
            self.info = begun(folder, signer, now_ns())
            self._opened = log = LogWriter(folder / "log", signer, self.info.origin)
            if self.info.format >= PACKED_FORMAT:
                self._packer = Packer(folder / "log", signer, self.info.origin)
            before = None if log.last is None else log.last.segment
            self._segment = 0 if before is None else before + 1
            self._recover()
            itself = info_digest(folder)
            self._append(EntryKind.OPENED, {"version": __version__, STORE_DIGEST: itself, "about": dict(about or {})})
            if timestamp_url is not None:
                self.timestamps = Timestamper(timestamp_url, folder / "log" / "checkpoints")
            self._signed(self._log.checkpoint(now_ns()))
        except LogDamageError as error:
            self._let_go()
            raise ObservationError(
                Problem(
                    f"its log was changed: {error}", str(folder), hint="see `topicwarden verify`; begin a new store"
                )
            ) from error
        except OSError as error:
            self._let_go()
            raise ConfigurationError(Problem(f"cannot be written: {error.strerror}", str(folder))) from error
        except BaseException:
            self._let_go()
            raise
        self._pending = Pending(self.info.salt)
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._lost = 0
        self._lost_from_ns = 0
        self._checkpointed = self._kept = time.monotonic()
        self._unwritten: list[Rows] = []
        """What could not be written yet."""
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def write(self, batch: EventBatch) -> None:
        """Keep a batch. Returns at once; when too much waits to be sealed, the batch is dropped and counted."""
        count = len(batch) + len(batch.hosts) + len(batch.notices) + len(batch.changes)
        with self._guard:
            if self._full(count):
                self._drop(count)
                self._pending.skip(batch)
                return
            self._pending.add(batch)
            wake = self._pending.rows.count >= _SEAL_AT
        if wake:
            self._wake.set()

    @property
    def waiting(self) -> int:
        """Rows that wait to be sealed."""
        return self._pending.rows.count

    def finding(self, time_ns: int, about: str, code: str, document: Mapping[str, Any]) -> None:
        """Keep what is said of a finding now; `about`: its broker or host."""
        with self._guard:
            if self._full(1):
                self._drop(1)
                return
            self._pending.document(Kind.FINDINGS, time_ns, about, code, document)

    def close(self) -> None:
        """Seal everything and close the store; what cannot be written any more is counted in `dropped`."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _let_go(self) -> None:
        if self.timestamps is not None:
            self.timestamps.close()
        if self._opened is not None:
            self._opened.close()
        os.close(self._lock)

    @property
    def _log(self) -> LogWriter:
        assert self._opened is not None
        return self._opened

    def _full(self, count: int) -> bool:
        waiting = self._pending.rows
        return waiting.count + count > MAX_PENDING or waiting.bytes > MAX_PENDING_BYTES

    def _drop(self, count: int) -> None:
        if not self._lost:
            self._lost_from_ns = self._now_ns()
        self._lost += count
        self.dropped += count

    def _run(self) -> None:
        tidying = 0.0
        while not self._stopping:
            self._wake.wait(max(0.0, self._seal_seconds - tidying))
            self._wake.clear()
            self._seal()
            now = time.monotonic()
            if now - self._checkpointed > CHECKPOINT_SECONDS:
                self._checkpoint(keep=now - self._kept > KEEP_SECONDS)
            tidying = self._tidy(now)
        self._compactor.abandon()
        if self._packer is not None:
            self._packer.abandon()
        self._seal()
        self._end()

    def _seal(self) -> None:
        """Seal what waits; what could not be written the last time goes first."""
        if not self._unwritten:
            with self._guard:
                self._unwritten.extend(self._pending.take().pieces())
        try:
            while self._unwritten:
                try:
                    self._write(self._unwritten[0])
                except (pa.ArrowException, ValueError):
                    # Rows that no file can hold must not keep all others waiting.
                    with self._guard:
                        self._drop(self._unwritten[0].count)
                del self._unwritten[0]
            self.error = None
            self._note_lost()
        except OSError as error:
            # Kept for another attempt; meanwhile new rows wait, up to their limit.
            self.error = error

    def _write(self, rows: Rows) -> None:
        parts, written = [], []
        try:
            for (kind, broker, hour), table in rows.tables(self._segment):
                folder = folder_of(self._folder, kind, broker, hour)
                if folder not in self._lasting or not folder.is_dir():
                    # One that is there may be what another attempt, or writer, made and could not sync.
                    _make_folders(self._folder, folder)
                    if len(self._lasting) >= _MAX_LASTING:
                        self._lasting.clear()
                    self._lasting.add(folder)
                path = folder / file_name(self._segment, self._segment)
                written.append(path)
                write_rows(path, table)
                times = table.column("time_ns").to_numpy() if "time_ns" in table.schema.names else None
                first, last = (hour, hour) if times is None else (int(times.min()), int(times.max()))
                parts.append(Part(kind, broker, hour, len(table), digest_of(table), first, last))
            self._log.append(EntryKind.SEGMENT, self._now_ns(), segment=self._segment, parts=parts)
        except (OSError, pa.ArrowException, ValueError):
            for path in written:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    # Other rows may get their number.
                    sync_folder(path.parent)
            raise
        self._segment += 1
        self.sealed += rows.count
        for part in parts:
            self._compactor.sealed((part.kind, part.broker, part.hour), self._now_ns())

    def _tidy(self, began: float) -> float:
        """Retire, merge and compress until it is nearly time to seal again; return how many seconds that took."""
        until = began + self._seal_seconds * TIDY_SHARE
        try:
            if self._retiring is None and self._retention and began >= self._retire_at:
                self._retire_at = began + RETIRE_SECONDS
                self._compactor.abandon()
                self._retiring = self._retire(self._retention)
            while began >= self._tidy_at and not (self._stopping or self._wake.is_set()) and time.monotonic() < until:
                if self._retiring is not None:
                    if next(self._retiring, self) is self:
                        self._retiring = None
                elif self._unwritten or not self._step():  # what is not sealed may lie there, and is not to be merged
                    break
                self.tidy_error = None
        except OSError as error:
            if self._retiring is not None:
                # What is to go goes before it could be merged with what stays.
                self._retiring, self._retire_at = None, began
            self.tidy_error = error
            self._tidy_at = began + TIDY_AGAIN_SECONDS
        return time.monotonic() - began

    def _step(self) -> bool:
        """Merge a little and compress a little; returns whether there is more to do at once."""
        packing = self._packer is not None and self._packer.step(self._log.first)
        return self._compactor.step(self._now_ns()) or packing

    def _retire(self, retention: Retention) -> Iterator[None]:
        """Delete what the rules no longer keep, hour by hour, each named in the log before it goes."""
        yield from self._finish_deleting()
        kept: list[Hour] = []
        for one in hours_kept(self._folder):
            if one is None:
                yield
            else:
                kept.append(one)
        # A clock that is set forward while we run deletes nothing.
        steady = self._began[0] + time.monotonic_ns() - self._began[1]
        for hour in to_retire(kept, retention, min(self._now_ns(), steady)):
            with self._guard:
                if self._pending.rows.has(hour.hour) or any(rows.has(hour.hour) for rows in self._unwritten):
                    continue  # they may need its clients; the next time, then
                if hour.kind is Kind.EVENTS:
                    self._pending.forget_hour(hour.hour)
            for facts in facts_of(hour, relisted(self._folder, hour)):
                mark(self._folder, self._log.size)
                yield from delete(self._folder, self._append(EntryKind.RETIRED, facts))

    def _note_lost(self) -> None:
        with self._guard:
            lost, since = self._lost, self._lost_from_ns
            self._lost = 0
            if lost:
                # Whoever was in what was dropped has to be written again.
                self._pending.forget()
        if not lost:
            return
        now = self._now_ns()
        facts = {"reason": "could not keep up, or could not write", "lost": lost, "from_ns": since, "until_ns": now}
        try:
            self._append(EntryKind.GAP, facts)
        except OSError as error:
            self.error = error
            with self._guard:
                self._lost, self._lost_from_ns = self._lost + lost, since

    def _checkpoint(self, *, keep: bool) -> None:
        self._checkpointed = time.monotonic()
        try:
            self._signed(self._log.checkpoint(self._now_ns(), keep=keep))
            if keep:
                self._kept = self._checkpointed
        except OSError as error:
            self.error = error

    def _signed(self, checkpoint: Checkpoint) -> None:
        if checkpoint.kept and self.timestamps is not None:
            self.timestamps.kept(checkpoint.size)

    def _end(self) -> None:
        if self._unwritten:
            self._drop(sum(rows.count for rows in self._unwritten))
            self._note_lost()
        try:
            self._append(EntryKind.CLOSED, None)
        except OSError as error:
            self.error = error
        self._checkpoint(keep=True)

    def _recover(self) -> None:
        """Remove what was never sealed, and note the gap that a writer left who did not close the store."""
        last = self._log.last
        closed = last is None or last.kind is EntryKind.CLOSED
        if not closed:
            settle(self._folder)
        removed = 0
        changed: set[Path] = set()
        for kind in Kind:
            for file in row_files(self._folder, kind):
                if file.first >= self._segment:
                    file.path.unlink()
                    changed.add(file.path.parent)
                    removed += 1
            for leftover in (self._folder / kind.value).rglob(".*.new"):
                leftover.unlink()
                removed += 1
        # Their number is given again: came they back when power is lost, they would pass for that segment's.
        for folder in changed:
            sync_folder(folder)
        collections.deque(self._finish_deleting(), maxlen=0)
        if last is None or closed:
            return
        now = self._now_ns()
        self.gap_ns = (last.time_ns, now)
        facts = {
            "reason": "the writer before ended without closing the store",
            "from_ns": last.time_ns,
            "until_ns": now,
            "files_removed": removed,
            "bytes_cut": self._log.cut,
        }
        self._append(EntryKind.GAP, facts)

    def _finish_deleting(self) -> Iterator[None]:
        """Delete what is left of what an entry of the log said goes."""
        going = marked(self._folder)
        if going is not None:
            for entry in itertools.islice(Log(self._folder / "log").entries(going), 1):
                yield from delete(self._folder, entry)
            (self._folder / "log" / MARK).unlink(missing_ok=True)

    def _append(self, kind: EntryKind, facts: Mapping[str, Any] | None) -> Entry:
        """Append an entry that is no segment; it names the newest one, so that the next writer knows it."""
        segment = self._segment - 1 if self._segment else None
        return self._log.append(kind, self._now_ns(), segment=segment, facts=facts)


def _make_folders(root: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    while folder != root:
        folder = folder.parent
        sync_folder(folder)
