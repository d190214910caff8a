"""A model of the broker writes logs of hostile sessions; what is decoded must have happened.

The model writes the lines as 2.0.11 and 2.1.2 do, cut at 999 bytes, so that thousands of sessions can be tried. That it
writes as the brokers do is what `test_log_broker.py` checks with a running one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.events import Action, Certainty, Outcome, Tables
from topicwarden.sources import Counters
from topicwarden_collectors.mosquitto.log_decode import LogDecoder

Fact = tuple[Action, str, str | None, str, Outcome]
"""Action, client id, user, topic, outcome."""

HOSTILE = st.sampled_from(
    [
        "a",
        "b",
        "admin",
        " ",
        " 0 ",
        "'",
        ")",
        " (d0, q0, r0, m0, '",
        " (d0, q1, r0, m1, '",
        " (d0, q1, r0, m2, '",
        "', ... (5 bytes))",
        " (p2, c1, k60).",
        " (p2, c1, k60, u'",
        "').",
        " disconnected.",
        " disconnected: Broken pipe.",
        " closed its connection.",
        " [127.0.0.1:1]",
        " (0, 0)",
        " (0, 5)",
        " (m1, rc0)",
        " (QoS 0)",
        " (denied)",
        "Received PUBLISH from ",
        "Denied PUBLISH from ",
        "Sending PUBACK to ",
        "New client connected from 9.9.9.9:9 as ",
        "No will message specified.",
        "Client ",
        "mosquitto version 9 starting",
        "mosquitto version",
        "Reloading config.",
        "\u2028",
        "é",
        "x" * 400,
        "1700000000: ",
        "/",
        # Two halves of forged lines: as client id and filter they make a whole one.
        "New client connected from 9.9.9.9:9 as admin (p2, c1, k60, u'x",
        "y').",
        "Received PUBLISH from admin (d0, q0, r0, m0, 't",
        "u', ... (5 bytes))",
    ]
)
NAME = st.lists(HOSTILE, min_size=1, max_size=5).map("".join)
TOPIC = NAME
CLIENTS = st.lists(st.tuples(NAME, st.none() | NAME), min_size=1, max_size=4)
STEP = st.tuples(
    st.sampled_from(["publish", "publish", "publish", "subscribe", "unsubscribe", "reconnect"]),
    st.integers(0, 3),
    TOPIC,
    st.integers(0, 2),
    st.booleans(),
)


@dataclass
class Model:
    """A broker as far as its log goes."""

    modern: bool
    debug: bool
    subscriptions: bool
    log: bytearray = field(default_factory=bytearray)
    facts: Counter[Fact] = field(default_factory=Counter)
    connected: dict[str, tuple[str | None, int]] = field(default_factory=dict)
    mids: Counter[str] = field(default_factory=Counter)
    port: int = 1000

    def write(self, text: str) -> None:
        self.log += b"1700000000: " + text.encode()[: 999 - len(b"1700000000: ")] + b"\n"

    def write_debug(self, text: str) -> None:
        if self.debug:
            self.write(text)

    def connect(self, client_id: str, user: str | None) -> None:
        self.port += 1
        self.write(f"New connection from 127.0.0.1:{self.port} on port 1883.")
        old = self.connected.get(client_id)
        if old is not None:
            if self.modern:
                self.write(f"Client {client_id} [127.0.0.1:{old[1]}] disconnected: session taken over.")
            else:
                self.write(f"Client {client_id} already connected, closing old connection.")
            self.facts[Action.DISCONNECT, client_id, old[0], "", Outcome.UNKNOWN] += 1
        self.connected[client_id] = (user, self.port)
        named = "" if user is None else f", u'{user}'"
        self.write(f"New client connected from 127.0.0.1:{self.port} as {client_id} (p2, c1, k60{named}).")
        self.write_debug("No will message specified.")
        self.write_debug(f"Sending CONNACK to {client_id} (0, 0)")
        self.facts[Action.CONNECT, client_id, user, "", Outcome.ALLOWED] += 1

    def publish(self, client_id: str, topic: str, qos: int, allowed: bool) -> None:
        self.mids[client_id] += qos > 0
        mid = self.mids[client_id] if qos else 0
        verb = "Received" if allowed else "Denied"
        self.write_debug(f"{verb} PUBLISH from {client_id} (d0, q{qos}, r0, m{mid}, '{topic}', ... (5 bytes))")
        if qos:
            answer = "PUBACK" if qos == 1 else "PUBREC"
            self.write_debug(f"Sending {answer} to {client_id} (m{mid}, rc{0 if allowed else 135})")
        user = self.connected[client_id][0]
        outcome = Outcome.ALLOWED if allowed else Outcome.DENIED
        self.facts[Action.PUBLISH, client_id, user, topic, outcome] += 1

    def subscribe(self, client_id: str, topic: str, qos: int, allowed: bool) -> None:
        self.write_debug(f"Received SUBSCRIBE from {client_id}")
        denied = self.modern and not allowed
        self.write_debug(f"\t{topic} (denied)" if denied else f"\t{topic} (QoS {qos})")
        if allowed and self.subscriptions:
            self.write(f"{client_id} {qos} {topic}")
        self.write_debug(f"Sending SUBACK to {client_id}")
        outcome = Outcome.ALLOWED if allowed else Outcome.DENIED
        self.facts[Action.SUBSCRIBE, client_id, self.connected[client_id][0], topic, outcome] += 1

    def unsubscribe(self, client_id: str, topic: str) -> None:
        self.write_debug(f"Received UNSUBSCRIBE from {client_id}")
        self.write_debug(f"\t{topic}")
        if self.subscriptions:
            self.write(f"{client_id} {topic}")
        self.write_debug(f"Sending UNSUBACK to {client_id}")
        self.facts[Action.UNSUBSCRIBE, client_id, self.connected[client_id][0], topic, Outcome.UNKNOWN] += 1

    def end(self, client_id: str) -> None:
        user, port = self.connected.pop(client_id)
        where = f" [127.0.0.1:{port}]" if self.modern else ""
        self.write_debug(f"Received DISCONNECT from {client_id}")
        self.write(f"Client {client_id}{where} disconnected.")
        self.facts[Action.DISCONNECT, client_id, user, "", Outcome.UNKNOWN] += 1


def play(model: Model, clients: list[tuple[str, str | None]], steps: list[tuple[str, int, str, int, bool]]) -> None:
    version = "2.1.2" if model.modern else "2.0.11"
    model.write(f"mosquitto version {version} starting")
    for client_id, user in clients:
        model.connect(client_id, user)
    for what, who, topic, qos, allowed in steps:
        client_id, user = clients[who % len(clients)]
        if what == "publish":
            model.publish(client_id, topic.replace("#", ""), qos, allowed)
        elif what == "subscribe":
            model.subscribe(client_id, topic, qos, allowed)
        elif what == "unsubscribe":
            model.unsubscribe(client_id, topic)
        else:
            if allowed:
                model.end(client_id)
            model.connect(client_id, user)
    for client_id in list(model.connected):
        model.end(client_id)
    model.write(f"mosquitto version {version} terminating")


@dataclass
class Seen:
    facts: Counter[Fact]
    inferred: Counter[Fact]
    cut: list[tuple[Action, str, str]]
    counters: Counters


def decode(log: bytes) -> Seen:
    counters = Counters()
    decoder = LogDecoder(Tables(), "b", counters=counters)
    decoder.feed(log)
    decoder.finish() if not decoder.backlog else None
    seen = Seen(Counter(), Counter(), [], counters)
    for finished in (False, True):
        if finished:
            decoder.finish()
        batch = decoder.take(1 << 20)
        columns = zip(batch.action, batch.client, batch.resource, batch.outcome, batch.certainty, strict=True)
        for action, client_number, resource_number, outcome, certainty in columns:
            client = batch.tables.clients.entries[client_number]
            resource = batch.tables.resources.entries[resource_number]
            assert client is not None
            assert resource is not None
            fact = (Action(action), client.client_id, client.user, resource.name, Outcome(outcome))
            if resource.truncated:
                seen.cut.append((Action(action), client.client_id, resource.name))
            elif certainty == Certainty.INFERRED:
                seen.inferred[fact] += 1
            else:
                seen.facts[fact] += 1
    return seen


@settings(max_examples=400, deadline=None)
@given(st.booleans(), CLIENTS, st.lists(STEP, max_size=14))
def test_with_debug_lines_all_that_is_decoded_has_happened(
    modern: bool, clients: list[tuple[str, str | None]], steps: list[tuple[str, int, str, int, bool]]
) -> None:
    model = Model(modern, debug=True, subscriptions=True)
    unique = list(dict(clients).items())
    model.connected = {}
    play(model, unique, steps)
    seen = decode(bytes(model.log))
    # What nobody can know is not held against the decoder: an unknown outcome, or a user whose connecting was not
    # readable.
    for fact, count in (seen.facts + seen.inferred).items():
        action, client_id, user, topic, outcome = fact
        true = sum(
            times
            for (a, c, u, t, o), times in model.facts.items()
            if (a, c, t) == (action, client_id, topic)
            and (user is None or u == user)
            and (o == outcome or outcome is Outcome.UNKNOWN)
        )
        assert count <= true, (fact, bytes(model.log).decode())
    for action, client_id, name in seen.cut:
        assert any(a is action and c == client_id and t.startswith(name) for (a, c, _, t, _) in model.facts), bytes(
            model.log
        ).decode()
    # Nothing vanishes: what is not decoded is counted.
    published = sum(count for (action, *_), count in model.facts.items() if action is Action.PUBLISH)
    decoded = sum(count for (action, *_), count in (seen.facts + seen.inferred).items() if action is Action.PUBLISH)
    decoded += sum(action is Action.PUBLISH for action, *_ in seen.cut)
    assert published <= decoded + sum(seen.counters.decode_errors.values())


@settings(max_examples=400, deadline=None)
@given(st.booleans(), st.booleans(), CLIENTS, st.lists(STEP, max_size=14))
def test_without_debug_lines_nothing_is_exact_and_nobody_is_accused_of_publishing(
    modern: bool,
    subscriptions: bool,
    clients: list[tuple[str, str | None]],
    steps: list[tuple[str, int, str, int, bool]],
) -> None:
    model = Model(modern, debug=False, subscriptions=subscriptions)
    play(model, list(dict(clients).items()), steps)
    seen = decode(bytes(model.log))
    assert not [fact for fact in seen.facts if fact[4] is not Outcome.UNKNOWN]
    assert not [fact for fact in seen.inferred + seen.facts if fact[0] is Action.PUBLISH]
    true_clients = {client_id for client_id, _ in clients}
    assert {client_id for _, client_id, *_ in seen.inferred} <= true_clients, bytes(model.log).decode()
