"""How fast the engine judges, beside a plain Python loop with memoised decisions, in one run: read the ratios.

Run `python -m bench.engine`. Traffic: 10 000 clients in 20 roles, 50 000 topics, Zipf-distributed, warm caches, batches
of 65 536 events; then a storm of topics never seen before.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from topicwarden.engine import Engine, Inventory
from topicwarden.engine.publishes import Publishes, decide, judge_names, judge_roles
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
from topicwarden.patterns import FilterIndex
from topicwarden.policy import Policy

CLIENTS, TOPICS, ROLES, BATCH, BATCHES = 10_000, 50_000, 20, 1 << 16, 6
START_NS = 1_780_272_000_000_000_000


def policy() -> Policy:
    roles = {
        f"role{n}": {
            "members": [{"user": f"u{n}-*"}],
            "publish": [
                {"topic": f"plant/{n}/%u/#", "rate": "500/s", "burst": 1000, "max_size": "4KiB"},
                {"topic": f"shared/{n}/+/+", "rate": "100/s"},
                *({"topic": f"plant/{n}/area{k}/+/status"} for k in range(8)),
            ],
        }
        for n in range(ROLES)
    }
    naming = [{"within": {"topic": "plant/#"}, "levels": ["plant", "[0-9]+", "[a-z0-9-]+", "[a-z0-9]+"], "more": True}]
    return Policy.model_validate({"topicwarden": 1, "roles": roles, "naming": naming})


def columns(size: int, clients: object, resources: object, times: object) -> dict[str, npt.NDArray[np.generic]]:
    constant = {
        "action": Action.PUBLISH,
        "outcome": Outcome.ALLOWED,
        "certainty": Certainty.EXACT,
        "size": 200,
        "entropy": np.nan,
        "shape": Shape.JSON,
        "qos": 0,
        "retain": 0,
        "count": 1,
    }
    filled = {name: np.full(size, constant[name], COLUMNS[name]) for name in constant}
    return {**filled, "client": np.asarray(clients), "resource": np.asarray(resources), "time_ns": np.asarray(times)}


def traffic() -> list[EventBatch]:
    """Return batches over one pair of tables; every client publishes on topics of its own, a few on shared ones."""
    random = np.random.default_rng(7)
    tables = Tables()
    users = [f"u{n % ROLES}-{n}" for n in range(CLIENTS)]
    clients = [tables.clients.intern(Client("b", "mqtt", u, u, identity=Identity.VERIFIED)) for u in users]
    each = TOPICS // CLIENTS
    resources = np.array(
        [
            tables.resources.intern(Resource(ResourceKind.TOPIC, f"plant/{n % ROLES}/{users[n]}/m{k}"))
            for n in range(CLIENTS)
            for k in range(each)
        ]
    )
    made = []
    now = START_NS
    for _ in range(BATCHES):
        who = (random.zipf(1.05, BATCH) * 7919) % CLIENTS
        topic = resources[who * each + random.integers(0, each, BATCH)]
        # A few look beyond their own branch.
        strayed = random.random(BATCH) < 0.0005
        topic[strayed] = random.choice(resources, int(strayed.sum()))
        times = now + np.sort(random.integers(0, 1_000_000_000, BATCH))
        now += 1_000_000_000
        made.append(finish_batch(tables, columns(BATCH, np.array(clients)[who], topic, times)))
    return made


class Loop:
    """What one would write first: a dict of decisions, a dict of buckets."""

    def __init__(self, written: Policy) -> None:
        self.rules = [(role, rule) for role in written.roles.values() for rule in role.publish]
        self.index = FilterIndex([rule.topic or "" for _, rule in self.rules])
        self.memo: dict[tuple[int, int], tuple[bool, int, int, bool]] = {}
        self.tat: dict[tuple[int, int], int] = {}

    def decide(self, batch: EventBatch, client: int, topic: int) -> tuple[bool, int, int, bool]:
        who, what = batch.tables.clients.entries[client], batch.tables.resources.entries[topic]
        assert who is not None
        assert what is not None
        numbers = self.index.match(what.name).for_client(who.user, who.client_id)
        found = [self.rules[n][1] for n in numbers if self.rules[n][0].has_member(who)]
        if not found or found[0].rate is None:
            return bool(found), 0, 0, True
        interval = found[0].rate.emission_interval_ns
        return True, interval, interval * (found[0].effective_burst or 1), True

    def decisions(self, batch: EventBatch) -> int:
        memo, bad = self.memo, 0
        for client, topic in zip(batch.client.tolist(), batch.resource.tolist(), strict=True):
            found = memo.get((client, topic))
            if found is None:
                found = memo[client, topic] = self.decide(batch, client, topic)
            if not found[0] or not found[3]:
                bad += 1
        return bad

    def everything(self, batch: EventBatch) -> int:
        memo, tat, bad = self.memo, self.tat, 0
        for client, topic, now, size, outcome in zip(
            batch.client.tolist(), batch.resource.tolist(), batch.time_ns.tolist(), batch.size.tolist(),
            batch.outcome.tolist(), strict=True,
        ):  # fmt: skip
            found = memo.get((client, topic))
            if found is None:
                found = memo[client, topic] = self.decide(batch, client, topic)
            allowed, interval, limit, named = found
            if outcome == Outcome.DENIED:
                continue
            if not allowed or not named or size > 4096:
                bad += 1
            elif interval:
                level = max(tat.get((client, interval), 0), now)
                if level + interval <= now + limit:
                    tat[client, interval] = level + interval
                else:
                    bad += 1
        return bad


def best_of(
    runs: dict[str, Callable[[EventBatch], object]], batches: list[EventBatch], rounds: int = 5
) -> dict[str, float]:
    """Return the best seconds per batch of each contestant, taking turns so that a busy machine hits all alike."""
    best = dict.fromkeys(runs, float("inf"))
    for batch in batches:
        batch.new_clients = batch.new_resources = ()
    now = int(batches[-1].time_ns[-1])
    for _ in range(rounds):
        for name, run in runs.items():
            for batch in batches:
                # The same events a second later: caches stay warm, clocks and meters go on.
                now += 1_000_000_000
                batch.time_ns += now - batch.time_ns[0]
                started = time.perf_counter()
                run(batch)
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def storm(count: int = 1_000_000) -> Iterator[str]:
    """Time a million topics nobody has seen, from one of 10 000 clients, interning included in a row of its own."""
    for title, written in (("without policy", None), ("against the policy", policy())):
        tables = Tables()
        attacker = tables.clients.intern(Client("b", "mqtt", "u1-1", "u1-1", identity=Identity.VERIFIED))
        engine, step = Engine(load_catalogue(), written), 1 << 14
        spent = interning = 0.0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for first in range(0, count, step):
            started = time.perf_counter()
            numbers = [
                tables.resources.intern(Resource(ResourceKind.TOPIC, f"plant/1/x{n}/{n * 7919 % 99991}/data"))
                for n in range(first, first + step)
            ]
            times = START_NS + 1_000_000 * np.arange(first, first + step)
            batch = finish_batch(tables, columns(step, np.full(step, attacker), numbers, times))
            interning += time.perf_counter() - started
            started = time.perf_counter()
            engine.step(batch)
            spent += time.perf_counter() - started
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        yield (
            f"storm of {count:,} new topics, {title}: {spent / count * 1e6:5.1f} us each judged, "
            f"{interning / count * 1e6:4.1f} us interned; {grown:,.0f} MiB more memory, {len(engine.ledger)} findings"
        )


def main() -> None:
    batches = traffic()
    written = policy()
    engine, loop, inventory = Engine(load_catalogue(), written), Loop(written), Inventory()
    for batch in batches:
        engine.step(batch)
        loop.everything(batch)
        inventory.update(batch)
    found = engine.ledger.findings()
    strays = sum(finding.count for finding in found if finding.type.code == "TW201")
    print(f"{len(found)} findings; {strays} publishes outside the policy; {len(loop.memo):,} distinct pairs")

    lane = engine._lane(batches[0].tables)
    classifier = engine._classifier
    assert classifier is not None

    def decisions(batch: EventBatch) -> None:
        publishes = Publishes(
            np.arange(len(batch)), batch.client, batch.resource, decide(classifier, lane, batch.client, batch.resource)
        )
        judge_roles(engine._reporter, classifier, lane, batch, publishes)
        judge_names(engine._reporter, engine._inspector, lane, batch, publishes.rows)

    gc.disable()
    best = best_of(
        {
            "plain loop, decisions": loop.decisions,
            "engine, decisions and naming": decisions,
            "plain loop, with rates": loop.everything,
            "engine, everything": engine.step,
            "inventory": inventory.update,
        },
        batches,
    )
    gc.enable()
    for name, seconds in best.items():
        print(f"{name:30s} {BATCH / seconds / 1e6:8.2f} million events/s")
    loop_decides, loop_all = best["plain loop, decisions"], best["plain loop, with rates"]
    fast, whole = best["engine, decisions and naming"], best["engine, everything"]
    print(
        f"decisions and naming: {loop_decides / fast:.0f}x the loop's decisions, {loop_all / fast:.0f}x the whole loop"
    )
    print(f"everything:           {loop_all / whole:.1f}x the whole loop")
    if "--no-storm" not in sys.argv:
        for line in storm():
            print(line)


if __name__ == "__main__":
    main()
