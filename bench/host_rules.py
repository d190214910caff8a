"""How many events of hosts a second pass all the rules in EQL, and what the pre-filter saves.

    ./run bench host_rules   (or: .venv/bin/python -m bench.host_rules)

A busy host: programs that have nothing to do with brokers, connections to the web and elsewhere, and now and then a
tool, a connection to a broker's port, a publish. Each round asks the same events with the pre-filter, without it, and
one nine-port rule by the `eql` package's own engine (A B C A B C …). Printed are events a second as a multiple of
100 000 a minute, the median of the rounds, and the ratios of each round.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import eql  # type: ignore[import-untyped]
from eql.engine import Event, PythonEngine  # type: ignore[import-untyped]

from topicwarden.engine.host_context import Approval
from topicwarden.engine.host_rules import HostRules
from topicwarden.events import Action, Client, Dialled, Endpoint, Executed, Process
from topicwarden.findings import load_catalogue
from topicwarden.hosts.commands import read_command
from topicwarden.hosts.ecs import AtBroker, Context, EcsEvent, ecs_event

ROUNDS = 5
EVENTS = 20_000
NEEDED = 100_000 / 60
"""Programs started a second that must be kept up with."""
SECOND = 1_000_000_000
ONE_RULE = """network where event.action == "connection_attempted"
 and destination.port in (1883, 8883, 5222, 5223, 5269, 5672, 5671, 61613, 61614)
 and not cidrMatch(destination.ip, "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8")"""


def make_events(share_of_brokers: int) -> list[tuple[object, Context]]:
    """Return a busy host's events with their context; one in `share_of_brokers` is about a broker."""
    found: list[tuple[object, Context]] = []
    for number in range(EVENTS):
        time_ns = 1_780_272_000 * SECOND + number * SECOND // 1000
        about_broker = number % share_of_brokers == 0
        kind = number % 3 if not about_broker else (number // share_of_brokers) % 3
        port = (1883 if about_broker else 443) if number % 2 else (8883 if about_broker else 5432)
        arguments: tuple[str, ...] = ("python3", "/usr/lib/job.py", "--step", str(number))
        if about_broker:
            arguments = ("mosquitto_pub", "-h", f"10.2.0.{number % 250}", "-t", "plant/a", "-m", "<payload>")
        process = Process("web-1", number % 30_000, f"/usr/bin/{arguments[0]}", arguments, False, 1, "/bin/sh", "www")
        context = Context(
            process, time_ns, read_command(process) if about_broker else None, True if about_broker else None
        )
        if kind == 0 or (kind == 2 and not about_broker):
            found.append((Executed(time_ns, process), context))
        elif kind == 1:
            remote = Endpoint(f"198.18.{number % 200}.9" if not about_broker else f"10.2.0.{number % 250}", port)
            found.append(
                (Dialled(time_ns, "web-1", remote, Endpoint("10.0.0.7", number % 60_000), process.pid), context)
            )
        else:
            client = Client("b", "mqtt", "c", "u", "10.0.0.7", number % 60_000)
            found.append((AtBroker(time_ns, client, Action.PUBLISH, "plant/a", score=10), context))
    return found


def timed(work: Callable[[], object]) -> float:
    """Return the seconds something takes, the collector's own left out."""
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    work()
    took = time.perf_counter() - start
    gc.enable()
    return took


def ask(rules: HostRules, events: list[EcsEvent]) -> int:
    """Ask all rules about all events."""
    return sum(len(rules.step(event)) for event in events)


def one_rule(events: list[EcsEvent]) -> None:
    """Ask the package's own engine one rule."""
    with eql.parser.elasticsearch_syntax:
        engine = PythonEngine()
        engine.add_query(eql.parse_query(ONE_RULE))
    for event in events:
        engine.stream_event(Event(event.category, event.time_ns, event.document))


def main() -> None:
    """Print the figures."""
    catalogue, lists = load_catalogue(), Approval(None, None, {}).lists()
    number = sum(finding_type.detection is not None for finding_type in catalogue.values())
    for share in (1000, 20, 1):
        raw = make_events(share)
        events = [ecs_event(event, context) for event, context in raw]  # type: ignore[arg-type]
        took: dict[str, list[float]] = {"building": [], "with": [], "without": [], "one": []}
        found = set()
        for _ in range(ROUNDS):
            took["building"].append(timed(lambda: [ecs_event(*pair) for pair in raw]))  # type: ignore[arg-type]  # noqa: B023
            for name, prefilter in (("with", True), ("without", False)):
                rules = HostRules(catalogue, lists, prefilter=prefilter)
                took[name].append(timed(lambda: found.add(ask(rules, events))))  # noqa: B023
            took["one"].append(timed(lambda: one_rule(events)))  # noqa: B023
        assert len(found) == 1, "the pre-filter changes what is found"
        rate = {name: EVENTS / statistics.median(times) / NEEDED for name, times in took.items()}
        saved = statistics.median(b / a for a, b in zip(took["with"], took["without"], strict=True))
        single = statistics.median(b / a for a, b in zip(took["with"], took["one"], strict=True))
        print(f"1 in {share} events about brokers, {number} rules:")
        print(f"  {rate['with']:.0f} x 100 000 a minute with the pre-filter, {rate['without']:.0f} x without")
        print(f"  {saved:.1f} times quicker with it; building the documents {rate['building']:.0f} x 100 000 a minute")
        print(f"  one nine-port rule by the package's own engine takes {single:.2f} times as long as all rules")


if __name__ == "__main__":
    main()
