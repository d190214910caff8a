"""A broker with the dynamic security plugin, its files, and what it lets its users do: each name tried by every way."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from tests.brokers import Mosquitto, mosquitto
from tests.mosquitto.plugin_mqtt import PUBACK, SUBACK, Client, packet, text

PASSWORD = "secret"
SALT = b"twelve bytes"
FILTERS_AT_ONCE = 200
CONFIG = ("user root", "persistence false", "log_type error", "max_queued_messages 100000")
OMNIPOTENT = "omnipotent"
"""May publish everywhere; `with_publisher` adds it."""


@lru_cache(maxsize=1)
def plugin_path() -> str:
    """Return where the package put the plugin."""
    listed = subprocess.run(["dpkg", "-L", "mosquitto"], capture_output=True, check=True, text=True).stdout
    return next(line for line in listed.splitlines() if line.endswith("mosquitto_dynamic_security.so"))


@lru_cache(maxsize=16)
def password_members(password: str = PASSWORD, iterations: int = 1) -> dict[str, str | int]:
    """Return the members of a client that hold its password: PBKDF2 with SHA-512, 12 bytes of salt."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), SALT, iterations)
    return {
        "password": base64.b64encode(digest).decode(),
        "salt": base64.b64encode(SALT).decode(),
        "iterations": iterations,
    }


def with_passwords(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration in which every client has the password."""
    clients = [{**client, **password_members()} for client in configuration.get("clients", [])]
    return {**configuration, "clients": clients}


def with_publisher(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with a client that may publish everywhere and receive nothing."""
    roots = ("$foo", "$foox", "$bar", "$CONTROL", "$CONTROLx")
    topics = ("#", *(f"{root}/#" for root in roots))
    acls = [{"acltype": "publishClientSend", "topic": topic, "allow": True} for topic in topics]
    role = {"rolename": OMNIPOTENT, "acls": acls}
    client = {"username": OMNIPOTENT, "roles": [{"rolename": OMNIPOTENT}], **password_members()}
    return {
        **configuration,
        "clients": [*configuration.get("clients", []), client],
        "roles": [*configuration.get("roles", []), role],
    }


@contextlib.contextmanager
def dynsec_broker(
    folder: Path,
    configuration: dict[str, Any] | bytes,
    *more: str,
    allow_anonymous: bool = True,
    listener: bool = True,
) -> Iterator[Mosquitto]:
    """Run a Mosquitto with the plugin and this configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "dynamic-security.json"
    file.write_bytes(configuration if isinstance(configuration, bytes) else json.dumps(configuration).encode())
    lines = [f"plugin {plugin_path()}", f"plugin_opt_config_file {file}", *CONFIG, *more]
    with mosquitto(folder, lines, allow_anonymous=allow_anonymous, listener=listener) as broker:
        yield broker


class Asker(Client):
    """A client that asks many things at once."""

    def publish_all(self, topics: Sequence[str]) -> list[int]:
        """Publish an empty message with QoS 1 to each topic; returns the reason codes."""
        self._send(b"".join(packet(0x32, text(topic) + self._next_identifier() + b"\0") for topic in topics))
        codes = []
        for _ in topics:
            _, answer = self._wait(PUBACK)
            codes.append(answer[2] if len(answer) > 2 else 0 if answer else -1)
        return codes

    def subscribe_all(self, filters: Sequence[str]) -> list[int]:
        """Subscribe to each filter; returns the reason codes."""
        codes: list[int] = []
        for start in range(0, len(filters), FILTERS_AT_ONCE):
            some = filters[start : start + FILTERS_AT_ONCE]
            body = self._next_identifier() + b"\0" + b"".join(text(one) + b"\0" for one in some)
            self._send(packet(0x82, body))
            _, answer = self._wait(SUBACK)
            (properties,) = struct.unpack_from("!B", answer, 2) if answer else (0,)
            codes += answer[3 + properties :] if answer else [-1] * len(some)
        return codes


def connect(port: int, user: str | None, client_id: str = "", password: str = PASSWORD) -> Asker:
    """Connect with MQTT 5."""
    return Asker(port, client_id, user, None if user is None else password, version=5)


def ways_to(name: str, groups: Iterable[str] = ("any",)) -> list[str]:
    """Return every filter that brings a name, also as shared subscriptions."""
    levels = name.split("/")
    found: dict[str, None] = {}
    for mask in product((False, True), repeat=len(levels)):
        wild = ["+" if one else level for one, level in zip(mask, levels, strict=True)]
        if not (mask[0] and name.startswith("$")):
            found["/".join(wild)] = None
            for size in range(1, len(levels) + 1):
                found["/".join([*wild[:size], "#"])] = None
    if not name.startswith("$"):
        found["#"] = None
        for group in groups:
            found.update(dict.fromkeys([f"$share/{group}/{one}" for one in list(found) if one[0] != "$"]))
    return list(found)


def received_of(
    port: int, user: str | None, client_id: str, names: Sequence[str], groups: Iterable[str] = ("any",)
) -> tuple[set[str], set[str]]:
    """Return which names a user receives by whatever subscription, and which by subscribing to themselves."""
    groups = list(groups)
    filters = list(dict.fromkeys(way for name in names for way in ways_to(name, groups)))
    with connect(port, user, client_id) as asker, connect(port, OMNIPOTENT) as publisher:
        assert asker.code == 0, (user, asker.code)
        codes = dict(zip(filters, asker.subscribe_all(filters), strict=True))
        asker.received.clear()
        published = publisher.publish_all([name for name in names if not name.startswith("$SYS")])
        assert max(published) < 0x80
        assert asker.ping(), user
        # What the broker publishes itself it has kept, and handed out at once.
        kept = {name for name in names if name.startswith("$SYS") and retained(port, user, client_id + "2", name)}
        received = {topic for topic, _, _ in asker.received} | kept
    return received & set(names), {name for name in names if codes[name] < 0x80 and name in received}


def retained(port: int, user: str | None, client_id: str, name: str) -> bool:
    """Whether some filter brings a user a message that is kept under a name."""
    with connect(port, user, client_id) as asker:
        asker.subscribe_all([way for way in ways_to(name, ()) if not way.startswith("$share")])
        assert asker.ping()
        return name in {topic for topic, _, _ in asker.received}
