"""Sysmon's events from a real journal: followed, read, gone on with after a restart, and nothing left running."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import wait_for
from tests.collector_contract import CollectorContract, Stage
from tests.host.following import rows_of, running
from tests.host.real_journal import Journal, journald
from tests.host.recordings import FOLDER, decode
from topicwarden.errors import ObservationError
from topicwarden.events import Executed, HostEvent
from topicwarden.sources import Collector, Counters, SourceOptions
from topicwarden_collectors.host.journal_follow import JournalCollector, read_journal

ENTRIES = [
    json.loads(line) for line in (FOLDER / "sysmon-journal-json.log").read_bytes().splitlines() if line.endswith(b"}")
]
MESSAGES = [
    bytes(entry["MESSAGE"]) if isinstance(entry["MESSAGE"], list) else entry["MESSAGE"].encode()
    for entry in ENTRIES
    if entry.get("SYSLOG_IDENTIFIER") == "sysmon" and entry.get("_UID", "0") == "0"
]
"""Events as Sysmon hands them to the journal; not all are of programs or connections."""


def wanted_of(messages: list[bytes]) -> list[HostEvent]:
    lines = [
        json.dumps({"SYSLOG_IDENTIFIER": "sysmon", "_UID": "0", "MESSAGE": list(message)}).encode()
        for message in messages
    ]
    return decode(b"\n".join(lines), "sysmon")[0]


EVENT = next(message for message in MESSAGES if wanted_of([message]))


@pytest.fixture(scope="module")
def journal() -> Iterator[Journal]:
    with journald() as running_journal:
        yield running_journal


def collector(journal: Journal, **options: Any) -> JournalCollector:
    return JournalCollector(SourceOptions(host="golden", **options), command=journal.command)


def test_what_comes_after_it_began_is_seen_whatever_its_bytes_are(journal: Journal) -> None:
    wanted = wanted_of(MESSAGES)
    assert len(wanted) > 5

    async def run() -> None:
        journal.write(EVENT)
        await asyncio.to_thread(wait_for, lambda: journal_events(journal), "the first entry")
        async with running(collector(journal)) as tail:
            for message in MESSAGES:
                journal.write(message)
                journal.write(b"no event of Sysmon's", tag=b"other")
            await tail.until_events(len(wanted))
        assert tail.events == wanted
        assert not tail.notices

    asyncio.run(run())


def journal_events(journal: Journal) -> list[HostEvent]:
    return [
        event
        for batch in read_journal(SourceOptions(host="golden"), Counters(), command=journal.command)
        for event in batch.hosts
    ]


def test_an_entry_that_another_user_wrote_is_a_forgery_and_no_event(journal: Journal) -> None:
    async def run() -> None:
        async with running(collector(journal)) as tail:
            journal.write(EVENT, user=54_321)
            journal.write(EVENT)
            await tail.until_events(1)
        assert tail.events == wanted_of([EVENT])
        assert [(notice.code, notice.scope) for notice in tail.notices] == [("TW905", "forged")]

    asyncio.run(run())


def test_a_restart_goes_on_where_it_stopped(journal: Journal, tmp_path: Path) -> None:
    events: list[HostEvent] = []

    async def run() -> None:
        async with running(collector(journal, state_dir=tmp_path / "state")) as tail:
            await tail.until(lambda: len(events) + len(tail.events) == len(wanted), f"{len(wanted)} events")
        events.extend(tail.events)
        assert not tail.notices

    # The first run keeps a place though it sees nothing of Sysmon's.
    wanted: list[HostEvent] = []
    journal.write(b"something", tag=b"other")
    asyncio.run(run())
    for message in MESSAGES:
        journal.write(message)
        wanted += wanted_of([message])
        asyncio.run(run())
    assert events == wanted


def test_a_place_that_the_journal_no_longer_has_is_a_gap(journal: Journal, tmp_path: Path) -> None:
    first_run = collector(journal, state_dir=tmp_path)
    assert first_run._position is not None
    cursor = "s=00000000000000000000000000000001;i=1;b=00000000000000000000000000000002;m=1;t=1;x=3"
    first_run._position.claim(cursor, 3)
    asyncio.run(first_run.close())

    async def run() -> None:
        async with running(collector(journal, state_dir=tmp_path)) as tail:
            journal.write(EVENT)
            await tail.until(lambda: tail.events, "an event")
        assert [(notice.scope, notice.count) for notice in tail.notices[:2]] == [("log", 1), ("reader-restart", 3)]
        assert tail.collector.counters.lost == 3

    asyncio.run(run())


def test_a_damaged_place_is_told_and_two_readers_cannot_share_one(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "journal-sysmon.position").write_bytes(b"nonsense")
    one = collector(journal, state_dir=tmp_path)
    assert one.counters.decode_errors == {"reading-position": 1}
    with pytest.raises(ObservationError, match="another topicwarden"):
        collector(journal, state_dir=tmp_path)
    asyncio.run(one.close())


def test_a_journalctl_that_cannot_run_or_ends_is_one_error(journal: Journal, tmp_path: Path) -> None:
    for command in (("/nowhere/journalctl",), ("sh", "-c", "echo no permission >&2; exit 1")):
        for act in (
            lambda command=command: JournalCollector(SourceOptions(), command=command),
            lambda command=command: list(read_journal(SourceOptions(), Counters(), command=command)),
        ):
            with pytest.raises(ObservationError) as caught:
                act()
            (problem,) = caught.value.problems
            assert problem.hint
            assert "no permission" in problem.message or "cannot be run" in problem.message

    async def run() -> None:
        ending = collector(journal)
        assert ending._child is not None
        ending._child._process.terminate()
        async for _ in ending.batches():
            pass

    with pytest.raises(ObservationError, match="journalctl ended"):
        asyncio.run(run())


KILLED = """
import asyncio, sys
from topicwarden.sources import SourceOptions
from topicwarden_collectors.host.journal_follow import JournalCollector

collector = JournalCollector(SourceOptions(), command=sys.argv[1:])
print(collector._child._process.pid, flush=True)

async def main():
    async for _ in collector.batches():
        pass

asyncio.run(main())
"""


def test_even_after_sigkill_no_journalctl_is_left(journal: Journal) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, *journal.command], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        child = int(reader.stdout.readline())
        assert _runs(child)
        reader.send_signal(signal.SIGKILL)
    wait_for(lambda: not _runs(child), "the end of journalctl")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestTheContract(CollectorContract):
    @contextmanager
    def stage(self, folder: Path) -> Iterator[Stage]:
        with journald() as journal:
            (event,) = wanted_of([EVENT])
            assert isinstance(event, Executed)

            def shows(rows: list[dict[str, Any]]) -> bool:
                return bool(rows)

            options = SourceOptions(host=event.process.host)
            yield Stage(
                JournalCollector(options, command=journal.command),
                lambda: journal.write(EVENT),
                shows,
                lambda: journal.write(b"<Event>garbage"),
                rows_of=rows_of,
            )

    def build_on_nothing(self, folder: Path) -> Collector:
        return JournalCollector(SourceOptions(), command=("journalctl", "-D", str(folder / "nowhere")))
