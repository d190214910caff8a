from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mosquitto import ring_writer as ring
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.events import EventBatch, Notice
from topicwarden.sources import SourceOptions
from topicwarden_collectors.mosquitto.ring import RingCollector
from topicwarden_collectors.mosquitto.ring_position import Place, ReadingPosition

ROOT = Path(__file__).resolve().parents[2]


def collector(folder: Path) -> RingCollector:
    return RingCollector(folder / "m.ring", SourceOptions(state_dir=folder / "state"))


def numbers(batch: EventBatch) -> list[int]:
    """The events' sequence numbers, which the writer put into their times."""
    return [(time_ns - ring.START_NS) // 1000 for time_ns in batch.time_ns.tolist()]


def read_to_the_end(folder: Path, *, leave_undone: bool = False) -> tuple[list[int], list[Notice]]:
    """Read what there is; with `leave_undone` never ask for what follows the last event."""
    seen: list[int] = []
    notices: list[Notice] = []

    async def run() -> None:
        reader = collector(folder)
        head = reader._ring.head
        batches = reader.batches()
        async for batch in batches:
            seen.extend(numbers(batch))
            notices.extend(batch.notices)
            if reader._decoder.position == head and len(batch):
                if leave_undone:
                    break
                await reader.close()
        await batches.aclose()  # type: ignore[attr-defined]  # an async generator

    with contextlib.suppress(TimeoutError):
        asyncio.run(asyncio.wait_for(run(), 2))
    return seen, notices


def told(notices: list[Notice], code: str = "TW901", scope: str = "reader-restart") -> list[Notice]:
    return [notice for notice in notices if (notice.code, notice.scope) == (code, scope)]


def test_what_comes_while_no_reader_runs_is_read_after_a_restart_and_nothing_twice(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    asyncio.run(_begin_and_close(tmp_path))
    seen: list[int] = []
    for _ in range(4):
        writer.publish_many(50)
        rows, notices = read_to_the_end(tmp_path)
        seen += rows
        assert not notices
    assert seen == list(range(200))


async def _begin_and_close(folder: Path) -> list[Notice]:
    """Let a collector settle its place in the ring, and return what it has to say about that."""
    reader = collector(folder)
    task = asyncio.create_task(_drain(reader))
    await asyncio.sleep(0)
    await reader.close()
    return await task


async def _drain(reader: RingCollector) -> list[Notice]:
    return [notice async for batch in reader.batches() for notice in batch.notices]


def test_a_batch_whose_consumer_never_came_back_is_counted_as_lost_and_not_repeated(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    asyncio.run(_begin_and_close(tmp_path))
    writer.publish_many(70)
    first, _ = read_to_the_end(tmp_path, leave_undone=True)
    assert first == list(range(70))
    writer.publish_many(5)
    second, notices = read_to_the_end(tmp_path)
    assert second == list(range(70, 75))
    (gap,) = told(notices)
    assert (gap.count, gap.evidence["first_missing"], gap.evidence["last_missing"]) == (70, 0, 69)
    writer.publish_many(1)
    assert read_to_the_end(tmp_path) == ([75], [])


def test_a_reader_absent_for_many_turns_of_the_ring_counts_what_was_overwritten_exactly(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    asyncio.run(_begin_and_close(tmp_path))
    writer.publish_many(10)
    assert read_to_the_end(tmp_path)[0] == list(range(10))
    writer.publish_many(30_000)
    seen, notices = read_to_the_end(tmp_path)
    assert seen == list(range(30_010 - len(seen), 30_010))
    (gap,) = told(notices)
    unresolved = sum(notice.count for notice in told(notices, scope="unresolved"))
    assert gap.evidence["first_missing"] == 10
    assert gap.count + unresolved + len(seen) == 30_000


def test_a_position_of_another_generation_gives_way_to_the_new_rings_beginning(tmp_path: Path) -> None:
    ring.RingWriter(tmp_path / "m.ring").publish_many(10)
    asyncio.run(_begin_and_close(tmp_path))
    ring.RingWriter(tmp_path / "m.ring").publish_many(20)
    seen, notices = read_to_the_end(tmp_path)
    assert seen == list(range(20))
    (restart,) = notices
    assert (restart.code, restart.scope) == ("TW906", "reader-restart")
    assert "not known" in str(restart.evidence["unread"])


def state_file(folder: Path) -> Path:
    (path,) = (folder / "state").iterdir()
    return path


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: b"", None),
        (lambda data: data[:-1], "wrong size"),
        (lambda data: data + b"!", "wrong size"),
        (lambda data: b"x" + data[1:], "damaged or of another version"),
        (lambda data: data[:20] + b"\0\0\0\0" + data[24:], "another ring"),
        (lambda data: data[:64] + b"\x07" * 128, "damaged"),
    ],
)
def test_a_spoilt_position_file_is_told_and_never_stops_the_reader(
    tmp_path: Path, spoil: Callable[[bytes], bytes], why: str | None
) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    writer.publish_many(3)
    asyncio.run(_begin_and_close(tmp_path))
    path = state_file(tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    reader = collector(tmp_path)
    writer.publish_many(3)
    notices: list[Notice] = []

    async def run() -> list[int]:
        async for batch in reader.batches():
            notices.extend(batch.notices)
            if len(batch):
                return numbers(batch)
        return []

    assert asyncio.run(run()) == [3, 4, 5]
    assert [notice.scope for notice in notices] == (["reading-position"] if why else [])
    assert not why or why in str(notices[0].witness)
    assert reader.counters.decode_errors == ({"reading-position": 1} if why else {})


def test_a_position_ahead_of_the_ring_is_told_and_ignored(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    kept = ReadingPosition(tmp_path / "state", tmp_path / "m.ring")
    kept.start(writer.generation, Place(900, 900))
    kept.close()
    notices = asyncio.run(_begin_and_close(tmp_path))
    assert [(notice.code, notice.witness) for notice in notices] == [("TW903", "it is ahead of the ring")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.binary(min_size=128, max_size=128).map(lambda tail: b"head" + tail))
def test_any_bytes_in_the_position_file_are_survived(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "state"
    ReadingPosition(folder, tmp_path / "m.ring").close()
    path = state_file(tmp_path)
    head = path.read_bytes()[:64]
    path.write_bytes(head + data[4:] if data.startswith(b"head") else data)
    kept = ReadingPosition(folder, tmp_path / "m.ring")
    assert kept.saved is None
    kept.start(7, Place(1, None))
    kept.claim(Place(5, 3), first_sequence=2)
    kept.close()
    again = ReadingPosition(folder, tmp_path / "m.ring")
    assert again.problem is None
    assert again.saved is not None
    assert (again.saved.generation, again.saved.claimed, again.saved.done) == (7, Place(5, 3), Place(1, 2))
    again.close()


def test_a_record_that_was_only_half_written_leaves_the_one_before_it(tmp_path: Path) -> None:
    kept = ReadingPosition(tmp_path / "state", tmp_path / "m.ring")
    kept.start(7, Place(1, 1))
    kept.claim(Place(2, 2))
    whole = state_file(tmp_path).read_bytes()
    kept.claim(Place(3, 3))
    kept.close()
    newer = state_file(tmp_path).read_bytes()
    changed = [i for i in range(len(whole)) if whole[i] != newer[i]]
    state_file(tmp_path).write_bytes(newer[: changed[1]] + whole[changed[1] :])
    again = ReadingPosition(tmp_path / "state", tmp_path / "m.ring")
    assert again.saved is not None
    assert again.saved.claimed == Place(2, 2)
    again.close()


def test_two_readers_cannot_share_one_position(tmp_path: Path) -> None:
    ring.RingWriter(tmp_path / "m.ring")
    first = collector(tmp_path)
    with pytest.raises(ObservationError, match="another topicwarden"):
        collector(tmp_path)
    asyncio.run(first.close())
    asyncio.run(collector(tmp_path).close())


def test_a_state_folder_that_cannot_be_used_is_a_wrong_configuration(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    ring.RingWriter(tmp_path / "m.ring")
    with pytest.raises(ConfigurationError, match="--state-dir"):
        collector(tmp_path)


CHILD = """
import asyncio, sys, time
from pathlib import Path
from tests.mosquitto.test_ring_position import collector, numbers

async def main(folder, hold):
    taken = 0
    async for batch in collector(folder).batches():
        for notice in batch.notices:
            print(notice.scope, notice.count, notice.evidence.get("first_missing", -1), flush=True)
        if len(batch):
            print("batch", *numbers(batch), flush=True)
            taken += 1
            if taken == hold:
                time.sleep(60)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@dataclass
class Child:
    """A reader in a process of its own, and all it printed."""

    process: subprocess.Popen[str]
    lines: list[list[str]] = field(default_factory=list)

    def events(self) -> list[int]:
        return [int(word) for line in self.lines if line[0] == "batch" for word in line[1:]]

    def gaps(self) -> list[tuple[str, int, int]]:
        return [(line[0], int(line[1]), int(line[2])) for line in self.lines if line[0] != "batch"]


@contextlib.contextmanager
def child(folder: Path, hold: int = 0) -> Iterator[Child]:
    """Run a reader that stops for good while it holds its `hold`th batch; killed with SIGKILL at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(hold)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    reader = Child(process)

    assert process.stdout is not None
    thread = threading.Thread(target=_collect, args=(process.stdout, reader))
    thread.start()
    try:
        yield reader
    finally:
        process.kill()
        process.wait(10)
        thread.join(10)
        process.stdout.close()


def _collect(output: IO[str], reader: Child) -> None:
    for line in output:
        if line.endswith("\n"):  # a line that the kill cut short was not given to anybody
            reader.lines.append(line.split())


def wait_for(reader: Child, condition: Callable[[], object], writer: ring.RingWriter | None = None) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, reader.lines
        assert reader.process.poll() is None
        if writer is not None:
            writer.publish_many(3)
        time.sleep(0.002)


def _has_given(reader: Child, count: int) -> bool:
    return len(reader.events()) >= count


def test_a_reader_killed_while_it_holds_a_batch_loses_exactly_that_batch(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring")
    asyncio.run(_begin_and_close(tmp_path))
    writer.publish_many(40)
    with child(tmp_path, hold=1) as first:
        wait_for(first, lambda: first.events())
    assert first.events() == list(range(40))
    writer.publish_many(30)
    with child(tmp_path, hold=1) as second:
        wait_for(second, lambda: second.events())
    assert second.events() == list(range(40, 70))
    assert second.gaps() == [("reader-restart", 40, 0)]
    # While nobody reads, the ring turns several times.
    writer.publish_many(9_000)
    with child(tmp_path, hold=9) as third:
        wait_for(third, lambda: 9_069 in third.events())
    held, overwritten, *unresolved = third.gaps()
    assert held == ("reader-restart", 30, 40)
    assert overwritten[0::2] == ("reader-restart", 70)
    assert overwritten[1] + sum(count for _, count, _ in unresolved) + len(third.events()) == 9_000


def test_readers_killed_at_any_moment_repeat_nothing_and_count_all_they_did_not_give(tmp_path: Path) -> None:
    writer = ring.RingWriter(tmp_path / "m.ring", 1 << 15)
    asyncio.run(_begin_and_close(tmp_path))
    chance = random.Random(5)
    given_out: list[int] = []
    lost: set[int] = set()
    for _ in range(4):
        with child(tmp_path) as reader:
            enough = chance.randrange(30, 200)
            wait_for(reader, partial(_has_given, reader, enough), writer)
        given_out += reader.events()
        for scope, count, first in reader.gaps():
            assert scope == "reader-restart"
            lost.update(range(first, first + count))
    rest, notices = read_to_the_end(tmp_path)
    for notice in told(notices):
        first = int(notice.evidence["first_missing"])
        lost.update(range(first, first + notice.count))
    given_out += rest
    assert len(given_out) == len(set(given_out))
    assert set(given_out) | lost == set(range(writer.producer.sequence))
