"""Asks a running node what the doctor wants to know, and changes nothing there.

By AMQP it declares exchanges passively, which needs no permission and makes nothing (3.10.8). The management API is
asked where the address names it (`?management=http://host:15672`): `whoami` for anybody, `nodes` and `vhosts` for the
tag monitoring, `definitions` for administrators only, so a well-made auditor's account does not get them;
`?definitions=FILE` stands in for that.
"""

from __future__ import annotations

import base64
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pika
import pika.exceptions

from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden_collectors.rabbitmq.address import Address
from topicwarden_collectors.rabbitmq.definitions import MAX_BYTES, Definitions, read_definitions
from topicwarden_collectors.rabbitmq.doctor_examination import EVENTS, LOG, PLUGIN, PLUGIN_EXCHANGE, TRACE
from topicwarden_collectors.rabbitmq.link_problems import connection_problem

DEFAULT_VHOST: Final = "/"
_TIMEOUT_S: Final = 20.0
_NOT_FOUND: Final = 404


@dataclass(slots=True)
class Answers:
    """What a node said. None: it was not asked, or did not say."""

    version: str | None = None
    exchanges: dict[str, bool] = field(default_factory=dict)
    """Whether an audit stream's exchange is there, by name."""
    unreached: str | None = None
    """Why the default virtual host could not be asked."""
    tags: tuple[str, ...] | None = None
    vhosts: dict[str, bool | None] | None = None
    """Virtual hosts, and whether each is traced."""
    plugins: frozenset[str] | None = None
    listeners: list[tuple[str, str, int]] = field(default_factory=list)
    """Protocol, address and port."""
    definitions: Definitions | None = None
    topology: Definitions | None = None
    """Exchanges, queues, bindings and policies of the virtual hosts our account may enter; None with definitions."""
    refused: str | None = None
    """Why the management API did not give the definitions."""


def ask_amqp(address: Address) -> Answers:
    """Ask by AMQP; raises ObservationError when the address's own virtual host cannot be reached."""
    answers = Answers()
    try:
        connection = _connect(address, address.vhost)
    except (pika.exceptions.AMQPError, OSError) as error:
        raise ObservationError(connection_problem(address, address.vhost, _root(error))) from error
    with contextlib.closing(connection):
        properties = getattr(connection, "_impl").server_properties  # noqa: B009 - pika has no public way
        version = properties.get("version") if isinstance(properties, Mapping) else None
        answers.version = version[:64] if isinstance(version, str) and version.isprintable() else None
        wanted = [PLUGIN_EXCHANGE, TRACE]
        if address.vhost == DEFAULT_VHOST:
            wanted += [EVENTS, LOG]
        for name in wanted:
            answers.exchanges[name] = _is_there(connection, name)
    if address.vhost != DEFAULT_VHOST:
        try:
            other = _connect(address, DEFAULT_VHOST)
        except (pika.exceptions.AMQPError, OSError):
            answers.unreached = f"our account may not enter the virtual host {DEFAULT_VHOST!r}, where the exchange is"
            return answers
        with contextlib.closing(other):
            for name in (EVENTS, LOG):
                answers.exchanges[name] = _is_there(other, name)
            answers.exchanges[PLUGIN_EXCHANGE] |= _is_there(other, PLUGIN_EXCHANGE)
    return answers


def _connect(address: Address, vhost: str) -> pika.BlockingConnection:
    credentials: Any = pika.PlainCredentials(address.username or "guest", address.password or "guest")
    if address.username is None and address.client_certificate:
        credentials = pika.credentials.ExternalCredentials()
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            host=address.host,
            port=address.port,
            virtual_host=vhost,
            credentials=credentials,
            ssl_options=None if address.tls is None else pika.SSLOptions(address.tls, address.host),
            socket_timeout=_TIMEOUT_S,
            stack_timeout=_TIMEOUT_S,
            blocked_connection_timeout=_TIMEOUT_S,
            client_properties={"connection_name": "topicwarden doctor", "product": "topicwarden"},
        )
    )


def _root(error: BaseException) -> BaseException:
    """Return what lies under the error pika's blocking connection raises."""
    inner = error.args[0] if error.args else None
    return inner if isinstance(inner, BaseException) else error


def _is_there(connection: pika.BlockingConnection, exchange: str) -> bool:
    channel = connection.channel()
    try:
        channel.exchange_declare(exchange, passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        # 404; newer servers refuse the question to those without any permission (403), for exchanges that exist too.
        return error.reply_code != _NOT_FOUND
    channel.close()
    return True


def ask_management(address: Address, answers: Answers) -> None:
    """Ask the management API for what our account gets; raises ObservationError when there is none."""
    whoami = _get(address, "/whoami")
    if isinstance(whoami, Mapping):
        tags = whoami.get("tags")
        listed = tags if isinstance(tags, list) else str(tags or "").split(",")
        answers.tags = tuple(str(tag).strip() for tag in listed if str(tag).strip())
    vhosts, nodes, overview = (_get(address, path) for path in ("/vhosts", "/nodes", "/overview"))
    if isinstance(vhosts, list):
        rows = [row for row in vhosts if isinstance(row, Mapping) and isinstance(row.get("name"), str)]
        answers.vhosts = {row["name"]: _flag(row.get("tracing")) for row in rows[:10_000]}
    if isinstance(nodes, list):
        rows = [row for row in nodes if isinstance(row, Mapping) and isinstance(row.get("enabled_plugins"), list)]
        if rows:
            answers.plugins = frozenset(str(name) for row in rows for name in row["enabled_plugins"][:1000])
            answers.exchanges.setdefault(PLUGIN_EXCHANGE, PLUGIN in answers.plugins)
    if isinstance(overview, Mapping) and isinstance(overview.get("listeners"), list):
        answers.listeners = [found for row in overview["listeners"][:1000] if (found := _listener(row))]
    if "administrator" in (answers.tags or ()):
        text = _get(address, "/definitions", raw=True)
        with contextlib.suppress(ConfigurationError):
            answers.definitions = read_definitions(text, name=f"{address.management}/api/definitions")
    else:
        answers.refused = "the management API gives them to administrators only, which our account rightly is not"
        _ask_topology(address, answers)


def _ask_topology(address: Address, answers: Answers) -> None:
    """Ask for what leads where.

    The tag monitoring is told of those virtual hosts in which the account has a permission (3.10.8).
    """
    rows = {
        "exchanges": _get(address, "/exchanges?columns=name,vhost,type,internal,arguments"),
        "queues": _get(address, "/queues?columns=name,vhost,arguments"),
        "bindings": _get(address, "/bindings"),
        "policies": _get(address, "/policies"),
    }
    if all(isinstance(one, list) for one in rows.values()):
        with contextlib.suppress(ConfigurationError):
            answers.topology = read_definitions(json.dumps(rows), name=f"{address.management}/api", vhost=address.vhost)


def _listener(row: object) -> tuple[str, str, int] | None:
    if not isinstance(row, Mapping) or not isinstance(row.get("port"), int):
        return None
    options = row.get("socket_opts")
    # Those of the management API say "::" although they are bound to less (3.10.8); their options have it right.
    inner = options.get("ip") if isinstance(options, Mapping) else None
    address = inner if isinstance(inner, str) else row.get("ip_address")
    return str(row.get("protocol")), str(address), row["port"]


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _get(address: Address, path: str, *, raw: bool = False) -> Any:
    """Return what the management API answers, None when it refuses; raises ObservationError when it does not answer."""
    url = f"{address.management}/api{path}"
    token = base64.b64encode(f"{address.username or 'guest'}:{address.password or 'guest'}".encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})  # noqa: S310 - http or https
    # No proxy and no redirection: our password goes to the named host and nowhere else.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=address.tls),
        _NoRedirection(),
    )
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            data = answer.read(MAX_BYTES + 1)
        return data if raw else json.loads(data)
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ObservationError(
            Problem(
                f"the management API at {address.management} does not answer: {reason}",
                hint="check host, port (15672, TLS 15671) and scheme; rabbitmq-plugins enable rabbitmq_management",
            )
        ) from error


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None
