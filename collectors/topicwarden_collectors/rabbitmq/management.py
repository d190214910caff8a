"""Asks the management API who is connected, which exchanges there are and what is traced.

The tag `monitoring` is enough. Every call is bounded in time and size; what comes back is checked like anything else.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from topicwarden_collectors.rabbitmq.address import Address
from topicwarden_collectors.rabbitmq.connections import Known
from topicwarden_collectors.rabbitmq.erlang_terms import address_of

_SECONDS: Final = 4.0
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_ROWS: Final = 100_000
_CHUNK: Final = 1 << 16
_COLUMNS: Final = "name,user,vhost,protocol,peer_host,peer_port,port,variable_map,peer_cert_subject"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is now."""

    connections: list[Known] = field(default_factory=list)
    exchange_types: dict[tuple[str, str], str] = field(default_factory=dict)
    """By virtual host and name."""
    tracing: dict[str, bool] = field(default_factory=dict)
    """By virtual host."""
    problem: str | None = None
    """Why it could not be read; everything else is empty then."""
    undecodable: int = 0
    """Rows that made no sense."""


def take_snapshot(address: Address, *, seconds: float = _SECONDS) -> Snapshot:
    """Ask for everything; raises nothing. Blocks for at most a few times `seconds`: call it in a thread."""
    try:
        connections = _get(address, f"/api/connections?columns={_COLUMNS}", seconds)
        exchanges = _get(address, "/api/exchanges?columns=name,vhost,type", seconds)
        vhosts = _get(address, "/api/vhosts?columns=name,tracing", seconds)
    except urllib.error.HTTPError as error:
        with error:
            return Snapshot(problem=_refusal(address, error.code))
    except urllib.error.URLError as error:
        reason = error.reason
        why = getattr(reason, "verify_message", None) or getattr(reason, "strerror", None) or str(reason)
        return Snapshot(problem=f"{address.management} cannot be reached: {why}")
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return Snapshot(problem=f"{address.management} does not answer like a management API: {why[:200]}")
    known = [row for one in connections if (row := connection_of(one)) is not None]
    return Snapshot(
        connections=known,
        exchange_types={
            (one["vhost"], one["name"]): one["type"] for one in exchanges if _texts(one, "vhost", "name", "type")
        },
        tracing={
            one["name"]: one["tracing"]
            for one in vhosts
            if _texts(one, "name") and isinstance(one.get("tracing"), bool)
        },
        undecodable=len(connections) - len(known),
    )


def fetch(address: Address, path: str, seconds: float) -> bytes:
    """Return what the management API answers, MAX_BYTES at most, in `seconds` for all of it.

    Raises urllib.error.URLError (HTTPError when it refuses), OSError, ValueError when it is too much, HTTPException.
    """
    who = f"{address.username or 'guest'}:{address.password or ('guest' if address.username is None else '')}"
    request = urllib.request.Request(  # noqa: S310 - parse_address takes http and https only
        f"{address.management}{path}",
        headers={"Authorization": f"Basic {base64.b64encode(who.encode()).decode()}"},
    )
    tls = address.tls or ssl.create_default_context()
    # A redirection would take our password elsewhere, a proxy of the environment too.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls), _NoRedirection()
    )
    deadline = time.monotonic() + seconds
    data = bytearray()
    with opener.open(request, timeout=seconds) as answer:
        # The timeout is for each wait; whoever sends a byte now and then must not keep us for ever.
        while part := answer.read1(_CHUNK):
            data += part
            if len(data) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"more than {seconds:.0f} s")
    return bytes(data)


def _get(address: Address, path: str, seconds: float) -> list[dict[str, Any]]:
    rows = json.loads(fetch(address, path, seconds))
    if not isinstance(rows, list):
        raise ValueError("no list of rows")  # noqa: TRY004 - it is about the answer's content
    return [row for row in rows[:MAX_ROWS] if isinstance(row, dict)]


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _refusal(address: Address, code: int) -> str:
    who = address.username or "guest"
    if code in (401, 403):
        return f"{address.management} refuses {who!r}: rabbitmqctl set_user_tags '{who}' monitoring"
    return f"{address.management} answers with HTTP status {code}"


def connection_of(row: Mapping[str, Any]) -> Known | None:
    """Return a connection from a row of `/api/connections`; None when it is none, or not open yet."""
    if not _texts(row, "name", "user", "vhost", "protocol"):
        return None
    # `AMQP 0-9-1`, `MQTT 3.1.1`, `Web MQTT 3.1.1`, `STOMP 1.2`, `Direct 0-9-1` (3.10.8)
    family, _, version = row["protocol"].rpartition(" ")
    protocol = family.lower().removeprefix("web ")[:32]
    client_id: str | None = ""
    if protocol == "amqp" and not version.startswith("0"):
        protocol = "amqp10"
    elif protocol == "mqtt":
        variables = row.get("variable_map")
        found = variables.get("client_id") if isinstance(variables, dict) else None
        client_id = found if isinstance(found, str) else None
    subject = row.get("peer_cert_subject")
    host = row.get("peer_host")
    return Known(
        row["name"],
        row["user"],
        row["vhost"],
        protocol,
        client_id,
        address_of(host) if isinstance(host, str) else None,
        _port(row.get("peer_port")),
        _port(row.get("port")),
        subject if isinstance(subject, str) and subject else None,
    )


def _texts(row: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(row.get(name), str) for name in names)


def _port(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536 else None
