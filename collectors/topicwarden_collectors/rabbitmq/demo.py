"""The demo: a real RabbitMQ with the plugin, a plant that behaves by AMQP, MQTT and STOMP, and who does not."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import quote

from topicwarden.sources import Planted
from topicwarden_collectors.rabbitmq.demo_deviations import deviations
from topicwarden_collectors.rabbitmq.demo_fleet import fleet
from topicwarden_collectors.rabbitmq.demo_plant import AUDITOR, PLANTED, POLICY, VHOST, set_up
from topicwarden_collectors.rabbitmq.demo_stage import PACKAGES, Stage, tool_path
from topicwarden_collectors.rabbitmq.node import Node, running_node
from topicwarden_collectors.rabbitmq.plugin_build import PLUGIN, build_plugin

SECONDS: Final = 15.0
"""How long the well-behaved clients go on."""
PACKAGED_PLUGINS: Final = ("rabbitmq_management", "rabbitmq_mqtt", "rabbitmq_stomp")
CONFIG: Final = (f"mqtt.vhost = {VHOST}",)


class RabbitDemo:
    """The running node and its clients."""

    def __init__(self, node: Node, folder: Path, password: str, seconds: float) -> None:
        self.node = node
        definitions = folder / "definitions.json"
        self.sources: Sequence[str] = [
            f"amqp://{AUDITOR}@127.0.0.1:{node.ports.amqp}/?mode=plugin&definitions={quote(str(definitions))}"
        ]
        self.username = AUDITOR
        """The account we watch with: it may read what the plugin publishes and nothing else."""
        self.password_file = folder / "auditor.password"
        """Its password, in the first line."""
        self.policy = folder / "policy.yaml"
        self.planted: Sequence[Planted] = PLANTED
        self.files: Mapping[str, str] = {
            "policy.yaml": "the intended policy",
            "rabbitmq.conf": "the node's configuration",
            "definitions.json": "what the node granted at first, as its operator exported it",
            "log": "what the node said",
            "mnesia": "the node's data: users, permissions, queues",
        }
        self._stage = Stage(node, password, seconds)

    def traffic(self) -> None:
        """Run all clients to their end; raises ObservationError when one could not do its part."""
        self._stage.run([*fleet(self._stage), *deviations(self._stage)])

    def stop_traffic(self) -> None:
        """Make `traffic` return soon."""
        self._stage.stop()


@contextlib.contextmanager
def start(folder: Path, seconds: float = SECONDS) -> Iterator[RabbitDemo]:
    """Build the plugin, run a node of our own with it and everything the plant needs, and stop it on the way out.

    `seconds` is how long the well-behaved clients go on. Raises ObservationError when RabbitMQ or a client's tool is
    not installed, when the plugin cannot be built, or when the node does not start.
    """
    for tool in PACKAGES:
        tool_path(tool)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    plugin = build_plugin(folder / "plugin")
    plugins = (*PACKAGED_PLUGINS, PLUGIN)
    with (
        _terminated_in_order() as stopping,
        running_node(folder, plugins=plugins, config=CONFIG, plugin_folders=[plugin.parent]) as node,
    ):
        password = secrets.token_hex(8)
        set_up(node, password)
        demo = RabbitDemo(node, folder, password, seconds)
        demo.policy.write_text(POLICY)
        _write_secret(demo.password_file, f"{password}\n")
        # So that a change of a grant can be told by what it was before. It has hashes of passwords.
        _write_secret(folder / "definitions.json", json.dumps(node.api("GET", "/definitions"), indent=1))
        try:
            yield demo
        finally:
            stopping()


@contextlib.contextmanager
def _terminated_in_order() -> Iterator[Callable[[], None]]:
    """Have a SIGTERM end the demo as Ctrl-C does, and not at once: the node and its epmd would go on without us.

    What is yielded is to be called when the node is about to be stopped: from then on SIGTERM is ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def ignore() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def end(number: int, _: FrameType | None) -> None:
        ignore()
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield ignore
    finally:
        signal.signal(signal.SIGTERM, before)


def _write_secret(path: Path, text: str) -> None:
    path.touch(0o600)
    path.write_text(text)
