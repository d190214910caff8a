"""What the plugin's stream does not show. Seen with RabbitMQ 3.10.8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from topicwarden.sources import BlindSpot

_NOTES: Final = {
    "channels-before": (
        "channels that were open when the plugin was started are not seen until they are opened anew: {detail} of them",
        "restart those clients, or close their connections: rabbitmqctl close_all_connections",
    ),
    "connections-before": (
        "of connections older than the plugin not everything is known: {detail} of them",
        "restart those clients, or close their connections: rabbitmqctl close_all_connections",
    ),
    "overlap": (
        "another plugin intercepts channels too, and RabbitMQ lets only one do so for each operation: {detail}",
        "disable the other plugin",
    ),
    "backend": ("refusals by these authorisation backends are not seen: {detail}", None),
}
_NOTE_MAX: Final = 300
_ALWAYS: Final = (
    BlindSpot("deliveries to consumers are not recorded: who consumes is known, not who received what"),
    BlindSpot("the entropy and shape of payloads are not measured, only their size"),
    BlindSpot(
        "a dot in an MQTT topic is not told from a slash: RabbitMQ turns both into the same routing key, a.b and a/b"
    ),
    BlindSpot("MQTT's QoS and retain flag are not recorded"),
    BlindSpot(
        "names longer than 1024 bytes are cut, and how long they were is not known: what depends on it is not judged"
    ),
    BlindSpot("messages of the stream protocol and of AMQP 1.0 are seen as far as they go through a channel"),
    BlindSpot("declaring a queue that the broker is to name (`amq.gen-...`) is not an event; using it is"),
)


def stream_blind_spots(notes: Mapping[str, str]) -> Sequence[BlindSpot]:
    """Return what the stream cannot show, by what the plugin said about itself."""
    said = []
    for code, detail in notes.items():
        if code in _NOTES and detail not in ("", "0"):
            what, fix = _NOTES[code]
            said.append(BlindSpot(what.format(detail=detail[:_NOTE_MAX]).rstrip("."), fix))
    return (*said, *_ALWAYS)
