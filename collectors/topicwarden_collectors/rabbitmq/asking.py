"""Asks a running broker, as its users, whether it allows something.

RabbitMQ looks at permissions before anything else. So each question is a request that cannot succeed, or is taken back
before anybody sees it, and the error says whether permission stood in its way. Each was seen with 3.10.8:

- publish: in a transaction that is rolled back, so that no queue gets the message (the firehose does show it);
- consume: with a priority that is no number, refused (406) before the consumer exists, or from no queue (404);
- bind: a queue that does not exist to the exchange (404 for the queue, after all permissions were looked at);
- declare: with an argument no queue or exchange takes (406), whether there is one of that name or not.

Permissions are kept by a channel for a while, so every question has a new one.
"""

from __future__ import annotations

import logging
import re
import secrets
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, ProbableAccessDeniedError

from topicwarden.errors import ObservationError
from topicwarden.events import Action, Client, Resource, ResourceKind
from topicwarden.grants import Probe, Verdict
from topicwarden.patterns import KEY_MAX_BYTES
from topicwarden.policy import MQTT_EXCHANGE
from topicwarden.sources import SourceOptions
from topicwarden_collectors.rabbitmq import exchanges
from topicwarden_collectors.rabbitmq.address import Address, parse_address
from topicwarden_collectors.rabbitmq.link_problems import connection_problem

MAX_CONNECTIONS: Final = 16
"""Open at a time, one for each user and virtual host; the one not asked for longest is closed first."""
_PATIENCE_S: Final = 10
_REFUSED: Final = 403
_NOT_FOUND: Final = 404
_PERMITTED: Final = {
    _NOT_FOUND: "there is nothing of that name",
    405: "another connection has it to itself now",
    406: "the arguments were refused, which no broker takes",
}
"""What is refused after permission was given, by AMQP's code."""
# 3.10 says `access to queue 'q' in vhost …`, newer ones `read access to queue …`. Names come after these words.
_NO_ACCESS: Final = re.compile(r"ACCESS_REFUSED - (?:[a-z]+ )?access to (topic|exchange|queue) '")
_NO_TOPIC: Final = re.compile(r"ACCESS_REFUSED - (?:[a-z]+ )?access to topic '")
_MISSING: Final = re.compile(r"NOT_FOUND - no (exchange|queue) '")

Answer = tuple[Verdict, str]

logging.getLogger("pika").addHandler(logging.NullHandler())


def open_probe(target: str, options: SourceOptions, passwords: Mapping[str, str], *, allow_publish: bool) -> Probe:  # noqa: ARG001 - nothing here ever reaches a subscriber
    """Be ready to ask; raises ConfigurationError or ObservationError when that is impossible."""
    address = parse_address(target, options)
    try:
        socket.create_connection((address.host, address.port), _PATIENCE_S).close()
    except OSError as error:
        raise ObservationError(connection_problem(address, address.vhost, error)) from error
    return NodeProbe(address, passwords)


class NodeProbe:
    """Asks a node; one connection for each user and virtual host, one question at a time."""

    def __init__(self, address: Address, passwords: Mapping[str, str]) -> None:
        self._address = address
        self._passwords = passwords
        self._open: OrderedDict[tuple[str, str], pika.BlockingConnection] = OrderedDict()
        self._shut: dict[tuple[str, str], Answer] = {}
        """What logging in came to where it failed: it is not tried again."""

    def ask(self, client: Client, action: Action, resource: Resource) -> Answer:
        """Try it out without harm; returns what the broker said, and why in words. Raises nothing."""
        try:
            question = _question(client, action, resource)
        except _CannotAskError as error:
            return Verdict.NOT_TRIED, str(error)
        who = (client.user or "", self._address.vhost if client.vhost is None else client.vhost)
        try:
            answer = self._connect(who)
            if isinstance(answer, tuple):
                return answer
            said = question(answer)
        except Exception as error:  # noqa: BLE001 - pika's own errors, and those of sockets and TLS under it
            self._drop(who)
            return Verdict.NOT_TRIED, f"the connection broke: {str(error) or type(error).__name__}"
        if client.protocol == "mqtt" and _NO_TOPIC.match(said[1]):
            return Verdict.NOT_TRIED, "refused by AMQP, where a permission with {client_id} matches nothing"
        return said

    def close(self) -> None:
        """End all connections."""
        for who in list(self._open):
            self._drop(who)

    def _connect(self, who: tuple[str, str]) -> pika.BlockingConnection | Answer:
        """Return this user's connection, or the answer when there is none."""
        user, vhost = who
        connection = self._open.get(who)
        if connection is not None and connection.is_open:
            self._open.move_to_end(who)
            return connection
        if who in self._shut:
            return self._shut[who]
        if user not in self._passwords:
            return Verdict.NOT_TRIED, f"no password for {user!r} among the credentials"
        self._drop(who)
        while len(self._open) >= MAX_CONNECTIONS:
            self._drop(next(iter(self._open)))
        account = replace(self._address, username=user, password=self._passwords[user], vhost=vhost)
        try:
            self._open[who] = connection = pika.BlockingConnection(_parameters(account))
        except (AMQPConnectionError, OSError) as error:
            kept_out = isinstance(error, ProbableAccessDeniedError) and "refused" in str(error)
            words = connection_problem(account, vhost, error).message
            self._shut[who] = Verdict.DENIED if kept_out else Verdict.NOT_TRIED, words
            return self._shut[who]
        return connection

    def _drop(self, who: tuple[str, str]) -> None:
        connection = self._open.pop(who, None)
        if connection is not None and connection.is_open:
            try:
                connection.close()
            except (pika.exceptions.AMQPError, OSError):
                return


class _CannotAskError(Exception):
    """Why something cannot be asked."""


_Question = Callable[[pika.BlockingConnection], Answer]


def _question(client: Client, action: Action, resource: Resource) -> _Question:
    """Return what to do to ask this; raises _CannotAskError."""
    if client.user is None:
        raise _CannotAskError("RabbitMQ knows no clients without a user")
    if resource.truncated:
        raise _CannotAskError("only the beginning of the name is known")
    exchange, name = _as_carried(resource, action)
    for text in (exchange, name):
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise _CannotAskError("the name is not valid UTF-8") from None
        if size > KEY_MAX_BYTES:
            raise _CannotAskError(f"AMQP carries names of {KEY_MAX_BYTES} bytes at most")
    # 3.10.8 takes CR and LF out of the names of queues and exchanges, and would answer for another one.
    named = exchange if resource.kind in (ResourceKind.KEY, ResourceKind.BINDING, ResourceKind.TOPIC) else name
    if "\r" in named or "\n" in named:
        raise _CannotAskError("no queue or exchange can have this name")
    wire = "" if exchange == exchanges.DEFAULT else exchange
    whole = resource.kind is ResourceKind.EXCHANGE
    match action, resource.kind:
        case Action.PUBLISH, ResourceKind.KEY | ResourceKind.TOPIC | ResourceKind.EXCHANGE:
            return lambda connection: _publish(connection, wire, name, whole)
        case Action.SUBSCRIBE, ResourceKind.QUEUE:
            return lambda connection: _consume(connection, name)
        case Action.SUBSCRIBE, ResourceKind.KEY | ResourceKind.BINDING | ResourceKind.TOPIC | ResourceKind.EXCHANGE:
            return lambda connection: _bind(connection, wire, name, whole)
        case Action.CONFIGURE, ResourceKind.QUEUE:
            return lambda connection: _declare_queue(connection, name)
        case Action.CONFIGURE, ResourceKind.EXCHANGE:
            return lambda connection: _declare_exchange(connection, wire)
    raise _CannotAskError(f"{action.name.lower()} is not asked of a {resource.kind.name.lower()}")


def _as_carried(resource: Resource, action: Action) -> tuple[str, str]:
    """Return an exchange and a key, or a queue as the latter, as the MQTT plugin and AMQP carry the name."""
    match resource.kind:
        case ResourceKind.TOPIC:
            key = resource.name.replace("/", ".")
            return MQTT_EXCHANGE, key.replace("+", "*") if action is Action.SUBSCRIBE else key
        case ResourceKind.KEY | ResourceKind.BINDING:
            return resource.within, resource.name
        case ResourceKind.EXCHANGE:
            return resource.name, ""
        case _:
            return "", resource.name


# The questions --------------------------------------------------------------------------------------------------------


def _publish(connection: pika.BlockingConnection, exchange: str, key: str, whole: bool) -> Answer:
    def attempt(channel: BlockingChannel) -> None:
        channel.tx_select()
        channel.basic_publish(exchange, key, b"")
        channel.tx_rollback()

    return _asked_of_exchange(_error(connection, attempt), whole, "published in a transaction that was rolled back")


def _bind(connection: pika.BlockingConnection, exchange: str, key: str, whole: bool) -> Answer:
    """Bind a queue that does not exist: one that the server or the MQTT plugin could have named for this user."""
    answer: Answer = Verdict.NOT_TRIED, ""
    for queue in (f"amq.gen-{secrets.token_urlsafe(16)}", f"mqtt-subscription-{secrets.token_hex(16)}qos1"):
        error = _error(connection, partial(BlockingChannel.queue_bind, queue=queue, exchange=exchange, routing_key=key))
        if error is not None and _names(_MISSING, error) == "queue":
            return Verdict.ALLOWED, "permitted: only the queue to bind was missing"
        if error is None or _names(_NO_ACCESS, error) != "queue":
            return _asked_of_exchange(error, whole, "the broker bound a queue that there is not")
        answer = Verdict.NOT_TRIED, "the user may not write to queues of its own, which is asked before the exchange is"
    return answer


def _asked_of_exchange(error: ChannelClosedByBroker | None, whole: bool, done: str) -> Answer:
    """Judge what came of a request about a key of an exchange; `whole`: the exchange is asked about and no key."""
    if error is None:
        return Verdict.ALLOWED, done
    words = error.reply_text
    if error.reply_code == _REFUSED:
        if whole and _names(_NO_ACCESS, error) == "topic":
            return Verdict.ALLOWED, "permitted for the exchange, if not for the empty key"
        return Verdict.DENIED, words
    if _names(_MISSING, error) == "exchange":
        if whole:
            return Verdict.ALLOWED, "permitted: only there is no such exchange"
        return Verdict.NOT_TRIED, "there is no such exchange; it would be permitted, but of its keys nothing is told"
    return Verdict.NOT_TRIED, f"the broker said {error.reply_code} {words}"


def _consume(connection: pika.BlockingConnection, queue: str) -> Answer:
    def attempt(channel: BlockingChannel) -> None:
        # Should a broker take it after all, at most one message is out, and goes back as the channel closes.
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue, lambda *_: None, arguments={"x-priority": "none"})

    return _asked_of_name(_error(connection, attempt))


def _declare_queue(connection: pika.BlockingConnection, queue: str) -> Answer:
    if queue.startswith("amq."):
        return _delete_reserved(connection, queue)

    def attempt(channel: BlockingChannel) -> None:
        # Should a broker take it after all, the queue goes with the connection, and here at once.
        channel.queue_declare(queue, exclusive=True, auto_delete=True, arguments={"x-max-length": -1})
        channel.queue_delete(queue, if_unused=True, if_empty=True)

    return _asked_of_name(_error(connection, attempt))


def _delete_reserved(connection: pika.BlockingConnection, queue: str) -> Answer:
    """Delete a queue that there is not: names that begin with `amq.` cannot be declared, but by the server."""
    error = _error(connection, lambda channel: channel.queue_declare(queue, passive=True))
    if error is None or error.reply_code != _NOT_FOUND:
        return Verdict.NOT_TRIED, "the queue is there, and only deleting it would tell"
    return _asked_of_name(
        _error(connection, lambda channel: channel.queue_delete(queue, if_unused=True, if_empty=True))
    )


def _declare_exchange(connection: pika.BlockingConnection, exchange: str) -> Answer:
    def attempt(channel: BlockingChannel) -> None:
        arguments = {"alternate-exchange": 1}
        channel.exchange_declare(exchange, "topic", auto_delete=True, arguments=arguments)
        channel.exchange_delete(exchange, if_unused=True)

    return _asked_of_name(_error(connection, attempt))


def _asked_of_name(error: ChannelClosedByBroker | None) -> Answer:
    """Judge what came of a request about a queue or exchange."""
    if error is None:
        return Verdict.ALLOWED, "the broker did it, and it was undone"
    if error.reply_code == _REFUSED:
        return Verdict.DENIED, error.reply_text
    if error.reply_code in _PERMITTED:
        return Verdict.ALLOWED, f"permitted: only {_PERMITTED[error.reply_code]}"
    return Verdict.NOT_TRIED, f"the broker said {error.reply_code} {error.reply_text}"


def _error(
    connection: pika.BlockingConnection, attempt: Callable[[BlockingChannel], object]
) -> ChannelClosedByBroker | None:
    """Do something on a channel of its own; returns the error that the broker closed it with."""
    channel = connection.channel()
    try:
        attempt(channel)
    except ChannelClosedByBroker as error:
        return error
    finally:
        if channel.is_open:
            channel.close()
    return None


def _names(words: re.Pattern[str], error: ChannelClosedByBroker) -> str | None:
    """Return what an error is about: `topic`, `exchange` or `queue`."""
    found = words.match(error.reply_text)
    return None if found is None else found[1]


def _parameters(account: Address) -> pika.ConnectionParameters:
    return pika.ConnectionParameters(
        host=account.host,
        port=account.port,
        virtual_host=account.vhost,
        credentials=pika.PlainCredentials(account.username or "", account.password or ""),
        heartbeat=_PATIENCE_S,
        ssl_options=None if account.tls is None else pika.SSLOptions(account.tls, account.host),
        socket_timeout=_PATIENCE_S,
        stack_timeout=_PATIENCE_S,
        blocked_connection_timeout=_PATIENCE_S,
        client_properties={"connection_name": "topicwarden scan", "product": "topicwarden"},
    )
