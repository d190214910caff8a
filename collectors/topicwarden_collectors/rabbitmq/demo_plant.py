"""The plant of the demo: who works there, what the broker grants them, and what they should do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from topicwarden.sources import Planted
from topicwarden_collectors.rabbitmq.node import Node, quoted

VHOST: Final = "plant"
AUDITOR: Final = "auditor"
AUDITED_VHOST: Final = "/"
"""Where the plugin publishes what it saw, unless it is told otherwise."""

PLANTED: Final = (
    Planted("publishes another press's orders, which its grant happens to allow", "TW201", "press-11"),
    Planted("smuggles another press's key past its own in a CC header", "TW201", "press-16"),
    Planted("publishes on another sensor's command topic by MQTT", "TW201", "sensor-11"),
    Planted("uses an MQTT topic name that breaks the naming rule", "TW204", "sensor-12"),
    Planted("publishes 25 times faster than it may", "TW211", "press-12"),
    Planted("sends messages ten times larger than it may", "TW221", "press-13"),
    Planted("is known to the broker, and to no role of the policy", "TW230", "contractor-1"),
    Planted("is denied by the broker again and again, on a new channel each time", "TW301", "press-14"),
    Planted("binds its queue to everything", "TW203", "viewer"),
    Planted("consumes from somebody else's queue", "TW202", "press-15"),
    Planted("declares a queue it has no business with", "TW208", "press-17"),
    Planted("is given a wider grant by the operator than it should have", "TW101", "press-18"),
    Planted("goes on publishing after its permission was revoked", "TW207", "press-19"),
)

POLICY: Final = """\
# What each client should do; anything else is a finding.
topicwarden: 1
roles:
  press:
    members: [{user: "press-*", vhost: plant}]
    publish:
      - {exchange: readings, key: "*.%u.telemetry", rate: 10/s, burst: 20, max_size: 4KiB}
    consume:
      - {queue: "orders.%u"}
  scale:
    members: [{user: "scale-*", vhost: plant}]
    publish:
      - {exchange: readings, key: "*.%u.weight", rate: 5/s, burst: 10}
    consume:
      - {queue: "orders.%u"}
  sensor:
    members: [{user: "sensor-*", vhost: plant}]
    publish:
      - {topic: "plant/+/%u/telemetry", rate: 10/s, burst: 20, max_size: 4KiB}
    subscribe:
      - {topic: "plant/+/%u/command"}
  status:
    members: [{user: status-board, vhost: plant}]
    publish:
      - {topic: "plant/+/board/status", rate: 5/s, burst: 10}
  scheduler:
    members: [{user: scheduler, vhost: plant}]
    publish:
      - {exchange: orders, key: "line1.*.order", rate: 10/s, burst: 20}
  shift-report:
    members: [{user: shift-report, vhost: plant}]
    publish:
      - {exchange: readings, key: line1.shift.report, rate: 1/s, burst: 5}
  historian:
    members: [{user: historian, vhost: plant}]
    consume:
      - {queue: history}
  dashboard:
    members: [{user: dashboard, vhost: plant}]
    configure:
      - {queue: dashboard.live}
    subscribe:
      - {exchange: readings, key: "*.*.telemetry"}
    consume:
      - {queue: dashboard.live}
  viewer:
    members: [{user: viewer, vhost: plant}]
    configure:
      - {queue: viewer.live}
    subscribe:
      - {exchange: readings, key: line1.shift.report}
    consume:
      - {queue: viewer.live}
  administration:
    members: [{user: operator}]
naming:
  - within: {topic: "plant/#"}
    levels: ["plant", "[a-z][a-z0-9-]{1,31}", "[a-z0-9-]+", "telemetry|command|status"]
"""

PRESSES: Final = ("press-1", "press-2", "press-3")
SCALES: Final = ("scale-1", "scale-2")
SENSORS: Final = ("sensor-1", "sensor-2", "sensor-3")
WELL_BEHAVED: Final = (
    *PRESSES,
    *SCALES,
    *SENSORS,
    "status-board",
    "scheduler",
    "shift-report",
    "historian",
    "dashboard",
)


@dataclass(frozen=True, slots=True)
class Permission:
    """What RabbitMQ grants a user in a virtual host: regular expressions on names."""

    configure: str
    write: str
    read: str


WIDE: Final = Permission(".*", ".*", ".*")
"""Wider than it should be, as grants are: anybody may do anything in the plant's virtual host."""
READINGS_ONLY: Final = Permission("^$", "^readings$", "^$")
NARROW: Final[Mapping[str, Permission]] = {"press-14": READINGS_ONLY, "press-18": READINGS_ONLY}
"""Those who have less: the one who is denied, and the one who is given more while we look on."""
AUDIT: Final = Permission("^amq\\.gen-.*$", "^amq\\.gen-.*$", "^(amq\\.gen-.*|amq\\.topicwarden\\.audit)$")
"""All that our own account needs: a queue of its own, bound to the plugin's exchange."""

EXCHANGES: Final[Mapping[str, str]] = {"readings": "topic", "orders": "topic", "maintenance": "direct"}
QUEUES: Final[Mapping[str, tuple[str, str]]] = {
    "history": ("readings", "#"),
    **{f"orders.{name}": ("orders", f"line1.{name}.order") for name in (*PRESSES, *SCALES)},
}
"""Queues that are there before anybody comes, each with the exchange and the binding key it is fed by."""


def set_up(node: Node, password: str) -> None:
    """Create the plant's virtual host, exchanges, queues and users, and the auditor, on a fresh node."""
    node.add_vhost(VHOST)
    for exchange, kind in EXCHANGES.items():
        node.api("PUT", f"/exchanges/{VHOST}/{exchange}", {"type": kind, "durable": True})
    for queue, (exchange, key) in QUEUES.items():
        node.api("PUT", f"/queues/{VHOST}/{quoted(queue)}", {"durable": True})
        node.api("POST", f"/bindings/{VHOST}/e/{exchange}/q/{quoted(queue)}", {"routing_key": key})
    for user in (*WELL_BEHAVED, *(planted.client for planted in PLANTED)):
        node.add_user(user, password)
        permit(node, user, VHOST, NARROW.get(user, WIDE))
    node.add_user(AUDITOR, password)
    permit(node, AUDITOR, AUDITED_VHOST, AUDIT)


def permit(node: Node, user: str, vhost: str, permission: Permission) -> None:
    """Give a user this permission in place of what it had there."""
    node.permit(user, vhost, permission.configure, permission.write, permission.read)
