"""The rules of `topicwarden.hosts.join`, applied to everything that was told, one by one, against the joiner."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.events import Client, Dialled, Endpoint, Executed, Exited, Process
from topicwarden.hosts.join import BrokerPlace, Joiner, Sureness
from topicwarden.hosts.processes import ProcessTable

SECOND = 1_000_000_000
SKEW = 2 * SECOND
SETUP = 5 * SECOND
HOUR = 3600 * SECOND
SOME_HOSTS = ("gateway", "one", "two")
PLACES = {
    "plant": BrokerPlace("gateway", ["10.0.0.1", "127.0.0.1"], [1883]),
    "yard": BrokerPlace(None, ["10.0.0.9"]),
    "nowhere": BrokerPlace(),
}
GIVEN = {"two": ["10.0.0.8"]}
LOOPS = ("127.0.0.1", "0.0.0.0")
USUAL = (1883, 8883)


@dataclass(frozen=True)
class Told:
    """All that was told, to be looked through for every question."""

    dials: list[Dialled]
    begun: list[tuple[Client, int]]
    seen: list[tuple[Client, int]]
    executed: list[Executed]
    exited: list[Exited]


class Oracle:
    """The rules as they read."""

    def __init__(self, told: Told) -> None:
        self.told = told

    def process(self, dial: Dialled) -> Process | None:
        if dial.pid is None:
            return None
        for time in (dial.time_ns, dial.time_ns + 1_000_000, dial.time_ns - 1_000_000):
            mine = [one for one in self.told.executed if (one.process.host, one.process.pid) == (dial.host, dial.pid)]
            latest = max((one for one in mine if one.time_ns <= time), key=lambda one: one.time_ns, default=None)
            if latest is None:
                continue
            if any(latest.time_ns <= end < time for end in self.ends(dial)):
                continue
            return latest.process
        return Process(dial.host, dial.pid)

    def ends(self, dial: Dialled) -> list[int]:
        return [one.time_ns for one in self.told.exited if (one.host, one.pid) == (dial.host, dial.pid)]

    def process_end(self, dial: Dialled) -> int | None:
        mine = [one for one in self.told.executed if (one.process.host, one.process.pid) == (dial.host, dial.pid)]
        latest = max((one.time_ns for one in mine if one.time_ns <= dial.time_ns), default=None)
        if latest is None or any(latest <= end < dial.time_ns for end in self.ends(dial)):
            return None
        return min((end for end in self.ends(dial) if end >= latest), default=None)

    def owners(self, address: str, time: int) -> set[str]:
        found = {host for host, addresses in GIVEN.items() if address in addresses}
        for host in SOME_HOSTS:
            times = [
                one.time_ns
                for one in self.told.dials
                if one.host == host and one.local is not None and one.local.address == address
            ]
            if address not in LOOPS and times and min(times) - HOUR <= time <= max(times) + HOUR:
                found.add(host)
        return found

    def contradicted(self, broker: str, dial: Dialled, peer: str) -> bool:
        if dial.established is False or dial.transport != "tcp":
            return True
        if peer in LOOPS and broker == "plant" and dial.host != "gateway":
            return True
        if broker == "plant" and dial.remote.port != 1883:
            return True
        stays = dial.remote.address in LOOPS or (dial.local is not None and dial.local.address == dial.remote.address)
        if broker == "plant" and stays:
            return dial.host != "gateway"
        return broker == "yard" and dial.remote.address != "10.0.0.9" and dial.remote.address not in LOOPS

    def confirmed(self, broker: str, dial: Dialled) -> bool:
        return broker != "nowhere" or dial.remote.port in USUAL

    def near(self, begin: int, dial: Dialled) -> bool:
        ended = dial.duration_ns is not None and dial.time_ns + dial.duration_ns + SKEW < begin
        return -SKEW <= begin - dial.time_ns <= SKEW + SETUP and not ended

    def asked(self, client: Client, time: int) -> tuple[int, bool]:
        def same_place(other: Client) -> bool:
            # Without a port, who it is tells sessions apart.
            known = client.port is not None or other.client_id == client.client_id
            return known and (other.broker, other.address, other.port) == (client.broker, client.address, client.port)

        def compatible(other: Client) -> bool:
            return not client.client_id or not other.client_id or client.client_id == other.client_id

        begun = [(when, other) for other, when in self.told.begun if same_place(other) and when <= time]
        if begun:
            latest = max(when for when, _ in begun)
            fits = any(compatible(other) for when, other in begun if when == latest)
            return (latest, True) if fits else (time, False)
        seen = [(when, other) for other, when in self.told.seen if same_place(other)]
        firsts: dict[Client, int] = {}
        for when, other in seen:
            firsts[other] = min(when, firsts.get(other, when))
        begin = min((first for other, first in firsts.items() if compatible(other) and first <= time), default=time)
        if any(begin < first <= time and not compatible(other) for other, first in firsts.items()):
            begin = time
        return begin, False

    def answer(self, client: Client, time: int) -> tuple[str, str, set[Process]] | None:
        """Return how, how surely, and which processes it could be."""
        assert client.address is not None
        begin, told = self.asked(client, time)
        peer = None if client.port is None else Endpoint(client.address, client.port)
        fitting = [one for one in self.told.dials if not self.contradicted(client.broker, one, client.address)]
        here = [one for one in fitting if one.local is not None and one.local == peer]
        connection = self.connection(client, here, begin, told, time)
        if connection is not None and any(one.pid is not None for one in connection[0]):
            found = {process for one in connection[0] if (process := self.process(one)) is not None}
            return "connection", "exact" if connection[1] else "weak", found
        remotes = None if connection is None else {one.remote for one in connection[0]}
        near = [one for one in fitting if self.near(begin, one) and self.confirmed(client.broker, one)]
        for how, pool in (
            ("translated", [one for one in near if self.is_translated(client, one)]),
            ("unlocated", [one for one in near if self.is_unlocated(client, one, begin, remotes)]),
            ("same host", [one for one in near if self.is_on_same_host(client, one, begin)]),
        ):
            found = {process for one in pool if (process := self.process(one)) is not None}
            if found:
                return how, "weak", found
        return None

    def connection(
        self, client: Client, here: list[Dialled], begin: int, told: bool, time: int
    ) -> tuple[list[Dialled], bool] | None:
        near = [one for one in here if self.near(begin, one)]
        since = [one for one in here if begin - SKEW - SETUP <= one.time_ns <= max(begin, time) + SKEW]
        later = [one for one in since if one.time_ns > begin + SKEW]
        if later:
            processes = {self.process(one) for one in since}
            if not near or len(processes) > 1 or None in processes:
                begin, told, near = time, False, []
        pool = near
        if not (told and near):
            pool = []
            before = [one for one in here if one.time_ns <= begin + SKEW]
            for one in before:
                if one.duration_ns is not None and one.time_ns + one.duration_ns + SKEW < begin:
                    continue
                end = self.process_end(one)
                if not self.near(begin, one) and end is not None and end + SKEW < begin:
                    continue
                if any(
                    other.remote == one.remote and one.time_ns + 2 * SKEW < other.time_ns <= begin - SKEW
                    for other in before
                ):
                    continue
                pool.append(one)
        if not pool:
            return None
        known = [one for one in pool if one.pid is not None]
        nearest = min(
            known or pool,
            key=lambda one: (
                abs(begin - one.time_ns),
                one.time_ns,
                one.host,
                one.pid or -1,
                one.remote.address,
                one.remote.port,
            ),
        )
        exact = len({self.process(one) for one in known}) <= 1
        for one in pool:
            others = known or [nearest]
            exact &= one.pid is not None or any(self.twins(one, other) for other in others)
        held = (
            nearest.duration_ns is not None
            and nearest.time_ns + SKEW <= begin <= nearest.time_ns + nearest.duration_ns - SKEW
        )
        exact &= self.near(begin, nearest) or held
        if not (client.broker == "plant" and nearest.host == "gateway"):
            assert nearest.local is not None
            exact &= nearest.remote.address not in LOOPS
            exact &= nearest.local.address != nearest.remote.address
            exact &= client.address not in LOOPS
            assert client.address is not None
            hosts = {one.host for one in pool if one.host != client.address}
            owners = self.owners(client.address, nearest.time_ns)
            exact &= len(owners) <= 1 if not hosts else not (len(hosts | owners) > 1 and owners)
        return pool, exact

    def twins(self, one: Dialled, other: Dialled) -> bool:
        apart = 200_000_000 if one.host == other.host else SKEW
        return one.remote == other.remote and abs(one.time_ns - other.time_ns) <= apart

    def is_elsewhere(self, client: Client, dial: Dialled) -> bool:
        assert dial.local is not None
        if dial.local.address in LOOPS or dial.remote.address in LOOPS:
            return False
        own = (client.broker, dial.local.address, dial.local.port)

        def at_own(told: list[tuple[Client, int]]) -> list[int]:
            return [when for other, when in told if (other.broker, other.address, other.port) == own]

        begun = at_own(self.told.begun)
        firsts = {
            other: min(at_own([one for one in self.told.seen if one[0] == other]))
            for other, _ in self.told.seen
            if (other.broker, other.address, other.port) == own
        }
        times = begun + [when for when in firsts.values() if not begun or when < min(begun)]
        return not any(-SKEW <= when - dial.time_ns <= SKEW + SETUP for when in times)

    def is_translated(self, client: Client, dial: Dialled) -> bool:
        if dial.local is None or client.port is None or client.address in LOOPS or dial.local.port != client.port:
            return False
        assert client.address is not None
        owners = self.owners(client.address, dial.time_ns)
        fits = not owners or dial.host in owners
        return dial.local.address != client.address and fits and self.is_elsewhere(client, dial)

    def is_unlocated(self, client: Client, dial: Dialled, begin: int, remotes: set[Endpoint] | None) -> bool:
        assert client.address is not None
        if dial.local is not None or (remotes is not None and dial.remote not in remotes):
            return False
        looped = client.address in LOOPS
        if (dial.remote.address in LOOPS) != looped:
            return False
        if not looped and dial.host not in self.owners(client.address, begin):
            return False
        own = Endpoint(client.address, client.port or 0)
        return not any(
            (one.host, one.pid, one.remote) == (dial.host, dial.pid, dial.remote)
            and one.local is not None
            and one.local != own
            and abs(one.time_ns - dial.time_ns) <= 200_000_000
            for one in self.told.dials
        )

    def is_on_same_host(self, client: Client, dial: Dialled, begin: int) -> bool:
        assert client.address is not None
        if dial.local is None or dial.host not in self.owners(client.address, begin):
            return False
        if dial.local.port == client.port or (dial.local.address == client.address) != (client.port is None):
            return False
        return self.is_elsewhere(client, dial)


def make(source: random.Random, number: int) -> Told:
    """Make up what is told, with little variety, so that things meet."""
    told = Told([], [], [], [], [])
    hosts = {"gateway": ["10.0.0.1", "127.0.0.1"], "one": ["10.0.0.7", "172.17.0.2", "127.0.0.1"], "two": ["10.0.0.8"]}
    span = source.choice([12, 60])

    def moment() -> int:
        return source.randrange(span * 4) * SECOND // 4 + source.choice([0, 500_000, 100_000_000])

    used: set[tuple[str, int, int]] = set()
    for _ in range(number):
        host = source.choice(SOME_HOSTS)
        address, time, pid = source.choice(hosts[host]), moment(), source.randint(1, 3)
        remote = "127.0.0.1" if address == "127.0.0.1" else source.choice(["10.0.0.1", "10.0.0.9", "0.0.0.0"])
        local = Endpoint(address, source.randint(1, 2))
        client = Client(
            source.choice(list(PLACES)),
            "mqtt",
            source.choice(["", "a", "b"]),
            address=address if source.random() < 0.8 else source.choice(["10.0.0.7", "10.7.7.7"]),
            port=local.port if source.random() < 0.9 else source.choice([1, 2, None]),
        )
        if source.random() < 0.85:
            told.dials.append(
                Dialled(
                    time,
                    host if source.random() < 0.9 else address,
                    Endpoint(remote, source.choice([1883, 1883, 8883, 999])),
                    local if source.random() < 0.75 else None,
                    pid if source.random() < 0.85 else None,
                    established=source.choice([None, None, True, False]),
                    duration_ns=source.choice([None, None, SECOND, 30 * SECOND]),
                )
            )
        when = time + source.choice([0, SECOND, -SECOND, 4 * SECOND, 20 * SECOND])
        if source.random() < 0.6:
            told.begun.append((client, when))
        if source.random() < 0.6:
            told.seen.append((client, when + source.choice([0, SECOND, 9 * SECOND])))
        for starts in (True, False):
            at = time + source.choice([-SECOND, 0, SECOND])
            if source.random() < 0.5 and (host, pid, at) not in used:
                used.add((host, pid, at))
                if starts:
                    told.executed.append(Executed(at, Process(host, pid, arguments=(f"run-{len(used)}",))))
                else:
                    told.exited.append(Exited(at, host, pid))
    return told


def tell(told: Told, source: random.Random) -> tuple[Joiner, ProcessTable]:
    """Tell a new joiner everything in an order of its own."""
    table = ProcessTable()
    joiner = Joiner(table, skew_ns=SKEW, brokers=PLACES, addresses=GIVEN)
    calls: list[Callable[[], object]] = [partial(joiner.dialled, one) for one in told.dials]
    calls += [partial(joiner.session, client, when, when, began=True) for client, when in told.begun]
    calls += [partial(joiner.session, client, when, when) for client, when in told.seen]
    calls += [partial(table.executed, one) for one in told.executed]
    calls += [partial(table.exited, one) for one in told.exited]
    source.shuffle(calls)
    for call in calls:
        call()
        if source.random() < 0.1 and told.begun:
            joiner.process_of(*source.choice(told.begun))
    return joiner, table


def questions(told: Told, source: random.Random) -> list[tuple[Client, int]]:
    asked = [*told.begun, *told.seen]
    return asked + [(client, when + source.choice([0, SECOND, 5 * SECOND, 40 * SECOND])) for client, when in asked]


SEEDS = st.integers(0, 1 << 60)
NUMBERS = st.integers(1, 12)


@given(SEEDS, NUMBERS)
@settings(max_examples=400, deadline=None)
def test_answers_are_those_of_the_rules_as_they_read(seed: int, number: int) -> None:
    source = random.Random(seed)
    told = make(source, number)
    joiner, _ = tell(told, source)
    oracle = Oracle(told)
    for client, time in questions(told, source):
        found, expected = joiner.process_of(client, time), oracle.answer(client, time)
        assert (found is None) == (expected is None), (client, time, found, expected)
        if found is None or expected is None:
            continue
        how, sureness, processes = expected
        assert (found.sureness, found.candidates) == (sureness, len(processes)), (client, time, found, expected)
        assert found.process in processes
        assert ("same host" in found.reason) == (how in ("unlocated", "same host"))


@given(SEEDS, NUMBERS)
@settings(max_examples=250, deadline=None)
def test_the_order_in_which_things_are_told_does_not_matter_in_the_end(seed: int, number: int) -> None:
    source = random.Random(seed)
    told = make(source, number)
    (one, _), (other, _) = tell(told, source), tell(told, source)
    for client, time in questions(told, source):
        assert one.process_of(client, time) == other.process_of(client, time)
    # Only the first and last time of what a client did is kept: who it was, known best, and its last time may differ.
    for event in told.dials:
        found, again = one.session_of(event), other.session_of(event)
        assert (found and (found.session.client.broker, found.session.first_ns, found.sureness, found.reason)) == (
            again and (again.session.client.broker, again.session.first_ns, again.sureness, again.reason)
        )
    kept, again_kept = (sorted((s.first_ns, s.client.broker) for s in joiner.sessions()) for joiner in (one, other))
    assert kept == again_kept


@given(SEEDS, NUMBERS)
@settings(max_examples=250, deadline=None)
def test_both_directions_agree_on_what_is_exact(seed: int, number: int) -> None:
    source = random.Random(seed)
    told = make(source, number)
    joiner, _ = tell(told, source)
    for event in told.dials:
        join = joiner.session_of(event)
        if join is None or join.sureness is not Sureness.EXACT:
            continue
        back = joiner.process_of(join.session.client, join.session.first_ns)
        if event.pid is not None:
            assert back is not None
            assert (back.sureness, back.process.pid, back.remote) == (Sureness.EXACT, event.pid, event.remote)
