"""Power lost at any change of a file, and anything that was not synced there or not: what was sealed is there, only
that is shown, what is missing is said, and nothing is accused.
"""

from __future__ import annotations

import copy
import errno
import itertools
import os
import random
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.store.disk import Change, Disk, File, Tree, fates, lay_out, seen
from tests.store.filling import SEAL_SECONDS, SIGNER, START, Filling
from tests.store.recorded import ALL, FAILED, WRITTEN, Recorder, Session
from topicwarden.store import verify as verifying
from topicwarden.store import writer
from topicwarden.store.files import file_name, folder_of
from topicwarden.store.identity import INFO
from topicwarden.store.log import Log, entry_line, parsed_entry
from topicwarden.store.model import Entry, EntryKind, Kind
from topicwarden.store.reader import Store
from topicwarden.store.retention import retired_by
from topicwarden.store.verify import verify
from topicwarden.store.verify_rows import Expected, FolderResult, verify_folder
from topicwarden.store.writer import StoreWriter

KEY = SIGNER.verifier
NAME = "s"
WAYS = 8
"""The first of `fates` that take turns."""
STORY = (
    Session(3, checkpoint=True),
    Session(3, first=3, now_hours=3, checkpoint=True),
    Session(1, first=6, now_hours=3, fail_from=30, fail_times=ALL),
    Session(2, first=7, now_hours=30, retain="20h"),
)
"""A store begun, closed, merged, its log compressed, its writer killed, recovered, its old hours deleted, closed."""
Rows = Mapping[tuple[str, int], Any]
"""A folder's and segment's rows."""


@dataclass(slots=True)
class History:
    """What was written up to some moment."""

    lines: list[bytes] = field(default_factory=list)
    """The log's entries."""
    acknowledged: int = 0
    """How many of them were synced."""
    given: bool = False
    """Whether rows were given to a writer."""
    rows: dict[bytes, dict[tuple[str, int], bytes]] = field(default_factory=dict)
    """By entry that ever was, the files that were sealed with it."""

    def note(self, disk: Disk, change: Change) -> None:
        """Note a change that was done just now."""
        self.given |= change.path == WRITTEN
        path = Path(change.path)
        if not path.match("log/entries-*.jsonl"):
            return
        if change.code == "S":
            self.acknowledged = len(self.lines)
        elif change.code in "WT":
            tree = disk.now()
            lines = (tree[f"{NAME}/log/{path.name}"] or b"").split(b"\n")[:-1]
            self.lines[int(path.stem.removeprefix("entries-")) :] = lines
            for line in lines:
                if line not in self.rows:
                    number = parsed_entry(line, 0).segment
                    self.rows[line] = {
                        (place, number): tree[f"{NAME}/{place}/{file_name(number, number)}"] or b""
                        for place in folders(parsed_entry(line, 0))
                        if number is not None
                    }


def losses(disk: Disk, changes: Sequence[Change], history: History, rng: random.Random, share: float) -> Iterator[Tree]:
    """Yield what power lost after some of the changes may leave; `history` is what was written by then."""
    known: set[int] = set()
    turn = rng.randrange(WAYS)
    for change in changes:
        disk.apply(change)
        history.note(disk, change)
        if rng.random() < share:
            turn += 1
            fate = next(itertools.islice(fates(rng, disk.unsynced()), turn % WAYS, None))
            tree = disk.after(fate, rng)
            state = hash((history.acknowledged, history.given, tuple(tree.items())))
            if state not in known:
                known.add(state)
                yield tree


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spend no time on what is the same in each state: syncing, and verifying a folder with the same files again."""
    known: dict[Any, FolderResult] = {}

    def verified(root: Path, expected: Expected) -> FolderResult:
        there = seen(root / expected.folder) if (root / expected.folder).is_dir() else {}
        facts = (expected.kind, expected.parts.tobytes(), tuple(expected.retired), expected.going, expected.sealed)
        key = (root, expected.folder, facts, tuple(there.items()))
        if key not in known:
            known[key] = verify_folder(root, expected)
        return copy.deepcopy(known[key])

    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(writer, "settle", lambda _: None)
    monkeypatch.setattr(verifying, "verify_folder", verified)


def folders(entry: Entry) -> list[str]:
    if entry.kind is not EntryKind.SEGMENT:
        return []
    return [str(folder_of(Path(), part.kind, part.broker, part.hour)) for part in entry.parts]


@cache
def rows_in(data: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(data)).to_pylist()
    return rows


def shown(folder: Path) -> Rows:
    """Return the rows that the store has."""
    store = Store(folder)
    found: dict[tuple[str, int], Any] = {}
    for kind in Kind:
        for file in store.files(kind):
            place = str(file.path.parent.relative_to(folder))
            for row in rows_in(file.path.read_bytes()):
                found.setdefault((place, row["segment"]), []).append(row)
    return found


def lines_of(folder: Path) -> list[bytes]:
    return [entry_line(entry) for entry in Log(folder / "log").entries()]


def expected(history: History, lines: Sequence[bytes], *, retired: bool) -> Rows:
    """Return the rows that these entries say are there; with those they say are deleted, or without."""
    found: dict[tuple[str, int], Any] = {}
    for line in lines:
        found |= {place: rows_in(data) for place, data in history.rows[line].items()}
        for one in retired_by(parsed_entry(line, 0)) if not retired else ():
            place = str(folder_of(Path(), one.kind, one.broker, one.hour))
            for key in [key for key in found if key[0] == place and one.first <= key[1] <= one.last]:
                del found[key]
    return found


def check(folder: Path, history: History) -> None:
    """Check what is left, open it, and go on with it."""
    left: list[bytes] = []
    if (folder / INFO).exists():
        report = verify(folder, verifier=KEY, threads=1)
        assert report.intact, report.found
        left = lines_of(folder)
        sealed, at_most = expected(history, left, retired=False), expected(history, left, retired=True)
        before = shown(folder)
        assert sealed.items() <= before.items()
        assert before.items() <= at_most.items()
    assert left[: history.acknowledged] == history.lines[: history.acknowledged], "what was sealed is gone"
    assert set(left) <= history.rows.keys()
    closed = bool(left) and parsed_entry(left[-1], 0).kind is EntryKind.CLOSED
    with StoreWriter(folder, SIGNER, seal_seconds=SEAL_SECONDS, now_ns=lambda: START) as store:
        Filling(store, 5).segment(events=2, brokers=("plant",))
    assert (store.gap_ns is not None) == (not closed if left else history.given), "a gap that is not said, or is none"
    assert not store.dropped
    report = verify(folder, verifier=KEY, threads=1)
    assert report.intact, report.found
    lines = lines_of(folder)
    assert lines[: len(left)] == left
    added = [parsed_entry(line, 0) for line in lines[len(left) :]]
    kinds = [EntryKind.OPENED, EntryKind.SEGMENT, EntryKind.CLOSED]
    assert [entry.kind for entry in added] == ([EntryKind.GAP] if store.gap_ns else []) + kinds
    after = shown(folder)
    new = {(place, added[-2].segment) for place in folders(added[-2])}
    assert after.keys() == new | expected(history, left, retired=False).keys()
    assert all(after[key] == rows for key, rows in expected(history, left, retired=False).items())
    assert not [path for path in folder.rglob(".*.new") if path.parent.name.startswith("hour=")]


def check_all(folder: Path, trees: Iterator[Tree], history: History) -> int:
    """Check each of the states; returns how many there were."""
    checked = 0
    for tree in trees:
        lay_out(tree, folder)
        check(folder / NAME, history)
        shutil.rmtree(folder)
        checked += 1
    return checked


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    with Recorder(tmp_path_factory.mktemp("recorder")) as started:
        yield started


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Path]:
    """Return where states are laid out, and removed again: in memory, if that is at hand."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder) / "left"


def recorded(recorder: Recorder, folder: Path, *sessions: Session) -> tuple[Disk, list[Change]]:
    """Run writers on the store in a folder; return what was there before, and the changes."""
    folder.mkdir(exist_ok=True)
    disk = Disk(folder)
    changes, _ = recorder.run(folder / NAME, *sessions)
    return disk, changes


def test_power_lost_at_any_change_loses_nothing_that_was_sealed_and_what_is_missing_is_said(
    tmp_path: Path, left: Path, recorder: Recorder
) -> None:
    disk, changes = recorded(recorder, tmp_path / "story", *STORY)
    done = {change.code for change in changes} | {Path(change.other).suffix for change in changes}
    assert done >= {*"OWSYRUXM", ".parquet", ".gz", ".json"}, "the story leaves something out"
    history = History()
    assert check_all(left, losses(disk, changes, history, random.Random(6), 0.2), history) > 80
    assert any(parsed_entry(line, 0).kind is EntryKind.RETIRED for line in history.lines)


def test_power_lost_again_while_the_store_recovers_loses_no_more(
    tmp_path: Path, left: Path, recorder: Recorder
) -> None:
    rng = random.Random(7)
    disk, changes = recorded(recorder, tmp_path / "story", *STORY)
    first = History()
    checked = 0
    for tree in losses(disk, changes, first, rng, 0.01):
        lay_out(tree, tmp_path / "first")
        folder = tmp_path / "first" / NAME
        again = History(given=first.given, rows=dict(first.rows))
        if (folder / INFO).exists():
            again.lines = lines_of(folder)
            again.acknowledged = len(again.lines)
        before, more = recorded(recorder, tmp_path / "first", Session(1, first=9, now_hours=30, retain="20h"))
        checked += check_all(left, losses(before, more, again, rng, 0.08), again)
        shutil.rmtree(tmp_path / "first")
    assert checked > 25


LIVES = (
    Session(2),
    Session(2, first=2, now_hours=3),
    Session(2, first=4, now_hours=30, retain="20h"),
    Session(1, first=6, now_hours=30),
)


MERGED = r"/\.(\d+)-(?!\1)\d+\.parquet\.new"


@pytest.mark.parametrize(
    ("sessions", "life", "before", "times"),
    [
        pytest.param(LIVES[:2], 0, r"R .*store\.json$", ALL, id="killed before a new store's name is synced"),
        pytest.param(LIVES[:2], 1, f"O .*{MERGED}", ALL, id="killed while merging"),
        pytest.param(LIVES[:2], 1, f"R .*{MERGED}", 1, id="a merged file's name cannot be synced"),
        pytest.param(
            (Session(1, hours=1), Session(2, first=1, hours=1)),
            0,
            "S .*/notices/hour=|M .*/notices/hour=",
            60,
            id="a new folder's name cannot be synced until all is dropped",
        ),
        pytest.param(LIVES, 2, r"W .*entries-.*retired", 3, id="what is retired cannot be deleted"),
        pytest.param(LIVES, 2, r"W .*entries-.*retired", ALL, id="killed before an entry that retires is synced"),
    ],
)
def test_power_lost_after_a_writer_was_killed_or_could_not_write_loses_no_more(
    tmp_path: Path, left: Path, recorder: Recorder, sessions: Sequence[Session], life: int, before: str, times: int
) -> None:
    (tmp_path / "whole").mkdir()
    changes, results = recorder.run(tmp_path / "whole" / NAME, *sessions)
    tried = [change for change in changes if change.code != "!" or change.path == FAILED]
    tried = tried[sum(result.changes for result in results[:life]) :]
    said = [f"{one.code} {one.path} {one.other}{one.data.decode(errors='replace')}" for one in tried]
    place = next(number for number, text in enumerate(said) if re.match(before, text, re.DOTALL)) + 1
    failing = list(sessions)
    failing[life] = replace(sessions[life], fail_from=place, fail_times=times, error=errno.EIO)
    disk, changes = recorded(recorder, tmp_path / "failing", *failing)
    history = History()
    first = next(number for number, change in enumerate(changes) if change.path == FAILED)
    for change in changes[:first]:
        disk.apply(change)
        history.note(disk, change)
    assert check_all(left, losses(disk, changes[first:], history, random.Random(8), 0.15), history) > 5


def test_an_entry_of_which_only_the_end_came_to_the_disk_is_no_entry(
    tmp_path: Path, left: Path, recorder: Recorder
) -> None:
    disk, changes = recorded(recorder, tmp_path / "story", Session(2, first=2), Session(1, first=4))
    history, rng = History(), random.Random(9)

    def torn() -> Iterator[Tree]:
        for change in changes:
            disk.apply(change)
            history.note(disk, change)
            if change.code == "W" and Path(change.path).match("log/entries-*"):
                states = [disk.after(lambda one: 0.5 if isinstance(one, File) else 1, rng) for _ in range(16)]
                # Each once, in an order that is not chance's.
                yield from {tuple(tree.items()): tree for tree in states}.values()

    def zeros(trees: Iterator[Tree]) -> Iterator[Tree]:
        for tree in trees:
            log = b"".join(data or b"" for path, data in tree.items() if Path(path).match("log/entries-*"))
            if b"\0" in log:
                found.add(log.endswith(b"\n"))
                yield tree

    found: set[bool] = set()
    assert check_all(left, zeros(torn()), history) > 5
    assert found == {True, False}


def test_a_disk_that_is_full_at_any_change_loses_nothing_unsaid(tmp_path: Path, recorder: Recorder) -> None:
    _, (whole,) = recorder.run(tmp_path / NAME, Session(1))
    for number in range(0, whole.changes, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        session = Session(1, fail_from=number, fail_times=2 + number % 3, error=errno.ENOSPC)
        _, (result,) = recorder.run(folder / NAME, session)
        if result.refused is not None:
            assert "No space left on device" in result.refused
            _, (result,) = recorder.run(folder / NAME, Session(1))
        assert result.sealed + result.dropped == whole.sealed
        report = verify(folder / NAME, verifier=KEY, threads=1)
        assert report.intact, report.found
        assert report.rows == result.sealed
        closed = parsed_entry(lines_of(folder / NAME)[-1], 0).kind is EntryKind.CLOSED
        # What could not even be said is said by whoever is next.
        assert report.lost == result.dropped or not closed
        with StoreWriter(folder / NAME, SIGNER) as store:
            assert (store.gap_ns is None) == closed


def test_what_is_not_synced_may_be_missing_in_any_combination(tmp_path: Path) -> None:
    def outcomes(*steps: tuple[str, str, str, bytes]) -> set[tuple[tuple[str, bytes | None], ...]]:
        found = set()
        for seed in range(400):
            disk = Disk(tmp_path)
            for code, path, other, data in steps:
                disk.apply(Change(code, f"{tmp_path}{path}", f"{tmp_path}{other}", data, 0))
            rng = random.Random(seed)
            fate = next(itertools.islice(fates(rng, disk.unsynced()), seed % WAYS, None))
            found.add(tuple(disk.after(fate, rng).items()))
        return found

    (tmp_path / "a").write_bytes(b"old")
    new = b"n" * 600
    steps = [("O", "/.a", "", b""), ("W", "/.a", "", new), ("R", "/.a", "/a", b"")]
    torn = {b"", b"\0" * 512, b"\0" * 600, b"n" * 512, b"n" * 512 + b"\0" * 88, b"\0" * 512 + b"n" * 88, new}
    kept = {(("a", b"old"),)}
    renamed, created = ({((name, data), *rest) for data in torn} for name, *rest in (("a",), (".a", ("a", b"old"))))
    assert kept | renamed <= outcomes(*steps) <= kept | renamed | created
    synced = [*steps[:2], ("S", "/.a", "", b""), steps[2]]
    assert outcomes(*synced) == kept | {(("a", new),), ((".a", new), ("a", b"old"))}
    assert outcomes(*synced, ("S", "", "", b"")) == {(("a", new),)}
    # Both were synced, but not the name of what they are in.
    folder = [("M", "/f", "", b""), ("O", "/f/b", "", b""), ("W", "/f/b", "", b"b"), ("S", "/f/b", "", b"")]
    assert outcomes(*folder, ("S", "/f", "", b"")) == kept | {(("a", b"old"), ("f", None), ("f/b", b"b"))}
