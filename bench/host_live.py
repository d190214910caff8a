"""What watching this machine live costs and sees: 100 000 programs started a minute, and 200 `mosquitto_pub` in a row.

    ./run bench host_live   (as root; or: .venv/bin/python -m bench.host_live)

A small program starts itself again and again, at that pace, and ends at once. Printed are the share of one processor
that the collector takes meanwhile (its whole process, the consumer included, which only counts), the pace it would keep
up with at that cost, as a multiple, and how many starts were told, with their arguments, or as lost. Then a shell runs
`mosquitto_pub` in a loop against a broker of our own; printed are the shares that were told with their program and
arguments, with both ends of their connection, and with both and their process, without the helper that a broker asks.
Each is the median of the rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.brokers import mosquitto
from topicwarden.events import Dialled, Executed, HostEvent
from topicwarden_collectors.host.live import LiveCollector

ROUNDS = 5
NEEDED = 100_000 / 60
"""Programs started a second that must be kept up with."""
SECONDS = 10
PUBLISHES = 200
STORM = r"""
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
int main(int argc, char **argv) {
    if (argc != 3) return 0;
    long count = atol(argv[1]), pause_ns = atol(argv[2]);
    char *child[] = {"storm", "-h", "127.0.0.1", "-t", "plant/a/telemetry", "-m", "21.5", NULL}, *none[] = {NULL};
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (long i = 0; i < count; i++) {
        pid_t pid;
        if (posix_spawn(&pid, argv[0], NULL, NULL, child, none) || waitpid(pid, NULL, 0) != pid) return 1;
        next.tv_nsec += pause_ns;
        for (; next.tv_nsec >= 1000000000; next.tv_sec++) next.tv_nsec -= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    return 0;
}
"""


class Watched:
    """What a collector handed over."""

    def __init__(self, collector: LiveCollector) -> None:
        self.collector = collector
        self.events: list[HostEvent] = []

    async def drain(self) -> None:
        """Take all batches."""
        async for batch in self.collector.batches():
            self.events += batch.hosts

    def programs(self, name: str) -> list[Executed]:
        """Return the starts that came with these words as their first argument."""
        return [one for one in self.events if isinstance(one, Executed) and one.process.arguments[:1] == (name,)]


@contextlib.asynccontextmanager
async def watching(collector: LiveCollector) -> AsyncIterator[Watched]:
    """Watch until the block ends."""
    watched = Watched(collector)
    task = asyncio.ensure_future(watched.drain())
    await asyncio.sleep(0.5)  # those who were there before are told
    watched.events.clear()
    try:
        yield watched
    finally:
        await asyncio.sleep(0.5)
        await collector.close()
        await task


async def run(*command: str) -> str:
    """Run a program to its end; what it wrote."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    return out.decode()


async def storm(program: Path) -> tuple[float, float, float, float, int]:
    """Return pace, share of a processor, shares of starts told, and told with arguments, and how many were lost."""
    count = int(NEEDED * SECONDS)
    async with watching(LiveCollector("bench")) as watched:
        cpu, start = time.process_time(), time.perf_counter()
        await run(str(program), str(count), str(int(1e9 / NEEDED)))
        wall = time.perf_counter() - start
        spent = time.process_time() - cpu
    parents = {one.process.parent_pid for one in watched.programs("storm")}
    told = [one for one in watched.events if isinstance(one, Executed) and one.process.parent_pid in parents]
    lost = watched.collector.counters.lost
    return count / wall / NEEDED, spent / wall, len(told) / count, len(watched.programs("storm")) / count, lost


async def publishes(port: int) -> tuple[float, float, float, float]:
    """Return the shares told with arguments, with ends, with ends and process; and that of a processor it took."""
    script = f"for i in $(seq {PUBLISHES}); do mosquitto_pub -p {port} -t a/b -m hello & echo $!; wait; done"
    async with watching(LiveCollector("bench", ports={port})) as watched:
        cpu, start = time.process_time(), time.perf_counter()
        pids = set(map(int, (await run("sh", "-c", script)).split()))
        spent = (time.process_time() - cpu) / (time.perf_counter() - start)
    named = {one.process.pid for one in watched.programs("mosquitto_pub")} & pids
    dialled = [one for one in watched.events if isinstance(one, Dialled) and one.sent != 0]
    owned = [one.pid for one in dialled if one.pid is not None]
    if set(owned) - pids:
        raise SystemExit(f"told of processes that did not connect: {set(owned) - pids}")
    return len(named) / PUBLISHES, len(dialled) / PUBLISHES, len(set(owned) & named) / PUBLISHES, spent


def main() -> None:
    """Print the figures."""
    if os.geteuid() != 0:
        raise SystemExit("only root is told of all processes and may look at other users' descriptors")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, program = folder / "storm.c", folder / "storm"
        source.write_text(STORM)
        subprocess.run(["gcc", "-O2", "-static", "-o", str(program), str(source)], check=True)
        storms = [asyncio.run(storm(program)) for _ in range(ROUNDS)]
        pace, share, told, named = (statistics.median(one[at] for one in storms) for at in range(4))
        print(
            f"{pace:.2f} x 100 000 programs a minute: {share:.2f} of a processor, so {pace / share:.1f} x at most; "
            f"told {told:.4f}, with arguments {named:.4f}, lost {max(one[4] for one in storms)}"
        )
        with mosquitto(folder / "broker") as broker:
            rounds = [asyncio.run(publishes(broker.port)) for _ in range(ROUNDS)]
        named, dialled, both, share = (statistics.median(one[at] for one in rounds) for at in range(4))
        least = min(one[2] for one in rounds)
        print(
            f"{PUBLISHES} mosquitto_pub in a row: program and arguments {named:.3f}, both ends {dialled:.3f}, "
            f"process and both ends {both:.3f} (least {least:.3f}); {share:.2f} of a processor meanwhile"
        )


if __name__ == "__main__":
    main()
