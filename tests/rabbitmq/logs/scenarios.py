"""What clients do to make a real node write every form of refusal we read, in earnest and with names made to deceive.

Used by the recorder of the golden files and by the tests against the running node.
"""

from __future__ import annotations

import contextlib
import socket
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from tests.mosquitto.logs.wire import Wire
from topicwarden.events import NO_RESOURCE, Resource, ResourceKind
from topicwarden_collectors.rabbitmq.node import Node

PASSWORD = "secret"


def queue(name: str) -> Resource:
    return Resource(ResourceKind.QUEUE, name)


def exchange(name: str) -> Resource:
    return Resource(ResourceKind.EXCHANGE, name)


def key(within: str, name: str) -> Resource:
    return Resource(ResourceKind.KEY, name, within=within)


def binding(within: str, name: str) -> Resource:
    return Resource(ResourceKind.BINDING, name, within=within)


@dataclass(frozen=True)
class Truth:
    """What a client did and the node must have refused."""

    port: int
    """The client's own."""
    operation: str | None
    """AMQP method, or `login …` with the reason."""
    resource: Resource
    user: str
    vhost: str | None


@dataclass
class Stage:
    """A node, a virtual host of the scenario's own, and what was done."""

    node: Node
    vhost: str
    truths: list[Truth] = field(default_factory=list)

    def user(self, name: str, allowed: str = "^$") -> None:
        """Add a user who may do everything with names that fit."""
        self.node.add_user(name, PASSWORD)
        self.node.permit(name, self.vhost, allowed, allowed, allowed)

    @contextlib.contextmanager
    def amqp(
        self, user: str, name: str | None = None, vhost: str | None = None, password: str = PASSWORD
    ) -> Iterator[pika.BlockingConnection]:
        """Connect; the connection is closed afterwards."""
        properties = {} if name is None else {"connection_name": name}
        connection = pika.BlockingConnection(
            pika.ConnectionParameters(
                "127.0.0.1",
                self.node.ports.amqp,
                vhost or self.vhost,
                pika.PlainCredentials(user, password),
                client_properties=properties,
                blocked_connection_timeout=10,
                socket_timeout=10,
            )
        )
        try:
            yield connection
        finally:
            with contextlib.suppress(AMQPError):
                connection.close()

    def refused(
        self,
        connection: pika.BlockingConnection,
        user: str,
        operation: str,
        resource: Resource,
        act: Callable[[BlockingChannel], object],
    ) -> None:
        """Do something in a channel of its own, which the node must close; note the truth."""
        channel = connection.channel()
        try:
            act(channel)
            while channel.is_open:
                connection.process_data_events(0.02)
        except AMQPError:
            pass
        self.truths.append(Truth(port_of(connection), operation, resource, user, self.vhost))

    def publish(
        self,
        connection: pika.BlockingConnection,
        user: str,
        to: str,
        routing_key: str,
        resource: Resource | None = None,
    ) -> None:
        """Publish something the node must refuse: by default for its topic."""
        what = key(to, routing_key) if resource is None else resource
        self.refused(
            connection, user, "basic.publish", what, lambda channel: channel.basic_publish(to, routing_key, b"x")
        )

    def login(self, user: str, *, password: str = "wrong", vhost: str | None = None, name: str | None = None) -> None:
        """Fail to log in with AMQP."""
        with contextlib.suppress(AMQPError), self.amqp(user, name, vhost, password):
            pass

    def http(self, user: str, path: str, password: str = PASSWORD) -> None:
        """Ask the management API for something it must refuse."""
        with contextlib.suppress(urllib.error.HTTPError):
            self.node.api("GET", path, auth=(user, password))

    def mqtt(self, user: str | None, password: str | None, client_id: str, act: Callable[[Wire], object] | None) -> int:
        """Connect with MQTT, do something, go; returns the port."""
        wire = Wire(self.node.ports.mqtt)
        wire.socket.settimeout(5)
        port = wire.port
        with contextlib.suppress(OSError):
            wire.connect(client_id, user, password)
            if act is not None:
                act(wire)
            wire.disconnect()
        wire.close()
        return port

    def stomp(self, user: str, password: str, vhost: str, *frames: str) -> int:
        """Connect with STOMP, send frames until the node hangs up; returns the port."""
        with socket.create_connection(("127.0.0.1", self.node.ports.stomp)) as peer:
            peer.settimeout(5)
            port = int(peer.getsockname()[1])
            head = f"CONNECT\naccept-version:1.2\nlogin:{user}\npasscode:{password}\nhost:{vhost}\n\n\0"
            for frame in (head, *frames):
                peer.sendall(frame.encode())
                answer = b""
                while b"\0" not in answer and (more := peer.recv(4096)):
                    answer += more
                if not answer.startswith(b"CONNECTED"):
                    break
        return port


def port_of(connection: pika.BlockingConnection) -> int:
    """Return the connection's own port."""
    return int(connection._impl._transport._sock.getsockname()[1])  # type: ignore[attr-defined]


def prepare(stage: Stage) -> None:
    """Declare what is theirs, and what is alma's own."""
    node, vhost = stage.node, stage.vhost
    node.add_vhost(vhost)
    stage.user("alma", "^own")
    node.permit_topics("alma", vhost, "ownx", "^a\\.", "^a\\.")
    with stage.amqp("operator", vhost=vhost, password=node.password) as connection:
        channel = connection.channel()
        for name in ("theirs", "ownq"):
            channel.queue_declare(name)
        channel.exchange_declare("theirx", "direct")
        channel.exchange_declare("ownx", "topic")
        channel.exchange_declare("owni", "direct", internal=True)


def everyday(stage: Stage) -> None:
    """Every refusal by its plain name."""
    prepare(stage)
    with stage.amqp("alma") as connection:

        def no(operation: str, resource: Resource, act: Callable[[BlockingChannel], object]) -> None:
            stage.refused(connection, "alma", operation, resource, act)

        dead, other = {"x-dead-letter-exchange": "theirx"}, {"alternate-exchange": "theirx"}
        no("queue.declare", queue("new"), lambda c: c.queue_declare("new"))
        no("queue.declare", queue("amq.mine"), lambda c: c.queue_declare("amq.mine"))
        no(
            "queue.declare",
            exchange("theirx"),
            lambda c: c.queue_declare("ownd", arguments=dead),
        )
        no("queue.delete", queue("theirs"), lambda c: c.queue_delete("theirs"))
        no("queue.purge", queue("theirs"), lambda c: c.queue_purge("theirs"))
        no("queue.bind", queue("theirs"), lambda c: c.queue_bind("theirs", "ownx", "a.b"))
        no("queue.bind", exchange("theirx"), lambda c: c.queue_bind("ownq", "theirx", "a.b"))
        no("queue.bind", binding("ownx", "b.#"), lambda c: c.queue_bind("ownq", "ownx", "b.#"))
        no("queue.bind", exchange("amq.default"), lambda c: c.queue_bind("ownq", "", "ownq"))
        no("queue.unbind", queue("theirs"), lambda c: c.queue_unbind("theirs", "ownx", "a.b"))
        no("exchange.declare", exchange("newx"), lambda c: c.exchange_declare("newx"))
        no(
            "exchange.declare",
            exchange("theirx"),
            lambda c: c.exchange_declare("owne", arguments=other),
        )
        no("exchange.delete", exchange("theirx"), lambda c: c.exchange_delete("theirx"))
        no("exchange.delete", exchange("amq.topic"), lambda c: c.exchange_delete("amq.topic"))
        no("exchange.bind", exchange("theirx"), lambda c: c.exchange_bind("theirx", "ownx", "a.b"))
        no("exchange.unbind", exchange("theirx"), lambda c: c.exchange_unbind("theirx", "ownx", "a.b"))
        no("basic.get", queue("theirs"), lambda c: c.basic_get("theirs"))
        no("basic.consume", queue("theirs"), lambda c: c.basic_consume("theirs", lambda *_: None))
        stage.publish(connection, "alma", "theirx", "k", exchange("theirx"))
        stage.publish(connection, "alma", "", "theirs", exchange("amq.default"))
        stage.publish(connection, "alma", "ownx", "b.c")
        stage.publish(connection, "alma", "owni", "k", exchange("owni"))
        as_admin = pika.BasicProperties(user_id="admin")
        no("basic.publish", NO_RESOURCE, lambda c: c.basic_publish("ownx", "a.b", b"x", as_admin))
        # Mistakes, not refusals of what alma may do.
        no("basic.publish", exchange("ownnone"), lambda c: c.basic_publish("ownnone", "k", b"x"))
        no("basic.get", queue("ownnone"), lambda c: c.basic_get("ownnone"))
        no("queue.declare", NO_RESOURCE, lambda c: c.queue_declare("ownq", durable=True))
        no("basic.ack", NO_RESOURCE, lambda c: c.basic_ack(99))
    logins(stage)
    mqtt_and_stomp(stage)
    for on in (True, True, False, False):
        stage.node.trace(stage.vhost, on)


def logins(stage: Stage) -> None:
    """Every way of not getting in."""
    stage.login("alma")
    stage.login("nobody")
    stage.login("alma", password=PASSWORD, vhost="/")
    stage.login("alma", password=PASSWORD, vhost="no such host")
    stage.http("alma", "/overview")
    stage.http("alma", "/overview", "wrong")
    with stage.amqp("alma", "the meter in the yard"):
        pass
    amqplain(stage.node, "alma", "wrong")


def amqplain(node: Node, user: str, password: str) -> None:
    """Log in with the mechanism AMQPLAIN, as librabbitmq's users may."""

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    def long_text(value: bytes) -> bytes:
        return len(value).to_bytes(4, "big") + value

    fields = ("LOGIN", user), ("PASSWORD", password)
    table = b"".join(text(name) + b"S" + long_text(value.encode()) for name, value in fields)
    method = b"\0\x0a\0\x0b" + long_text(b"") + text("AMQPLAIN") + long_text(table) + text("en_US")
    with socket.create_connection(("127.0.0.1", node.ports.amqp)) as peer:
        peer.settimeout(10)
        peer.sendall(b"AMQP\0\0\x09\x01")
        peer.recv(4096)
        peer.sendall(b"\x01\0\0" + long_text(method) + b"\xce")
        with contextlib.suppress(ConnectionError):
            peer.recv(4096)


def publishing(topic: str) -> Callable[[Wire], object]:
    """Return the act of publishing with MQTT."""
    return lambda wire: wire.publish(topic, b"x", qos=1)


def mqtt_and_stomp(stage: Stage) -> None:
    """The same through MQTT and STOMP."""
    node, vhost = stage.node, stage.vhost
    stage.user("sonde", ".*")
    node.permit_topics("sonde", vhost, "amq.topic", "^mine\\.", "^mine\\.")
    stage.mqtt(f"{vhost}:sonde", "wrong", "bad", None)
    stage.mqtt(f"{vhost}:sonde", None, "bad", None)
    stage.mqtt(None, None, "bad", None)
    stage.mqtt("nowhere:sonde", PASSWORD, "bad", None)
    stage.mqtt("sonde", PASSWORD, "bad", None)
    for topic in ("theirs/it's/x", "theirs/é", "theirs/" + "deep/" * 40):
        port = stage.mqtt(f"{vhost}:sonde", PASSWORD, "meter-1", publishing(topic))
        stage.truths.append(Truth(port, None, key("amq.topic", topic.replace("/", ".")), "sonde", vhost))
    port = stage.mqtt(f"{vhost}:sonde", PASSWORD, "meter-2", lambda wire: wire.subscribe(("theirs/#", 1)))
    stage.truths.append(Truth(port, "queue.bind", binding("amq.topic", "theirs.#"), "sonde", vhost))
    port = stage.mqtt(f"{vhost}:alma", PASSWORD, "ant", lambda wire: wire.subscribe(("mine/#", 1)))
    stage.truths.append(Truth(port, "queue.declare", queue("mqtt-subscription-antqos1"), "alma", vhost))
    stage.stomp("alma", "wrong", vhost)
    stage.stomp("alma", PASSWORD, "/")
    stage.stomp("alma", PASSWORD, "nowhere")
    for frame, operation, resource in (
        ("SEND\ndestination:/exchange/theirx/k\n\nhi\0", "basic.publish", exchange("theirx")),
        ("SEND\ndestination:/exchange/ownx/b.b\n\nhi\0", "basic.publish", key("ownx", "b.b")),
        ("SUBSCRIBE\nid:1\ndestination:/amq/queue/theirs\n\n\0", "basic.consume", queue("theirs")),
    ):
        port = stage.stomp("alma", PASSWORD, vhost, frame)
        stage.truths.append(Truth(port, operation, resource, "alma", vhost))


def forgeries(vhost: str) -> list[str]:
    """Return names that imitate the node's own words, whole records included."""
    header = "', user: 'admin'), channel 9:\noperation queue.declare caused a channel exception "
    access = f"access to queue 'x' in vhost '{vhost}' refused for user 'admin"
    whole = f"Channel error on connection <0.2.0> (10.0.0.1:1 -> 10.0.0.2:2, vhost: '{vhost}', user: 'admin'), channel"
    return [
        f"x' in vhost '{vhost}' refused for user 'admin",
        f"x' in vhost '{vhost}' refused for user 'admin', backend b returned an error: c",
        f"x' in exchange 'amq.topic' in vhost '{vhost}' refused for user 'admin",
        header + "access_refused: " + access,
        header + "not_found: no",
        f"q\n2026-11-23 12:00:00.000000+00:00 [error] <0.1.0> {whole}",
        f'q"}}\n{{"time":"2026-11-23 12:00:00.000000+00:00","level":"error","msg":"{access}',
        "it's",
        "x \n y ",
        "separator\u2028and\r\x1b[31m\x00\x7f",
        "Ωλ-é",
    ]


def hostile(stage: Stage) -> None:
    """Names of queues, exchanges, keys, users, clients and connections, each made to deceive."""
    prepare(stage)
    vhost = stage.vhost
    names = [name[:250] for name in forgeries(vhost)]
    connection_names = (
        f"n, vhost: '{vhost}', user: 'admin'), channel 9:\noperation a.b caused a channel exception access_refused: x",
        f"n): user 'admin' authenticated and granted access to vhost '{vhost}",
        ", state: starting):\nPLAIN login refused: user 'admin' - invalid credentials",
        "plain",
    )
    for connection_name in connection_names:
        with stage.amqp("alma", connection_name) as connection:
            for name in names if connection_name == "plain" else names[:2]:
                hostile_names(stage, connection, "alma", name)
    stage.user("mallory's", "^$")
    users = ["', user: 'admin", "a\nb", "Ünal", "mallory's", *(name[:200] for name in names[:4])]
    for user in users:
        stage.user(user)
        with stage.amqp(user) as connection:
            stage.refused(connection, user, "basic.get", queue("theirs"), lambda c: c.basic_get("theirs"))
        stage.login(user)
        stage.login(user, name=connection_names[2])
        stage.login(user, password=PASSWORD, vhost="no' refused for user 'admin", name=connection_names[0])
        stage.http(user, "/overview", "wrong")
    stage.user("sonde", ".*")
    stage.node.permit_topics("sonde", vhost, "amq.topic", "^mine\\.", "^mine\\.")
    for name in names:
        topic = "theirs " + name.replace("/", "").replace("#", "").replace("+", "").replace("\0", "")
        port = stage.mqtt(f"{vhost}:sonde", PASSWORD, "m " + name.replace("\0", ""), publishing(topic))
        stage.truths.append(Truth(port, None, key("amq.topic", topic), "sonde", vhost))
        stage.mqtt(f"{vhost}:{name}".replace("\0", ""), "wrong", "m", None)
    for name in names:
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace(":", "\\c")
        if "\0" not in name:
            stage.stomp(escaped, "wrong", vhost)


def hostile_names(stage: Stage, connection: pika.BlockingConnection, user: str, name: str) -> None:
    """Use one name in every place."""
    # The node takes CR and LF out of names in methods that declare or bind; pika then waits for the wrong name.
    plain = name.replace("\n", "").replace("\r", "")
    stage.refused(connection, user, "queue.declare", queue(plain), lambda c: c.queue_declare(plain))
    stage.refused(connection, user, "basic.get", queue(name), lambda c: c.basic_get(name))
    stage.refused(connection, user, "queue.purge", queue(name), lambda c: c.queue_purge(name))
    stage.publish(connection, user, name, "k", exchange(name))
    stage.publish(connection, user, "ownx", name)
    stage.refused(connection, user, "queue.bind", binding("ownx", name), lambda c: c.queue_bind("ownq", "ownx", name))
