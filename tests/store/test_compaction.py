"""Merging files changes no row and no order, takes bounded steps, and may die at any moment."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.filling import SEAL_SECONDS, SIGNER, START, Filling, files_of, fill, run_until_killed, wait_for
from topicwarden.events.rows import to_rows
from topicwarden.store import compaction, writer
from topicwarden.store.compaction import WORTH, Compactor, worth_merging
from topicwarden.store.files import HOUR_NS, RowFile, open_rows, read_rows
from topicwarden.store.log import Log
from topicwarden.store.model import EntryKind, Kind
from topicwarden.store.reader import Store
from topicwarden.store.verify import verify
from topicwarden.store.writer import StoreWriter

KEY = SIGNER.verifier
LATER = START + 48 * HOUR_NS


def rows_of(folder: Path) -> list[str]:
    return [str(row) for batch in Store(folder).batches() for row in to_rows(batch)]


def merged(folder: Path, now_ns: int = LATER) -> Compactor:
    compactor = Compactor(folder)
    finish(compactor, now_ns)
    return compactor


def finish(compactor: Compactor, now_ns: int = LATER) -> None:
    while compactor.step(now_ns):
        pass


def test_hours_that_are_over_become_one_file_each_with_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    fill(tmp_path, 12, hours=3)
    before = rows_of(tmp_path)
    compactor = merged(tmp_path)
    assert rows_of(tmp_path) == before
    assert len(files_of(tmp_path)) == 6
    assert not compactor.damaged
    for path in files_of(tmp_path):
        segments = read_rows(path).column("segment").to_pylist()
        assert segments == sorted(segments)
        assert path.name == f"{segments[0]:010}-{segments[-1]:010}.parquet"
    report = verify(tmp_path, verifier=KEY)
    assert report.intact
    assert not report.remarks
    assert not list(tmp_path.rglob(".*.new"))


def test_an_hour_that_goes_on_is_left_until_it_has_too_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "SMALL_FILES", 5)
    with StoreWriter(tmp_path, SIGNER, seal_seconds=SEAL_SECONDS, now_ns=lambda: START) as store:
        filling = Filling(store)
        for _ in range(4):
            filling.segment()
        assert len(files_of(tmp_path, Kind.NOTICES)) == 4
        filling.segment()
        wait_for(lambda: len(files_of(tmp_path, Kind.NOTICES)) == 1)
    assert verify(tmp_path, verifier=KEY).intact


def test_rows_are_cut_into_row_groups_as_if_they_had_never_been_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROW_GROUP", 7)
    fill(tmp_path, 8, hours=1)
    before = rows_of(tmp_path)
    merged(tmp_path)
    for path in files_of(tmp_path):
        with open_rows(path) as file:
            groups = [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)]
        assert set(groups[:-1]) <= {7}
        assert 0 < groups[-1] <= 7
    assert rows_of(tmp_path) == before
    assert verify(tmp_path, verifier=KEY).intact


@given(st.lists(st.integers(1, 1 << 20), min_size=1, max_size=40), st.booleans())
def test_what_is_worth_it_leaves_few_files_and_keeps_neighbours_together(sizes: list[int], over: bool) -> None:
    files = [(RowFile(Path(), Kind.EVENTS, "b", 0, n, n), size) for n, size in enumerate(sizes)]
    groups = list(worth_merging(files, over=over))
    for group in groups:
        numbers = [file.first for file in group]
        assert len(numbers) > 1
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
    gone = {file.first for group in groups for file in group}
    kept = [size for n, size in enumerate(sizes) if n not in gone]
    after = [*kept, sum(sizes[n] for n in gone)] if gone else kept
    # What remains shrinks so fast that there cannot be many.
    assert all(size > WORTH * sum(after[n + 1 :]) for n, size in enumerate(after[:-1]))


def test_a_large_file_is_not_written_anew_for_a_few_late_rows(tmp_path: Path) -> None:
    fill(tmp_path, 40, hours=1)
    merged(tmp_path)
    (large,) = files_of(tmp_path, Kind.NOTICES)
    about = large.stat()
    fill(tmp_path, 1, hours=1, first=40)
    merged(tmp_path)
    # Size decides: with a footer of its own a small file is not as small as its rows.
    kept = files_of(tmp_path, Kind.NOTICES)
    assert verify(tmp_path, verifier=KEY).intact
    assert len(kept) == 1 or large.stat().st_ino == about.st_ino


def test_a_damaged_file_is_left_as_it_is_and_everything_else_merged(tmp_path: Path) -> None:
    fill(tmp_path, 6, hours=2)
    damaged = files_of(tmp_path)[0]
    whole = damaged.read_bytes()
    for data in (b"", whole[:-20], whole.replace(b"PAR1", b"PAR2"), whole[:60] + b"\x00" * 40 + whole[100:]):
        damaged.write_bytes(data)
        assert merged(tmp_path).damaged == {damaged.parent}
        assert damaged.read_bytes() == data
    assert len(files_of(tmp_path)) == 3 + 3
    damaged.write_bytes(whole)
    merged(tmp_path)
    assert len(files_of(tmp_path)) == 4
    assert verify(tmp_path, verifier=KEY).intact


def test_files_that_a_crash_left_beside_the_merged_one_go_only_if_it_has_their_rows(tmp_path: Path) -> None:
    fill(tmp_path, 4, hours=1)
    small = [(path, path.read_bytes()) for path in files_of(tmp_path)]
    merged(tmp_path)
    for path, data in small:
        path.write_bytes(data)
    report = verify(tmp_path, verifier=KEY)
    assert report.intact
    assert len(report.remarks) == len(small)
    merged(tmp_path)
    assert not [path for path, _ in small if path.exists()]
    assert verify(tmp_path, verifier=KEY).intact
    # One that is not what the merged one has is evidence.
    path, _ = small[0]
    path.write_bytes(small[-1][1])
    assert merged(tmp_path).damaged
    assert path.exists()


def test_a_full_disk_stops_a_merge_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 4, hours=1)
    before = sorted(path.name for path in tmp_path.rglob("*"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("topicwarden.store.files.os.fsync", full)
        compactor = Compactor(tmp_path)
        with pytest.raises(OSError, match="No space"):
            finish(compactor)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    finish(compactor)
    assert len(files_of(tmp_path)) == 2


def test_a_reader_who_began_before_files_were_merged_reads_on(tmp_path: Path) -> None:
    fill(tmp_path, 12, hours=3)
    wanted = rows_of(tmp_path)
    store = Store(tmp_path)
    batches = store.batches()
    rows = [str(row) for row in to_rows(next(batches))]
    files = store.files(Kind.NOTICES)
    merged(tmp_path)
    rows += [str(row) for batch in batches for row in to_rows(batch)]
    assert rows == wanted
    assert sum(len(store.table(file)) for file in files) == 12


def compact_until_killed(folder: Path, told: int) -> None:
    """Write and merge for ever; say on the pipe once there is something to merge."""
    patched = pytest.MonkeyPatch()
    patched.setattr(compaction, "SMALL_FILES", 3)
    patched.setattr(writer, "TIDY_SHARE", 20.0)
    with StoreWriter(folder, SIGNER, seal_seconds=SEAL_SECONDS) as store:
        filling = Filling(store)
        while True:
            filling.segment(brokers=("plant",))
            if filling.number == 4:
                os.write(told, b"!")


@pytest.mark.parametrize("seed", range(3))
def test_killed_while_merging_nothing_is_lost_or_doubled(tmp_path: Path, seed: int) -> None:
    moments = random.Random(seed)
    for _ in range(20):
        run_until_killed(lambda told: compact_until_killed(tmp_path, told), moments.uniform(0, 0.05))
    report = verify(tmp_path, verifier=KEY)
    assert report.intact, report.found
    assert report.segments >= 4 * 20
    sealed = sum(
        part.rows
        for entry in Log(tmp_path / "log").entries()
        if entry.kind is EntryKind.SEGMENT
        for part in entry.parts
        if part.kind is Kind.EVENTS
    )
    assert len(rows_of(tmp_path)) == sealed
    StoreWriter(tmp_path, SIGNER).close()
    assert not merged(tmp_path).damaged
    assert len(files_of(tmp_path)) <= 8
    assert len(rows_of(tmp_path)) == sealed
    assert verify(tmp_path, verifier=KEY).intact


def test_a_merge_that_is_given_up_leaves_the_files(tmp_path: Path) -> None:
    fill(tmp_path, 40, hours=1)
    before = sorted(path.name for path in tmp_path.rglob("*.parquet"))
    compactor = Compactor(tmp_path)
    while not list(tmp_path.rglob(".*.new")):
        assert compactor.step(LATER)
    compactor.abandon()
    assert sorted(path.name for path in tmp_path.rglob("*.parquet")) == before
    assert not list(tmp_path.rglob(".*.new"))
    assert isinstance(read_rows(files_of(tmp_path)[0]), pa.Table)
