"""Reads RabbitMQ's definitions: what `rabbitmqctl export_definitions` and `GET /api/definitions` give out.

Password hashes are dropped while reading; what is kept of one is only whether it is that of the user's own name or of
`guest`. Seen with 3.10.8: both leave out `amq.*` exchanges and exclusive queues, the command internal exchanges too;
the export of one virtual host has no users or permissions and does not name the virtual host (its policies do).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from topicwarden.errors import ConfigurationError, Problem
from topicwarden_collectors.rabbitmq.permissions import Permission, TopicPermission
from topicwarden_collectors.rabbitmq.shovels import Shovel, read_shovel

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_ENTRIES: Final = 500_000
"""Of all lists together."""
MAX_PROBLEMS: Final = 20
_HASHES: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "rabbit_password_hashing_sha256": hashlib.sha256,
    "rabbit_password_hashing_sha512": hashlib.sha512,
    "rabbit_password_hashing_md5": lambda data: hashlib.md5(data, usedforsecurity=False),
}
_SALT_BYTES: Final = 4
_SECTIONS: Final = (
    "users",
    "vhosts",
    "permissions",
    "topic_permissions",
    "exchanges",
    "queues",
    "bindings",
    "policies",
    "parameters",
)
_HINT: Final = "export it with: rabbitmqctl export_definitions FILE"


@dataclass(frozen=True, slots=True)
class User:
    """A user of RabbitMQ's own database."""

    name: str
    tags: tuple[str, ...] = ()
    has_password: bool | None = None
    """Whether he can log in with a password at all; None: the definitions do not say."""
    weak_password: str | None = None
    """`guest`, or the user's own name, when that is the password."""


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """A virtual host."""

    name: str
    tracing: bool | None = None
    """Whether the firehose is on; only the HTTP API's list of virtual hosts says."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A user's permissions in a virtual host."""

    user: str
    vhost: str
    permission: Permission


@dataclass(frozen=True, slots=True)
class TopicGranted:
    """A user's permissions on the routing keys of an exchange."""

    user: str
    vhost: str
    exchange: str
    permission: TopicPermission


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange."""

    vhost: str
    name: str
    type: str
    internal: bool = False
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue."""

    vhost: str
    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Binding:
    """What flows from an exchange to a queue or to another exchange."""

    vhost: str
    source: str
    destination: str
    to_exchange: bool
    key: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Arguments given to all queues or exchanges whose name matches."""

    vhost: str
    name: str
    pattern: str
    apply_to: str
    definition: Mapping[str, object]
    priority: int = 0
    """Of all that match a name, the one with the highest applies, and no other."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A shovel, a federation upstream or the like; its value may hold passwords and is not kept."""

    vhost: str
    component: str
    name: str
    shovel: Shovel | None = None


@dataclass(frozen=True, slots=True)
class Definitions:
    """What a broker, or one virtual host of it, is defined to have."""

    source: str
    """Where it was read, for people."""
    rabbit_version: str | None = None
    whole: bool = True
    """False: one virtual host's export, which has no users and no permissions."""
    users: Sequence[User] = ()
    vhosts: Sequence[VirtualHost] = ()
    permissions: Sequence[Granted] = ()
    topic_permissions: Sequence[TopicGranted] = ()
    exchanges: Sequence[Exchange] = ()
    queues: Sequence[Queue] = ()
    bindings: Sequence[Binding] = ()
    policies: Sequence[Policy] = ()
    parameters: Sequence[Parameter] = ()


def read_definitions(source: Path | str | bytes, *, name: str | None = None, vhost: str | None = None) -> Definitions:
    """Read definitions from a file (Path) or from their JSON text.

    `name` is what errors call them; `vhost` says whose export it is when it is one virtual host's. Raises
    ConfigurationError with all problems (20 at most) when it is no such file, or too large.
    """
    title = name or (str(source) if isinstance(source, Path) else "definitions")
    document = _document(source, title)
    if not isinstance(document, dict) or not any(section in document for section in (*_SECTIONS, "rabbit_version")):
        raise ConfigurationError(Problem("these are no definitions of a RabbitMQ", title, hint=_HINT))
    lists = _Lists(document, title)
    whole = "users" in document or "permissions" in document or "vhosts" in document
    inside = None if whole else _only_vhost(document, vhost)
    version = document.get("rabbit_version")
    permissions = lists.read("permissions", _granted)
    topic_permissions = lists.read("topic_permissions", _topic_granted)
    # What somebody left out (our own exports hold permissions alone) is not gone: it is known by what names it.
    rows = [*permissions, *topic_permissions]
    users = [User(name) for name in dict.fromkeys(row.user for row in rows)]
    vhosts = [VirtualHost(name) for name in dict.fromkeys(row.vhost for row in rows)]
    exchanges = dict.fromkeys((row.vhost, row.exchange) for row in topic_permissions)
    definitions = Definitions(
        source=title,
        rabbit_version=version[:64] if isinstance(version, str) else None,
        whole=whole,
        users=lists.read("users", _user) if "users" in document else users,
        vhosts=(lists.read("vhosts", _vhost) if "vhosts" in document else vhosts)
        if whole
        else [VirtualHost(inside or "")],
        permissions=permissions,
        topic_permissions=topic_permissions,
        exchanges=lists.read("exchanges", _exchange, inside)
        if "exchanges" in document
        else [Exchange(vhost, name, "", False, {}) for vhost, name in exchanges],
        queues=lists.read("queues", _queue, inside),
        bindings=lists.read("bindings", _binding, inside),
        policies=lists.read("policies", _policy, inside),
        parameters=lists.read("parameters", _parameter, inside),
    )
    if lists.problems:
        raise ConfigurationError(*lists.problems)
    return definitions


def _document(source: Path | str | bytes, title: str) -> object:
    data: str | bytes
    if isinstance(source, Path):
        try:
            with source.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigurationError(Problem(f"it cannot be read: {reason}", title, hint=_HINT)) from error
    else:
        data = source
    if len(data) > MAX_BYTES:
        raise ConfigurationError(Problem(f"it is larger than {MAX_BYTES >> 20} MiB", title, hint=_HINT))
    try:
        return json.loads(data, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigurationError(Problem(f"it is no JSON: {error.msg}", title, error.lineno, _HINT)) from None
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else "it is no JSON in UTF-8"
        raise ConfigurationError(Problem(what, title, hint=_HINT)) from None


def _no_constant(text: str) -> object:
    raise ValueError(text)


def _only_vhost(document: Mapping[str, Any], named: str | None) -> str:
    """Return whose export it is: as told, as newer versions write it, or as its policies do."""
    if named is not None:
        return named
    for key in ("original_vhost_name", "name"):
        if isinstance(document.get(key), str):
            return str(document[key])
    for section in ("policies", "parameters"):
        rows = document.get(section)
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and isinstance(row.get("vhost"), str):
                return str(row["vhost"])
    return "/"


class _Lists:
    """Reads the lists of a document, gathering what is wrong with them."""

    def __init__(self, document: Mapping[str, Any], title: str) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._title = title
        self._entries = 0

    def read(self, section: str, build: Callable[[_Row], Any], vhost: str | None = None) -> list[Any]:
        rows = self._document.get(section, [])
        if not isinstance(rows, list):
            self._say(f"{section} is no list")
            return []
        self._entries += len(rows)
        if self._entries > MAX_ENTRIES:
            self._say(f"it has more than {MAX_ENTRIES} entries")
            return []
        built = []
        for number, row in enumerate(rows):
            try:
                built.append(build(_Row.of(row, vhost)))
            except (KeyError, TypeError) as error:
                why = f"lacks {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
                self._say(f"entry {number + 1} of {section} {why}")
        return built

    def _say(self, message: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(message, self._title, hint=_HINT))


@dataclass(frozen=True, slots=True)
class _Row:
    """One entry of a list; its accessors raise KeyError or TypeError."""

    values: Mapping[str, Any]
    inside: str | None = None

    @classmethod
    def of(cls, values: object, inside: str | None) -> _Row:
        if not isinstance(values, dict):
            raise TypeError("is no object")
        return cls(values, inside)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default) if default is not None else self.values[key]
        if not isinstance(value, str):
            raise TypeError(f"has no text as {key!r}")
        return value

    @property
    def vhost(self) -> str:
        return self.text("vhost", self.inside)

    def table(self, key: str) -> Mapping[str, object]:
        """A table; older versions write an empty one as an empty list."""
        value = self.values.get(key) or {}
        if not isinstance(value, dict):
            raise TypeError(f"has no table as {key!r}")
        return value


def _user(row: _Row) -> User:
    tags = row.values.get("tags", [])
    if isinstance(tags, str):
        tags = tags.split(",")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise TypeError("has no list of texts as 'tags'")
    name, hashed = row.text("name"), row.values.get("password_hash")
    has_password, weak = _password(name, hashed, row.values.get("hashing_algorithm"))
    return User(name, tuple(tag.strip() for tag in tags if tag.strip()), has_password, weak)


def _password(name: str, hashed: object, algorithm: object) -> tuple[bool | None, str | None]:
    """Return whether there is a password, and which of two guesses it is.

    A hash is base64 of four bytes of salt and the digest of salt and password (rabbit_password, 3.10.8).
    """
    if not isinstance(hashed, str):
        return None, None
    if not hashed:
        return False, None
    digest = _HASHES.get(algorithm if isinstance(algorithm, str) else "rabbit_password_hashing_sha256")
    try:
        decoded = base64.b64decode(hashed, validate=True)
    except (binascii.Error, ValueError):
        return None, None
    if digest is None:
        return True, None
    salt, rest = decoded[:_SALT_BYTES], decoded[_SALT_BYTES:]
    for guess in ("guest", name):
        if hmac.compare_digest(digest(salt + guess.encode("utf-8", "surrogatepass")).digest(), rest):
            return True, guess
    return True, None


def _vhost(row: _Row) -> VirtualHost:
    tracing = row.values.get("tracing")
    return VirtualHost(row.text("name"), tracing if isinstance(tracing, bool) else None)


def _granted(row: _Row) -> Granted:
    permission = Permission(row.text("configure"), row.text("write"), row.text("read"))
    return Granted(row.text("user"), row.vhost, permission)


def _topic_granted(row: _Row) -> TopicGranted:
    permission = TopicPermission(row.text("write"), row.text("read"))
    return TopicGranted(row.text("user"), row.vhost, row.text("exchange"), permission)


def _exchange(row: _Row) -> Exchange:
    internal = row.values.get("internal") is True
    return Exchange(row.vhost, row.text("name"), row.text("type"), internal, row.table("arguments"))


def _queue(row: _Row) -> Queue:
    return Queue(row.vhost, row.text("name"), row.table("arguments"))


def _binding(row: _Row) -> Binding:
    to_exchange = row.text("destination_type") == "exchange"
    return Binding(row.vhost, row.text("source"), row.text("destination"), to_exchange, row.text("routing_key"))


def _policy(row: _Row) -> Policy:
    priority = row.values.get("priority")
    return Policy(
        row.vhost,
        row.text("name"),
        row.text("pattern"),
        row.text("apply-to", "all"),
        row.table("definition"),
        priority if isinstance(priority, int) else 0,
    )


def _parameter(row: _Row) -> Parameter:
    vhost, component = row.text("vhost", row.inside or ""), row.text("component")
    value = row.values.get("value")
    shovel = read_shovel(value) if component == "shovel" and isinstance(value, dict) else None
    return Parameter(vhost, component, row.text("name"), shovel)
