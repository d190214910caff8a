"""The door for hosts' telemetry: which sources it takes, reading them, and what it says of them."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.host.following import executed, serials
from tests.host.recordings import FOLDER, decode
from topicwarden.errors import ConfigurationError, ObservationError, TopicwardenError
from topicwarden.events import Dialled, Executed, HostEvent, Notice, Spoke
from topicwarden.sources import Counters, SourceOptions, load_hosts
from topicwarden_collectors.host import PACKAGE
from topicwarden_collectors.host.blind_spots import Seen, blind_spots
from topicwarden_collectors.host.kinds import KINDS
from topicwarden_collectors.host.log_read import BATCH
from topicwarden_collectors.mosquitto import BROKER as MOSQUITTO
from topicwarden_collectors.rabbitmq import BROKER as RABBITMQ

LOGS = sorted(FOLDER.glob("*.log"))
by_log = pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
GOLDEN = SourceOptions(host="golden")


def read(source: str | Path, options: SourceOptions = GOLDEN) -> tuple[list[HostEvent], list[Notice], Counters]:
    counters = Counters()
    events: list[HostEvent] = []
    notices: list[Notice] = []
    for batch in PACKAGE.read(str(source), options, counters):
        assert len(batch.hosts) <= BATCH
        assert not len(batch)
        events += batch.hosts
        notices += batch.notices
    assert counters.events == len(events)
    return events, notices, counters


# Which sources are its own


def test_it_is_found_by_its_entry_point() -> None:
    assert load_hosts()["host"] is PACKAGE


@by_log
def test_a_log_is_taken_with_its_prefix_or_by_its_head_and_a_brokers_is_not(log: Path) -> None:
    head = log.read_bytes()[:4096]
    assert PACKAGE.recognises(f"{log.stem.partition('-')[0]}:{log}", b"")
    assert PACKAGE.recognises(str(log), head)
    assert not PACKAGE.recognises(str(log), b"")


@pytest.mark.parametrize(
    "source", ["ring:/x", "log:/x", "mqtt://h", "amqp://h", "/var/log/x.log", "hosts", "hostname:x", "zeek", "-"]
)
def test_sources_of_others_are_not_taken(source: str) -> None:
    assert not PACKAGE.recognises(source, b"")


@pytest.mark.parametrize(
    "source", ["host:", "host", "host:/run/helper.sock", "sysmon:journal", "zeek:/opt", "auditd:-"]
)
def test_sources_by_name_are_taken_and_no_broker_takes_them(source: str) -> None:
    assert PACKAGE.recognises(source, b"")
    assert not MOSQUITTO.recognises(source, b"")
    assert not RABBITMQ.recognises(source, b"")


def test_this_machine_is_a_source_of_its_own() -> None:
    assert PACKAGE.recognises(PACKAGE.live_source(), b"")
    with pytest.raises(ConfigurationError, match="only be watched"):
        PACKAGE.read("host:", GOLDEN, Counters())


# Reading


@by_log
def test_a_log_is_read_to_its_recorded_events_plain_packed_by_prefix_and_bare(log: Path, tmp_path: Path) -> None:
    wanted, errors = decode(log.read_bytes())
    packed = tmp_path / "x.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    kind = log.stem.partition("-")[0]
    for source in (str(log), f"{kind}:{log}", str(packed), f"{kind}:{packed}"):
        events, notices, counters = read(source)
        assert events == wanted
        assert counters.decode_errors == errors.decode_errors
        told = {notice.scope: notice.count for notice in notices if notice.code in ("TW903", "TW905")}
        assert told == errors.decode_errors


def test_standard_input_is_read_as_it_comes() -> None:
    code = (
        "from topicwarden_collectors.host import PACKAGE\n"
        "from topicwarden.sources import Counters, SourceOptions\n"
        "for batch in PACKAGE.read('auditd:-', SourceOptions(), Counters()):\n"
        "    for event in batch.hosts: print(event.process.arguments[1], flush=True)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        for serial in range(3):
            reader.stdin.write(executed(serial))
        reader.stdin.close()
        assert reader.stdout.read().split() == [b"0", b"1", b"2"]
    assert reader.returncode == 0


def test_batches_hold_at_most_a_thousand_events_and_all_of_them_come(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"".join(map(executed, range(5500))))
    events, notices, _ = read(f"auditd:{log}")
    assert serials(events) == list(range(5500))
    assert not notices


def test_one_line_that_holds_many_events_is_parted_too(tmp_path: Path) -> None:
    log = tmp_path / "mqtt_subscribe.log"
    topics = ",".join(f'"t/{number}"' for number in range(1500))
    log.write_text(
        '{"ts":1.0,"id.orig_h":"10.0.0.1","id.orig_p":1,"id.resp_h":"10.0.0.2","id.resp_p":1883,'
        f'"action":"MQTT::SUBSCRIBE","topics":[{topics}]}}\n'
    )
    events, notices, counters = read(f"zeek:{log}")
    assert len(events) == 1024
    assert (counters.lost, counters.gaps) == (476, 1)
    assert [(notice.code, notice.scope, notice.count) for notice in notices] == [("TW901", "topics", 476)]


def test_a_log_without_events_gives_empty_batches_so_that_reading_can_be_interrupted(tmp_path: Path) -> None:
    log = tmp_path / "eve.json"
    line = b'{"timestamp":"2026-11-28T10:00:00.000000+0000","event_type":"dns","padding":"%s"}\n' % (b"x" * 1000)
    log.write_bytes(line * (8 * (1 << 20) // len(line)))
    batches = list(PACKAGE.read(f"suricata:{log}", GOLDEN, Counters()))
    assert len(batches) >= 6
    assert not any(batch.hosts or batch.notices for batch in batches)


def test_no_more_of_a_log_is_read_than_was_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"".join(map(executed, range(3000))))
    counters = Counters()
    batches = PACKAGE.read(f"auditd:{log}", GOLDEN, counters)
    next(iter(batches))
    assert counters.events == BATCH


def test_a_log_that_ends_in_the_middle_of_a_line_is_read_so_far_and_said_to_be_cut(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(executed(0) + executed(1)[:-1])
    events, notices, counters = read(log)
    assert serials(events) == [0, 1]
    assert counters.decode_errors == {"cut": 1}
    assert [(notice.code, notice.scope) for notice in notices] == [("TW903", "cut")]


def test_a_damaged_gzip_gives_what_it_holds_and_a_gap(tmp_path: Path) -> None:
    packed = tmp_path / "audit.log.1.gz"
    packed.write_bytes(gzip.compress(b"".join(map(executed, range(2000))))[:-30])
    events, notices, counters = read(f"auditd:{packed}")
    assert serials(events) == list(range(len(events)))
    assert len(events) > 1500
    assert counters.gaps == 1
    assert {(notice.code, notice.scope) for notice in notices} >= {("TW901", "log"), ("TW903", "gzip")}


def test_a_folder_of_zeeks_is_read_by_time_its_archive_too(tmp_path: Path) -> None:
    names = {"conn": "conn.10:00:00-11:00:00.log.gz", "mqtt-publish": "mqtt_publish.log"}
    for stem, name in names.items():
        data = (FOLDER / f"zeek-{stem}.log").read_bytes()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (tmp_path / "conn.log").write_bytes((FOLDER / "zeek-conn.log").read_bytes())
    (tmp_path / "conn-summary.11:00:00-12:00:00.log").write_bytes(b"none of ours\n")
    (tmp_path / "dns.log").write_bytes(b"#path\tdns\n")
    wanted = 2 * decode((FOLDER / "zeek-conn.log").read_bytes())[0]
    wanted += decode((FOLDER / "zeek-mqtt-publish.log").read_bytes())[0]
    events, _, counters = read(f"zeek:{tmp_path}")
    assert sorted(map(repr, events)) == sorted(map(repr, wanted))
    assert counters.decode_errors == {"fields": 2}
    assert {type(event) for event in events} == {Dialled, Spoke}


def test_what_cannot_be_opened_is_one_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for source in (
        f"auditd:{tmp_path}/missing",
        f"auditd:{tmp_path}",
        f"ecs:{tmp_path}/pipe",
        f"zeek:{tmp_path}/empty",
        f"zeek:{tmp_path}/missing",
    ):
        with pytest.raises(ObservationError) as caught:
            PACKAGE.read(source, GOLDEN, Counters())
        (problem,) = caught.value.problems
        assert problem.hint


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.one_of(st.binary(max_size=300), st.sampled_from([log.read_bytes()[:9000] for log in LOGS])),
    st.lists(st.tuples(st.integers(0, 9000), st.binary(max_size=9)), max_size=9),
    st.booleans(),
)
def test_whatever_a_log_holds_reading_it_raises_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    data: bytes,
    damages: list[tuple[int, bytes]],
    packed: bool,
) -> None:
    damaged = bytearray(data)
    for place, new in damages:
        at = place % (len(damaged) + 1)
        damaged[at : at + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(gzip.compress(bytes(damaged)) if packed else damaged)
    try:
        _, notices, counters = read(f"{kind}:{path}")
    except ConfigurationError as error:
        assert "looks like one of kind" in str(error)  # noqa: PT017 - some data are whole logs of another kind
        return
    told = sum(notice.count for notice in notices if notice.code in ("TW903", "TW905"))
    assert told == sum(counters.decode_errors.values())


# What it refuses


def test_a_log_of_another_kind_than_is_said_is_refused(tmp_path: Path) -> None:
    log = FOLDER / "suricata-eve.log"
    for act in (
        lambda: PACKAGE.read(f"auditd:{log}", GOLDEN, Counters()),
        lambda: PACKAGE.watch(f"zeek:{log}", GOLDEN),
    ):
        with pytest.raises(ConfigurationError, match="one of kind suricata"):
            act()


def test_what_nobody_appends_to_is_not_followed(tmp_path: Path) -> None:
    packed = tmp_path / "audit.log.1.gz"
    packed.write_bytes(gzip.compress(executed(0)))
    export = FOLDER / "sysmon-journal-export.log"
    for source, why in (
        (f"auditd:{packed}", "compressed"),
        (str(packed), "cannot tell|compressed"),
        (f"sysmon:{export}", "export of the journal"),
        ("auditd:-", "standard input"),
        (f"auditd:{tmp_path}/nowhere/audit.log", "cannot be read"),
        (str(tmp_path / "nothing"), "cannot tell"),
        ("auditd:", "path is missing"),
    ):
        with pytest.raises(TopicwardenError, match=why):
            PACKAGE.watch(source, GOLDEN)


# What it says


@by_log
def test_what_a_log_cannot_show_is_known_before_it_is_read(log: Path) -> None:
    about = PACKAGE.about_file(str(log), GOLDEN)
    assert str(log) in about.title
    assert about.broker == "golden"
    assert about.blind_spots
    assert all(spot.what and not spot.what.endswith(".") for spot in about.blind_spots)


def test_what_was_seen_in_a_log_is_no_blind_spot(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(executed(0))
    spots = {spot.what: spot.fix for spot in PACKAGE.about_file(f"auditd:{log}", GOLDEN).blind_spots}
    assert not any("programs are started: no" in what for what in spots)
    (fix,) = [fix for what, fix in spots.items() if "no record of connect" in what]
    assert fix is not None
    assert fix.count("auditctl -a always,exit -F arch=b") == 4
    log.write_bytes(b"")
    (fix,) = [
        spot.fix for spot in PACKAGE.about_file(f"auditd:{log}", GOLDEN).blind_spots if "of execve in it" in spot.what
    ]
    assert fix is not None
    assert "-S execve -S execveat" in fix


def test_a_copied_log_that_names_no_host_is_said_to(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(executed(0))
    about = PACKAGE.about_file(str(log), SourceOptions())
    assert about.broker == ""
    assert "name no host" in about.blind_spots[0].what
    ((event,), _, _) = read(log, SourceOptions())
    assert isinstance(event, Executed)
    assert event.process.host == ""
    assert not any("name no host" in spot.what for spot in PACKAGE.about_file(str(log), GOLDEN).blind_spots)


def test_about_a_file_nothing_is_raised(tmp_path: Path) -> None:
    packed = tmp_path / "broken.gz"
    packed.write_bytes(gzip.compress(executed(0))[:40])
    for source in (
        "auditd:/nowhere",
        "/nowhere",
        f"zeek:{tmp_path}",
        f"auditd:{packed}",
        "sysmon:journal",
        "auditd:-",
        "x:",
    ):
        about = PACKAGE.about_file(source, SourceOptions())
        assert about.title


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_blind_spot_is_a_sentence_without_stop_whatever_was_seen(kind: str) -> None:
    nothing = blind_spots(kind, Seen())
    everything = blind_spots(kind, Seen(executed=True, exited=True, dialled=True, spoke=True))
    assert set(everything) < set(nothing)
    for spot in (*nothing, *blind_spots(kind, Seen(numbered=True, unnamed=True), syslog=True)):
        assert spot.what
        assert not spot.what.endswith(".")


def test_the_documentation_has_every_rule_that_is_printed() -> None:
    text = (Path(__file__).parents[2] / "docs/hosts.md").read_text()
    for kind in KINDS:
        for spot in blind_spots(kind, Seen()):
            if kind == "auditd" and spot.fix is not None and spot.fix.startswith("auditctl -a"):
                for line in spot.fix.splitlines():
                    assert line.removeprefix("auditctl ") in text
        assert f"`{kind}:" in text
