"""What a node's definitions grant to too many: users, permissions, topic permissions."""

from __future__ import annotations

from collections import defaultdict
from typing import Final, TypeVar

from topicwarden_collectors.rabbitmq.definitions import Definitions, User
from topicwarden_collectors.rabbitmq.doctor_examination import Examination, argument, commands, names
from topicwarden_collectors.rabbitmq.grants_names import Names
from topicwarden_collectors.rabbitmq.grants_versions import behaviour_of
from topicwarden_collectors.rabbitmq.permissions import Expressions, Permission, why_unsure

EVERYTHING: Final = (".*", "^.*$", "^.*", ".*$", "")
_SHOWN: Final = 20
"""Findings of one check before the rest is summed up."""
T = TypeVar("T")
_MANY_ADMINISTRATORS: Final = 2


def check_grants(examination: Examination, definitions: Definitions, *, guest_remote: bool | None = None) -> None:
    """Judge users and permissions; `guest_remote` is whether guest can log in from elsewhere (None: not known)."""
    check_version(examination, definitions.rabbit_version, definitions)
    if not definitions.whole:
        examination.blind(
            "users and permissions: this is the export of one virtual host", "rabbitmqctl export_definitions FILE"
        )
        return
    _guest(examination, definitions, guest_remote)
    _users(examination, definitions)
    _permissions(examination, definitions)
    _topics(examination, definitions)
    if not any(user.name == "guest" for user in definitions.users):
        examination.ok("guest.exists")
    examination.ok("guest.password", "user.weak-password", "user.administrator", "user.impersonator")
    examination.ok("user.idle", "permission.everything", "permission.undecided", "topic.client-id", "topic.no-effect")


def check_version(examination: Examination, version: str | None, definitions: Definitions | None = None) -> None:
    """Say what a server of this version does not check. Sources: see `grants_versions`."""
    behaviour = behaviour_of(version)
    source = definitions.source if definitions else None
    if behaviour.version is None:
        examination.say(
            "note", "server.version", "the server's version is not known, nor what it does not check", source
        )
        return
    topics = definitions is None or not definitions.whole or bool(definitions.topic_permissions)
    if topics and behaviour.checks_copies is False:
        examination.say(
            "warning" if definitions and definitions.topic_permissions else "note",
            "server.version",
            f"RabbitMQ {behaviour.version} does not hold the routing keys in CC and BCC headers against topic"
            " permissions: who may publish one key to an exchange may publish all; since 4.0.3 it does (pull request"
            " 12553)",
            source,
        )
    if topics and behaviour.names_topic_deletion is False:
        examination.say(
            "note",
            "server.version",
            f"RabbitMQ {behaviour.version} reports the clearing of one topic permission as permission.deleted: nothing"
            " tells which of the two was cleared; since 3.11.26 and 3.12.9 it does (issue 9937)",
            source,
        )
        examination.blind(
            "whether a user with topic permissions lost a permission or one of those, when one is cleared",
            "RabbitMQ 3.12.9 or newer",
        )
    if topics and behaviour.escapes is None:
        examination.say(
            "note",
            "server.version",
            f"it is not known whether RabbitMQ {behaviour.version} escapes what it puts into topic permissions",
            source,
        )
    examination.ok("server.version")


def _guest(examination: Examination, definitions: Definitions, remote: bool | None) -> None:
    guest = next((user for user in definitions.users if user.name == "guest"), None)
    if guest is None:
        return
    delete = commands("rabbitmqctl delete_user guest")
    if guest.weak_password is not None:
        where = {
            True: "and can log in from other machines",
            False: "though it can log in from the broker's own machine only",
            None: "; whether it can log in from other machines stands in rabbitmq.conf",
        }[remote]
        examination.say(
            "warning" if remote is False else "problem",
            "guest.password",
            f"the user guest has the password guest, {where}".replace(", ;", ";"),
            definitions.source,
            fix=delete,
        )
        return
    examination.say(
        "note", "guest.exists", "there is a user guest, which everybody tries first", definitions.source, fix=delete
    )


def _users(examination: Examination, definitions: Definitions) -> None:
    source = definitions.source
    for user in _first(examination, "user.weak-password", [u for u in definitions.users if _weak(u)], source):
        examination.say(
            "problem",
            "user.weak-password",
            f"the password of user {user.name!r} is {user.weak_password!r}",
            source,
            fix=commands(f"rabbitmqctl change_password {argument(user.name)}  # it asks for the new one"),
        )
    administrators = [user.name for user in definitions.users if "administrator" in user.tags]
    if administrators:
        many = len(administrators) > _MANY_ADMINISTRATORS
        examination.say(
            "warning" if many else "note",
            "user.administrator",
            f"users with the tag administrator, who may change every grant: {names(administrators, 20)}",
            source,
        )
    for user in definitions.users:
        if "impersonator" in user.tags:
            rest = " ".join(argument(tag) for tag in user.tags if tag != "impersonator")
            examination.say(
                "warning",
                "user.impersonator",
                f"user {user.name!r} may publish messages whose user_id property names another user",
                source,
                fix=commands(f"rabbitmqctl set_user_tags {argument(user.name)} {rest}".rstrip()),
            )
    granted = {one.user for one in definitions.permissions}
    idle = [user.name for user in definitions.users if user.name not in granted and not user.tags]
    if idle:
        examination.say(
            "note",
            "user.idle",
            f"users with neither a permission nor a tag: {names(idle, 20)}",
            source,
            fix=commands(*(f"rabbitmqctl delete_user {argument(name)}" for name in idle[:_SHOWN])),
        )


def _weak(user: User) -> bool:
    return user.weak_password is not None and user.name != "guest"


def _permissions(examination: Examination, definitions: Definitions) -> None:
    source = definitions.source
    tags = {user.name: user.tags for user in definitions.users}
    everything: dict[str, list[str]] = defaultdict(list)
    for one in definitions.permissions:
        parts = (one.permission.configure, one.permission.write, one.permission.read)
        if all(part in EVERYTHING and part for part in parts):
            everything[one.user].append(one.vhost)
        for kind, regex in zip(("configure", "write", "read"), parts, strict=True):
            reason = why_unsure(regex) if regex else None
            if reason:
                examination.say(
                    "note",
                    "permission.undecided",
                    f"the {kind} permission of {one.user!r} in {one.vhost!r} cannot be judged: {reason}",
                    source,
                )
                examination.blind("what permissions allow that cannot be judged without the broker")
    for user in _first(examination, "permission.everything", sorted(everything), source):
        vhosts = everything[user]
        power = "an administrator" if "administrator" in tags.get(user, ()) else "no administrator"
        examination.say(
            "note" if power.startswith("an ") else "warning",
            "permission.everything",
            f"user {user!r}, {power}, may configure, write and read everything in {names(vhosts)}",
            source,
            fix=""
            if power.startswith("an ")
            else commands(
                "# put the names this user needs in the place of NAMES",
                *(
                    f"rabbitmqctl set_permissions -p {argument(vhost)} {argument(user)} '^NAMES' '^NAMES' '^NAMES'"
                    for vhost in vhosts[:5]
                ),
            ),
        )


def _topics(examination: Examination, definitions: Definitions) -> None:
    behaviour = behaviour_of(definitions.rabbit_version)
    model = Names()
    model.load(definitions)
    for one in definitions.topic_permissions:
        where = f"the topic permission of {one.user!r} on {one.exchange!r} in {one.vhost!r}"
        used = [kind for kind in ("write", "read") if "{client_id}" in getattr(one.permission, kind)]
        if used and not (behaviour.escapes and "-" in behaviour.escapes):
            examination.say(
                "problem" if behaviour.escapes == "" else "warning",
                "topic.client-id",
                f"{where} has {{client_id}} in {' and '.join(used)}: the server puts in what an MQTT client calls"
                " itself, so that a client called .* is allowed everything",
                definitions.source,
                fix=commands(
                    "# RabbitMQ 4.2.9, 4.3.3 or newer escapes it; until then use {username} and a user for each client",
                    _topic_command(one.vhost, one.user, one.exchange, one.permission.write, one.permission.read),
                ),
            )
        kind = model.exchange_type(one.vhost, one.exchange)
        if kind not in (None, "topic"):
            examination.say(
                "warning",
                "topic.no-effect",
                f"{where} does nothing: the exchange is of type {kind!r}, and only those of type 'topic' are checked",
                definitions.source,
            )


def _topic_command(vhost: str, user: str, exchange: str, write: str, read: str) -> str:
    parts = [part.replace("{client_id}", "{username}") for part in (write, read)]
    words = ["-p", vhost, user, exchange, *parts]
    return "rabbitmqctl set_topic_permissions " + " ".join(argument(word) for word in words)


def _first(examination: Examination, check: str, found: list[T], source: str) -> list[T]:
    """Return the first of many findings, and say how many more there are."""
    if len(found) > _SHOWN:
        examination.say("warning", check, f"and {len(found) - _SHOWN} more users like those named", source)
    return found[:_SHOWN]


class Rights:
    """Who may do what by the definitions, asked one by one."""

    def __init__(self, definitions: Definitions) -> None:
        self._expressions = Expressions()
        self.permissions: dict[str, list[tuple[str, Permission]]] = defaultdict(list)
        """By virtual host: users and their permissions."""
        for one in definitions.permissions:
            self.permissions[one.vhost].append((one.user, one.permission))

    def allows(self, regex: str, name: str) -> bool:
        """Whether a permission surely allows a name."""
        return bool(self._expressions.allows(regex, name))
