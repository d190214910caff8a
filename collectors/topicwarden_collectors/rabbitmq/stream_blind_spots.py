"""What the plugin's stream does not show. Seen with RabbitMQ 3.10.8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from topicwarden.sources import BlindSpot

_NOTES: Final = {
    "channels-before": (
        "what {detail} channels did before the plugin was started is not known, such as what they consume from",
        "restart those clients, or close their connections: rabbitmqctl close_all_connections",
    ),
    "connections-before": ("{detail} connections are older than the plugin: their logins were not seen", None),
    "overlap": (
        "other plugins intercept channels too, and may change or refuse what is recorded: {detail}",
        "disable the other plugin",
    ),
    "backend": ("refusals by these authorisation backends are not seen: {detail}", None),
    "failures": (
        "the plugin failed {detail} times in the broker's processes: as many operations may be missing",
        "look for topicwarden_audit in the broker's log, and report it",
    ),
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
    BlindSpot(
        "refusals for other reasons than a permission (a wrong user_id, a message too large, a queue that is "
        "another's alone, a reserved name) are not told from what went through"
    ),
    BlindSpot("whether a transaction was rolled back: publishes in it are shown as made, and as inferred"),
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
