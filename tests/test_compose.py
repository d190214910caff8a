"""What compose/ hands to brokers is what they understand, and as narrow as it says. `./run compose` proves the rest."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
import yaml
from pika.exceptions import ChannelClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from topicwarden.events import Client
from topicwarden.policy import load_policy
from topicwarden_collectors.rabbitmq import demo_plant
from topicwarden_collectors.rabbitmq.node import Node, quoted

COMPOSE = Path(__file__).parents[1] / "compose"
FILES = sorted(COMPOSE.glob("*.yml"))
PLANT: dict[str, Any] = json.loads((COMPOSE / "rabbitmq" / "plant.json").read_text())
USERS = sorted({row["user"] for row in PLANT["permissions"]})
PASSWORD = "pass:w\u00f6rd"


def services(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each service as it will be, what it extends included."""
    for name, service in yaml.safe_load(path.read_text())["services"].items():
        base = service.get("extends")
        found = dict(services(COMPOSE / base["file"]))[base["service"]] if base else {}
        yield name, {**found, **service}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_container_may_write_gain_or_do_anything_special(path: Path) -> None:
    for name, service in services(path):
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_topicwarden_has_no_network_or_one_that_leads_nowhere_else(path: Path) -> None:
    networks = yaml.safe_load(path.read_text()).get("networks", {})
    watchers = [service for name, service in services(path) if name.startswith("topicwarden")]
    assert watchers
    for service in watchers:
        reached = [networks[name] for name in service.get("networks", [])]
        assert service.get("network_mode") == "none" or [one["internal"] for one in reached] == [True]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_volume_and_network_a_service_uses_is_declared(path: Path) -> None:
    whole = yaml.safe_load(path.read_text())
    for name, service in services(path):
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if volume[0] not in "./$"}
        assert named <= set(whole["volumes"]), name
        assert set(service.get("networks", [])) <= set(whole.get("networks", {})), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_a_container_is_given_is_there_or_named_by_a_variable(path: Path) -> None:
    for name, service in services(path):
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (COMPOSE / volume.split(":")[0]).is_file(), (name, volume)


def test_the_policy_knows_everybody_the_node_knows_but_the_auditor() -> None:
    policy = load_policy(COMPOSE / "topicwarden" / "policy.yaml")
    for row in PLANT["permissions"]:
        client = Client("rabbitmq", "amqp", "", row["user"], vhost=row["vhost"])
        assert bool(policy.roles_of(client)) == (row["user"] != demo_plant.AUDITOR), row["user"]


def test_the_auditor_may_do_what_the_demos_may_and_no_more() -> None:
    rows = [row for row in PLANT["permissions"] if row["user"] == demo_plant.AUDITOR]
    audit = demo_plant.AUDIT
    granted = {"configure": audit.configure, "write": audit.write, "read": audit.read}
    assert rows == [{"user": demo_plant.AUDITOR, "vhost": demo_plant.AUDITED_VHOST, **granted}]


def make_users(lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["escript", COMPOSE / "rabbitmq" / "make-users"], input=lines, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def plant(rabbit: Node) -> Iterator[Node]:
    """The shared node, with the users and grants that the containers' node loads."""
    made = make_users("".join(f"{user}:{PASSWORD}\n" for user in USERS))
    assert made.returncode == 0, made.stderr
    rabbit.api("POST", "/definitions", json.loads(made.stdout))
    rabbit.api("POST", "/definitions", PLANT)
    yield rabbit
    for vhost in [row["name"] for row in PLANT["vhosts"] if row["name"] != "/"]:
        rabbit.api("DELETE", f"/vhosts/{quoted(vhost)}")
    for user in USERS:
        rabbit.api("DELETE", f"/users/{quoted(user)}")


def connect(node: Node, user: str, vhost: str, password: str = PASSWORD) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(node.url(user, vhost, password)))


def test_the_node_takes_the_passwords_that_were_hashed_and_no_other(plant: Node) -> None:
    connect(plant, "press-1", "plant").close()
    with pytest.raises(ProbableAuthenticationError):
        connect(plant, "press-1", "plant", PASSWORD + " ")


def test_a_press_may_publish_readings_and_the_historian_takes_them(plant: Node) -> None:
    publishing, taking = connect(plant, "press-2", "plant"), connect(plant, "historian", "plant")
    channel = publishing.channel()
    channel.confirm_delivery()
    channel.basic_publish("readings", "line1.press-2.telemetry", b"20.5")
    assert taking.channel().basic_get("history", auto_ack=True)[2] == b"20.5"
    with pytest.raises(ChannelClosedByBroker, match="access to exchange 'orders'"):
        channel.basic_publish("orders", "line1.press-1.order", b"1")
    publishing.close()
    taking.close()


def test_the_auditor_may_only_have_a_queue_the_node_names(plant: Node) -> None:
    with pytest.raises(ProbableAccessDeniedError):
        connect(plant, demo_plant.AUDITOR, "plant")
    connection = connect(plant, demo_plant.AUDITOR, "/")
    assert connection.channel().queue_declare("", exclusive=True).method.queue.startswith("amq.gen-")
    for exchange in ("amq.topic", "amq.rabbitmq.event", "amq.rabbitmq.log"):
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            channel.queue_bind(queue, exchange, "#")
    connection.close()


@pytest.mark.parametrize("line", ["nobody", ":x", "x:", 'a"b:x', "a b:x", "a\tb:x"])
def test_a_line_that_names_no_user_is_refused_without_its_password(line: str) -> None:
    made = make_users(f"ok:secret\n{line}\n")
    assert made.returncode == 2
    assert made.stdout == ""
    assert made.stderr.startswith("error: ")
    assert "secret" not in made.stderr
