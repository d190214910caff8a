"""The exchanges that are there without anybody declaring them, by name. Seen with RabbitMQ 3.10.8."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

DEFAULT: Final = "amq.default"
"""How the default exchange, whose name is empty, is spelled: as RabbitMQ's permissions spell it."""
TRACE: Final = "amq.rabbitmq.trace"
"""The firehose of a virtual host."""
EVENTS: Final = "amq.rabbitmq.event"
LOG: Final = "amq.rabbitmq.log"
AUDIT: Final = "amq.topicwarden.audit"
"""Our plugin's stream; see `brokers/rabbitmq/WIRE.md`."""
BUILT_IN: Final[Mapping[str, str]] = MappingProxyType(
    {
        DEFAULT: "direct",
        "amq.direct": "direct",
        "amq.fanout": "fanout",
        "amq.headers": "headers",
        "amq.match": "headers",
        TRACE: "topic",
        "amq.topic": "topic",
    }
)
"""What every virtual host has, with types."""
OBSERVING: Final[Mapping[str, str]] = MappingProxyType({EVENTS: "topic", LOG: "topic"})
"""What the default virtual host has once events and logs are published; never among the definitions. With types."""
