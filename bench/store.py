"""What keeping events costs: bytes, time beside the engine's, and how fast a store is verified. Read the ratios.

Run `python -m bench store`. Traffic: the demo's (14 clients, a reading each now and then, 100 events/s) and Zipf's
(10 000 clients, 50 000 topics, 10 000 events/s), with the sizes and entropies of real JSON readings. `live`: cut into
segments as they would be in real time, on which the log's size depends. Aims: 12 bytes an event or less once merged;
writing at least as fast as the engine checks what 500 000 events/s need; verifying as fast as the disk reads.
`python -m bench store --large` adds 100 million events (some 1 GB, minutes).
"""

from __future__ import annotations

import json
import math
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.engine import policy, traffic
from topicwarden.engine import Engine
from topicwarden.events import (
    COLUMNS,
    Action,
    Certainty,
    Client,
    EventBatch,
    Identity,
    Outcome,
    Resource,
    ResourceKind,
    Shape,
    Tables,
    finish_batch,
)
from topicwarden.findings import load_catalogue
from topicwarden.store.compaction import Compactor
from topicwarden.store.files import HOUR_NS, row_files
from topicwarden.store.model import Kind
from topicwarden.store.notes import Signer
from topicwarden.store.pending import Pending
from topicwarden.store.verify import THREADS, verify
from topicwarden.store.writer import MAX_PENDING, SEAL_SECONDS, StoreWriter

START_NS = 1_780_272_000_000_000_000
BATCH = 5000
EVENTS = 2_000_000
LIVE = 50_000
LARGE = 100_000_000
ROUNDS = 5
SIGNER = Signer.generate("bench")
_ENTROPY_STEPS = 8191
"""What Mosquitto's plugin rounds entropy to, a bit."""


def readings(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return sizes and entropies of JSON readings."""
    chance = random.Random(5)
    sizes, entropies = [], []
    for _ in range(count):
        reading = {"temperature": round(chance.gauss(21, 2), 2), "humidity": chance.randint(30, 60), "ok": True}
        payload = json.dumps({**reading, "n": chance.randrange(100_000)}).encode()
        shares = [many / len(payload) for many in Counter(payload).values()]
        sizes.append(len(payload))
        entropies.append(round(-sum(p * math.log2(p) for p in shares) * _ENTROPY_STEPS) / _ENTROPY_STEPS)
    return np.array(sizes), np.array(entropies, np.float32)


def batches(
    clients: int, topics: int, rate: float, events: int, *, skewed: bool, size: int = BATCH
) -> Iterator[EventBatch]:
    """Yield traffic of this many events a second, so many a batch."""
    chance = np.random.default_rng(11)
    sizes, entropies = readings(20_000)
    tables = Tables()
    who = np.array(
        [
            tables.clients.intern(Client("plant", "mqtt", f"c{n}", f"u{n}", identity=Identity.VERIFIED))
            for n in range(clients)
        ]
    )
    each = max(1, topics // clients)
    what = np.array(
        [
            tables.resources.intern(Resource(ResourceKind.TOPIC, f"plant/{n % 20}/u{n}/m{k}"))
            for n in range(clients)
            for k in range(each)
        ]
    )
    now = START_NS
    for start in range(0, events, size):
        size = min(size, events - start)
        number = (chance.zipf(1.05, size) * 7919) % clients if skewed else chance.integers(0, clients, size)
        times = now + np.cumsum(chance.exponential(1e9 / rate, size).astype(np.int64))
        now = int(times[-1])
        payload = chance.integers(0, len(sizes), size)
        constant = {
            "action": Action.PUBLISH,
            "outcome": Outcome.ALLOWED,
            "certainty": Certainty.EXACT,
            "shape": Shape.JSON,
            "qos": 1,
            "retain": 0,
            "count": 1,
        }
        columns: dict[str, npt.NDArray[np.generic]] = {
            name: np.full(size, constant[name], COLUMNS[name]) for name in constant
        }
        columns |= {"client": who[number], "resource": what[number * each + chance.integers(0, each, size)]}
        columns |= {"time_ns": times, "size": sizes[payload], "entropy": entropies[payload]}
        yield finish_batch(tables, columns)


def write(folder: Path, made: Iterator[EventBatch], *, live: bool) -> float:
    """Write a store, as fast as it takes events without dropping any; returns the seconds.

    `live`: seal each batch, as if it were half a second's.
    """
    start = time.perf_counter()
    with StoreWriter(folder, SIGNER, seal_seconds=0.001 if live else SEAL_SECONDS) as writer:
        for batch in made:
            while writer.waiting > MAX_PENDING // 4:
                time.sleep(0.001)
            sealed = writer.sealed
            writer.write(batch)
            while live and writer.sealed == sealed:
                time.sleep(0.0002)
    assert not writer.dropped
    return time.perf_counter() - start


def size_of(folder: Path, kinds: Sequence[Kind] = tuple(Kind)) -> int:
    return sum(file.path.stat().st_size for kind in kinds for file in row_files(folder, kind))


def log_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "log").glob("entries-*"))


def merge(folder: Path) -> float:
    start = time.perf_counter()
    compactor = Compactor(folder)
    while compactor.step(START_NS + 10_000 * HOUR_NS):
        pass
    return time.perf_counter() - start


def bytes_an_event(
    name: str, clients: int, topics: int, rate: float, events: int, *, skewed: bool, live: bool = False
) -> None:
    size = round(rate * SEAL_SECONDS) if live else BATCH
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "s"
        seconds = write(folder, batches(clients, topics, rate, events, skewed=skewed, size=size), live=live)
        before = size_of(folder)
        merging = merge(folder)
        events_only = size_of(folder, [Kind.EVENTS])
        started = time.perf_counter()
        report = verify(folder, verifier=SIGNER.verifier)
        verifying = time.perf_counter() - started
        assert report.intact
        cells = [
            f"{name:<22}",
            f"{events / 1e6:>6.2f} M",
            f"{before / events:>7.2f}",
            f"{events_only / events:>7.2f}",
            f"{size_of(folder) / events:>7.2f}",
            f"{log_size(folder) / events:>6.2f}",
            f"{events / seconds / 1e3:>7.0f} k",
            f"{events / merging / 1e3:>7.0f} k",
            f"{report.rows / verifying / 1e6:>6.2f} M",
            f"{report.bytes / verifying / 1e6:>6.0f}",
        ]
        print(" ".join(cells), flush=True)


def timed(made: Sequence[EventBatch], take: Callable[[EventBatch], object], done: Callable[[], bool] = bool) -> float:
    """Return the processor time that batches take, in all threads."""
    start = time.process_time()
    for batch in made:
        take(batch)
    while done is not bool and not done():
        time.sleep(0.001)
    return time.process_time() - start


def has_sealed(writer: StoreWriter, rows: int) -> bool:
    return writer.sealed >= rows


def beside_the_engine() -> None:
    """Time taking rows (what the collectors' thread pays), sealing them, and checking them, in turn."""
    made = traffic()
    events = sum(map(len, made))
    checked, taken, stored = [], [], []
    now = int(made[-1].time_ns[-1])
    with tempfile.TemporaryDirectory() as place:
        engine, pending = Engine(load_catalogue(), policy()), Pending(b"salt" * 4)
        with StoreWriter(Path(place) / "warm", SIGNER) as writer:
            for batch in made:
                engine.step(batch)
                pending.add(batch)
                writer.write(batch)
                batch.new_clients = batch.new_resources = ()
            sealed = events
            for _ in range(ROUNDS):
                for batch in made:
                    # The same events a second later: caches stay warm, clocks and meters go on.
                    now += 1_000_000_000
                    batch.time_ns += now - batch.time_ns[0]
                checked.append(timed(made, engine.step))
                taken.append(timed(made, pending.add))
                pending.take()
                while writer.waiting or writer.sealed < sealed:
                    time.sleep(0.001)
                # Whoever was seen in an hour is not written again: from now on every row is an event.
                sealed = writer.sealed + events
                stored.append(timed(made, writer.write, partial(has_sealed, writer, sealed)))
    check, take, store = (events / min(times) for times in (checked, taken, stored))
    print(
        f"of one core: the engine checks {check / 1e6:.2f} M events/s; the store takes {take / 1e6:.2f} M events/s",
        end="",
    )
    print(f" from whoever hands them over (x {take / check:.1f} of the engine's rate)")
    print(f"  and takes and seals {store / 1e6:.2f} M events/s (x {store / check:.2f}; x {store / 5e5:.1f} of 500 000)")


def main() -> None:
    """Print the figures."""
    large = "--large" in sys.argv
    print(f"{'bytes an event':>46}{'events/s':>29}{f'verify, {THREADS} threads':>23}")
    print("traffic                  events  sealed  merged with names  log  written   merged   rows/s   MB/s")
    bytes_an_event("demo, 100/s, live", 14, 28, 100, LIVE, skewed=False, live=True)
    bytes_an_event("demo, 100/s", 14, 28, 100, EVENTS, skewed=False)
    bytes_an_event("Zipf, 10 000/s, live", 10_000, 50_000, 10_000, 20 * LIVE, skewed=True, live=True)
    bytes_an_event("Zipf, 10 000/s", 10_000, 50_000, 10_000, EVENTS, skewed=True)
    if large:
        bytes_an_event("Zipf, 10 000/s", 10_000, 50_000, 10_000, LARGE, skewed=True)
    beside_the_engine()
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
