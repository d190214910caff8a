"""Is our own account minimal: it should read the audit streams and do nothing else.

Judged by the definitions, where there are any, and by what the management API says of our tags. Nothing is tried that
would change something if it worked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from topicwarden_collectors.rabbitmq.definitions import Definitions
from topicwarden_collectors.rabbitmq.doctor_examination import (
    OWN_CONFIGURE,
    OWN_READ,
    OWN_WRITE,
    Examination,
    argument,
    commands,
    names,
)
from topicwarden_collectors.rabbitmq.doctor_streams import is_stream
from topicwarden_collectors.rabbitmq.exchanges import BUILT_IN
from topicwarden_collectors.rabbitmq.permissions import Expressions, Permission

NEEDED_TAG = "monitoring"
"""Lets the management API tell virtual hosts, plugins and tracing; nothing needs it."""


def check_account(
    examination: Examination, user: str, tags: tuple[str, ...] | None, definitions: Definitions | None
) -> None:
    """Judge our own account."""
    mine = next((one for one in definitions.users if one.name == user), None) if definitions else None
    if tags is None and mine is not None:
        tags = mine.tags
    too_much = [tag for tag in tags or () if tag not in (NEEDED_TAG, "management")]
    if too_much:
        examination.say(
            "warning",
            "account.minimal",
            f"our own account {user!r} has the tags {names(too_much)}: reading needs none of them",
            fix=commands(f"rabbitmqctl set_user_tags {argument(user)} {NEEDED_TAG}"),
        )
    if mine is None or definitions is None:
        what = "our account's tags and permissions" if tags is None else "our account's permissions"
        examination.say("note", "account.minimal", f"{what} are not known: only administrators are told them")
        examination.blind("whether our own account may do more than it needs", "add ?definitions=FILE to the address")
        return
    expressions = Expressions()
    for one in definitions.permissions:
        if one.user != user:
            continue
        known = [
            row.name for rows in (definitions.exchanges, definitions.queues) for row in rows if row.vhost == one.vhost
        ]
        excess = list(_excess(expressions, one.permission, [*BUILT_IN, *known]))
        if excess:
            examination.say(
                "warning",
                "account.minimal",
                f"our own account {user!r} may {', '.join(excess)} in {one.vhost!r}, and needs none of it",
                definitions.source,
                fix=commands(
                    f"rabbitmqctl set_permissions -p {argument(one.vhost)} {argument(user)}"
                    f" '{OWN_CONFIGURE}' '{OWN_WRITE}' '{OWN_READ}'"
                ),
            )
    examination.ok("account.minimal")


def _excess(expressions: Expressions, permission: Permission, known: Iterable[str]) -> Iterator[str]:
    """Yield, for each kind of permission, one name it has and does not need."""
    for kind in ("configure", "write", "read"):
        regex: str = getattr(permission, kind)
        for name in known:
            needed = name.startswith("amq.gen-") or (kind == "read" and is_stream(name))
            if not needed and expressions.allows(regex, name):
                yield f"{kind} {name!r}"
                break
