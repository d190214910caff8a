"""Indirect ways: each is gone by a real client at a running RabbitMQ, and none is told that does not lead there."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pika
import pika.exceptions
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.brokers import wait_for
from tests.rabbitmq.plugin_node import enable
from topicwarden.events import Action, Certainty, Client
from topicwarden.grants import Path
from topicwarden.patterns import Anything, Regex, key_matches, names_match
from topicwarden.policy import Space
from topicwarden_collectors.rabbitmq.definitions import read_definitions
from topicwarden_collectors.rabbitmq.grants_plain import DefinedGrants
from topicwarden_collectors.rabbitmq.node import ALL_PROTOCOLS, Node

VHOST = "paths"
USER = "paths-user"
OWN = r"amq\.gen-.*"
ME = Client("fx", "amqp", "", USER, vhost=VHOST)


class Stage:
    """A virtual host with one user, built by each test."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._connections: list[pika.BlockingConnection] = []
        self.admin = self.connect("operator", node.password)

    def connect(self, user: str, password: str) -> pika.adapters.blocking_connection.BlockingChannel:
        connection = pika.BlockingConnection(pika.URLParameters(self.node.url(user, VHOST, password)))
        self._connections.append(connection)
        return connection.channel()

    def me(self) -> pika.adapters.blocking_connection.BlockingChannel:
        return self.connect(USER, "secret")

    def permit(self, configure: str = "", write: str = "", read: str = "") -> None:
        self.node.permit(USER, VHOST, configure, write, read)

    def limit(self, exchange: str, write: str, read: str = ".*") -> None:
        self.node.permit_topics(USER, VHOST, exchange, write, read)

    def exchange(self, name: str, kind: str = "topic", *, internal: bool = False, alternate: str | None = None) -> None:
        arguments = {} if alternate is None else {"alternate-exchange": alternate}
        self.admin.exchange_declare(name, kind, durable=True, internal=internal, arguments=arguments)

    def spy(self, exchange: str, key: str = "#") -> str:
        """Return a queue bound to an exchange, of the administrator's."""
        queue = str(self.admin.queue_declare("", exclusive=True).method.queue)
        self.admin.queue_bind(queue, exchange, key)
        return queue

    def got(self, queue: str) -> list[tuple[str, str]]:
        """Wait for a message and return routing keys and bodies of all there are."""
        found: list[tuple[str, str]] = []

        def look() -> bool:
            method, _, body = self.admin.basic_get(queue, auto_ack=True)
            while method is not None:
                found.append((str(method.routing_key), (body or b"").decode()))
                method, _, body = self.admin.basic_get(queue, auto_ack=True)
            return bool(found)

        wait_for(look, "a message to arrive")
        return found

    def paths(self) -> Sequence[Path]:
        text = json.dumps(self.node.api("GET", "/definitions"))
        return DefinedGrants(read_definitions(text, name="definitions"), "fx", "definitions").paths(ME)

    def ways(self, exchange: str, action: Action = Action.PUBLISH) -> list[str]:
        """How an exchange is reached with any key, or read from."""
        found = [path.how for path in self.paths() if (path.action, path.space) == (action, Space("key", exchange))]
        return [way for how in found for way in how.split(", or ")]

    def close(self) -> None:
        for connection in self._connections:
            if connection.is_open:
                connection.close()


@pytest.fixture
def stage(rabbit: Node) -> Iterator[Stage]:
    rabbit.add_vhost(VHOST)
    rabbit.add_user(USER, "secret")
    built = Stage(rabbit)
    yield built
    built.close()
    rabbit.api("DELETE", f"/users/{USER}")
    rabbit.api("DELETE", f"/vhosts/{VHOST}")


def refused(channel: Any, exchange: str, key: str) -> bool:
    """Whether a publish is refused; the channel is gone then."""
    channel.confirm_delivery()
    try:
        channel.basic_publish(exchange, key, b"direct")
    except pika.exceptions.ChannelClosedByBroker as error:
        return bool(error.reply_code == 403)
    return False


def test_keys_in_cc_and_bcc_headers_are_routed_by_and_not_checked(stage: Stage) -> None:
    stage.exchange("orders")
    stage.permit(write="^orders$")
    assert stage.ways("orders") == []
    stage.limit("orders", r"^mine$")
    (way,) = stage.ways("orders")
    assert way == "a CC header, whose keys are not checked by RabbitMQ 3.10.8"
    queue = stage.spy("orders", "secret.#")
    assert refused(stage.me(), "orders", "secret.x")
    for header in ("CC", "BCC"):
        headers: Any = {header: ["secret.x"]}
        stage.me().basic_publish("orders", "mine", header.encode(), pika.BasicProperties(headers=headers))
        assert [body for _, body in stage.got(queue)] == [header]
    stage.limit("orders", r"[^\x00-\xff]")
    assert stage.ways("orders") == []  # no key at all is permitted, and one must be


def test_an_exchange_that_is_there_can_be_bound_in_front(stage: Stage) -> None:
    stage.exchange("orders")
    stage.exchange("scratch", "fanout")
    stage.permit(write="^(orders|scratch)$", read="^scratch$")
    stage.limit("orders", "^mine$")
    assert "the exchange 'scratch', which it may bind to 'orders'" in stage.ways("orders")
    queue = stage.spy("orders", "secret")
    channel = stage.me()
    channel.exchange_bind("orders", "scratch")
    channel.basic_publish("scratch", "secret", b"bound")
    assert stage.got(queue) == [("secret", "bound")]
    # What is bound stays bound, whatever becomes of the permission.
    stage.permit(write="^(orders|scratch)$", read="^other$")
    assert "the binding of 'scratch' to 'orders'" in stage.ways("orders")
    stage.admin.exchange_unbind("orders", "scratch")
    assert stage.ways("orders") == ["a CC header, whose keys are not checked by RabbitMQ 3.10.8"]


def test_an_exchange_of_ones_own_can_be_bound_in_front_or_have_it_as_alternate(stage: Stage) -> None:
    stage.exchange("orders", internal=True)
    stage.permit(configure="^own$", write="^(orders|own)$", read="^own$")
    assert stage.ways("orders") == ["an exchange of its own ('own'), which it may bind to 'orders'"]
    queue = stage.spy("orders")
    channel = stage.me()
    assert refused(stage.me(), "orders", "x")
    channel.exchange_declare("own", "fanout")
    channel.exchange_bind("orders", "own")
    channel.basic_publish("own", "any", b"bound")
    assert stage.got(queue) == [("any", "bound")]
    channel.exchange_delete("own")
    channel.exchange_declare("own", "fanout", arguments={"alternate-exchange": "orders"})
    channel.basic_publish("own", "any", b"alternate")
    assert stage.got(queue) == [("any", "alternate")]
    channel.exchange_delete("own")
    for missing in ("configure", "write", "read"):
        permission = {"configure": "^own$", "write": "^(orders|own)$", "read": "^own$"}
        permission[missing] = permission[missing].replace("own", "none")
        stage.permit(**permission)
        assert stage.ways("orders") == []


def test_a_queue_of_ones_own_dead_letters_with_any_key(stage: Stage) -> None:
    stage.exchange("orders")
    stage.permit(configure=f"^{OWN}$", write=r"^(orders|amq\.default)$", read=f"^{OWN}$")
    stage.limit("orders", "^mine$")
    assert "a queue of its own (named by the server) whose dead letters go to 'orders'" in stage.ways("orders")
    queue = stage.spy("orders", "secret")
    channel = stage.me()
    arguments = {"x-dead-letter-exchange": "orders", "x-dead-letter-routing-key": "secret"}
    own = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    channel.basic_publish("", own, b"dead", pika.BasicProperties(expiration="0"))
    assert stage.got(queue) == [("secret", "dead")]
    # Without the default exchange, what the queue is bound to must be publishable to.
    stage.permit(configure=f"^{OWN}$", write=f"^(orders|{OWN})$", read=f"^{OWN}$")
    assert len(stage.ways("orders")) == 1
    stage.permit(configure=f"^{OWN}$", write=f"^(orders|{OWN})$", read=f"^({OWN}|orders)$")
    stage.limit("orders", "^mine$", "^mine$")
    assert len(stage.ways("orders")) == 2
    channel = stage.me()
    own = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    channel.queue_bind(own, "orders", "mine")
    channel.basic_publish("orders", "mine", b"round", pika.BasicProperties(expiration="0"))
    assert stage.got(queue) == [("secret", "round")]
    stage.limit("orders", "^mine$", "^other$")
    assert len(stage.ways("orders")) == 1


def test_bindings_between_exchanges_ask_nobody_and_a_key_takes_others_along(stage: Stage) -> None:
    stage.exchange("public")
    stage.exchange("inner", "direct", internal=True)
    stage.admin.exchange_bind("inner", "public", "news.#")
    stage.permit(write="^public$")
    (path,) = stage.paths()
    assert path.names == Anything()
    assert path.how.startswith("the binding of 'public' to 'inner'")
    queue = stage.spy("inner", "secret")
    stage.me().basic_publish("public", "news.x", b"along", pika.BasicProperties(headers={"CC": ["secret"]}))
    assert [body for _, body in stage.got(queue)] == ["along"]
    stage.limit("public", "^old$")
    path = stage.paths()[-1]
    assert path.how.startswith("a CC header, whose keys are not checked by RabbitMQ 3.10.8, then the binding")


def test_what_no_binding_takes_goes_to_the_alternate_exchange(stage: Stage) -> None:
    stage.exchange("lost", internal=True)
    stage.exchange("public", alternate="lost")
    stage.exchange("named", "direct")
    stage.node.api(
        "PUT",
        f"/policies/{VHOST}/lost",
        {"pattern": "^named$", "apply-to": "exchanges", "definition": {"alternate-exchange": "lost"}},
    )
    stage.permit(write="^(public|named)$")
    wait_for(lambda: len(stage.ways("lost")) == 2, "the policy to apply")
    queue = stage.spy("lost")
    for exchange in ("public", "named"):
        stage.me().basic_publish(exchange, "any", exchange.encode())
        assert stage.got(queue) == [("any", exchange)]
    # Bindings of exclusive queues are not among the definitions.
    stage.admin.queue_declare("taker")
    for exchange in ("public", "named"):
        stage.admin.queue_bind("taker", exchange, "taken")
    found = [path for path in stage.paths() if path.space.within == "lost"]
    assert {path.certainty for path in found} == {Certainty.EXACT}
    for path in found:
        assert [names_match(path.names, key) for key in ("taken", "any", "")] == [False, True, True]
    stage.me().basic_publish("public", "taken", b"taken")
    stage.me().basic_publish("public", "free", b"free")
    assert stage.got(queue) == [("free", "free")]


@pytest.mark.parametrize("by_policy", [False, True])
def test_queues_hand_their_dead_letters_on(stage: Stage, by_policy: bool) -> None:
    stage.exchange("public", "fanout")
    stage.exchange("graves")
    lead = {"dead-letter-exchange": "graves", "dead-letter-routing-key": "rest"}
    stage.admin.queue_declare("work", arguments={} if by_policy else {f"x-{key}": value for key, value in lead.items()})
    stage.admin.queue_bind("work", "public")
    if by_policy:
        for priority, definition in ((1, lead), (0, {"dead-letter-exchange": "nowhere"})):
            body = {"pattern": "^w", "apply-to": "queues", "definition": definition, "priority": priority}
            stage.node.api("PUT", f"/policies/{VHOST}/p{priority}", body)
    stage.permit(write="^public$")
    (path,) = [path for path in stage.paths() if path.action is Action.PUBLISH]
    assert (path.space, str(path.names), path.certainty) == (Space("key", "graves"), "rest", Certainty.EXACT)
    queue = stage.spy("graves")
    stage.me().basic_publish("public", "any", b"dead", pika.BasicProperties(expiration="0"))
    assert stage.got(queue) == [("rest", "dead")]


def test_dead_letters_keep_their_keys_where_none_is_set_and_reach_queues_through_the_default_exchange(
    stage: Stage,
) -> None:
    stage.exchange("graves")
    stage.admin.queue_declare("work", arguments={"x-dead-letter-exchange": "graves"})
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "final"}
    stage.admin.queue_declare("second", arguments=arguments)
    stage.admin.queue_declare("final")
    stage.admin.queue_bind("second", "graves", "second")
    stage.permit(write=r"^amq\.default$")
    queue = stage.spy("graves", "secret")
    (path,) = [path for path in stage.paths() if path.action is Action.PUBLISH]
    assert (path.space, path.names) == (Space("key", "graves"), Anything())
    properties = pika.BasicProperties(expiration="0", headers={"CC": ["secret"]})
    stage.me().basic_publish("", "work", b"kept", properties)
    assert [body for _, body in stage.got(queue)] == ["kept"]
    stage.exchange("inlet", "fanout")
    stage.admin.queue_bind("second", "inlet")
    stage.permit(write="^inlet$")
    (path,) = [path for path in stage.paths() if path.action is Action.PUBLISH]
    assert (path.space, str(path.names)) == (Space("key", "amq.default"), "final")
    stage.me().basic_publish("inlet", "any", b"through", pika.BasicProperties(expiration="0"))
    assert stage.got("final") == [("final", "through")]


def test_the_audit_streams_are_reached_like_any_internal_exchange(stage: Stage) -> None:
    stage.permit(configure="^own$", write=r"^(own|amq\.rabbitmq\.trace)$", read="^own$")
    assert stage.ways("amq.rabbitmq.trace") == [
        "an exchange of its own ('own'), which it may bind to 'amq.rabbitmq.trace'"
    ]
    queue = stage.spy("amq.rabbitmq.trace")
    channel = stage.me()
    channel.exchange_declare("own", "fanout")
    channel.exchange_bind("amq.rabbitmq.trace", "own")
    channel.basic_publish("own", "publish.orders", b"forged")
    assert stage.got(queue) == [("publish.orders", "forged")]


def test_shovels_carry_on_what_is_in_their_queue(stage: Stage) -> None:
    enable(stage.node, *ALL_PROTOCOLS, "rabbitmq_shovel")
    try:
        stage.exchange("inlet", "fanout")
        stage.exchange("beyond")
        stage.admin.queue_declare("loading", durable=True)
        stage.admin.queue_bind("loading", "inlet")
        uri = f"amqp:///{VHOST}"
        value = {"src-uri": uri, "src-queue": "loading", "dest-uri": uri, "dest-exchange": "beyond"}
        stage.node.api("PUT", f"/parameters/shovel/{VHOST}/mover", {"value": value})
        elsewhere = {**value, "dest-uri": "amqp://user:secret@elsewhere", "dest-exchange": "beyond"}
        text = json.dumps(stage.node.api("GET", "/definitions"))
        assert "mover" in text
        stage.permit(write="^inlet$")
        assert stage.ways("beyond") == ["shovel 'mover'"]
        queue = stage.spy("beyond")
        stage.me().basic_publish("inlet", "any", b"moved")
        assert stage.got(queue) == [("any", "moved")]
        document = json.loads(text)
        document["parameters"] = [{"vhost": VHOST, "component": "shovel", "name": "far", "value": elsewhere}]
        far = DefinedGrants(read_definitions(json.dumps(document)), "fx", "definitions")
        assert "secret" not in repr(far.__dict__)
        assert any("shovel 'far'" in spot for spot in far.blind_spots)
        stage.node.api("DELETE", f"/parameters/shovel/{VHOST}/mover")
    finally:
        enable(stage.node, *ALL_PROTOCOLS)


def test_whoever_reads_a_queue_receives_what_flows_into_it(stage: Stage) -> None:
    stage.exchange("orders")
    stage.exchange("eu", "fanout")
    stage.admin.exchange_bind("eu", "orders", "eu.#")
    stage.admin.queue_declare("work")
    stage.admin.queue_bind("work", "eu")
    stage.admin.queue_bind("work", "orders", "all.*")
    stage.permit(read="^work$")
    found = {(path.space.within, str(path.names), path.how) for path in stage.paths()}
    assert found == {
        ("eu", "(every name)", "the binding of 'eu' to queue 'work'"),
        ("orders", "all.*", "the binding of 'orders' to queue 'work'"),
        ("orders", "eu.#", "the binding of 'orders' to exchange 'eu', then the binding of 'eu' to queue 'work'"),
    }
    assert {path.queue for path in stage.paths()} == {"work"}
    stage.admin.basic_publish("orders", "eu.x", b"flowed")
    channel = stage.me()

    def arrived() -> bool:
        return channel.basic_get("work", auto_ack=True)[2] == b"flowed"

    wait_for(arrived, "the message")
    stage.permit(read="^(work|orders|eu)$")
    assert stage.paths() == []


# Held against the routing itself -------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")
KEYS = ("x", "y", "x.y")
SENT = (*KEYS, "z", "z.z", "#", "*", "x.#", "x\n", "y\n")
"""`$` admits a line feed at the end, and a key with one is bound nowhere."""
BINDINGS = ("#", "x", "x.#", "*")


@dataclass
class World:
    """Exchanges, and what they lead to; queues are left out but for their dead letters."""

    types: Mapping[str, str] = field(default_factory=dict)
    bound: Sequence[tuple[str, str, str]] = ()
    alternates: Mapping[str, str] = field(default_factory=dict)
    queues: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    """Where dead letters go, and with which key."""
    queued: Sequence[tuple[str, str, str]] = ()

    def reached(self, exchange: str, keys: frozenset[str], done: set[tuple[str, frozenset[str]]]) -> None:
        """Do what `rabbit_exchange:route` and `rabbit_dead_letter:publish` do (3.10.8)."""
        if (exchange, keys) in done:
            return
        done.add((exchange, keys))
        onward = [target for source, key, target in self.bound if source == exchange and self.lets(exchange, key, keys)]
        queues = [queue for source, key, queue in self.queued if source == exchange and self.lets(exchange, key, keys)]
        if not onward and not queues and exchange in self.alternates:
            onward = [self.alternates[exchange]]
        for target in onward:
            self.reached(target, keys, done)
        for queue in queues:
            target, key = self.queues[queue]
            self.reached(target, keys if key is None else frozenset((key,)), done)

    def lets(self, exchange: str, binding: str, keys: frozenset[str]) -> bool:
        match self.types[exchange]:
            case "fanout":
                return True
            case "direct":
                return binding in keys
            case _:
                return any(key_matches(binding, key) for key in keys)

    def definitions(self, write: str, topics: Mapping[str, str], version: str) -> str:
        here = {"vhost": "/"}
        return json.dumps(
            {
                "rabbit_version": version,
                "users": [{"name": USER, "tags": []}],
                "vhosts": [{"name": "/"}],
                "permissions": [{**here, "user": USER, "configure": "", "write": write, "read": ""}],
                "topic_permissions": [
                    {**here, "user": USER, "exchange": name, "write": regex, "read": ""}
                    for name, regex in topics.items()
                ],
                "exchanges": [
                    {
                        **here,
                        "name": name,
                        "type": kind,
                        "arguments": {"alternate-exchange": self.alternates[name]} if name in self.alternates else {},
                    }
                    for name, kind in self.types.items()
                ],
                "queues": [
                    {
                        **here,
                        "name": name,
                        "arguments": {"x-dead-letter-exchange": to}
                        | ({} if key is None else {"x-dead-letter-routing-key": key}),
                    }
                    for name, (to, key) in self.queues.items()
                ],
                "bindings": [
                    {**here, "source": source, "destination": to, "destination_type": kind, "routing_key": key}
                    for kind, bindings in (("exchange", self.bound), ("queue", self.queued))
                    for source, key, to in bindings
                ],
            }
        )


EXCHANGE = st.sampled_from(NAMES)
WORLDS = st.builds(
    World,
    st.fixed_dictionaries({name: st.sampled_from(["topic", "direct", "fanout"]) for name in NAMES}),
    st.lists(st.tuples(EXCHANGE, st.sampled_from(BINDINGS), EXCHANGE), max_size=4),
    st.dictionaries(EXCHANGE, EXCHANGE, max_size=2),
    st.fixed_dictionaries({name: st.tuples(EXCHANGE, st.sampled_from([None, *KEYS])) for name in ("q1", "q2")}),
    st.lists(st.tuples(EXCHANGE, st.sampled_from(BINDINGS), st.sampled_from(["q1", "q2"])), max_size=3),
)


@settings(deadline=None, max_examples=150)
@example(
    # What the client may send is bound, and the key that it must have goes with those in the CC header.
    World(dict.fromkeys(NAMES, "topic"), [("a", "x", "c")], {"a": "b"}, {"q1": ("a", None), "q2": ("a", None)}),
    {"a"},
    {"a": r"^x\z"},
    "3.10.8",
)
@given(
    WORLDS,
    st.sets(EXCHANGE, min_size=1),
    st.dictionaries(EXCHANGE, st.sampled_from(["^x$", "^y$", r"^x\z", "^x", "[^\\x00-\\xff]"])),
    st.sampled_from(["3.10.8", "4.2.9"]),
)
def test_what_messages_reach_is_what_paths_and_rules_say(
    world: World, writable: set[str], topics: Mapping[str, str], version: str
) -> None:
    text = world.definitions(f"^({'|'.join(sorted(writable))})$", topics, version)
    grants = DefinedGrants(read_definitions(text), "fx", "x")
    me = Client("fx", "amqp", "", USER, vhost="/")
    rights = grants.rights(me)
    assert rights is not None
    ours: set[tuple[str, str]] = set()
    exact: set[tuple[str, str]] = set()
    for name in NAMES:
        rules = rights.rules(Action.PUBLISH, Space("key", name))
        sets = [(rule.names, True) for rule in rules.rules]
        sets += [
            (path.names, path.certainty is Certainty.EXACT)
            for path in grants.paths(me)
            if path.action is Action.PUBLISH and path.space.within == name
        ]
        for key, (names, sure) in itertools.product(KEYS, sets):
            if names_match(names, key):
                ours.add((name, key))
                if sure:
                    exact.add((name, key))
    theirs: set[tuple[str, str]] = set()
    for exchange in writable:
        allowed = [
            key
            for key in SENT
            if world.types[exchange] != "topic" or exchange not in topics or names_match(Regex(topics[exchange]), key)
        ]
        copies = allowed if version == "4.2.9" else SENT
        for main in allowed:
            for others in itertools.chain.from_iterable(itertools.combinations(copies, size) for size in range(3)):
                done: set[tuple[str, frozenset[str]]] = set()
                world.reached(exchange, frozenset((main, *others)), done)
                theirs |= {(name, key) for name, keys in done for key in keys if key in KEYS}
    assert theirs <= ours
    assert exact <= theirs
