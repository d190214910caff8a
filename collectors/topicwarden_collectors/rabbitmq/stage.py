"""A RabbitMQ with the plugin for attacks to be played against, at AMQP's port."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from topicwarden.sources import Staged
from topicwarden_collectors.rabbitmq.demo_plant import AUDIT, AUDITED_VHOST, AUDITOR, permit
from topicwarden_collectors.rabbitmq.node import running_node
from topicwarden_collectors.rabbitmq.plugin_build import PLUGIN, build_plugin

AMQP: Final = 5672
USER: Final = "technician"
"""Whose account the attacker has got hold of: it may publish to the standard exchanges."""


@contextlib.contextmanager
def stage(folder: Path, addresses: Sequence[str]) -> Iterator[Staged]:
    """Run it; `topicwarden.sources.Stage`."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    plugin = build_plugin(folder / "plugin")
    config = [f"listeners.tcp.{number} = {address}:{AMQP}" for number, address in enumerate(addresses, start=2)]
    plugins = ("rabbitmq_management", PLUGIN)
    with running_node(folder, plugins=plugins, config=config, plugin_folders=[plugin.parent]) as node:
        password, stolen = secrets.token_hex(8), secrets.token_hex(8)
        node.add_user(AUDITOR, password)
        permit(node, AUDITOR, AUDITED_VHOST, AUDIT)
        node.add_user(USER, stolen)
        node.permit(USER, "/", "^$", "^amq\\.topic$", "^$")
        password_file = folder / "auditor.password"
        password_file.touch(0o600)
        password_file.write_text(f"{password}\n")
        yield Staged(
            "RabbitMQ with the plugin",
            {"amqp": AMQP},
            [f"amqp://{AUDITOR}@127.0.0.1:{node.ports.amqp}/?mode=plugin"],
            username=AUDITOR,
            password_file=password_file,
            account=(USER, stolen),
        )
