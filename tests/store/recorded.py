"""Runs writers of a store in a process whose changes to files are recorded, or fail.

Preloading a recorder was chosen over replacing Python's functions because it also sees what pyarrow, or any library
that is used one day, writes; and over `strace` because gcc is needed by other tests anyway. Whether it saw all is
asserted: what was recorded gives the files that are there.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.store import filling
from tests.store.disk import Change, Disk, read_changes, seen
from tests.store.filling import SEAL_SECONDS, START, Filling, wait_for
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.events import EventBatch
from topicwarden.store import compaction, log, writer
from topicwarden.store.files import HOUR_NS
from topicwarden.store.notes import Signer
from topicwarden.store.retention import parse_retention
from topicwarden.store.writer import StoreWriter

SOURCE: Final = Path(__file__).with_name("disk_recorder.c")
WRITTEN: Final = "written"
"""The mark before rows are given to the writer."""
OPENED: Final = "opened"
FAILED: Final = "failed"
"""The mark in place of a change that could not be done."""
ALL: Final = 1 << 40
NEVER: Final = 1e9


@dataclass(frozen=True, slots=True)
class Session:
    """One writer's life."""

    segments: int = 2
    first: int = 0
    """Number of the first one, which tells its time."""
    hours: int = 2
    """Over how many hours the segments go."""
    now_hours: int = 0
    """What the clock says, in hours."""
    retain: str | None = None
    checkpoint: bool = False
    """Whether checkpoints are made after each segment, every other one to stay."""
    fail_from: int | None = None
    """Number of the change that fails first, from 0 at the writer's beginning."""
    fail_times: int = 1
    """How many do; `ALL`: it is as if it were killed there."""
    error: int = 5


@dataclass(frozen=True, slots=True)
class Result:
    """What a writer said of itself."""

    changes: int
    refused: str | None
    """Why it did not begin."""
    sealed: int = 0
    dropped: int = 0
    error: str | None = None
    """Why it could not write in the end."""


class Recorder:
    """A process that runs writers and records them."""

    def __init__(self, folder: Path) -> None:
        """`folder`: for the recorder and its recordings."""
        library = folder / "disk_recorder.so"
        build = ["gcc", "-std=gnu11", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
        subprocess.run(build, check=True)
        self._recording = folder / "recording"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.recorded", str(library)],
            cwd=SOURCE.parents[2],
            env={**os.environ, "LD_PRELOAD": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, *sessions: Session) -> tuple[list[Change], list[Result]]:
        """Run writers on the store `folder`, one after the other; everything below the folder above it is recorded."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        before = Disk(folder.parent)
        ask = [str(folder), str(self._recording), filling.SIGNER.encoded(), [asdict(one) for one in sessions]]
        self._process.stdin.write(json.dumps(ask) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the writer's thread died, see above"
        results = [Result(**row) for row in json.loads(answer)]
        changes = read_changes(self._recording)
        for change in changes:
            before.apply(change)
        assert before.now() == seen(folder.parent), "the recording is not complete"
        return changes, results

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


class _Library:
    """The recorder, from within."""

    def __init__(self, path: str) -> None:
        self._functions = ctypes.CDLL(path)

    def record(self, folder: Path, recording: Path) -> None:
        self._functions.disk_record(os.fsencode(folder), os.fsencode(recording))

    def fail(self, first: int, times: int, error: int) -> None:
        self._functions.disk_fail(ctypes.c_long(first), ctypes.c_long(times), error)

    def mark(self, text: str) -> None:
        self._functions.disk_mark(text.encode())

    @property
    def changes(self) -> int:
        """How many were tried since it records."""
        return ctypes.c_long.in_dll(self._functions, "disk_changes").value

    def stop(self) -> None:
        self._functions.disk_stop()


def _serve(library: _Library) -> None:
    compaction.SMALL_FILES = 4  # type: ignore[misc]
    compaction.SETTLED_NS = 0  # type: ignore[misc]
    log.ENTRIES_A_FILE = 12  # type: ignore[misc]
    writer.TIDY_AGAIN_SECONDS = 0  # type: ignore[misc]
    writer.TIDY_SHARE = 1000  # type: ignore[misc]
    for line in sys.stdin:
        folder, recording, key, sessions = json.loads(line)
        signer = Signer.parse(key)
        library.record(Path(folder).parent, Path(recording))
        results = [_lived(library, Path(folder), signer, Session(**row)) for row in sessions]
        library.stop()
        sys.stdout.write(json.dumps([asdict(one) for one in results]) + "\n")
        sys.stdout.flush()


def _lived(library: _Library, folder: Path, signer: Signer, session: Session) -> Result:
    """Run a writer from its beginning to its end, whatever fails."""
    begin = library.changes
    if session.fail_from is not None:
        library.fail(begin + session.fail_from, session.fail_times, session.error)
    now = START + session.now_hours * HOUR_NS
    rules = None if session.retain is None else parse_retention([session.retain])
    writer.CHECKPOINT_SECONDS = NEVER  # type: ignore[misc]
    threading.excepthook = _broken
    try:
        store = StoreWriter(folder, signer, retention=rules, now_ns=lambda: now, seal_seconds=SEAL_SECONDS)
    except (ConfigurationError, ObservationError) as error:
        library.fail(0, 0, 0)
        return Result(library.changes - begin, str(error))
    library.mark(OPENED)
    watched = _Watched(store, library, mortal=session.fail_times == ALL and session.fail_from is not None)
    work = Filling(watched, session.first)  # type: ignore[arg-type]
    for number in range(session.segments):
        work.segment(hours=session.hours, events=2, brokers=("plant",))
        if session.checkpoint:
            watched.checkpoint(keep=number % 2 == 0)
    wait_for(lambda: watched.dead or (_settled(store, now) and store.error is None))
    store.close()
    library.fail(0, 0, 0)
    why = None if store.error is None else str(store.error)
    return Result(library.changes - begin, None, store.sealed, store.dropped, why)


class _Watched:
    """A writer whose rows count as sealed once it can write no more, so that nobody waits for them."""

    def __init__(self, store: StoreWriter, library: _Library, *, mortal: bool) -> None:
        self._store = store
        self._library = library
        self._mortal = mortal
        self._asked = 0

    @property
    def dead(self) -> bool:
        return self._mortal and (self._store.error or self._store.tidy_error) is not None

    @property
    def sealed(self) -> int:
        self._asked += self.dead
        return self._store.sealed + self._asked

    def write(self, batch: EventBatch) -> None:
        self._library.mark(WRITTEN)
        self._store.write(batch)

    def checkpoint(self, *, keep: bool) -> None:
        before = self._store._checkpointed
        writer.KEEP_SECONDS = -1 if keep else NEVER  # type: ignore[misc]
        writer.CHECKPOINT_SECONDS = -1  # type: ignore[misc]
        wait_for(lambda: self._store._checkpointed != before)
        writer.CHECKPOINT_SECONDS = NEVER  # type: ignore[misc]


def _settled(store: StoreWriter, now: int) -> bool:
    """Whether there is nothing to retire, to merge or to compress."""
    merging, packing = store._compactor, store._packer
    if packing is not None and packing._begun != store._log.first:
        return False
    due = any(merging._due(key, now) for key in list(merging._files))
    return store._retiring is None and merging._begun and merging._work is None and not due


def _broken(told: threading.ExceptHookArgs) -> None:
    """End the process, so that whoever waits for its answer learns of it."""
    traceback.print_exception(told.exc_type, told.exc_value, told.exc_traceback)
    os._exit(1)


if __name__ == "__main__":
    _serve(_Library(sys.argv[1]))
