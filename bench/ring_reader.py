"""Reading the plugin's ring: decoding as a ratio to copying the same bytes, and how long a publish takes to come out.

Run: python -m bench.ring_reader
"""

from __future__ import annotations

import asyncio
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers import mosquitto
from tests.mosquitto import ring_writer as ring
from tests.mosquitto.plugin_build import build_plugin
from topicwarden.events import Action, Tables
from topicwarden_collectors.mosquitto.ring import RingCollector
from topicwarden_collectors.mosquitto.ring_decode import RingDecoder, Slots

BLOCK = 1 << 16
LATENCY_AIM_MS = 10.0


def steady() -> tuple[Slots, Slots]:
    """Return announcements of 1 000 clients and 5 000 topics, and a block of events among them."""
    source = random.Random(1)
    names = [ring.client(i + 1, b"client-%d" % i) for i in range(1000)]
    names += [ring.topic(i + 1001, b"plant/line/device-%d/telemetry" % i) for i in range(5000)]
    events = [ring.event(source.randrange(1, 1001), source.randrange(1001, 6001), i) for i in range(BLOCK)]
    return ring.as_slots(b"".join(names)), ring.as_slots(b"".join(events))


def storm() -> tuple[Slots, Slots]:
    """Return a client, and a block of publishes each of which is to a topic of its own."""
    groups = [ring.topic(i + 2, b"plant/line/device-%d" % i) + ring.event(1, i + 2, i) for i in range(BLOCK // 3)]
    return ring.as_slots(ring.client(1)), ring.as_slots(b"".join(groups)).copy()


def measure(name: str, make: Callable[[], tuple[Slots, Slots]], rounds: int = 30) -> None:
    """Decode and copy the same block by turns; print the ratio."""
    names, block = make()
    events = int(np.count_nonzero(block[:, 0] == 1))
    decoding, copying = [], []
    decoder = RingDecoder(Tables(), "b", slot_count=1 << 19)
    position = _decode(decoder, names, 0)
    target = np.empty_like(block)
    for turn in range(rounds):
        decoder.resume(position, 0)
        if make is storm:
            block.view("<u4").reshape(-1, 8)[0::3, 1] += BLOCK
            block.view("<u4").reshape(-1, 8)[2::3, 2] += BLOCK
            block[1::3, 1:4] = np.frombuffer(b"%03d" % turn, np.uint8)
        start = time.perf_counter()
        position = _decode(decoder, block, position)
        middle = time.perf_counter()
        np.copyto(target, block)
        copying.append(time.perf_counter() - middle)
        decoding.append(middle - start)
    ratio = statistics.median(d / c for d, c in zip(decoding, copying, strict=True))
    rate = events / statistics.median(decoding) / 1e6
    print(f"{name}: x {ratio:.0f} of copying the same {block.nbytes >> 10} KiB ({rate:.1f} million events/s here)")


def _decode(decoder: RingDecoder, slots: Slots, position: int) -> int:
    for _ in decoder.decode(slots, position):
        pass
    return position + len(slots)


def live(name: str, gap_s: float, count: int) -> None:
    """Publish to a real broker and print how long each publish takes to come out of the collector."""
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        folder.chmod(0o777)  # the broker drops to its own user
        config = [f"plugin {build_plugin()}", f"plugin_opt_ring {folder / 'm.ring'}"]
        with mosquitto(folder / "broker", config) as broker:
            took, share = asyncio.run(_live(RingCollector(folder / "m.ring"), broker.port, gap_s, count))
    took.sort()
    median = statistics.median(took)
    print(
        f"{name}: publish to batch, {len(took)} of {count}: median {median:.1f} ms, "
        f"90 % {took[len(took) * 9 // 10]:.1f} ms (aim: median under {LATENCY_AIM_MS:.0f} ms); "
        f"the reader and its publisher used {share:.1%} of a core"
    )


async def _live(collector: RingCollector, port: int, gap_s: float, count: int) -> tuple[list[float], float]:
    sent: dict[str, float] = {}
    took: list[float] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, "bench")
    client.connect("127.0.0.1", port)
    client.loop_start()

    async def publish() -> None:
        source = random.Random(2)
        for i in range(count):
            await asyncio.sleep(gap_s * source.uniform(0.5, 1.5))
            sent[f"bench/{i}"] = time.perf_counter()
            client.publish(f"bench/{i}", b"x")

    started, used = time.perf_counter(), _cpu_s()
    publishing = asyncio.create_task(publish())
    async for batch in collector.batches():
        now = time.perf_counter()
        for number in batch.resource[batch.action == Action.PUBLISH].tolist():
            resource_ = batch.tables.resources.entries[number]
            if resource_ is not None and resource_.name in sent:
                took.append((now - sent[resource_.name]) * 1000)
        if len(took) == count:
            await collector.close()
    await publishing
    share = (_cpu_s() - used) / (time.perf_counter() - started)
    client.disconnect()
    client.loop_stop()
    return took, share


def idle(seconds: float = 5.0) -> None:
    """Print what following a silent ring costs."""
    with tempfile.TemporaryDirectory() as folder:
        ring.RingWriter(Path(folder) / "m.ring")
        collector = RingCollector(Path(folder) / "m.ring")

        async def run() -> float:
            async def drain() -> None:
                async for _ in collector.batches():
                    pass

            task = asyncio.create_task(drain())
            await asyncio.sleep(0.5)
            used = _cpu_s()
            await asyncio.sleep(seconds)
            used = _cpu_s() - used
            await collector.close()
            await task
            return used

        print(f"a silent ring: {asyncio.run(run()) / seconds:.2%} of a core")


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print the figures."""
    measure("decoding, names known", steady)
    measure("decoding, every event on a new topic", storm)
    idle()
    live("20 publishes a second", 0.05, 100)
    live("300 publishes a second", 1 / 300, 900)


if __name__ == "__main__":
    main()
