"""What scoring each publish costs beside the whole check, in one run: read the ratios.

Run `python -m bench.anomaly`. Traffic and policy are those of `bench.engine`: 10 000 clients, 50 000 topics, batches of
65 536 events, warm caches. The baseline has 160 topics with levels, sizes, shapes, entropies and rates.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import numpy as np

from bench.engine import BATCH, ROLES, START_NS, best_of, columns, policy, traffic
from topicwarden.engine import Engine
from topicwarden.events import Client, EventBatch, Identity, Resource, ResourceKind, Shape, Tables, finish_batch
from topicwarden.findings import load_catalogue
from topicwarden.policy import Baseline


def baseline() -> Baseline:
    topics = [
        {
            "topic": f"plant/{n}/+/m{k}",
            "levels": [{"shapes": ["a9-9"], "length": {"low": 4, "high": 8}}],
            "size": {"low": 20, "high": 300},
            "shapes": ["json"],
            "entropy": {"low": 3.5, "high": 4.9},
        }
        for n in range(ROLES)
        for k in range(8)
    ]
    rates = [{"topic": topic["topic"], "typical": 5, "peak": 2000} for topic in topics]
    learnt = {"since": "2026-05-01T00:00:00Z", "until": "2026-05-15T00:00:00Z", "events": 9, "covered": 0.98}
    return Baseline.model_validate({"topicwarden_baseline": 1, "learnt": learnt, "topics": topics, "rates": rates})


def measured(batches: list[EventBatch]) -> None:
    """Give every publish an entropy, so that no part of a score is spared."""
    for batch in batches:
        batch.entropy = np.full(len(batch), 4.2, np.float32)


def flood(usual: Baseline) -> Iterator[str]:
    """Time publishes that are all unusual in all parts: one client, base64, a word of command and control."""
    tables = Tables()
    attacker = tables.clients.intern(Client("b", "mqtt", "u1-1", "u1-1", identity=Identity.VERIFIED))
    topics = [tables.resources.intern(Resource(ResourceKind.TOPIC, f"c2/beacon/{n}")) for n in range(100)]
    made = []
    for number in range(4):
        times = START_NS + number * 1_000_000_000 + np.sort(np.random.default_rng(1).integers(0, 1_000_000_000, BATCH))
        filled = columns(BATCH, np.full(BATCH, attacker), np.resize(topics, BATCH), times)
        filled["shape"][:] = Shape.BASE64
        made.append(finish_batch(tables, filled))
    plain, scoring = Engine(load_catalogue(), None), Engine(load_catalogue(), None, baseline=usual)
    for batch in made:
        plain.step(batch)
        scoring.step(batch)
    best = best_of({"plain": plain.step, "scoring": scoring.step}, made)
    speed, ratio = BATCH / best["scoring"] / 1e6, best["scoring"] / best["plain"]
    yield f"a flood, every publish a finding: {speed:.2f} million events/s, {ratio:.1f}x a check that finds nothing"


def storm(usual: Baseline, count: int = 200_000) -> Iterator[str]:
    """Time names nobody has seen, each of four levels of which two are new."""
    for title, engine in (
        ("without scores", Engine(load_catalogue(), None)),
        ("with scores", Engine(load_catalogue(), None, baseline=usual)),
    ):
        tables = Tables()
        attacker = tables.clients.intern(Client("b", "mqtt", "u1-1", "u1-1", identity=Identity.VERIFIED))
        spent, step = 0.0, 1 << 14
        for first in range(0, count, step):
            names = [f"plant/1/x{n}/{n * 7919 % 99991}/data" for n in range(first, first + step)]
            numbers = [tables.resources.intern(Resource(ResourceKind.TOPIC, name)) for name in names]
            times = START_NS + 1_000_000 * np.arange(first, first + step)
            batch = finish_batch(tables, columns(step, np.full(step, attacker), numbers, times))
            started = time.perf_counter()
            engine.step(batch)
            spent += time.perf_counter() - started
        yield f"storm of new topics, {title}: {spent / count * 1e6:5.1f} us each"


def main() -> None:
    batches, written, usual = traffic(), policy(), baseline()
    measured(batches)
    engines = {
        "check": Engine(load_catalogue(), written),
        "check and scores, no baseline": Engine(load_catalogue(), written, scoring=True),
        "check and scores": Engine(load_catalogue(), written, baseline=usual),
    }
    for batch in batches:
        for engine in engines.values():
            engine.step(batch)
    gc.disable()
    best = best_of({name: engine.step for name, engine in engines.items()}, batches)
    gc.enable()
    for name, seconds in best.items():
        print(
            f"{name:30s} {BATCH / seconds / 1e6:8.2f} million events/s, {seconds / best['check']:.2f}x the check's time"
        )
    found = [finding for finding in engines["check and scores"].ledger.findings() if finding.type.code == "TW420"]
    print(f"{sum(finding.count for finding in found)} publishes found unusual")
    for line in (*flood(usual), *storm(usual)):
        print(line)


if __name__ == "__main__":
    main()
