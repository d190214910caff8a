"""Events as ECS documents: standard fields where there are any, nothing claimed that is not known, all bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    executable_name,
)
from topicwarden.hosts.commands import Command, Does
from topicwarden.hosts.ecs import MAX_COMMAND_LINE, AtBroker, Context, ecs_event, entity_id, protocol_of
from topicwarden.hosts.join import Session, SessionJoin, Sureness

TIME = 1_780_272_000_123_456_789
PUB = Process(
    "web-1",
    77,
    "/usr/bin/mosquitto_pub",
    ("mosquitto_pub", "-h", "mqtt.example", "-t", "c2/x", "-m", "<payload>"),
    parent_pid=70,
    parent_executable="/bin/bash",
    user="www",
    login_user="alice",
    terminal="pts0",
    container="c0ffee",
    payload=SeenPayload(64, 5.12345, Shape.BASE64),
)
COMMAND = Command("mosquitto_pub", Does.PUBLISH, "mqtt", "mqtt.example", 1883, ("c2/x",))


def test_a_program_that_is_started() -> None:
    seen = ecs_event(Executed(TIME, PUB), Context(PUB, TIME, COMMAND, False, True, False, True))
    assert seen.category == "process"
    assert seen.document == {
        "@timestamp": "2026-06-01T00:00:00.123456789Z",
        "event": {"kind": "event", "category": "process", "type": "start", "action": "exec"},
        "host": {"id": "web-1", "name": "web-1"},
        "user": {"name": "www"},
        "container": {"id": "c0ffee"},
        "process": {
            "pid": 77,
            "entity_id": entity_id(PUB, TIME),
            "executable": "/usr/bin/mosquitto_pub",
            "name": "mosquitto_pub",
            "args": list(PUB.arguments),
            "args_count": 7,
            "command_line": "mosquitto_pub -h mqtt.example -t c2/x -m '<payload>'",
            "interactive": True,
            "parent": {"pid": 70, "executable": "/bin/bash", "name": "bash"},
            "user": {"name": "www"},
        },
        "network": {"protocol": "mqtt"},
        "destination": {"address": "mqtt.example", "domain": "mqtt.example", "port": 1883},
        "topicwarden": {
            "login_user": "alice",
            "command": {
                "tool": "mosquitto_pub",
                "does": "publish",
                "protocol": "mqtt",
                "host": "mqtt.example",
                "port": 1883,
                "names": ["c2/x"],
                "secret": False,
                "raw": False,
                "own": True,
                "payload": {"size": 64, "entropy": 5.123, "shape": "base64"},
            },
            "destination": {"pubsub": True, "approved": False},
            "inventory": {"brokers": True},
            "sanctioned": False,
            "baseline": {"application_host": True},
        },
    }


def test_a_connection_with_its_session() -> None:
    client = Client("plant", "MQTT 3.1.1", "c1", "sensor", "10.0.0.7", 40000)
    session = SessionJoin(Session(client, TIME, TIME), Sureness.EXACT, "same connection")
    dialled = Dialled(
        TIME,
        "web-1",
        Endpoint("203.0.113.9", 4444),
        Endpoint("10.0.0.7", 40000),
        77,
        established=True,
        sent=9,
        duration_ns=5,
    )
    document = ecs_event(dialled, Context(PUB, TIME, session=session)).document
    assert document["event"]["action"] == "connection_attempted"
    assert document["event"]["outcome"] == "success"
    assert document["event"]["duration"] == 5
    assert document["network"] == {"transport": "tcp", "direction": "egress", "protocol": "mqtt"}
    assert document["source"] == {"address": "10.0.0.7", "ip": "10.0.0.7", "port": 40000, "bytes": 9}
    assert document["destination"] == {"address": "203.0.113.9", "ip": "203.0.113.9", "port": 4444}
    assert document["process"]["entity_id"] == entity_id(PUB, TIME)
    assert document["topicwarden"] == {
        "login_user": "alice",
        "destination": {"scope": "documentation", "pubsub": True},
        "join": "exact",
        "broker": {"name": "plant"},
        "client": {"id": "c1", "user": "sensor"},
    }


def test_a_session_that_is_joined_weakly_does_not_say_what_is_spoken() -> None:
    client = Client("plant", "mqtt", "c1")
    session = SessionJoin(Session(client, TIME, TIME), Sureness.WEAK, "same host")
    dialled = Dialled(TIME, "web-1", Endpoint("203.0.113.9", 4444))
    document = ecs_event(dialled, Context(session=session)).document
    assert "pubsub" not in document["topicwarden"]["destination"]
    assert document["topicwarden"]["join"] == "weak"


def test_what_a_tool_connects_to_besides_its_broker_is_not_its_broker() -> None:
    for port, transport, named in ((1883, "tcp", True), (53, "tcp", False), (1883, "udp", False)):
        dialled = Dialled(TIME, "web-1", Endpoint("203.0.113.9", port), pid=77, transport=transport)
        document = ecs_event(dialled, Context(PUB, TIME, COMMAND)).document
        assert document["destination"]["address"] == ("mqtt.example" if named else "203.0.113.9")
        assert document["topicwarden"]["destination"].get("pubsub", False) is named


def test_what_a_sensor_sees_is_about_the_clients_host() -> None:
    spoke = Spoke(
        TIME, "zeek-1", Endpoint("10.0.0.7", 40000), Endpoint("203.0.113.9", 443), "mqtt", Spoken.PUBLISH,
        client_id="c", name="c2/x", size=9, entropy=2.0, shape=Shape.TEXT,
    )  # fmt: skip
    document = ecs_event(spoke, Context()).document
    assert document["host"]["name"] == "10.0.0.7"
    assert document["observer"]["name"] == "zeek-1"
    assert document["event"]["action"] == "published"
    assert document["topicwarden"]["topic"] == "c2/x"
    assert document["topicwarden"]["client"] == {"id": "c"}
    assert document["topicwarden"]["payload"] == {"size": 9, "entropy": 2.0, "shape": "text"}


def test_what_was_done_at_a_broker_has_the_joined_process() -> None:
    client = Client("plant", "amqp", "", "guest", "10.0.0.7", 40000)
    act = AtBroker(TIME, client, Action.SUBSCRIBE, "c2.#", Outcome.DENIED, score=80)
    document = ecs_event(act, Context(PUB, TIME, sureness=Sureness.EXACT)).document
    assert (document["event"]["action"], document["event"]["outcome"]) == ("subscribed", "failure")
    assert document["host"]["name"] == "web-1"
    assert document["process"]["entity_id"] == entity_id(PUB, TIME)
    assert document["topicwarden"]["score"] == 80
    assert document["topicwarden"]["client"] == {"id": "", "user": "guest"}
    assert document["topicwarden"]["join"] == "exact"


def test_what_is_not_known_is_left_out() -> None:
    bare = ecs_event(Executed(TIME, Process("h", 1)), Context(Process("h", 1))).document
    assert set(bare["process"]) == {"pid", "entity_id"}
    assert "user" not in bare
    assert bare["topicwarden"] == {}
    ended = ecs_event(Exited(TIME, "h", 1), Context()).document
    assert ended["process"] == {"pid": 1}
    assert ended["event"]["type"] == "end"
    by_source = Dialled(TIME, "h", Endpoint("10.0.0.1", 1), pid=9, executable="/usr/bin/nc.openbsd", user="bob")
    document = ecs_event(by_source, Context()).document
    assert document["process"] == {
        "pid": 9,
        "executable": "/usr/bin/nc.openbsd",
        "name": "nc.openbsd",
        "user": {"name": "bob"},
    }


@pytest.mark.parametrize(
    ("text", "ip", "reach"),
    [
        ("::ffff:10.0.0.1", "10.0.0.1", "private"),
        ("64:ff9b::a00:1", "10.0.0.1", "private"),
        ("64:ff9b::808:808", "8.8.8.8", "public"),
        ("fd00::1", "fd00::1", "ula"),
        ("fe80::1%eth0", "fe80::1", "link-local"),
        ("100.64.1.1", "100.64.1.1", "cgnat"),
        ("not an address", None, None),
    ],
)
def test_an_address_is_the_one_that_is_reached(text: str, ip: str | None, reach: str | None) -> None:
    document = ecs_event(Dialled(TIME, "h", Endpoint(text, 1883)), Context()).document
    assert document["destination"].get("ip") == ip
    assert document["topicwarden"]["destination"].get("scope") == reach


def test_an_entity_is_one_start_of_a_process() -> None:
    assert entity_id(PUB, 1) == entity_id(PUB, 1)
    others = [
        entity_id(PUB, 2),
        entity_id(PUB, None),
        entity_id(Process("web-1", 78), 1),
        entity_id(Process("web-2", 77), 1),
    ]
    assert len({entity_id(PUB, 1), *others}) == 5
    # Where the start is not known, what is run stands for it; parts cannot be shifted into each other.
    assert entity_id(Process("h", 1, "a", ("b", "c")), None) != entity_id(Process("h", 1, "a", ("bc",)), None)


@pytest.mark.parametrize(
    ("arguments", "executable", "command", "own"),
    [
        (("mosquitto_pub",), "/usr/bin/mosquitto_pub", COMMAND, True),
        (("sudo", "mosquitto_pub", "-t", "x", "-m", "y"), "/usr/bin/sudo", COMMAND, False),
        (("timeout", "5", "mosquitto_pub", "-t", "x", "-m", "y"), "/usr/bin/timeout", COMMAND, False),
        (("sh", "-c", "mosquitto_pub"), "/bin/sh", Command("mosquitto_pub", Does.PUBLISH, shell=True), False),
        (("bash", "-c", "x"), "/bin/bash", Command("bash", Does.CONNECT, raw=True, shell=True), True),
        (("sh", "-c", "nc b 1"), "/bin/sh", Command("nc", Does.CONNECT, raw=True, shell=True), False),
        (("busybox", "nc", "b", "1"), "/bin/busybox", Command("nc", Does.CONNECT, raw=True), True),
        (("systemd-helper", "-t", "x"), "/tmp/systemd-helper", COMMAND, True),
    ],
)
def test_whether_a_process_is_itself_what_its_command_line_is_about(
    arguments: tuple[str, ...], executable: str, command: Command, own: bool
) -> None:
    process = Process("h", 1, executable, arguments)
    document = ecs_event(Executed(TIME, process), Context(process, TIME, command)).document
    assert document["topicwarden"]["command"]["own"] is own


def test_names_of_programs_and_protocols() -> None:
    assert executable_name(r"C:\mosquitto\mosquitto_pub.exe") == "mosquitto_pub.exe"
    assert executable_name("/usr/bin/nc") == "nc"
    assert [protocol_of(name) for name in ("MQTT 5.0", "Web STOMP", "AMQP 0-9-1", "sip")] == [
        "mqtt",
        "stomp",
        "amqp",
        "sip",
    ]


TEXT = st.text(alphabet=st.characters(codec=None), max_size=30)
PROCESSES = st.builds(
    Process,
    host=TEXT,
    pid=st.integers(0, 1 << 32),
    executable=TEXT,
    arguments=st.lists(st.one_of(TEXT, st.just("x" * 1024)), max_size=64).map(tuple),
    parent_executable=st.none() | TEXT,
    user=st.none() | TEXT,
    terminal=st.none() | TEXT,
)
ENDS = st.builds(Endpoint, st.one_of(TEXT, st.ip_addresses().map(str)), st.integers(1, 65535))
COMMANDS = st.builds(
    Command, TEXT, st.sampled_from(Does), st.none() | TEXT, st.none() | TEXT, st.none() | st.integers(0, 1 << 20),
    st.lists(TEXT, max_size=16).map(tuple),
)  # fmt: skip
CLIENTS = st.builds(Client, TEXT, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | st.integers(1, 65535))
TIMES = st.integers(-(1 << 63), (1 << 63) - 1)
EVENTS: st.SearchStrategy[Any] = st.one_of(
    st.builds(Executed, TIMES, PROCESSES),
    st.builds(Exited, TIMES, TEXT, st.integers()),
    st.builds(Dialled, TIMES, TEXT, ENDS, st.none() | ENDS, st.none() | st.integers(), st.none() | TEXT),
    st.builds(Spoke, TIMES, TEXT, ENDS, ENDS, TEXT, st.sampled_from(Spoken), name=st.none() | TEXT),
    st.builds(AtBroker, TIMES, CLIENTS, st.sampled_from(Action), TEXT, score=st.none() | st.integers(0, 100)),
)
CONTEXTS = st.builds(
    Context, st.none() | PROCESSES, st.none() | st.integers(), st.none() | COMMANDS, st.none() | st.booleans(),
    sureness=st.none() | st.sampled_from(Sureness),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(EVENTS, CONTEXTS)
def test_no_hostile_event_breaks_it_or_makes_it_large(event: HostEvent | AtBroker, context: Context) -> None:
    seen = ecs_event(event, context)
    assert seen.category in ("process", "network")
    assert len(json.dumps(seen.document, allow_nan=False)) < 200_000
    process = seen.document.get("process", {})
    assert len(process.get("command_line", "")) <= MAX_COMMAND_LINE
    assert sum(map(len, process.get("args", []))) <= MAX_COMMAND_LINE
    assert seen.get("host.name") is not None or isinstance(event, AtBroker)
