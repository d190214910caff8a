"""From the lines of an acl_file to the rules for one client, in the order in which the broker decides.

`mosquitto_acl_check` first refuses what no acl_file can allow (2.0.11, seen on the running broker):

- to publish to a name that begins with `$SYS` (`$SYSTEM/x` too), except `$SYS/broker/connection/+/state`;
- to publish to or read a name that begins with `$share` (`$shared/x` too).

Then come the user's denials, his other lines, the patterns' denials, the other patterns (see `acl_file`). `%u` and `%c`
are replaced as text, inside of levels too and only once: an id with `/` in it reaches over several levels. A client
without user name skips patterns with `%u`; for one with `+` or `#` in its user name or id no pattern is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from topicwarden.events import Action, Certainty
from topicwarden.grants import Origin, Rights, Rule, Rules
from topicwarden.patterns import LevelPattern, Regex, Special, parse
from topicwarden.patterns.meet import meet
from topicwarden.policy import Space
from topicwarden_collectors.mosquitto.acl_file import Access, AclEntry, AclFile
from topicwarden_collectors.mosquitto.grants_logins import sendable

TOPICS: Final = Space("topic")
BROKER_ITSELF: Final = "(the broker itself)"
_VARIABLE: Final = re.compile("(%[uc])")
_ALL: Final = parse("#")
BRIDGE_STATE: Final = parse("$SYS/broker/connection/+/state")
_WILDCARDS: Final = {"+": Special.ONE, "#": Special.REST}
_ACTIONS: Final = (Action.PUBLISH, Action.SUBSCRIBE)
_ABOUT: Final = {
    Access.READ: frozenset({Action.SUBSCRIBE}),
    Access.WRITE: frozenset({Action.PUBLISH}),
    Access.READWRITE: frozenset(_ACTIONS),
    Access.NONE: frozenset(_ACTIONS),
}
_REFUSED: Final = {Action.PUBLISH: ("$SYS", "$share"), Action.SUBSCRIBE: ("$share",)}
_KEPT: Final = 256
"""Users whose lines are kept ready."""


def refused(action: Action, first_level: str) -> bool:
    """Whether the broker itself refuses this action on names with this first level; one branch of `$SYS` excepted."""
    return first_level.startswith(_REFUSED[action])


def is_bridge_state(names: LevelPattern) -> bool:
    """Whether a filter matches only names that the broker does not refuse although they begin with `$SYS`."""
    common = meet(names, BRIDGE_STATE)
    return common is not None and common.levels == names.levels


def filter_of(topic: str) -> LevelPattern | None:
    """Take an entry's topic, its variables replaced, apart as the broker matches it; None when it can match nothing."""
    if not topic or not sendable(topic):
        return None
    return LevelPattern(topic, tuple(_WILDCARDS.get(level, level) for level in topic.split("/")))


def origin_of(entry: AclEntry, path: str) -> Origin:
    """Return where an entry stands and for whom it is."""
    if entry.pattern:
        holder = "every client"
    else:
        holder = "clients without a user name" if entry.user is None else f"user {entry.user!r}"
    return Origin(path, entry.line, entry.text, holder)


@dataclass(frozen=True, slots=True)
class _Line:
    """An entry for a client."""

    actions: frozenset[Action]
    """What it is about; flags would take longer to ask."""
    rule: Rule


@dataclass(frozen=True, slots=True)
class _Template:
    """A pattern with variables."""

    entry: AclEntry
    origin: Origin
    parts: tuple[str, ...]
    """The topic cut around its variables."""
    of_user: bool
    """Whether `%u` is one of them."""


class AclRules:
    """An acl_file's entries; what does not depend on the client is worked out once."""

    def __init__(self, acl: AclFile, certainty: Certainty = Certainty.EXACT) -> None:
        self._certainty = certainty
        self._path = acl.path
        self._entries_of: dict[str | None, list[AclEntry]] = {}
        self._lines_of: dict[str | None, Sequence[_Line]] = {}
        for entry in acl.entries:
            if not entry.pattern:
                self._entries_of.setdefault(entry.user, []).append(entry)
        self._patterns: list[_Line | _Template] = []
        for entry in acl.patterns:
            if not entry.has_variable:
                self._patterns += self._lines([entry])
            elif sendable(entry.topic):
                parts = tuple(_VARIABLE.split(entry.topic))
                self._patterns.append(_Template(entry, origin_of(entry, acl.path), parts, "%u" in parts))
        self._variable = any(isinstance(pattern, _Template) for pattern in self._patterns)
        self._fixed: dict[tuple[str | None, bool], Rights] = {}

    def of(self, user: str | None, client_id: str) -> Rights:
        """Return what a client of this user name and id may do; both are names that the broker takes.

        `client_id`: the one it goes by.
        """
        special = _wild(client_id) or (user is not None and _wild(user))
        fixed = special or not self._variable
        # Then clients without lines of their own differ in nothing.
        key = (user if user in self._entries_of else "", special)
        known = self._fixed.get(key) if fixed else None
        if known is not None:
            return known
        lines = [*self._own(user), *([] if special else self._bound(user, client_id))]
        rights = Rights({(action, TOPICS): Rules(tuple(self._rules(lines, action))) for action in _ACTIONS})
        if fixed and len(self._fixed) < _KEPT:
            self._fixed[key] = rights
        return rights

    def _lines(self, entries: Iterable[AclEntry]) -> Iterator[_Line]:
        for entry in entries:
            names = filter_of(entry.topic)
            if names is not None:
                yield self._line(entry, names, origin_of(entry, self._path))

    def _line(self, entry: AclEntry, names: LevelPattern, origin: Origin) -> _Line:
        return _Line(_ABOUT[entry.access], Rule(not entry.deny, names, origin, self._certainty))

    def _own(self, user: str | None) -> Sequence[_Line]:
        """Return a user's own lines, the latest denial first."""
        found = self._lines_of.get(user)
        if found is None:
            entries = self._entries_of.get(user, [])
            denials = [entry for entry in entries if entry.deny]
            found = list(self._lines([*reversed(denials), *(entry for entry in entries if not entry.deny)]))
            if len(self._lines_of) < _KEPT:
                self._lines_of[user] = found
        return found

    def _bound(self, user: str | None, client_id: str) -> Iterator[_Line]:
        """Yield the patterns with a client's names put in."""
        values = {"%u": user or "", "%c": client_id}
        for pattern in self._patterns:
            if isinstance(pattern, _Line):
                yield pattern
            elif user is not None or not pattern.of_user:
                topic = "".join([values.get(part, part) for part in pattern.parts])
                names = LevelPattern(topic, tuple([_WILDCARDS.get(level, level) for level in topic.split("/")]))
                yield self._line(pattern.entry, names, pattern.origin)

    def _rules(self, lines: Iterable[_Line], action: Action) -> Iterator[Rule]:
        rules = [line.rule for line in lines if action in line.actions]
        beginnings = _REFUSED[action]
        special = [(rule, first) for rule in rules if (first := _first_level(rule)).startswith(beginnings)]
        firsts = dict.fromkeys(first for rule, first in special if rule.allow)
        if action is Action.PUBLISH and "$SYS" in firsts:
            for rule, _ in special:
                common = meet(rule.names, BRIDGE_STATE) if isinstance(rule.names, LevelPattern) else None
                if common is not None:
                    yield replace(rule, names=common)
        for first in firsts:
            yield Rule(False, LevelPattern(f"{first}/#", (first, Special.REST)), itself(self._path, action, first))
        yield from rules


def _first_level(rule: Rule) -> str:
    """Return the first level of a rule's names when it is spelt out, else ''."""
    first = rule.names.levels[0] if isinstance(rule.names, LevelPattern) else ""
    return first if isinstance(first, str) else ""


def _wild(name: str) -> bool:
    return "+" in name or "#" in name


def itself(source: str, action: Action, beginning: str) -> Origin:
    """Return the origin of what the broker refuses whatever its configuration says."""
    verb = "publishing to" if action is Action.PUBLISH else "receiving from"
    return Origin(source, None, f"{BROKER_ITSELF} refuses {verb} names that begin with {beginning}", "every client")


def everything(origin: Origin, certainty: Certainty = Certainty.EXACT) -> Rights:
    """Return what a client may do where nothing decides: all that the broker itself does not refuse.

    Said in filters as far as they go: `Anything` has the empty name too, which is no topic.
    """
    by = {}
    for action in _ACTIONS:
        rules = [Rule(True, _ALL, origin, certainty)]
        if action is Action.PUBLISH:
            rules.append(Rule(True, BRIDGE_STATE, origin, certainty))
        rules += [
            Rule(False, Regex(f"^\\{beginning}"), itself(origin.source, action, beginning))
            for beginning in _REFUSED[action]
        ]
        rules.append(Rule(True, Regex(r"^\$"), origin, certainty))
        by[action, TOPICS] = Rules(tuple(rules))
    return Rights(by)
