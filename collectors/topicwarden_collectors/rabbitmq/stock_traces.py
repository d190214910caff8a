"""Turns messages of the firehose into publishes and deliveries. Pure."""

from __future__ import annotations

from typing import Final

from topicwarden.events import QOS_UNKNOWN, Action, Client, Resource
from topicwarden_collectors.rabbitmq import naming
from topicwarden_collectors.rabbitmq.stock_sink import Sink
from topicwarden_collectors.rabbitmq.stock_waiting import Waiting
from topicwarden_collectors.rabbitmq.trace_messages import Headers, Traced, Undecodable, decode_trace

STRANGERS: Final = "firehose of clients that connected before we looked"
_NAMES: Final = 1 << 14


class TraceSteps:
    """Decodes messages of `amq.rabbitmq.trace`."""

    def __init__(self, sink: Sink, waiting: Waiting) -> None:
        self.sink = sink
        self.waiting = waiting
        self.own: frozenset[str] = frozenset()
        """Names of our own connections, whose deliveries are of no interest."""
        self._names: dict[tuple[str, str, str, str], Resource] = {}

    def decode(self, routing_key: str, headers: Headers, size: int, time_ns: int) -> None:
        """Take over one message. `time_ns`: when it reached us; the firehose has no times of its own."""
        traced = decode_trace(routing_key, headers)
        if isinstance(traced, Undecodable):
            self.sink.counters.error("trace")
            return
        name = traced.connection
        if not self.waiting.waits(name):
            client = self.sink.connections.by_name(name, traced.user, traced.vhost)
            if client is not None:
                self._append(traced, client, size, time_ns)
                return
        if name in self.own:
            return
        self.waiting.add(name, lambda last: self._again(traced, size, time_ns, last), self.sink.now_ns)

    def _again(self, traced: Traced, size: int, time_ns: int, last: bool) -> bool:
        connections = self.sink.connections
        client = connections.by_name(traced.connection, traced.user, traced.vhost)
        if client is None and last:
            client = connections.traced(traced.connection, traced.user, traced.vhost)
            if client is None:
                self.sink.unresolved(STRANGERS, traced.user, traced.vhost)
                return True
        if client is None:
            return False
        self._append(traced, client, size, time_ns)
        return True

    def _append(self, traced: Traced, client: Client, size: int, time_ns: int) -> None:
        qos = QOS_UNKNOWN
        # Anybody can write the header, only the gateway writes it for MQTT clients.
        if client.protocol == "mqtt" and traced.qos is not None:
            qos = traced.qos
        if not traced.published:
            if client.protocol == "mqtt":
                resource = naming.published("mqtt", traced.exchange, traced.routing_keys[0])
            else:
                resource = naming.configured("queue", traced.queue)
            self.sink.add(time_ns, Action.DELIVER, client, resource, size=size, qos=qos)
            return
        if traced.unroutable:
            source = self.sink.counters.source
            source["unroutable"] = source.get("unroutable", 0) + 1
        if traced.more_keys:
            self.sink.counters.error("too many routing keys", traced.more_keys)
        for key in traced.routing_keys:
            resource = self._resource(client.protocol, traced.vhost, traced.exchange, key)
            self.sink.add(time_ns, Action.PUBLISH, client, resource, size=size, qos=qos)

    def _resource(self, protocol: str, vhost: str, exchange: str, key: str) -> Resource:
        about = (protocol, vhost, exchange, key)
        resource = self._names.get(about)
        if resource is None:
            if len(self._names) >= _NAMES:
                self._names.clear()
            resource = self._names[about] = naming.published(protocol, exchange, key)
            self.sink.grants.saw_key(vhost, None, exchange, key)
        return resource
