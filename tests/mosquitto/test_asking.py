"""Asking a running Mosquitto whether it allows something: what it says is what it does, and nothing is left behind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import Mosquitto, free_port, mosquitto
from tests.mosquitto.dynsec_broker import PASSWORD, connect, dynsec_broker, password_members, with_passwords
from tests.mosquitto.plugin_mqtt import Client as Wire
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.events import Action, Client, Resource, ResourceKind
from topicwarden.grants import Verdict
from topicwarden.sources import SourceOptions
from topicwarden_collectors.mosquitto import BROKER, asking
from topicwarden_collectors.mosquitto.asking import BrokerProbe, open_probe

ALLOWED, DENIED, NOT_TRIED = Verdict.ALLOWED, Verdict.DENIED, Verdict.NOT_TRIED
PUBLISH, SUBSCRIBE = Action.PUBLISH, Action.SUBSCRIBE
USERS = ("alice", "bob", "carol", "bound")
PASSWORDS = dict.fromkeys(USERS, PASSWORD)


def acl(kind: str, topic: str, allow: bool = True) -> dict[str, object]:
    return {"acltype": kind, "topic": topic, "allow": allow}


CONFIGURATION = {
    "defaultACLAccess": {"publishClientReceive": True, "unsubscribe": True},
    "clients": [
        {"username": "alice", "roles": [{"rolename": "reader"}]},
        {"username": "bob", "roles": [{"rolename": "writer"}]},
        {"username": "carol", "roles": [{"rolename": "half"}]},
        {"username": "bound", "clientid": "its-id", "roles": [{"rolename": "writer"}]},
    ],
    "roles": [
        {"rolename": "reader", "acls": [acl("subscribePattern", "plant/#"), acl("subscribePattern", "$SYS/#")]},
        {"rolename": "writer", "acls": [acl("publishClientSend", "plant/#"), acl("publishClientSend", "$CONTROL/#")]},
        {
            "rolename": "half",
            "acls": [acl("subscribePattern", "#"), acl("publishClientReceive", "plant/secret", False)],
        },
    ],
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    folder = tmp_path_factory.mktemp("asking")
    with dynsec_broker(folder, with_passwords(CONFIGURATION), allow_anonymous=False) as running:
        yield running


def opened(broker: Mosquitto, *, publish: bool, passwords: dict[str, str] = PASSWORDS) -> BrokerProbe:
    probe = open_probe(f"mqtt://127.0.0.1:{broker.port}", SourceOptions(), passwords, allow_publish=publish)
    assert isinstance(probe, BrokerProbe)
    return probe


@pytest.fixture
def quiet(broker: Mosquitto) -> Iterator[BrokerProbe]:
    """A probe that publishes nothing."""
    probe = opened(broker, publish=False)
    yield probe
    probe.close()


@pytest.fixture
def loud(broker: Mosquitto) -> Iterator[BrokerProbe]:
    """A probe that may publish."""
    probe = opened(broker, publish=True)
    yield probe
    probe.close()


def who(user: str | None = "alice", client_id: str = "") -> Client:
    return Client("fx", "mqtt", client_id, user)


def topic(name: str) -> Resource:
    return Resource(ResourceKind.TOPIC, name)


def test_publishing_is_only_asked_when_that_is_allowed(quiet: BrokerProbe, loud: BrokerProbe) -> None:
    verdict, why = quiet.ask(who("bob"), PUBLISH, topic("plant/a"))
    assert verdict is NOT_TRIED
    assert "--allow-publish" in why
    assert loud.ask(who("bob"), PUBLISH, topic("plant/a"))[0] is ALLOWED
    assert loud.ask(who("bob"), PUBLISH, topic("other"))[0] is DENIED
    assert loud.ask(who("alice"), PUBLISH, topic("plant/a"))[0] is DENIED
    assert loud.ask(who("bob"), PUBLISH, topic("$SYS/x"))[0] is DENIED


def test_a_subscription_that_is_refused_tells(quiet: BrokerProbe) -> None:
    assert quiet.ask(who("alice"), SUBSCRIBE, topic("other/a"))[0] is DENIED
    assert quiet.ask(who("bob"), SUBSCRIBE, topic("plant/a"))[0] is DENIED


def test_a_subscription_that_is_accepted_tells_only_with_a_message(quiet: BrokerProbe, loud: BrokerProbe) -> None:
    verdict, why = quiet.ask(who("alice"), SUBSCRIBE, topic("plant/a"))
    assert (verdict, "which proves nothing" in why) == (NOT_TRIED, True)
    assert loud.ask(who("alice"), SUBSCRIBE, topic("plant/a")) == (ALLOWED, "a message was received")
    assert loud.ask(who("carol"), SUBSCRIBE, topic("plant/a"))[0] is ALLOWED
    verdict, why = loud.ask(who("carol"), SUBSCRIBE, topic("plant/secret"))
    assert verdict is DENIED
    assert why == "a subscription was accepted, but a message that 'bob' published did not come"
    verdict, why = loud.ask(who("carol"), SUBSCRIBE, topic("nobody/may"))
    assert (verdict, "nobody whose password is known" in why) == (NOT_TRIED, True)


def test_a_message_that_is_kept_tells_without_publishing(quiet: BrokerProbe) -> None:
    assert quiet.ask(who("alice"), SUBSCRIBE, topic("$SYS/broker/version")) == (ALLOWED, "a message was received")
    assert quiet.ask(who("bob"), SUBSCRIBE, topic("$SYS/broker/version"))[0] is DENIED


def test_nothing_is_kept_and_nobody_else_hears_of_a_question_that_publishes_nothing(
    broker: Mosquitto, quiet: BrokerProbe, loud: BrokerProbe
) -> None:
    with connect(broker.port, "carol") as listener:
        assert listener.subscribe("#") < 0x80
        assert quiet.ask(who("bob"), PUBLISH, topic("plant/x"))[0] is NOT_TRIED
        quiet.ask(who("alice"), SUBSCRIBE, topic("plant/x"))
        assert listener.ping()
        assert listener.received == []
        assert loud.ask(who("bob"), PUBLISH, topic("plant/x"))[0] is ALLOWED
        assert listener.ping()
        assert listener.received == [("plant/x", b"", False)]
    with connect(broker.port, "carol") as later:
        later.subscribe("plant/#")
        assert later.ping()
        assert later.received == []


def test_a_command_to_the_broker_is_never_sent(loud: BrokerProbe) -> None:
    verdict, why = loud.ask(who("bob"), PUBLISH, topic("$CONTROL/dynamic-security/v1"))
    assert (verdict, why) == (NOT_TRIED, "a message below $CONTROL is a command to the broker")


@pytest.mark.parametrize(
    ("client", "action", "resource"),
    [
        (who(), PUBLISH, topic("a/+")),
        (who(), SUBSCRIBE, topic("#")),
        (who(), PUBLISH, topic("a\nb")),
        (who(), PUBLISH, topic("")),
        (who(), PUBLISH, topic("/" * 300)),
        (who(), SUBSCRIBE, topic("\ud800")),
        (who(), PUBLISH, Resource(ResourceKind.TOPIC, "cut", 100)),
        (who(), SUBSCRIBE, Resource(ResourceKind.QUEUE, "q")),
        (who(), Action.CONFIGURE, topic("a")),
        (who("stranger"), PUBLISH, topic("a")),
        (who("alice", "a\0b"), PUBLISH, topic("a")),
    ],
)
def test_what_cannot_be_asked_is_not_tried(
    loud: BrokerProbe, client: Client, action: Action, resource: Resource
) -> None:
    assert loud.ask(client, action, resource)[0] is NOT_TRIED
    assert loud.ask(who("bob"), PUBLISH, topic("plant/a"))[0] is ALLOWED


def test_clients_without_a_name_are_denied_where_the_broker_refuses_them(loud: BrokerProbe) -> None:
    verdict, why = loud.ask(who(None), SUBSCRIBE, topic("plant/a"))
    assert verdict is DENIED
    assert "does not let clients without a user name in" in why


def test_a_client_id_that_is_asked_about_is_used(loud: BrokerProbe) -> None:
    verdict, why = loud.ask(who("bound", "other"), PUBLISH, topic("plant/a"))
    assert (verdict, "does not let 'bound' in" in why) == (NOT_TRIED, True)
    assert loud.ask(who("bound", "its-id"), PUBLISH, topic("plant/a"))[0] is ALLOWED


def test_only_so_many_connections_are_open_at_a_time(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MAX_CONNECTIONS", 2)
    probe = opened(broker, publish=True)
    for _ in range(2):
        for number in range(4):
            assert probe.ask(who("bob", f"id{number}"), PUBLISH, topic("plant/a"))[0] is ALLOWED
            assert len(probe._open) <= 2
    probe.close()
    assert not probe._open


def test_a_connection_that_the_broker_ended_is_not_tried_and_then_made_again(
    broker: Mosquitto, loud: BrokerProbe
) -> None:
    assert loud.ask(who("bob", "taken"), PUBLISH, topic("plant/a"))[0] is ALLOWED
    with Wire(broker.port, "taken", "bob", PASSWORD, version=5) as other:
        assert other.code == 0
        verdicts = {loud.ask(who("bob", "taken"), PUBLISH, topic("plant/a"))[0] for _ in range(2)}
    assert verdicts <= {NOT_TRIED, ALLOWED}
    assert ALLOWED in verdicts


def test_a_subscription_that_cannot_be_ended_ends_with_its_connection(tmp_path: Path) -> None:
    role = {"rolename": "r", "acls": [acl("subscribePattern", "#"), acl("publishClientSend", "#")]}
    client = {"username": "alice", "roles": [{"rolename": "r"}], **password_members()}
    found = {"defaultACLAccess": {"publishClientReceive": True}, "clients": [client], "roles": [role]}
    with dynsec_broker(tmp_path, found) as broker:
        probe = opened(broker, publish=True, passwords={"alice": PASSWORD})
        assert probe.ask(who(), SUBSCRIBE, topic("a"))[0] is ALLOWED
        assert not probe._open["alice", ""].usable
        assert probe.ask(who(), SUBSCRIBE, topic("b"))[0] is ALLOWED
        probe.close()


def test_an_acl_file_that_accepts_every_subscription_is_seen_through(tmp_path: Path) -> None:
    acls = tmp_path / "acl"
    acls.write_text("user alice\ntopic read plant/#\nuser bob\ntopic write #\npattern readwrite own/%c\n")
    with mosquitto(tmp_path, [f"acl_file {acls}", "user root"]) as broker:
        passwords = {"alice": "", "bob": ""}
        probe = opened(broker, publish=True, passwords=passwords)
        assert probe.ask(who("alice"), SUBSCRIBE, topic("plant/a"))[0] is ALLOWED
        assert probe.ask(who("alice"), SUBSCRIBE, topic("other"))[0] is DENIED
        assert probe.ask(who("alice", "c1"), PUBLISH, topic("own/c1"))[0] is ALLOWED
        assert probe.ask(who("alice", "c1"), SUBSCRIBE, topic("own/c1"))[0] is ALLOWED
        assert probe.ask(who("alice", "c1"), PUBLISH, topic("own/c2"))[0] is DENIED
        assert probe.ask(who(None), PUBLISH, topic("plant/a"))[0] is DENIED
        probe.close()


def test_a_wrong_password_is_told_and_not_shown(broker: Mosquitto) -> None:
    with pytest.raises(ConfigurationError) as raised:
        opened(broker, publish=True, passwords={"alice": "not-this-one"})
    (problem,) = raised.value.problems
    assert "does not let 'alice' in" in problem.message
    assert problem.hint is not None
    assert "not-this-one" not in str(raised.value)
    probe = opened(broker, publish=True, passwords={"alice": "not-this-one", "bob": PASSWORD})
    verdict, why = probe.ask(who("alice"), SUBSCRIBE, topic("a"))
    assert verdict is NOT_TRIED
    assert "not-this-one" not in why
    probe.close()


def test_no_broker_and_no_way_there_are_told(broker: Mosquitto) -> None:
    for address, words in (
        (f"mqtt://127.0.0.1:{free_port()}", "cannot be reached"),
        (f"mqtts://127.0.0.1:{broker.port}", "no TLS connection|cannot be reached"),
        ("mqtt://no-such-host.invalid", "not known"),
    ):
        with pytest.raises(ObservationError, match=words) as raised:
            open_probe(address, SourceOptions(), PASSWORDS, allow_publish=False)
        assert raised.value.problems[0].hint
    with pytest.raises(ConfigurationError, match="no address"):
        open_probe("mqtt://", SourceOptions(), PASSWORDS, allow_publish=False)
    with pytest.raises(ConfigurationError, match="without a user name"):
        BROKER.probe(f"mqtt://127.0.0.1:{broker.port}", SourceOptions(), {}, allow_publish=False)


def test_something_that_is_no_broker_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        address = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ObservationError) as raised:
            open_probe(address, SourceOptions(), PASSWORDS, allow_publish=False)
        thread.join()
    assert raised.value.problems[0].hint
