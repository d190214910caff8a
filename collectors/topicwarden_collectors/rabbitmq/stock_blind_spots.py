"""What the stock mode cannot see, as things stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from topicwarden.sources import BlindSpot
from topicwarden_collectors.rabbitmq import exchanges

EVENTS: Final = exchanges.EVENTS
LOG: Final = exchanges.LOG
TRACE: Final = exchanges.TRACE
FIREHOSE_COST: Final = "about 3 to 7 times the broker's CPU per message"
"""Measured with RabbitMQ 3.10.8: 2.8 times for messages of 200 bytes that are routed to a queue and consumed, 6.8 times
for messages that are routed nowhere."""

NOT_YET: Final = "it is not being read yet"
"""Before the first connection, when nothing is known to be wrong."""


@dataclass(slots=True)
class Firehose:
    """What is known of one virtual host's firehose."""

    problem: str | None = NOT_YET
    """Why it cannot be read; None: it is read."""
    traced: bool = False
    """Whether a message came since it is read."""
    on: bool = False
    """Whether it was known to be switched on at some time."""
    off: str | None = None
    """How we know that it is switched off."""


@dataclass(slots=True)
class Sight:
    """What is known of what we see."""

    events: str | None = NOT_YET
    """Why the event exchange cannot be read; None: it is read."""
    log: str | None = NOT_YET
    log_not_json: bool = False
    log_seen: bool = False
    log_info_seen: bool = False
    firehose: dict[str, Firehose] = field(default_factory=dict)
    earlier_known: bool = False
    """Whether the connections from before we looked were read from the management API."""
    management_problem: str | None = None
    grants_known: bool = False


_PLUGIN: Final = "the plugin in brokers/rabbitmq shows it"


def blind_spots(sight: Sight) -> Sequence[BlindSpot]:
    """Return what is not seen, the gravest first."""
    return [
        *_exchanges(sight),
        *_traffic(sight.firehose),
        *_clients(sight),
        BlindSpot("passive declares, purges and basic.get on queues leave no event unless they are refused", _PLUGIN),
        BlindSpot("logins to the management API are not told by the event exchange", None),
        BlindSpot(
            "messages that our queue at the broker dropped because it was full, or for a policy with max-length or "
            "message-ttl, cannot be counted",
            "exclude ^amq\\.gen- from the patterns of such policies; " + _PLUGIN,
        ),
    ]


def _exchanges(sight: Sight) -> list[BlindSpot]:
    spots = []
    if sight.events not in (None, NOT_YET):
        spots.append(
            BlindSpot(
                f"connections, bindings, consumers and changes of grants: {EVENTS} is not read ({sight.events})",
                "rabbitmq-plugins enable rabbitmq_event_exchange, and read permission on ^amq\\.rabbitmq\\.event$ in /",
            )
        )
    if sight.log not in (None, NOT_YET):
        spots.append(
            BlindSpot(
                f"refused operations: {LOG} is not read ({sight.log})",
                "in rabbitmq.conf: log.exchange = true, log.exchange.level = info, log.exchange.formatter = json; "
                "restart the node; read permission on ^amq\\.rabbitmq\\.log$ in /",
            )
        )
    elif sight.log_not_json:
        spots.append(
            BlindSpot(
                f"refused operations: messages of {LOG} are no JSON, and as text they can be forged",
                "in rabbitmq.conf: log.exchange.formatter = json; restart the node",
            )
        )
    elif sight.log_seen and not sight.log_info_seen:
        spots.append(
            BlindSpot(
                "tracing that is switched off: no log message of level info was seen yet",
                "in rabbitmq.conf: log.exchange.level = info; restart the node",
            )
        )
    return spots


def _traffic(firehose: Mapping[str, Firehose]) -> list[BlindSpot]:
    spots = []
    if not firehose:
        spots.append(
            BlindSpot(
                "publishes and deliveries that are allowed",
                f"add ?firehose=VHOST to the address and run rabbitmqctl trace_on -p VHOST ({FIREHOSE_COST}), "
                "or use the plugin in brokers/rabbitmq",
            )
        )
        return spots
    for vhost, state in firehose.items():
        on = (
            f"rabbitmqctl trace_on -p '{vhost}'; to keep it over restarts, in advanced.config: "
            f'[{{rabbit,[{{trace_vhosts,[<<"{vhost}">>]}}]}}].'
        )
        if state.problem not in (None, NOT_YET):
            spots.append(
                BlindSpot(
                    f"publishes and deliveries in {vhost!r}: its firehose is not read ({state.problem})",
                    f"read permission on ^amq\\.rabbitmq\\.trace$ in '{vhost}'",
                )
            )
        elif state.off is not None:
            spots.append(BlindSpot(f"publishes and deliveries in {vhost!r}: tracing is off ({state.off})", on))
        elif not state.traced:
            spots.append(
                BlindSpot(f"publishes and deliveries in {vhost!r} if tracing is off: nothing was traced so far", on)
            )
    spots += [
        BlindSpot("publishes and deliveries in virtual hosts whose firehose was not asked for", "firehose=VHOST,VHOST"),
        BlindSpot(
            "whether a transaction was rolled back: publishes in it are shown as made, before it is committed", _PLUGIN
        ),
        BlindSpot(
            "when exactly a message was published: the firehose has no times, so it is when it reached us; after a "
            "stall rates look higher than they were",
            _PLUGIN,
        ),
        BlindSpot(
            "retained MQTT messages given to new subscribers, publishes by the stream protocol and messages moved by "
            "dead-lettering are not traced",
            None,
        ),
        BlindSpot(
            "the firehose while somebody uses an exchange or queue whose name is longer than 247 bytes: RabbitMQ "
            "(3.10.8) then ends our connection",
            "deny configure on names of that length",
        ),
    ]
    return spots


def _clients(sight: Sight) -> list[BlindSpot]:
    spots = []
    if not sight.earlier_known:
        why = f" ({sight.management_problem})" if sight.management_problem else ""
        spots.append(
            BlindSpot(
                f"who is behind MQTT connections made before we looked{why}",
                "add ?management=http://HOST:15672 to the address and give our user the tag monitoring, "
                "or let the clients connect again",
            )
        )
    spots.append(
        BlindSpot(
            "which connection made a binding to a shared queue, or a declaration: the event names only the user",
            _PLUGIN,
        )
    )
    if not (sight.grants_known or sight.earlier_known):
        spots.append(
            BlindSpot(
                "the types of exchanges declared before we looked: bindings to them are taken as keys with wildcards",
                "add ?definitions=FILE or ?management=URL to the address",
            )
        )
    if not sight.grants_known:
        spots.append(
            BlindSpot(
                "what a change of a permission means for users whose permissions were set before we looked",
                "rabbitmqctl export_definitions FILE, and add ?definitions=FILE to the address",
            )
        )
    return spots
