"""Programs that speak to publish/subscribe brokers, and what their options mean: one table for all who need it.

`commands.py` reads command lines by it; the collectors take payloads out by it (`commands_payload.py`), before an event
is built. What a program accepts was seen by running it where Debian 12 has it (mosquitto-clients 2.0.11, amqp-tools
0.11.0, rabbitmqadmin 3.10.8, netcat-openbsd 1.219, ncat 7.93, socat 1.7.4.4, OpenSSL 3.0, curl 7.88), and taken from
its documentation or source elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from topicwarden.hosts.commands_model import Does
from topicwarden.hosts.tools_grammar import GETOPT, ONE_DASH, PICOCLI, POPT, WORDS, Grammar, Means
from topicwarden.hosts.tools_options import (
    AMQP_CONSUME,
    AMQP_PUBLISH,
    AMQP_QUEUE,
    AMQTT,
    CURL,
    EMQTT_BENCH,
    MOSQUITTO,
    MQTT_CLI,
    MQTTX,
    NC_BUSYBOX,
    NC_OPENBSD,
    NC_TRADITIONAL,
    NCAT,
    OPENSSL,
    PAHO_C,
    RABBITMQADMIN,
    SENDXMPP,
    STOMP,
    TELNET,
    options,
)

PORTS: Final[Mapping[int, str]] = {
    1883: "mqtt",
    8883: "mqtt",
    8884: "mqtt",
    5672: "amqp",
    5671: "amqp",
    61613: "stomp",
    61614: "stomp",
    5222: "xmpp",
    5223: "xmpp",
    5269: "xmpp",
    5270: "xmpp",
}
"""Ports on which nothing else is usual, and what is spoken there. Those of WebSockets belong to web servers, too."""
SERVICES: Final[Mapping[str, int]] = {
    "mqtt": 1883,
    "secure-mqtt": 8883,
    "amqp": 5672,
    "amqps": 5671,
    "xmpp-client": 5222,
    "xmpp-server": 5269,
    "stomp": 61613,
}
"""Names of ports, as services(5) has them; Debian's lacks those of MQTT and STOMP."""
SCHEMES: Final[Mapping[str, tuple[str, int]]] = {
    "mqtt": ("mqtt", 1883),
    "mqtts": ("mqtt", 8883),
    "amqp": ("amqp", 5672),
    "amqps": ("amqp", 5671),
    "pyamqp": ("amqp", 5672),
    "stomp": ("stomp", 61613),
    "stomp+ssl": ("stomp", 61614),
    "xmpp": ("xmpp", 5222),
}
"""Protocol and port that the scheme of an address means to most programs."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that speaks to a broker."""

    name: str
    """Its common name."""
    does: Does
    protocol: str | None
    grammar: Grammar
    options: Mapping[str, Means]
    host: str | None = None
    """Where it connects when told nothing; None: that depends."""
    port: int | None = None
    tls_port: int | None = None
    several: bool = False
    """Whether it takes several names; else the last one counts."""
    base: int = 10
    """Of numbers: 0 = as C writes them."""
    verbs: Mapping[str, Does] = field(default_factory=dict)
    """Operands by which it knows what to do."""
    keys: Mapping[str, Means] = field(default_factory=dict)
    """Names of operands written `name=value`."""


_PUBLISHES: Final = {"pub": Does.PUBLISH, "publish": Does.PUBLISH}
_SUBSCRIBES: Final = {"sub": Does.SUBSCRIBE, "subscribe": Does.SUBSCRIBE}
_CONNECTS: Final = {"conn": Does.CONNECT, "con": Does.CONNECT, "test": Does.CONNECT, "simulate": Does.PUBLISH}
_LOCAL: Final = ("localhost", 1883, 8883)


def _mosquitto(name: str, does: Does) -> Tool:
    return Tool(name, does, "mqtt", WORDS, MOSQUITTO, *_LOCAL, several=does is Does.SUBSCRIBE)


def _amqp(name: str, does: Does, options: Mapping[str, Means], *, several: bool = False) -> Tool:
    return Tool(name, does, "amqp", POPT, options, "localhost", 5672, 5671, several=several, base=0)


def _netcat(name: str, options: Mapping[str, Means], port: int | None = None) -> Tool:
    return Tool(name, Does.CONNECT, None, GETOPT, options, None, port)


_PAHO: Final = Grammar(clusters=False, attached=False, ends=False)

TOOLS: Final[Mapping[str, Tool]] = {
    "mosquitto_pub": _mosquitto("mosquitto_pub", Does.PUBLISH),
    "mosquitto_sub": _mosquitto("mosquitto_sub", Does.SUBSCRIBE),
    "mosquitto_rr": _mosquitto("mosquitto_rr", Does.BOTH),
    "amqp-publish": _amqp("amqp-publish", Does.PUBLISH, AMQP_PUBLISH),
    "amqp-consume": _amqp("amqp-consume", Does.SUBSCRIBE, AMQP_CONSUME, several=True),
    "amqp-get": _amqp("amqp-get", Does.SUBSCRIBE, AMQP_QUEUE),
    "amqp-declare-queue": _amqp("amqp-declare-queue", Does.MANAGE, AMQP_QUEUE),
    "amqp-delete-queue": _amqp("amqp-delete-queue", Does.MANAGE, AMQP_QUEUE),
    "rabbitmqadmin": Tool(
        "rabbitmqadmin",
        Does.MANAGE,
        None,  # HTTP, to the management interface
        GETOPT,
        RABBITMQADMIN,
        "localhost",
        15672,
        several=True,
        verbs={"publish": Does.PUBLISH, "get": Does.SUBSCRIBE},
        keys=options(
            name="routing_key queue name source destination",
            also="exchange",
            payload="payload",
            secret="password",  # noqa: S106
        ),
    ),
    **{
        name: Tool(name, Does.MANAGE, None, GETOPT, options(value="-n --node -p --vhost -t --timeout", flag="-q -s -l"))
        for name in ("rabbitmqctl", "rabbitmq-diagnostics", "rabbitmq-queues", "rabbitmq-streams", "rabbitmq-upgrade")
    },
    "mqttx": Tool(
        "mqttx",
        Does.CONNECT,
        "mqtt",
        PICOCLI,
        MQTTX,
        None,  # was localhost, is the vendor's public broker since 1.9
        1883,
        8883,
        several=True,
        verbs=_PUBLISHES | _SUBSCRIBES | _CONNECTS,
    ),
    "mqtt": Tool(
        "mqtt",
        Does.CONNECT,
        "mqtt",
        PICOCLI,
        MQTT_CLI,
        *_LOCAL,
        several=True,
        verbs=_PUBLISHES | _SUBSCRIBES | _CONNECTS | {"shell": Does.CONNECT, "sh": Does.CONNECT},
    ),
    "emqtt_bench": Tool(
        "emqtt_bench",
        Does.CONNECT,
        "mqtt",
        PICOCLI,
        EMQTT_BENCH,
        "localhost",
        1883,
        1883,
        several=True,
        verbs=_PUBLISHES | _SUBSCRIBES | _CONNECTS,
    ),
    **{
        name: Tool(name, does, "mqtt", _PAHO, PAHO_C, *_LOCAL, several=True)
        for stem in ("paho_c", "paho_cs")
        for name, does in ((f"{stem}_pub", Does.PUBLISH), (f"{stem}_sub", Does.SUBSCRIBE))
    },
    **{
        name: Tool(name, does, "mqtt", GETOPT, AMQTT, several=does is Does.SUBSCRIBE)
        for stem in ("amqtt", "hbmqtt")
        for name, does in ((f"{stem}_pub", Does.PUBLISH), (f"{stem}_sub", Does.SUBSCRIBE))
    },
    "stomp": Tool("stomp", Does.CONNECT, "stomp", GETOPT, STOMP, "localhost", 61613, several=True),
    "go-sendxmpp": Tool("go-sendxmpp", Does.PUBLISH, "xmpp", GETOPT, SENDXMPP, None, 5222, several=True),
    "sendxmpp": Tool("sendxmpp", Does.PUBLISH, "xmpp", GETOPT, SENDXMPP, None, 5222, several=True),
    "profanity": Tool(
        "profanity",
        Does.CONNECT,
        "xmpp",
        GETOPT,
        options(
            value="-l --log -a --account -c --config -f --logfile -t --theme -r --cmd", stop="-h --help -v --version"
        ),
    ),
    "curl": Tool("curl", Does.SUBSCRIBE, "mqtt", GETOPT, CURL, None, 1883, several=True),
    "openssl": Tool("openssl", Does.CONNECT, None, ONE_DASH, OPENSSL, "localhost", 4433),
    "nc": _netcat("nc", NC_OPENBSD),
    "nc.openbsd": _netcat("nc", NC_OPENBSD),
    "netcat": _netcat("nc", NC_OPENBSD),
    "nc.traditional": _netcat("nc", NC_TRADITIONAL),
    "nc.busybox": _netcat("nc", NC_BUSYBOX),
    "ncat": _netcat("ncat", NCAT, 31337),
    "telnet": _netcat("telnet", TELNET, 23),
    "socat": Tool("socat", Does.CONNECT, None, GETOPT, {}),
}
"""By the last part of a program's path."""
RAW: Final = frozenset({"nc", "ncat", "telnet", "socat", "openssl"})
"""Those (by their common name) that pipe bytes."""
_VERSION: Final = re.compile(r"(python|pypy|perl|ruby|node|php|bash|zsh|ksh)-?\d[\d.]*")
_SUFFIX: Final = re.compile(r"(mosquitto_(?:pub|sub|rr))[-.][\w.]{1,16}")


def program_name(path: str) -> str:
    """Return a program by the last part of its path, without what a login shell or a version adds to it."""
    name = path[-256:].rpartition("/")[2].removeprefix("-").removesuffix(" (deleted)").removesuffix(".exe")
    if name in TOOLS:
        return name
    match = _SUFFIX.fullmatch(name) or _VERSION.fullmatch(name)
    return match[1] if match is not None else name
