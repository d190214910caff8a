"""A Mosquitto with the plugin for attacks to be played against: it takes anybody, at MQTT's port and at an odd one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from topicwarden.sources import Staged
from topicwarden_collectors.mosquitto.running import build_plugin, running_broker

MQTT: Final = 1883
UNUSUAL: Final = 48101
"""A port that no list of publish/subscribe ports has."""


@contextlib.contextmanager
def stage(folder: Path, addresses: Sequence[str]) -> Iterator[Staged]:
    """Run it; `topicwarden.sources.Stage`."""
    folder.mkdir(parents=True, exist_ok=True)
    plugin = build_plugin(folder / "build")
    folder = folder.resolve()
    config, ring, socket = folder / "mosquitto.conf", folder / "mosquitto.ring", folder / "attribute.sock"
    listening = [(address, port) for address in addresses for port in (MQTT, UNUSUAL)]
    listeners = "".join(f"listener {port} {address}\n" for address, port in listening)
    # Started by root it would drop to a user of its own, who need not be able to reach our folder.
    user = "user root\n" if os.geteuid() == 0 else ""
    options = (
        f"plugin_opt_ring {ring}\nplugin_opt_config {config}\nplugin_opt_peer_port on\nplugin_opt_attribute {socket}\n"
    )
    config.write_text(f"{user}plugin {plugin}\n{options}{listeners}allow_anonymous true\n")
    with running_broker(config, folder / "mosquitto.log", listening, own=[]):
        yield Staged("mosquitto with the plugin", {"mqtt": MQTT, "unusual": UNUSUAL}, [f"ring:{ring}"], asks_at=socket)
