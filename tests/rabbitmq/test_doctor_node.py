"""The doctor and a running node: what it asks, and whether what it says of RabbitMQ is so."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest

from tests.brokers import wait_for
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.sources import Advice, DoctorReport, SourceOptions
from topicwarden_collectors.rabbitmq.conf import read_configuration
from topicwarden_collectors.rabbitmq.definitions import read_definitions
from topicwarden_collectors.rabbitmq.doctor import CHECKS, diagnose
from topicwarden_collectors.rabbitmq.doctor_examination import Examination
from topicwarden_collectors.rabbitmq.doctor_grants import check_grants
from topicwarden_collectors.rabbitmq.doctor_streams import check_streams
from topicwarden_collectors.rabbitmq.node import Node, quoted, running_node

VHOST = "doctor"
MINIMAL = (
    r"^amq\.gen-.*$",
    r"^amq\.gen-.*$",
    r"^(amq\.gen-.*|amq\.rabbitmq\.(trace|event|log)|amq\.topicwarden\.audit)$",
)


@pytest.fixture
def vhost(rabbit: Node) -> Iterator[str]:
    rabbit.add_vhost(VHOST)
    yield VHOST
    rabbit.api("DELETE", f"/vhosts/{VHOST}")
    for name in [user["name"] for user in rabbit.api("GET", "/users") if user["name"].startswith("doctor-")]:
        rabbit.api("DELETE", f"/users/{quoted(name)}")


def ask(node: Node, folder: Path, user: str, password: str, rest: str = "", port: int | None = None) -> DoctorReport:
    (folder / "password").write_text(password + "\n")
    address = f"amqp://{quoted(user)}@127.0.0.1:{port or node.ports.amqp}{rest}"
    return diagnose(address, SourceOptions(password_file=folder / "password"))


def loud(report: DoctorReport) -> set[tuple[str, str]]:
    return {(advice.level, advice.check) for advice in report.advice if advice.level != "ok"}


def said(report: DoctorReport, check: str) -> Sequence[Advice]:
    return [advice for advice in report.advice if advice.check == check and advice.level != "ok"]


def test_a_minimal_account_learns_what_can_be_seen_and_is_not_blamed(rabbit: Node, vhost: str, tmp_path: Path) -> None:
    rabbit.add_user("doctor-minimal", "p", "monitoring")
    for where in ("/", vhost):
        rabbit.permit("doctor-minimal", where, *MINIMAL)
    (tmp_path / "d.json").write_text(json.dumps(rabbit.api("GET", "/definitions")))
    management = f"management=http://127.0.0.1:{rabbit.ports.management}"
    report = ask(rabbit, tmp_path, "doctor-minimal", "p", f"/{vhost}?{management}&definitions={tmp_path}/d.json")
    checks = {advice.check for advice in report.advice if advice.level == "ok"}
    assert {"events.exchange", "log.exchange", "account.minimal", "listener.plain-text", "stream.forged"} <= checks
    assert ("note", "plugin.enabled") in loud(report)
    assert ("note", "trace.on") in loud(report)
    assert repr(vhost) in said(report, "vhosts.seen")[0].message
    assert report.title == f"rabbitmq: amqp://127.0.0.1:{rabbit.ports.amqp}/{vhost} (RabbitMQ 3.10.8)"
    assert all(advice.check in CHECKS for advice in report.advice)


def test_an_account_without_definitions_finds_forgeries_where_it_may_enter(
    rabbit: Node, vhost: str, tmp_path: Path
) -> None:
    rabbit.add_user("doctor-minimal", "p", "monitoring")
    rabbit.permit("doctor-minimal", vhost, *MINIMAL)
    where = f"/{vhost}?management=http://127.0.0.1:{rabbit.ports.management}"
    assert not said(ask(rabbit, tmp_path, "doctor-minimal", "p", where), "stream.forged")
    rabbit.api("POST", f"/bindings/{vhost}/e/amq.topic/e/amq.rabbitmq.trace", {"routing_key": "publish.x"})
    with_forgery = ask(rabbit, tmp_path, "doctor-minimal", "p", where)
    (advice,) = said(with_forgery, "stream.forged")
    assert advice.level == "problem"
    assert repr(vhost) in advice.message
    assert any(spot.what.startswith("users and permissions:") for spot in with_forgery.blind_spots)


def test_without_management_it_says_what_it_was_not_told(rabbit: Node, vhost: str, tmp_path: Path) -> None:
    rabbit.add_user("doctor-plain", "p")
    rabbit.permit("doctor-plain", vhost, "", "", "")
    report = ask(rabbit, tmp_path, "doctor-plain", "p", f"/{vhost}")
    assert {("note", "account.minimal"), ("note", "vhosts.seen"), ("note", "events.exchange")} <= loud(report)
    assert "may not enter the virtual host '/'" in said(report, "events.exchange")[0].message
    assert any("whether our own account may do more" in spot.what for spot in report.blind_spots)
    assert any("whether tracing is on" in spot.what for spot in report.blind_spots)


def test_asking_changes_nothing_at_the_node(rabbit: Node, vhost: str, tmp_path: Path) -> None:
    def state() -> object:
        exchanges, queues = rabbit.api("GET", "/exchanges"), rabbit.api("GET", "/queues")
        return sorted((row["vhost"], row["name"]) for row in exchanges + queues), rabbit.api("GET", "/definitions")

    before = state()
    management = f"management=http://127.0.0.1:{rabbit.ports.management}"
    ask(rabbit, tmp_path, "operator", rabbit.password, f"/{vhost}?{management}")
    assert state() == before


def test_an_account_that_may_too_much_is_told_so_and_cured_by_the_lines(
    rabbit: Node, vhost: str, tmp_path: Path
) -> None:
    rabbit.add_user("doctor-much", "p", "administrator")
    rabbit.permit("doctor-much", vhost, "", "^amq\\.topic$", ".*")
    management = f"management=http://127.0.0.1:{rabbit.ports.management}"
    report = ask(rabbit, tmp_path, "doctor-much", "p", f"/{vhost}?{management}")
    advice = said(report, "account.minimal")
    assert "'administrator'" in advice[0].message
    assert "write 'amq.topic', read 'amq.default'" in advice[1].message
    for one in advice:
        rabbitmqctl(rabbit, one.fix)
    assert rabbit.api("GET", "/users/doctor-much")["tags"] == ["monitoring"]
    (tmp_path / "d.json").write_text(json.dumps(rabbit.api("GET", "/definitions")))
    report = ask(rabbit, tmp_path, "doctor-much", "p", f"/{vhost}?{management}&definitions={tmp_path}/d.json")
    assert not said(report, "account.minimal")


def rabbitmqctl(node: Node, fix: str | None) -> None:
    """Follow a fix made of rabbitmqctl commands."""
    assert fix is not None
    for line in fix.split("\n"):
        program, *arguments = shlex.split(line, comments=True) or [""]
        if program == "rabbitmqctl":
            node.script(program, *arguments)
        elif program == "rabbitmqadmin":
            rabbitmqadmin(node, arguments)
        else:
            assert not program, line


def rabbitmqadmin(node: Node, words: Sequence[str]) -> None:
    """Do what rabbitmqadmin does with such words (the program needs a Python of its own)."""
    vhost = quoted(words[0].removeprefix("--vhost="))
    named = dict(word.split("=", 1) for word in words[3:])
    match words[1:3]:
        case ["delete", "binding"]:
            kind = named["destination_type"][0]
            path = f"/bindings/{vhost}/e/{quoted(named['source'])}/{kind}/{quoted(named['destination'])}"
            node.api("DELETE", f"{path}/{quoted(named['properties_key'])}")
        case ["delete", "exchange"]:
            node.api("DELETE", f"/exchanges/{vhost}/{quoted(named['name'])}")
        case _:
            raise AssertionError(words)


# One clear error ------------------------------------------------------------------------------------------------------


def test_a_wrong_password_vhost_or_port_is_one_clear_error_without_the_secret(rabbit: Node, tmp_path: Path) -> None:
    cases: list[Callable[[], object]] = [
        lambda: ask(rabbit, tmp_path, "operator", "wr0ng-secret"),
        lambda: ask(rabbit, tmp_path, "operator", rabbit.password, "/no-such-vhost"),
        lambda: ask(rabbit, tmp_path, "operator", "wr0ng-secret", port=rabbit.ports.epmd + 1),
        lambda: ask(rabbit, tmp_path, "operator", rabbit.password, "/?management=http://127.0.0.1:1"),
    ]
    for case in cases:
        with pytest.raises(ObservationError) as caught:
            case()
        (problem,) = caught.value.problems
        assert problem.hint
        assert rabbit.password not in str(problem)
        assert "wr0ng-secret" not in str(problem)
    with pytest.raises(ConfigurationError):
        diagnose("amqp://operator:secret@127.0.0.1", SourceOptions())


class _Elsewhere(BaseHTTPRequestHandler):
    """Sends everybody somewhere else, or answers with nonsense."""

    seen: list[str | None] = []  # noqa: RUF012 - the server's handlers share it
    target = ""

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization"))
        if self.target:
            self.send_response(302)
            self.send_header("Location", self.target)
            self.end_headers()
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'[{"name": 5, "tags": {}}, 7, {"enabled_plugins": 1, "listeners": [1, {}]}]')

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("redirect", [True, False])
def test_our_password_follows_no_redirection_and_nonsense_is_no_crash(
    rabbit: Node, tmp_path: Path, redirect: bool
) -> None:
    class Second(_Elsewhere):
        seen: list[str | None] = []  # noqa: RUF012 - as above

    class First(_Elsewhere):
        seen: list[str | None] = []  # noqa: RUF012 - as above

    with HTTPServer(("127.0.0.1", 0), First) as first, HTTPServer(("127.0.0.1", 0), Second) as second:
        First.target = f"http://127.0.0.1:{second.server_port}/x" if redirect else ""
        threads = [threading.Thread(target=server.serve_forever, args=[0.05]) for server in (first, second)]
        for thread in threads:
            thread.start()
        try:
            where = f"/?management=http://127.0.0.1:{first.server_port}"
            report = ask(rabbit, tmp_path, "operator", rabbit.password, where)
        finally:
            for server in (first, second):
                server.shutdown()
            for thread in threads:
                thread.join()
    assert First.seen
    assert not Second.seen
    assert ("note", "account.minimal") in loud(report)


# What the doctor says of RabbitMQ, asked of RabbitMQ ------------------------------------------------------------------

PEOPLE = {
    "doctor-all": (".*", ".*", ".*"),
    "doctor-reader": ("^amq\\.gen", "^amq\\.gen", "^(amq\\.gen|amq\\.rabbitmq\\.trace$)"),
    "doctor-no-queue": ("", "", "^amq\\.rabbitmq\\.trace$"),
    "doctor-binder": ("", "^(amq\\.rabbitmq\\.trace|amq\\.topic)$", "^amq\\.topic$"),
    "doctor-declarer": ("^own", "^(own|amq\\.rabbitmq)", "^own"),
    "doctor-writer": ("", "^amq\\.rabbitmq\\.trace$", ""),
    "doctor-none": ("^own", "^own", "^own"),
}


def test_who_is_said_to_read_and_forge_does_and_who_is_not_does_not(rabbit: Node, vhost: str) -> None:
    for user, permission in PEOPLE.items():
        rabbit.add_user(user, "p")
        rabbit.permit(user, vhost, *permission)
    rabbit.api("PUT", f"/queues/{vhost}/own-q", {"durable": True})
    rabbit.api("PUT", f"/exchanges/{vhost}/own-x", {"type": "fanout", "durable": True})
    examination = Examination()
    check_streams(examination, read_definitions(json.dumps(rabbit.api("GET", "/definitions"))))
    mine = [advice for advice in examination.advice if advice.level == "warning" and repr(vhost) in advice.message]
    readers = {name for name in PEOPLE for one in mine if one.check == "stream.readable" and repr(name) in one.message}
    forgers = {name for name in PEOPLE for one in mine if one.check == "stream.forgeable" and repr(name) in one.message}
    assert readers == {"doctor-all", "doctor-reader", "doctor-no-queue"}
    assert forgers == {"doctor-all", "doctor-binder", "doctor-declarer"}
    assert {name for name in PEOPLE if reads(rabbit, vhost, name)} == readers - {"doctor-no-queue"}
    assert [one for one in mine if "'doctor-no-queue'" in one.message and "once it has a queue" in one.message]
    assert {name for name in PEOPLE if forges(rabbit, vhost, name)} == forgers
    for advice in mine:
        rabbitmqctl(rabbit, advice.fix)
    assert not {name for name in PEOPLE if reads(rabbit, vhost, name) or forges(rabbit, vhost, name)}


def attempt(node: Node, vhost: str, user: str, act: Callable[[Any], object]) -> bool:
    connection = pika.BlockingConnection(pika.URLParameters(node.url(user, vhost, "p")))
    try:
        act(connection.channel())
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 403:
            raise
        return False
    finally:
        connection.close()
    return True


def reads(node: Node, vhost: str, user: str) -> bool:
    """Whether a user gets a queue of his own bound to the firehose."""

    def act(channel: Any) -> None:
        name = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(name, "amq.rabbitmq.trace", "#")

    return attempt(node, vhost, user, act)


def forges(node: Node, vhost: str, user: str) -> bool:
    """Whether a user leads messages into the firehose, in one of the ways; each is undone by the administrator."""

    def bind(channel: Any) -> None:
        channel.exchange_bind("amq.rabbitmq.trace", "amq.topic", "doctor")

    def alternate(channel: Any) -> None:
        arguments = {"alternate-exchange": "amq.rabbitmq.trace"}
        channel.exchange_declare("own-forged", "fanout", durable=True, arguments=arguments)

    def dead_letter(channel: Any) -> None:
        channel.queue_declare("own-forged", durable=True, arguments={"x-dead-letter-exchange": "amq.rabbitmq.trace"})

    done = [attempt(node, vhost, user, act) for act in (bind, alternate, dead_letter)]
    if done[0]:
        node.api("DELETE", f"/bindings/{vhost}/e/amq.topic/e/amq.rabbitmq.trace/doctor")
    if done[1]:
        node.api("DELETE", f"/exchanges/{vhost}/own-forged")
    if done[2]:
        node.api("DELETE", f"/queues/{vhost}/own-forged")
    return any(done)


def test_what_leads_into_the_audit_streams_is_found_and_the_lines_take_it_away(rabbit: Node, vhost: str) -> None:
    rabbit.api("PUT", f"/exchanges/{vhost}/x", {"type": "topic", "durable": True})
    rabbit.api("PUT", f"/queues/{vhost}/spy", {"durable": True})
    forged = {"alternate-exchange": "amq.rabbitmq.trace"}
    rabbit.api("PUT", f"/exchanges/{vhost}/ax", {"type": "topic", "durable": True, "arguments": forged})
    dead = {"x-dead-letter-exchange": "amq.rabbitmq.trace"}
    rabbit.api("PUT", f"/queues/{vhost}/dq", {"durable": True, "arguments": dead})
    policy = {"pattern": "^never$", "definition": {"dead-letter-exchange": "amq.rabbitmq.trace"}, "apply-to": "queues"}
    rabbit.api("PUT", f"/policies/{vhost}/dlp", policy)
    for key in ("", "a/b~c d%e", "#", "é"):
        rabbit.api("POST", f"/bindings/{vhost}/e/x/e/amq.rabbitmq.trace", {"routing_key": key})
    rabbit.api("POST", f"/bindings/{vhost}/e/amq.rabbitmq.trace/q/spy", {"routing_key": "#"})

    def found() -> list[Advice]:
        examination = Examination()
        definitions = read_definitions(json.dumps(rabbit.api("GET", "/definitions")))
        check_streams(examination, definitions)
        check = ("stream.forged", "stream.bound")
        return [one for one in examination.advice if one.check in check and repr(vhost) in one.message]

    advice = found()
    assert len(advice) == 4 + 3 + 1
    assert {one.level for one in advice if one.check == "stream.forged"} == {"problem"}
    for one in advice:
        rabbitmqctl(rabbit, one.fix)
    assert not found()


def test_the_topic_permission_the_doctor_warns_of_is_bypassed_by_cc_and_by_a_client_id(
    rabbit: Node, vhost: str, tmp_path: Path
) -> None:
    rabbit.add_user("doctor-mqtt", "p")
    rabbit.permit("doctor-mqtt", vhost, ".*", ".*", ".*")
    rabbit.permit_topics("doctor-mqtt", vhost, "amq.topic", "^dev\\.{client_id}\\.", ".*")
    listener = pika.BlockingConnection(pika.URLParameters(rabbit.url(vhost=vhost)))
    channel = listener.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "amq.topic", "dev.victim.#")

    def mqtt(client_id: str, topic: str) -> bool:
        command = ["mosquitto_pub", "-p", str(rabbit.ports.mqtt), "-u", f"{vhost}:doctor-mqtt", "-P", "p", "-q", "1"]
        subprocess.run(
            [*command, "-i", client_id, "-t", topic, "-m", "x"], capture_output=True, check=False, timeout=20
        )
        return channel.basic_get(queue, auto_ack=True)[0] is not None

    assert not mqtt("mine", "dev/victim/set")
    assert mqtt("mine|dev", "dev/victim/set")
    rabbit.permit_topics("doctor-mqtt", vhost, "amq.topic", "^dev\\.mine\\.", ".*")

    def copied(sender: Any) -> None:
        headers: dict[str, Any] = {"CC": ["dev.victim.set"]}
        sender.confirm_delivery()
        sender.basic_publish("amq.topic", "dev.mine.x", b"", pika.BasicProperties(headers=headers))

    def direct(sender: Any) -> None:
        sender.confirm_delivery()
        sender.basic_publish("amq.topic", "dev.victim.set", b"")

    assert not attempt(rabbit, vhost, "doctor-mqtt", direct)
    assert attempt(rabbit, vhost, "doctor-mqtt", copied)
    assert channel.basic_get(queue, auto_ack=True)[0] is not None
    listener.close()
    rabbit.permit_topics("doctor-mqtt", vhost, "amq.topic", "^dev\\.{client_id}\\.", ".*")
    examination = Examination()
    check_grants(examination, read_definitions(json.dumps(rabbit.api("GET", "/definitions"))))
    messages = [one.message for one in examination.advice if one.check in ("topic.client-id", "server.version")]
    assert any("'doctor-mqtt'" in message for message in messages)
    assert any("CC and BCC" in message for message in messages)


def test_a_topic_permission_on_another_type_of_exchange_does_nothing_as_said(rabbit: Node, vhost: str) -> None:
    rabbit.add_user("doctor-direct", "p")
    rabbit.permit("doctor-direct", vhost, "", ".*", "")
    rabbit.permit_topics("doctor-direct", vhost, "amq.direct", "^never$", "^never$")

    def act(channel: Any) -> None:
        channel.confirm_delivery()
        channel.basic_publish("amq.direct", "anything", b"")

    assert attempt(rabbit, vhost, "doctor-direct", act)
    examination = Examination()
    check_grants(examination, read_definitions(json.dumps(rabbit.api("GET", "/definitions"))))
    assert any(one.check == "topic.no-effect" and "'doctor-direct'" in one.message for one in examination.advice)


def test_an_impersonator_publishes_under_anothers_name_and_nobody_else_does(rabbit: Node, vhost: str) -> None:
    def act(channel: Any) -> None:
        channel.confirm_delivery()
        channel.basic_publish("amq.topic", "k", b"", pika.BasicProperties(user_id="operator"))

    for user, tags in (("doctor-actor", "impersonator"), ("doctor-honest", "")):
        rabbit.add_user(user, "p", tags)
        rabbit.permit(user, vhost, "", ".*", "")
    assert attempt(rabbit, vhost, "doctor-actor", act)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker):  # 406: precondition failed
        attempt(rabbit, vhost, "doctor-honest", act)


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose own files the doctor is asked about; `conf.d` and others are read by the node too."""
    folder = tmp_path_factory.mktemp("configured")
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "10-first.conf").write_text("heartbeat = 41\ndefault_vhost = first\n")
    (folder / "conf.d" / "20-last.conf").write_text("default_vhost = doctors\nloopback_users.other = true\n")
    (folder / "inner.conf").write_text("heartbeat = 42\nchannel_max = 77 # why\n")
    config = ["channel_max = 12", "mqtt.allow_anonymous = true", "include inner.conf"]
    config += ["mqtt.default_user = guest", "mqtt.default_pass = guest"]
    advanced = '[{rabbit, [{trace_vhosts, [<<"doctors">>]}, {heartbeat, 43}]}].\n'
    with running_node(folder, config=config, advanced=advanced, start=False) as node:
        text = (folder / "rabbitmq.conf").read_text().replace("loopback_users = none\n", "")
        (folder / "rabbitmq.conf").write_text(text)
        # The packaged node looks beside its default configuration; this one is told where.
        node.environment = {**node.environment, "RABBITMQ_CONFIG_FILES": str(folder / "conf.d")}
        node.start()
        yield node


def test_the_files_of_a_node_mean_to_the_doctor_what_they_mean_to_the_node(configured: Node) -> None:
    ours = read_configuration(str(configured.folder))
    program = """io:format("~p ~p ~p ~p ~p~n", [application:get_env(rabbit, K) ||
        K <- [channel_max, default_vhost, loopback_users, trace_vhosts, heartbeat]])."""
    theirs = configured.script("rabbitmqctl", "eval", program)
    values = re.findall(r"\{ok,(.*?)\}(?=\s)", theirs.replace("\n", " ") + " ")
    assert values == ["77", '<<"doctors">>', '[<<"other">>]', '[<<"doctors">>]', "43"]
    found = {key: one.value for key, one in ours.settings.items()}
    assert (found["channel_max"], found["default_vhost"], found["loopback_users.other"]) == ("77", "doctors", "true")
    assert (found["heartbeat"], ours.term("rabbit", "heartbeat")) == ("41", 43)
    assert ours.term("rabbit", "trace_vhosts") == ["doctors"]
    assert (ours.refused, ours.unread) == ([], [])
    report = diagnose(str(configured.folder))
    assert ("warning", "guest.remote") in loud(report)
    assert "'doctors'" in said(report, "trace.on")[0].message


def test_tracing_named_in_advanced_config_is_on_after_a_start_and_no_other(configured: Node) -> None:
    configured.add_vhost("untraced")
    traced = {row["name"]: row["tracing"] for row in configured.api("GET", "/vhosts")}
    assert traced == {"doctors": True, "untraced": False}


def test_mqtt_and_stomp_clients_without_a_login_are_the_default_user(configured: Node) -> None:
    configured.add_user("guest", "guest")
    configured.permit("guest", "doctors", ".*", ".*", ".*")
    configured.add_vhost("/")
    configured.permit("guest", "/", ".*", ".*", ".*")
    done = subprocess.run(
        ["mosquitto_pub", "-p", str(configured.ports.mqtt), "-i", "nobody", "-t", "a", "-m", "x", "-q", "1"],
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    with socket.create_connection(("127.0.0.1", configured.ports.stomp), 10) as stomp:
        stomp.sendall(b"CONNECT\naccept-version:1.2\n\n\0")
        assert stomp.recv(1000).startswith(b"CONNECTED")
    messages = [one.message for one in said(diagnose(str(configured.folder)), "login.anonymous")]
    assert any(message.startswith("MQTT clients without a login are let in as 'guest'") for message in messages)
    assert any(message.startswith("STOMP clients without a login are let in as 'guest'") for message in messages)


def test_the_event_exchange_is_the_default_virtual_hosts(configured: Node) -> None:
    def there() -> set[str]:
        return {row["vhost"] for row in configured.api("GET", "/exchanges") if row["name"] == "amq.rabbitmq.event"}

    wait_for(there, "the event exchange")
    assert there() == {"doctors"}
