"""Asking a running node whether it allows something: the answers are its permissions', and nobody notices."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pika
import pytest

from tests.brokers import free_port, wait_for
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.events import Action, Client, Resource, ResourceKind
from topicwarden.grants import Verdict
from topicwarden.sources import SourceOptions
from topicwarden_collectors.rabbitmq import BROKER, asking
from topicwarden_collectors.rabbitmq.asking import NodeProbe, open_probe
from topicwarden_collectors.rabbitmq.node import Node, quoted
from topicwarden_collectors.rabbitmq.permissions import allows

VHOST = "asking"
PASSWORDS = {name: f"{name}-secret" for name in ("asking-1", "asking-2", "asking-3")}
ALLOWED, DENIED, NOT_TRIED = Verdict.ALLOWED, Verdict.DENIED, Verdict.NOT_TRIED
PUBLISH, SUBSCRIBE, CONFIGURE = Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE


@pytest.fixture(scope="module")
def node(rabbit: Node) -> Iterator[Node]:
    rabbit.add_vhost(VHOST)
    for user, password in PASSWORDS.items():
        rabbit.add_user(user, password)
    with pika.BlockingConnection(pika.URLParameters(rabbit.url(vhost=VHOST))) as connection:
        channel = connection.channel()
        channel.exchange_declare("news", "topic", durable=True)
        channel.exchange_declare("all", "fanout", durable=True)
        channel.exchange_declare("inside", "topic", durable=True, internal=True)
        for queue in ("work", "news.in"):
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "news", "#")
        channel.basic_publish("", "work", b"waiting")
    yield rabbit
    for user in PASSWORDS:
        rabbit.api("DELETE", f"/users/{user}")
    rabbit.api("DELETE", f"/vhosts/{VHOST}")


@pytest.fixture
def probe(node: Node) -> Iterator[NodeProbe]:
    opened = open_probe(f"amqp://127.0.0.1:{node.ports.amqp}", SourceOptions(), PASSWORDS, allow_publish=False)
    assert isinstance(opened, NodeProbe)
    yield opened
    opened.close()


def who(user: str | None = "asking-1", vhost: str = VHOST, protocol: str = "amqp") -> Client:
    return Client("fx", protocol, "", user, vhost=vhost)


def key(name: str, exchange: str) -> Resource:
    return Resource(ResourceKind.KEY, name, within=exchange)


def binding(name: str, exchange: str) -> Resource:
    return Resource(ResourceKind.BINDING, name, within=exchange)


def queue(name: str) -> Resource:
    return Resource(ResourceKind.QUEUE, name)


def exchange(name: str) -> Resource:
    return Resource(ResourceKind.EXCHANGE, name)


def topic(name: str) -> Resource:
    return Resource(ResourceKind.TOPIC, name)


def state(node: Node) -> object:
    """What is at the node, and what its queues hold."""
    with pika.BlockingConnection(pika.URLParameters(node.url(vhost=VHOST))) as connection:
        channel = connection.channel()
        counts = [channel.queue_declare(name, passive=True).method.message_count for name in ("work", "news.in")]
    rows = [node.api("GET", f"/{what}/{VHOST}") for what in ("exchanges", "queues", "bindings")]
    names = [sorted(str(row.get("name", row.get("routing_key"))) for row in one) for one in rows]
    return counts, names


OWN = r"amq\.gen-.*"
ONE = [
    (PUBLISH, key("sport.x", "news"), ALLOWED),
    (PUBLISH, key("sports", "news"), DENIED),
    (PUBLISH, exchange("news"), ALLOWED),
    (PUBLISH, key("anything", "all"), ALLOWED),
    (PUBLISH, key("k", "inside"), DENIED),
    (PUBLISH, key("work", "amq.default"), DENIED),
    (PUBLISH, exchange("amq.default"), DENIED),
    (PUBLISH, exchange("gone"), ALLOWED),
    (PUBLISH, key("k", "gone"), NOT_TRIED),
    (PUBLISH, key("k", "gone too"), DENIED),
    (PUBLISH, topic("dev/1"), ALLOWED),
    (PUBLISH, topic("other/1"), DENIED),
    (PUBLISH, queue("work"), NOT_TRIED),
    (SUBSCRIBE, binding("sport.#", "news"), ALLOWED),
    (SUBSCRIBE, binding("#", "news"), DENIED),
    (SUBSCRIBE, exchange("news"), ALLOWED),
    (SUBSCRIBE, binding("#", "all"), DENIED),
    (SUBSCRIBE, exchange("all"), DENIED),
    (SUBSCRIBE, key("k", "amq.default"), DENIED),
    (SUBSCRIBE, binding("k", "gone"), NOT_TRIED),
    (SUBSCRIBE, exchange("gone"), ALLOWED),
    (SUBSCRIBE, topic("dev/+/#"), ALLOWED),
    (SUBSCRIBE, topic("#"), DENIED),
    (SUBSCRIBE, queue("work"), ALLOWED),
    (SUBSCRIBE, queue("news.in"), DENIED),
    (SUBSCRIBE, queue("work.not there"), ALLOWED),
    (SUBSCRIBE, queue("not there"), DENIED),
    (CONFIGURE, queue("work"), ALLOWED),
    (CONFIGURE, queue("work.not there"), ALLOWED),
    (CONFIGURE, queue("news.in"), DENIED),
    (CONFIGURE, queue("not there"), DENIED),
    (CONFIGURE, queue("amq.gen-not-there"), ALLOWED),
    (CONFIGURE, queue("amq.other"), DENIED),
    (CONFIGURE, exchange("all"), ALLOWED),
    (CONFIGURE, exchange("all.new"), ALLOWED),
    (CONFIGURE, exchange("news"), DENIED),
    (CONFIGURE, exchange("amq.topic"), DENIED),
    (CONFIGURE, exchange("amq.default"), DENIED),
]  # fmt: skip


def permit_one(node: Node) -> None:
    node.permit(
        "asking-1",
        VHOST,
        rf"^({OWN}|(work|all)(\..*)?)$",
        rf"^({OWN}|news|all|inside|gone|amq\.topic)$",
        rf"^({OWN}|news|gone|work(\..*)?|amq\.topic)$",
    )
    node.permit_topics("asking-1", VHOST, "news", r"^sport\.", r"^sport\.")
    node.permit_topics("asking-1", VHOST, "amq.topic", r"^dev\.", r"^dev\.\*\.#$")


@pytest.mark.parametrize(("action", "resource", "expected"), ONE, ids=str)
def test_the_answer_is_what_the_permissions_say(
    node: Node, probe: NodeProbe, action: Action, resource: Resource, expected: Verdict
) -> None:
    permit_one(node)
    verdict, why = probe.ask(who(), action, resource)
    assert verdict is expected, why
    assert why


def test_asking_delivers_nothing_and_leaves_everything_as_it_was(node: Node, probe: NodeProbe) -> None:
    permit_one(node)
    node.permit("asking-2", VHOST, ".*", ".*", ".*")
    before = state(node)
    with pika.BlockingConnection(pika.URLParameters(node.url(vhost=VHOST))) as connection:
        channel = connection.channel()
        mine = channel.queue_declare("", exclusive=True).method.queue
        for source in ("news", "all", "amq.topic"):
            channel.queue_bind(mine, source, "#")
        came: list[bytes] = []
        channel.basic_consume(mine, lambda _c, _m, _p, body: came.append(body), auto_ack=True)
        for user in ("asking-1", "asking-2"):
            for action, resource, _ in ONE:
                probe.ask(who(user), action, resource)
        # What was published before is ahead of this in the queue.
        channel.basic_publish("amq.topic", "mark", b"mark")
        while b"mark" not in came:
            connection.process_data_events(time_limit=1)
        assert came == [b"mark"]
    assert state(node) == before


def test_a_message_that_waits_in_a_queue_is_not_marked_as_delivered_before(node: Node, probe: NodeProbe) -> None:
    node.permit("asking-2", VHOST, ".*", ".*", ".*")
    assert probe.ask(who("asking-2"), SUBSCRIBE, queue("work"))[0] is ALLOWED
    assert probe.ask(who("asking-2"), CONFIGURE, queue("work"))[0] is ALLOWED
    with pika.BlockingConnection(pika.URLParameters(node.url(vhost=VHOST))) as connection:
        channel = connection.channel()
        method, _, body = channel.basic_get("work", auto_ack=True)
        assert method is not None
        assert (method.redelivered, body) == (False, b"waiting")
        channel.basic_publish("", "work", b"waiting")


def test_the_answers_are_those_of_the_regular_expressions(node: Node, probe: NodeProbe) -> None:
    dice = random.Random(5)
    names = ["news", "all", "work", "news.in", "a", "a.b", "b", "work.x"]
    asked = 0
    for _ in range(25):
        parts = [rf"^({'|'.join(dice.sample(['news', 'a', 'work', 'b$', 'a[.]b', '[.]'], 2))}|amq.gen)" for _ in "cwr"]
        node.permit("asking-3", VHOST, *parts)
        configure, write, read = parts
        for name in dice.sample(names, 4):
            for action, resource, regex in (
                (PUBLISH, exchange(name), write),
                (SUBSCRIBE, exchange(name), read),
                (SUBSCRIBE, queue(name), read),
                (CONFIGURE, exchange(name), configure),
                (CONFIGURE, queue(name), configure),
            ):
                verdict, why = probe.ask(who("asking-3"), action, resource)
                assert verdict is (ALLOWED if allows(regex, name) else DENIED), (regex, action, name, why)
                asked += 1
    assert asked == 500


def test_without_queues_of_its_own_a_user_cannot_be_asked_about_bindings(node: Node, probe: NodeProbe) -> None:
    node.permit("asking-2", VHOST, "", "^news$", "^news$")
    verdict, why = probe.ask(who("asking-2"), SUBSCRIBE, binding("a", "news"))
    assert (verdict, "queues of its own" in why) == (NOT_TRIED, True)
    # The MQTT plugin's queues do as well.
    node.permit("asking-2", VHOST, "", "^mqtt-subscription-", "^news$")
    assert probe.ask(who("asking-2"), SUBSCRIBE, binding("a", "news"))[0] is ALLOWED


def test_what_amqp_cannot_tell_of_an_mqtt_client_is_not_told(node: Node, probe: NodeProbe) -> None:
    permit_one(node)
    node.permit_topics("asking-1", VHOST, "amq.topic", r"^dev\.{client_id}$", "^$")
    assert probe.ask(who(protocol="mqtt"), PUBLISH, topic("dev/1"))[0] is NOT_TRIED
    assert probe.ask(who(), PUBLISH, topic("dev/1"))[0] is DENIED


@pytest.mark.parametrize(
    ("client", "resource", "words"),
    [
        (who(None), queue("work"), "without a user"),
        (who("stranger"), queue("work"), "no password"),
        (who("asking-1", "nowhere"), queue("work"), "has no virtual host"),
        (who(), Resource(ResourceKind.QUEUE, "wor", length=9), "beginning"),
        (who(), queue("a\nb"), "can have this name"),
        (who(), queue("x" * 256), "255 bytes"),
        (who(), queue("\udcff"), "UTF-8"),
    ],
)
def test_what_cannot_be_asked_is_said(probe: NodeProbe, client: Client, resource: Resource, words: str) -> None:
    verdict, why = probe.ask(client, SUBSCRIBE, resource)
    assert (verdict, words in why) == (NOT_TRIED, True), why


def test_who_may_not_enter_the_virtual_host_is_denied_everything(node: Node, probe: NodeProbe) -> None:
    node.api("DELETE", f"/permissions/{VHOST}/asking-2")
    verdict, why = probe.ask(who("asking-2"), SUBSCRIBE, queue("work"))
    assert (verdict, "not into the virtual host" in why) == (DENIED, True)


def test_a_wrong_password_is_tried_once(node: Node) -> None:
    wrong = {"asking-1": "no such password"}
    probe = open_probe(f"amqp://127.0.0.1:{node.ports.amqp}", SourceOptions(), wrong, allow_publish=False)
    assert isinstance(probe, NodeProbe)
    first = probe.ask(who(), SUBSCRIBE, queue("work"))
    assert (first[0], "login refused" in first[1], "no such password" in first[1]) == (NOT_TRIED, True, False)
    assert probe.ask(who(), SUBSCRIBE, queue("other")) is first
    probe.close()


def test_no_more_connections_are_open_than_allowed_and_none_after_the_end(
    node: Node, probe: NodeProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MAX_CONNECTIONS", 2)
    opened: list[pika.BlockingConnection] = []
    real = pika.BlockingConnection

    def counted(parameters: pika.ConnectionParameters) -> pika.BlockingConnection:
        opened.append(real(parameters))
        return opened[-1]

    monkeypatch.setattr(pika, "BlockingConnection", counted)
    for user in PASSWORDS:
        node.permit(user, VHOST, ".*", ".*", ".*")
    for user in [*PASSWORDS, *PASSWORDS, "asking-3"]:
        assert probe.ask(who(user), SUBSCRIBE, queue("work"))[0] is ALLOWED
        assert sum(one.is_open for one in opened) <= 2
    assert len(opened) == 6
    probe.close()
    assert not any(one.is_open for one in opened)
    probe.close()


def test_a_node_that_does_not_answer_or_an_address_that_is_none_is_told_at_once(node: Node) -> None:
    with pytest.raises(ObservationError, match="cannot be reached"):
        BROKER.probe(f"amqp://127.0.0.1:{free_port()}", SourceOptions(), {}, allow_publish=False)
    with pytest.raises(ConfigurationError, match="no address"):
        BROKER.probe("http://127.0.0.1", SourceOptions(), {}, allow_publish=False)
    with pytest.raises(ConfigurationError, match="password in an address"):
        BROKER.probe(node.url(), SourceOptions(), {}, allow_publish=False)


def test_a_connection_that_breaks_is_made_anew(node: Node, probe: NodeProbe) -> None:
    permit_one(node)
    assert probe.ask(who(), SUBSCRIBE, queue("work"))[0] is ALLOWED
    wait_for(lambda: [row for row in node.api("GET", "/connections") if row["user"] == "asking-1"], "the connection")
    for row in node.api("GET", "/connections"):
        if row["user"] == "asking-1":
            node.api("DELETE", f"/connections/{quoted(row['name'])}")
    answers = [probe.ask(who(), SUBSCRIBE, queue("work"))[0] for _ in range(2)]
    assert answers[-1] is ALLOWED
