"""The command line before a real RabbitMQ node: what goes wrong for ourselves is one clear error, and exit code 3."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.brokers import free_port
from tests.cli.program import findings, run, watch
from topicwarden_collectors.rabbitmq.node import Node

VHOST = "cli"
AUDITOR = "cli-auditor"
READS = "^(amq\\.gen-.*|amq\\.rabbitmq\\.(trace|event|log)|amq\\.topicwarden\\.audit)$"
POLICY = """
topicwarden: 1
roles:
  clerk:
    members: [{user: cli-clerk, vhost: cli}]
    publish: [{exchange: orders, key: "order.#"}]
    configure: [{exchange: orders}]
"""


@pytest.fixture(scope="module")
def node(rabbit: Node) -> Iterator[Node]:
    rabbit.add_vhost(VHOST)
    rabbit.add_user(AUDITOR, "pw")
    for vhost in ("/", VHOST):
        rabbit.permit(AUDITOR, vhost, "^amq\\.gen-.*$", "^amq\\.gen-.*$", READS)
    rabbit.add_user("cli-clerk", "pw")
    rabbit.permit("cli-clerk", VHOST, ".*", ".*", ".*")
    rabbit.trace(VHOST, True)
    yield rabbit
    rabbit.api("DELETE", f"/vhosts/{VHOST}")
    for user in (AUDITOR, "cli-clerk"):
        rabbit.api("DELETE", f"/users/{user}")


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("pw\n")
    return path


@pytest.mark.parametrize(
    ("source", "secret", "says"),
    [
        ("amqp://cli-auditor@127.0.0.1:PORT", "wrong", "does not let us in as 'cli-auditor': login refused"),
        ("amqp://cli-auditor@127.0.0.1:PORT?mode=stock", "wrong", "does not let us in as 'cli-auditor': login refused"),
        (
            "amqp://cli-auditor@127.0.0.1:PORT?mode=plugin",
            "wrong",
            "does not let us in as 'cli-auditor': login refused",
        ),
        ("amqp://cli-auditor@127.0.0.1:PORT?mode=plugin", "pw", "there is no exchange 'amq.topicwarden.audit'"),
        ("amqp://cli-auditor@127.0.0.1:PORT/nowhere", "pw", "has no virtual host 'nowhere'"),
        ("amqp://cli-auditor@127.0.0.1:PORT?mode=stock&firehose=nowhere", "pw", "nowhere"),
        ("amqps://cli-auditor@127.0.0.1:PORT", "pw", "no TLS connection to amqps://127.0.0.1:PORT"),
        ("amqp://cli-auditor@127.0.0.1:CLOSED", "pw", "cannot be reached: Connection refused"),
        ("amqp://cli-auditor@127.0.0.1:MQTT", "pw", "127.0.0.1:MQTT"),
    ],
)
def test_what_keeps_us_out_is_one_clear_error_and_exit_code_3(
    node: Node, tmp_path: Path, source: str, secret: str, says: str
) -> None:
    (tmp_path / "password").write_text(f"{secret}\n")
    ports = {"PORT": node.ports.amqp, "MQTT": node.ports.mqtt, "CLOSED": free_port()}
    for word, port in ports.items():
        source, says = source.replace(word, str(port)), says.replace(word, str(port))
    done = run("watch", "--no-state", "--for", "30", "--password-file", tmp_path / "password", source)
    assert done.returncode == 3, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert secret not in errors[0].replace("password", "")


def test_a_node_without_the_plugin_is_watched_in_stock_mode_and_a_recording_gives_the_same(
    node: Node, tmp_path: Path, password: Path
) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    source = f"amqp://{AUDITOR}@127.0.0.1:{node.ports.amqp}?firehose={VHOST}"
    arguments: list[str | Path] = ["--policy", tmp_path / "policy.yaml", "-f", "jsonl"]
    recording = tmp_path / "events.arrow"
    with watch(*arguments, "--record", recording, "--no-state", "--password-file", password, source) as live:
        live.wait_for("stock mode")
        for _ in range(20):
            # Again and again: what happened before its queue was bound is not there to be seen.
            _publish(node)
            with contextlib.suppress(AssertionError):
                live.wait_for("TW201", 1)
                break
        live.process.send_signal(signal.SIGINT)
        assert live.process.wait(20) == 1
    checked = run("check", *arguments, recording)
    assert checked.returncode == 1
    seen, again = _of_the_clerk(live.stdout), _of_the_clerk(checked.stdout)
    assert "TW201" in [one["code"] for one in seen]
    assert seen == again


def test_a_log_is_told_by_its_lines_whatever_it_is_called(tmp_path: Path) -> None:
    log = tmp_path / "broker.log"
    log.write_text(
        "2026-11-23 12:00:00.000001+00:00 [error] <0.1054.0> Channel error on connection <0.1050.0> (127.0.0.1:49242 "
        "-> 127.0.0.1:25672, vhost: 'prod', user: 'alice'), channel 2:\n"
        "2026-11-23 12:00:00.000001+00:00 [error] <0.1054.0> operation basic.publish caused a channel exception "
        "access_refused: access to exchange 'orders' in vhost 'prod' refused for user 'alice'\n"
    )
    for source in (str(log), f"log:{log}"):
        done = run("check", source)
        assert done.returncode == 0, done.stderr
        assert "RabbitMQ log" in done.stdout
        assert " 1  denied" in done.stdout
        refused = run("watch", "--no-state", source)
        assert refused.returncode == 2
        assert "topicwarden check" in refused.stderr


def _publish(node: Node) -> None:
    with pika.BlockingConnection(pika.URLParameters(node.url("cli-clerk", VHOST, "pw"))) as connection:
        channel = connection.channel()
        channel.exchange_declare("orders", "topic")
        channel.basic_publish("orders", "order.1", b"xyzzy")
        channel.basic_publish("orders", "refund.1", b"xyzzy")


def _of_the_clerk(stdout: str) -> list[dict[str, Any]]:
    """Return the findings about our own client: other tests share the node."""
    return [one for one in findings(stdout) if (one["client"] or {}).get("user") == "cli-clerk"]
