"""Writes a policy as RabbitMQ's permissions and topic permissions.

Two files of the same: definitions to import, and commands. Neither makes users or virtual hosts, which must exist
(3.10.8 refuses an import otherwise), nor sets passwords or tags, which an import of users would overwrite.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import Client
from topicwarden.grants import Export, Unsaid, unsaid_of
from topicwarden.policy import Policy
from topicwarden_collectors.rabbitmq.export_members import Account, members_of
from topicwarden_collectors.rabbitmq.export_rights import AccountRights, Notes, exchanges_of
from topicwarden_collectors.rabbitmq.permissions import Permission, TopicPermission

TARGET: Final = "rabbitmq"
DEFINITIONS: Final = "definitions.json"
COMMANDS: Final = "commands.sh"
_SHOWN: Final = 5

_Rows = Mapping[Account, tuple[Permission, Mapping[str, TopicPermission]]]


def export(target: str, policy: Policy, accounts: Sequence[Client]) -> Export:
    """Write the policy for these accounts and those that the policy names outright.

    Raises ConfigurationError for a target that is not RabbitMQ's.
    """
    if target != TARGET:
        raise ConfigurationError(Problem(f"RabbitMQ has no form {target!r}", hint=f"it is called {TARGET}"))
    members = members_of(policy, accounts)
    notes = Notes(denied_more=dict.fromkeys(members.denied_more))
    if members.roles:
        notes.more(
            "a permission is on a name, whether a queue or an exchange has it: 'read' on an exchange is also to "
            "consume from a queue of that name, 'write' on one is also to bind a queue of that name"
        )
    notes.unsaid.update(dict.fromkeys(unsaid_of(policy)))
    named = exchanges_of(policy)
    rows: dict[Account, tuple[Permission, Mapping[str, TopicPermission]]] = {}
    for account in sorted(members.roles, key=lambda account: (account[1], account[0])):
        rights = AccountRights(account[0], notes, stomp=account in members.stomp)
        for role in members.roles[account]:
            rights.add(role, policy.roles[role])
        rows[account] = rights.permission(), rights.topic_permissions(named)
    if members.without:
        notes.unsaid[_left_as_it_is(members.without)] = None
    return Export(
        target=TARGET,
        files={DEFINITIONS: _definitions(rows), COMMANDS: _commands(rows)},
        unsaid=list(notes.unsaid),
        denied_more=list(notes.denied_more),
    )


def _left_as_it_is(accounts: Sequence[Account]) -> Unsaid:
    shown = ", ".join(f"{user!r} in {vhost!r}" for user, vhost in accounts[:_SHOWN])
    more = f" and {len(accounts) - _SHOWN} more" if len(accounts) > _SHOWN else ""
    return Unsaid(
        f"no role is for {shown}{more}: what they may do now stays, until `rabbitmqctl clear_permissions` takes it away"
    )


def _definitions(rows: _Rows) -> str:
    """Return definitions with permissions and nothing else; an import leaves all else as it is."""
    # Topic permissions first, as in the commands: until they are there, every key is allowed.
    document = {
        "topic_permissions": [
            {"user": user, "vhost": vhost, "exchange": exchange, "write": topic.write, "read": topic.read}
            for (user, vhost), (_, topics) in rows.items()
            for exchange, topic in topics.items()
        ],
        "permissions": [
            {"user": user, "vhost": vhost, "configure": one.configure, "write": one.write, "read": one.read}
            for (user, vhost), (one, _) in rows.items()
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def _commands(rows: _Rows) -> str:
    lines = ["#!/bin/sh", "# Written by topicwarden export. Users and virtual hosts must be there already.", "set -eu"]
    for (user, vhost), (permission, topics) in rows.items():
        for exchange, topic in topics.items():
            lines.append(_command("set_topic_permissions", vhost, user, exchange, topic.write, topic.read))
        lines.append(_command("set_permissions", vhost, user, permission.configure, permission.write, permission.read))
    return "\n".join([*lines, ""])


def _command(name: str, vhost: str, *arguments: str) -> str:
    # Behind the --, a user whose name begins with a - is no option.
    return f"rabbitmqctl {name} -p {shlex.quote(vhost)} -- {shlex.join(arguments)}"
