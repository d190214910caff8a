"""Judges what hosts did, with what is known of it from all sides: policy, baseline, processes, broker sessions.

Events go through here twice. As they come, they feed the tables (which process had which number, who connected where,
which sessions brokers have); once nothing older is to be expected, they go in order to the rules, and by then both
sides of a connection have had the time to tell of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from topicwarden.engine.behind import ProcessFinder
from topicwarden.engine.clock import SECOND
from topicwarden.engine.duplicates import Duplicates
from topicwarden.engine.exceptions import Acceptance
from topicwarden.engine.grouping import Int64
from topicwarden.engine.host_context import Approval, sanctioned
from topicwarden.engine.host_rules import HostRules, Match
from topicwarden.engine.lanes import Lane
from topicwarden.engine.ordering import InOrder
from topicwarden.events import (
    Action,
    Certainty,
    Client,
    Dialled,
    Endpoint,
    EventBatch,
    Executed,
    Exited,
    HostEvent,
    Outcome,
    Process,
    SeenPayload,
    Shape,
    Spoke,
)
from topicwarden.findings import Ledger
from topicwarden.hosts.commands import read_command
from topicwarden.hosts.ecs import AtBroker, Context, EcsEvent, ecs_event
from topicwarden.hosts.join import Attribution, BrokerPlace, Joined, Joiner, Sureness
from topicwarden.hosts.processes import ProcessTable
from topicwarden.policy import Baseline, Inventory, Policy

UNUSUAL: Final = 50
"""From this score on, what was published or subscribed to is shown to the rules."""
LAG_NS: Final = SECOND
"""How far sources may lag behind each other without disturbing the order."""
MAX_PROCESSES: Final = 1 << 14
"""Processes that findings can still be given the name of."""
MAX_UNUSUAL: Final = 1024
"""Unusual acts of one batch that are shown to the rules; the rest are counted."""


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What whoever runs the engine knows of hosts."""

    skew_ns: int = 2 * SECOND
    """How far clocks may be apart."""
    broker_hosts: Mapping[str, str] = field(default_factory=dict)
    """The host each broker runs on, where that is known."""
    resolved: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Addresses of the inventory's host names."""


class HostJudge:
    """What the engine knows of hosts."""

    def __init__(
        self,
        ledger: Ledger,
        acceptance: Acceptance,
        policy: Policy | None,
        baseline: Baseline | None,
        options: HostOptions,
    ) -> None:
        inventory = policy.inventory if policy else Inventory()
        self._ledger = ledger
        self._acceptance = acceptance
        self._inventory = inventory
        self._approval = Approval(inventory if policy else None, baseline, options.resolved)
        self._baseline = baseline
        self.processes = ProcessTable()
        self.joiner = Joiner(
            self.processes,
            skew_ns=options.skew_ns,
            broker_hosts=options.broker_hosts,
            brokers=_places(inventory, options.resolved),
            addresses=_addresses(inventory),
        )
        self.finder = ProcessFinder(ledger, self.joiner)
        self._rules = HostRules(ledger.catalogue, self._approval.lists(), without=self._approval.missing())
        self._order: InOrder[HostEvent | AtBroker] = InOrder(options.skew_ns + LAG_NS)
        self._duplicates = Duplicates(options.skew_ns)
        self._processes_of: OrderedDict[str, Process] = OrderedDict()
        """By `process.entity_id`."""
        self._unusual_dropped = 0
        self._observed = False

    def take(self, lane: Lane, batch: EventBatch) -> None:
        """Feed the tables with a batch, whether it tells of hosts or of brokers."""
        for event in batch.hosts:
            self._observed = True
            if isinstance(event, Executed):
                event = replace(event, process=self.processes.executed(event))
            elif isinstance(event, Exited):
                self.processes.exited(event)
            elif isinstance(event, Dialled):
                self.joiner.dialled(event)
            if not self._duplicates.has(event):
                self._order.put(event.time_ns, event)
        first = min((event.time_ns for event in batch.hosts), default=None)
        if len(batch):
            begins = int(batch.time_ns.min())
            first = begins if first is None else min(first, begins)
            self._sessions(lane, batch)
        if first is not None:
            self._order.reach(first)

    def unusual(self, lane: Lane, batch: EventBatch, rows: Int64, scores: Int64) -> None:
        """Take the publishes and subscriptions that look unusual: `rows` of the batch with their scores."""
        chosen = np.flatnonzero(scores >= UNUSUAL)
        if not len(chosen):
            return
        key = batch.client[rows[chosen]].astype(np.int64) << 32 | batch.resource[rows[chosen]]
        _, firsts = np.unique(key, return_index=True)
        self._unusual_dropped += max(0, len(firsts) - MAX_UNUSUAL)
        for place in np.sort(firsts)[:MAX_UNUSUAL].tolist():
            row, score = int(rows[chosen[place]]), int(scores[chosen[place]])
            size, entropy = int(batch.size[row]), float(batch.entropy[row])
            payload = None
            if size >= 0 and not np.isnan(entropy):
                payload = SeenPayload(size, entropy, Shape(int(batch.shape[row])))
            act = AtBroker(
                time_ns=int(batch.time_ns[row]),
                client=lane.client(int(batch.client[row])),
                action=Action(int(batch.action[row])),
                name=lane.resource(int(batch.resource[row])).label,
                outcome=Outcome(int(batch.outcome[row])),
                payload=payload,
                score=score,
            )
            self._order.put(act.time_ns, act)

    def step(self) -> None:
        """Show the rules what is due."""
        for _, event in self._order.ready():
            self._judge(event)

    def advance(self, now_ns: int | None) -> None:
        """Note that it is now `now_ns`, by the events' clock; None: nothing more will come."""
        if now_ns is not None:
            self._order.reach(now_ns)
        for _, event in self._order.ready() if now_ns is not None else self._order.rest():
            self._judge(event)
        self.finder.again(now_ns)

    @property
    def not_asked(self) -> Sequence[str]:
        """Codes of the rules that cannot be asked: they need an inventory, its tools, or a baseline."""
        return self._rules.not_asked

    def joined(self) -> Joined | None:
        """Return how many sessions have a process; None: no host was observed."""
        if not self._observed:
            return None
        exact = weak = none = 0
        for session in self.joiner.sessions():
            found = self.joiner.process_of(session.client, session.last_ns)
            exact += found is not None and found.sureness is Sureness.EXACT
            weak += found is not None and found.sureness is Sureness.WEAK
            none += found is None
        dropped = self.joiner.dropped + self.processes.evicted + self._unusual_dropped + self.finder.dropped
        return Joined(exact, weak, none, dropped + sum(self._rules.dropped.values()))

    def _sessions(self, lane: Lane, batch: EventBatch) -> None:
        """Tell the joiner of every connection the batch's rows came by."""
        order = np.argsort(batch.client, kind="stable")
        numbers, starts = np.unique(batch.client[order], return_index=True)
        time = batch.time_ns[order]
        first, last = np.minimum.reduceat(time, starts), np.maximum.reduceat(time, starts)
        began = batch.action[order][starts] == Action.CONNECT
        for number, begin, end, is_begin in zip(
            numbers.tolist(), first.tolist(), last.tolist(), began.tolist(), strict=True
        ):
            client = lane.client(number)
            if client.port is not None:
                self.joiner.session(client, begin, end, began=is_begin)

    def _judge(self, event: HostEvent | AtBroker) -> None:
        found = self._behind(event) if isinstance(event, AtBroker | Spoke) else None
        if isinstance(event, AtBroker) and found is not None and found.time_ns >= event.time_ns:
            # A connection comes before what is done on it, whatever the clocks of both sides say: it has to wait.
            self._order.put(found.time_ns + 1, replace(event, time_ns=found.time_ns + 1))
            return
        context = self._context(event, found)
        seen = ecs_event(event, context)
        matches = self._rules.step(seen)
        if matches or not isinstance(event, Exited):
            self._remember(seen, context.process)
        for match in matches:
            self._report(match)

    def _context(self, event: HostEvent | AtBroker, found: Attribution | None) -> Context:
        """Return what is known of an event from all sides."""
        sureness = session = None
        remote = None
        if isinstance(event, Executed):
            process: Process | None = event.process
        elif isinstance(event, Exited):
            process = self.processes.at(event.host, event.pid, event.time_ns)
        elif isinstance(event, Dialled):
            process = None if event.pid is None else self.processes.at(event.host, event.pid, event.time_ns)
            session, remote = self.joiner.session_of(event), event.remote
        else:
            process = None if found is None else found.process
            sureness = None if found is None else found.sureness
            remote = event.server if isinstance(event, Spoke) else None
        command = None if process is None else read_command(process)
        when = event.time_ns if found is None else found.time_ns
        return Context(
            process=process,
            started_ns=None if process is None else self.processes.started_ns(process.host, process.pid, when),
            inventory=self._approval.inventory,
            command=command,
            approved=self._approval.of(remote, command, process, getattr(event, "host", None)),
            sanctioned=None if process is None else sanctioned(self._inventory.tools, process),
            application_host=None if process is None else self._approval.application_host(process.host),
            session=session,
            sureness=sureness,
        )

    def _behind(self, event: Spoke | AtBroker) -> Attribution | None:
        if isinstance(event, AtBroker):
            return self.joiner.process_of(event.client, event.time_ns, words=[event.name])
        seen = Client(event.sensor, event.protocol, "", address=event.client.address, port=event.client.port)
        return self.joiner.process_of(seen, event.time_ns)

    def _report(self, match: Match) -> None:
        last = match.events[-1]
        accepted = self._acceptance.of_host(
            match.code,
            match.host,
            last.get("process.name"),
            last.get("process.user.name"),
            match.last_ns,
            match.count,
        )
        weak = any(event.get("topicwarden.join") == Sureness.WEAK for event in match.events)
        finding = self._ledger.record(
            match.code,
            broker="",
            host=match.host,
            scope=match.scope,
            first_ns=match.first_ns,
            last_ns=match.last_ns,
            count=match.count,
            certainty=Certainty.INFERRED if weak else Certainty.EXACT,
            witnesses=None if match.witness is None else {match.witness: match.count},
            evidence={**match.evidence, **_session_evidence(match)},
            accepted=accepted,
        )
        if finding is None:
            return
        for event in match.events:
            behind = self._attribution(event)
            if behind is not None:
                self._ledger.attribute(finding, behind)

    def _attribution(self, event: EcsEvent) -> Attribution | None:
        """Return the process of an event that a rule matched; None where it is not known, or no longer."""
        process = self._processes_of.get(str(event.get("process.entity_id")))
        if process is None:
            return None
        address, port = event.get("destination.ip") or event.get("destination.address"), event.get("destination.port")
        remote = Endpoint(str(address), port) if address is not None and isinstance(port, int) else None
        at_broker = event.get("event.type") == "protocol"
        weak = at_broker and event.get("topicwarden.join") != Sureness.EXACT
        return Attribution(
            process,
            Sureness.WEAK if weak else Sureness.EXACT,
            "joined by its connection to the broker" if at_broker else "as the host's own telemetry tells it",
            event.time_ns,
            remote,
        )

    def _remember(self, event: EcsEvent, process: Process | None) -> None:
        """Keep the process of an event for as long as a rule may come back to it."""
        entity = event.get("process.entity_id")
        if process is None or entity is None:
            return
        self._processes_of[str(entity)] = process
        self._processes_of.move_to_end(str(entity))
        if len(self._processes_of) > MAX_PROCESSES:
            self._processes_of.popitem(last=False)


def _places(inventory: Inventory, resolved: Mapping[str, Sequence[str]]) -> dict[str, BrokerPlace]:
    """Return where the brokers that have a name in the inventory are."""
    found: dict[str, BrokerPlace] = {}
    for broker in inventory.brokers:
        if broker.name is None:
            continue
        known = found.get(broker.name, BrokerPlace())
        addresses = (*known.addresses, broker.address, *resolved.get(broker.address, ()))
        found[broker.name] = BrokerPlace(broker.host or known.host, addresses, (*known.ports, *broker.ports))
    return found


def _addresses(inventory: Inventory) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for host in inventory.hosts:
        found.setdefault(host.name, []).extend(host.addresses)
    return found


def _session_evidence(match: Match) -> Mapping[str, str]:
    """Return the broker session that the match was joined to, as evidence."""
    for event in reversed(match.events):
        if event.get("topicwarden.broker.name") is not None:
            known = {
                "session_broker": event.get("topicwarden.broker.name"),
                "session_user": event.get("topicwarden.client.user"),
                "session_client_id": event.get("topicwarden.client.id"),
                "session_join": event.get("topicwarden.join"),
            }
            return {key: str(value) for key, value in known.items() if value not in (None, "")}
    return {}
