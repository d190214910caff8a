"""What Mosquitto's log and `$SYS` topics cannot show, and what would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from topicwarden.sources import BlindSpot
from topicwarden_collectors.mosquitto.log_decode import LogDecoder
from topicwarden_collectors.mosquitto.log_grammar import Kind

_PLUGIN: Final = "use the topicwarden plugin; `topicwarden doctor` prints the lines"

LOG_BLIND_SPOTS: Final = (
    BlindSpot("payloads: no entropy and no shape, only their size", _PLUGIN),
    BlindSpot("times are whole seconds: rates are coarse, and bursts within a second look like one", _PLUGIN),
    BlindSpot("a will that the broker publishes: the log has only that one was set", _PLUGIN),
    BlindSpot("deliveries that the ACL suppressed (denied reads)", _PLUGIN),
    BlindSpot(
        "user name and address of clients whose connecting is not in the log", "read the log from the broker's start"
    ),
    BlindSpot("whether a user name was checked: the log does not say if a password was asked for", None),
    BlindSpot("what lies beyond the 999th byte of a line: long topics are cut", _PLUGIN),
    BlindSpot(
        "a subscription that Mosquitto 2.0 denied is told only by the missing line of type subscribe",
        "Mosquitto 2.1 says so; or " + _PLUGIN,
    ),
    BlindSpot(
        "lines forged by a certificate's common name longer than 64 characters (Mosquitto before 2.0.16 with"
        " use_identity_as_username)",
        "upgrade to Mosquitto 2.0.16 or later, or use_subject_as_username",
    ),
)
"""What no log of Mosquitto's shows, whatever it is set to write."""

_NO_PUBLISHES: Final = BlindSpot(
    "publishes, allowed or denied: no line of type debug has been seen",
    "log_type all  (or add `log_type debug`), then send the broker SIGHUP",
)
_NO_GRANTS: Final = BlindSpot(
    "whether subscriptions were granted: no line of type subscribe has been seen",
    "log_type all  (or add `log_type subscribe`), then send the broker SIGHUP",
)
_NO_CONNECTS: Final = BlindSpot(
    "who is connected: no connect line has been seen",
    "connection_messages true  and  log_type notice",
)
_UNPROVED: Final = BlindSpot(
    "nothing is certain as long as no line proves that the log has debug lines: a client can name itself like a line",
    "log_type all",
)
_NO_TIMES: Final = BlindSpot(
    "when things happened: lines carry no time, and events get the time they were read", "log_timestamp true"
)
_SHARED: Final = BlindSpot(
    "any program on the host can write lines to syslog and journald that look like the broker's",
    "log_dest file /var/log/mosquitto/mosquitto.log",
)
_DEBUG: Final = frozenset((Kind.RECEIVED, Kind.DENIED, Kind.ACKNOWLEDGED, Kind.CONNACK, Kind.SUBSCRIBE))


def log_blind_spots(decoder: LogDecoder) -> Sequence[BlindSpot]:
    """Return what the log that went through this decoder does not show; the gravest first."""
    seen = decoder.kinds_seen
    spots = []
    if not seen & _DEBUG:
        spots.append(_NO_PUBLISHES)
    elif not decoder.debug:
        spots.append(_UNPROVED)
    if Kind.GRANT not in seen:
        spots.append(_NO_GRANTS)
    if Kind.CONNECTED not in seen:
        spots.append(_NO_CONNECTS)
    if decoder.clock.stamped is False:
        spots.append(_NO_TIMES)
    if decoder.clock.shared:
        spots.append(_SHARED)
    return (*spots, *LOG_BLIND_SPOTS)


SYS_BLIND_SPOTS: Final = (
    BlindSpot(
        "publishes, allowed or denied: Mosquitto never publishes log lines of type debug",
        _PLUGIN + "; or read the log file with log_type all",
    ),
    BlindSpot("payloads, deliveries and wills", _PLUGIN),
    BlindSpot("times are whole seconds", _PLUGIN),
    BlindSpot("user name and address of clients that connected before this collector did", "read the log file instead"),
    BlindSpot("whether a user name was checked: the log does not say if a password was asked for", None),
    BlindSpot("denied subscriptions, and whether an unsubscription was allowed", _PLUGIN),
)
"""What `$SYS` cannot show, whatever the broker is set to publish."""

SYS_NO_LOG: Final = BlindSpot(
    "connections, refusals and subscriptions: nothing has come from $SYS/broker/log",
    "log_dest topic  and  log_type all, then restart the broker; and let this account read $SYS/broker/log/#",
)
SYS_NO_COUNTS: Final = BlindSpot(
    "the broker's own counts: nothing has come from $SYS",
    "sys_interval 10, and let this account read $SYS/#",
)
