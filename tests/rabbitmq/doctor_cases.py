"""For each check of the doctor that reads files: files where it speaks and ones where it keeps quiet."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLUGINS = "[rabbitmq_management,rabbitmq_event_exchange,topicwarden_audit]."
QUIET_CONF = """\
log.exchange = true
log.exchange.level = info
log.exchange.formatter = json
listeners.tcp = none
listeners.ssl.default = 5671
management.ssl.port = 15671
anonymous_login_user = none
"""

Files = Mapping[str, str]


def granted(user: str, configure: str, write: str, read: str, vhost: str = "/") -> dict[str, str]:
    return {"user": user, "vhost": vhost, "configure": configure, "write": write, "read": read}


def topic(user: str, exchange: str, write: str, read: str, vhost: str = "/") -> dict[str, str]:
    return {"user": user, "vhost": vhost, "exchange": exchange, "write": write, "read": read}


def definitions(version: str | None = "4.3.4", **sections: Any) -> Files:
    document: dict[str, Any] = {
        "users": [{"name": "app", "tags": []}],
        "vhosts": [{"name": "/"}],
        "permissions": [granted("app", "^app", "^app", "^app")],
        **sections,
    }
    if version:
        document["rabbit_version"] = version
    return {"definitions.json": json.dumps(document)}


def files(conf: str = "", plugins: str = PLUGINS, advanced: str = "", **more: str) -> Files:
    found = {"rabbitmq.conf": QUIET_CONF + conf, "enabled_plugins": plugins, **more}
    return {**found, "advanced.config": advanced} if advanced else found


def conf(text: str, plugins: str = PLUGINS) -> Files:
    return {"rabbitmq.conf": text, "enabled_plugins": plugins}


@dataclass(frozen=True)
class Case:
    """One check with files where it speaks and files where it does not."""

    check: str
    speaks: Files
    quiet: Files
    level: str | None = None
    fix: bool = False
    """Whether the advice has lines to paste."""
    mode: int = 0o640
    cured_here: bool = True
    """Whether the lines change files, and nothing at a node."""

    def write(self, folder: Path, chosen: Files) -> Path:
        for name, text in chosen.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(self.mode if chosen is self.speaks else 0o640)
        return folder


WITHOUT_OURS = "[rabbitmq_management,rabbitmq_event_exchange]."
NO_ANONYMOUS = QUIET_CONF.replace("anonymous_login_user = none\n", "")
NO_LOG = QUIET_CONF.replace("log.exchange = true\n", "")
EXCHANGE = {"name": "x", "vhost": "/", "type": "topic"}


def hashed(password: str) -> str:
    """A password as RabbitMQ keeps it: salt, and the SHA-256 of salt and password."""
    return base64.b64encode(b"salt" + hashlib.sha256(b"salt" + password.encode()).digest()).decode()


def user(name: str, *tags: str, password_hash: str = "") -> dict[str, Any]:
    return {"name": name, "tags": list(tags), "password_hash": password_hash}


CASES: Sequence[Case] = [
    Case("config.accepted", files("nonsense\n"), files(), "problem"),
    Case("config.accepted", files("a = \n"), files(), "problem"),
    Case("config.unread", files(advanced="[fun]."), files(), "note"),
    Case("config.unread", {**files(), "rabbitmq-env.conf": "NODE_PORT=1\n"}, files(), "note"),
    Case("config.unread", {**files(), "definitions.json": "{"}, {**files(), **definitions()}, "note"),
    Case("config.unread", files("load_definitions = /none.json\n"), files(), "note"),
    Case("config.exposed", files("default_pass = x\n"), files("default_pass = x\n"), "warning", True, mode=0o644),
    Case("plugin.enabled", files(plugins=WITHOUT_OURS), files(), "note", True),
    Case("plugin.enabled", {"rabbitmq.conf": QUIET_CONF}, files(), "note"),
    Case("events.exchange", files(plugins="[]."), files(), "problem", True),
    Case("events.exchange", files(plugins="[topicwarden_audit]."), files(), "note", True),
    Case("log.exchange", conf(NO_LOG, WITHOUT_OURS), files(), "problem", True),
    Case("log.exchange", conf(NO_LOG), files(), "note", True),
    Case("log.exchange", files("log.exchange = false\n"), files("log.exchange = true\n"), "note", True),
    Case("log.exchange-level", files("log.exchange.level = error\n"), files(), "warning", True),
    Case("log.exchange-level", files("log.connection.level = none\n"), files(), "warning", True),
    Case("log.exchange-format", files("log.exchange.formatter = plaintext\n"), files(), "problem", True),
    Case("log.exchange-format", conf("log.exchange = true\n"), files(), "problem", True),
    Case("trace.on", files(plugins=WITHOUT_OURS), files(), "note", True),
    Case("trace.on", files(advanced='[{rabbit,[{trace_vhosts,[<<"/">>]}]}].'), files(), "note"),
    Case(
        "trace.on",
        files(plugins=WITHOUT_OURS, advanced='[{rabbit,[{trace_vhosts,[<<"/">>]}]}].'),
        files(advanced="[{rabbit,[]}]."),
        "note",
    ),
    Case("trace.on", files(plugins=WITHOUT_OURS, advanced="[{rabbit,[{a,1}]}]."), files(), "note", True),
    Case("login.backends", files("auth_backends.1 = ldap\n"), files("auth_backends.1 = internal\n"), "note"),
    Case(
        "login.backends",
        files(advanced="[{rabbit,[{auth_backends,[rabbit_auth_backend_cache]}]}]."),
        files(advanced="[{rabbit,[{auth_backends,[rabbit_auth_backend_internal]}]}]."),
        "note",
    ),
    Case(
        "login.anonymous",
        files(plugins="[rabbitmq_mqtt,topicwarden_audit]."),
        files("mqtt.allow_anonymous = false\n", "[rabbitmq_mqtt,topicwarden_audit]."),
        "warning",
        True,
    ),
    Case(
        "login.anonymous",
        files(plugins="[rabbitmq_stomp,topicwarden_audit]."),
        files(),
        "note",
        True,
        cured_here=False,
    ),
    Case(
        "login.anonymous",
        files("stomp.default_user = a\n", "[rabbitmq_stomp]."),
        files(),
        "warning",
        True,
        cured_here=False,
    ),
    Case(
        "login.anonymous",
        conf(NO_ANONYMOUS + "auth_mechanisms.3 = ANONYMOUS\n"),
        files("auth_mechanisms.1 = PLAIN\n"),
        "warning",
        True,
    ),
    Case("login.anonymous", files("anonymous_login_user = bob\n"), files(), "warning", True),
    Case("login.anonymous", conf(NO_ANONYMOUS), files(), "note", True),
    Case("guest.remote", files("loopback_users = none\n"), files(), "warning", True),
    Case(
        "guest.remote", files("loopback_users.guest = false\n"), files("loopback_users.guest = true\n"), "warning", True
    ),
    Case("guest.remote", files("loopback_users.root = true\n"), files(), "warning", True),
    Case("guest.remote", files(advanced="[{rabbit,[{loopback_users,[]}]}]."), files(), "warning"),
    Case("listener.plain-text", conf(QUIET_CONF.replace("listeners.tcp = none\n", "")), files(), "warning", True),
    Case(
        "listener.plain-text",
        files("listeners.tcp.a = 5672\n"),
        files("listeners.tcp.a = 127.0.0.1:5672\n"),
        "warning",
        True,
    ),
    Case(
        "listener.plain-text",
        files("listeners.tcp.a = 10.0.0.1:5672\n"),
        files("listeners.tcp.a = ::1:5672\n"),
        "warning",
        True,
    ),
    Case(
        "listener.plain-text",
        files("mqtt.allow_anonymous = false\n", "[rabbitmq_mqtt,topicwarden_audit]."),
        files("mqtt.listeners.tcp.default = 127.0.0.1:1883\n", "[rabbitmq_mqtt,topicwarden_audit]."),
        "warning",
        True,
    ),
    Case("listener.plain-text", files(plugins="[rabbitmq_web_mqtt]."), files(), "warning", True),
    Case(
        "listener.management",
        conf(QUIET_CONF.replace("management.ssl.port = 15671\n", "")),
        files("management.tcp.ip = 127.0.0.1\n"),
        "warning",
        True,
    ),
    # Definitions
    Case("vhosts.seen", definitions(), files(), "note"),
    Case("server.version", definitions(None), definitions(), "note"),
    Case(
        "server.version",
        definitions("3.13.7", topic_permissions=[topic("app", "x", "a", "b")]),
        definitions(),
        "warning",
    ),
    Case(
        "server.version",
        definitions("3.10.8", topic_permissions=[topic("app", "x", "a", "b")]),
        definitions("3.10.8"),
        "warning",
    ),
    Case(
        "server.version", definitions("4.1.20", topic_permissions=[topic("app", "x", "a", "b")]), definitions(), "note"
    ),
    Case("guest.exists", definitions(users=[user("guest")]), definitions(), "note", True),
    Case(
        "guest.password",
        definitions(users=[user("guest", password_hash=hashed("guest"))]),
        definitions(users=[user("guest")]),
        "problem",
        True,
    ),
    Case(
        "guest.password",
        {**files(), **definitions(users=[user("guest", password_hash=hashed("guest"))])},
        {**files(), **definitions(users=[user("guest")])},
        "warning",
        True,
        cured_here=False,
    ),
    Case(
        "user.weak-password",
        definitions(users=[user("app", password_hash=hashed("app"))]),
        definitions(),
        "problem",
        True,
    ),
    Case("user.administrator", definitions(users=[user("app", "administrator")]), definitions(), "note"),
    Case(
        "user.administrator",
        definitions(users=[user(f"u{n}", "administrator") for n in range(3)]),
        definitions(),
        "warning",
    ),
    Case("user.impersonator", definitions(users=[user("app", "impersonator")]), definitions(), "warning", True),
    Case("user.idle", definitions(users=[user("left")]), definitions(users=[user("seen", "monitoring")]), "note", True),
    Case(
        "permission.everything",
        definitions(permissions=[granted("app", ".*", ".*", ".*")]),
        definitions(),
        "warning",
        True,
    ),
    Case(
        "permission.everything",
        definitions(users=[user("app", "administrator")], permissions=[granted("app", ".*", ".*", ".*")]),
        definitions(permissions=[granted("app", "", ".*", ".*")]),
        "note",
    ),
    Case("permission.undecided", definitions(permissions=[granted("app", "(*UTF)a", "", "")]), definitions(), "note"),
    Case(
        "stream.readable",
        definitions(permissions=[granted("app", "^amq\\.gen", "^amq\\.gen", "^amq\\.")]),
        definitions(permissions=[granted("app", "", "", "^amq\\.topic$")]),
        "warning",
        True,
    ),
    Case("stream.readable", definitions(permissions=[granted("app", "", "", ".*")]), definitions(), "warning", True),
    Case(
        "stream.readable",
        definitions(users=[user("app", "administrator")], permissions=[granted("app", "", "", ".*")]),
        definitions(permissions=[granted("app", "", ".*", "")]),
        "note",
        True,
    ),
    Case(
        "stream.forgeable",
        definitions(permissions=[granted("app", "", ".*", "^amq\\.topic$")]),
        definitions(permissions=[granted("app", "", ".*", "")]),
        "warning",
        True,
    ),
    Case(
        "stream.bound",
        definitions(
            bindings=[
                {
                    "vhost": "/",
                    "source": "amq.rabbitmq.trace",
                    "destination": "q",
                    "destination_type": "queue",
                    "routing_key": "#",
                }
            ]
        ),
        definitions(
            bindings=[
                {"vhost": "/", "source": "x", "destination": "q", "destination_type": "queue", "routing_key": "#"}
            ]
        ),
        "warning",
        True,
    ),
    Case(
        "stream.forged",
        definitions(
            bindings=[
                {
                    "vhost": "/",
                    "source": "x",
                    "destination": "amq.topicwarden.audit",
                    "destination_type": "exchange",
                    "routing_key": "",
                }
            ]
        ),
        definitions(
            bindings=[
                {
                    "vhost": "/",
                    "source": "x",
                    "destination": "amq.rabbitmq.log",
                    "destination_type": "queue",
                    "routing_key": "",
                }
            ]
        ),
        "problem",
        True,
    ),
    Case(
        "stream.forged",
        definitions(exchanges=[{**EXCHANGE, "arguments": {"alternate-exchange": "amq.rabbitmq.event"}}]),
        definitions(exchanges=[{**EXCHANGE, "arguments": {"alternate-exchange": "amq.topic"}}]),
        "problem",
        True,
    ),
    Case(
        "stream.forged",
        definitions(queues=[{"vhost": "/", "name": "q", "arguments": {"x-dead-letter-exchange": "amq.rabbitmq.log"}}]),
        definitions(
            queues=[{"vhost": "/", "name": "q", "arguments": {"x-dead-letter-exchange": "", "x-max-length": 1}}]
        ),
        "problem",
        True,
    ),
    Case(
        "stream.forged",
        definitions(
            policies=[
                {"vhost": "/", "name": "p", "pattern": ".*", "definition": {"alternate-exchange": "amq.rabbitmq.log"}}
            ]
        ),
        definitions(policies=[{"vhost": "/", "name": "p", "pattern": ".*", "definition": {"max-length": 5}}]),
        "problem",
        True,
    ),
    Case(
        "topic.client-id",
        definitions("4.2.3", topic_permissions=[topic("app", "x", "^{client_id}", "")]),
        definitions("4.2.9", topic_permissions=[topic("app", "x", "^{client_id}", "")]),
        "problem",
        True,
    ),
    Case(
        "topic.client-id",
        definitions("4.2.4", topic_permissions=[topic("app", "x", "^{client_id}", "")]),
        definitions("4.2.3", topic_permissions=[topic("app", "x", "^{username}", "")]),
        "warning",
        True,
    ),
    Case(
        "topic.no-effect",
        definitions(topic_permissions=[topic("app", "amq.direct", "^a", "")]),
        definitions(topic_permissions=[topic("app", "x", "^a", ""), topic("app", "amq.topic", "^a", "")]),
        "warning",
    ),
]
"""`account.minimal` asks a node: test_doctor_node.py has its cases."""
