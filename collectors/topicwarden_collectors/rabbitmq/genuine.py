"""Tells what the broker itself published to one of its audit exchanges from what a client smuggled there.

The exchanges (`amq.rabbitmq.trace`, `amq.rabbitmq.event`, `amq.rabbitmq.log`, our plugin's) are internal: nobody can
publish to them directly. But whoever has configure and write rights on `.*` can make messages arrive there. Seen with
RabbitMQ 3.10.8: through a binding from an exchange of theirs, and through theirs naming it as alternate exchange, the
delivery keeps the name of the exchange it was published to; by dead-lettering, the delivery carries the audit
exchange's name, and always an `x-death` header, which no client can keep from being added. Publishing to them is
refused to AMQP, MQTT and STOMP clients, to the management API and to shovels alike, and federation leaves internal
exchanges alone. Names beginning with `amq.` can be neither deleted nor declared by clients, so nobody puts an exchange
of another kind in such a place.
"""

from __future__ import annotations

from typing import Final

from topicwarden_collectors.rabbitmq.link import Delivery

_DEATH: Final = "x-death"


def is_genuine(delivery: Delivery, exchange: str) -> bool:
    """Whether the broker itself published this to `exchange`."""
    return origin_of_forgery(delivery, exchange) is None


def origin_of_forgery(delivery: Delivery, exchange: str) -> str | None:
    """Return where a message came from that the broker did not publish to `exchange` itself; None: it did.

    The names in it are the forger's: escape before printing.
    """
    headers = delivery.properties.headers or {}
    if _DEATH in headers:
        return f"dead-lettered {_first_death(headers[_DEATH])}"
    if delivery.exchange != exchange:
        return f"published to exchange {delivery.exchange or 'amq.default'!r}, key {delivery.routing_key[:200]!r}"
    return None


def _first_death(deaths: object) -> str:
    """Say where from, by what the broker wrote into the header's newest entry."""
    newest = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(newest, dict):
        return "from a queue it does not name"
    return f"from queue {newest.get('queue')!r:.300}, exchange {newest.get('exchange')!r:.300}"
