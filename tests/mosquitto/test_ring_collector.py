from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.collector_contract import CollectorContract, Stage
from tests.mosquitto import ring_writer as ring
from topicwarden.errors import ObservationError
from topicwarden.events import EventBatch, Notice
from topicwarden.events.rows import to_rows
from topicwarden.sources import Collector, SourceOptions
from topicwarden_collectors.mosquitto.ring import RingCollector


@dataclass
class Seen:
    """What a collector handed over."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def take(self, batch: EventBatch) -> None:
        self.rows += to_rows(batch)
        self.notices += batch.notices

    @property
    def sequences(self) -> list[int]:
        """The events' sequence numbers, which the writer put into their times."""
        return [(row["time_ns"] - ring.START_NS) // 1000 for row in self.rows]

    def told(self, code: str, scope: str) -> list[Notice]:
        return [notice for notice in self.notices if (notice.code, notice.scope) == (code, scope)]


def follow(
    collector: RingCollector, act: Callable[[], None] = lambda: None, until: Callable[[Seen], object] = bool
) -> Seen:
    """Run a collector, act once it has begun, wait until enough was seen, close it; what it gave."""
    seen = Seen()

    async def collect() -> None:
        async for batch in collector.batches():
            seen.take(batch)

    async def run() -> None:
        task = asyncio.create_task(collect())
        await asyncio.sleep(0)
        act()
        deadline = asyncio.get_running_loop().time() + 10
        while not until(seen) and not task.done():
            assert asyncio.get_running_loop().time() < deadline, f"not seen in time: {seen}"
            await asyncio.sleep(0.002)
        await collector.close()
        await asyncio.wait_for(task, 5)

    asyncio.run(run())
    return seen


def everything(seen: Seen) -> bool:
    return True


def test_it_begins_now_and_still_knows_the_names_announced_before(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    writer.publish(name=b"before")
    writer.publish(name=b"known")
    collector = RingCollector(tmp_path / "m.ring")
    writer.publish(name=b"known")
    seen = follow(collector, lambda: writer.publish(name=b"new"), everything)
    assert [(row["resource"]["name"], row["client"]["broker"]) for row in seen.rows] == [("known", "m"), ("new", "m")]
    assert seen.sequences == [2, 3]
    assert not seen.notices


@pytest.mark.parametrize("events", [100, 5000])
def test_from_the_start_it_begins_with_the_oldest_record_still_there(tmp_path: Path, events: int) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    writer.publish_many(events)
    seen = follow(RingCollector(tmp_path / "m.ring", SourceOptions(from_start=True)), until=everything)
    # Of a ring that has wrapped, a first half may lack its names; what follows does not.
    assert seen.sequences == list(range(events - len(seen.rows), events))
    assert len(seen.rows) == events if events < 1000 else 500 < len(seen.rows) <= 1024
    assert not seen.notices


def test_joining_a_ring_that_has_wrapped_misses_no_name_of_what_follows(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    for i in range(3000):
        writer.publish(b"c%d" % (i % 20), b"t%d" % (i % 30))
    collector = RingCollector(tmp_path / "m.ring")

    def act() -> None:
        for i in range(300):
            writer.publish(b"c%d" % (i % 20), b"t%d" % (i % 30))

    seen = follow(collector, act, everything)
    assert seen.sequences == list(range(3000, 3300))
    assert {row["resource"]["name"] for row in seen.rows} == {f"t{i}" for i in range(30)}
    assert (collector.counters.unresolved, collector.counters.lost) == (0, 0)


def test_a_reader_that_was_lapped_counts_exactly_what_it_lost(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    collector = RingCollector(tmp_path / "m.ring")
    seen = follow(collector, lambda: writer.publish_many(20_000), everything)
    counters = collector.counters
    assert seen.sequences == list(range(20_000 - len(seen.rows), 20_000))
    assert len(seen.rows) > 400
    assert counters.events == len(seen.rows)
    assert counters.events + counters.lost + counters.unresolved == 20_000
    (gap,) = seen.told("TW901", "ring")
    assert gap.count == counters.lost
    assert dict(gap.evidence) == {"first_missing": 0, "last_missing": counters.lost - 1, "sum_gaps": 1}
    assert counters.gaps == 1


def test_a_ring_overwritten_while_it_is_copied_gives_only_whole_events_and_an_exact_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    collector = RingCollector(tmp_path / "m.ring")
    opened = collector._ring
    copy, bursts = opened._copy, iter([300, 900, 100])

    def copy_slowly(slot: int, target: Any) -> None:
        writer.publish_many(next(bursts, 0))
        copy(slot, target)
        writer.publish_many(next(bursts, 0))

    monkeypatch.setattr(opened, "_copy", copy_slowly)
    seen = follow(collector, lambda: writer.publish_many(800), lambda seen: 2099 in seen.sequences)
    counters = collector.counters
    assert counters.decode_errors == {}
    assert seen.sequences == sorted(set(seen.sequences))
    assert counters.lost > 0
    assert len(seen.rows) + counters.lost + counters.unresolved == 2100


PRODUCER = """
import sys
from pathlib import Path
from tests.mosquitto.ring_writer import RingWriter
writer = RingWriter(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for turn in range(400):
    writer.publish_many(150, b"t%d" % (turn % 7))
"""


def test_a_producer_faster_than_us_in_another_process_never_gives_a_torn_event(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PRODUCER, str(tmp_path / "m.ring")]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as producer:
        assert producer.stdin is not None
        assert producer.stdout is not None
        producer.stdout.readline()
        collector = RingCollector(tmp_path / "m.ring")
        producer.stdin.write(b"go\n")
        producer.stdin.flush()
        seen = follow(collector, until=lambda _: producer.poll() is not None)
    counters = collector.counters
    assert counters.decode_errors == {}
    assert seen.sequences == sorted(set(seen.sequences))
    assert len(seen.rows) + counters.lost + counters.unresolved == 60_000


def test_sequence_numbers_that_wrap_are_no_gap(tmp_path: Path) -> None:
    start = 2**32 - 50
    writer = ring.RingWriter(tmp_path / "m.ring", position=4096, sequence=start)
    writer.publish()
    collector = RingCollector(tmp_path / "m.ring")
    seen = follow(collector, lambda: writer.publish_many(100), everything)
    assert seen.sequences == list(range(start + 1, start + 101))
    assert not seen.notices


def test_a_restarted_broker_is_followed_without_losing_the_end_of_the_old_ring(tmp_path: Path) -> None:
    path = tmp_path / "m.ring"
    old = ring.RingWriter(path)
    old.publish()
    collector = RingCollector(path, SourceOptions(broker="plant"), look_s=0)

    def restart() -> None:
        old.publish(name=b"last words")
        new = ring.RingWriter(path, 2048)
        for _ in range(3):
            new.publish(name=b"new")

    seen = follow(collector, restart, lambda seen: len(seen.rows) >= 4)
    assert [row["resource"]["name"] for row in seen.rows] == ["last words", "new", "new", "new"]
    (notice,) = seen.notices
    assert (notice.code, notice.broker, notice.time_ns) == ("TW906", "plant", ring.START_NS)
    assert notice.evidence["last_broker"] == "2.0.11"
    assert collector.counters.lost == 0


def test_what_a_new_ring_lost_before_we_came_to_it_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.ring"
    ring.RingWriter(path)
    collector = RingCollector(path, look_s=0)
    seen = follow(collector, lambda: ring.RingWriter(path).publish_many(5000), lambda seen: 4999 in seen.sequences)
    counters = collector.counters
    assert counters.lost > 0
    assert len(seen.rows) + counters.lost + counters.unresolved == 5000


def test_a_ring_that_vanishes_is_read_on_and_a_broken_successor_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.ring"
    writer = ring.RingWriter(path)
    collector = RingCollector(path, look_s=0)
    path.unlink()
    seen = follow(collector, writer.publish, lambda seen: seen.rows)
    assert seen.sequences == [0]

    ring.RingWriter(path)
    collector = RingCollector(path, look_s=0)
    with pytest.raises(ObservationError, match="format version 9"):
        follow(collector, lambda: ring.RingWriter(path, version=9).close(), lambda seen: False)


def test_a_ring_cut_short_while_it_is_followed_ends_with_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "m.ring"
    ring.RingWriter(path)
    collector = RingCollector(path)
    with pytest.raises(ObservationError, match="cut short"):
        follow(collector, lambda: os.truncate(path, 4096), lambda seen: False)


def test_a_head_that_goes_back_is_told_and_reading_goes_on(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    writer.publish_many(10)
    collector = RingCollector(tmp_path / "m.ring")

    def act() -> None:
        writer.head = 4

    follow(collector, act, lambda seen: seen.told("TW903", "ring-head"))
    assert collector.counters.decode_errors == {"ring": 1}


def test_lag_is_the_readers_clock_minus_the_events_time(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    collector = RingCollector(tmp_path / "m.ring", clock=lambda: ring.START_NS + 5_000_000)
    follow(collector, writer.publish, lambda seen: seen.rows)
    assert collector.counters.lag_ns == 5_000_000


def test_what_is_in_the_ring_when_it_is_closed_is_still_handed_over(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring", 1 << 17)
    collector = RingCollector(tmp_path / "m.ring")
    seen = follow(collector, lambda: writer.publish_many(100_000), everything)
    assert len(seen.rows) == 100_000


def test_closing_before_or_instead_of_reading_releases_the_file(tmp_path: Path) -> None:
    ring.RingWriter(tmp_path / "m.ring")
    before = set(Path("/proc/self/fd").iterdir())
    collector = RingCollector(tmp_path / "m.ring", SourceOptions(state_dir=tmp_path / "state"))
    asyncio.run(collector.close())
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert follow(collector).rows == []
    assert collector.blind_spots()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0x0E, "refused, and subscriptions"),
        (0x0D, "logins are not seen, refused"),
        (0x0B, "deliveries"),
        (0x07, "entropy"),
        (0x1F, "configuration"),
        (0x2F, "another plugin"),
        (0x4F, "per_listener_settings"),
    ],
)
def test_each_mode_flag_is_a_blind_spot_of_its_own(tmp_path: Path, mode: int, words: str) -> None:
    ring.RingWriter(tmp_path / "full.ring", mode=0x0F)
    ring.RingWriter(tmp_path / "m.ring", mode=mode)
    full = RingCollector(tmp_path / "full.ring").blind_spots()
    more = [spot for spot in RingCollector(tmp_path / "m.ring").blind_spots() if spot not in full]
    assert len(full) >= 5
    assert [words in spot.what for spot in more] == [True]


def test_a_broker_that_has_stopped_is_a_blind_spot(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    writer.map[192:200] = ring.START_NS.to_bytes(8, "little")
    running = RingCollector(tmp_path / "m.ring", clock=lambda: ring.START_NS + 10**9).blind_spots()
    stopped = RingCollector(tmp_path / "m.ring", clock=lambda: ring.START_NS + 90 * 10**9).blind_spots()
    (news,) = [spot.what for spot in stopped if spot not in running]
    assert "90 seconds" in news


class TestWrittenRing(CollectorContract):
    """The contract of every collector, on a ring written by the tests; `test_ring_broker.py` has the real broker."""

    @contextlib.contextmanager
    def stage(self, folder: Path) -> Iterator[Stage]:
        writer = ring.RingWriter(folder / "m.ring")
        yield Stage(
            collector=RingCollector(folder / "m.ring"),
            act=lambda: writer.publish(b"sensor", b"plant/1"),
            shows=lambda rows: any(row["resource"]["name"] == "plant/1" for row in rows),
            garbage=lambda: writer.append(b"\x99" * 64),
        )

    def build_on_nothing(self, folder: Path) -> Collector:
        return RingCollector(folder / "no.ring")
