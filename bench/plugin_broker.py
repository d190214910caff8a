"""What watching costs a real broker: CPU for each message, plain, with plugin and reader, and with `log_type all`."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from tests.brokers import Mosquitto, mosquitto
from tests.mosquitto.plugin_build import build_plugin
from topicwarden.events import Tables
from topicwarden.sources import Counters
from topicwarden_collectors.mosquitto.ring_decode import RingDecoder
from topicwarden_collectors.mosquitto.ring_file import RingFile

AIM = 1.08


def build_load(folder: Path) -> Path:
    """Compile the load generator."""
    built = folder / "load"
    source = Path(__file__).with_name("load.c")
    subprocess.run(["cc", "-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-o", built, source], check=True)
    return built


def cpu_ns(pid: int) -> int:
    """Return the nanoseconds of CPU the process's only busy thread has used (Linux schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def drain(ring_path: Path, stop: threading.Event, counters: Counters) -> int:
    """Follow the ring into event batches until told to stop; return the events decoded."""
    ring = RingFile(ring_path)
    decoder = RingDecoder(Tables(), "bench", slot_count=ring.slot_count, counters=counters)
    position = ring.head
    position = max(ring.oldest, position - ring.slot_count // 2)
    events = 0
    while True:
        ending = stop.is_set()
        slots, at = ring.read(max(position, ring.oldest), 1 << 16)
        if len(slots):
            events += sum(len(batch) for batch in decoder.decode(slots, at))
            position = at + len(slots)
        elif ending:
            ring.close()
            return events
        else:
            time.sleep(0.004)


def reader(ring_path: Path, control: Connection) -> None:
    """Be the reader's process: drain until told to stop, then report events and losses."""
    stop, counters = threading.Event(), Counters()

    def wait_for_stop() -> None:
        control.recv()
        stop.set()

    threading.Thread(target=wait_for_stop, daemon=True).start()
    control.send("ready")
    events = drain(ring_path, stop, counters)
    control.send((events, counters.lost, counters.unresolved))


@contextlib.contextmanager
def reading(ring: Path) -> Iterator[dict[str, int]]:
    """Run a reader beside; its results are in the mapping afterwards."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=reader, args=(ring, theirs))
    process.start()
    theirs.close()  # so that a reader that dies is an error here and not an endless wait
    result: dict[str, int] = {}
    try:
        ours.recv()
        yield result
        ours.send("stop")
        result["events"], result["lost"], result["unresolved"] = ours.recv()
    finally:
        process.join(20)
        process.kill()


def load(program: Path, broker: Mosquitto, *arguments: str | float) -> tuple[int, float, float]:
    """Run the load generator; return messages, seconds, and the broker's CPU nanoseconds for each message."""
    before = cpu_ns(broker.process.pid)
    command = [str(program), str(broker.port), *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    messages = int(answer[0])
    return messages, float(answer[1]), (cpu_ns(broker.process.pid) - before) / messages


def compare(program: Path, brokers: Mapping[str, Mosquitto], ring: Path, given: argparse.Namespace) -> None:
    """Load each broker in turn, again and again, and print how much CPU a message costs relative to the plain one."""
    for title, qos, payload in (("QoS 0, 64 bytes", 0, 64), ("QoS 1, 64 bytes", 1, 64), ("QoS 0, 1 KiB", 0, 1024)):
        ratios: dict[str, list[float]] = {name: [] for name in brokers if name != "plain"}
        for broker in brokers.values():
            load(program, broker, 4, payload, qos, given.messages // 10, 0)
        for _ in range(given.pairs):
            costs = {}
            for name, broker in brokers.items():
                watched = reading(ring) if "reader" in name else contextlib.nullcontext()
                with watched:
                    costs[name] = load(program, broker, 4, payload, qos, given.messages, 0)[2]
            for name in ratios:
                ratios[name].append(costs[name] / costs["plain"])
        for name, found in ratios.items():
            aim = f"  (aim: at most {AIM:.2f})" if "reader" in name and qos == 0 and payload == 64 else ""
            print(f"{title:16} {name:22} {statistics.median(found):6.3f} x plain, of {spread(found)}{aim}")


def spread(found: Sequence[float]) -> str:
    """Return the lowest and the highest."""
    return f"{min(found):.3f} to {max(found):.3f}"


def saturate(program: Path, broker: Mosquitto, ring: Path, seconds: float) -> None:
    """Publish as fast as the broker takes it, with a reader beside, and print what the reader missed."""
    with reading(ring) as result:
        messages, taken, _ = load(program, broker, 8, 64, 0, 0, seconds)
    lost = result["lost"] + result["unresolved"]
    print(
        f"saturated for {taken:.1f} s: {messages} messages, {messages / taken:,.0f} a second;"
        f" events read {result['events']}, lost {lost}"
    )


def main() -> None:
    """Print ratios of broker CPU for each message, then what a reader loses of a saturated broker."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="rounds over all brokers")
    parser.add_argument("--messages", type=int, default=60_000, help="messages of each load")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to saturate; 0: not at all")
    given = parser.parse_args()
    shared = Path("/dev/shm")  # where rings belong: tmpfs
    user = ["user root"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        ring = folder / "ring"
        plugin = [f"plugin {build_plugin()}", f"plugin_opt_ring {ring}"]
        log = [f"log_dest file {folder / 'all.log'}", "log_type all"]
        brokers = {
            kind: stack.enter_context(mosquitto(folder / kind.split()[0], [*lines, *user]))
            for kind, lines in (("plain", []), ("plugin and reader", plugin), ("log_type all to a file", log))
        }
        program = build_load(folder)
        compare(program, brokers, ring, given)
        if given.seconds:
            saturate(program, brokers["plugin and reader"], ring, given.seconds)


if __name__ == "__main__":
    main()
