from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mosquitto import ring_writer as ring
from tests.mosquitto.plugin_events import read_events
from topicwarden.errors import ObservationError, Problem
from topicwarden_collectors.mosquitto.ring_file import RingFile

LIMIT = 1 << 16


def refusal(path: Path) -> Problem:
    """Open what cannot be read and return the one problem it names."""
    with pytest.raises(ObservationError) as caught:
        RingFile(path)
    (problem,) = caught.value.problems
    assert problem.file == str(path)
    assert problem.hint
    return problem


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Do without root's right to read everything, as the account topicwarden runs under does."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_ring_that_is_not_there_is_refused_with_the_plugins_lines_as_hint(tmp_path: Path) -> None:
    assert "topicwarden doctor" in str(refusal(tmp_path / "no.ring").hint)


def test_without_permission_the_hint_names_the_group_to_join() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "m.ring"
        ring.RingWriter(path).close()
        path.chmod(0o000)
        with as_nobody():
            assert "member of the group" in str(refusal(path).hint)
        folder.chmod(0o000)
        with as_nobody():
            assert "folder" in str(refusal(path).hint)
        folder.chmod(0o755)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "half-written"),
        (bytes(300), "half-written"),
        (bytes(10_000), "half-written"),
        (b"TWRING\r\n", "half-written"),
        (b"TWRING\n\n" + bytes(9000), "not a topicwarden ring"),
        (b"1700000000: mosquitto version 2.0.11 starting\n", "not a topicwarden ring"),
    ],
)
def test_what_is_no_ring_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "m.ring"
    path.write_bytes(data)
    assert words in refusal(path).message


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (8, 3, "format version 3"),
        (8, 0, "format version 0"),
        (12, 64, "64-byte slots"),
        (16, 1000, "damaged: 1000 slots"),
        (16, 512, "damaged: 512 slots"),
        (16, 2**31, "damaged"),
        (16, 2048, "cut short"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, offset: int, value: int, words: str) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    struct.pack_into("<I", writer.map, offset, value)
    writer.close()
    assert words in refusal(tmp_path / "m.ring").message


def test_a_ring_of_the_version_before_is_read_and_knows_no_ports(tmp_path: Path) -> None:
    """Version 1 had four bytes for the client id's full length, and zeros after its header."""
    writer = ring.RingWriter(tmp_path / "m.ring", version=1, mode=0x0B)
    old_head = struct.pack("<BBBBIHHHHQII", 2, 4, 1, 1, 1, 1024, 0xFFFF, 9, 0xFFFF, ring.START_NS, 2000, 0)
    writer.append(old_head + ring.more(b"i" * 1024 + b"127.0.0.1") + ring.event(1, 0, 0, action=2))
    rows, counters = read_events(tmp_path / "m.ring")
    assert [row["client"]["client_id"] for row in rows] == ["i" * 1024 + "… (2000 bytes)"]
    assert "port" not in rows[0]["client"]
    assert not counters.decode_errors
    opened = RingFile(tmp_path / "m.ring")
    assert "attributed" not in opened.counts()
    opened.close()


def test_counts_of_peers_are_told_where_the_plugin_looks_at_peers(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring", mode=0x18B)
    struct.pack_into("<6Q", writer.map, 256, 1, 2, 3, 4, 5, 6)
    opened = RingFile(tmp_path / "m.ring")
    assert list(opened.counts().items())[-6:] == [
        ("peers_unknown", 1),
        ("attributed", 2),
        ("attribution_unknown", 3),
        ("attribution_late", 4),
        ("attribution_absent", 5),
        ("attribution_skipped", 6),
    ]
    opened.close()


def test_a_fifo_or_a_folder_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "regular file" in refusal(tmp_path / "fifo").message
    assert "regular file" in refusal(tmp_path).message


def test_the_header_is_read_as_the_plugin_wrote_it(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring", 2048, mode=0x4B, generation=2**63 + 5)
    writer.publish()
    opened = RingFile(tmp_path / "m.ring")
    assert (opened.slot_count, opened.mode, opened.generation) == (2048, 0x4B, 2**63 + 5)
    assert (opened.broker_version, opened.plugin_version, opened.pid) == ("2.0.11", "1.0.0", os.getpid())
    assert (opened.head, opened.oldest, opened.events) == (writer.head, 0, 1)
    opened.close()
    opened.close()
    with pytest.raises(ObservationError):
        _ = opened.head


def test_slots_come_in_stream_order_over_the_end_of_the_file(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring", position=1000)
    data = b"".join(ring.event(0, 0, sequence) for sequence in range(100))
    writer.append(data)
    slots, at = RingFile(tmp_path / "m.ring").read(1000, LIMIT)
    assert (at, slots.tobytes()) == (1000, data)


def test_slots_overwritten_while_they_are_copied_are_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    writer.append(b"".join(ring.event(0, 0, sequence) for sequence in range(1024)))
    opened = RingFile(tmp_path / "m.ring")
    copy = opened._copy

    def copy_while_the_producer_goes_on(slot: int, target: object) -> None:
        # It has announced 10 slots and written none of them to their end.
        writer.reserve(10)
        writer.store(b"\xee" * 32 * 10)
        copy(slot, target)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(opened, "_copy", copy_while_the_producer_goes_on)
    slots, at = opened.read(0, LIMIT)
    assert at == 10
    assert slots.tobytes() == b"".join(ring.event(0, 0, sequence) for sequence in range(10, 1024))


@pytest.mark.parametrize("size", [0, 100, 4096, 4096 + 32 * 5])
def test_a_ring_cut_short_while_open_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    writer.append(b"".join(ring.event(0, 0, sequence) for sequence in range(100)))
    opened = RingFile(tmp_path / "m.ring")
    writer.close()
    whole = (tmp_path / "m.ring").stat()
    os.truncate(tmp_path / "m.ring", size)
    with pytest.raises(ObservationError, match="cut short"):
        opened.read(0, LIMIT)
    if size >= 4096:
        # The same between the check of the size and the copy.
        monkeypatch.setattr(os, "fstat", lambda _: whole)
        with pytest.raises(ObservationError, match="cut short"):
            opened.read(0, LIMIT)


def test_another_file_or_another_generation_at_the_path_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "m.ring"
    first = ring.RingWriter(path)
    opened = RingFile(path)
    assert not opened.replaced()
    struct.pack_into("<Q", first.map, 24, 77)
    assert opened.overwritten
    assert opened.replaced()
    struct.pack_into("<Q", first.map, 24, first.generation)
    path.unlink()
    assert not opened.replaced()
    ring.RingWriter(path)
    assert opened.replaced()
    assert not opened.overwritten
