"""What the Mosquitto plugin cannot show, by the mode flags in its ring. Seen with Mosquitto 2.0.11."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from topicwarden.sources import BlindSpot
from topicwarden_collectors.mosquitto import ring_layout as layout

_WITHOUT: Final = {
    layout.MODE_DECISIONS: BlindSpot(
        "what the broker refused, and subscriptions, are not seen: only publishes that it accepted",
        "fix what keeps the plugin from observing access checks; `topicwarden doctor` says what",
    ),
    layout.MODE_AUTH: BlindSpot(
        "logins are not seen, refused ones included: clients are known from their first action on",
        "fix what keeps the plugin from observing logins; `topicwarden doctor` says what",
    ),
    layout.MODE_DELIVER: BlindSpot(
        "deliveries to subscribers are not recorded: who subscribed is known, not who received what",
        "plugin_opt_deliver all",
    ),
    layout.MODE_ENTROPY: BlindSpot("the entropy of payloads is not measured", "plugin_opt_entropy on"),
    layout.MODE_PEER_PORT: BlindSpot(
        "a client's TCP port is not known, only its address: which process it is cannot be told for sure",
        "plugin_opt_peer_port on",
    ),
}
_WITH: Final = {
    layout.MODE_CONFIG_UNREADABLE: BlindSpot(
        "the plugin could not read the broker's configuration, so it keeps out of decisions and sees none",
        "plugin_opt_config with the path of mosquitto.conf, readable by the broker's account",
    ),
    layout.MODE_OTHER_PLUGIN: BlindSpot(
        "another plugin decides about access in ways we were not told, so our plugin keeps out of decisions",
        "plugin_opt_other_plugins none, acl, auth or acl,auth, as the other plugin does",
    ),
    layout.MODE_PER_LISTENER: BlindSpot(
        "per_listener_settings is on: listeners without the plugin's line, and all bridges, are not seen",
        "add the plugin's lines to every listener, or set per_listener_settings false",
    ),
}
_ALWAYS: Final = (
    BlindSpot("whether a will was accepted is not known: Mosquitto 2.0 does not tell plugins"),
    BlindSpot(
        "attempts to publish to $SYS or $share topics are not seen: the broker refuses them before it asks plugins",
        "log_type debug; they are in the log as `Denied PUBLISH`",
    ),
    BlindSpot(
        "subscriptions that a persistent session made before the plugin was loaded are not seen when it comes back"
    ),
    BlindSpot("of a bridge only the publishes accepted from it are seen; it has no logins and no access checks"),
    BlindSpot(
        "logins by client certificate (use_identity_as_username, use_subject_as_username) are not seen as logins: such "
        "a client is known from its first action on"
    ),
)


def ring_blind_spots(mode: int) -> Sequence[BlindSpot]:
    """Return what a plugin running with these TW_MODE_* flags cannot show."""
    return (
        *(spot for flag, spot in _WITHOUT.items() if not mode & flag),
        *(spot for flag, spot in _WITH.items() if mode & flag),
        *_ALWAYS,
    )
