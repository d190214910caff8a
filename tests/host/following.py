"""Runs collectors of hosts' logs, and writes audit logs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

from topicwarden.events import EventBatch, Executed, HostEvent, Notice
from topicwarden.events.host_rows import host_row
from topicwarden.sources import Collector

START = 1_700_000_000


def executed(serial: int, *, name: str = "prog", second: int | None = None) -> bytes:
    """Return the records of one start of a program, as the kernel writes them."""
    stamp = b"msg=audit(%d.%03d:%d): " % (START if second is None else second, serial % 1000, serial)
    return (
        b"type=SYSCALL "
        + stamp
        + b"arch=c000003e syscall=59 success=yes exit=0 a0=1 a1=2 a2=3 a3=4 items=2 ppid=1 pid=%d auid=4294967295 "
        b'uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=4294967295 comm="x" '
        b'exe="/bin/x" key="k"\n'
        % (serial % 4_000_000 + 1)
        + b"type=EXECVE "
        + stamp
        + b'argc=2 a0="%s" a1="%d"\n' % (name.encode(), serial)
        + b"type=PROCTITLE "
        + stamp
        + b"proctitle=00\n"
    )


def serials(events: Iterable[HostEvent]) -> list[int]:
    """Return which of `executed` these are."""
    return [int(event.process.arguments[1]) for event in events if isinstance(event, Executed)]


def rows_of(batch: EventBatch) -> list[dict[str, Any]]:
    """Return what hosts did as rows for the contract: the host stands where the broker of a client does."""
    rows = []
    for event in batch.hosts:
        row = host_row(event)
        rows.append({**row, "client": {"broker": row.get("host") or row["process"]["host"]}})
    return rows


class Running:
    """A collector that runs, and what it handed over."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.events: list[HostEvent] = []
        self.notices: list[Notice] = []
        self.batches = 0

    @property
    def gaps(self) -> list[str]:
        return [str(notice.evidence["why"]) for notice in self.notices if notice.code == "TW901"]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        for _ in range(6000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"waited in vain for {what}; {len(self.events)} events, {self.notices[-3:]}")

    async def until_events(self, count: int) -> None:
        await self.until(lambda: len(self.events) >= count, f"{count} events")

    async def drain(self) -> None:
        async for batch in self.collector.batches():
            self.batches += 1
            self.events += batch.hosts
            self.notices += batch.notices


@contextlib.asynccontextmanager
async def running(collector: Collector) -> AsyncIterator[Running]:
    """Run a collector until the block ends, and let it end."""
    run = Running(collector)
    task = asyncio.ensure_future(run.drain())
    try:
        yield run
    finally:
        await collector.close()
        await asyncio.wait_for(task, 10)
    assert collector.counters.events == len(run.events)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
