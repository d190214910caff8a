"""A log whose full files are compressed and summarized says what it said before, whatever is done to these files."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import tracemalloc
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.filling import SEAL_SECONDS, SIGNER, Filling, fill, wait_for
from tests.store.test_log import entries
from topicwarden.errors import ObservationError
from topicwarden.report.integrity import read_log, verified
from topicwarden.store import identity, log_entries, log_files
from topicwarden.store import log as store_log
from topicwarden.store.identity import info_digest, read_info
from topicwarden.store.log import Log, LogDamageError, LogWriter, entry_line, parsed_entry
from topicwarden.store.log_entries import MAX_LINE, segment_line
from topicwarden.store.log_files import LogFile, content, listed
from topicwarden.store.log_packing import Packer
from topicwarden.store.log_summary import Summarizing, read_summary
from topicwarden.store.model import Entry, EntryKind, Kind, Part
from topicwarden.store.notes import Signer
from topicwarden.store.proof import prove
from topicwarden.store.reader import Store
from topicwarden.store.verify import verify
from topicwarden.store.verify_log import Parts, unexpected, verify_log
from topicwarden.store.verify_model import Damage, Verification
from topicwarden.store.views import Views
from topicwarden.store.writer import StoreWriter

KEY = SIGNER.verifier
A_FILE = 4
SEGMENTS = 11
STRIDE = 7
"""Every so many bytes one is flipped."""


@pytest.fixture(scope="module", autouse=True)
def short_files() -> Iterator[None]:
    with patch.object(store_log, "ENTRIES_A_FILE", A_FILE):
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, short_files: None) -> Path:
    """Return a store whose log has several full files, none of them compressed, and a gap in the first one."""
    folder = tmp_path_factory.mktemp("store") / "s"
    with patch.object(Packer, "step", lambda *_: False):
        with patch.object(StoreWriter, "_end"):
            fill(folder, 1)
        fill(folder, SEGMENTS - 1, first=1)
    assert not list((folder / "log").glob("*.gz"))
    assert len(Log(folder / "log").files) >= 4
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Path:
    folder = Path(shutil.copytree(plain, tmp_path_factory.mktemp("packed") / "s"))
    pack(folder)
    assert (
        len(listed(folder / "log").packed)
        == len(listed(folder / "log").summaries)
        == len(Log(folder / "log").files) - 1
    )
    assert len(listed(folder / "log").plain) == 1
    return folder


@pytest.fixture
def store(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "s"))


def origin(folder: Path) -> str:
    return read_info(folder).origin


def packer(folder: Path) -> Packer:
    return Packer(folder / "log", SIGNER, origin(folder))


def pack(folder: Path) -> Packer:
    found = packer(folder)
    finish(found, max(listed(folder / "log").firsts))
    return found


def finish(work: Packer, newest: int) -> None:
    while work.step(newest):
        pass


def file(folder: Path, number: int) -> LogFile:
    return LogFile(folder / "log", number * A_FILE)


def said(folder: Path) -> dict[str, Any]:
    """Return all that readers say of a store's log."""
    store, log = Store(folder), Log(folder / "log")
    report = verify(folder, verifier=KEY)
    return {
        "entries": list(log.entries()),
        "from 5": list(log.entries(5)),
        "root": log.tree().root(),
        "opened": store.opened,
        "gaps": store.gaps,
        "sealed": store.sealed,
        "verification": {**asdict(report), "remarks": None},
        "proofs": [
            (proof.holds, proof.line, proof.proof)
            for proof in (prove(folder, segment, verifier=KEY) for segment in (0, 4, SEGMENTS - 1))
        ],
    }


def verified_log(folder: Path) -> Verification:
    """Verify the log only, and not the rows."""
    info, parts = read_info(folder), Parts()
    report = Verification(info.id, KEY, own_key=False)
    deque(verify_log(folder, info, info_digest(folder), {}, (), report, parts), maxlen=0)
    report.add(unexpected(folder))
    return report


def named(folder: Path) -> set[tuple[Damage, str]]:
    return {(one.what, one.place.removeprefix("log/")) for one in verified_log(folder).found}


def kept(folder: Path) -> tuple[Any, ...]:
    store = Store(folder)
    return store.opened, store.gaps, store.sealed


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "log").iterdir() if path.is_file()}


forms = st.sampled_from(["plain", "packed", "both"])


@given(st.lists(st.tuples(forms, st.booleans()), min_size=8, max_size=8))
@settings(max_examples=8, deadline=None)
def test_whatever_form_its_files_have_a_log_says_the_same(
    plain: Path, packed: Path, chosen: list[tuple[str, bool]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(packed, Path(name) / "s"))
        for (first, _), (form, summary) in zip(Log(plain / "log").files[:-1], chosen, strict=False):
            one = LogFile(folder / "log", first)
            if form != "packed":
                shutil.copy(LogFile(plain / "log", first).plain, one.plain)
            if form == "plain":
                one.packed.unlink()
            if not summary:
                one.summary.unlink()
        assert said(folder) == said(plain)
        pack(folder)
        assert files(folder) == files(packed)


def test_a_crash_between_any_two_steps_changes_nothing_and_is_made_up_for(
    plain: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topicwarden.store.log_packing.BLOCK", 700)
    before = said(plain)
    folder = Path(shutil.copytree(plain, tmp_path / "s"))
    newest = max(listed(folder / "log").firsts)
    work, steps, states = packer(folder), 0, set()
    while work.step(newest):
        steps += 1
        state = frozenset(path.name for path in (folder / "log").iterdir())
        if state in states:
            continue
        states.add(state)
        crashed = Path(shutil.copytree(folder, tmp_path / str(steps)))
        assert said(crashed) == before
        pack(crashed)
        assert files(crashed) == files(packed)
        if len(states) % 5 == 2:
            fill(crashed, 1, first=SEGMENTS)
            assert verify(crashed, verifier=KEY).intact
    assert work.packed == len(Log(plain / "log").files) - 1
    assert len(states) >= 4 * work.packed


def test_what_is_given_up_leaves_nothing_and_a_full_disk_loses_nothing(plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "s"))
    names = sorted((folder / "log").iterdir())
    work = packer(folder)
    assert work.step(A_FILE)
    assert len(list((folder / "log").iterdir())) == len(names) + 1
    work.abandon()
    assert sorted((folder / "log").iterdir()) == names
    with patch("os.fsync", side_effect=OSError(28, "No space left on device")), pytest.raises(OSError, match="space"):
        finish(work, A_FILE)
    assert sorted((folder / "log").iterdir()) == names
    # Nothing else waits for it.
    finish(work, A_FILE)
    assert not listed(folder / "log").packed
    finish(work, 2 * A_FILE)
    assert listed(folder / "log").packed == {0, A_FILE}
    assert said(folder) == said(plain)


def test_a_writer_compresses_full_files_between_seals_and_verifying_meanwhile_accuses_nobody(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SIGNER, seal_seconds=SEAL_SECONDS) as writer:
        filling = Filling(writer)
        while len(listed(tmp_path / "log").summaries) < 4:
            filling.segment()
            report = verify(tmp_path, verifier=KEY)
            assert report.intact, report.found
    assert verify(tmp_path, verifier=KEY).intact
    assert Store(tmp_path).sealed == filling.number - 1
    fill(tmp_path, 2, first=filling.number)
    assert verify(tmp_path, verifier=KEY).intact


def test_a_store_of_format_1_is_gone_on_with_as_it_was_begun(tmp_path: Path) -> None:
    with patch.object(identity, "FORMAT", 1):
        fill(tmp_path, 6)
    with StoreWriter(tmp_path, SIGNER, seal_seconds=SEAL_SECONDS) as writer:
        filling = Filling(writer, 6)
        for _ in range(6):
            filling.segment()
        assert writer.info.format == 1
        wait_for(lambda: writer._compactor._begun)
    found = listed(tmp_path / "log")
    assert len(found.plain) > 2
    assert not found.packed | found.summaries
    assert verify(tmp_path, verifier=KEY).intact


def test_every_byte_that_is_flipped_in_a_compressed_file_is_named_or_changes_no_entry(store: Path) -> None:
    path, said_before = file(store, 1).packed, list(Log(store / "log").entries())
    whole = path.read_bytes()
    harmless = 0
    for at in [*range(20), *range(20, len(whole), STRIDE), *range(len(whole) - 8, len(whole))]:
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        if (Damage.UNREADABLE, path.name) not in named(store):
            harmless += 1
            assert list(Log(store / "log").entries()) == said_before
    assert harmless <= 7, "only the time and the system in its head, and bits that fill its last byte"


def test_a_compressed_file_that_is_cut_or_goes_on_or_says_more_in_its_head_is_named(store: Path) -> None:
    path = file(store, 1).packed
    whole = path.read_bytes()
    for changed in (
        b"",
        whole[:1],
        whole[:-1],
        whole[: len(whole) // 2],
        whole + b"\0",
        whole + gzip.compress(b""),
        whole + whole,
        gzip.compress(gzip.decompress(whole)[:-1]),
        b"\x1f\x8b\x08\x08" + whole[4:10] + b"name\0" + whole[10:],
    ):
        path.write_bytes(changed)
        assert (Damage.UNREADABLE, path.name) in named(store)
        with pytest.raises(LogDamageError):
            list(Log(store / "log").entries())


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (b"\0" * (64 << 20), "longer than"),
        (b"{}\n" * (log_entries.ENTRIES_A_FILE + 1), "more than 65536 entries"),
    ],
    ids=["a long line", "many lines"],
)
def test_a_file_that_unpacks_to_too_much_is_an_error_in_little_memory(store: Path, made: bytes, words: str) -> None:
    one = file(store, 1)
    one.summary.unlink()
    one.packed.write_bytes(gzip.compress(made, 1))
    del made
    tracemalloc.start()
    try:
        with pytest.raises(LogDamageError, match=words):
            list(Log(store / "log").lines())
        report = verified_log(store)
        assert any(words in found.message for found in report.found)
        with pytest.raises(ObservationError, match="its log was changed"):
            Store(store)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_however_it_is_read_a_file_unpacks_to_no_more_than_any_file_has(store: Path) -> None:
    path = file(store, 1).packed
    path.write_bytes(gzip.compress(b"\n" * (2 * MAX_LINE), 1))
    with patch.object(log_files, "ENTRIES_A_FILE", 1), pytest.raises(LogDamageError, match="more than any file"):
        sum(map(len, content(path, A_FILE)))


def test_a_plain_file_beside_its_compressed_one_is_named_and_left_when_it_says_something_else(
    store: Path, plain: Path
) -> None:
    one = file(store, 1)
    shutil.copy(file(plain, 1).plain, one.plain)
    report = verify(store, verifier=KEY)
    assert report.intact
    assert any("will be removed" in remark for remark in report.remarks)
    one.plain.write_bytes(one.plain.read_bytes().replace(b'"rows":2', b'"rows":3', 1))
    assert named(store) == {(Damage.CHANGED, one.plain.name)}
    assert pack(store).damaged == {A_FILE}
    assert one.plain.exists()


def test_a_file_that_is_not_what_its_name_says_is_not_compressed(plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "s"))
    path = file(folder, 1).plain
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for changed in (b"", whole[:-1], b"".join(lines[1:]), whole + lines[-1]):
        path.write_bytes(changed)
        assert pack(folder).damaged == {A_FILE}
        assert path.read_bytes() == changed
        assert not file(folder, 1).packed.exists()
    # A changed entry is `verify`'s to name; no reader is told anything else than the file.
    path.write_bytes(b"{}\n" + b"".join(lines[1:]))
    assert pack(folder).damaged == {A_FILE}
    assert not file(folder, 1).summary.exists()


def test_compressed_files_that_are_inserted_or_missing_are_named(store: Path) -> None:
    extra = LogFile(store / "log", A_FILE + 1)
    shutil.copy(file(store, 1).packed, extra.packed)
    assert (Damage.INSERTED, extra.packed.name) in named(store)
    extra.packed.unlink()
    assert not named(store)
    one = file(store, 1)
    one.packed.unlink()
    assert {(Damage.MISSING, file(store, 2).packed.name), (Damage.INSERTED, one.summary.name)} <= named(store)
    with pytest.raises(ObservationError, match="missing"):
        Store(store)
    shutil.copy(file(store, 2).packed, one.packed)
    assert any(what is Damage.MISSING for what, _ in named(store))
    first = file(store, 0)
    first.packed.unlink()
    with pytest.raises(ObservationError, match="entry 1: missing"):
        Store(store)


def test_a_newest_file_that_is_compressed_is_not_gone_on_with(store: Path) -> None:
    last = LogFile(store / "log", max(listed(store / "log").firsts))
    last.packed.write_bytes(gzip.compress(last.plain.read_bytes()))
    for _ in range(2):
        with pytest.raises(LogDamageError, match="newest file is compressed"):
            LogWriter(store / "log", SIGNER, origin(store))
        last.plain.unlink(missing_ok=True)


def test_a_store_is_opened_by_its_summaries_and_one_that_is_missing_only_costs_time(
    store: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept(packed)
    assert len(before[1]) == 1
    for one in listed(store / "log").packed:
        (LogFile(store / "log", one)).packed.write_bytes(b"not looked at")
    assert kept(store) == before
    shutil.rmtree(store)
    shutil.copytree(packed, store)
    for first in listed(store / "log").summaries:
        LogFile(store / "log", first).summary.unlink()
        assert kept(store) == before
        assert not named(store)
    monkeypatch.setattr("topicwarden.store.log_summary.MAX_TEXT", 600)
    pack(store)
    assert 0 not in listed(store / "log").summaries
    assert kept(store) == before
    assert not named(store)


def test_every_byte_that_is_flipped_in_a_summary_is_named_misleads_nobody_and_is_mended(store: Path) -> None:
    before, path = kept(store), file(store, 0).summary
    whole = path.read_bytes()
    # In its last line feed, a file can only have more lines.
    for at in range(0, len(whole), 3 * STRIDE):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        assert kept(store) == before
        assert named(store) == {(Damage.FORGED, path.name)}
    for damage in (b"", whole[:-1], Signer.generate("store").sign(whole.partition(b"\n\n")[0] + b"\n")):
        path.write_bytes(damage)
        assert kept(store) == before
        assert named(store) == {(Damage.FORGED, path.name)}
    pack(store)
    assert path.read_bytes() == whole


def test_a_summary_of_anything_else_is_no_summary_even_when_it_is_signed(store: Path) -> None:
    before, one = kept(store), file(store, 0)
    whole = one.summary.read_bytes()
    text = whole.partition(b"\n\n")[0] + b"\n"
    for old, new in (
        (b"/summary\n", b"/summaries\n"),
        (b'"first":0', b'"first":4'),
        (b'"entries":4', b'"entries":3'),
        (b'"entries":4', b'"entries":4.0'),
        (b'"entries":4', b'"entries":0'),
        (b'"root":"', b'"root":"g'),
        (b'"root"', b'"other"'),
        (b'{"first"', b'[{"first"'),
        (b'{"index"', b'["index"'),
    ):
        assert old in text
        one.summary.write_bytes(SIGNER.sign(text.replace(old, new, 1)))
        assert kept(store) == before
        assert (Damage.CHANGED, one.summary.name) in named(store)
    checkpoint = (store / "log" / "checkpoint").read_bytes()
    one.summary.write_bytes(checkpoint)
    assert kept(store) == before
    # Nor is a summary a checkpoint.
    one.summary.write_bytes(whole)
    (store / "log" / "checkpoint").write_bytes(whole)
    assert (Damage.FORGED, "checkpoint") in named(store)


def test_a_summary_that_hides_a_gap_is_named_by_verify_and_the_report_says_not_to_rely_on_it(store: Path) -> None:
    one = file(store, 0)
    summary = read_summary(one, KEY, origin(store))
    assert summary is not None
    text = Summarizing(0, origin(store))
    lines = list(Log(store / "log").lines_of(0))
    gap = next(line for line in lines if parsed_entry(line, 1).kind is EntryKind.GAP)
    text.feed(lines)
    forged = text.text()
    assert forged is not None
    # Only who has the key can do it.
    one.summary.write_bytes(SIGNER.sign(forged.replace(gap + b"\n", b"")))
    assert not Store(store).gaps
    # Also without a verification: whoever reports reads the log, and sees what the summary kept back.
    quick = read_log(Store(store)).integrity
    assert (quick.holds, "a summary of the log" in quick.verdict) == (False, True)
    report = verify(store, verifier=KEY)
    assert [(found.what, found.place) for found in report.found] == [(Damage.CHANGED, f"log/{one.summary.name}")]
    judged = verified(read_log(Store(store)).integrity, report)
    assert not judged.holds
    assert judged.verdict.startswith("Do not rely on this report")
    assert one.summary.name in judged.verdict


def test_a_summary_of_the_file_that_goes_on_is_named_and_not_believed(store: Path) -> None:
    first = max(listed(store / "log").firsts)
    one, before = LogFile(store / "log", first), kept(store)
    text = Summarizing(first, origin(store))
    text.feed(list(Log(store / "log").lines(first))[:1])
    made = text.text()
    assert made is not None
    one.summary.write_bytes(SIGNER.sign(made))
    assert kept(store) == before
    assert named(store) == {(Damage.CHANGED, one.summary.name)}


def test_a_segment_is_proved_by_summaries_and_its_own_file_and_a_wrong_one_accuses_nobody(
    store: Path, packed: Path
) -> None:
    wanted = prove(packed, 4, 1, verifier=KEY)
    assert wanted.holds
    own = wanted.entry.index // A_FILE
    others = [number for number in range(len(listed(store / "log").packed)) if number != own]
    for number in others:
        file(store, number).packed.write_bytes(b"not looked at")
    assert prove(store, 4, 1, verifier=KEY) == wanted
    for number in others:
        shutil.copy(file(packed, number).packed, file(store, number).packed)
    for number in (*others, own):
        whole = file(store, number).summary.read_bytes().partition(b"\n\n")[0] + b"\n"
        root = whole.partition(b'"root":"')[2][:8]
        segment = whole.partition(b'"segment":')[2].partition(b",")[0]
        for old, new in ((root, b"00000000"), (b'"segment":' + segment, b'"segment":0')):
            file(store, number).summary.write_bytes(SIGNER.sign(whole.replace(old, new, 1)))
            assert prove(store, 4, 1, verifier=KEY) == wanted
        shutil.copy(file(packed, number).summary, file(store, number).summary)
    with pytest.raises(ObservationError, match="no segment 99"):
        prove(store, 99)


def test_sql_sees_the_segments_of_plain_and_compressed_files_alike(store: Path, plain: Path, tmp_path: Path) -> None:
    ask = "SELECT segment, kind, broker, rows, sha256, sealed::VARCHAR FROM segments ORDER BY ALL"
    with Views(Store(plain), spill=tmp_path) as views:
        wanted = views.rows(ask)
    assert len({row[0] for row in wanted}) == SEGMENTS
    with Views(Store(store), spill=tmp_path) as views:
        assert views.rows(ask) == wanted
    path = file(store, 1).packed
    path.write_bytes(path.read_bytes()[:-30])
    with Views(Store(store), spill=tmp_path) as views, pytest.raises(ObservationError, match="cannot be read"):
        views.rows(ask)


PART = Part(Kind.EVENTS, "plant", 495_000, 12, "ab" * 32, 5, 9)
usual = st.builds(
    Entry,
    index=st.integers(0, 2**63 - 1),
    kind=st.just(EntryKind.SEGMENT),
    time_ns=st.integers(-(2**63), 2**63 - 1),
    segment=st.integers(0, 2**40),
    parts=st.lists(
        st.builds(replace, st.just(PART), kind=st.sampled_from(Kind), broker=st.text(), hour=st.integers(-9, 9)),
        max_size=3,
    ).map(tuple),
)
PIECES = [b"", b"0", b"-", b"9", b'"', b"}", b",", b"\n", b" ", b"]}", b"{", b"\\", b"\xff", b'"kind":"x",', b"E1"]


@given(usual | entries, st.integers(0), st.integers(0, 3), st.sampled_from(PIECES))
@settings(max_examples=400, deadline=None)
def test_a_line_read_the_fast_way_is_what_json_says_it_is(entry: Entry, at: int, taken: int, put: bytes) -> None:
    line = entry_line(entry)
    at %= len(line)
    for one in (line, line[:at] + put + line[at + taken :]):
        with patch.object(log_entries, "segment_line", return_value=None):
            try:
                slow = parsed_entry(one, 1)
            except LogDamageError:
                slow = None
        if segment_line(one) is not None:
            assert parsed_entry(one, 1) == slow
            assert slow is not None
            assert entry_line(slow) == one


def test_a_usual_line_is_read_the_fast_way() -> None:
    for count in (1, 2, 60):
        entry = Entry(7, EntryKind.SEGMENT, 1_795_427_880_123_456_789, 5, tuple(PART for _ in range(count)))
        found = segment_line(entry_line(entry))
        assert found is not None
        assert (found.entry, found.segment, len(found.parts)) == (7, 5, count)
