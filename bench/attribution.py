"""Who short-lived clients are, and what finding out costs the broker: shares of runs joined, and ratios of latency."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.engine import policy
from bench.plugin_broker import cpu_ns
from tests.brokers import Mosquitto, mosquitto
from tests.mosquitto import ring_writer
from tests.mosquitto.attribution_stage import REASON, publish, stage, start, told
from tests.mosquitto.plugin_build import build_plugin
from tests.mosquitto.plugin_mqtt import Client
from topicwarden.engine import Engine
from topicwarden.events import Dialled, Executed, HostEvent, Tables
from topicwarden.findings import load_catalogue
from topicwarden.sources import Counters
from topicwarden_collectors.mosquitto.ring_decode import RingDecoder
from topicwarden_collectors.mosquitto.ring_file import RingFile

AIM = 195
COUNTS = ("attributed", "unknown", "late", "absent", "skipped")


def joined(place: Path, runs: int, *, helper: bool) -> str:
    """Run mosquitto_pub again and again; say how many came out with port, and with process and command line."""
    with stage(place, [] if helper else ["plugin_opt_peer_port on"], helper=helper) as here:
        for number in range(runs):
            publish(here.broker.port, f"c{number}")
        events = here.told(2 * here.counts()["attributed"]) if helper else []
        processes = told(only_found(events))
        ports = here.ports()
        whole = sum(client_id in processes[port][0].arguments for client_id, port in ports.items() if port in processes)
        return f"{sum(port is not None for port in ports.values())} with port, {whole} with process and command line"


def only_found(events: Sequence[HostEvent]) -> list[HostEvent]:
    """Leave out connections without a process."""
    return [event for event in events if isinstance(event, Executed) or (isinstance(event, Dialled) and event.pid)]


@contextlib.contextmanager
def brokers(place: Path) -> Iterator[dict[str, Mosquitto]]:
    """Run a broker for each way of asking; one helper answers, one hangs."""
    with contextlib.ExitStack() as stack:
        answering = start(place / "answering" / "socket", Counters())
        stack.callback(answering.close)
        hanging = start(place / "hanging" / "socket", Counters())
        stack.callback(hanging.close)
        pid = newest_child()
        stack.callback(os.kill, pid, signal.SIGCONT)
        os.kill(pid, signal.SIGSTOP)
        ways = {
            "off": [],
            "port": ["plugin_opt_peer_port on"],
            "helper": [f"plugin_opt_attribute {place}/answering/socket"],
            "nobody listens": [f"plugin_opt_attribute {place}/nobody/socket"],
            "helper hangs": [f"plugin_opt_attribute {place}/hanging/socket"],
        }
        running = {}
        for name, options in ways.items():
            folder = place / name.replace(" ", "-")
            folder.mkdir()
            shutil.chown(folder, "mosquitto")
            plugin = ["user mosquitto", f"plugin {build_plugin()}", f"plugin_opt_ring {folder}/ring", *options]
            running[name] = stack.enter_context(mosquitto(folder, ["set_tcp_nodelay true", *plugin]))
        yield running


def newest_child() -> int:
    """Return the process started last of ours."""
    return int(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[-1])


def logins(broker: Mosquitto, count: int) -> tuple[list[float], float]:
    """Log in again and again; return microseconds to the answer of each, and the broker's own of CPU for one."""
    before = cpu_ns(broker.process.pid)
    taken = []
    for number in range(count):
        begin = time.perf_counter()
        client = Client(broker.port, f"c{number}")
        taken.append((time.perf_counter() - begin) * 1e6)
        client.disconnect()
    return taken, (cpu_ns(broker.process.pid) - before) / 1e3 / count


def cost(place: Path, pairs: int, count: int) -> None:
    """Print what a login costs in each way, relative to the plugin with all of it off, taken in turns."""
    with brokers(place) as running:
        ratios: dict[str, list[float]] = {name: [] for name in running}
        cpu_ratios: dict[str, list[float]] = {name: [] for name in running}
        slowest: dict[str, list[float]] = {name: [] for name in running}
        for name, broker in running.items():
            slowest[name] += logins(broker, count // 10 + 5)[0]
        for _ in range(pairs):
            results = {name: logins(broker, count) for name, broker in running.items()}
            for name, (taken, cpu) in results.items():
                ratios[name].append(statistics.median(taken) / statistics.median(results["off"][0]))
                cpu_ratios[name].append(cpu / results["off"][1])
                slowest[name] += taken
        for name in running:
            ring = RingFile(place / name.replace(" ", "-") / "ring")
            counts = {key.removeprefix("attribution_"): value for key, value in ring.counts().items()}
            ring.close()
            asked = ", ".join(f"{counts[key]} {key}" for key in COUNTS if counts.get(key))
            tail = sorted(slowest[name])
            print(
                f"login, {name:15} {statistics.median(ratios[name]):6.2f} x off ({min(ratios[name]):.2f} to"
                f" {max(ratios[name]):.2f}), broker's CPU {statistics.median(cpu_ratios[name]):5.2f} x; 99 % within"
                f" {tail[len(tail) * 99 // 100] / 1e3:.1f} ms, slowest {tail[-1] / 1e3:.1f} ms; {asked}"
            )


def churn(pairs: int, count: int) -> None:
    """Print what it costs us that each connection is another client, for having another port."""

    def stream(*, ports: bool) -> bytes:
        return ring_writer.topic(2**31, b"plant/1/u1-7/m") + b"".join(
            ring_writer.client(n, b"device-%04d" % (n % 1000), b"u1-7", port=1024 + n % 60_000 if ports else 0)
            + ring_writer.event(n, 0, 3 * n - 3, action=1)
            + ring_writer.event(n, 2**31, 3 * n - 2)
            + ring_writer.event(n, 0, 3 * n - 1, action=3)
            for n in range(1, count + 1)
        )

    def take(slots: bytes, engine: Engine | None) -> tuple[float, int]:
        tables = Tables()
        decoder = RingDecoder(tables, "bench", slot_count=1 << 19)
        data, begin = ring_writer.as_slots(slots), time.perf_counter()
        for at in range(0, len(data), 1 << 14):
            for batch in decoder.decode(data[at : at + (1 << 14)], at):
                if engine is not None:
                    engine.step(batch)
        return time.perf_counter() - begin, sum(entry is not None for entry in tables.clients.entries)

    without, with_ports = stream(ports=False), stream(ports=True)
    for what in ("decoded", "decoded and judged"):
        found = []
        for _ in range(pairs):
            engines = [Engine(load_catalogue(), policy()) if "judged" in what else None for _ in range(2)]
            found.append((take(without, engines[0]), take(with_ports, engines[1])))
        ratio = [b[0] / a[0] for a, b in found]
        print(
            f"{count} logins of 1000 clients {what}: {statistics.median(ratio):.2f} x with a port each"
            f" ({min(ratio):.2f} to {max(ratio):.2f}); {found[-1][0][1]} and {found[-1][1][1]} clients in the table,"
            f" which holds {Tables().clients.capacity}"
        )


def main() -> None:
    """Print the shares of runs that were joined, the ratios of a login's latency, and what churn costs the reader."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=200, help="runs of mosquitto_pub")
    parser.add_argument("--pairs", type=int, default=7, help="rounds over all brokers")
    parser.add_argument("--logins", type=int, default=150, help="logins at each broker in each round")
    given = parser.parse_args()
    churn(given.pairs, 30_000)
    if REASON is not None:
        sys.stdout.write(f"the rest is left out: {REASON}\n")
        return
    for helper in (True, False, True, False):
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            found = joined(Path(name), given.runs, helper=helper)
            aim = f" (aim: {AIM} of 200)" if helper else ""
            print(f"{given.runs} runs of mosquitto_pub with{'' if helper else 'out'} the helper: {found}{aim}")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        cost(Path(name), given.pairs, given.logins)


if __name__ == "__main__":
    main()
