"""From roles to the rules for one client, in the order in which the plugin and the broker around it decide (2.0.11).

To receive, a client must be let subscribe to some filter and, as each message is handed out, receive its topic: two
ordered lists, of filters and of topics, which become one here. Where both spell names out, what they have in common is
again a filter.

What no ACL matches the defaults decide, `$CONTROL…` excepted, which they never allow. The broker itself refuses to
publish to names that begin with `$SYS` (but for a bridge's state) or `$share`. `%u` and `%c` are ordinary letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.events import Action, Certainty
from topicwarden.grants import Origin, Rights, Rule, Rules
from topicwarden.patterns import Anything, LevelPattern, Regex
from topicwarden.patterns.meet import meet
from topicwarden_collectors.mosquitto.dynsec_matching import common_topics, names_of_acl
from topicwarden_collectors.mosquitto.dynsec_model import Acl, AclType, Dynsec, Role, acls_of
from topicwarden_collectors.mosquitto.dynsec_subscribing import CONTROL, MAX_PAIRS, Evaded, Reach, Subscriptions
from topicwarden_collectors.mosquitto.grants_rules import BRIDGE_STATE, TOPICS, itself, refused

PLUGIN_ITSELF: Final = "(the dynamic security plugin itself)"
_MAX_LATER: Final = 500
_CONTROL: Final = Regex(rf"^\{CONTROL}")


@dataclass(frozen=True, slots=True)
class Worked:
    """What clients with the same roles may do."""

    rights: Rights
    roles: frozenset[str]
    evaded: Sequence[Evaded]
    """Denials of filters whose topics are received all the same."""
    overruled: Sequence[tuple[Acl, Acl]]
    """Denials of filters that another ACL, which is asked before, allows."""
    approximate: bool
    """Whether there was too much to work out, so that what is said to be received is too much."""


@dataclass(frozen=True, slots=True)
class _Received:
    """An ACL about receiving, and what it matches."""

    acl: Acl
    names: LevelPattern


def names_sent(acl: Acl) -> LevelPattern | None:
    """Return the topics that an ACL about publishing decides; None when the broker itself refuses all of them."""
    names = names_of_acl(acl.topic)
    if names is None:
        return None
    first = names.levels[0]
    if isinstance(first, str) and refused(Action.PUBLISH, first):
        return meet(names, BRIDGE_STATE)
    return names


class RoleRules:
    """Works out the rules for clients by their roles; what was worked out is kept."""

    def __init__(self, dynsec: Dynsec) -> None:
        self._dynsec = dynsec
        self._known: dict[tuple[object, ...], Worked] = {}

    def of(self, roles: Sequence[Role], *, certain: bool = True) -> Worked:
        """Return what a client may do that has these roles in this order."""
        key = (certain, *(id(role) for role in roles))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._work_out(roles, certain)
        return found

    def _work_out(self, roles: Sequence[Role], certain: bool) -> Worked:
        certain = certain and all(role.certain for role in roles)
        received = [
            _Received(acl, names)
            for acl in acls_of(roles, AclType.RECEIVE)
            if (names := names_of_acl(acl.topic)) is not None
        ]
        both = (*acls_of(roles, AclType.SUBSCRIBE_LITERAL, AclType.SUBSCRIBE_PATTERN), *(one.acl for one in received))
        roots = [root for acl in both if (root := acl.topic.partition("/")[0]).startswith("$") and len(root) < 256]
        subscriptions = Subscriptions(
            roles, self._dynsec.defaults["subscribe"], [root for root in roots if "+" not in root and "#" not in root]
        )
        merge = _Merge(self._dynsec, subscriptions, certain)
        rules = tuple(merge.rules(received))
        by = {
            (Action.PUBLISH, TOPICS): Rules(tuple(self._sent(roles, certain))),
            (Action.SUBSCRIBE, TOPICS): Rules(rules),
        }
        evaded = [one for one in subscriptions.evaded if merge.handed_out(one.names, received)]
        named = frozenset(role.name for role in roles)
        return Worked(Rights(by), named, evaded, subscriptions.overruled, merge.approximate)

    def _sent(self, roles: Iterable[Role], certain: bool) -> Iterator[Rule]:
        for acl in acls_of(roles, AclType.SEND):
            names = names_sent(acl)
            if names is not None:
                yield Rule(acl.allow, names, acl.origin, _certainty(certain and acl.certain))
        if self._dynsec.defaults["publishClientSend"]:
            origin = self._dynsec.default_origin("publishClientSend")
            yield Rule(False, _CONTROL, plugin_itself(self._dynsec.path))
            yield Rule(True, BRIDGE_STATE, origin, _certainty(certain))
            for beginning in ("$SYS", "$share"):
                yield Rule(False, Regex(f"^\\{beginning}"), itself(self._dynsec.path, Action.PUBLISH, beginning))
            yield Rule(True, Anything(), origin, _certainty(certain))


def plugin_itself(path: str) -> Origin:
    """Return the origin of what the plugin never allows by default."""
    return Origin(path, None, f"{PLUGIN_ITSELF} allows nothing that begins with {CONTROL} by default", "every client")


def _certainty(certain: bool) -> Certainty:
    return Certainty.EXACT if certain else Certainty.INFERRED


class _Merge:
    """Makes one list of what can be subscribed to and what is handed out."""

    def __init__(self, dynsec: Dynsec, subscriptions: Subscriptions, certain: bool) -> None:
        self._dynsec = dynsec
        self._subscriptions = subscriptions
        self._certain = certain
        self._default = dynsec.defaults["publishClientReceive"]
        self._nothing = dynsec.default_origin("subscribe")
        self.approximate = not subscriptions.compared
        self._by_first: dict[object, list[tuple[int, Reach]]] = {}
        for number, reach in enumerate(subscriptions.explicit):
            assert isinstance(reach.names, LevelPattern)
            first = reach.names.levels[0]
            self._by_first.setdefault(first if isinstance(first, str) else None, []).append((number, reach))

    def rules(self, received: Sequence[_Received]) -> Iterator[Rule]:
        """Yield the rules for receiving, in order."""
        explicit = self._subscriptions.explicit
        if len(received) * len(explicit) > MAX_PAIRS:
            self.approximate = True
        for number, one in enumerate(received):
            if not one.acl.allow:
                yield Rule(False, one.names, one.acl.origin, self._sure(one.acl))
                continue
            later = received[number + 1 :]
            # Only of `$CONTROL` does a default that allows say otherwise.
            if self._default and not _overlaps(one, later, allow=False) and not _starts(one.names, CONTROL):
                continue
            yield from self._common(one)
            if self._default or _overlaps(one, later, allow=True):
                yield Rule(False, one.names, self._nothing)
        if self._default:
            yield from self._by_default()

    def handed_out(self, names: LevelPattern, received: Sequence[_Received]) -> bool:
        """Whether some message to these topics is handed out to a subscriber."""
        for one in received:
            common = common_topics(one.names, names)
            if common is not None:
                if one.acl.allow:
                    return True
                if common.levels == names.levels:
                    return False
        return self._default and not _starts(names, CONTROL)

    def _common(self, one: _Received) -> Iterator[Rule]:
        """Yield what an ACL hands out of what can be subscribed to."""
        first = one.names.levels[0]
        candidates = self._candidates(first if isinstance(first, str) else None)
        for reach in candidates:
            assert isinstance(reach.names, LevelPattern)
            common = common_topics(one.names, reach.names)
            if common is None:
                continue
            # The narrower of the two is the grant that counts.
            narrower = reach.acl is None or (common.levels == one.names.levels != reach.names.levels)
            acl = one.acl if narrower or reach.acl is None else reach.acl
            sure = self._sure(one.acl) if reach.acl is None else min(self._sure(one.acl), self._sure(reach.acl))
            yield Rule(reach.allow, common, acl.origin, sure if reach.exact else Certainty.INFERRED)

    def _candidates(self, first: str | None) -> Sequence[Reach]:
        if first is None:
            return self._subscriptions.explicit
        found = self._by_first.get(first, [])
        if not first.startswith("$"):
            found = sorted([*found, *self._by_first.get(None, [])], key=lambda each: each[0])
        return [reach for _, reach in found]

    def _by_default(self) -> Iterator[Rule]:
        """Yield what can be subscribed to and is handed out because nothing says otherwise."""
        for reach in self._subscriptions.explicit:
            if not (isinstance(reach.names, LevelPattern) and _starts(reach.names, CONTROL)):
                yield self._rule(reach)
        if self._subscriptions.generic:
            yield Rule(False, _CONTROL, plugin_itself(self._dynsec.path))
            yield Rule(False, Regex(r"^\$share"), itself(self._dynsec.path, Action.SUBSCRIBE, "$share"))
            for reach in self._subscriptions.generic:
                if reach.names != _CONTROL:
                    yield self._rule(reach)

    def _rule(self, reach: Reach) -> Rule:
        origin = self._nothing if reach.acl is None else reach.acl.origin
        sure = _certainty(self._certain) if reach.acl is None else self._sure(reach.acl)
        return Rule(reach.allow, reach.names, origin, sure if reach.exact else Certainty.INFERRED)

    def _sure(self, acl: Acl) -> Certainty:
        return _certainty(self._certain and acl.certain)


def _overlaps(one: _Received, later: Sequence[_Received], *, allow: bool) -> bool:
    """Whether an ACL that comes later says this of some of the same topics; of too many it is taken for granted."""
    others = [other for other in later if other.acl.allow is allow]
    return len(others) > _MAX_LATER or any(common_topics(one.names, other.names) is not None for other in others)


def _starts(names: LevelPattern, beginning: str) -> bool:
    """Whether the first level is spelled out and begins so."""
    first = names.levels[0]
    return isinstance(first, str) and first.startswith(beginning)
