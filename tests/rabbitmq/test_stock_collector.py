"""The stock collector keeps the collectors' contract, and shows what clients of every protocol do, with identity."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.exceptions import AMQPError
from pika.spec import BasicProperties

from tests.brokers import free_port, wait_for
from tests.collector_contract import PAYLOAD_MARK, CollectorContract, Stage
from tests.mosquitto.logs.wire import Wire
from tests.rabbitmq.stock_clients import Stomp, mqtt
from tests.rabbitmq.stock_watching import AUDITOR, Watch, collector, permit_auditor, watching
from topicwarden.errors import ObservationError
from topicwarden.sources import Collector, SourceOptions
from topicwarden_collectors.rabbitmq.address import parse_address
from topicwarden_collectors.rabbitmq.node import Node
from topicwarden_collectors.rabbitmq.stock import StockCollector

VHOST = "stock"


@pytest.fixture(scope="module")
def node(rabbit: Node) -> Iterator[Node]:
    """The shared node with a virtual host, two users and an auditor of our own; tracing is on."""
    rabbit.add_vhost(VHOST)
    permit_auditor(rabbit, VHOST, tags="monitoring")
    for user in ("stock-bob", "stock-carol"):
        rabbit.add_user(user, "pw")
    rabbit.permit("stock-bob", VHOST, "^(?!forbidden)", ".*", ".*")
    rabbit.trace(VHOST, True)
    yield rabbit
    rabbit.api("DELETE", f"/vhosts/{VHOST}")
    for user in ("stock-bob", "stock-carol"):
        rabbit.api("DELETE", f"/users/{user}")


@pytest.fixture(scope="module")
def seen(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """One collector for all tests of this module that only look."""
    with watching(collector(node, tmp_path_factory.mktemp("stock"), firehose=[VHOST])) as watch:
        yield watch


@contextlib.contextmanager
def amqp(node: Node, user: str = "stock-bob", password: str = "pw", vhost: str = VHOST) -> Iterator[Any]:
    """Connect with pika and give a channel."""
    connection = pika.BlockingConnection(pika.URLParameters(node.url(user, vhost, password)))
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(AMQPError):
            connection.close()


class TestContract(CollectorContract):
    @pytest.fixture(autouse=True)
    def _node(self, node: Node) -> None:
        self.node = node

    @contextlib.contextmanager
    def stage(self, folder: Path) -> Iterator[Stage]:
        def act() -> None:
            with amqp(self.node) as channel:
                channel.basic_publish("amq.topic", "contract.key", PAYLOAD_MARK.encode())
            with mqtt(self.node.ports.mqtt, "contract", f"{VHOST}:stock-bob", "pw") as client:
                client.publish("contract/topic", PAYLOAD_MARK.encode(), qos=1)

        def shows(rows: list[dict[str, Any]]) -> bool:
            names = {row.get("resource", {}).get("name") for row in rows if row["action"] == "publish"}
            return {"contract.key", "contract/topic"} <= names

        yield Stage(collector(self.node, folder, firehose=[VHOST]), act, shows)

    def build_on_nothing(self, folder: Path) -> Collector:
        password = folder / "password"
        password.write_text("x\n")
        options = SourceOptions(password_file=password)
        return StockCollector(parse_address(f"amqp://nobody@127.0.0.1:{free_port()}", options), options)


def test_an_mqtt_client_is_shown_by_topics_and_its_id(node: Node, seen: Watch) -> None:
    with mqtt(node.ports.mqtt, "meter-7", f"{VHOST}:stock-bob", "pw") as client:
        port = client.port
        client.subscribe(("hall/+/set", 1), ("hall/#", 0))
        client.publish("hall/7/power", b"12", qos=1)
        client.publish("hall//x")
        client.unsubscribe("hall/#")
        client.disconnect()

    def mine() -> list[dict[str, Any]]:
        return [row for row in list(seen.rows) if row["client"]["client_id"] == "meter-7"]

    seen.wait(lambda: {"disconnect"} <= {row["action"] for row in mine()} and len(mine()) >= 9, "all of it")
    assert {tuple(row["client"].items()) for row in mine()} == {
        (
            ("broker", "test"),
            ("protocol", "mqtt"),
            ("client_id", "meter-7"),
            ("user", "stock-bob"),
            ("address", "127.0.0.1"),
            ("port", port),
            ("vhost", VHOST),
            ("identity", "verified"),
        )
    }
    did = [(row["action"], row["resource"]["name"]) for row in mine() if "resource" in row]
    assert {kind for row in mine() if "resource" in row for kind in [row["resource"]["kind"]]} == {"topic"}
    assert [name for action, name in did if action == "subscribe"] == ["hall/#", "hall/+/set"]
    assert [name for action, name in did if action == "publish"] == ["hall/7/power", "hall//x"]
    assert [name for action, name in did if action == "unsubscribe"] == ["hall/#"]
    assert sorted(name for action, name in did if action == "deliver") == ["hall//x", "hall/7/power"]
    qos = {row["resource"]["name"]: row["qos"] for row in mine() if row["action"] == "publish"}
    assert qos == {"hall/7/power": 1, "hall//x": 0}


def test_a_stomp_client_is_shown_by_its_bindings_and_queues(node: Node, seen: Watch) -> None:
    client = Stomp(node.ports.stomp, VHOST, "stock-bob", "pw")
    port = client.port
    client.send("SUBSCRIBE", {"id": "0", "destination": "/topic/stomp.*"})
    client.send("SUBSCRIBE", {"id": "1", "destination": "/queue/stomp-jobs"})
    client.send("SEND", {"destination": "/exchange/amq.direct/stomp-key"}, "hi")
    client.close()

    def mine() -> list[dict[str, Any]]:
        return [row for row in list(seen.rows) if row["client"].get("port") == port]

    seen.wait(lambda: {"disconnect", "publish"} <= {row["action"] for row in mine()}, "all of it")
    assert {(row["client"]["protocol"], row["client"]["user"]) for row in mine()} == {("stomp", "stock-bob")}
    resources = [(row["action"], row["resource"]) for row in mine() if "resource" in row]
    assert resources == [
        ("subscribe", {"kind": "binding", "name": "stomp.*", "within": "amq.topic"}),
        ("subscribe", {"kind": "queue", "name": "stomp-jobs"}),
        ("publish", {"kind": "key", "name": "stomp-key", "within": "amq.direct"}),
    ]


def test_every_key_of_cc_and_bcc_and_of_the_default_exchange_is_an_event(node: Node, seen: Watch) -> None:
    with amqp(node) as channel:
        channel.exchange_declare("copies", "topic", auto_delete=True)
        copies = BasicProperties(headers={"CC": ["copies.cc"], "BCC": ["copies.bcc"]})
        channel.basic_publish("copies", "copies.main", b"12345", copies)
        channel.basic_publish("", "copies-queue", b"12345")
    seen.wait(lambda: "copies-queue" in seen.names("stock-bob", "publish"), "the last publish")
    rows = [row for row in seen.of("stock-bob", "publish") if row["resource"]["name"].startswith("copies")]
    assert [(row["resource"]["within"], row["resource"]["name"]) for row in rows] == [
        ("copies", "copies.main"),
        ("copies", "copies.cc"),
        ("copies", "copies.bcc"),
        ("amq.default", "copies-queue"),
    ]
    assert {row["size"] for row in rows} == {5}
    assert seen.collector.counters.source["unroutable"] >= 2, "unroutable messages are published all the same"


def test_bindings_are_what_their_exchange_makes_of_them(node: Node, seen: Watch) -> None:
    def rows() -> list[dict[str, Any]]:
        return [row for row in seen.of("stock-bob", "subscribe") if row["resource"].get("within", "").startswith("b-")]

    with amqp(node) as channel:
        for kind in ("topic", "direct", "fanout", "headers"):
            channel.exchange_declare(f"b-{kind}", kind, auto_delete=True)
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, f"b-{kind}", "b.*")
    seen.wait(lambda: len(rows()) == 4, "4 bindings")
    assert [(row["resource"]["kind"], row["resource"]["within"], row["resource"]["name"]) for row in rows()] == [
        ("binding", "b-topic", "b.*"),
        ("key", "b-direct", "b.*"),
        ("binding", "b-fanout", "#"),
        ("binding", "b-headers", "#"),
    ]
    assert all("port" in row["client"] for row in rows()), "only its owner can bind an exclusive queue"


def test_refusals_carry_the_identity_the_broker_verified(node: Node, seen: Watch) -> None:
    node.permit_topics("stock-bob", VHOST, "amq.topic", "^(?!secret)", ".*")
    hostile = "forbidden' in vhost '/' refused for user 'stock-carol"
    with amqp(node) as channel, contextlib.suppress(AMQPError):
        channel.queue_declare(hostile)
    with contextlib.suppress(ConnectionError), mqtt(node.ports.mqtt, "prober", f"{VHOST}:stock-bob", "pw") as client:
        client.publish("secret/x", qos=1)
    node.api("DELETE", f"/topic-permissions/{VHOST}/stock-bob")
    seen.wait(lambda: [row["outcome"] for row in seen.of("stock-bob")].count("denied") >= 2, "2 denials")
    rows = [row for row in seen.of("stock-bob") if row["outcome"] == "denied"]
    assert [(row["action"], row["client"]["protocol"], row["client"]["client_id"]) for row in rows] == [
        ("configure", "amqp", ""),
        ("publish", "mqtt", "prober"),
    ]
    assert rows[1]["resource"] == {"kind": "topic", "name": "secret/x"}
    assert rows[0]["resource"]["name"] in (hostile, "") or "resource" not in rows[0]
    assert all("port" in row["client"] and row["client"]["identity"] == "verified" for row in rows)
    assert not [row for row in seen.of("stock-carol") if row["outcome"] == "denied"]


def test_a_refused_name_beyond_ascii_is_the_name_and_not_how_the_log_spells_it(node: Node, seen: Watch) -> None:
    with amqp(node) as channel, contextlib.suppress(AMQPError):
        channel.queue_declare("forbidden-größe-€")

    def named() -> list[str]:
        refused = [row for row in seen.of("stock-bob") if row["outcome"] == "denied" and "resource" in row]
        return [row["resource"]["name"] for row in refused]

    seen.wait(lambda: "forbidden-größe-€" in named(), "the refusal by its name")


def test_failed_logins_are_shown_once_with_address_and_claimed_user(node: Node, seen: Watch) -> None:
    wire = Wire(node.ports.mqtt)
    ports = {"mqtt": wire.port}
    wire.connect("x", f"{VHOST}:stock-guessed", "wrong")
    wire.close()
    Stomp(node.ports.stomp, VHOST, "stock-guessed", "wrong").close()
    with contextlib.suppress(AMQPError), amqp(node, "stock-guessed", "wrong"):
        pass
    with contextlib.suppress(AMQPError), amqp(node, "stock-carol"):
        pass
    seen.wait(lambda: len(seen.of("stock-guessed")) >= 3 and seen.of("stock-carol", "connect"), "the refused logins")
    rows = seen.of("stock-guessed")
    assert sorted((row["action"], row["outcome"], row["client"]["protocol"]) for row in rows) == [
        ("authenticate", "denied", protocol) for protocol in ("amqp", "mqtt", "stomp")
    ]
    assert {row["client"]["identity"] for row in rows} == {"claimed"}
    assert all(row["client"]["address"] == "127.0.0.1" for row in rows)
    assert [row["client"]["port"] for row in rows if row["client"]["protocol"] == "mqtt"] == [ports["mqtt"]]
    (refused,) = seen.of("stock-carol", "connect")
    assert (refused["outcome"], refused["client"]["vhost"], refused["client"]["identity"]) == (
        "denied",
        VHOST,
        "verified",
    )


def test_a_publish_through_the_http_api_is_its_users(node: Node, seen: Watch) -> None:
    node.add_user("stock-carol", "pw", "management")
    node.permit("stock-carol", VHOST, "", ".*", "")
    message = {"properties": {}, "routing_key": "by.http", "payload": "p", "payload_encoding": "string"}
    node.api("POST", f"/exchanges/{VHOST}/amq.topic/publish", message, auth=("stock-carol", "pw"))
    seen.wait(lambda: seen.of("stock-carol", "publish"), "the publish")
    (row,) = seen.of("stock-carol", "publish")
    assert row["resource"] == {"kind": "key", "name": "by.http", "within": "amq.topic"}
    assert row["client"]["protocol"] == "direct"


def test_a_passive_declare_leaves_no_event(node: Node, seen: Watch) -> None:
    with amqp(node) as channel:
        channel.queue_declare("passive-1", auto_delete=True)
        channel.queue_declare("passive-1", passive=True)
        channel.queue_declare("passive-2", auto_delete=True)
    seen.wait(lambda: "passive-2" in seen.names("stock-bob", "configure"), "the last declaration")
    declared = [name for name in seen.names("stock-bob", "configure") if name.startswith("passive")]
    assert declared == ["passive-1", "passive-2"]
    assert any("passive declares" in spot.what for spot in seen.collector.blind_spots())


def test_changes_of_grants_say_who_made_them(node: Node, seen: Watch) -> None:
    node.permit("stock-carol", VHOST, "", "^amq\\.topic$", "")
    node.add_user("stock-carol", "pw", "administrator")
    node.api("DELETE", f"/permissions/{VHOST}/stock-carol")
    withdrawn = "configure '' write '^amq\\.topic$' read ''"
    seen.wait(lambda: withdrawn in {change.before for change in list(seen.changes)}, "the last change")
    changes = [change for change in seen.changes if change.grantee.user == "stock-carol"]
    assert changes[-1].what == "permission"
    # What is left is not known without definitions: 3.10.8 says the same of a topic permission that is cleared.
    assert (changes[-1].before, changes[-1].after) == (withdrawn, None)
    assert [change.powers for change in changes if change.what == "tags"][-1] == ("administrator",)
    assert {change.by.user for change in changes if change.by is not None} == {"operator"}
    assert len(seen.of("operator", "grant_change")) >= len(changes)


def test_we_do_not_show_ourselves(node: Node, seen: Watch, tmp_path: Path) -> None:
    with watching(collector(node, tmp_path, firehose=[VHOST])) as second, amqp(node) as channel:
        channel.queue_declare("ourselves", auto_delete=True)
        second.wait(lambda: "ourselves" in second.names("stock-bob", "configure"), "somebody else")
        assert second.of(AUDITOR) == []
        # For the first collector the second is a client like any other.
        seen.wait(lambda: len(seen.of(AUDITOR, "subscribe")) >= 3, "the second collector")


def test_the_title_says_what_the_firehose_costs(seen: Watch, node: Node, tmp_path: Path) -> None:
    assert "firehose of 'stock' at about 3 to 7 times the broker's CPU per message" in seen.collector.title
    assert "firehose" not in collector(node, tmp_path).title


def test_connections_from_before_are_known_from_the_management_api(node: Node, tmp_path: Path) -> None:
    with mqtt(node.ports.mqtt, "early", f"{VHOST}:stock-bob", "pw") as client, amqp(node) as channel:
        url = f"http://127.0.0.1:{node.ports.management}"
        # The node itself takes up to 5 s to list a connection.
        listed = {f"127.0.0.1:{client.port} -> 127.0.0.1:{node.ports.mqtt}"}
        wait_for(lambda: listed <= {row["name"] for row in node.api("GET", "/connections")}, "the node to list it")
        with watching(collector(node, tmp_path, firehose=[VHOST], management=url)) as watch:
            client.publish("early/bird", qos=1)
            channel.basic_publish("amq.topic", "early.worm", b"")
            watch.wait(lambda: len(watch.names("stock-bob", "publish")) >= 2, "both publishes")
        rows = {row["resource"]["name"]: row["client"] for row in watch.of("stock-bob", "publish")}
        assert rows["early/bird"]["client_id"] == "early"
        assert rows["early.worm"]["protocol"] == "amqp"


def test_without_it_mqtt_clients_from_before_are_counted_and_nobody_is_accused(node: Node, tmp_path: Path) -> None:
    with mqtt(node.ports.mqtt, "early", f"{VHOST}:stock-bob", "pw") as client, amqp(node) as channel:
        with watching(collector(node, tmp_path, firehose=[VHOST])) as watch:
            with amqp(node):
                pass  # the broker's log tells which protocol is spoken on which port
            client.publish("early/bird", qos=1)
            channel.basic_publish("amq.topic", "early.worm", b"")
            watch.wait(lambda: watch.told("TW901", "firehose of clients"), "the notice")
            watch.wait(lambda: watch.names("stock-bob", "publish"), "the publish by AMQP")
        assert watch.names("stock-bob", "publish") == ["early.worm"]
        (row,) = watch.of("stock-bob", "publish")
        assert (row["client"]["protocol"], row["client"]["identity"]) == ("amqp", "verified")
        assert watch.collector.counters.unresolved >= 1
        assert any("MQTT connections made before we looked" in spot.what for spot in watch.collector.blind_spots())


def test_what_an_account_may_not_read_is_a_blind_spot_or_an_error(node: Node, tmp_path: Path) -> None:
    try:
        node.permit(AUDITOR, "/", r"^amq\.gen-.*$", r"^amq\.gen-.*$", r"^(amq\.gen-.*|amq\.rabbitmq\.log)$")
        half = collector(node, tmp_path)
        with watching_anyhow(half):
            spots = half.blind_spots()
        assert any("amq.rabbitmq.event is not read" in spot.what for spot in spots)
        node.permit(AUDITOR, "/", r"^amq\.gen-.*$", r"^amq\.gen-.*$", r"^amq\.gen-.*$")
        with pytest.raises(ObservationError) as caught, watching_anyhow(collector(node, tmp_path)):
            pass
        assert "rabbitmqctl set_permissions" in str(caught.value) or "read permission" in str(caught.value)
    finally:
        permit_auditor(node, VHOST, tags="monitoring")


@contextlib.contextmanager
def watching_anyhow(subject: StockCollector) -> Iterator[None]:
    """Run a collector until it has told what it reads and what it does not."""

    async def run() -> None:
        iterator = subject.batches()
        task = asyncio.ensure_future(anext(iterator, None))
        for _ in range(200):
            await asyncio.sleep(0.02)
            sight = subject._decoder.sight
            if task.done() or "yet" not in f"{sight.events} {sight.log}":
                break
        await subject.close()
        await task

    asyncio.run(run())
    yield


def test_wrong_password_and_virtual_host_are_one_clear_line(node: Node, tmp_path: Path) -> None:
    password = tmp_path / "wrong"
    password.write_text("wrong\n")
    options = SourceOptions(password_file=password)
    for source, words in (
        (f"amqp://{AUDITOR}@127.0.0.1:{node.ports.amqp}", "login refused"),
        (f"amqp://{AUDITOR}@127.0.0.1:{node.ports.amqp}?firehose=nowhere", "login refused"),
    ):
        with pytest.raises(ObservationError) as caught, watching_anyhow(StockCollector(parse_address(source, options))):
            pass
        (problem,) = caught.value.problems
        assert words in problem.message
        assert problem.hint
        assert "wrong" not in str(problem)
    with pytest.raises(ObservationError) as caught, watching_anyhow(collector(node, tmp_path, firehose=["nowhere"])):
        pass
    assert "has no virtual host 'nowhere'" in str(caught.value)
