"""Decodes Zeek's conn.log, mqtt_connect.log, mqtt_publish.log and mqtt_subscribe.log, tab-separated or JSON.

The host of a connection is written as the address it came from: Zeek knows no names. Payloads are logged, 100 bytes of
each by default (`MQTT::max_payload_size`): their length, entropy and shape are taken and no more. What a broker sends
to a client (`from_client` false) is no publish of the client's and becomes `Spoken.OTHER`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from topicwarden.events import Dialled, Endpoint, HostEvent, Shape, Spoke, Spoken
from topicwarden.sources import Counters
from topicwarden_collectors.host.addresses import endpoint
from topicwarden_collectors.host.lines import LineDecoder, json_object, number_of
from topicwarden_collectors.host.payload import measure
from topicwarden_collectors.host.times import epoch_time

PATHS: Final = ("conn", "mqtt_connect", "mqtt_publish", "mqtt_subscribe")
MAX_FIELDS: Final = 256
MAX_TOPICS: Final = 1024
"""Topics of one subscription that become events."""
PROTOCOLS: Final = frozenset({"mqtt", "amqp", "stomp", "xmpp"})
_ESTABLISHED: Final = {
    **dict.fromkeys(("SF", "S1", "S2", "S3", "RSTO", "RSTR"), True),
    **dict.fromkeys(("S0", "REJ", "SH", "RSTOS0"), False),
}
"""By conn_state (base/protocols/conn/main.zeek); of the others the beginning was not seen."""
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|(\\))")


class ZeekDecoder(LineDecoder):
    """Feed it bytes of one of the logs; see `LineDecoder`."""

    has_head = True

    def __init__(self, counters: Counters, *, host: str | None = None) -> None:
        """`host` names the sensor."""
        super().__init__(counters, host=host)
        self._separator = b"\t"
        self._set_separator = b","
        self._unset, self._empty = b"-", b"(empty)"
        self._path: str | None = None
        self._fields: list[str] = []

    def _line(self, line: bytes) -> Iterator[HostEvent]:
        if line.startswith(b"{"):
            record = json_object(line)
            if record is None:
                self.counters.error("json")
                return
            yield from self._record(_flat(record))
        elif line.startswith(b"#"):
            self._header(line)
        elif line:
            if not self._fields:
                self.counters.error("no_header")
                return
            values = line.split(self._separator)
            if len(values) != len(self._fields):
                self.counters.error("fields")
                return
            if self._path is None or self._path in PATHS:
                yield from self._record(self._row(values))

    def _header(self, line: bytes) -> None:
        if line.startswith(b"#separator "):
            self._separator = _unescaped(line[11:].strip()) or b"\t"
            return
        name, _, rest = line[1:].partition(self._separator)
        if name == b"set_separator":
            self._set_separator = _unescaped(rest) or b","
        elif name == b"empty_field":
            self._empty = rest
        elif name == b"unset_field":
            self._unset = rest
        elif name == b"path":
            self._path = rest.decode("utf-8", "replace")
        elif name == b"fields":
            fields = rest.split(self._separator)
            if len(fields) > MAX_FIELDS:
                self.counters.error("fields")
                fields = []
            self._fields = [field.decode("utf-8", "replace") for field in fields]

    def _row(self, values: Sequence[bytes]) -> dict[str, object]:
        """Return a tab-separated row as JSON would have it; texts as bytes, to be unescaped where they matter."""
        row: dict[str, object] = {}
        for field, value in zip(self._fields, values, strict=True):
            if value == self._unset:
                continue
            if field == "topics":
                parts = [] if value == self._empty else value.split(self._set_separator, MAX_TOPICS + 1)
                row[field] = [_text(part) for part in parts]
            elif field == "payload":
                row[field] = b"" if value == self._empty else _unescaped(value)
            else:
                row[field] = "" if value == self._empty else _text(value)
        if self._path is not None:
            row["_path"] = self._path
        return row

    def _record(self, row: Mapping[str, Any]) -> Iterator[HostEvent]:
        path = _path_of(row)
        if path is None:
            return
        time_ns = epoch_time(row.get("ts"))
        if time_ns is None:
            self.counters.error("time")
            return
        if path == "conn" and row.get("proto") not in ("tcp", "udp"):
            return
        client = endpoint(row.get("id.orig_h"), row.get("id.orig_p"))
        server = endpoint(row.get("id.resp_h"), row.get("id.resp_p"))
        if client is None or server is None:
            self.counters.error("address")
            return
        if path == "conn":
            yield from self._connection(time_ns, client, server, row)
        elif path == "mqtt_connect":
            yield self._spoke(time_ns, client, server, Spoken.CONNECT, client_id=_optional(row.get("client_id")))
        elif path == "mqtt_publish":
            yield self._publish(time_ns, client, server, row)
        else:
            yield from self._subscribe(time_ns, client, server, row)

    def _connection(
        self, time_ns: int, client: Endpoint, server: Endpoint, row: Mapping[str, Any]
    ) -> Iterator[HostEvent]:
        established = _ESTABLISHED.get(str(row.get("conn_state")))
        yield Dialled(
            time_ns,
            client.address,
            server,
            local=client,
            transport=str(row["proto"]),
            # A datagram may be answered by none.
            established=established if row["proto"] == "tcp" else established or None,
            sent=number_of(row.get("orig_bytes")),
            duration_ns=epoch_time(row.get("duration")),
        )
        service = row.get("service")
        if isinstance(service, str):
            for protocol in sorted(PROTOCOLS.intersection(service.lower().split(","))):
                yield self._spoke(time_ns, client, server, Spoken.OTHER, protocol=protocol)

    def _publish(self, time_ns: int, client: Endpoint, server: Endpoint, row: Mapping[str, Any]) -> Spoke:
        payload = row.get("payload")
        if isinstance(payload, str):
            payload = _unescaped(payload.encode("utf-8", "surrogateescape"))
        size = number_of(row.get("payload_len"))
        entropy, shape = None, Shape.UNKNOWN
        if isinstance(payload, bytes):
            looks = measure(payload, cut=size is not None and size > len(payload))
            entropy, shape = looks.entropy, looks.shape
            size = len(payload) if size is None else size
        elif size == 0:
            shape = Shape.EMPTY
        from_client = row.get("from_client") in (True, "T", "true")
        return self._spoke(
            time_ns,
            client,
            server,
            Spoken.PUBLISH if from_client else Spoken.OTHER,
            name=_optional(row.get("topic")),
            size=size,
            entropy=entropy,
            shape=shape,
        )

    def _subscribe(
        self, time_ns: int, client: Endpoint, server: Endpoint, row: Mapping[str, Any]
    ) -> Iterator[HostEvent]:
        topics = row.get("topics")
        subscribing = not str(row.get("action", "")).endswith("UNSUBSCRIBE")
        listed = topics if isinstance(topics, list) else [topics]
        if len(listed) > MAX_TOPICS:
            source = self.counters.source
            source["topics_left_out"] = source.get("topics_left_out", 0) + len(listed) - MAX_TOPICS
        for topic in listed[:MAX_TOPICS]:
            if isinstance(topic, str):
                what = Spoken.SUBSCRIBE if subscribing else Spoken.OTHER
                yield self._spoke(time_ns, client, server, what, name=topic)

    def _spoke(
        self,
        time_ns: int,
        client: Endpoint,
        server: Endpoint,
        what: Spoken,
        *,
        protocol: str = "mqtt",
        client_id: str | None = None,
        name: str | None = None,
        size: int | None = None,
        entropy: float | None = None,
        shape: Shape = Shape.UNKNOWN,
    ) -> Spoke:
        return Spoke(
            time_ns,
            self.host,
            client,
            server,
            protocol,
            what,
            client_id=client_id,
            name=name,
            size=size,
            entropy=entropy,
            shape=shape,
        )


def _path_of(row: Mapping[str, Any]) -> str | None:
    """Return which log a record is of; JSON logs say it by their fields only."""
    path = row.get("_path")
    if isinstance(path, str):
        return path if path in PATHS else None
    if "conn_state" in row and "proto" in row:
        return "conn"
    if "from_client" in row and "topic" in row:
        return "mqtt_publish"
    if "topics" in row and "action" in row:
        return "mqtt_subscribe"
    if "proto_name" in row or "connect_status" in row:
        return "mqtt_connect"
    return None


def _flat(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write `{"id": {"orig_h": …}}`, as some shippers have it, the way Zeek does."""
    inner = record.get("id")
    if not isinstance(inner, dict):
        return record
    return {**record, **{f"id.{key}": value for key, value in inner.items()}}


def _optional(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _unescaped(value: bytes) -> bytes:
    r"""Return what `\x09` and `\\` stand for."""
    if b"\\" not in value:
        return value
    return _ESCAPE.sub(lambda match: b"\\" if match[1] is None else bytes((int(match[1], 16),)), value)


def _text(value: bytes) -> str:
    return _unescaped(value).decode("utf-8", "surrogateescape")
