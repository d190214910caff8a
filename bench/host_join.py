"""What joining costs: each call as a multiple of one look-up and one assignment in a dict of the same keys.

    ./run bench host_join   (or: .venv/bin/python -m bench.host_join)

A fleet of clients connects, each from a port of its own; hosts tell of every exec, connection and exit, the broker of
every session, prolongs each several times, and then the process behind each is asked for. Each round runs all of it
once, by turns with the dict; printed are medians of the rounds, and calls a second against what is needed: 100 000
programs and connections a minute, and a broker with 100 000 clients of which each is heard of every second.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

from topicwarden.events import Client, Dialled, Endpoint, Executed, Exited, Process
from topicwarden.hosts.join import BrokerPlace, Joiner, Sureness
from topicwarden.hosts.processes import ProcessTable

ROUNDS = 5
CLIENTS = 20_000
SECOND = 1_000_000_000
BROKER = Endpoint("10.255.0.1", 1883)
NEEDED = {"executed": 100_000 / 60, "exited": 100_000 / 60, "dialled": 100_000 / 60, "session (prolonged)": 100_000.0}


def a_call(calls: Sequence[Callable[[], object]]) -> float:
    """Return the seconds one of the calls takes."""
    start = time.perf_counter()
    for call in calls:
        call()
    return (time.perf_counter() - start) / len(calls)


def store(known: dict[object, object], key: object, value: object) -> None:
    """Do what any table must at least do."""
    known.get(key)
    known[key] = value


def one_round() -> dict[str, float]:
    """Return the seconds of each kind of call."""
    table = ProcessTable()
    joiner = Joiner(table, skew_ns=2 * SECOND, brokers={"plant": BrokerPlace(None, [BROKER.address], [BROKER.port])})
    ends = [Endpoint(f"10.0.{number % 200}.{number % 250 + 1}", 1024 + number) for number in range(CLIENTS)]
    hosts = [f"host-{number % 1000}" for number in range(CLIENTS)]
    times = [number * SECOND // 50 for number in range(CLIENTS)]
    clients = [
        Client("plant", "mqtt", f"c-{number}", address=end.address, port=end.port) for number, end in enumerate(ends)
    ]
    told = list(zip(hosts, ends, times, clients, strict=True))
    events = [
        (
            Executed(when, Process(host, 100 + end.port, "/usr/bin/mosquitto_pub", ("mosquitto_pub",), parent_pid=1)),
            Dialled(when, host, BROKER, end, 100 + end.port),
            Exited(when + SECOND, host, 100 + end.port),
        )
        for host, end, when, _ in told
    ]
    known: dict[object, object] = {}
    seconds = {
        "dict": a_call([partial(store, known, (end.address, end.port), end) for end in ends]),
        "executed": a_call([partial(table.executed, event[0]) for event in events]),
        "dialled": a_call([partial(joiner.dialled, event[1]) for event in events]),
        "session (new)": a_call([partial(joiner.session, one, when, when, began=True) for _, _, when, one in told]),
        "session (prolonged)": a_call([partial(joiner.session, one, when, when + SECOND) for _, _, when, one in told]),
        "process_of": a_call([partial(joiner.process_of, one, when) for _, _, when, one in told]),
        "session_of": a_call([partial(joiner.session_of, event[1]) for event in events]),
        "exited": a_call([partial(table.exited, event[2]) for event in events]),
    }
    found = [joiner.process_of(one, when) for _, _, when, one in told[:: CLIENTS // 100]]
    if not all(one is not None and one.sureness is Sureness.EXACT for one in found):
        raise AssertionError("the fleet is not joined")
    return seconds


def main() -> None:
    """Print the figures."""
    rounds = [one_round() for _ in range(ROUNDS)]
    for name in rounds[0]:
        ratio = statistics.median(one[name] / one["dict"] for one in rounds)
        needed = NEEDED.get(name)
        kept_up = statistics.median(1 / (one[name] * needed) for one in rounds) if needed else None
        print(f"{name:20} {ratio:7.1f} x a dict's" + (f"   {kept_up:6.1f} x what is needed" if kept_up else ""))


if __name__ == "__main__":
    main()
