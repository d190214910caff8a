"""A writer that cannot write waits, drops, counts and says so; it never mixes up who was who."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.filling import SEAL_SECONDS, SIGNER, START, Filling, fill, wait_for
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.events import Action, Client, EventBuilder, Resource, ResourceKind, Tables
from topicwarden.events.tables import Table
from topicwarden.store import pending, writer
from topicwarden.store.files import HOUR_NS
from topicwarden.store.identity import is_at_work
from topicwarden.store.log import Log
from topicwarden.store.model import EntryKind, Kind
from topicwarden.store.reader import Store
from topicwarden.store.verify import verify
from topicwarden.store.writer import StoreWriter

KEY = SIGNER.verifier
TOPIC = Resource(ResourceKind.TOPIC, "plant/a")


def lost(folder: Path) -> int:
    gaps = [entry for entry in Log(folder / "log").entries() if entry.kind is EntryKind.GAP]
    return sum((entry.facts or {}).get("lost", 0) for entry in gaps)


def kept(folder: Path) -> int:
    return sum(len(batch) for batch in Store(folder).batches())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs root and leave to mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_on_a_full_disk_rows_wait_then_go_counted_and_it_goes_on_when_there_is_room(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_PENDING", 64)
    folder = small_disk / "s"
    ballast = small_disk / "ballast"
    builder = EventBuilder(Tables())
    written = 0
    with StoreWriter(folder, SIGNER, seal_seconds=SEAL_SECONDS) as store:
        Filling(store).segment()
        with ballast.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(b"\0" * 4096)
                except OSError:
                    break
        while store.dropped < 100 or store.error is None:
            for _ in range(8):
                builder.add(START + written, Action.PUBLISH, Client("plant", "mqtt", f"c-{written}"), TOPIC)
                written += 1
            store.write(builder.take())
        assert store.error.errno == errno.ENOSPC
        assert verify(folder, verifier=KEY).intact
        ballast.unlink()
        wait_for(lambda: store.error is None and not store.waiting and lost(folder) == store.dropped)
        Filling(store).segment()
    assert kept(folder) == 10 + written - store.dropped
    report = verify(folder, verifier=KEY)
    assert report.intact, report.found
    assert report.gaps >= 1
    assert report.lost == store.dropped


@pytest.mark.parametrize("call", ["write", "fsync", "ftruncate"])
def test_whatever_call_fails_no_row_is_doubled_or_lost_unsaid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder = tmp_path / "s"
    fill(folder, 2)
    real = getattr(os, call)
    failing = True
    calls = 0

    def sometimes(descriptor: int, *rest: object) -> object:
        nonlocal calls
        calls += 1
        if failing and calls % 3:
            if call == "write":
                real(descriptor, bytes(rest[0])[:5])  # type: ignore[call-overload]
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, *rest)

    with StoreWriter(folder, SIGNER, seal_seconds=SEAL_SECONDS) as store, monkeypatch.context() as patched:
        patched.setattr(os, call, sometimes)
        builder = EventBuilder(Tables())
        for number in range(20):
            builder.add(START + number, Action.PUBLISH, Client("plant", "mqtt", "c"), TOPIC)
            store.write(builder.take())
        wait_for(lambda: calls > 20 or store.sealed >= 20)
        failing = False
        wait_for(lambda: store.sealed >= 20)
    assert kept(folder) == 30
    report = verify(folder, verifier=KEY)
    assert report.intact, report.found


def test_what_cannot_be_written_at_the_end_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = StoreWriter(tmp_path, SIGNER, seal_seconds=60)
    Filling(store)
    builder = EventBuilder(Tables())
    builder.add(START, Action.PUBLISH, Client("plant", "mqtt", "c"), TOPIC)
    store.write(builder.take())
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        store.close()
    assert store.dropped == 3  # the client's and the topic's rows too
    assert verify(tmp_path, verifier=KEY).intact
    fill(tmp_path, 1)
    report = verify(tmp_path, verifier=KEY)
    assert report.intact
    assert report.gaps == 1


def test_a_dropped_batch_still_tells_which_numbers_mean_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables(clients=Table[Client](16))
    builder = EventBuilder(tables)

    def publish(name: str) -> None:
        builder.add(START, Action.PUBLISH, Client("plant", "mqtt", name), TOPIC)

    with StoreWriter(tmp_path, SIGNER, seal_seconds=SEAL_SECONDS) as store:
        publish("first")
        store.write(builder.take())
        wait_for(lambda: store.sealed > 0)
        with monkeypatch.context() as patched:
            patched.setattr(writer, "MAX_PENDING", 0)
            # Nobody else has this number in the batch that is dropped, and the next one uses it.
            batch = None
            for number in range(1 << 20):
                publish(f"other-{number}")
                batch = builder.take()
                store.write(batch)
                if batch.new_clients:
                    break
            assert batch is not None
            assert batch.new_clients
        publish(f"other-{number}")
        store.write(builder.take())
    names = {
        getattr(batch.tables.clients.entries[row], "client_id", None)
        for batch in Store(tmp_path).batches()
        for row in batch.client.tolist()
    }
    assert names == {"first", f"other-{number}"}


def test_a_batch_of_very_many_hours_becomes_several_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_PARTS", 8)
    builder = EventBuilder(Tables())
    hours = 3 * pending.MAX_PARTS // 2
    for hour in range(hours):
        builder.add(START + hour * HOUR_NS, Action.PUBLISH, Client("plant", "mqtt", "c"), TOPIC)
    with StoreWriter(tmp_path, SIGNER) as store:
        store.write(builder.take())
    segments = [entry for entry in Log(tmp_path / "log").entries() if entry.kind is EntryKind.SEGMENT]
    assert len(segments) > 1
    assert max(len(entry.parts) for entry in segments) <= pending.MAX_PARTS
    # No event before the client and topic that it needs.
    kinds = [part.kind for entry in segments for part in entry.parts]
    assert kinds.index(Kind.EVENTS) == 2 * hours
    assert kept(tmp_path) == hours
    assert verify(tmp_path, verifier=KEY).intact


def test_two_brokers_with_long_names_that_begin_alike_stay_two(tmp_path: Path) -> None:
    builder = EventBuilder(Tables())
    for end in "ab":
        builder.add(START, Action.PUBLISH, Client("\udcff" * 100 + end, "mqtt", "c"), TOPIC)
    with StoreWriter(tmp_path, SIGNER) as store:
        store.write(builder.take())
    assert kept(tmp_path) == 2
    assert verify(tmp_path, verifier=KEY).intact


def test_what_a_crash_at_the_very_beginning_left_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / ".store.json.new").write_bytes(b'{"form')
    StoreWriter(tmp_path, SIGNER).close()
    assert verify(tmp_path, verifier=KEY).intact


def test_a_second_writer_and_a_newer_format_are_refused_and_harm_nothing(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SIGNER, seal_seconds=SEAL_SECONDS) as store:
        with pytest.raises(ConfigurationError, match="another topicwarden writes"):
            StoreWriter(tmp_path, SIGNER)
        Filling(store).segment()
    about = tmp_path / "store.json"
    about.write_text(about.read_text().replace('"format": 2', '"format": 9'))
    with pytest.raises(ObservationError, match="format 9"):
        verify(tmp_path)


def test_a_store_is_at_work_while_a_writer_has_it_and_asking_disturbs_nobody(tmp_path: Path) -> None:
    assert not is_at_work(tmp_path)
    with StoreWriter(tmp_path, SIGNER):
        assert is_at_work(tmp_path)
    assert not is_at_work(tmp_path)
    StoreWriter(tmp_path, SIGNER).close()
