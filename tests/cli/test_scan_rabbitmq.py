"""`topicwarden scan` before a real RabbitMQ node: what it would allow, and whether it agrees with what we say of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from tests.cli.program import findings, run
from topicwarden_collectors.rabbitmq.node import Node

VHOST = "scanned"
CLERK = "scan-clerk"
POLICY = """\
topicwarden: 1
roles:
  clerk:
    members: [{user: scan-clerk, vhost: scanned}]
    publish: [{exchange: orders, key: "order.#"}]
    consume: [{queue: desk}, {queue: archive}]
"""


@pytest.fixture(scope="module")
def node(rabbit: Node) -> Iterator[Node]:
    rabbit.add_vhost(VHOST)
    rabbit.add_user(CLERK, "clerk-secret")
    rabbit.api("PUT", f"/exchanges/{VHOST}/orders", {"type": "topic", "durable": True})
    for queue in ("desk", "archive"):
        rabbit.api("PUT", f"/queues/{VHOST}/{queue}", {"durable": True})
    rabbit.api("POST", f"/bindings/{VHOST}/e/orders/q/desk", {"routing_key": "#"})
    rabbit.permit(CLERK, VHOST, "^$", "^ord", "^desk")
    yield rabbit
    rabbit.api("DELETE", f"/vhosts/{VHOST}")
    rabbit.api("DELETE", f"/users/{CLERK}")


def test_a_running_node_is_read_and_asked_and_nobody_receives_anything(node: Node, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "password").write_text(f"{node.password}\n")
    (tmp_path / "credentials").write_text(f"{CLERK}:clerk-secret\n")
    source = f"amqp://operator@127.0.0.1:{node.ports.amqp}?management=http://127.0.0.1:{node.ports.management}"
    done = run(
        *("scan", "--policy", tmp_path / "policy.yaml", "-f", "jsonl", "--password-file", tmp_path / "password"),
        *("--witness-check", f"amqp://127.0.0.1:{node.ports.amqp}", "--credentials", tmp_path / "credentials", source),
    )
    assert done.returncode == 1, done.stderr
    mine = [f for f in findings(done.stdout) if f["client"] is not None and f["client"]["user"] == CLERK]
    told = {(f["code"], f["evidence"].get("grant")): f for f in mine}
    write = told["TW101", "write '^ord'"]
    assert next(one["name"] for one in write["witnesses"]).startswith("publish to exchange ord")
    assert write["evidence"]["broker_says"] == "confirmed by the running broker"
    assert "set_permissions" in write["evidence"]["instead"]
    read = told["TW101", "read '^desk'"]
    assert read["evidence"]["broker_says"] == "confirmed by the running broker"
    (missing,) = [f for f in mine if f["code"] == "TW103"]
    assert [one["name"] for one in missing["witnesses"]] == ["receive from queue archive"]
    assert missing["evidence"]["broker_says"] == "confirmed by the running broker"
    assert "clerk-secret" not in done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["grants"][0]["refuted"] == 0
    # To ask whether the clerk may publish to orders must not have filled the desk.
    connection = pika.BlockingConnection(pika.URLParameters(node.url(vhost=VHOST)))
    try:
        assert connection.channel().queue_declare("desk", passive=True).method.message_count == 0
    finally:
        connection.close()


def test_an_account_that_may_not_read_the_grants_is_one_clear_error(node: Node, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("clerk-secret\n")
    source = f"amqp://{CLERK}@127.0.0.1:{node.ports.amqp}?management=http://127.0.0.1:{node.ports.management}"
    done = run("scan", "--password-file", tmp_path / "password", source)
    assert done.returncode == 3, done.stderr
    assert "hint: " in done.stderr
    assert "clerk-secret" not in done.stderr


def test_a_node_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x\n")
    done = run("scan", "--password-file", tmp_path / "password", "amqp://a@127.0.0.1:1?management=http://127.0.0.1:1")
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
