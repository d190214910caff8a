"""Broker configurations and a script of clients, to compare a broker with the plugin to the same broker without it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.brokers import Mosquitto, free_port, mosquitto, wait_for
from tests.mosquitto.plugin_build import PLUGINS, SOURCES
from tests.mosquitto.plugin_mqtt import Client

PLUGIN_HERE = "PLUGIN"
"""A configuration line that stands for the plugin's own lines, or for nothing in the broker without it."""

ACL = """\
topic read open/#
topic write open/up
user alice
topic readwrite open/#
topic readwrite alice/#
topic write last/#
pattern readwrite own/%c/#
"""
ACL_OTHER = """\
topic readwrite secret/#
user alice
topic read open/#
topic write alice/y
"""


def password_line(user: str, password: str) -> str:
    """Return a line of a password_file (sha512-pbkdf2, few rounds so that tests are quick)."""
    salt = hashlib.sha256(user.encode()).digest()[:12]
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101, 64)
    return f"{user}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


def dynamic_security() -> str:
    """Return a dynamic security file: alice may write open/# and alice/#, and read everything but secret/#."""
    salt = b"0123456789ab"
    digest = hashlib.pbkdf2_hmac("sha512", b"right", salt, 101, 64)
    allowed = [("publishClientSend", "open/#"), ("publishClientSend", "alice/#"), ("subscribePattern", "open/#")]
    acls = [{"acltype": kind, "topic": topic, "priority": 0, "allow": True} for kind, topic in allowed]
    acls.append({"acltype": "publishClientReceive", "topic": "secret/#", "priority": 9, "allow": False})
    return json.dumps(
        {
            "defaultACLAccess": {
                "publishClientSend": False,
                "publishClientReceive": True,
                "subscribe": False,
                "unsubscribe": True,
            },
            "clients": [
                {
                    "username": "alice",
                    "password": base64.b64encode(digest).decode(),
                    "salt": base64.b64encode(salt).decode(),
                    "iterations": 101,
                    "roles": [{"rolename": "device"}],
                }
            ],
            "roles": [{"rolename": "device", "acls": acls}],
        }
    )


DYNAMIC_SECURITY = [
    f"plugin {PLUGINS}/mosquitto_dynamic_security.so",
    "plugin_opt_config_file {folder}/dynsec.json",
]
FILES: Mapping[str, str] = {
    "acl": ACL,
    "acl_other": ACL_OTHER,
    "acl_all": "topic readwrite #\n",
    "passwords": password_line("alice", "right") + password_line("bob", "right"),
    "passwords_other": password_line("alice", "changed"),
    "dynsec.json": dynamic_security(),
}


@dataclass(frozen=True)
class Case:
    """A configuration and what a SIGHUP changes it to. `{folder}` is where `FILES` lie, `{port}`, `{port2}` … ports."""

    name: str
    before: Sequence[str]
    after: Sequence[str] = ()
    options: Sequence[str] = ()
    """Lines for the plugin, such as `plugin_opt_other_plugins acl`."""
    ports: int = 1
    mode: int | None = 0x03
    """Which of TW_MODE_DECISIONS, _AUTH, _CONFIG_UNREADABLE, _OTHER_PLUGIN and _PER_LISTENER must be set at first."""
    mode_after: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Running:
    """A broker of a case."""

    broker: Mosquitto
    ports: Sequence[int]
    ring: Path
    folder: Path


def fill(lines: Sequence[str], plugin: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Replace the placeholders in configuration lines."""
    if not any(line == PLUGIN_HERE for line in lines):
        lines = [PLUGIN_HERE, *lines]
    filled: list[str] = []
    for line in lines:
        if line == PLUGIN_HERE:
            filled += plugin
            continue
        for name, value in values.items():
            line = line.replace("{" + name + "}", value)
        filled.append(line)
    return filled


@contextlib.contextmanager
def running(
    case: Case, folder: Path, plugin: Path | None, other: Path | None, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run the case's broker, with the plugin or without it."""
    folder.mkdir(parents=True)
    for name, content in {**FILES, **case.extra}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content.replace("{folder}", str(folder)))
        (folder / name).chmod(0o600)
    ring = folder / "ring"
    lines = [f"plugin {plugin}", f"plugin_opt_ring {ring}", "plugin_opt_slots 65536", *case.options] if plugin else []
    more_ports = [free_port() for _ in range(case.ports - 1)]
    values = {"folder": str(folder), "other": str(other)}
    values |= {f"port{i}": str(port) for i, port in enumerate(more_ports, 2)}
    user = ["user root"] if os.getuid() == 0 else []

    def configuration(case_lines: Sequence[str]) -> list[str]:
        listener = [] if any(line.startswith("listener") for line in case_lines) else ["listener {port} 127.0.0.1"]
        return [*user, "log_type all", "set_tcp_nodelay true", *fill([*case_lines, *listener], lines, values)]

    with mosquitto(
        folder / "broker",
        configuration(case.before),
        listener=False,
        allow_anonymous=False,
        env={**os.environ, **env} if env else None,
    ) as broker:
        wait_for(lambda: "running" in broker.log.read_text(errors="replace"), "the broker to say that it runs")
        if case.after:
            after = "\n".join([*configuration(case.after), ""]).replace("{port}", str(broker.port))
            (folder / "after.conf").write_text(after)
        yield Running(broker, [broker.port, *more_ports], ring, folder)


def reload(run: Running) -> None:
    """Give the broker its changed configuration, and wait until it has read it and checked everybody again."""
    changed = run.folder / "after.conf"
    if changed.exists():
        run.broker.config.write_text(changed.read_text())

    def reloads() -> int:
        return run.broker.log.read_text(errors="replace").count("Reloading config")

    before = reloads()
    run.broker.reload()
    wait_for(lambda: reloads() > before, "the reload")


LOGINS: Sequence[tuple[str | None, str | None]] = (
    (None, None),
    ("alice", "right"),
    ("alice", "changed"),
    ("alice", None),
    ("ghost", "x"),
)
TOPICS = ("open/up", "open/x", "alice/y", "secret/z", "defer/q", "own/c0/a", "$SYS/broker/x", "$share/g/x", "$other/x")
FILTERS = ("open/#", "#", "secret/z", "$SYS/broker/version", "$share/g/open/#", "own/+/a")


def answers(port: int, seed: str) -> Iterator[str]:
    """Yield everything the broker answers to a fixed script of clients, one line each."""
    sessions: dict[str, Client] = {}
    for version in (4, 5):
        for number, (user, password) in enumerate(LOGINS):
            client = Client(port, f"c{number}", user, password, version=version)
            yield f"{seed} v{version} login {user} {password}: {client.code}"
            if client.code == 0:
                sessions[f"v{version} {user}/{password}"] = client
            if version == 4 and client.code == 0:
                # The next round takes the client id over with another protocol version.
                yield f"{seed} v4 {user} alive: {client.ping()}"
    for name, client in sessions.items():
        yield f"{seed} {name} alive after take-over: {client.ping()}"
        if client.alive:
            for topic_filter in FILTERS:
                yield f"{seed} {name} subscribe {topic_filter}: {client.subscribe(topic_filter)}"
            yield f"{seed} {name} unsubscribe: {client.unsubscribe('own/+/a')}"
    alive = {name: client for name, client in sessions.items() if client.alive}
    for name, client in alive.items():
        for topic in TOPICS:
            for qos in (0, 1, 2):
                answer = client.publish(topic, f"{seed} {name} {topic} {qos}".encode(), qos, retain=topic == "open/x")
                yield f"{seed} {name} publish {topic} q{qos}: {answer} {client.alive}"
        client.publish("last/kept", f"{seed} {name}".encode(), 1, retain=True)
    for name, client in alive.items():
        yield f"{seed} {name} alive: {client.ping()}"
        for message in client.received:
            yield f"{seed} {name} received {message}"
        client.received.clear()
    for version in (4, 5):
        for topic in ("open/up", "secret/z"):
            for user, password in LOGINS[:2]:
                dying = Client(port, "dying", user, password, version=version, will=(topic, b"will"))
                yield f"{seed} v{version} {user} with will {topic}: {dying.code}"
                if dying.code == 0:
                    dying.ping()
                dying.drop()
    for number, (user, password) in enumerate(LOGINS[:2]):
        # A client that logs in comes after what the broker still had to do for the dying ones.
        with Client(port, f"reader{number}", user, password) as reader:
            yield f"{seed} retained reader {user}: {reader.code}"
            if reader.code == 0:
                codes = [reader.subscribe(topic_filter) for topic_filter in ("open/#", "last/#")]
                reader.ping()
                yield f"{seed} retained {codes}: {sorted(reader.received)}"
    for name, client in alive.items():
        wills = sorted(message for message in client.received if message[1] == b"will") if client.ping() else []
        yield f"{seed} {name} wills {wills}"
    for client in sessions.values():
        client.disconnect()


def stored_session(port: int, user: str | None, password: str | None) -> Iterator[str]:
    """Yield what a persistent session gets that was away while messages came."""
    with Client(port, "stored", user, password, clean=True) as client:
        yield f"no session: {client.code}"
        if client.code != 0:
            return
    with Client(port, "stored", user, password, clean=False) as client:
        yield f"stored session: {client.code} {client.subscribe('open/#', 1)} {client.ping()} {client.ping()}"
    with Client(port, "sender", user, password) as sender:
        for number in range(3):
            yield f"to stored: {sender.publish('open/up', str(number).encode(), 1)}"
    with Client(port, "stored", user, password, clean=False) as client:
        client.ping()
        client.ping()
        yield f"stored got {sorted(client.received)}"


def transcript(run: Running, case: Case) -> list[str]:
    """Return all answers before and after the SIGHUP."""
    lines: list[str] = []
    for port in run.ports:
        number = run.ports.index(port)
        lines += answers(port, f"[{number} before]")
        lines += stored_session(port, "alice", "right")
    staying = [
        Client(port, f"staying{i}", user, password)
        for port in run.ports
        for i, (user, password) in enumerate(LOGINS[:2])
    ]
    for _ in range(2):  # a second reload finds what the first one left
        reload(run)
        for client in staying:
            lines.append(f"staying {client.code}: {client.ping() if client.code == 0 else None}")
        for port in run.ports:
            number = run.ports.index(port)
            lines += answers(port, f"[{number} after]")
            lines += stored_session(port, None, None)
    for client in staying:
        client.disconnect()
    return lines


def compile_other(folder: Path) -> Path:
    """Build the other plugin (other_plugin.c)."""
    source = Path(__file__).with_name("other_plugin.c")
    built = folder / "other_plugin.so"
    include = ["-I", str(SOURCES)]
    if "MOSQUITTO_HEADERS" in os.environ:
        include += ["-I", os.environ["MOSQUITTO_HEADERS"]]
    subprocess.run(["gcc", *include, "-shared", "-fPIC", "-O1", "-o", str(built), str(source)], check=True)
    return built
