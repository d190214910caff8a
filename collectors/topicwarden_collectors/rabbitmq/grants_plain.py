"""What a RabbitMQ would allow, by its definitions, in the plain form that every broker's grants have.

Only RabbitMQ's own database of users and permissions (`rabbit_auth_backend_internal`) is read; what other backends
decide (LDAP, OAuth 2, HTTP) is not among the definitions. Each rule here is asked of a running 3.10.8 by the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Final

from topicwarden.events import Action, Client
from topicwarden.grants import Fault, Kept, Origin, Path, Rights
from topicwarden.patterns import Names, Regex
from topicwarden.policy import MQTT_EXCHANGE, Place, Space
from topicwarden_collectors.rabbitmq.definitions import Definitions
from topicwarden_collectors.rabbitmq.export_rights import MQTT_QUEUES
from topicwarden_collectors.rabbitmq.grants_faults import Faults
from topicwarden_collectors.rabbitmq.grants_instead import Grant, instead
from topicwarden_collectors.rabbitmq.grants_paths import paths_of
from topicwarden_collectors.rabbitmq.grants_rules import Decider, Row, rights_of
from topicwarden_collectors.rabbitmq.grants_topology import DEFAULT_VHOST, topologies
from topicwarden_collectors.rabbitmq.grants_versions import Behaviour, behaviour_of
from topicwarden_collectors.rabbitmq.permissions import TopicPermission

KINDS: Final = ("configure", "write", "read")
_CACHED: Final = 1 << 14


class DefinedGrants:
    """The grants of one broker, all virtual hosts. Not for several threads."""

    kind = "rabbitmq"
    closed = True
    """Users that the definitions do not have cannot connect, as far as RabbitMQ's own database decides."""

    def __init__(self, definitions: Definitions, broker: str, title: str, ours: str | None = None) -> None:
        """`ours`: the account the definitions were asked for with."""
        self._ours = ours
        self.broker = broker
        self.title = title
        self._definitions = definitions
        self.behaviour: Behaviour = behaviour_of(definitions.rabbit_version)
        self._topologies = topologies(definitions)
        self._users = {user.name for user in definitions.users}
        self._grants: dict[Origin, Grant] = {}
        self.rows: dict[tuple[str, str], Row] = self._rows()
        """By user and virtual host; also of users that there are not."""
        self._deciders = {vhost: Decider(topology, definitions.source) for vhost, topology in self._topologies.items()}
        self._rights = lru_cache(_CACHED)(self._worked_out)
        self._paths = lru_cache(_CACHED)(self._found_paths)

    @cached_property
    def accounts(self) -> Sequence[Client]:
        """Every user in every virtual host in which it has permissions."""
        return [Client(self.broker, "amqp", "", user, vhost=vhost) for user, vhost in self.rows if user in self._users]

    @property
    def origins(self) -> Sequence[Origin]:
        """The three permissions of each row, and the two of each row of topic permissions."""
        return list(self._grants)

    @cached_property
    def faults(self) -> Sequence[Fault]:
        """What is wrong with the grants, whatever was meant."""
        found = Faults(
            self._definitions, self.broker, self.rows, self._deciders, self.behaviour, self.paths, self._ours
        )
        return list(found.all())

    @cached_property
    def blind_spots(self) -> Sequence[str]:
        """What the definitions cannot tell."""
        found = [
            "users, permissions and denials of other backends (LDAP, OAuth 2, HTTP) are not among the definitions",
            "exclusive queues and those who made them are not among the definitions",
            f"MQTT topics are taken to be keys of the exchange {MQTT_EXCHANGE!r}, unless mqtt.exchange says otherwise",
        ]
        if self.behaviour.version is None:
            found.append("the server's version is not known, nor what it does not check")
        elsewhere = [
            f"shovel {one.name!r} in {one.vhost!r}"
            for one in self._definitions.parameters
            if one.shovel is not None and (not one.shovel.inside or one.shovel.from_vhost != one.shovel.to_vhost)
        ]
        elsewhere += [
            f"federation {one.name!r} in {one.vhost!r}"
            for one in self._definitions.parameters
            if one.component.startswith("federation-upstream")
        ]
        if elsewhere:
            shown = ", ".join(elsewhere[:5]) + (f" and {len(elsewhere) - 5} more" if len(elsewhere) > 5 else "")
            found.append(
                f"messages that come from other brokers or virtual hosts, or go there, are not followed: {shown}"
            )
        return found

    def rights(self, client: Client) -> Rights | None:
        """Return what a client may do; None when it has no permission in its virtual host."""
        row = self._row(client)
        return None if row is None else self._rights(row.user, row.vhost, self._client_id(row, client))

    def paths(self, client: Client) -> Sequence[Path]:
        """Return what a client can reach in indirect ways."""
        row = self._row(client)
        return () if row is None else self._paths(row.user, row.vhost, self._client_id(row, client))

    def carried(self, place: Place) -> Place:
        """Return an MQTT topic as the key that the plugin makes of it: `/` becomes `.`, `+` becomes `*` (3.10.8)."""
        if place.space.family != "topic":
            return place
        words = ["*" if level == "+" else level for level in place.pattern.split("/")]
        return Place(Space("key", MQTT_EXCHANGE), ".".join(words))

    def needed(self, action: Action, place: Place) -> Sequence[tuple[Action, Space, Names]]:
        """Return the queue of its own that an MQTT client has for its subscriptions (seen with 3.10.8)."""
        if action is not Action.SUBSCRIBE or place.space.family != "topic":
            return ()
        queue, names = Space("queue"), Regex(f"^{MQTT_QUEUES}$")
        return ((Action.CONFIGURE, queue, names), (Action.SUBSCRIBE, queue, names))

    def instead(
        self, origin: Origin, client: Client, kept: Sequence[Kept], intended: Sequence[Kept] | None = None
    ) -> str:
        """Return the command that leaves a client what is `kept` of a grant."""
        grant, row = self._grants.get(origin), self._row(client)
        if grant is None or row is None:
            return ""
        return instead(grant, row, self._topologies[row.vhost], kept, intended)

    def _row(self, client: Client) -> Row | None:
        row = self.rows.get((client.user or "", DEFAULT_VHOST if client.vhost is None else client.vhost))
        return None if row is None or row.user not in self._users or row.vhost not in self._deciders else row

    @staticmethod
    def _client_id(row: Row, client: Client) -> str | None:
        """Return the client id where it makes a difference."""
        if not client.client_id and client.protocol != "mqtt":
            return None
        used = any("{client_id}" in part for topic in row.topics.values() for part in (topic.write, topic.read))
        return client.client_id if used else None

    def _worked_out(self, user: str, vhost: str, client_id: str | None) -> Rights:
        return rights_of(self.rows[user, vhost], self._deciders[vhost], client_id, self.behaviour.escapes)

    def _found_paths(self, user: str, vhost: str, client_id: str | None) -> Sequence[Path]:
        row = self.rows[user, vhost]
        rights = self._rights(user, vhost, client_id)
        return paths_of(row, rights, self._deciders[vhost], self.behaviour)

    def _rows(self) -> dict[tuple[str, str], Row]:
        source = self._definitions.source
        topics: dict[tuple[str, str], dict[str, TopicPermission]] = {}
        for one in self._definitions.topic_permissions:
            topics.setdefault((one.user, one.vhost), {})[one.exchange] = one.permission
        rows: dict[tuple[str, str], Row] = {}
        for granted in self._definitions.permissions:
            key = granted.user, granted.vhost
            holder = f"user {granted.user!r} in virtual host {granted.vhost!r}"
            origins: dict[str, Origin] = {}
            for kind in KINDS:
                origin = Origin(source, None, f"{kind} '{one_line(getattr(granted.permission, kind))}'", holder)
                origins[kind] = origin
                self._grants[origin] = Grant(kind)
            own = topics.get(key, {})
            keyed: dict[str, Mapping[str, Origin]] = {}
            for kind in ("write", "read"):
                keyed[f"topic_{kind}"] = {
                    name: Origin(
                        source,
                        None,
                        f"topic {kind} '{one_line(getattr(topic, kind))}' on exchange {name!r}",
                        holder,
                    )
                    for name, topic in own.items()
                }
                self._grants.update(
                    (origin, Grant(kind, exchange)) for exchange, origin in keyed[f"topic_{kind}"].items()
                )
            rows[key] = Row(
                granted.user,
                granted.vhost,
                granted.permission,
                origins["configure"],
                origins["write"],
                origins["read"],
                own,
                keyed["topic_write"],
                keyed["topic_read"],
            )
        return rows


def one_line(text: str) -> str:
    """Return a text without line breaks, which could pass for another line."""
    return text.replace("\n", "\\n").replace("\r", "\\r")
