"""Reads what a RabbitMQ would allow: from exported definitions, or from a running node's management API."""

from __future__ import annotations

import http.client
import urllib.error
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden.grants import Grants
from topicwarden.sources import SourceOptions
from topicwarden_collectors.rabbitmq.address import Address, parse_address
from topicwarden_collectors.rabbitmq.definitions import Definitions, read_definitions
from topicwarden_collectors.rabbitmq.grants_plain import DefinedGrants
from topicwarden_collectors.rabbitmq.management import fetch

_SECONDS: Final = 20.0
_EXPORT: Final = "export the whole broker's: rabbitmqctl export_definitions FILE"
_REFUSED: Final = (401, 403)


def read_grants(source: str, options: SourceOptions) -> Sequence[Grants]:
    """Read a file of definitions, or ask a node (`amqp://user@host?management=http://host:15672`).

    Raises ConfigurationError when it cannot be read, ObservationError when the node does not give it out.
    """
    if not source.startswith(("amqp://", "amqps://")):
        definitions = read_definitions(Path(source))
        return [_grants(definitions, options.broker or "rabbitmq", f"definitions {source}")]
    address = parse_address(source, options)
    broker = options.broker or address.host
    if address.definitions is not None:
        return [_grants(read_definitions(address.definitions), broker, f"definitions {address.definitions}")]
    if address.management is None:
        raise ConfigurationError(
            Problem(
                "AMQP says nothing of grants",
                address.text,
                hint="add the management API, ?management=http://HOST:15672, or give the definitions: "
                "rabbitmqctl export_definitions FILE",
            )
        )
    return [_grants(_asked(address), broker, address.management, address.username or "guest")]


def _grants(definitions: Definitions, broker: str, title: str, ours: str | None = None) -> Grants:
    if not definitions.whole:
        raise ConfigurationError(
            Problem("it is the export of one virtual host, which has no users and no permissions", title, hint=_EXPORT)
        )
    version = "" if definitions.rabbit_version is None else f" (RabbitMQ {definitions.rabbit_version})"
    return DefinedGrants(definitions, broker, f"{title}{version}", ours)


def _asked(address: Address) -> Definitions:
    who = address.username or "guest"
    try:
        text = fetch(address, "/api/definitions", _SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            code = error.code
        if code not in _REFUSED:
            raise _unanswered(address, f"it answers with HTTP status {code}") from error
        raise ObservationError(
            Problem(
                f"{address.management} refuses {who!r} the definitions (HTTP status {code}): wrong password, or no "
                "administrator",
                hint="only the tag administrator gets them, who may change everything, too; better to export them on "
                "the broker's machine, and give the file: rabbitmqctl export_definitions FILE",
            )
        ) from error
    except urllib.error.URLError as error:
        reason = error.reason
        why = getattr(reason, "verify_message", None) or getattr(reason, "strerror", None) or str(reason)
        raise _unanswered(address, f"it cannot be reached: {why}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        raise _unanswered(address, why[:200]) from error
    try:
        return read_definitions(text, name=f"{address.management}/api/definitions")
    except ConfigurationError as error:
        raise ObservationError(*error.problems) from error


def _unanswered(address: Address, why: str) -> ObservationError:
    return ObservationError(
        Problem(
            f"the management API at {address.management} does not give the definitions: {why}",
            hint="check host, port (15672, TLS 15671) and scheme; rabbitmq-plugins enable rabbitmq_management",
        )
    )
