"""The engine joins what brokers and hosts tell: findings name processes, and rules about hosts know sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.engine import Engine, HostOptions
from topicwarden.events import (
    Action,
    Certainty,
    Client,
    Dialled,
    Endpoint,
    EventBuilder,
    Executed,
    Exited,
    HostEvent,
    Identity,
    Outcome,
    Process,
    Resource,
    ResourceKind,
    Spoke,
    Spoken,
    Tables,
)
from topicwarden.findings import Finding, load_catalogue
from topicwarden.hosts.join import Sureness
from topicwarden.policy import parse_policy

CATALOGUE = load_catalogue()
SECOND = 1_000_000_000
START = 1_780_272_000 * SECOND
BROKER = Endpoint("10.0.0.9", 1883)
POLICY = """
topicwarden: 1
roles:
  sensor:
    members: [{user: "s-*"}]
    publish: [{topic: "plant/%u/telemetry"}]
inventory:
  brokers: [{address: 10.0.0.9, ports: [1883], name: plant, host: broker-1}]
  tools: [{process: mosquitto_pub, hosts: [ci-1], users: [ci], parents: [runner]}]
"""

Event = tuple[int, HostEvent | tuple[Action, Client, str]]


def client(port: int = 40000, address: str = "10.0.0.5", user: str = "s-1") -> Client:
    return Client("plant", "mqtt", f"id-{user}", user, address, port, identity=Identity.VERIFIED)


def published(at: float, topic: str, who: Client) -> Event:
    return _ns(at), (Action.PUBLISH, who, topic)


def connected(at: float, who: Client) -> Event:
    return _ns(at), (Action.CONNECT, who, "")


def ran(at: float, *arguments: str, pid: int = 7, host: str = "gw-1", **more: Any) -> Event:
    process = Process(host, pid, f"/usr/bin/{arguments[0]}", arguments, user=more.pop("user", "root"), **more)
    return _ns(at), Executed(_ns(at), process)


def dialled(at: float, port: int | None = 40000, pid: int = 7, host: str = "gw-1", remote: Endpoint = BROKER) -> Event:
    local = None if port is None else Endpoint("10.0.0.5", port)
    return _ns(at), Dialled(_ns(at), host, remote, local, pid, established=True)


def _ns(at: float) -> int:
    return START + round(at * SECOND)


def judge(
    events: Sequence[Event], *, policy: str | None = POLICY, options: HostOptions | None = None, size: int = 1 << 30
) -> list[Finding]:
    """Hand over brokers' and hosts' events from a source each, side by side as `check` does, and end."""
    parsed = None if policy is None else parse_policy(policy, "test")
    engine = Engine(CATALOGUE, parsed, hosts=options or HostOptions())
    brokers, hosts = EventBuilder(Tables()), EventBuilder(Tables())
    batches = []
    for number, (time_ns, event) in enumerate(events, 1):
        if isinstance(event, tuple):
            action, who, topic = event
            resource = Resource(ResourceKind.TOPIC, topic) if topic else Resource(ResourceKind.NONE, "")
            brokers.add(time_ns, action, who, resource, Outcome.ALLOWED, Certainty.EXACT)
        else:
            hosts.host(event)
        if number % size == 0 or number == len(events):
            batches += [builder.take() for builder in (hosts, brokers) if not builder.empty]
            for batch in batches:
                engine.step(batch)
            batches = []
    engine.advance(None)
    return engine.ledger.findings()


def found(findings: Sequence[Finding], code: str) -> Finding:
    (one,) = [finding for finding in findings if finding.type.code == code]
    return one


ORDINARY = [
    ran(
        0, "mosquitto_pub", "-h", "10.0.0.9", "-t", "plant/s-1/command", "-m", "<payload>", parent_executable="/bin/sh"
    ),
    dialled(0.01),
    connected(0.02, client()),
    published(0.03, "plant/s-1/command", client()),
    (_ns(0.05), Exited(_ns(0.05), "gw-1", 7)),
]


@pytest.mark.parametrize("size", [1, 2, 1 << 30])
@pytest.mark.parametrize("order", [list, lambda events: list(reversed(events))], ids=["in order", "backwards"])
def test_a_finding_about_a_publish_names_the_process_behind_it(size: int, order: Callable[[Any], list[Event]]) -> None:
    finding = found(judge(order(ORDINARY), size=size), "TW201")
    (behind,) = finding.behind
    assert behind.process.arguments[:3] == ("mosquitto_pub", "-h", "10.0.0.9")
    assert (behind.process.user, behind.process.parent_executable, behind.process.host) == ("root", "/bin/sh", "gw-1")
    assert behind.sureness is Sureness.EXACT
    assert "10.0.0.5" in behind.reason


def test_without_a_port_the_join_is_weak_and_another_hosts_connection_is_none() -> None:
    known = POLICY.replace("  tools:", "  hosts: [{name: gw-1, addresses: [10.0.0.5]}]\n  tools:")
    events = [ran(0, "agent"), dialled(0.01, None), *ORDINARY[2:4]]
    assert not found(judge(events), "TW201").behind
    (behind,) = found(judge(events, policy=known), "TW201").behind
    assert behind.sureness is Sureness.WEAK
    elsewhere = [ran(0, "agent", host="other"), dialled(0.01, None, host="other"), *ORDINARY[2:4]]
    assert not found(judge(elsewhere, policy=known), "TW201").behind


def test_a_translated_address_is_weak() -> None:
    outside = client(address="192.168.9.1")
    events = [*ORDINARY[:2], connected(0.02, outside), published(0.03, "plant/s-1/command", outside)]
    (behind,) = found(judge(events), "TW201").behind
    assert behind.sureness is Sureness.WEAK


def test_a_likely_process_is_not_named_when_the_sure_one_comes_later() -> None:
    other = dialled(0.0, 39999, pid=8)
    events = [ran(0, "agent", pid=8), other, *ORDINARY[2:4], ORDINARY[0], ORDINARY[1]]
    for size in (1, 1 << 30):
        (behind,) = found(judge(events, size=size), "TW201").behind
        assert behind.process.pid == 7


def test_loopback_is_sure_only_where_the_broker_is_known_to_run() -> None:
    loop = Endpoint("127.0.0.1", 1883)
    who = client(address="127.0.0.1")
    dial = (_ns(0.01), Dialled(_ns(0.01), "broker-1", loop, Endpoint("127.0.0.1", 40000), 7, established=True))
    events = [ran(0, "agent", host="broker-1"), dial, connected(0.02, who), published(0.03, "plant/x", who)]
    (behind,) = found(judge(events), "TW201").behind
    assert behind.sureness is Sureness.EXACT
    unknown = POLICY.replace(", host: broker-1", "")
    (behind,) = found(judge(events, policy=unknown), "TW201").behind
    assert behind.sureness is Sureness.WEAK
    (behind,) = found(
        judge(events, policy=unknown, options=HostOptions(broker_hosts={"plant": "broker-1"})), "TW201"
    ).behind
    assert behind.sureness is Sureness.EXACT


@given(st.permutations(range(5)), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_the_order_of_telling_changes_nothing(order: list[int], size: int) -> None:
    finding = found(judge([ORDINARY[place] for place in order], size=size), "TW201")
    assert [behind.process.pid for behind in finding.behind] == [7]


def test_exec_connect_publish_on_an_unusual_topic_is_one_finding_with_its_session() -> None:
    who = client(user="s-1")
    events = [
        ran(0, "curl", "mqtt://10.0.0.9/c2/beacon"),
        dialled(0.01),
        connected(0.02, who),
        published(0.03, "c2/beacon", who),
    ]
    finding = found(judge(events), "TW405")
    assert (finding.host, finding.broker, finding.client) == ("gw-1", "", None)
    assert finding.witnesses == {"c2/beacon": 1}
    assert finding.evidence["session_user"] == "s-1"
    assert finding.evidence["session_broker"] == "plant"
    assert finding.behind[0].process.arguments[0] == "curl"


def test_a_broker_clock_that_is_behind_does_not_hide_the_sequence() -> None:
    who = client()
    events = [
        ran(1, "curl", "mqtt://10.0.0.9/c2/beacon"),
        dialled(1.01),
        connected(0.02, who),
        published(0.03, "c2/beacon", who),
    ]
    assert found(judge(events), "TW405").count == 1


def test_sanctioned_automation_is_not_accused() -> None:
    command = ["mosquitto_pub", "-h", "10.0.0.9", "-t", "plant/s-1/telemetry"]
    events = [
        ran(0, *command, host="ci-1", user="ci", parent_executable="/usr/bin/runner"),
        dialled(0.01, host="ci-1"),
        connected(0.02, client()),
        published(0.03, "plant/s-1/telemetry", client()),
    ]
    assert not judge(events)
    events[0] = ran(0, *command, host="ci-1", user="mallory")
    assert found(judge(events), "TW403").host == "ci-1"


def test_an_exception_for_a_host_accepts_and_one_that_ran_out_is_told() -> None:
    events = [ran(0, "mosquitto_pub", "-h", "198.51.100.7", "-t", "x", host="ci-1")]
    rule = 'exceptions: [{finding: TW402, host: "ci-*", process: mosquitto_pub, reason: r, until: %s}]\n'
    accepted = found(judge(events, policy=POLICY + rule % "2027-01-01"), "TW402")
    assert accepted.accepted is not None
    findings = judge(events, policy=POLICY + rule % "2026-01-01")
    assert found(findings, "TW402").accepted is None
    assert found(findings, "TW910").evidence["finding"] == "TW402"


def test_what_a_sensor_saw_is_joined_to_the_process_of_the_connection() -> None:
    odd = Endpoint("198.51.100.7", 4444)
    events = [
        ran(0, "agent"),
        dialled(0.01, remote=odd),
        (_ns(0.02), Spoke(_ns(0.02), "zeek", Endpoint("10.0.0.5", 40000), odd, "mqtt", Spoken.PUBLISH, name="x")),
    ]
    finding = found(judge(events), "TW406")
    assert finding.host == "gw-1"
    assert finding.behind[0].process.executable == "/usr/bin/agent"


def test_sessions_are_counted_by_how_sure_their_process_is() -> None:
    parsed = parse_policy(POLICY, "test")
    engine = Engine(CATALOGUE, parsed, hosts=HostOptions())
    assert engine.joined() is None
    builder = EventBuilder(Tables())
    for time_ns, event in ORDINARY:
        if isinstance(event, tuple):
            builder.add(time_ns, event[0], event[1], Resource(ResourceKind.NONE, ""), Outcome.ALLOWED, Certainty.EXACT)
        else:
            builder.host(event)
    stranger = client(50000, "10.9.9.9", "s-2")
    builder.add(START, Action.CONNECT, stranger, Resource(ResourceKind.NONE, ""), Outcome.ALLOWED, Certainty.EXACT)
    engine.step(builder.take())
    joined = engine.joined()
    assert joined is not None
    assert (joined.exact, joined.weak, joined.none, joined.dropped) == (1, 0, 1, 0)


def test_without_hosts_nothing_of_this_is_there() -> None:
    engine = Engine(CATALOGUE, None)
    assert engine.joined() is None
    assert engine.advance(START) == []
    assert not engine.not_asked
