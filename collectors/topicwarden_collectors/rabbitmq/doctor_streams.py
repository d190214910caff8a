"""Who can read the audit streams, which have all payloads of a virtual host, and who can put messages into them.

Read and forged for real on RabbitMQ 3.10.8. To read, a client binds a queue to `amq.rabbitmq.trace`: that needs read
on the exchange and write on some queue. To forge, it cannot publish there (the exchange is internal), but may bind it
to an exchange of its own (write on the stream, read on the source), or name it as alternate or dead letter exchange.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote_plus

from topicwarden_collectors.rabbitmq.definitions import Binding, Definitions
from topicwarden_collectors.rabbitmq.doctor_examination import (
    EVENTS,
    LOG,
    NOT_AUDIT,
    TRACE,
    Examination,
    argument,
    commands,
    names,
)
from topicwarden_collectors.rabbitmq.doctor_grants import Rights
from topicwarden_collectors.rabbitmq.exchanges import BUILT_IN, DEFAULT
from topicwarden_collectors.rabbitmq.permissions import Permission

_OWN_QUEUE: Final = "amq.gen-AAAAAAAAAAAAAAAAAAAAAA"
"""What a queue that the server names is called: 22 letters of base64."""
_LEADS: Final = ("alternate-exchange", "x-dead-letter-exchange", "dead-letter-exchange")
_SHOWN: Final = 20


def check_streams(
    examination: Examination,
    definitions: Definitions,
    *,
    ours: str | None = None,
    default_vhost: str = "/",
    there: Collection[str] = (EVENTS, LOG),
) -> None:
    """Judge who reads and who forges audit streams.

    `ours` is our own account's name; `there` are the streams, beside the firehose, that the default virtual host has.
    """
    _readers(examination, definitions, ours, default_vhost, [TRACE, *there])
    _bound(examination, definitions)
    _forged(examination, definitions)
    if definitions.whole:
        examination.ok("stream.readable", "stream.forgeable")
    examination.ok("stream.bound", "stream.forged")


def is_stream(name: object) -> bool:
    """Whether an exchange is one of the audit streams; what begins like them counts."""
    return isinstance(name, str) and name.startswith(("amq.rabbitmq.", "amq.topicwarden."))


def narrowed(regex: str) -> str:
    """Return a permission for the same names, the audit streams excepted."""
    return f"{NOT_AUDIT}.*" if regex == ".*" else f"{NOT_AUDIT}(?s:.*?)(?:{regex})" if regex else regex


def _readers(
    examination: Examination, definitions: Definitions, ours: str | None, default_vhost: str, there: Collection[str]
) -> None:
    rights = Rights(definitions)
    queues: dict[str, list[str]] = defaultdict(list)
    exchanges: dict[str, list[str]] = defaultdict(list)
    for queue in definitions.queues:
        queues[queue.vhost].append(queue.name)
    for exchange in definitions.exchanges:
        exchanges[exchange.vhost].append(exchange.name)
    # Who may change grants can give himself these: naming him says nothing new, so it is a note.
    administrators = {user.name for user in definitions.users if "administrator" in user.tags}
    said = 0
    for vhost, people in sorted(rights.permissions.items()):
        streams = [name for name in there if name == TRACE or vhost == default_vhost]
        for user, permission in sorted(people, key=lambda pair: pair[0]):
            readable = [name for name in streams if rights.allows(permission.read, name)]
            writable = [name for name in streams if rights.allows(permission.write, name)]
            if user == ours:
                readable = []
            said += bool(readable or writable)
            if said > _SHOWN:
                continue
            fix = _narrow(vhost, user, permission)
            level = "note" if user in administrators else "warning"
            if readable:
                queue_found = _queue(rights, permission, queues[vhost])
                examination.say(
                    level,
                    "stream.readable",
                    f"user {user!r} may bind to {names(readable)} in {vhost!r}"
                    + (f" ({queue_found}): " if queue_found else ", once it has a queue it may write to: ")
                    + (
                        "all payloads there while tracing is on"
                        if TRACE in readable
                        else "it learns all that we learn, and so what we do not"
                    ),
                    definitions.source,
                    fix=fix,
                )
            way = _way(rights, permission, [*BUILT_IN, *exchanges[vhost]], queues[vhost]) if writable else None
            if writable and way:
                examination.say(
                    level,
                    "stream.forgeable",
                    f"user {user!r} may put messages of its own into {names(writable)} in {vhost!r}: {way}",
                    definitions.source,
                    fix=fix,
                )
    if said > _SHOWN:
        examination.say(
            "warning", "stream.readable", f"and {said - _SHOWN} more users who may read or forge audit streams"
        )


def _queue(rights: Rights, permission: Permission, queues: Iterable[str]) -> str | None:
    """Return how the user gets a queue to bind, in words; None when no such queue is known."""
    if rights.allows(permission.configure, _OWN_QUEUE) and rights.allows(permission.write, _OWN_QUEUE):
        return "with a queue that the server names"
    found = next((name for name in queues if rights.allows(permission.write, name)), None)
    return None if found is None else f"with the queue {found!r}"


def _way(rights: Rights, permission: Permission, exchanges: Iterable[str], queues: Iterable[str]) -> str | None:
    """Return how a user who may write to a stream gets a message there; None when no way is known."""
    for name in exchanges:
        if name != DEFAULT and not is_stream(name) and rights.allows(permission.read, name):
            if rights.allows(permission.write, name):
                return f"by a binding from the exchange {name!r}"
            if rights.allows(permission.configure, name):
                return f"as alternate exchange of {name!r}"
    for name in queues:
        if rights.allows(permission.configure, name) and rights.allows(permission.read, name):
            return f"as dead letter exchange of {name!r}"
    if rights.allows(permission.configure, _OWN_QUEUE) and rights.allows(permission.read, _OWN_QUEUE):
        return "as dead letter exchange of a queue that the server names"
    return None


def _narrow(vhost: str, user: str, permission: Permission) -> str:
    words = ["-p", vhost, user, permission.configure, narrowed(permission.write), narrowed(permission.read)]
    return commands("rabbitmqctl set_permissions " + " ".join(argument(word) if word else "''" for word in words))


def _bound(examination: Examination, definitions: Definitions) -> None:
    for binding in [one for one in definitions.bindings if is_stream(one.source)][:_SHOWN]:
        what = "exchange" if binding.to_exchange else "queue"
        examination.say(
            # A queue that the server named is most likely a reader's, such as our own, and goes with it.
            "warning" if binding.source == TRACE and not binding.destination.startswith("amq.gen-") else "note",
            "stream.bound",
            f"{binding.source!r} in {binding.vhost!r} flows into the {what} {binding.destination!r} (key"
            f" {binding.key!r}): whoever reads that gets all of it, and a queue grows while nobody does",
            definitions.source,
            fix=_unbind(binding),
        )


def _forged(examination: Examination, definitions: Definitions) -> None:
    source = definitions.source
    for binding in [one for one in definitions.bindings if one.to_exchange and is_stream(one.destination)][:_SHOWN]:
        examination.say(
            "problem",
            "stream.forged",
            f"messages of the exchange {binding.source!r} in {binding.vhost!r} (key {binding.key!r}) flow into"
            f" {binding.destination!r}: its readers take them for the broker's own words",
            source,
            fix=_unbind(binding),
        )
    for what, vhost, name, arguments in _arguments(definitions):
        for key in _LEADS:
            if is_stream(arguments.get(key)):
                examination.say(
                    "problem",
                    "stream.forged",
                    f"the {what} {name!r} in {vhost!r} has {arguments[key]!r} as {key.removeprefix('x-')}: what it"
                    " passes on is taken for the broker's own words",
                    source,
                    fix=_cure(what, vhost, name),
                )


def _arguments(definitions: Definitions) -> Iterator[tuple[str, str, str, Mapping[str, object]]]:
    for queue in definitions.queues:
        yield "queue", queue.vhost, queue.name, queue.arguments
    for exchange in definitions.exchanges:
        yield "exchange", exchange.vhost, exchange.name, exchange.arguments
    for policy in definitions.policies:
        yield "policy", policy.vhost, policy.name, policy.definition


def _cure(what: str, vhost: str, name: str) -> str:
    place = argument(vhost)
    match what:
        case "policy":
            return commands(f"rabbitmqctl clear_policy -p {place} {argument(name)}")
        case "queue":
            return commands(
                "# its messages are lost; declare it again without that argument",
                f"rabbitmqctl delete_queue -p {place} {argument(name)}",
            )
    return commands(
        "# its bindings are lost; declare it again without that argument",
        f"rabbitmqadmin --vhost={place} delete exchange name={argument(name)}",
    )


def _unbind(binding: Binding) -> str:
    """Return the command that takes a binding away.

    The API's name of a binding without arguments is its key in URL spelling, `~` when it is empty (3.10.8).
    """
    key = quote_plus(binding.key, safe="").replace("~", "%7E") or "~"
    kind = "exchange" if binding.to_exchange else "queue"
    return commands(
        f"rabbitmqadmin --vhost={argument(binding.vhost)} delete binding source={argument(binding.source)}"
        f" destination_type={kind} destination={argument(binding.destination)} properties_key={argument(key)}"
    )
