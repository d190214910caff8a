"""The demo as a whole on a node of its own, with the firehose and the node's log as witnesses."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.brokers import port_answers, wait_for
from tests.cli.program import PROGRAM, environment
from topicwarden.cli.demo import run
from topicwarden_collectors.rabbitmq import demo, demo_deviations
from topicwarden_collectors.rabbitmq.demo_plant import PLANTED, VHOST, WELL_BEHAVED
from topicwarden_collectors.rabbitmq.node import Node

SECONDS = 6.0


@dataclass
class Shown:
    """What a run of the demo left."""

    node: Node
    exit_code: int = -1
    output: str = ""
    published: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By user, exchange and routing key, those of CC headers included, as the firehose has them."""
    delivered: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By user and queue."""
    permissions: list[dict[str, str]] = field(default_factory=list)
    log: str = ""
    server: int = 0
    folder: Path = Path()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("demo")
    seen: list[Shown] = []
    start = demo.start

    @contextlib.contextmanager
    def witnessed(folder: Path) -> Iterator[demo.RabbitDemo]:
        with start(folder, SECONDS) as running:
            result = Shown(running.node, server=running.node.pid, folder=folder)
            seen.append(result)
            running.node.trace(VHOST, True)
            witness = pika.BlockingConnection(pika.URLParameters(running.node.url(vhost=VHOST)))
            channel = witness.channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            for key in ("publish.#", "deliver.#"):
                channel.queue_bind(queue, "amq.rabbitmq.trace", key)
            yield running
            _take(channel, queue, result)
            witness.close()
            result.permissions = running.node.api("GET", f"/vhosts/{VHOST}/permissions")
            result.log = running.node.log.read_text()

    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        patch.setattr(demo, "start", witnessed)
        exit_code = run("rabbitmq", folder)
    result = seen[0]
    result.exit_code, result.output = exit_code, output.getvalue()
    return result


def _take(channel: BlockingChannel, queue: str, result: Shown) -> None:
    """Take all the firehose has put into the queue."""
    while True:
        method, properties, _ = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return
        assert properties is not None
        assert method.routing_key is not None
        headers: Mapping[str, Any] = properties.headers or {}
        if method.routing_key.startswith("publish."):
            for key in headers["routing_keys"]:
                result.published[headers["user"], headers["exchange_name"], key] += 1
        else:
            result.delivered[headers["user"], method.routing_key.removeprefix("deliver.")] += 1


def test_every_planted_deviation_is_found_and_nobody_else_accused(shown: Shown) -> None:
    assert "MISSED" not in shown.output, shown.output
    assert "ACCUSED WRONGLY" not in shown.output, shown.output
    assert shown.output.count("\nfound  ") == len(PLANTED) + 1, shown.output
    assert shown.exit_code == 0, shown.output


def test_every_client_that_behaves_did_something_the_broker_saw(shown: Shown) -> None:
    active = {user for user, *_ in [*shown.published, *shown.delivered]}
    assert set(WELL_BEHAVED) <= active
    assert shown.delivered["historian", "history"] > 20
    assert shown.delivered["dashboard", "dashboard.live"] > 20
    for user in WELL_BEHAVED:
        if user.startswith(("press", "scale")):
            assert shown.delivered[user, f"orders.{user}"] > 0, user


def test_every_deviation_really_happened(shown: Shown) -> None:
    published = shown.published
    assert published["press-11", "orders", "line1.press-1.order"] == 3
    assert published["press-16", "readings", "line1.press-1.telemetry"] == 3
    assert published["sensor-11", "amq.topic", "plant.hall.sensor-1.command"] == 3
    assert published["sensor-12", "amq.topic", "plant.Hall_1!.sensor-12.telemetry"] == 2
    assert published["press-12", "readings", "line1.press-12.telemetry"] == 250
    assert published["press-13", "readings", "line1.press-13.telemetry"] == 3
    assert published["contractor-1", "readings", "line1.notes"] == 1
    assert shown.delivered["viewer", "viewer.live"] > 0
    assert shown.delivered["press-15", "history"] > 0
    granted = {row["user"]: row for row in shown.permissions}
    assert granted["press-18"]["write"] == ".*"
    assert "press-19" not in granted
    # One before the revocation, and at least one that the channel's cache let through after it.
    assert published["press-19", "readings", "line1.press-19.telemetry"] > 1


def test_the_node_refuses_only_whom_it_is_to_refuse(shown: Shown) -> None:
    refused = re.findall(
        r"access_refused: access to exchange '(\S+)' in vhost 'plant' refused for user '(\S+)'", shown.log
    )
    assert set(refused) - {("readings", "press-19")} == {("maintenance", "press-14")}
    assert len(refused) >= demo_deviations.DENIALS


def test_nothing_runs_when_the_demo_is_over(shown: Shown) -> None:
    ports = shown.node.ports
    for port in (ports.amqp, ports.management, ports.mqtt, ports.stomp, ports.distribution, ports.epmd):
        assert not port_answers(port)
    with pytest.raises(ProcessLookupError):
        os.kill(shown.server, 0)


def test_secrets_are_for_their_owner_only_and_never_printed(shown: Shown) -> None:
    password_file = shown.folder / "auditor.password"
    password = password_file.read_text().strip()
    assert password_file.stat().st_mode & 0o077 == 0
    assert (shown.folder / "rabbitmq.conf").stat().st_mode & 0o077 == 0
    assert shown.folder.stat().st_mode & 0o077 == 0
    assert password not in shown.output
    assert shown.node.password not in shown.output


def test_every_file_named_at_the_end_is_there(shown: Shown) -> None:
    listed = shown.output.partition("Its files are in")[2].splitlines()[1:]
    names = [line.split()[0] for line in listed if line.startswith("  ")]
    assert len(names) > 3
    for name in names:
        assert (shown.folder / name).exists(), name


def descendants(pid: int) -> dict[int, str]:
    """Return the processes a process started, and those they started, with their programs."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            program, _, rest = entry.read_text().partition("(")[2].rpartition(")")
            parents[int(entry.parent.name)], names[int(entry.parent.name)] = int(rest.split()[1]), program
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {number: names[number] for number in found - {pid}}


def test_a_demo_that_is_terminated_while_it_starts_leaves_nothing_running(tmp_path: Path) -> None:
    with subprocess.Popen([*PROGRAM, "demo", "rabbitmq", "--folder", tmp_path / "demo"], env=environment()) as running:
        try:
            wait_for((tmp_path / "demo" / "pid").exists, "the node's process", 60)
            started = descendants(running.pid)
            assert {"beam.smp", "epmd"} <= set(started.values())
            running.terminate()
            assert running.wait(60) == 128 + signal.SIGTERM
        finally:
            running.kill()
    # The beam is the shell script's child, and may be reaped a moment after it.
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "all of them to be gone", 10)
