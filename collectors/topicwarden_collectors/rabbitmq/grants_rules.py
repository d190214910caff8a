r"""What a row of permissions means, as rules.

A permission is on a name, whether a queue or an exchange has it. What of that can be used was tried with 3.10.8: no
client can declare or delete an exchange that begins with `amq.`, or declare a queue of such a name but those that the
server names (`amq.gen-…`); nobody can publish to an internal exchange, bind to the default exchange, or publish to an
exchange that does not exist. So names that begin with `amq.` are only counted where there is something of that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from topicwarden.events import Action, Certainty
from topicwarden.grants import Origin, Rights, Rule, Rules
from topicwarden.patterns import Anything, Covered, Names, NameUnion, Regex, literal_key, names_match, names_overlap
from topicwarden.patterns.regex import regex_beginning
from topicwarden.policy import Space
from topicwarden_collectors.rabbitmq.exchanges import DEFAULT
from topicwarden_collectors.rabbitmq.grants_topology import Topology
from topicwarden_collectors.rabbitmq.permissions import Expressions, Permission, TopicPermission, expanded
from topicwarden_collectors.rabbitmq.receivable import receivable

EXCHANGES: Final = Space("exchange")
QUEUES: Final = Space("queue")
_MAX_DENIED: Final = 256
"""Names of one kind that are told one by one not to be of the other."""
_RESERVED: Final = b"amq."
_ANY_BYTE: Final = r"[\x00-\xff]"


@dataclass(frozen=True, slots=True)
class Row:
    """A user's permissions in a virtual host, with those on keys, and where each stands."""

    user: str
    vhost: str
    permission: Permission
    configure: Origin
    write: Origin
    read: Origin
    topics: Mapping[str, TopicPermission] = field(default_factory=dict)
    topic_write: Mapping[str, Origin] = field(default_factory=dict)
    topic_read: Mapping[str, Origin] = field(default_factory=dict)


def regex_of(permission: str) -> Regex:
    """Return a permission as it is evaluated."""
    return Regex(permission or "^$")


@lru_cache(maxsize=1024)
def reserved_but(names: frozenset[str], *, server_named: bool = False) -> Regex:
    """Return the empty name and all that begin with `amq.`, except these and perhaps those of queues it makes up."""
    known = frozenset(name.removeprefix("amq.") for name in names if name.startswith("amq."))
    return Regex(rf"^(?:\z|amq\.{_other_than(known, b'gen-' if server_named else None)})")


def _other_than(known: frozenset[str], free: bytes | None) -> str:
    """Return what matches any text but some; texts that begin with `free` only where they hold a dot."""
    tree: dict[int, object] = {}
    for text in [*(name.encode("utf-8", "surrogateescape") for name in sorted(known)), *([free] if free else [])]:
        node = tree
        for byte in text:
            node = node.setdefault(byte, {})  # type: ignore[assignment] # trees of trees
        node[-2 if text == free else -1] = True
    return _branches(tree)


def _branches(node: Mapping[int, object]) -> str:
    if -2 in node:
        return r"[^.]*\."
    options = [] if -1 in node else [r"\z"]
    children = {byte: inner for byte, inner in node.items() if byte >= 0}
    options.append("[^" + "".join(f"\\x{byte:02x}" for byte in children) + "]" if children else _ANY_BYTE)
    options += [f"\\x{byte:02x}{_branches(inner)}" for byte, inner in children.items() if isinstance(inner, dict)]
    return f"(?:{'|'.join(options)})"


class Decider:
    """What permissions mean in one virtual host. Answers are kept by the text of the permission."""

    def __init__(self, topology: Topology, source: str) -> None:
        self.topology = topology
        exchanges, queues = topology.exchanges, topology.queues
        self._no_exchange = Origin(source, None, "(no exchange that can be used so has this name)", "RabbitMQ")
        self._no_queue = Origin(source, None, "(no queue can have this name)", "RabbitMQ")
        internal = frozenset(name for name, one in exchanges.items() if one.internal)
        only_exchanges, only_queues = frozenset(exchanges) - set(queues), frozenset(queues) - set(exchanges)
        self._denied: Mapping[tuple[Action, Space], tuple[Regex, frozenset[str]]] = {
            (Action.PUBLISH, EXCHANGES): (
                reserved_but(frozenset(exchanges) - internal),
                internal | only_queues,
            ),
            (Action.SUBSCRIBE, EXCHANGES): (
                reserved_but(frozenset(exchanges) - {DEFAULT}),
                only_queues,
            ),
            (Action.CONFIGURE, EXCHANGES): (reserved_but(frozenset()), frozenset()),
            (Action.SUBSCRIBE, QUEUES): (
                reserved_but(frozenset(queues), server_named=True),
                only_exchanges,
            ),
            (Action.CONFIGURE, QUEUES): (reserved_but(frozenset(queues), server_named=True), frozenset()),
        }
        self._refused: dict[tuple[Action, Space, str], tuple[Names, ...] | None] = {}
        self._expressions = Expressions()
        self._matched: dict[tuple[str, bool], Mapping[str, bool | None]] = {}

    def matched(self, permission: str) -> Mapping[str, bool | None]:
        """Return the exchanges that a permission is about, or may be about (None)."""
        return self._matching(permission, queues=False)

    def matched_queues(self, permission: str) -> Mapping[str, bool | None]:
        """Return the queues that a permission is about, or may be about (None)."""
        return self._matching(permission, queues=True)

    def _matching(self, permission: str, *, queues: bool) -> Mapping[str, bool | None]:
        found = self._matched.get((permission, queues))
        if found is None:
            names = self.topology.queues if queues else self.topology.exchanges
            answers: dict[str, bool | None] = {}
            for name, sure in self._expressions.allowing(permission, names):
                answer = sure or names_match(regex_of(permission), name)
                if answer is not False:
                    answers[name] = answer
            found = self._matched[permission, queues] = answers
        return found

    def named(self, action: Action, space: Space, permission: str, origin: Origin) -> Rules:
        """Return the rules for names of exchanges or queues."""
        refused = self._refusals(action, space, permission)
        if refused is None:
            return Rules()
        why = self._no_exchange if space == EXCHANGES else self._no_queue
        return Rules((*(Rule(False, names, why) for names in refused), Rule(True, regex_of(permission), origin)))

    def _refusals(self, action: Action, space: Space, permission: str) -> tuple[Names, ...] | None:
        """Return what cannot be used of a permission; None when nothing can."""
        key = action, space, permission
        if key not in self._refused:
            regex = regex_of(permission)
            reserved, listed = self._denied[action, space]
            # Most permissions begin otherwise, and are then no matter for automata.
            beginning = regex_beginning(regex.text)
            apart = not beginning.startswith(_RESERVED) and not _RESERVED.startswith(beginning)
            refused: list[Names] = []
            if not apart and (
                _has_one((reserved, regex), "", "amq.x", f"amq.{permission}")
                or names_overlap(reserved, regex) is not False
            ):
                refused.append(reserved)
            known = {**self.matched(permission), **self.matched_queues(permission)}
            others = [n for n, sure in known.items() if sure and n in listed and not n.startswith("amq.")]
            if len(others) <= _MAX_DENIED:
                refused += [literal_key(name) for name in others]
            some = _has_one((regex,), "x", permission, without=refused)
            nothing = not some and isinstance(NameUnion(refused).uncovered(regex, newlines=False), Covered)
            self._refused[key] = None if nothing else tuple(refused)
        return self._refused[key]


def _has_one(sets: Iterable[Names], *examples: str, without: Sequence[Names] = ()) -> bool:
    """Whether an example is in all sets and surely outside of others: much is told so without any automaton."""
    return any(
        all(names_match(names, example) for names in sets)
        and all(names_match(names, example) is False for names in without)
        for example in examples
    )


def rights_of(row: Row, decider: Decider, client_id: str | None, escapes: str | None) -> Rights:
    """Return what a row means for a client. `client_id`: an MQTT client's; `escapes`: see `grants_versions`."""
    permission = row.permission
    by: dict[tuple[Action, Space], Rules] = {}
    for action, space, regex, origin in (
        (Action.PUBLISH, EXCHANGES, permission.write, row.write),
        (Action.SUBSCRIBE, EXCHANGES, permission.read, row.read),
        (Action.SUBSCRIBE, QUEUES, permission.read, row.read),
        (Action.CONFIGURE, EXCHANGES, permission.configure, row.configure),
        (Action.CONFIGURE, QUEUES, permission.configure, row.configure),
    ):
        rules = decider.named(action, space, regex, origin)
        if rules.rules:
            by[action, space] = rules
    by.update(_keys(row, decider, client_id, escapes))
    return Rights(by)


def _keys(
    row: Row, decider: Decider, client_id: str | None, escapes: str | None
) -> Iterator[tuple[tuple[Action, Space], Rules]]:
    exchanges = decider.topology.exchanges
    spliced = Spliced(row, client_id, escapes)
    for action, permission, origin in (
        (Action.PUBLISH, row.permission.write, row.write),
        (Action.SUBSCRIBE, row.permission.read, row.read),
    ):
        open_keys = Rules((Rule(True, Anything(), origin),))
        for name, sure in decider.matched(permission).items():
            exchange = exchanges[name]
            if (action is Action.PUBLISH and exchange.internal) or (action is Action.SUBSCRIBE and name == DEFAULT):
                continue
            topic = row.topics.get(name)
            rules = open_keys
            if topic is not None and exchange.type in ("topic", None):
                rules = spliced.rules(action, name, topic, sure=exchange.type is not None)
            if not sure:
                rules = Rules(tuple(Rule(r.allow, r.names, r.origin, Certainty.INFERRED) for r in rules.rules))
            yield (action, Space("key", name)), rules


class Spliced:
    """A client's topic permissions, with its names put in."""

    def __init__(self, row: Row, client_id: str | None, escapes: str | None) -> None:
        self._row = row
        self._variables = {"username": row.user, "vhost": row.vhost}
        if client_id is not None:
            self._variables["client_id"] = client_id
        self._escapes = escapes

    def text(self, permission: str) -> str:
        """Return a topic permission as it is evaluated."""
        return expanded(permission, self._variables, escapes=self._escapes or "")

    def rules(self, action: Action, exchange: str, topic: TopicPermission, *, sure: bool = True) -> Rules:
        """Return the rules for keys of an exchange."""
        permission = topic.write if action is Action.PUBLISH else topic.read
        origins = self._row.topic_write if action is Action.PUBLISH else self._row.topic_read
        text = self.text(permission)
        sets = [(Regex(text), Certainty.EXACT)] if action is Action.PUBLISH else receivable(text)
        sure = sure and (self._escapes is not None or not self._doubtful(permission))
        return Rules(tuple(self._rule(sets, origins[exchange], sure=sure)))

    @staticmethod
    def _rule(sets: Iterable[tuple[Names, Certainty]], origin: Origin, *, sure: bool) -> Iterator[Rule]:
        for names, certainty in sets:
            yield Rule(True, names, origin, certainty if sure else Certainty.INFERRED)

    def _doubtful(self, permission: str) -> bool:
        """Whether it matters if the server escapes the names it puts in."""
        return any(not value.isalnum() for name, value in self._variables.items() if f"{{{name}}}" in permission)
