"""Whatever is done to a store is named; what the writer itself does is not."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.store.filling import SEAL_SECONDS, SIGNER, Filling, files_of, fill
from topicwarden.errors import ObservationError, TopicwardenError
from topicwarden.store import verify_log
from topicwarden.store.files import read_rows, write_rows
from topicwarden.store.log import Log
from topicwarden.store.model import Kind
from topicwarden.store.notes import Signer
from topicwarden.store.proof import prove
from topicwarden.store.verify import verify
from topicwarden.store.verify_log import strange
from topicwarden.store.verify_model import Damage, Found
from topicwarden.store.writer import StoreWriter

KEY = SIGNER.verifier
STRIDE = 29
"""Every so many bytes one is flipped."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "s"
    fill(folder, 3)
    fill(folder, 3, first=3)
    return folder


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "s"))


def found(folder: Path) -> list[Found]:
    return verify(folder, verifier=KEY).found


def places(folder: Path) -> set[tuple[Damage, str]]:
    return {(one.what, one.place) for one in found(folder)}


def place(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder))


def log_file(folder: Path) -> Path:
    ((_, path),) = Log(folder / "log").files
    return path


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    write_rows(path, change(read_rows(path)))


def test_what_nobody_touched_is_intact_and_all_of_it_was_looked_at(store: Path) -> None:
    report = verify(store, verifier=KEY)
    assert report.intact
    assert (report.segments, report.sealed, report.gaps, report.unsigned) == (6, 5, 0, 0)
    rows = sum(len(read_rows(path)) for kind in Kind for path in files_of(store, kind))
    assert (report.rows, report.files) == (rows, sum(len(files_of(store, kind)) for kind in Kind))
    assert not report.own_key
    assert not report.remarks
    assert verify(store).own_key


def test_a_changed_value_is_named_with_its_file_segment_and_rows(store: Path) -> None:
    path = files_of(store)[1]
    rewritten(path, lambda rows: rows.set_column(1, "time_ns", pc.add(rows.column("time_ns"), pa.array([0, 1]))))
    (one,) = found(store)
    assert (one.what, one.place) == (Damage.CHANGED, place(store, path))
    assert (one.segment, one.first_row, one.last_row) == (2, 0, 1)
    assert one.entry is not None
    assert f"entry {one.entry}" in one.message


# The others have the columns of notices.
@pytest.mark.parametrize("kind", [Kind.EVENTS, Kind.CLIENTS, Kind.RESOURCES, Kind.NOTICES])
def test_every_column_of_every_kind_counts(store: Path, kind: Kind) -> None:
    path = files_of(store, kind)[0]
    whole = path.read_bytes()
    rows = read_rows(path)
    for number, name in enumerate(rows.schema.names[1:], 1):
        values = rows.column(name).to_pylist()
        values[0] = "changed" if pa.types.is_string(rows.schema.field(name).type) else int(values[0] or 0) ^ 1
        column = pa.array(values, rows.schema.field(name).type)
        rewritten(path, lambda table, n=number, c=column, m=name: table.set_column(n, m, c))  # type: ignore[misc]
        assert places(store) == {(Damage.CHANGED, place(store, path))}, name
        path.write_bytes(whole)


def test_rows_taken_out_put_in_and_moved_are_told_apart(store: Path) -> None:
    path = files_of(store)[0]
    whole = path.read_bytes()
    rewritten(path, lambda rows: rows.slice(1))
    (one,) = found(store)
    assert (one.what, one.segment) == (Damage.MISSING, 0)
    assert "has 1 rows" in one.message
    path.write_bytes(whole)
    rewritten(path, lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))
    assert [one.what for one in found(store)] == [Damage.INSERTED]
    path.write_bytes(whole)
    rewritten(path, lambda rows: rows.take(list(reversed(range(len(rows))))))
    assert places(store) == {(Damage.CHANGED, place(store, path))}


def test_rows_of_other_segments_in_a_file_are_named(store: Path) -> None:
    path = files_of(store)[0]
    whole = path.read_bytes()
    numbers = {"reordered": [2, 0], "not in the file's name": [0, 7], "no entry": [0, 1]}
    for said, segments in numbers.items():
        column = pa.array(np.array(segments, np.uint32))
        rewritten(path, lambda rows, c=column: rows.set_column(0, "segment", c))  # type: ignore[misc]
        wider = path.with_name(f"{0:010}-{2:010}.parquet")
        (path.rename(wider) if said != "not in the file's name" else path).touch()
        messages = [(one.what.value, one.message) for one in found(store)]
        assert any(said in text for pair in messages for text in pair), messages
        wider.unlink(missing_ok=True)
        path.write_bytes(whole)


def test_a_file_that_is_gone_and_one_that_was_put_there_are_named(store: Path) -> None:
    first, *_, last = files_of(store)
    first.unlink()
    (one,) = found(store)
    assert (one.what, one.place, one.segment) == (Damage.MISSING, place(store, first.parent), 0)
    copied = last.with_name(f"{1:010}-{1:010}.parquet")
    copied.write_bytes(last.read_bytes())
    assert (Damage.INSERTED, place(store, copied)) in places(store)


def test_a_file_in_another_hour_or_broker_is_named_there_and_missed_here(store: Path) -> None:
    path = files_of(store)[0]
    other = files_of(store)[-1].parent / path.name
    path.rename(other)
    assert places(store) == {(Damage.MISSING, place(store, path.parent)), (Damage.INSERTED, place(store, other))}


def test_a_file_that_claims_the_segments_of_all_hides_nothing(store: Path) -> None:
    path = files_of(store)[0]
    cover = path.with_name(f"{0:010}-{4_000_000_000:010}.parquet")
    cover.write_bytes(path.read_bytes())
    (one,) = found(store)
    assert (one.what, one.place, one.segment, one.last_segment) == (Damage.MISSING, place(store, cover), 2, 4)


def test_a_file_of_segments_to_come_is_named(store: Path) -> None:
    path = files_of(store)[0]
    later = path.with_name(f"{9:010}-{9:010}.parquet")
    later.write_bytes(path.read_bytes())
    assert places(store) == {(Damage.INSERTED, place(store, later))}


def test_what_a_crash_may_leave_is_no_damage(store: Path) -> None:
    path = files_of(store)[0]
    path.with_name(f"{6:010}-{6:010}.parquet").write_bytes(path.read_bytes())
    path.with_name(f".{6:010}-{6:010}.parquet.new").touch()
    with log_file(store).open("ab") as log:
        log.write(b'{"index":8')
    report = verify(store, verifier=KEY)
    assert report.intact
    assert len(report.remarks) == 2


def test_strange_files_are_named_wherever_they_lie(store: Path) -> None:
    hour = files_of(store)[0].parent
    strange = [store / "x", store / "log" / "x", store / "log" / "checkpoints" / "x", hour / "x.parquet"]
    strange += [hour.parent / "x", store / "clients" / "hour=x", hour.parent.parent / "x"]
    for path in strange:
        path.touch()
    (hour / f"{3:010}-{3:010}.parquet").symlink_to(files_of(store)[-1])
    named = {one for _, one in places(store)}
    assert {place(store, path) for path in strange} <= named
    assert place(store, hour / f"{3:010}-{3:010}.parquet") in named


def test_summaries_that_would_make_queries_leave_rows_out_are_named(store: Path) -> None:
    path = files_of(store)[0]
    data = path.read_bytes()
    least = int(read_rows(path).column("time_ns").to_numpy().min()).to_bytes(8, "little")
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    changed = data[:footer] + data[footer:].replace(least, (1 << 62).to_bytes(8, "little"))
    assert changed != data
    path.write_bytes(changed)
    assert pq.read_table(path).equals(pa.table(pq.read_table(path)))
    (one, *_) = found(store)
    assert (one.what, one.place) == (Damage.CHANGED, place(store, path))
    assert "queries" in one.message


def test_entries_that_are_changed_missing_doubled_or_swapped_are_named(store: Path) -> None:
    path = log_file(store)
    lines = path.read_bytes().splitlines(keepends=True)
    changed = lines[2].replace(b'"rows":3', b'"rows":2')
    for now, what, words in (
        ([*lines[:2], changed, *lines[3:]], Damage.CHANGED, "not what it signs"),
        ([*lines[:2], *lines[3:]], Damage.MISSING, "entry 2 is missing"),
        ([*lines[:3], *lines[2:]], Damage.REORDERED, "inserted, repeated or moved"),
        ([*lines[:2], lines[3], lines[2], *lines[4:]], Damage.REORDERED, "moved"),
        ([*lines[:2], b"{}\n", *lines[3:]], Damage.CHANGED, "entry 2: not an entry"),
        (lines[:-1], Damage.MISSING, "is missing"),
    ):
        path.write_bytes(b"".join(now))
        named = found(store)
        assert any(one.what is what and words in one.message for one in named), (words, named)


def test_a_log_of_which_a_file_is_missing_is_not_intact(store: Path) -> None:
    log_file(store).rename(store / "log" / f"entries-{5:012}.jsonl")
    assert any(one.what is Damage.MISSING and "entries 0 to 4" in one.message for one in found(store))


def test_checkpoints_that_are_gone_changed_or_of_another_key_are_named(store: Path) -> None:
    kept = sorted((store / "log" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    assert len(kept) > 2
    for path in [*kept, store / "log" / "checkpoint"]:
        whole = path.read_bytes()
        path.unlink()
        assert (Damage.MISSING, place(store, path)) in places(store), path
        path.write_bytes(Signer.generate("store").sign(whole.partition(b"\n\n")[0] + b"\n"))
        assert (Damage.FORGED, place(store, path)) in places(store)
        path.write_bytes(SIGNER.sign(b"another/log\n1\n" + whole.split(b"\n")[2] + b"\n"))
        assert (Damage.FORGED, place(store, path)) in places(store)
        path.write_bytes(whole)
    assert not found(store)
    shutil.rmtree(store / "log" / "checkpoints")
    (store / "log" / "checkpoint").unlink()
    assert any("no checkpoint" in one.message for one in found(store))


def test_what_the_store_says_of_itself_is_bound_by_its_log(store: Path) -> None:
    about = json.loads((store / "store.json").read_bytes())
    (store / "store.json").write_text(json.dumps({**about, "salt": "00" * 16}, indent=1))
    assert (Damage.CHANGED, "store.json") in places(store)


def test_a_store_made_anew_with_another_key_only_agrees_with_itself(store: Path, tmp_path: Path) -> None:
    other = Signer.generate("store")
    StoreWriter(tmp_path / "other", other).close()
    report = verify(tmp_path / "other")
    assert report.intact
    assert report.own_key
    assert not verify(tmp_path / "other", verifier=KEY).intact
    kept = {"kept": (store / "log" / "checkpoint").read_bytes()}
    assert not verify(tmp_path / "other", checkpoints=kept).intact


def test_a_checkpoint_kept_elsewhere_shows_what_the_store_alone_cannot(filled: Path, tmp_path: Path) -> None:
    store, before = tmp_path / "s", tmp_path / "before"
    shutil.copytree(filled, store)
    shutil.copytree(store, before)
    early = (store / "log" / "checkpoint").read_bytes()
    fill(store, 2, first=6)
    late = (store / "log" / "checkpoint").read_bytes()
    report = verify(store, verifier=KEY, checkpoints={"early": early, "late": late})
    assert report.intact
    assert report.outside == 2
    # Rolled back to where it was, it agrees with itself.
    assert verify(before, verifier=KEY).intact
    (one,) = verify(before, verifier=KEY, checkpoints={"late": late}).found
    assert (one.what, one.place) == (Damage.MISSING, "late")
    # And gone another way from there.
    fill(before, 2, first=16)
    assert verify(before, verifier=KEY).intact
    (one,) = verify(before, verifier=KEY, checkpoints={"early": early, "late": late}).found
    assert (one.what, one.place) == (Damage.CHANGED, "late")


def test_a_store_is_verified_while_it_is_written_and_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topicwarden.store.compaction.SMALL_FILES", 4)
    stop = threading.Event()
    with StoreWriter(tmp_path / "s", SIGNER, seal_seconds=SEAL_SECONDS) as writer:
        filling = Filling(writer)
        filling.segment()

        def write() -> None:
            while not stop.is_set():
                filling.segment(hours=2)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            times = 0
            while times < 20 or writer._compactor.merged <= 10:
                report = verify(tmp_path / "s", verifier=KEY)
                assert report.intact, report.found
                times += 1
        finally:
            stop.set()
            thread.join()
    assert verify(tmp_path / "s", verifier=KEY).intact


def test_parts_that_do_not_fit_in_memory_wait_in_a_file(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_log, "RESIDENT", 3)
    assert verify(store, verifier=KEY).intact
    files_of(store)[0].unlink()
    assert len(found(store)) == 1


def test_every_byte_that_is_flipped_is_named_or_changes_no_row(tmp_path: Path) -> None:
    store = tmp_path / "s"
    with StoreWriter(store, SIGNER, seal_seconds=SEAL_SECONDS) as writer:
        Filling(writer).segment(brokers=("plant",))
    chance = random.Random(7)
    tried, harmless = 0, 0
    kinds = [files_of(store, kind)[0] for kind in (Kind.EVENTS, Kind.CLIENTS, Kind.NOTICES)]
    for path in [*kinds, log_file(store), store / "store.json", store / "log" / "checkpoint"]:
        whole = path.read_bytes()
        rows = read_rows(path) if path.suffix == ".parquet" else None
        for at in range(chance.randrange(STRIDE), len(whole), STRIDE):
            changed = bytearray(whole)
            changed[at] ^= 1 << chance.randrange(8)
            path.write_bytes(changed)
            tried += 1
            try:
                intact = verify(store, verifier=KEY).intact
            except TopicwardenError as error:
                intact = path.name not in str(error)
            if intact:
                harmless += 1
                assert rows is not None
                assert repr(pq.ParquetFile(path).read().to_pydict()) == repr(rows.to_pydict())
        path.write_bytes(whole)
    assert tried > 200
    assert harmless < tried / 5


def test_every_file_that_is_cut_is_named(store: Path) -> None:
    for path in (files_of(store)[0], files_of(store, Kind.RESOURCES)[0], store / "log" / "checkpoint"):
        whole = path.read_bytes()
        for length in range(0, len(whole), len(whole) // 9):
            path.write_bytes(whole[:length])
            assert place(store, path) in {one for _, one in places(store)}
        path.write_bytes(whole)
    path = log_file(store)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, len(whole) // 9):
        path.write_bytes(whole[:length])
        assert found(store)


def test_what_is_no_store_or_may_not_be_read_is_said(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="not a store"):
        verify(tmp_path)
    shutil.rmtree(store / "log")
    (one,) = found(store)
    assert (one.what, one.place) == (Damage.MISSING, "log")


def test_one_event_is_proved_by_its_own_segments_files_only(store: Path) -> None:
    for kind in Kind:
        for path in files_of(store, kind):
            if not path.name.startswith(f"{3:010}"):
                path.write_bytes(b"damaged")
    proof = prove(store, 3, 2, verifier=KEY)
    assert proof.holds
    assert proof.row is not None
    assert proof.row["segment"] == 3
    assert len(proof.parts) == 5
    path = next(path for path in files_of(store) if path.name.startswith(f"{3:010}"))
    rewritten(path, lambda rows: rows.slice(1))
    assert not prove(store, 3, verifier=KEY).holds
    path.unlink()
    assert not prove(store, 3, verifier=KEY).holds


def test_a_proof_needs_the_checkpoint_to_reach_the_segment_and_the_log_to_be_what_it_signs(store: Path) -> None:
    first = (store / "log" / "checkpoints" / "1").read_bytes()
    with pytest.raises(ObservationError, match="signs 1 entries"):
        prove(store, 3, note=first)
    with pytest.raises(ObservationError, match="no segment 9"):
        prove(store, 9)
    with pytest.raises(ObservationError, match="no row 99"):
        prove(store, 3, 99)
    with pytest.raises(ObservationError, match="not signed by"):
        prove(store, 3, verifier=Signer.generate("other").verifier)
    path = log_file(store)
    path.write_bytes(path.read_bytes().replace(b'"rows":3', b'"rows":2', 1))
    assert not prove(store, 3, verifier=KEY).holds


def test_what_goes_while_it_is_looked_at_is_not_taken_for_something_strange(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert [found.place for found in strange(tmp_path, tmp_path / "there")] == ["there"]
    assert list(strange(tmp_path, tmp_path / "gone")) == []
