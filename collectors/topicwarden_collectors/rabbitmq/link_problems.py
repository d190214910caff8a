"""What kept us from reading, said once and clearly, with what to do about it. Words as RabbitMQ 3.10.8 has them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Final, Protocol

from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionOpenAborted,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from topicwarden.errors import Problem
from topicwarden_collectors.rabbitmq.address import Address

_ENABLE: Final = {
    "amq.rabbitmq.event": "rabbitmq-plugins enable rabbitmq_event_exchange",
    "amq.rabbitmq.log": "add `log.exchange = true` to rabbitmq.conf and restart the node",
}
_NOT_FOUND: Final = 404
_REFUSED: Final = 403


class _Subscribed(Protocol):
    @property
    def vhost(self) -> str: ...
    @property
    def exchange(self) -> str: ...


def connection_problem(address: Address, vhost: str, cause: BaseException) -> Problem:
    """Say why there is no connection to a virtual host."""
    where = address.text
    causes = list(_causes(cause))
    for error in causes:
        if isinstance(error, ProbableAuthenticationError) or _says(error, ConnectionClosedByBroker, _REFUSED):
            who = "as 'guest', because no user was given" if address.username is None else f"as {address.username!r}"
            return Problem(
                f"{where} does not let us in {who}: login refused",
                hint="write the user into the address, amqp://user@host, and the password into --password-file; "
                "guest may log in from the broker's own machine only",
            )
        if isinstance(error, ProbableAccessDeniedError) or _says(error, ConnectionClosedByBroker, 530):
            return _vhost_problem(address, vhost, str(error))
    for error in causes:
        if isinstance(error, ssl.SSLCertVerificationError):
            hint = "give the certificate authority's file with --cafile, and as host a name that the certificate has"
            return Problem(f"the certificate of {where} is not trusted: {error.verify_message}", hint=hint)
        if isinstance(error, ssl.SSLError):
            hint = "check that this is a TLS listener (5671), and whether it asks for a client certificate (--certfile)"
            return Problem(f"no TLS connection to {where}: {error.reason or error}", hint=hint)
        if isinstance(error, socket.gaierror):
            return Problem(f"the host of {where} is not known: {error.strerror}", hint="check the host name")
        # The latter: our own patience with the handshake is over.
        if isinstance(error, IncompatibleProtocolError | ConnectionOpenAborted):
            hint = "check the port: AMQP 0-9-1 is on 5672; TLS listeners (5671) need amqps://"
            return Problem(f"{where} does not answer like a RabbitMQ node", hint=hint)
        if isinstance(error, OSError):
            why = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
            hint = "check that the broker runs, its listener and the firewall"
            return Problem(f"{where} cannot be reached: {why}", hint=hint)
    words = str(causes[-1]) or type(causes[-1]).__name__
    return Problem(f"{where} ended the connection: {words}", hint="the broker's log says why")


def _vhost_problem(address: Address, vhost: str, words: str) -> Problem:
    who = address.username or "guest"
    if "not found" in words:
        return Problem(
            f"{address.text} has no virtual host {vhost!r}",
            hint="write the virtual host after the host, amqp://user@host/name, a slash in it as %2F",
        )
    if "refused" in words:
        return Problem(
            f"{address.text} lets the user {who!r} not into the virtual host {vhost!r}",
            hint=f"rabbitmqctl set_permissions -p '{vhost}' '{who}' '^amq\\.gen-.*$' '^amq\\.gen-.*$' "
            "'^(amq\\.gen-.*|amq\\.rabbitmq\\.(trace|event|log)|amq\\.topicwarden\\.audit)$'",
        )
    return Problem(
        f"{address.text} does not open the virtual host {vhost!r}", hint="the broker's log says why: it may be stopped"
    )


def subscription_problem(address: Address, subscription: _Subscribed, cause: BaseException) -> Problem:
    """Say why an exchange cannot be read."""
    exchange, vhost = subscription.exchange, subscription.vhost
    where = f"exchange {exchange!r} in virtual host {vhost!r} at {address.text}"
    who = address.username or "guest"
    code = cause.reply_code if isinstance(cause, ChannelClosedByBroker) else 0
    words = cause.reply_text if isinstance(cause, ChannelClosedByBroker) else str(cause) or type(cause).__name__
    if code == _NOT_FOUND:
        hint = _ENABLE.get(exchange, "enable the plugin topicwarden_audit on the node: brokers/rabbitmq/README.md")
        return Problem(f"there is no {where}", hint=hint)
    if code == _REFUSED:
        on_ours = exchange not in words
        right = "configure, write and read on '^amq\\.gen-.*$'" if on_ours else f"read on {exchange!r}"
        return Problem(
            f"the user {who!r} may not read {where}: {right} is missing",
            hint=f"rabbitmqctl set_permissions -p '{vhost}' '{who}' '^amq\\.gen-.*$' '^amq\\.gen-.*$' "
            f"'^(amq\\.gen-.*|{exchange.replace('.', chr(92) + '.')})$'",
        )
    return Problem(f"the {where} cannot be read: {words}", hint="the broker's log says why")


def _says(error: BaseException, kind: type[ConnectionClosedByBroker], code: int) -> bool:
    return isinstance(error, kind) and error.reply_code == code


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that pika wrapped into it, the outermost first."""
    yield error
    inner = getattr(error, "exceptions", None)
    if inner:
        yield from _causes(inner[-1])
    wrapped = getattr(error, "exception", None)
    if isinstance(wrapped, BaseException):
        yield from _causes(wrapped)
    for argument in error.args:
        if isinstance(argument, BaseException):
            yield from _causes(argument)
