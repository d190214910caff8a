"""Joins against a world in which it is known which process made which connection."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.events import Client, Dialled, Endpoint, Executed, Exited, Process
from topicwarden.hosts.join import BrokerPlace, Joiner, Sureness
from topicwarden.hosts.join_rules import SETUP_NS
from topicwarden.hosts.processes import ProcessTable

SECOND = 1_000_000_000
SKEW = 2 * SECOND
QUIET = 2 * SKEW + SETUP_NS + 1
"""The least time between two uses of the same ends by different processes, where not both connections are told."""
SERVERS = {
    "plant": Endpoint("10.0.0.1", 1883),
    "office": Endpoint("10.0.0.1", 8883),
    "yard": Endpoint("10.0.9.9", 1883),
}
PLACES = {
    "plant": BrokerPlace("gateway", ["10.0.0.1"], [1883]),
    "office": BrokerPlace("gateway", ["10.0.0.1"], [8883]),
    "yard": BrokerPlace(None, ["10.0.9.9"], [1883]),
}
HOSTS = {"gateway": "10.0.0.1", "one": "10.0.1.1", "two": "10.0.1.2", "three": "10.0.1.3"}


@dataclass
class Made:
    """A connection as it was, in true time."""

    number: int
    host: str
    pid: int
    local: Endpoint
    seen: Endpoint
    """The near end as the broker sees it."""
    broker: str
    remote: Endpoint
    begin_ns: int
    session_ns: int
    end_ns: int
    client_id: str
    acts: list[int]
    dial_told: bool = True
    begin_told: bool = True

    @property
    def client(self) -> Client:
        return Client(self.broker, "mqtt", self.client_id, address=self.seen.address, port=self.seen.port)

    @property
    def process(self) -> Process:
        return Process(self.host, self.pid, "/usr/bin/mosquitto_pub", ("mosquitto_pub", f"run-{self.number}"))


@dataclass
class World:
    """Connections, and how far each clock is off."""

    made: list[Made] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)


def make_world(source: random.Random, *, distinct: bool, losses: float, places: bool, number: int) -> World:
    """Make a world that keeps what the joiner rests on, and nothing more."""
    world = World()
    for name in (*HOSTS, *SERVERS, "sensor"):
        world.offsets[name] = source.randint(-SKEW // 2, SKEW // 2)
    free: dict[object, int] = {}
    last: dict[object, Made] = {}
    for index in range(number):
        host, broker = source.choice(list(HOSTS)), source.choice(list(SERVERS))
        remote, address = SERVERS[broker], HOSTS[host]
        port = 40_000 + (index if distinct else source.randrange(3))
        if host == "gateway" and broker != "yard" and source.random() < 0.7:
            remote, address = Endpoint("127.0.0.1", remote.port), "127.0.0.1"
        elif not distinct and source.random() < 0.25:
            # Nobody watches the broker it speaks to.
            broker, remote = "", Endpoint(source.choice(["127.0.0.1", "10.0.5.5"]), 1883)
            address = "127.0.0.1" if remote.address == "127.0.0.1" else address
        local = seen = Endpoint(address, port)
        if not distinct and broker and host != "gateway" and source.random() < 0.2:
            local = Endpoint("172.17.0.2", port)  # a container behind its host's address, or behind a gateway's
            seen = Endpoint(source.choice([HOSTS[host], "10.0.7.7"]), port)
        whose = host if address == "127.0.0.1" else ""
        # Of brokers of which nothing is known, one local port does not lead to two at once.
        held = (whose, seen, remote if places else None)
        held_too = (host, local, remote if places else None)
        pid = source.randint(1, 4)
        since = max(free.get(held, 0), free.get(held_too, 0))
        before = last.get(held)
        dial_told, begin_told = source.random() >= losses, source.random() >= losses
        # Of a connection whose address is replaced nobody tells the end that the broker sees.
        dial_told &= local == seen
        if before is not None and not dial_told:
            begin_told = True  # of a later connection between the same ends something is told
        both = before is not None and before.dial_told and dial_told
        begin = max(since + (1 if both and source.random() < 0.5 else QUIET), source.randrange(60) * SECOND)
        begin += source.randrange(SECOND)
        session = begin + source.choice([0, 1_000_000, source.randint(0, SETUP_NS)])
        end = session + source.choice([1_000_000, SECOND, source.randrange(100) * SECOND])
        acts = sorted(source.randint(session, end) for _ in range(source.randint(1, 3)))
        client_id = source.choice(["", "probe", f"probe-{index}"])
        # A process lives as long as its connection; another with its number comes later.
        while free.get((host, pid), -1) >= begin:
            pid += 1
        one = Made(index, host, pid, local, seen, broker, remote, begin, session, end, client_id, acts)
        one.dial_told, one.begin_told = dial_told, begin_told
        free[held] = free[held_too] = end
        free[host, pid] = end + 300_000_000
        last[held] = one
        world.made.append(one)
    return world


def tell(world: World, source: random.Random, joiner: Joiner, table: ProcessTable, losses: float) -> list[Dialled]:
    """Tell the joiner what is not lost of the world, out of order; return the connections told, by their makers."""
    told: list[Dialled] = []
    calls: list[Callable[[], object]] = []
    exit_lost: set[tuple[str, int]] = set()
    for one in sorted(world.made, key=lambda made: made.begin_ns):
        host = world.offsets[one.host]
        # The table takes one process for another where neither the exit of the first nor the next's exec is told.
        if (one.host, one.pid) in exit_lost or source.random() >= losses:
            calls.append(partial(table.executed, Executed(one.begin_ns - 1 + host, one.process)))
        exit_lost.discard((one.host, one.pid))
        if source.random() >= losses:
            calls.append(partial(table.exited, Exited(one.end_ns + host, one.host, one.pid)))
        else:
            exit_lost.add((one.host, one.pid))
        event = Dialled(
            one.begin_ns + host,
            one.host,
            one.remote,
            one.local,
            one.pid,
            duration_ns=one.end_ns - one.begin_ns if source.random() < 0.5 else None,
            established=source.choice([None, True]),
        )
        if not one.dial_told and one.local == one.seen:
            event = replace(event, local=None) if source.random() < 0.5 else replace(event, pid=None)
        if one.dial_told or source.random() < 0.5:
            calls.append(partial(joiner.dialled, event))
        if source.random() < 0.2:
            time = one.begin_ns + world.offsets["sensor"]
            calls.append(partial(joiner.dialled, Dialled(time, one.local.address, one.remote, one.local)))
        told.append(event)
        if one.broker:
            broker, client = world.offsets[one.broker], one.client
            if one.begin_told:
                begin = one.session_ns + broker
                calls.append(partial(joiner.session, client, begin, begin, began=True))
            calls += [
                partial(joiner.session, client, act + broker, act + broker)
                for act in one.acts
                if source.random() >= losses
            ]
    source.shuffle(calls)
    for call in calls:
        call()
    return told


def judge(seed: int, *, losses: float, places: bool, number: int) -> int:
    """Compare all that is answered for a world with the truth; return how many joins were exact."""
    source = random.Random(seed)
    world = make_world(source, distinct=False, losses=losses, places=places, number=number)
    table = ProcessTable()
    joiner = Joiner(table, skew_ns=SKEW, brokers=PLACES if places else {"plant": BrokerPlace("gateway")})
    dials = tell(world, source, joiner, table, losses)
    exact = 0
    for one in world.made:
        if not one.broker:
            continue
        for act in one.acts:
            found = joiner.process_of(one.client, act + world.offsets[one.broker])
            if found is None or found.sureness is not Sureness.EXACT:
                continue
            exact += 1
            assert (found.process.host, found.process.pid) == (one.host, one.pid), (one, found)
            assert found.process.arguments in ((), one.process.arguments), (one, found)
    ordered = sorted(world.made, key=lambda made: made.begin_ns)
    for one, event in zip(ordered, dials, strict=True):
        join = joiner.session_of(event)
        if join is None or join.sureness is not Sureness.EXACT:
            continue
        assert join.session.client.broker == one.broker, (one, join)
        seen = join.session.first_ns - world.offsets[one.broker]
        assert one.session_ns <= seen <= one.end_ns, (one, join)
    return exact


@given(st.integers(0, 1 << 60), st.sampled_from([0.0, 0.1, 0.4, 0.7]), st.booleans(), st.integers(2, 14))
@settings(max_examples=400, deadline=None)
def test_an_exact_join_is_never_wrong_whatever_is_lost_or_late(
    seed: int, losses: float, places: bool, number: int
) -> None:
    judge(seed, losses=losses, places=places, number=number)


def test_most_joins_are_exact_where_little_is_lost() -> None:
    exact = sum(judge(seed, losses=0.05, places=True, number=8) for seed in range(50))
    assert exact > 300, exact


@given(st.integers(0, 1 << 60), st.booleans(), st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_every_session_is_joined_exactly_when_nothing_is_lost_and_no_port_is_used_twice(
    seed: int, places: bool, number: int
) -> None:
    source = random.Random(seed)
    world = make_world(source, distinct=True, losses=0.0, places=places, number=number)
    table = ProcessTable()
    hosts = {name: BrokerPlace(place.host) for name, place in PLACES.items()}
    joiner = Joiner(table, skew_ns=SKEW, brokers=PLACES if places else hosts)
    dials = tell(world, source, joiner, table, 0.0)
    for one, event in zip(sorted(world.made, key=lambda made: made.begin_ns), dials, strict=True):
        for act in one.acts:
            found = joiner.process_of(one.client, act + world.offsets[one.broker])
            assert found is not None
            assert (found.sureness, found.process, found.candidates) == (Sureness.EXACT, one.process, 1), found.reason
        join = joiner.session_of(event)
        assert join is not None
        assert (join.sureness, join.session.client) == (Sureness.EXACT, one.client), join.reason
    assert len(list(joiner.sessions())) == number
    assert joiner.dropped == 0
