"""What questions to a store cost: time and memory, over traffic in which few clients do most (Zipf).

Run `python -m bench store_query`: 2 million events; with `TOPICWARDEN_BENCH_EVENTS=100000000` before it, 100 million
(some 1.2 GB on disk, written in about four minutes). Each question runs in a process of its own, whose peak memory is
told with its time, and how many events it goes through in a second. Aims, 100 million events: distinct (client, action,
name), busiest clients of each hour, and what is used of grants, each in seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from topicwarden.compare.usage import usage
from topicwarden.events import COLUMNS, Client, Identity, Resource, ResourceKind, Tables, finish_batch
from topicwarden.grants import Origin
from topicwarden.sources import SourceOptions, load_brokers
from topicwarden.store import analysis
from topicwarden.store.notes import Signer
from topicwarden.store.views import Views
from topicwarden.store.writer import StoreWriter

CLIENTS, NAMES, BATCH = 10_000, 100_000, 1 << 16
START = 1_795_392_000_000_000_000
SPAN = 24 * 3_600_000_000_000
QUESTIONS = ("top_talkers", "top_talkers_by_hour", "refused", "covered", "inventory", "observed")
UNUSED = "unused grants"
STATEMENTS = {
    "distinct uses": "select count(*) from (select distinct client, action, resource from events)",
    "denied by client": "select user, count(*) from events where outcome = 'denied' group by all",
    "one hour": f"select count(*) from events where time_ns < {START + SPAN // 24}",
    "view topics": "select * from topics order by publishers desc limit 10",
}
_MEASURED = """
import resource, sys, time
from pathlib import Path
from bench.store_query import UNUSED, unused
from topicwarden.store import analysis
from topicwarden.store.reader import Store
from topicwarden.store.views import Views
with Views(Store(Path(sys.argv[1]))) as views:
    began = time.perf_counter()
    question = unused if sys.argv[2] == UNUSED else getattr(analysis, sys.argv[2], None)
    question(views) if question else views.rows(sys.argv[2])
    print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def unused(views: Views) -> list[Origin]:
    """Return which lines of an acl_file for all users nobody used: 9001 of them, some with variables."""
    lines = ["pattern readwrite status/%c/#"]
    for user in range(3000):
        lines += [f"user user-{user}", f"topic write plant/area-{user % 97}/#", "topic read plant/#"]
        lines += [f"topic readwrite private/user-{user}/#"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "acl"
        path.write_text("\n".join(lines) + "\n")
        grants = load_brokers()["mosquitto"].grants(str(path), SourceOptions(broker="plant"))[0]
        holders = [held for one in grants.accounts if (held := grants.rights(one)) is not None]
        used = usage(grants, analysis.observed(views), holders)
    found = [origin for origin, use in used.uses.items() if not use.events]
    assert 3001 <= len(found) < len(used.uses)
    return found


def fill(folder: Path, events: int) -> float:
    """Write a store of a day of traffic; return how long it took."""
    random = np.random.default_rng(1)
    tables = Tables()
    clients = np.array(
        [
            tables.clients.intern(
                Client(
                    "plant",
                    "mqtt",
                    f"dev-{n}",
                    f"user-{n % 3000}",
                    f"10.{n >> 8}.{n & 255}.1",
                    1024 + n,
                    None,
                    None,
                    Identity.VERIFIED,
                )
            )
            for n in range(CLIENTS)
        ]
    )
    names = np.array(
        [
            tables.resources.intern(Resource(ResourceKind.TOPIC, f"plant/area-{n % 97}/dev-{n}/telemetry"))
            for n in range(NAMES)
        ]
    )
    finish_batch(tables, {name: [] for name in COLUMNS})
    began = time.perf_counter()
    with StoreWriter(folder, Signer.generate("bench")) as writer:
        for done in range(0, events, BATCH):
            rows = min(BATCH, events - done)
            client = (random.zipf(1.2, rows) - 1) % CLIENTS
            name = (client * 10 + random.zipf(1.5, rows) - 1) % NAMES
            columns = {
                "time_ns": START + ((done + np.arange(rows)) * (SPAN / events)).astype(np.int64),
                "action": random.choice([4] * 9 + [5], rows),
                "outcome": np.where(random.random(rows) < 0.01, 2, 1),
                "certainty": np.full(rows, 2),
                "client": clients[client],
                "resource": names[name],
                "size": random.integers(20, 200, rows),
                "entropy": random.random(rows) * 8,
                "shape": np.full(rows, 2),
                "qos": np.ones(rows),
                "retain": np.zeros(rows),
                "count": np.ones(rows),
            }
            while writer.waiting > BATCH * 8:
                time.sleep(0.01)
            writer.write(finish_batch(tables, columns))
    assert not writer.dropped
    return time.perf_counter() - began


def ask(folder: Path, question: str, title: str, events: int) -> None:
    # Through a shell, so that the child does not begin with the memory of this process.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", _MEASURED, str(folder), question]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, kib = done.stdout.split()
    rate = events / float(seconds) / 1e6
    print(f"{title:<22}{float(seconds):>8.2f} s{rate:>9.1f} M events/s{int(kib) >> 10:>8} MiB", flush=True)


def main() -> None:
    events = int(os.environ.get("TOPICWARDEN_BENCH_EVENTS", "2000000"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        seconds = fill(folder, events)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{events} events in {seconds:.1f} s with making them up, {size / events:.1f} bytes each on disk")
        for question in QUESTIONS:
            ask(folder, question, question.replace("_", " "), events)
        ask(folder, UNUSED, UNUSED, events)
        for title, sql in STATEMENTS.items():
            ask(folder, sql, title, events)


if __name__ == "__main__":
    main()
