"""Decodes Suricata's eve.json: events of type flow and mqtt.

Payloads and passwords are in the log (`mqtt.passwords` is on by default): of payloads length, entropy and shape are
taken, of passwords nothing. An mqtt event is written from the side that began its transaction, so a message that the
broker sends has the broker as its source (output-json-mqtt.c); which side is the client is known from what only a
client or only a broker says, or from other events of the same flow; else it is guessed by the ports, and the event is
`inferred`. What a broker sends becomes `Spoken.OTHER`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from topicwarden.events import Certainty, Dialled, Endpoint, HostEvent, Shape, Spoke, Spoken
from topicwarden.sources import Counters
from topicwarden_collectors.host.addresses import endpoint
from topicwarden_collectors.host.lines import LineDecoder, json_object, number_of, text_of
from topicwarden_collectors.host.payload import measure
from topicwarden_collectors.host.times import iso_time

MAX_FLOWS: Final = 65_536
MAX_TOPICS: Final = 1024
_PORTS: Final = frozenset({1883, 8883, 8884, 1884, 80, 443, 8080, 8083, 8084, 9001, 15675})
_BY_CLIENT: Final = ("connect", "subscribe", "unsubscribe", "pingreq")
_BY_BROKER: Final = ("connack", "suback", "unsuback", "pingresp")
_PROTOCOLS: Final = frozenset({"mqtt", "amqp", "stomp", "xmpp"})
_INTERESTING: Final = re.compile(rb'"event_type":\s*"(?:flow|mqtt)"')
_CUT: Final = re.compile(r"\[truncated (\d{1,10}) additional bytes\]\Z")
_ESCAPED: Final = re.compile(rb"\\x([0-9A-Fa-f]{2})")
_SYN: Final = 0x02


class SuricataDecoder(LineDecoder):
    """Feed it bytes of an eve.json; see `LineDecoder`."""

    def __init__(self, counters: Counters, *, host: str | None = None, max_flows: int = MAX_FLOWS) -> None:
        """`host` names the sensor where an event does not."""
        super().__init__(counters, host=host)
        self._max_flows = max_flows
        self._clients: dict[int, Endpoint] = {}
        """Which end of a flow is the client, by the flow's number."""

    def _line(self, line: bytes) -> Iterator[HostEvent]:
        if _INTERESTING.search(line) is None:
            if line.strip() and not line.startswith(b"{"):
                self.counters.error("json")
            return
        record = json_object(line)
        if record is None:
            self.counters.error("json")
            return
        kind = record.get("event_type")
        if kind not in ("flow", "mqtt"):
            return
        source = endpoint(record.get("src_ip"), record.get("src_port"))
        target = endpoint(record.get("dest_ip"), record.get("dest_port"))
        transport = str(record.get("proto", "")).lower()
        if kind == "flow" and transport not in ("tcp", "udp"):
            return
        time_ns = iso_time(text_of(record.get("timestamp")) or "")
        if time_ns is None:
            self.counters.error("time")
        elif source is None or target is None:
            self.counters.error("address")
        elif kind == "flow":
            yield from self._flow(time_ns, source, target, transport, record)
        else:
            yield from self._mqtt(time_ns, source, target, record)

    def _flow(
        self, time_ns: int, client: Endpoint, server: Endpoint, transport: str, record: Mapping[str, Any]
    ) -> Iterator[HostEvent]:
        flow = record.get("flow")
        if not isinstance(flow, dict):
            self.counters.error("flow")
            return
        number = number_of(record.get("flow_id"))
        if number is not None:
            self._clients.pop(number, None)  # a flow's own event is its last
        start = iso_time(text_of(flow.get("start")) or "")
        end = iso_time(text_of(flow.get("end")) or "")
        tcp = record.get("tcp")
        yield Dialled(
            time_ns if start is None else start,
            client.address,
            server,
            local=client,
            transport=transport,
            established=_established(flow, tcp if isinstance(tcp, dict) else {}),
            sent=number_of(flow.get("bytes_toserver")),
            duration_ns=end - start if start is not None and end is not None and end >= start else None,
        )
        protocol = text_of(record.get("app_proto"))
        if protocol in _PROTOCOLS:
            sensor = text_of(record.get("host")) or self.host
            yield Spoke(time_ns if start is None else start, sensor, client, server, protocol, Spoken.OTHER)

    def _mqtt(self, time_ns: int, source: Endpoint, target: Endpoint, record: Mapping[str, Any]) -> Iterator[HostEvent]:
        said = record.get("mqtt")
        if not isinstance(said, dict):
            self.counters.error("mqtt")
            return
        client, server, certainty = self._sides(source, target, said, number_of(record.get("flow_id")))
        by_client = client is source
        sensor = text_of(record.get("host")) or self.host
        told = False
        connect = said.get("connect")
        if isinstance(connect, dict):
            told = True
            yield Spoke(
                time_ns,
                sensor,
                client,
                server,
                "mqtt",
                Spoken.CONNECT,
                client_id=_optional(connect.get("client_id")),
                user=_optional(connect.get("username")),
                certainty=certainty,
            )
        publish = said.get("publish")
        if isinstance(publish, dict):
            told = True
            size, entropy, shape = _looks(publish)
            yield Spoke(
                time_ns,
                sensor,
                client,
                server,
                "mqtt",
                Spoken.PUBLISH if by_client else Spoken.OTHER,
                name=_optional(publish.get("topic")),
                size=size,
                entropy=entropy,
                shape=shape,
                certainty=certainty,
            )
        for topic in self._topics(said.get("subscribe")):
            told = True
            yield Spoke(time_ns, sensor, client, server, "mqtt", Spoken.SUBSCRIBE, name=topic, certainty=certainty)
        if not told:
            yield Spoke(time_ns, sensor, client, server, "mqtt", Spoken.OTHER, certainty=certainty)

    def _topics(self, subscribe: object) -> Iterator[str]:
        topics = subscribe.get("topics") if isinstance(subscribe, dict) else None
        if not isinstance(topics, list):
            return
        if len(topics) > MAX_TOPICS:
            source = self.counters.source
            source["topics_left_out"] = source.get("topics_left_out", 0) + len(topics) - MAX_TOPICS
        for topic in topics[:MAX_TOPICS]:
            name = topic.get("topic") if isinstance(topic, dict) else topic
            if isinstance(name, str):
                yield name

    def _sides(
        self, source: Endpoint, target: Endpoint, said: Mapping[str, Any], flow: int | None
    ) -> tuple[Endpoint, Endpoint, Certainty]:
        """Return client and server, and how sure that is."""
        if any(name in said for name in _BY_CLIENT):
            client, certainty = source, Certainty.EXACT
        elif any(name in said for name in _BY_BROKER):
            client, certainty = target, Certainty.EXACT
        elif flow is not None and self._clients.get(flow) in (source, target):
            client, certainty = (source if self._clients[flow] == source else target), Certainty.EXACT
        elif (source.port in _PORTS) != (target.port in _PORTS):
            client, certainty = (target if source.port in _PORTS else source), Certainty.INFERRED
        else:
            client, certainty = (source if source.port >= target.port else target), Certainty.INFERRED
        if flow is not None and certainty is Certainty.EXACT and flow not in self._clients:
            if len(self._clients) >= self._max_flows:
                del self._clients[next(iter(self._clients))]
                evicted = self.counters.source
                evicted["flows_evicted"] = evicted.get("flows_evicted", 0) + 1
            self._clients[flow] = client
        return (client, target, certainty) if client is source else (client, source, certainty)


def _established(flow: Mapping[str, Any], tcp: Mapping[str, Any]) -> bool | None:
    """Whether both sides agreed on the connection: the server sent its SYN, or Suricata says so."""
    flags, client_flags = _flags(tcp.get("tcp_flags_tc")), _flags(tcp.get("tcp_flags_ts"))
    state = flow.get("state")
    if (flags is not None and flags & _SYN) or state == "established":
        return True
    if not tcp:
        return None
    if state == "new" or (flags is not None and client_flags is not None and client_flags & _SYN):
        return False
    return None


def _flags(value: object) -> int | None:
    """Return TCP flags, written as two hex digits."""
    if isinstance(value, str) and re.fullmatch(r"[0-9A-Fa-f]{1,2}", value):
        return int(value, 16)
    return None


def _optional(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _looks(publish: Mapping[str, Any]) -> tuple[int | None, float | None, Shape]:
    message = publish.get("message")
    if not isinstance(message, str):
        # `truncated`, with the length of what was skipped: the message was longer than Suricata reads.
        return number_of(publish.get("skipped_length")), None, Shape.UNKNOWN
    cut = _CUT.search(message)
    more = int(cut[1]) if cut is not None else 0
    logged = (message if cut is None else message[: cut.start()]).encode("utf-8", "surrogateescape")
    # What is no UTF-8 is written with \xNN for each byte that is not printable.
    payload = _ESCAPED.sub(lambda match: bytes((int(match[1], 16),)), logged) if b"\\x" in logged else logged
    looks = measure(payload, cut=more > 0)
    return len(payload) + more, looks.entropy, looks.shape
