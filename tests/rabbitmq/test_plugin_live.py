"""The plugin comes and goes while the broker serves, and nobody notices: not a client, not another plugin."""

from __future__ import annotations

import contextlib
import time
import urllib.error
from collections.abc import Iterator

import pika
import pytest
from pika.exceptions import AMQPError, ChannelClosedByBroker

from tests.brokers import wait_for
from tests.mosquitto.logs.wire import Wire
from tests.rabbitmq.plugin_node import PROTOCOLS, crashes, enable, erlang, plugin_node
from tests.rabbitmq.plugin_others import BACKEND, INTERCEPTOR, build_other
from tests.rabbitmq.plugin_stream import ATTEMPTED, CONNECT, DISCONNECT, PUBLISH, REFUSED, connection, reading
from tests.rabbitmq.stock_clients import Stomp
from topicwarden_collectors.rabbitmq.node import Node
from topicwarden_collectors.rabbitmq.plugin_build import PLUGIN

PASSWORD = "s3cret"
VHOST = "live"
BASE = (*PROTOCOLS, BACKEND)
BACKENDS = "[rabbit_auth_backend_internal,{other_backend,[other_backend]}]"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("live")
    (folder / "ez").mkdir()
    build_other(BACKEND, folder / "ez")
    build_other(INTERCEPTOR, folder / "ez")
    advanced = f"[{{rabbit, [{{auth_backends, {BACKENDS}}}]}}].\n"
    with plugin_node(folder, plugins=BASE, advanced=advanced) as node:
        node.add_vhost(VHOST)
        node.add_vhost("closed")
        for user in ("alice", "bob"):
            node.add_user(user, PASSWORD, "management")
        plumbing = "mqtt-subscription-.*|stomp-subscription-.*"
        node.permit("alice", VHOST, ".*", ".*", ".*")
        node.permit(
            "bob",
            VHOST,
            f"^(own.*|{plumbing})$",
            f"^(own.*|amq\\.topic|{plumbing})$",
            f"^(own.*|amq\\.topic|{plumbing})$",
        )
        node.permit_topics("bob", VHOST, "amq.topic", "^free", "^free")
        yield node


@pytest.fixture
def expected() -> list[str]:
    """What a test expects the broker's log to complain about."""
    return []


@pytest.fixture
def node(shared: Node, expected: list[str]) -> Iterator[Node]:
    """The node with the plugin off, and off again afterwards."""
    seen = len(crashes(shared))
    yield shared
    enable(shared, *BASE)
    assert backends(shared) == BACKENDS
    complaints = [line for line in crashes(shared)[seen:] if not any(text in line for text in expected)]
    assert complaints == []


def backends(node: Node) -> str:
    """What `auth_backends` is once the plugin has stopped: it is put back right afterwards."""
    wait_for(lambda: "topicwarden" not in erlang(node, "application:get_env(rabbit, auth_backends)"), "the backends")
    return erlang(node, "element(2, application:get_env(rabbit, auth_backends))")


def test_open_clients_of_every_protocol_go_on_when_it_comes_goes_and_comes_again(node: Node) -> None:
    with contextlib.ExitStack() as stack:
        amqp = stack.enter_context(connection(node, "alice", PASSWORD, VHOST)).channel()
        amqp.confirm_delivery()
        queue = amqp.queue_declare("", exclusive=True).method.queue
        for key in ("amqp", "mqtt", "stomp"):
            amqp.queue_bind(queue, "amq.topic", key)
        transacted = stack.enter_context(connection(node, "alice", PASSWORD, VHOST)).channel()
        transacted.tx_select()
        mqtt = stack.enter_context(contextlib.closing(Wire(node.ports.mqtt)))
        assert mqtt.connect("mq", f"{VHOST}:alice", PASSWORD) == 0
        stomp = stack.enter_context(contextlib.closing(Stomp(node.ports.stomp, VHOST, "alice", PASSWORD)))
        assert stomp.answer == "CONNECTED"
        rest = ["amqp", "mqtt", "stomp"]

        def all_go_on() -> None:
            amqp.basic_publish("amq.topic", "amqp", b"1")
            mqtt.publish("mqtt", b"1", qos=1)
            assert stomp.send("SEND", {"destination": "/topic/stomp"}, "1") == "RECEIPT"
            transacted.basic_publish("amq.topic", "tx", b"1")
            transacted.tx_commit()
            got = [amqp.basic_get(queue, auto_ack=True)[0] for _ in rest]
            assert sorted(method.routing_key or "" for method in got if method) == rest
            # What the permission cache does not answer is asked of the backend the connection began with.
            amqp.queue_declare("", exclusive=True)

        all_go_on()
        for _ in range(2):
            enable(node, *BASE, PLUGIN)
            with reading(node) as stream:
                all_go_on()
                stream.until(lambda s: len(s.of("alice", PUBLISH)) == 4, "the publishes of channels opened before")
                published = stream.of("alice", PUBLISH)
                assert {e.name: e.flags & 2 for e in published} == {b"amqp": 0, b"mqtt": 0, b"stomp": 0, b"tx": 2}
                assert {e.actor.protocol for e in published} == {b"amqp", b"mqtt", b"stomp"}
                assert {e.actor.flags for e in published} == {2}
                assert all(e.actor.port for e in published)
                notes = {note.code: note.detail for note in stream.notes}
                assert int(notes["channels-before"]) >= 4
                assert int(notes["connections-before"]) >= 4
                # A connection that began with our stand-in for its backend.
                late = stack.enter_context(connection(node, "out-late", PASSWORD, VHOST)).channel()
                began = time.monotonic()
                enable(node, *BASE)
                assert time.monotonic() - began < 5
                stream.until(lambda s: any(note.code == "stopping" for note in s.notes), "its last words")
            all_go_on()
            late.queue_declare("", exclusive=True)
            with pytest.raises(ChannelClosedByBroker):
                late.queue_declare("forbidden")
        assert backends(node) == BACKENDS
        with pytest.raises(urllib.error.HTTPError):
            node.api("GET", "/exchanges/%2F/amq.topicwarden.audit")


def decisions(node: Node) -> dict[tuple[str, str, str], object]:
    """Return the broker's answer to everything users try, by protocol, user and attempt."""
    answers: dict[tuple[str, str, str], object] = {}
    users = ["alice", "bob", "out-a", "out-fails", "out-crashes", "nobody"]
    for user in users:
        for vhost in (VHOST, "closed"):
            try:
                with connection(node, user, PASSWORD, vhost) as link:
                    answers["amqp", user, vhost] = "connected"
                    if vhost == VHOST:
                        answers.update((("amqp", user, name), _amqp(link, name)) for name in _ATTEMPTS)
            except AMQPError as error:
                answers["amqp", user, vhost] = _without_stand_in(repr(error))
            with contextlib.closing(Wire(node.ports.mqtt)) as wire:
                answers["mqtt", user, vhost] = wire.connect(f"m-{user}", f"{vhost}:{user}", PASSWORD)
                for topic in ("free/x", "secret"):
                    if answers["mqtt", user, vhost] == 0:
                        try:
                            answers["mqtt", user, topic] = (wire.publish(topic, b"", qos=1), wire.subscribe((topic, 0)))
                        except OSError:
                            answers["mqtt", user, topic] = "closed"
                            break
            with contextlib.closing(Stomp(node.ports.stomp, vhost, user, PASSWORD)) as stomp:
                answers["stomp", user, vhost] = stomp.answer
                if stomp.answer == "CONNECTED":
                    answers["stomp", user, "free"] = stomp.send("SEND", {"destination": "/topic/free"}, "")
                    answers["stomp", user, "secret"] = stomp.send("SEND", {"destination": "/topic/secret"}, "")
        for method, path in (("GET", "/whoami"), ("GET", f"/vhosts/{VHOST}"), ("DELETE", f"/queues/{VHOST}/forbidden")):
            try:
                answers["http", user, path] = str(node.api(method, path, auth=(user, PASSWORD)))[:60]
            except urllib.error.HTTPError as error:
                answers["http", user, path] = (error.code, error.read()[:200])
                error.close()
    return answers


_ATTEMPTS = (
    *("declare own-q", "declare other-q", "declare forbidden", "declare erroneous", "declare crashing"),
    *("write own-q", "write read-only", "write amq.topic free", "write amq.topic secret", "read other-q"),
    *("bind amq.topic free", "bind amq.topic secret", "passive forbidden", "user-id"),
)


def _amqp(link: pika.BlockingConnection, attempt: str) -> str:
    what, name, *key = attempt.split(" ") if " " in attempt else (attempt, "")
    try:
        channel = link.channel()
        if what == "declare":
            channel.queue_declare(name, auto_delete=True)
        elif what == "passive":
            channel.queue_declare(name, passive=True)
        elif what == "read":
            channel.basic_get(name)
        elif what == "bind":
            channel.queue_declare("own-bound", auto_delete=True)
            channel.queue_bind("own-bound", name, key[0])
        else:
            properties = pika.BasicProperties(user_id="somebody" if what == "user-id" else None)
            channel.basic_publish(name if key else name and "", key[0] if key else name, b"", properties)
            channel.queue_declare("own-after", auto_delete=True)
    except AMQPError as error:
        return _without_stand_in(repr(error))
    return "allowed"


def _without_stand_in(text: str) -> str:
    """Only the words of a backend that fails name the module, ours while the plugin is on."""
    for number in (1, 2):
        text = text.replace(
            f"topicwarden_audit_backend_{number}", (BACKEND, "rabbit_auth_backend_internal")[number == 1]
        )
    return text


def test_every_decision_is_the_same_without_it_with_it_and_without_it_again(node: Node, expected: list[str]) -> None:
    # The backend of this test raises by intention, and the broker reports every one of these crashes.
    expected.append("")
    before = decisions(node)
    assert before["amqp", "alice", "declare other-q"] == "allowed"
    assert "403" in str(before["amqp", "bob", "declare other-q"])
    assert before["amqp", "out-a", "declare own-q"] == "allowed"
    assert "no_answer" in str(before["amqp", "out-a", "declare erroneous"])
    assert "541" in str(before["amqp", "out-a", "declare crashing"])
    assert before["mqtt", "out-a", VHOST] == 0
    assert "403" in str(before["amqp", "out-fails", VHOST])
    assert len(set(map(str, before.values()))) > 10
    enable(node, *BASE, PLUGIN)
    with reading(node) as stream:
        assert decisions(node) == before
        stream.settle()
        # Only the backend that answers for a user was asked, and what it raised was a refusal.
        refused = {(e.actor.user, e.name) for e in stream.events if e.outcome == REFUSED}
        assert {
            (b"bob", b"other-q"),
            (b"out-a", b"forbidden"),
            (b"out-a", b"erroneous"),
            (b"out-a", b"crashing"),
        } <= refused
        # Alice may do everything, but for the virtual host.
        assert {name for user, name in refused if user == b"alice"} <= {None}
    enable(node, *BASE)
    assert decisions(node) == before


def test_changes_of_permissions_act_at_once_while_it_is_on(node: Node) -> None:
    enable(node, *BASE, PLUGIN)
    with connection(node, "bob", PASSWORD, VHOST) as link:
        with pytest.raises(ChannelClosedByBroker):
            link.channel().queue_declare("new-q", auto_delete=True)
        node.permit("bob", VHOST, ".*", ".*", ".*")
        link.channel().queue_declare("new-q", auto_delete=True)
    node.permit("bob", VHOST, "^own", "^own|^amq.topic$", "^own|^amq.topic$")
    with connection(node, "bob", PASSWORD, VHOST) as link, pytest.raises(ChannelClosedByBroker):
        link.channel().queue_declare("new-q", auto_delete=True)


@pytest.mark.parametrize("order", [(INTERCEPTOR, PLUGIN), (PLUGIN, INTERCEPTOR)], ids=["after", "before"])
def test_another_interceptor_for_the_same_methods_works_beside_it(node: Node, order: tuple[str, str]) -> None:
    with connection(node, "alice", PASSWORD, VHOST) as link:
        early = link.channel()
        enable(node, *BASE, order[0])
        enable(node, *BASE, *order)
        with reading(node) as stream:
            for channel in (early, link.channel()):
                queue = channel.queue_declare("", exclusive=True).method.queue
                channel.queue_bind(queue, "amq.topic", "to")
                channel.basic_publish("amq.topic", "from", b"moved")
                assert channel.basic_get(queue, auto_ack=True)[2] == b"moved"
                channel.queue_delete(queue)
            stream.until(lambda s: len(s.of("alice", PUBLISH)) == 2, "the publishes")
            stream.until(lambda s: any(n.code == "overlap" for n in s.notes), "the note")
            (note,) = {n.detail for n in stream.notes if n.code == "overlap"}
            assert note == "other_interceptor: basic.publish, queue.declare"
            assert {e.name for e in stream.of("alice", PUBLISH)} <= {b"from", b"to"}
        enable(node, *BASE, order[1])
        channel.basic_publish("amq.topic", "from", b"")
        link.channel().queue_declare("", exclusive=True)


def test_what_an_operator_changes_in_the_backends_meanwhile_stays(node: Node) -> None:
    enable(node, *BASE, PLUGIN)
    erlang(
        node,
        "application:set_env(rabbit, auth_backends, [{other_backend, other_backend}, rabbit_auth_backend_internal, 7])",
    )
    with reading(node) as stream:
        stream.until(lambda s: any(n.code == "backend" for n in s.notes), "the note")
        assert {n.detail.strip() for n in stream.notes if n.code == "backend"} == {"7"}
    erlang(
        node,
        "{ok, L} = application:get_env(rabbit, auth_backends), "
        "application:set_env(rabbit, auth_backends, lists:droplast(L))",
    )
    wait_for(lambda: erlang(node, "topicwarden_audit_backend:wrap()") == "[]", "the backends to be wrapped again")
    with connection(node, "out-a", PASSWORD, VHOST), connection(node, "alice", PASSWORD, VHOST):
        pass
    enable(node, *BASE)
    assert backends(node) == "[{other_backend,other_backend},rabbit_auth_backend_internal]"
    erlang(node, f"application:set_env(rabbit, auth_backends, {BACKENDS})")


def test_every_form_of_backends_is_put_back_exactly_as_it_was(node: Node) -> None:
    forms = (
        "[rabbit_auth_backend_internal,{rabbit_auth_backend_internal,rabbit_auth_backend_internal},"
        "{other_backend,[other_backend,rabbit_auth_backend_internal]}]"
    )
    erlang(node, f"application:set_env(rabbit, auth_backends, {forms})")
    enable(node, *BASE, PLUGIN)
    ours = erlang(node, "element(2, application:get_env(rabbit, auth_backends))")
    assert ours.count("topicwarden_audit_backend_") == 6
    enable(node, *BASE)
    assert backends(node) == forms
    erlang(node, f"application:set_env(rabbit, auth_backends, {BACKENDS})")


def test_what_does_not_fit_is_dropped_and_counted(node: Node) -> None:
    enable(node, *BASE, PLUGIN)
    erlang(node, "application:set_env(topicwarden_audit, max_pending, 16), exit(whereis(topicwarden_audit_sink), kill)")
    count = 5000
    with reading(node) as stream, connection(node, "alice", PASSWORD, VHOST) as link:
        channel = link.channel()
        for _ in range(count):
            channel.basic_publish("amq.topic", "flood", b"")
        # Passive, so that the broker has dealt with all of them.
        channel.exchange_declare("amq.topic", passive=True)
        stream.settle()
        last = stream.batches[-1]
        seen = len(stream.of("alice", PUBLISH))
        assert 0 < last.dropped < count
        # The declaration may be among those dropped.
        assert last.dropped - 1 <= count - seen <= last.dropped
        assert (
            last.first_event
            == sum(len(b.events) for b in stream.batches[:-1]) + last.dropped + stream.batches[0].first_event
        )
        # It goes on as if nothing had been.
        channel.basic_publish("amq.topic", "after", b"")
        stream.until(lambda s: s.of("alice", PUBLISH)[-1].name == b"after", "what comes after")
    erlang(
        node, "application:set_env(topicwarden_audit, max_pending, 65536), exit(whereis(topicwarden_audit_sink), kill)"
    )


def test_a_slot_whose_writer_was_killed_costs_one_event_and_nothing_else(node: Node) -> None:
    enable(node, *BASE, PLUGIN)
    with reading(node) as stream, connection(node, "alice", PASSWORD, VHOST) as link:
        channel = link.channel()
        erlang(node, "atomics:add(element(2, topicwarden_audit_ring:current()), 2, 1)")
        for index in range(100):
            channel.basic_publish("amq.topic", f"k{index}", b"")
        stream.until(lambda s: len(s.of("alice", PUBLISH)) == 100, "what stands behind the hole")
        channel.basic_publish("amq.topic", "k0", b"")
        stream.until(lambda s: len(s.of("alice", PUBLISH)) == 101, "what goes into the new ring")
        assert [e.name for e in stream.of("alice", PUBLISH)[:100]] == [f"k{index}".encode() for index in range(100)]
        assert (stream.batches[-1].dropped, stream.unresolved, stream.gaps) == (1, 0, 0)


def test_a_full_table_of_names_begins_an_epoch_and_drops_what_cannot_be_named(node: Node) -> None:
    enable(node, *BASE, PLUGIN)
    with reading(node) as stream, connection(node, "alice", PASSWORD, VHOST) as link:
        channel = link.channel()
        channel.basic_publish("amq.topic", "before", b"")
        stream.until(lambda s: s.of("alice", PUBLISH), "the first publish")
        epoch = stream.batches[-1].epoch
        erlang(node, "atomics:put(element(2, topicwarden_audit_ring:current()), 7, 40000)")
        stream.until(lambda s: s.batches[-1].epoch > epoch, "the next epoch")
        channel.basic_publish("amq.topic", "before", b"")
        stream.until(lambda s: len(s.of("alice", PUBLISH)) == 2, "the name in the next epoch")
        assert (stream.batches[-1].dropped, stream.unresolved, stream.gaps) == (0, 0, 0)


def test_an_event_handler_that_ends_is_put_back(node: Node, expected: list[str]) -> None:
    expected.append("event handler ended")
    enable(node, *BASE, PLUGIN)
    with reading(node) as stream:
        erlang(node, "gen_event:delete_handler(rabbit_event, topicwarden_audit_events, [])")
        wait_for(
            lambda: "topicwarden_audit_events" in erlang(node, "gen_event:which_handlers(rabbit_event)"), "the handler"
        )
        with connection(node, "alice", PASSWORD, VHOST):
            pass
        stream.until(lambda s: s.of("alice", DISCONNECT), "the connection")
        assert len(stream.of("alice", CONNECT, ATTEMPTED)) == 1
    wait_for(lambda: any("event handler ended" in line for line in crashes(node)), "the line in the log")


def test_when_it_cannot_start_the_broker_goes_on_without_it(node: Node, expected: list[str]) -> None:
    expected.append("")  # supervisors report that their children did not start
    enable(node, *BASE, PLUGIN)
    erlang(
        node,
        "application:stop(topicwarden_audit), "
        "register(topicwarden_audit_sink, spawn(fun() -> timer:sleep(infinity) end)), "
        "application:start(topicwarden_audit), exit(whereis(topicwarden_audit_sink), kill)",
    )
    assert PLUGIN in erlang(node, "[Name || {Name, _, _} <- application:which_applications()]")
    assert backends(node) == BACKENDS
    with connection(node, "alice", PASSWORD, VHOST) as link:
        link.channel().queue_declare("", exclusive=True)
    wait_for(lambda: any("could not start, nothing will be recorded" in line for line in crashes(node)), "the line")
    # A name that is none counts as not written.
    erlang(
        node,
        "application:stop(topicwarden_audit), application:set_env(topicwarden_audit, vhost, [-1]), "
        "application:start(topicwarden_audit)",
    )
    with reading(node) as stream, connection(node, "alice", PASSWORD, VHOST):
        stream.until(lambda s: s.of("alice", CONNECT), "the connection")


def test_without_its_virtual_host_it_says_so_once_and_comes_when_that_comes(node: Node, expected: list[str]) -> None:
    expected.append("there is no such virtual host")
    node.api("DELETE", "/vhosts/%2F")
    enable(node, *BASE, PLUGIN)
    with connection(node, "alice", PASSWORD, VHOST) as link:
        link.channel().queue_declare("", exclusive=True)
    time.sleep(2.2)  # two more looks, which must not be two more lines
    complaints = [line for line in crashes(node) if "no stream through exchange" in line]
    assert len(complaints) == 1
    assert "there is no such virtual host" in complaints[0]
    node.add_vhost("/")
    with reading(node) as stream, connection(node, "alice", PASSWORD, VHOST):
        stream.until(lambda s: s.of("alice", CONNECT), "the connection")
