"""The demo: a real Mosquitto with the plugin, a fleet that behaves, and beside it one client for each deviation."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from topicwarden.errors import ObservationError, Problem
from topicwarden.sources import Planted
from topicwarden_collectors.mosquitto.running import build_plugin, free_port, running_broker, tool_path

PLANTED: Final = (
    Planted(
        "publishes on another device's command topic, which the broker's ACL happens to allow", "TW201", "sensor-9"
    ),
    Planted("uses a topic name that breaks the naming rule", "TW204", "sensor-10"),
    Planted("publishes 25 times faster than it may", "TW211", "sensor-11"),
    Planted("sends base64 where plain values are expected", "TW223", "sensor-12"),
    Planted("sends encrypted blobs", "TW222", "sensor-13"),
    Planted("is known to the broker, and to no role of the policy", "TW230", "contractor-1"),
    Planted("is denied by the ACL again and again", "TW301", "sensor-14"),
    Planted("subscribes to everything", "TW203", "viewer"),
)

POLICY: Final = """\
# What each client should do; anything else is a finding.
topicwarden: 1
roles:
  sensor:
    members: [{user: "sensor-*"}]
    publish:
      - {topic: "plant/+/%u/telemetry", rate: 10/s, burst: 20, max_size: 4KiB}
    subscribe:
      - {topic: "plant/+/%u/command"}
  gateway:
    members: [{user: gateway}]
    publish:
      - {topic: "plant/+/+/command", rate: 10/s, burst: 20}
    subscribe:
      - {topic: "plant/+/+/telemetry"}
  status:
    members: [{user: status-board}]
    publish:
      - {topic: "plant/+/board/status", rate: 5/s, burst: 10}
    subscribe:
      - {topic: "plant/+/+/telemetry"}
  viewer:
    members: [{user: viewer}]
    subscribe:
      - {topic: "plant/+/board/status"}
naming:
  - within: {topic: "plant/#"}
    levels: ["plant", "[a-z][a-z0-9-]{1,31}", "[a-z0-9-]+", "telemetry|command|status"]
payload:
  max_entropy: 7.2
  min_size_for_entropy: 64
  no_encoded: ["plant/#"]
"""

ACL: Final = """\
# Wider than it should be, as ACLs are: anybody may do anything below plant/.
pattern readwrite plant/#
"""

WELL_BEHAVED: Final = tuple(f"sensor-{number}" for number in range(1, 7))
SECONDS: Final = 12
"""How long the well-behaved fleet goes on."""


class MosquittoDemo:
    """The running broker and its clients."""

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self.folder = folder
        self.port = port
        self.sources: Sequence[str] = [f"ring:{folder / 'mosquitto.ring'}"]
        self.username: str | None = None
        self.password_file: Path | None = None
        self.policy = folder / "policy.yaml"
        self.planted: Sequence[Planted] = PLANTED
        self.files: Mapping[str, str] = {
            "policy.yaml": "the intended policy",
            "mosquitto.conf": "the broker's configuration",
            "acl": "what the broker grants",
            "mosquitto.log": "what the broker said",
            "mosquitto.ring": "the plugin's ring, as the broker left it",
        }
        self._password = password
        self._stop = threading.Event()
        self._processes: list[subprocess.Popen[bytes]] = []

    def stop_traffic(self) -> None:
        """Make `traffic` return soon."""
        self._stop.set()

    def traffic(self) -> None:
        """Run all clients to their end."""
        clients = [threading.Thread(target=self._sensor, args=(name, random.Random(name))) for name in WELL_BEHAVED]  # noqa: S311 - made-up readings
        clients += [
            threading.Thread(target=part)
            for part in (self._gateway, self._status_board, self._deviating, self._denied_again_and_again)
        ]
        try:
            for client in clients:
                client.start()
            for client in clients:
                client.join()
        finally:
            self._stop.set()
            for process in self._processes:
                process.terminate()
            for process in self._processes:
                process.wait(10)

    def _connect(self, name: str) -> paho.Client:
        """Connect a paho client under a user and client id of this name; returns once the broker has accepted it."""
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name)
        client.username_pw_set(name, self._password)
        accepted = threading.Event()
        client.on_connect = lambda *_: accepted.set()
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        if not accepted.wait(10):
            raise ObservationError(Problem(f"the demo's client {name} was not accepted by the broker"))
        return client

    def _publish(self, client: paho.Client, topic: str, payload: str | bytes) -> None:
        client.publish(topic, payload, qos=1).wait_for_publish(10)

    def _pause(self, seconds: float) -> bool:
        """Wait; True when it is time to stop."""
        return self._stop.wait(seconds)

    def _sensor(self, name: str, chance: random.Random) -> None:
        """Publish a reading about twice a second, and listen for commands."""
        client = self._connect(name)
        site = "north" if int(name.rpartition("-")[2]) % 2 else "south"
        client.subscribe(f"plant/{site}/{name}/command")
        until = time.monotonic() + SECONDS
        try:
            while time.monotonic() < until and not self._pause(chance.uniform(0.3, 0.7)):
                reading = {"temperature": round(chance.gauss(21, 2), 2), "humidity": chance.randint(30, 60), "ok": True}
                self._publish(client, f"plant/{site}/{name}/telemetry", json.dumps(reading))
        finally:
            _end(client)

    def _gateway(self) -> None:
        """Read all telemetry and send a command now and then."""
        client = self._connect("gateway")
        client.subscribe("plant/+/+/telemetry", qos=1)
        try:
            for number in range(4):
                if self._pause(SECONDS / 5):
                    break
                self._publish(client, f"plant/north/sensor-{number % 2 * 2 + 1}/command", '{"interval": 5}')
        finally:
            _end(client)

    def _tool(self, tool: str, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start mosquitto_pub or mosquitto_sub as a client of this name; stopped with the rest."""
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-i", name, "-u", name, "-P", self._password]
        process = subprocess.Popen(  # noqa: S603 - fixed arguments of our own
            [tool_path(tool), *address, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process

    def _status_board(self) -> None:
        """A shell script's habits: mosquitto_pub for each status line."""
        for _ in range(3):
            self._tool("mosquitto_pub", "status-board", "-t", "plant/north/board/status", "-m", "all well").wait(20)
            if self._pause(SECONDS / 5):
                return

    def _deviating(self) -> None:
        """Each planted deviation in turn, a second or so apart."""
        everything = self._tool("mosquitto_sub", "viewer", "-t", "#", "-W", str(SECONDS))
        steps = (
            ("sensor-9", [("plant/north/sensor-1/command", '{"interval": 0}')] * 3),
            ("sensor-10", [("plant/North_1!/sensor-10/telemetry", '{"temperature": 20.5}')] * 2),
            ("sensor-11", [("plant/north/sensor-11/telemetry", '{"temperature": 20.5}')] * 250),
            ("sensor-12", [("plant/north/sensor-12/telemetry", base64.b64encode(os.urandom(240)))] * 3),
            ("sensor-13", [("plant/north/sensor-13/telemetry", os.urandom(700))] * 3),
            ("contractor-1", [("plant/north/notes", "was here")]),
        )
        for name, messages in steps:
            if self._pause(1):
                return
            client = self._connect(name)
            pending = [client.publish(topic, payload, qos=1) for topic, payload in messages]
            for message in pending:
                message.wait_for_publish(10)
            _end(client)
        everything.wait(SECONDS + 10)

    def _denied_again_and_again(self) -> None:
        for _ in range(15):
            self._tool("mosquitto_pub", "sensor-14", "-t", "admin/firmware", "-m", "x").wait(20)
            if self._pause(0.05):
                return


@contextlib.contextmanager
def start(folder: Path) -> Iterator[MosquittoDemo]:
    """Build the plugin, start a broker with it on a free loopback port, and stop it on the way out.

    Raises ObservationError when the plugin cannot be built or the broker does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plugin = build_plugin(folder / "build")
    password = secrets.token_hex(8)
    users = [*WELL_BEHAVED, "gateway", "status-board", *(planted.client for planted in PLANTED)]
    passwords = folder / "passwords"
    passwords.write_text("".join(f"{user}:{password}\n" for user in users))
    passwords.chmod(0o600)
    subprocess.run([tool_path("mosquitto_passwd"), "-U", str(passwords)], check=True, timeout=60)  # noqa: S603
    (folder / "acl").write_text(ACL)
    (folder / "policy.yaml").write_text(POLICY)
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"plugin {plugin}\nplugin_opt_ring {folder / 'mosquitto.ring'}\nplugin_opt_config {config}\n"
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nacl_file {folder / 'acl'}\n"
    )
    owned = (folder, passwords, folder / "acl")
    with running_broker(config, folder / "mosquitto.log", [("127.0.0.1", port)], own=owned):
        yield MosquittoDemo(folder, port, password)


def _end(client: paho.Client) -> None:
    client.disconnect()
    client.loop_stop()
