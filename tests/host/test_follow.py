"""Following logs of hosts: rotation, truncation, deletion, restarts; nothing twice, nothing lost unsaid."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.collector_contract import PAYLOAD_MARK, CollectorContract, Stage
from tests.host.following import append, executed, rows_of, running, serials
from tests.host.recordings import FOLDER, decode
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.events import Executed, HostEvent, Spoke
from topicwarden.sources import Collector, SourceOptions
from topicwarden_collectors.host.kinds import KINDS, current_logs
from topicwarden_collectors.host.log_follow import HostLogCollector

AUDITD = KINDS["auditd"]


def follow(path: Path, *, kind: str = "auditd", quiet: float = 0.0, **options: Any) -> HostLogCollector:
    options.setdefault("host", "golden")
    return HostLogCollector(KINDS[kind], [path], SourceOptions(**options), name=str(path), quiet_seconds=quiet)


def shift(path: Path, *, keep: int, pack: bool = False) -> None:
    """Rotate as auditd and logrotate do: `.2` becomes `.3`, `.1` becomes `.2`, the log becomes `.1`."""
    for number in range(keep - 1, 0, -1):
        for end in ("", ".gz"):
            old = path.with_name(f"{path.name}.{number}{end}")
            if old.exists():
                old.rename(path.with_name(f"{path.name}.{number + 1}{end}"))
    first = path.with_name(f"{path.name}.1")
    path.rename(first)
    if pack:
        data, status = first.read_bytes(), first.stat()
        packed = first.with_name(first.name + ".gz")
        packed.write_bytes(gzip.compress(data))
        os.utime(packed, ns=(status.st_atime_ns, status.st_mtime_ns))
        first.unlink()


# Rotation


def test_a_log_rotated_again_and_again_while_it_is_written_gives_every_event_once(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.touch()
    rotations, each = 60, 150

    def write() -> None:
        serial = 0
        for turn in range(rotations):
            with log.open("ab", buffering=0) as file:
                for _ in range(each):
                    file.write(executed(serial))
                    serial += 1
            if turn + 1 < rotations:
                shift(log, keep=rotations)

    async def run() -> None:
        async with running(follow(log, from_start=True)) as tail:
            writer = threading.Thread(target=write)
            writer.start()
            await tail.until_events(rotations * each)
            writer.join()
        assert serials(tail.events) == list(range(rotations * each))
        assert not tail.notices

    asyncio.run(run())


def test_a_log_rotated_by_date_gives_every_event_once(tmp_path: Path) -> None:
    log = tmp_path / "conn.log"
    log.write_bytes(executed(0))

    async def run() -> None:
        async with running(follow(log, from_start=True)) as tail:
            for turn in range(1, 8):
                await tail.until_events(turn)
                log.rename(tmp_path / (f"conn-2026112{turn}.log" if turn % 2 else f"conn.log-2026112{turn}"))
                log.write_bytes(executed(turn))
            await tail.until_events(8)
        assert serials(tail.events) == list(range(8))
        assert not tail.notices

    asyncio.run(run())


def test_the_writer_may_go_on_with_the_old_file_until_it_writes_to_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(executed(0))

    async def run() -> None:
        async with running(follow(log, from_start=True)) as tail:
            await tail.until_events(1)
            shift(log, keep=3)
            log.touch()
            append(tmp_path / "audit.log.1", executed(1))
            await tail.until_events(2)
            append(tmp_path / "audit.log.1", executed(2))
            append(log, executed(3))
            await tail.until_events(4)
        assert serials(tail.events) == [0, 1, 2, 3]
        assert not tail.notices

    asyncio.run(run())


def test_an_event_whose_records_a_rotation_parts_is_put_together(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    first, second, third = executed(0).splitlines(keepends=True)

    async def run() -> None:
        async with running(follow(log, from_start=True, quiet=1e9)) as tail:
            log.write_bytes(first)
            await tail.until(lambda: tail.collector._logs[0]._reader.fed, "the record")  # type: ignore[attr-defined]
            shift(log, keep=3)
            log.write_bytes(second + third)
            await tail.until_events(1)
        assert serials(tail.events) == [0]

    asyncio.run(run())


def test_more_rotations_than_files_are_kept_is_a_gap(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(executed(0))

    async def run() -> None:
        async with running(follow(log, from_start=True)) as tail:
            await tail.until_events(1)
            # All at once: the loop does not get to look in between.
            for turn in range(1, 6):
                shift(log, keep=2)
                (tmp_path / "audit.log.3").unlink(missing_ok=True)
                log.write_bytes(executed(turn))
            await tail.until_events(4)
        assert serials(tail.events) == [0, 3, 4, 5]
        assert ["may be gone unread" in gap for gap in tail.gaps] == [True]
        assert tail.collector.counters.gaps == 1

    asyncio.run(run())


def test_copytruncate_loses_little_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(executed(0))

    async def run() -> None:
        async with running(follow(log, from_start=True)) as tail:
            await tail.until_events(1)
            append(log, executed(1))
            shutil.copy(log, tmp_path / "audit.log.1")
            os.truncate(log, 0)
            await tail.until(lambda: tail.gaps, "the gap")
            append(log, executed(2))
            await tail.until_events(3)
        assert serials(tail.events) == [0, 1, 2]
        assert ["truncated" in gap for gap in tail.gaps] == [True]

    asyncio.run(run())


def test_a_log_that_is_deleted_and_made_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(executed(0))

    async def run() -> None:
        async with running(follow(log, from_start=True)) as tail:
            for turn in range(1, 4):
                await tail.until_events(turn)
                log.unlink()
                await asyncio.sleep(0)
                log.write_bytes(executed(turn))
            await tail.until_events(4)
        assert serials(tail.events) == [0, 1, 2, 3]

    asyncio.run(run())


def test_a_line_that_its_rotation_cut_is_counted(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(executed(0) + executed(1)[:30])

    async def run() -> None:
        async with running(follow(log, from_start=True)) as tail:
            await tail.until_events(1)
            shift(log, keep=3)
            log.write_bytes(executed(2))
            await tail.until_events(2)
        assert serials(tail.events) == [0, 2]
        assert tail.collector.counters.decode_errors == {"cut": 1}
        assert {(notice.code, notice.scope) for notice in tail.notices} == {("TW901", "log"), ("TW903", "cut")}

    asyncio.run(run())


# What is not there


def test_a_log_that_is_not_there_yet_is_waited_for_and_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"

    async def run() -> None:
        collector = follow(log)
        assert collector.observing
        assert "not there yet" in collector.blind_spots()[0].what
        async with running(collector) as tail:
            for _ in range(5):
                await asyncio.sleep(0)
            log.write_bytes(executed(0))
            await tail.until_events(1)
            assert not any("not there yet" in spot.what for spot in collector.blind_spots())
        assert serials(tail.events) == [0]

    asyncio.run(run())


def test_a_folder_that_is_not_there_and_what_is_no_file_are_one_error_with_a_hint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nowhere" / "audit.log", tmp_path, tmp_path / "pipe"):
        with pytest.raises(ObservationError) as caught:
            follow(path)
        (problem,) = caught.value.problems
        assert problem.hint == AUDITD.hint
        assert problem.file == str(path)


# Events held open


def test_an_event_that_lacks_records_is_handed_out_when_nothing_more_comes(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(executed(0).splitlines(keepends=True)[0])

    async def run() -> None:
        async with running(follow(log, from_start=True)) as tail:
            await tail.until_events(1)
            # Its other records come too late, and start nothing.
            append(log, b"".join(executed(0).splitlines(keepends=True)[1:]) + executed(1))
            await tail.until_events(2)
        first, second = tail.events
        assert isinstance(first, Executed)
        assert (first.process.executable, first.process.arguments, first.process.cut) == ("/bin/x", (), True)
        assert serials([second]) == [1]

    asyncio.run(run())


def test_an_event_that_was_handed_out_as_it_was_is_not_given_again_after_a_restart(tmp_path: Path) -> None:
    log, state = tmp_path / "audit.log", tmp_path / "state"
    first, *others = executed(0).splitlines(keepends=True)
    log.write_bytes(first)

    async def run(more: bytes, events: int) -> list[HostEvent]:
        append(log, more)
        async with running(follow(log, from_start=True, state_dir=state)) as tail:
            await tail.until_events(events)
        return tail.events

    assert len(asyncio.run(run(b"", 1))) == 1
    assert serials(asyncio.run(run(executed(1), 1))) == [1]
    assert serials(asyncio.run(run(b"".join(others) + executed(2), 1))) == [2]


# Restarts


@pytest.mark.parametrize("change", ["nothing", "rename", "gzip", "twice", "twice gzip", "copytruncate"])
def test_a_restart_repeats_nothing_and_loses_nothing_whatever_happened_meanwhile(tmp_path: Path, change: str) -> None:
    log, state = tmp_path / "audit.log", tmp_path / "state"
    log.write_bytes(b"".join(map(executed, range(10))))

    async def run(events: int) -> Any:
        async with running(follow(log, from_start=True, state_dir=state)) as tail:
            await tail.until_events(events)
        return tail

    first = asyncio.run(run(10))
    append(log, executed(10))
    if change == "copytruncate":
        shutil.copy(log, tmp_path / "audit.log.1")
        os.truncate(log, 0)
    elif change != "nothing":
        shift(log, keep=5, pack="gzip" in change)
    append(log, executed(11))
    if "twice" in change:
        shift(log, keep=5, pack="gzip" in change)
    append(log, executed(12))
    second = asyncio.run(run(3))
    assert serials(first.events) + serials(second.events) == list(range(13))
    assert not second.notices


def test_a_log_removed_unread_is_a_gap_and_read_from_its_beginning(tmp_path: Path) -> None:
    log, state = tmp_path / "audit.log", tmp_path / "state"
    log.write_bytes(executed(0) + executed(1))

    async def run(events: int) -> Any:
        async with running(follow(log, from_start=True, state_dir=state)) as tail:
            await tail.until_events(events)
        return tail

    asyncio.run(run(2))
    log.unlink()
    log.write_bytes(executed(2))
    tail = asyncio.run(run(1))
    assert serials(tail.events) == [2]
    assert ["before it was read to its end" in gap for gap in tail.gaps] == [True]


def test_where_reading_stopped_is_kept_while_the_log_is_missing(tmp_path: Path) -> None:
    log, state = tmp_path / "audit.log", tmp_path / "state"
    log.write_bytes(executed(0))

    async def run(events: int) -> Any:
        async with running(follow(log, from_start=True, state_dir=state)) as tail:
            await tail.until_events(events)
        return tail

    asyncio.run(run(1))
    append(log, executed(1))
    shift(log, keep=3)
    assert not asyncio.run(run(0)).events
    log.write_bytes(executed(2))
    assert serials(asyncio.run(run(2)).events) == [1, 2]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(FOLDER.glob("*.log"))), st.data())
def test_every_place_of_a_log_is_one_to_stop_at(tmp_path_factory: Any, log: Path, data: st.DataObject) -> None:
    """Written piece by piece, read by a new collector after each: the events are those of reading all at once."""
    if "export" in log.stem:
        return  # an export of the journal is a recording, and not followed
    whole = log.read_bytes()
    kind = log.stem.partition("-")[0]
    places = sorted(data.draw(st.lists(st.integers(1, len(whole) - 1), max_size=4)))
    folder = tmp_path_factory.mktemp("places")
    path = folder / "a.log"
    path.touch()
    events: list[HostEvent] = []
    for start, stop in pairwise([0, *places, len(whole)]):
        append(path, whole[start:stop])

        async def run() -> None:
            # Held events wait for the next run, as they do when the log goes on within two seconds.
            collector = follow(path, kind=kind, quiet=1e9, from_start=True, state_dir=folder / "state")
            collector._logs[0]._reader.settle = lambda: None  # type: ignore[method-assign]
            async with running(collector) as tail:
                await asyncio.sleep(0)
            events.extend(tail.events)

        asyncio.run(run())
    wanted, _ = decode(whole, kind)
    # The last events may wait for records that never come.
    assert events == wanted[: len(events)]
    assert len(events) >= len(wanted) - 3


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from topicwarden.sources import SourceOptions
from topicwarden_collectors.host.package import PACKAGE

async def main():
    options = SourceOptions(host="h", state_dir=Path(sys.argv[2]), from_start=True)
    async for batch in PACKAGE.watch("auditd:" + sys.argv[1], options).batches():
        if batch.hosts:
            print(len(batch.hosts), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_after_sigkill_nothing_is_given_twice_and_what_may_be_lost_is_counted(tmp_path: Path) -> None:
    log, state = tmp_path / "audit.log", tmp_path / "state"
    log.write_bytes(b"".join(map(executed, range(20))))
    killed = subprocess.run([sys.executable, "-c", KILLED, log, state], capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    handed_over = int(killed.stdout)

    async def run() -> None:
        async with running(follow(log, state_dir=state)) as tail:
            append(log, executed(20))
            await tail.until_events(21 - handed_over)
        assert serials(tail.events) == list(range(handed_over, 21))
        (lost,) = tail.notices
        assert (lost.code, lost.scope, lost.count) == ("TW901", "reader-restart", handed_over)
        assert tail.collector.counters.lost == handed_over

    asyncio.run(run())


def test_a_damaged_position_is_reported_and_reading_goes_on(tmp_path: Path) -> None:
    log, state = tmp_path / "audit.log", tmp_path / "state"
    log.write_bytes(executed(0))
    follow(log, state_dir=state)._release()
    (position,) = state.glob("*.position")
    position.write_bytes(b"nonsense")

    async def run() -> None:
        async with running(follow(log, state_dir=state, from_start=True)) as tail:
            await tail.until_events(1)
        assert tail.collector.counters.decode_errors == {"reading-position": 1}
        assert [notice.scope for notice in tail.notices] == ["reading-position"]

    asyncio.run(run())


def test_two_readers_cannot_share_a_state_folder(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.touch()
    collector = follow(log, state_dir=tmp_path / "state")
    with pytest.raises(ObservationError, match="another topicwarden"):
        follow(log, state_dir=tmp_path / "state")
    collector._release()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be kept"):
        follow(log, state_dir=tmp_path / "file")


# Hostile logs


def test_a_command_line_of_two_mebibytes_that_is_no_utf_8_goes_through(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    argument = b"\xff\xfe secret " * 190_000
    digits = argument.hex().upper().encode()
    stamp = b"msg=audit(%d.000:7): " % 1_700_000_000
    syscall = executed(7).splitlines(keepends=True)[0].replace(b".007:7", b".000:7")
    parts = [digits[at : at + 7500] for at in range(0, len(digits), 7500)]
    records = [b'type=EXECVE %sargc=2 a0="prog" a1_len=%d a1[0]=%s\n' % (stamp, len(digits), parts[0])]
    records += [b"type=EXECVE %sa1[%d]=%s\n" % (stamp, number, part) for number, part in enumerate(parts[1:], 1)]

    async def run() -> None:
        async with running(follow(log, from_start=True, quiet=1e9)) as tail:
            log.write_bytes(syscall + b"".join(records) + executed(8))
            await tail.until_events(2)
        first, second = tail.events
        assert isinstance(first, Executed)
        assert first.process.arguments[1].encode("utf-8", "surrogateescape").startswith(b"\xff\xfe secret ")
        assert len(first.process.arguments[1]) <= 1024
        assert first.process.cut
        assert serials([second]) == [8]
        assert not tail.notices

    asyncio.run(run())


def test_memory_stays_bounded_while_no_line_ends(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(executed(0) + b"\0" * (9 << 20))

    async def run() -> None:
        async with running(follow(log, from_start=True)) as tail:
            splitter = tail.collector._logs[0]._reader._decoder._splitter  # type: ignore[attr-defined]
            await tail.until(lambda: splitter.fed > 9 << 20, "the end of the file")
            assert sum(map(len, splitter._rest)) <= 4 << 20
            append(log, b"\n" + executed(1))
            await tail.until_events(2)
        assert tail.collector.counters.decode_errors == {"too_long": 1}

    asyncio.run(run())


# Zeek


def test_the_logs_of_zeek_are_followed_together_and_those_that_come_later_too(tmp_path: Path) -> None:
    conn = (FOLDER / "zeek-conn.log").read_bytes()
    publish = (FOLDER / "zeek-mqtt-publish.log").read_bytes()
    wanted = decode(conn)[0] + decode(publish)[0]

    async def run() -> None:
        (tmp_path / "conn.log").write_bytes(conn)
        options = SourceOptions(host="golden", from_start=True)
        collector = HostLogCollector(KINDS["zeek"], current_logs(tmp_path), options, name=str(tmp_path))
        assert sum("not there yet" in spot.what for spot in collector.blind_spots()) == 3
        async with running(collector) as tail:
            await tail.until_events(len(decode(conn)[0]))
            assert any("what MQTT clients say" in spot.what for spot in collector.blind_spots())
            (tmp_path / "mqtt_publish.log").write_bytes(publish)
            await tail.until_events(len(wanted))
            assert not any("what MQTT clients say" in spot.what for spot in collector.blind_spots())
        assert tail.events == wanted

    asyncio.run(run())


def test_the_end_of_a_tab_separated_log_is_read_by_the_columns_that_its_beginning_names(tmp_path: Path) -> None:
    log = tmp_path / "conn.log"
    lines = (FOLDER / "zeek-conn.log").read_bytes().splitlines(keepends=True)
    row = next(line for line in lines if not line.startswith(b"#"))
    head = b"".join(line for line in lines if line.startswith((b"#sep", b"#path", b"#fields")))
    # Far from its beginning.
    log.write_bytes(head + row * ((4 << 20) // len(row)))
    wanted = decode(head + row)[0]

    async def run() -> None:
        async with running(follow(log, kind="zeek", state_dir=tmp_path / "state")) as tail:
            append(log, row)
            await tail.until_events(len(wanted))
        async with running(follow(log, kind="zeek", state_dir=tmp_path / "state")) as again:
            append(log, row)
            await again.until_events(len(wanted))
        assert tail.events == again.events == wanted
        assert not tail.notices + again.notices

    asyncio.run(run())


def test_at_the_end_of_suricatas_log_it_is_known_who_the_client_of_a_flow_is(tmp_path: Path) -> None:
    data = (FOLDER / "suricata-eve.log").read_bytes()
    wanted, _ = decode(data)
    lines = data.splitlines(keepends=True)
    log = tmp_path / "eve.json"
    for place in range(1, len(lines)):
        log.write_bytes(b"".join(lines[:place]))

        async def run(place: int) -> list[HostEvent]:
            async with running(follow(log, kind="suricata")) as tail:
                append(log, b"".join(lines[place:]))
                await tail.until(lambda: log.stat().st_size == tail.collector._logs[0]._reader.fed, "the end")  # type: ignore[attr-defined]
            return tail.events

        events = asyncio.run(run(place))
        assert events == (wanted[-len(events) :] if events else [])
    assert any(isinstance(event, Spoke) for event in wanted)


# The contract


class TestTheContract(CollectorContract):
    @contextmanager
    def stage(self, folder: Path) -> Iterator[Stage]:
        log = folder / "audit.log"
        log.touch()
        serial = iter(range(1, 1_000_000))

        def act() -> None:
            append(log, executed(next(serial), name=f"mosquitto_pub -m {PAYLOAD_MARK}".partition(" ")[0]))

        def garbage() -> None:
            append(log, b"\xff\xfe no record\ntype=SYSCALL msg=audit(1.1:1): arch=zz\n")

        def shows(rows: list[dict[str, Any]]) -> bool:
            return any(row["event"] == "executed" for row in rows)

        yield Stage(follow(log, host="h"), act, shows, garbage, rows_of=rows_of)

    def build_on_nothing(self, folder: Path) -> Collector:
        return follow(folder / "nowhere" / "audit.log")


def test_how_far_behind_it_is_is_told(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(executed(5))
    collector = HostLogCollector(
        AUDITD, [log], SourceOptions(from_start=True), name="x", clock=lambda: 1_700_000_000 * 10**9 + 10**9
    )

    async def run() -> None:
        async with running(collector) as tail:
            await tail.until_events(1)
        assert collector.counters.lag_ns == 10**9 - 5 * 10**6
        (event,) = tail.events
        assert isinstance(event, Executed)
        # The log names no host: it is this machine's.
        assert event.process.host == collector.broker == socket.gethostname()

    asyncio.run(run())
