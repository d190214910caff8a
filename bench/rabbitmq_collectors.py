"""What a collector takes from a real RabbitMQ: whether all of it arrives, and how much of a core it costs.

Run `python -m bench.rabbitmq_collectors`. The collectors are the real ones, each in a process of its own; publishers
are as fast as the node lets them be. Events a second are those of a core the collector has to itself: events through
the processor time it used for them, AMQP client included.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ctypes import Structure, c_double, c_int64
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import pika

from bench._amqp import EXCHANGE, KEY, VHOST, Load, build_load
from bench.rabbitmq_cost import TRACE
from topicwarden.events import Action
from topicwarden.sources import SourceOptions
from topicwarden_collectors.rabbitmq import BROKER
from topicwarden_collectors.rabbitmq.node import ADMINISTRATOR, Node, running_node
from topicwarden_collectors.rabbitmq.plugin_build import PLUGIN, build_plugin

SIZE: Final = 200
PUBLISHERS: Final = 2
SETTLED_S: Final = 8.0
"""How long a collector must have got nothing more before we believe it has got everything."""


class Progress(Structure):
    """What a collector has got and used so far, in memory shared with it."""

    _fields_: ClassVar = [("publishes", c_int64), ("events", c_int64), ("cpu_s", c_double)]


@dataclass(slots=True)
class Observed:
    """What a collector says at the end."""

    lost: int = 0
    gaps: int = 0
    unresolved: int = 0
    undecodable: int = 0
    notices: dict[str, int] = field(default_factory=dict)
    """What the collector said of its own observing, by code of the finding it becomes."""


def observe(source: str, password_file: Path, progress: Any, control: Connection) -> None:
    """Be the collector's process: count until told to stop, then report."""
    asyncio.run(_observe(source, password_file, progress, control))


async def _observe(source: str, password_file: Path, progress: Any, control: Connection) -> None:
    collector = BROKER.watch(source, SourceOptions(broker="bench", password_file=password_file))
    loop = asyncio.get_running_loop()
    observed = Observed()

    def wait_for_stop() -> None:
        control.recv()
        asyncio.run_coroutine_threadsafe(collector.close(), loop)

    threading.Thread(target=wait_for_stop, daemon=True).start()
    control.send("ready")
    async for batch in collector.batches():
        progress.publishes += int(batch.count[batch.action == Action.PUBLISH].sum(dtype=np.int64))
        progress.events += len(batch)
        progress.cpu_s = time.process_time()
        for notice in batch.notices:
            observed.notices[notice.code] = observed.notices.get(notice.code, 0) + notice.count
    counters = collector.counters
    observed.lost, observed.gaps = counters.lost, counters.gaps
    observed.unresolved, observed.undecodable = counters.unresolved, sum(counters.decode_errors.values())
    control.send(observed)


@dataclass
class Collecting:
    """A collector at work."""

    process: Any
    progress: Any
    observed: Observed

    def settle(self) -> None:
        """Return once it has got nothing for a while."""
        before, since = -1, time.monotonic()
        while time.monotonic() - since < SETTLED_S:
            if self.progress.events != before:
                before, since = self.progress.events, time.monotonic()
            time.sleep(0.05)

    def snapshot(self) -> tuple[int, int, float]:
        """Return publishes, events and seconds of CPU so far."""
        return self.progress.publishes, self.progress.events, self.progress.cpu_s


@contextlib.contextmanager
def collecting(node: Node, parameters: str) -> Iterator[Collecting]:
    """Run a collector beside; what it observed is there afterwards."""
    password_file = node.folder / "password"
    password_file.write_text(node.password)
    spawn = multiprocessing.get_context("spawn")
    progress = spawn.Value(Progress, lock=False)
    ours, theirs = spawn.Pipe()
    source = f"amqp://{ADMINISTRATOR}@127.0.0.1:{node.ports.amqp}/?{parameters}"
    process = spawn.Process(target=observe, args=(source, password_file, progress, theirs))
    process.start()
    theirs.close()  # so that a collector that dies is an error here and not an endless wait
    running = Collecting(process, progress, Observed())
    try:
        ours.recv()
        yield running
        ours.send("stop")
        running.observed = ours.recv()
    finally:
        process.join(20)
        process.kill()


def wait_until_it_sees(load: Load, node: Node, running: Collecting) -> None:
    """Publish a message now and then until the collector has got something, and let it settle."""
    deadline = time.monotonic() + 60
    while not running.progress.events:
        if time.monotonic() > deadline or not running.process.is_alive():
            raise SystemExit("the collector sees nothing")
        load.publish(node, KEY, SIZE, 1)
        time.sleep(0.3)
    running.settle()


def print_speed(before: tuple[int, int, float], after: tuple[int, int, float]) -> None:
    """Print what the collector did between two snapshots, through the processor time it used."""
    events, cpu_s = after[1] - before[1], after[2] - before[2]
    print(f"  one core takes {events / cpu_s:,.0f} events a second ({cpu_s / events * 1e6:.2f} us each, of {events:,})")


def measure(load: Load, node: Node, title: str, parameters: str, seconds: float) -> None:
    """Publish as fast as the node takes it with the collector beside; print what it got and what that cost it."""
    with collecting(node, parameters) as running:
        wait_until_it_sees(load, node, running)
        before = running.snapshot()
        with ThreadPoolExecutor(PUBLISHERS) as pool:
            runs = list(pool.map(lambda _: load.publish(node, KEY, SIZE, 0, seconds), range(PUBLISHERS)))
        running.settle()
        after = running.snapshot()
    sent, taken, seen = sum(run[0] for run in runs), max(run[1] for run in runs), after[0] - before[0]
    got = running.observed
    exact = "every one" if seen == sent else f"{sent - seen:,} FEWER"
    print(
        f"{title}: {sent:,} published in {taken:.0f} s, {sent / taken:,.0f} a second; {seen:,} observed: {exact}"
        f" (told: lost {got.lost:,} in {got.gaps} gaps, unresolved {got.unresolved}, undecodable {got.undecodable},"
        f" notices {got.notices or 'none'})"
    )
    print_speed(before, after)


def measure_events(load: Load, node: Node, queues: int = 4000) -> None:
    """Declare, bind and delete queues with the stock collector beside; print what its events cost it."""
    with collecting(node, "mode=stock") as running:
        connection = pika.BlockingConnection(pika.URLParameters(node.url()))
        connection.channel().queue_declare("first", exclusive=True)
        wait_until_it_sees(load, node, running)
        before = running.snapshot()
        channel = connection.channel()
        for number in range(queues):
            channel.queue_declare(f"bench.{number}")
            channel.queue_bind(f"bench.{number}", EXCHANGE, KEY)
            channel.queue_delete(f"bench.{number}")
        running.settle()
        after = running.snapshot()
        connection.close()
    print(f"stock, queues that come and go: {queues:,} declared, bound and deleted, {after[1] - before[1]:,} events")
    print_speed(before, after)


def main() -> None:
    """Print losses and events a second for the plugin's stream and for the firehose."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to publish at full speed")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load = Load(build_load(folder))
        plugin = build_plugin(folder / "plugin")
        with running_node(folder / "tapped", plugins=(PLUGIN,), plugin_folders=[plugin.parent]) as node:
            measure(load, node, "plugin", "mode=plugin", seconds)
        stock = running_node(
            folder / "stock",
            plugins=("rabbitmq_event_exchange",),
            config=["log.exchange = true", "log.exchange.level = info", "log.exchange.formatter = json"],
            advanced=TRACE,
        )
        with stock as node:
            measure_events(load, node)
            measure(load, node, "firehose", f"mode=stock&firehose={VHOST}", seconds)


if __name__ == "__main__":
    main()
