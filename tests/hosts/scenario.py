"""The compact syntax of the cases of rules about hosts, turned into events, their context and what the rules find.

One event is a mapping with one of these, and `host` (`h`), `at`, `every`, `repeat`, `times` as below:

- `exec: [ARGUMENTS]`, with `pid`, `exe` (path; by default from the first argument), `parent`, `user`, `login`,
  `terminal`, `payload: {size, entropy, shape}` (of the message that reads `<payload>`), `cut`;
- `exit: PID`;
- `dial: "ADDRESS:PORT"`, with `pid`, `local`, `transport`, `established`, `session: PROTOCOL` (a broker has it);
- `spoke: PROTOCOL`, with `client`, `server`, `what`, `name`, `sensor`;
- `publish: TOPIC` or `subscribe: FILTER`, with `from: "ADDRESS:PORT"`, `score`, `user`, `join: weak`, `outcome`.

`at` is in seconds from the start, by default one second after the event before. `repeat: n` makes n of them `every` (1)
seconds apart, `times` one at each of these; `{n}` in `pid` is their number. Events go in the order of their times. A
case has also `policy`, `baseline`, and `resolved`: addresses by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from topicwarden.engine.host_context import Approval, sanctioned
from topicwarden.engine.host_rules import HostRules, Match
from topicwarden.events import (
    Action,
    Client,
    Dialled,
    Endpoint,
    Executed,
    Exited,
    HostEvent,
    Outcome,
    Process,
    SeenPayload,
    Shape,
    Spoke,
    Spoken,
)
from topicwarden.findings import Catalogue
from topicwarden.hosts.addresses import normalised
from topicwarden.hosts.commands import Command, read_command
from topicwarden.hosts.ecs import AtBroker, Context, EcsEvent, ecs_event
from topicwarden.hosts.join import Session, SessionJoin, Sureness
from topicwarden.policy import parse_policy
from topicwarden.policy.baseline import parse_baseline

SECOND = 1_000_000_000
START_NS = 1_780_272_000 * SECOND
KINDS = ("exec", "exit", "dial", "spoke", "publish", "subscribe")
KEYS = {
    "exec": {"pid", "exe", "parent", "user", "login", "terminal", "payload", "cut"},
    "exit": set(),
    "dial": {"pid", "local", "transport", "established", "session"},
    "spoke": {"client", "server", "what", "name", "sensor"},
    "publish": {"from", "score", "user", "join", "outcome"},
    "subscribe": {"from", "score", "user", "join", "outcome"},
}
EVERYWHERE = {"host", "at", "every", "repeat", "times"}


@dataclass
class Told:
    """What the findings of one cause say, as the ledger would add them up."""

    code: str
    host: str
    scope: tuple[str, ...]
    evidence: Mapping[str, object]
    count: int = 0
    witnesses: dict[str, int] = field(default_factory=dict)


def endpoint(text: str) -> Endpoint:
    address, _, port = text.rpartition(":")
    found = normalised(address)
    assert found is not None, text
    return Endpoint(found, int(port))


def expanded(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any], str, int]]:
    """Yield each single event: time, its mapping, kind and number."""
    found = []
    now = -1.0
    for event in events:
        (kind,) = [key for key in event if key in KINDS]
        unknown = set(event) - KEYS[kind] - EVERYWHERE - {kind}
        assert not unknown, f"unknown keys {unknown} in {event}"
        begin = event.get("at", now + 1)
        every = event.get("every", 1)
        times = event.get("times") or [begin + every * number for number in range(event.get("repeat", 1))]
        found += [(START_NS + round(time * SECOND), event, kind, number) for number, time in enumerate(times)]
        now = times[-1]
    yield from sorted(found, key=lambda item: item[0])


class Host:
    """Builds events and their context; knows processes and connections without the tables of `topicwarden.hosts`."""

    def __init__(self, case: Mapping[str, Any]) -> None:
        policy = case.get("policy")
        baseline = case.get("baseline")
        self.inventory = None if policy is None else parse_policy(policy, "case").inventory
        parsed = None if baseline is None else parse_baseline(baseline, "case")
        self.approval = Approval(self.inventory, parsed, case.get("resolved", {}))
        self.processes: dict[tuple[str, int], tuple[Process, int]] = {}
        self.connections: dict[Endpoint, tuple[Process, int]] = {}

    def seen(self, time_ns: int, event: Mapping[str, Any], kind: str, number: int) -> EcsEvent:
        """Return an event as the rules see it."""
        built = self._event(time_ns, event, kind, number)
        known: tuple[Process, int] | None = None
        session = sureness = remote = None
        if isinstance(built, Executed):
            known = self.processes[built.process.host, built.process.pid] = (built.process, time_ns)
        elif isinstance(built, Exited):
            known = self.processes.pop((built.host, built.pid), None)
        elif isinstance(built, Dialled):
            known = self.processes.get((built.host, built.pid)) if built.pid is not None else None
            remote = built.remote
            if built.local is not None and known is not None:
                self.connections[built.local] = known
            if "session" in event:
                client = Client("b", event["session"], "c", address=str(built.local), port=1)
                session = SessionJoin(Session(client, time_ns, time_ns), Sureness.EXACT, "same connection")
        elif isinstance(built, Spoke):
            known = self.connections.get(built.client)
            remote = built.server
        else:
            known = self.connections.get(endpoint(event["from"]))
            sureness = None if known is None else Sureness(event.get("join", "exact"))
        process, started = known or (None, None)
        command = None if process is None else read_command(process)
        context = Context(
            process,
            started,
            command,
            self._approved(built, remote, command, process),
            self.approval.inventory,
            self._sanctioned(process),
            None if process is None else self.approval.application_host(process.host),
            session,
            sureness,
        )
        return ecs_event(built, context)

    def _approved(
        self,
        built: HostEvent | AtBroker,
        remote: Endpoint | None,
        command: Command | None,
        process: Process | None,
    ) -> bool | None:
        host = built.host if isinstance(built, Dialled) else None
        return self.approval.of(remote, command, process, host)

    def _sanctioned(self, process: Process | None) -> bool | None:
        tools = self.inventory.tools if self.inventory else ()
        return sanctioned(tools, process) if tools and process is not None else None

    def _event(self, time_ns: int, event: Mapping[str, Any], kind: str, number: int) -> HostEvent | AtBroker:
        host = event.get("host", "h")
        pid = int(str(event["pid"]).replace("{n}", str(number))) if "pid" in event else None
        if kind == "exec":
            arguments = tuple(event["exec"])
            exe = event.get("exe", arguments[0])
            looks = event.get("payload")
            payload = None
            if looks is not None:
                payload = SeenPayload(looks["size"], looks["entropy"], Shape[looks["shape"].upper()])
            process = Process(
                host,
                100 if pid is None else pid,
                exe if "/" in exe else f"/usr/bin/{exe}",
                arguments,
                event.get("cut", False),
                1,
                _path(event.get("parent", "sh")),
                event.get("user", "root"),
                event.get("login"),
                event.get("terminal"),
                payload=payload,
            )
            return Executed(time_ns, process)
        if kind == "exit":
            return Exited(time_ns, host, event["exit"])
        if kind == "dial":
            local = endpoint(event["local"]) if "local" in event else None
            known = {key: event[key] for key in ("transport", "established") if key in event}
            return Dialled(time_ns, host, endpoint(event["dial"]), local, pid, **known)
        if kind == "spoke":
            ends = endpoint(event["client"]), endpoint(event["server"])
            what = Spoken(event.get("what", "other"))
            return Spoke(time_ns, event.get("sensor", "zeek-1"), *ends, event["spoke"], what, name=event.get("name"))
        peer = endpoint(event["from"])
        client = Client("b", "mqtt", "c", event.get("user"), peer.address, peer.port)
        action = Action.PUBLISH if kind == "publish" else Action.SUBSCRIBE
        outcome = Outcome[event.get("outcome", "allowed").upper()]
        return AtBroker(time_ns, client, action, event[kind], outcome, score=event.get("score"))


def _path(name: str | None) -> str | None:
    return None if name is None else name if "/" in name else f"/usr/bin/{name}"


def seen_events(case: Mapping[str, Any]) -> list[EcsEvent]:
    """Return a case's events as the rules see them."""
    host = Host(case)
    return [host.seen(*item) for item in expanded(case["events"])]


def matches(catalogue: Catalogue, case: Mapping[str, Any], *, prefilter: bool = True) -> list[Match]:
    """Return all that the rules find in a case."""
    approval = Host(case).approval
    rules = HostRules(catalogue, approval.lists(), without=approval.missing(), prefilter=prefilter)
    return [match for event in seen_events(case) for match in rules.step(event)]


def run(catalogue: Catalogue, case: Mapping[str, Any]) -> list[Told]:
    """Return what is told of a case, in the order first found."""
    told: dict[tuple[str, str, tuple[str, ...]], Told] = {}
    for match in matches(catalogue, case):
        key = (match.code, match.host, match.scope)
        entry = told.setdefault(key, Told(match.code, match.host, match.scope, match.evidence))
        entry.count += match.count
        if match.witness is not None:
            entry.witnesses[match.witness] = entry.witnesses.get(match.witness, 0) + match.count
    return list(told.values())
