"""The log survives what may happen to a file, and shows what was done to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.store import log as store_log
from topicwarden.store.log import Log, LogDamageError, LogWriter, entry_from_line, entry_line
from topicwarden.store.merkle import verify_consistency
from topicwarden.store.model import Entry, EntryKind, Kind, Part
from topicwarden.store.notes import Checkpoint, Signer

SIGNER = Signer.generate("store")
PART = Part(Kind.EVENTS, "plant\udcff", 495_000, 12, "ab" * 32, 5, 9)


def write(folder: Path, count: int, *, checkpoint: bool = True) -> None:
    writer = LogWriter(folder, SIGNER, "example/store")
    for number in range(count):
        writer.append(EntryKind.SEGMENT, number, segment=writer.size, parts=[PART])
    if checkpoint:
        writer.checkpoint(count)
    writer.close()


def only_file(folder: Path) -> Path:
    ((_, path),) = Log(folder).files
    return path


times = st.integers(-(2**63), 2**63 - 1)
parts = st.builds(Part, st.sampled_from(Kind), st.text(st.characters()), times, times, st.just("0" * 64), times, times)
entries = st.builds(
    Entry,
    index=st.just(0),
    kind=st.sampled_from(EntryKind),
    time_ns=times,
    segment=st.none() | st.integers(0, 2**40),
    parts=st.lists(parts, max_size=3).map(tuple),
    facts=st.none() | st.dictionaries(st.text(), st.integers() | st.text(), min_size=1, max_size=3),
)


@given(entries)
def test_an_entry_comes_back_from_its_line(entry: Entry) -> None:
    line = entry_line(entry)
    assert b"\n" not in line
    assert entry_from_line(line, 1) == entry


@given(st.binary(max_size=80))
def test_what_is_no_entry_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(LogDamageError, match="entry 7"):
        entry_from_line(line, 7)


def test_a_log_is_continued_and_every_checkpoint_is_the_beginning_of_the_next(tmp_path: Path) -> None:
    for count in (3, 1, 4):
        write(tmp_path, count)
    log = Log(tmp_path)
    assert [entry.index for entry in log.entries()] == list(range(8))
    assert [entry.index for entry in log.entries(6)] == [6, 7]
    tree = log.tree()
    signed = [found for _, found in log.checkpoints(SIGNER.verifier) if isinstance(found, Checkpoint)]
    assert [one.size for one in signed] == [3, 4, 8, 8]
    for one in signed:
        assert one.origin == "example/store"
        proof = tree.consistency(one.size)
        assert verify_consistency(one.size, one.root, 8, tree.root(), proof)


def test_an_entry_cut_by_a_crash_is_taken_off_and_said(tmp_path: Path) -> None:
    write(tmp_path, 3)
    path = only_file(tmp_path)
    whole = path.read_bytes()
    for length in range(1, 60, 7):
        path.write_bytes(whole + whole[:length].replace(b"\n", b" "))
        writer = LogWriter(tmp_path, SIGNER, "example/store")
        assert (writer.cut, writer.size) == (length, 3)
        writer.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_log_from_which_a_signed_entry_is_missing_is_not_continued(tmp_path: Path, lost: int) -> None:
    write(tmp_path, 3)
    path = only_file(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:lost] + lines[lost + 1 :]))
    with pytest.raises(LogDamageError):
        LogWriter(tmp_path, SIGNER, "example/store")


def test_a_log_with_a_changed_entry_is_not_continued_even_without_the_kept_frontier(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "frontier").unlink()
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"rows":12', b'"rows":11', 1))
    with pytest.raises(LogDamageError, match="not those that were signed"):
        LogWriter(tmp_path, SIGNER, "example/store")


def test_a_checkpoint_of_another_key_is_not_continued(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(LogDamageError, match="checkpoint"):
        LogWriter(tmp_path, Signer.generate("store"), "example/store")


def test_a_damaged_frontier_is_made_again_from_the_entries(tmp_path: Path) -> None:
    write(tmp_path, 5)
    for damage in (b"", b"[", b'["00"]', b"[null]", b"{}"):
        (tmp_path / "frontier").write_bytes(damage)
        writer = LogWriter(tmp_path, SIGNER, "example/store")
        assert writer.size == 5
        assert writer.last is not None
        assert writer.last.index == 4
        writer.close()


def test_a_long_log_goes_on_in_a_new_file_and_one_that_is_missing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_log, "ENTRIES_A_FILE", 4)
    for count in (3, 3, 5):
        write(tmp_path, count)
    log = Log(tmp_path)
    assert [first for first, _ in log.files] == [0, 4, 8]
    assert [entry.index for entry in log.entries()] == list(range(11))
    assert [entry.index for entry in log.entries(9)] == [9, 10]
    log.files[1][1].unlink()
    with pytest.raises(LogDamageError, match="entry 5: missing"):
        list(Log(tmp_path).entries())
