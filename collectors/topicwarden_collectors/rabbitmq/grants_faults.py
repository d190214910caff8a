"""What is wrong with permissions by RabbitMQ's own rules, whatever was meant by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from topicwarden.events import Client
from topicwarden.grants import Fault, Origin, Path
from topicwarden.patterns import Regex, dollar_newline, regex_problem, unanchored
from topicwarden_collectors.rabbitmq.definitions import Definitions, User
from topicwarden_collectors.rabbitmq.exchanges import AUDIT, EVENTS, LOG, TRACE
from topicwarden_collectors.rabbitmq.grants_rules import Decider, Row, Spliced
from topicwarden_collectors.rabbitmq.grants_topology import STREAMS
from topicwarden_collectors.rabbitmq.grants_versions import Behaviour

INEFFECTIVE, DANGEROUS, UNANCHORED, UNDECIDED, CLIENT_CHOSEN = "TW105", "TW112", "TW113", "TW114", "TW115"
_TAGS: Final[Mapping[str, str]] = {
    "administrator": "its holder may change every grant, and so do everything",
    "impersonator": "its holder may publish messages that name another user as their sender",
    "policymaker": "its holder may set policies, which redirect messages past all permissions",
}
_READ: Final[Mapping[str, str]] = {
    TRACE: "every message of the virtual host while tracing is on",
    EVENTS: "who connects and who changes which grant",
    LOG: "the broker's log",
    AUDIT: "what every client does and tries",
}
MANY_ADMINISTRATORS: Final = 2
"""As many as a broker may have without being told so; `doctor` lists them in any case."""
_cached_unanchored = lru_cache(4096)(unanchored)
_cached_newline = lru_cache(4096)(dollar_newline)


class Faults:
    """Finds the faults of one broker's grants."""

    def __init__(
        self,
        definitions: Definitions,
        broker: str,
        rows: Mapping[tuple[str, str], Row],
        deciders: Mapping[str, Decider],
        behaviour: Behaviour,
        paths: Callable[[Client], Sequence[Path]],
        ours: str | None,
    ) -> None:
        """`ours`: the account we ask as, whose reading of audit streams is nobody's fault."""
        self._definitions = definitions
        self._broker = broker
        self._rows = rows
        self._deciders = deciders
        self._behaviour = behaviour
        self._paths = paths
        self._ours = ours
        self._users = {user.name: user for user in definitions.users}

    def all(self) -> Iterator[Fault]:
        """Yield them: of users, then row by row."""
        for user in self._users.values():
            yield from self._of_user(user)
        for row in self._rows.values():
            yield from self._of_row(row)
        for one in self._definitions.topic_permissions:
            if (one.user, one.vhost) not in self._rows:
                holder = f"user {one.user!r} in virtual host {one.vhost!r}"
                text = f"topic permission on exchange {one.exchange!r}"
                yield _fault(
                    INEFFECTIVE,
                    Origin(self._definitions.source, None, text, holder),
                    "the user has no permissions in the virtual host, so it cannot connect there",
                )

    def _of_user(self, user: User) -> Iterator[Fault]:
        client = Client(self._broker, "amqp", "", user.name)
        holder = f"user {user.name!r}"
        many = sum("administrator" in one.tags for one in self._users.values()) > MANY_ADMINISTRATORS
        for tag, reason in _TAGS.items():
            # Somebody has to be the administrator.
            if tag in user.tags and (tag != "administrator" or many):
                origin = Origin(self._definitions.source, None, f"tag {tag}", holder)
                yield _fault(DANGEROUS, origin, reason, client)
        if user.weak_password is not None:
            origin = Origin(self._definitions.source, None, "password", holder)
            reason = (
                "it is guest, which everybody tries first; only loopback_users may keep those on other machines out"
                if user.name == "guest"
                else "it is the user's own name"
                if user.weak_password == user.name
                else f"it is {user.weak_password}"
            )
            yield _fault(DANGEROUS, origin, reason, client)

    def _of_row(self, row: Row) -> Iterator[Fault]:
        missing = self._missing(row)
        if missing is not None:
            for origin in (row.configure, row.write, row.read, *row.topic_write.values(), *row.topic_read.values()):
                yield _fault(INEFFECTIVE, origin, missing)
            return
        client = Client(self._broker, "amqp", "", row.user, vhost=row.vhost)
        for permission, origin in (
            (row.permission.configure, row.configure),
            (row.permission.write, row.write),
            (row.permission.read, row.read),
        ):
            yield from _of_expression(permission or "^$", origin, client, keys=False)
        yield from self._of_topics(row, client)
        user = self._users[row.user]
        if "administrator" not in user.tags and row.user != self._ours:
            yield from self._of_streams(row, client)

    def _missing(self, row: Row) -> str | None:
        if row.user not in self._users:
            return f"there is no user {row.user!r}"
        return None if row.vhost in self._deciders else f"there is no virtual host {row.vhost!r}"

    def _of_topics(self, row: Row, client: Client) -> Iterator[Fault]:
        exchanges = self._deciders[row.vhost].topology.exchanges
        spliced = Spliced(row, None, self._behaviour.escapes)
        for name, topic in row.topics.items():
            exchange = exchanges.get(name)
            idle = None
            if exchange is None and not name.startswith("amq."):
                idle = "there is no such exchange"
            elif exchange is not None and exchange.type not in ("topic", None):
                idle = f"the exchange is of type {exchange.type!r}, and keys are checked on topic exchanges only"
            for permission, origin in ((topic.write, row.topic_write[name]), (topic.read, row.topic_read[name])):
                if idle is not None:
                    yield _fault(INEFFECTIVE, origin, idle)
                    continue
                if "{client_id}" in permission:
                    yield _fault(CLIENT_CHOSEN, origin, self._client_chosen(), client)
                yield from _of_expression(spliced.text(permission), origin, client, keys=True)

    def _client_chosen(self) -> str:
        reason = "{client_id} is what an MQTT client calls itself"
        if self._behaviour.escapes is None:
            return f"{reason}, and perhaps put in unescaped: then a client called .* is allowed everything"
        if "-" not in self._behaviour.escapes:
            unescaped = "all but a hyphen escaped" if self._behaviour.escapes else "unescaped"
            return f"{reason}, and put in {unescaped} by RabbitMQ {self._behaviour.version}" + (
                "" if self._behaviour.escapes else ": a client called .* is allowed everything"
            )
        return reason

    def _of_streams(self, row: Row, client: Client) -> Iterator[Fault]:
        decider = self._deciders[row.vhost]
        readable, writable = decider.matched(row.permission.read), decider.matched(row.permission.write)
        for stream in decider.topology.streams:
            if readable.get(stream):
                yield _fault(DANGEROUS, row.read, f"it lets a client read {_READ[stream]} ({stream})", client)
        if not any(writable.get(stream) for stream in STREAMS):
            return
        told = set()
        for path in self._paths(client):
            stream = path.space.within
            if stream in STREAMS and writable.get(stream) and stream not in told:
                told.add(stream)
                reason = f"it lets a client put messages into {stream}, which auditors take for the broker's own words"
                yield _fault(DANGEROUS, row.write, f"{reason}, by way of {path.how}", client)


def _of_expression(text: str, origin: Origin, client: Client, *, keys: bool) -> Iterator[Fault]:
    regex = Regex(text)
    problem = regex_problem(text)
    if problem is not None:
        yield _fault(UNDECIDED, origin, problem, client)
        return
    found = _cached_unanchored(regex)
    witness = None if found is None else found.topic
    if witness is None and keys:
        # RabbitMQ takes CR and LF out of the names of queues and exchanges, but not out of keys (3.10.8).
        witness = _cached_newline(regex)
    if witness is not None:
        yield Fault(UNANCHORED, origin, client, witness)


def _fault(code: str, origin: Origin, reason: str, client: Client | None = None) -> Fault:
    return Fault(code, origin, client, evidence={"reason": reason})
