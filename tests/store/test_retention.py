"""Only what the rules name is deleted, whole hours of it, and only after the log has said so."""

from __future__ import annotations

import os
import random
import shutil
import threading
from pathlib import Path

import pytest

from tests.store.filling import SEAL_SECONDS, SIGNER, START, Filling, files_of, fill, run_until_killed, wait_for
from topicwarden.errors import ConfigurationError
from topicwarden.events.rows import to_rows
from topicwarden.store import retention, writer
from topicwarden.store.files import HOUR_NS
from topicwarden.store.log import Log
from topicwarden.store.model import Entry, EntryKind, Kind
from topicwarden.store.reader import Store
from topicwarden.store.retention import CLASSES, Hour, Retention, parse_retention, retired_by, to_retire
from topicwarden.store.verify import verify
from topicwarden.store.verify_model import Damage
from topicwarden.store.writer import StoreWriter

KEY = SIGNER.verifier
HOUR = START // HOUR_NS
DAY_AFTER = START + 24 * HOUR_NS


def hours(folder: Path, kind: Kind) -> list[int]:
    return sorted({int(file.hour) - HOUR for file in Store(folder).files(kind)})


def retire(folder: Path, rules: Retention, now_ns: int = DAY_AFTER) -> StoreWriter:
    with StoreWriter(folder, SIGNER, seal_seconds=SEAL_SECONDS, retention=rules, now_ns=lambda: now_ns) as store:
        # Once retention is through, merging has its turn.
        wait_for(lambda: store._retiring is None and store._compactor._begun)
    return store


def retired(folder: Path) -> list[Entry]:
    return [entry for entry in Log(folder / "log").entries() if entry.kind is EntryKind.RETIRED]


def rows_of(folder: Path) -> list[str]:
    return [str(row) for batch in Store(folder).batches() for row in to_rows(batch)]


@pytest.mark.parametrize(
    ("ages", "sizes", "wanted"),
    [
        (["36h"], [], Retention(dict.fromkeys(CLASSES, 36))),
        (["events=90d, findings=1y"], [], Retention({Kind.EVENTS: 2160, Kind.FINDINGS: 8784})),
        (["events=1w", "400d"], [], Retention({**dict.fromkeys(CLASSES, 9600), Kind.EVENTS: 168})),
        ([], ["50GB", "hosts=1.5MiB"], Retention({}, {Kind.HOSTS: 3 << 19}, 50_000_000_000)),
        ([], [], Retention()),
    ],
)
def test_rules_are_read(ages: list[str], sizes: list[str], wanted: Retention) -> None:
    assert parse_retention(ages, sizes) == wanted
    assert bool(wanted) == bool(ages or sizes)


def test_every_rule_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_retention(["0d", "9", "clients=3d", ""], ["0GB", "many", "events=5"])
    assert len(caught.value.problems) == 7


def test_old_hours_go_with_their_clients_and_resources_and_the_log_says_which(tmp_path: Path) -> None:
    fill(tmp_path, 12, hours=6)
    retire(tmp_path, parse_retention(["events=21h"]))
    assert hours(tmp_path, Kind.EVENTS) == hours(tmp_path, Kind.CLIENTS) == hours(tmp_path, Kind.RESOURCES) == [3, 4, 5]
    assert hours(tmp_path, Kind.NOTICES) == [0, 1, 2, 3, 4, 5]
    assert not [path for path in tmp_path.rglob("hour=*") if not any(path.iterdir())]
    named = {(one.kind, one.hour - HOUR, one.broker) for entry in retired(tmp_path) for one in retired_by(entry)}
    assert {hour for _, hour, _ in named} == {0, 1, 2}
    assert {broker for kind, _, broker in named if kind is Kind.EVENTS} == {"plant", "lab"}
    assert all(one.rule == "events=21h" for entry in retired(tmp_path) for one in retired_by(entry))
    report = verify(tmp_path, verifier=KEY)
    assert report.intact
    assert report.retired == 2 * 3 * 4
    assert len(rows_of(tmp_path)) == 6 * 5


def test_what_the_log_does_not_name_as_deleted_is_missing(tmp_path: Path) -> None:
    fill(tmp_path, 12, hours=6)
    retire(tmp_path, parse_retention(["21h"]))
    files_of(tmp_path)[0].unlink()
    assert [one.what for one in verify(tmp_path, verifier=KEY).found] == [Damage.MISSING]


def test_rows_that_were_to_go_and_are_there_are_named(tmp_path: Path) -> None:
    fill(tmp_path / "s", 4, hours=2)
    shutil.copytree(tmp_path / "s" / "notices", tmp_path / "notices")
    retire(tmp_path / "s", parse_retention(["notices=1h"]))
    assert not files_of(tmp_path / "s", Kind.NOTICES)
    shutil.copytree(tmp_path / "notices", tmp_path / "s" / "notices", dirs_exist_ok=True)
    found = verify(tmp_path / "s", verifier=KEY).found
    assert {one.what for one in found} == {Damage.LEFT}
    assert len(found) == 4


def test_late_rows_of_an_hour_that_went_bring_their_clients_again(tmp_path: Path) -> None:
    fill(tmp_path, 4, hours=1)
    rules = parse_retention(["events=1h"])
    with StoreWriter(tmp_path, SIGNER, seal_seconds=SEAL_SECONDS, retention=rules, now_ns=lambda: DAY_AFTER) as store:
        filling = Filling(store, 4)
        filling.segment()
        wait_for(lambda: not files_of(tmp_path) or files_of(tmp_path)[0].name > f"{3:010}")
        filling.segment()
        store._retention = None
        filling.segment()
    assert rows_of(tmp_path)
    assert verify(tmp_path, verifier=KEY).intact


def test_the_size_of_all_is_kept_to_by_the_oldest_events_first() -> None:
    kept = [Hour(kind, HOUR + hour, 100) for kind in CLASSES for hour in range(4)]
    now = (HOUR + 3) * HOUR_NS
    going = to_retire(kept, Retention(total=1500), now)
    assert [(one.kind, one.hour - HOUR) for one in going] == [(Kind.EVENTS, hour) for hour in range(3)] + [
        (Kind.HOSTS, 0),
        (Kind.HOSTS, 1),
    ]
    # The hour that goes on stays, however large.
    assert len(to_retire(kept, Retention(total=1), now)) == 3 * len(CLASSES)
    going = to_retire(kept, Retention({Kind.EVENTS: 1}, {Kind.EVENTS: 100}), now)
    assert [one.rule for one in going] == ["events=1h"] * 2 + ["events=100 bytes"]


def test_a_clock_that_is_set_forward_deletes_nothing_while_we_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETIRE_SECONDS", 0.0)
    now = START + HOUR_NS
    rules = parse_retention(["20h"])
    with StoreWriter(tmp_path, SIGNER, seal_seconds=SEAL_SECONDS, retention=rules, now_ns=lambda: now) as store:
        Filling(store).segment()
        now = START + 1000 * 24 * HOUR_NS
        Filling(store).segment()
        Filling(store).segment()
    assert not retired(tmp_path)
    assert hours(tmp_path, Kind.EVENTS) == [0]


def test_a_clock_that_is_set_back_harms_nothing(tmp_path: Path) -> None:
    now = DAY_AFTER
    with StoreWriter(tmp_path, SIGNER, seal_seconds=SEAL_SECONDS, now_ns=lambda: now) as store:
        filling = Filling(store)
        for _ in range(4):
            filling.segment()
            now -= HOUR_NS
    fill(tmp_path, 2, first=4)
    assert verify(tmp_path, verifier=KEY).intact
    assert len(rows_of(tmp_path)) == 30


def test_a_store_is_verified_while_hours_of_it_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "RETIRE_SECONDS", 0.0)
    monkeypatch.setattr(writer, "TIDY_SHARE", 20.0)
    rules = parse_retention(["events=20h,notices=20h"])
    with StoreWriter(tmp_path, SIGNER, seal_seconds=SEAL_SECONDS, retention=rules, now_ns=lambda: DAY_AFTER) as store:
        filling = Filling(store)
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                filling.segment(hours=8)

        filling.segment()
        thread = threading.Thread(target=write)
        thread.start()
        try:
            tries = 0
            while tries < 20 or len(retired(tmp_path)) < 4:
                tries += 1
                report = verify(tmp_path, verifier=KEY)
                assert report.intact, report.found
        finally:
            stop.set()
            thread.join()
    assert verify(tmp_path, verifier=KEY).intact


def retire_until_killed(folder: Path, told: int) -> None:
    """Write and retire for ever; say on the pipe once there is something to retire."""
    patched = pytest.MonkeyPatch()
    patched.setattr(writer, "RETIRE_SECONDS", 0.0)
    patched.setattr(writer, "TIDY_SHARE", 20.0)
    rules = parse_retention(["20h"])
    with StoreWriter(folder, SIGNER, seal_seconds=SEAL_SECONDS, retention=rules, now_ns=lambda: DAY_AFTER) as store:
        filling = Filling(store)
        while True:
            filling.segment(hours=6, brokers=("plant",))
            if filling.number == 2:
                os.write(told, b"!")


@pytest.mark.parametrize("seed", range(3))
def test_killed_while_hours_go_all_that_is_gone_is_named_and_all_that_is_named_goes(tmp_path: Path, seed: int) -> None:
    moments = random.Random(seed)
    for _ in range(20):
        run_until_killed(lambda told: retire_until_killed(tmp_path, told), moments.uniform(0, 0.05))
        report = verify(tmp_path, verifier=KEY)
        assert report.intact, report.found
    retire(tmp_path, parse_retention(["20h"]))
    report = verify(tmp_path, verifier=KEY)
    assert report.intact, report.found
    assert not [remark for remark in report.remarks if "deleted" in remark]
    assert retention.marked(tmp_path) is None
    assert report.retired
    assert rows_of(tmp_path) is not None
