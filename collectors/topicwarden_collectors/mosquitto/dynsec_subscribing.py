"""Which topics a client can bring upon itself by subscribing: the union over all filters that the plugin lets it have.

A name need not be asked for by itself: every filter that holds it will do. So an ACL that allows `a/#` brings `a/b`
although an earlier one denies the filter `a/b`, and a denial of the literal `#` leaves `+/#`. What is worked out here
for each ACL that allows is the widest filter it lets through, or the next ones below where that one is denied by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from topicwarden.patterns import Anything, LevelPattern, Names, Regex, Special
from topicwarden.patterns.meet import meet
from topicwarden_collectors.mosquitto.dynsec_matching import (
    EVERYTHING,
    SHARE,
    SubscribePattern,
    common_topics,
    is_filter,
    is_shared,
    names_of_filter,
    names_of_subscription,
)
from topicwarden_collectors.mosquitto.dynsec_model import Acl, AclType, Role

CONTROL: Final = "$CONTROL"
MAX_PAIRS: Final = 4_000_000
"""ACLs that deny times ACLs that allow, beyond which they are not held against each other."""
_MAX_TUPLES: Final = 1024
_MAX_LEVELS: Final = 8
_MAX_REGEX: Final = 2048


@dataclass(frozen=True, slots=True)
class Reach:
    """Topics that a subscription can bring, or (a denial) that none can."""

    allow: bool
    names: Names
    acl: Acl | None
    """By which ACL; None: by the default."""
    exact: bool = True
    """Whether the topic itself can be subscribed to as well; else only a wider filter brings it."""


@dataclass(frozen=True, slots=True)
class Evaded:
    """An ACL that denies a filter, and a filter by which its topics are received all the same."""

    acl: Acl
    filter: str
    names: LevelPattern


@dataclass(frozen=True, slots=True)
class _Check:
    """One ACL in the order in which they are asked."""

    acl: Acl
    pattern: SubscribePattern | None
    """None: the topic is taken literally."""
    names: LevelPattern | None
    """The topics it is about, if there is a filter that it matches and that is no shared subscription."""

    @classmethod
    def of(cls, acl: Acl, pattern: SubscribePattern | None) -> _Check:
        """Make one of an ACL."""
        plain = is_filter(acl.topic) and not acl.topic.startswith(SHARE)
        return cls(acl, pattern, names_of_filter(acl.topic) if plain else None)

    def matches(self, asked: str) -> bool:
        return self.acl.topic == asked if self.pattern is None else self.pattern.matches(asked)

    def by_name(self, asked: str) -> bool:
        """Whether what it matches of a filter is only this one: others that bring the same may not be matched."""
        return self.pattern is None or (asked == EVERYTHING and self.pattern.text == "/#")


class Subscriptions:
    """What a client with these roles can subscribe to."""

    def __init__(self, roles: Sequence[Role], default: bool, roots: Iterable[str]) -> None:
        """`roots`: first levels that begin with `$` and are to be told apart."""
        self._default = default
        self._roots = tuple(dict.fromkeys(roots))
        self._checks: list[_Check] = []
        for role in roles:
            self._checks += [_Check.of(acl, None) for acl in role.acls.get(AclType.SUBSCRIBE_LITERAL, ())]
            patterns = role.acls.get(AclType.SUBSCRIBE_PATTERN, ())
            self._checks += [_Check.of(acl, SubscribePattern.of(acl.topic)) for acl in patterns]
        self._denials = [(number, check) for number, check in enumerate(self._checks) if not check.acl.allow]
        allowing = len(self._checks) - len(self._denials) + 1
        self.compared = len(self._denials) * allowing <= MAX_PAIRS
        """Whether ACLs that deny were looked at; otherwise what is said is too much."""
        spelled = {level for check in self._checks for level in check.acl.topic.split("/")}
        self._fresh = next(name for name in _fresh_names("any") if name not in spelled)
        self._fresh_root = next(name for name in _fresh_names("$any") if name not in spelled)
        self.evaded: list[Evaded] = []
        self.overruled: list[tuple[Acl, Acl]] = list(self._overruled())
        """ACLs that deny, and those asked before them that allow every filter they match."""
        self.explicit: list[Reach] = []
        """In order; what they leave out is received by nobody, names beginning with `$` apart."""
        self.generic: list[Reach] = []
        """The same of names that begin with a `$…` which no ACL spells out."""
        self._seen: set[tuple[Names, int]] = set()
        self._literal: list[Reach] = []
        self._tuples: list[tuple[int, Reach]] = []
        self._work_out()

    def allows(self, asked: str) -> bool:
        """Whether a subscription to a valid filter is accepted."""
        check = next((check for check in self._checks if check.matches(asked)), None)
        if check is None:
            return self._default and not asked.startswith(CONTROL)
        return check.acl.allow

    def _overruled(self) -> Iterator[tuple[Acl, Acl]]:
        for number, denial in self._denials if self.compared else ():
            for check in self._checks[:number]:
                if check.acl.allow and check.matches(denial.acl.topic) and not check.by_name(denial.acl.topic):
                    yield denial.acl, check.acl
                    break

    def _work_out(self) -> None:
        for number, check in enumerate(self._checks):
            if not check.acl.allow or not is_filter(check.acl.topic):
                continue
            if check.pattern is None:
                self._reach(check.acl.topic, number)
            else:
                self._pattern(check.pattern, number)
        if self._default:
            self._pattern(SubscribePattern.of(EVERYTHING), len(self._checks))
        self.explicit += self._literal
        # Whoever spells out more of a name knows better.
        self.explicit += [reach for _, reach in sorted(self._tuples, key=lambda one: -one[0])]
        if self.generic:
            whole = {
                reach.names.text for reach in self.explicit if reach.allow and isinstance(reach.names, LevelPattern)
            }
            denied = [names_of_filter(f"{root}/#") for root in self._roots if f"{root}/#" not in whole]
            self.generic = [*(Reach(False, names, None) for names in denied), *self.generic]

    def _pattern(self, pattern: SubscribePattern, number: int) -> None:
        """Add what a pattern that allows, or the default, lets a client have."""
        default = number == len(self._checks)
        self._reach(pattern.text, number)
        if pattern.text == "/#":
            self._reach(EVERYTHING, number)
        shared = _shared(pattern, self._fresh)
        if shared is not None:
            self._reach(shared, number)
        if pattern.text != EVERYTHING and pattern.levels[0] != "+":
            return
        behind = "/#" if pattern.text == EVERYTHING else pattern.text[1:]
        for root in self._roots:
            if not (default and root.startswith(CONTROL)):
                self._reach(root + behind, number)
        if self._denial(self._fresh_root + behind, number) is None:
            acl = None if default else self._checks[number].acl
            names = Anything() if behind == "/#" else _regex(behind)
            if names is not None:
                self.generic += [*self._inexact(behind, number, acl), Reach(True, names, acl)]

    def _inexact(self, behind: str, number: int, acl: Acl | None) -> Iterator[Reach]:
        """Yield what begins with a `$…` that no ACL spells out and cannot be subscribed to by itself."""
        for before, denial in self._denials:
            text = denial.acl.topic
            if before >= number or not self.compared:
                break
            if denial.pattern is not None and text.startswith("+") and is_filter(text):
                common = meet(names_of_filter("+" + behind), names_of_filter(text))
                names = None if common is None else _regex(common.text[1:])
                if names is not None:
                    yield Reach(True, names, acl, exact=False)

    def _denial(self, asked: str, before: int) -> _Check | None:
        """Return the first ACL that denies a filter before the one with this number is asked."""
        if not self.compared:
            return None
        for number, check in self._denials:
            if number >= before:
                break
            if check.matches(asked):
                return check
        return None

    def _reach(self, asked: str, number: int) -> None:
        """Add what one filter brings that an ACL allows, or those below it where it is denied by name."""
        check = self._checks[number] if number < len(self._checks) else None
        waiting = [asked]
        while waiting:
            text = waiting.pop()
            if check is not None and not check.matches(text):
                continue
            denial = self._denial(text, number)
            if denial is None:
                self._brings(text, number)
            elif denial.by_name(text) and (check is None or check.pattern is not None):
                if text == EVERYTHING:
                    waiting.append("+/#")
                elif text.endswith("/#"):
                    waiting += [one for one in (text[:-2] + "/+/#", text[:-2]) if is_filter(one)]
                elif "+" in text.split("/"):
                    self._below(text, number)

    def _brings(self, text: str, number: int) -> None:
        names = names_of_subscription(text)
        if names is None:
            return
        check = self._checks[number] if number < len(self._checks) else None
        acl = check.acl if check is not None else None
        literal = check is not None and check.pattern is None
        wild = _is_wild(text)
        by_default_only = check is not None and check.pattern is not None and check.pattern.text == "/#" != text
        exact = not is_shared(text) and not (literal and wild) and not by_default_only
        into = self._literal if literal else self.explicit
        if wild and self.compared:
            for before, denial in self._denials:
                if before >= number:
                    break
                common = _common(denial, names)
                if common is not None:
                    self.evaded.append(Evaded(denial.acl, text, common))
                    if exact and (denial.pattern is not None or not _is_wild(denial.acl.topic)):
                        self._add(into, Reach(True, common, acl, exact=False))
        self._add(into, Reach(True, names, acl, exact))

    def _add(self, into: list[Reach], reach: Reach) -> None:
        key = (reach.names, id(reach.acl))
        if key not in self._seen:
            self._seen.add(key)
            into.append(reach)

    def _below(self, text: str, number: int) -> None:
        """Add what is below a filter with `+` and without `#` that is denied by name.

        For each `+`, the levels that any ACL spells out there are tried, and one that none does.
        """
        acl = self._checks[number].acl if number < len(self._checks) else None
        levels = text.split("/")
        choices: list[Sequence[str]] = []
        for place, level in enumerate(levels):
            if level != "+":
                choices.append((level,))
                continue
            spelled = {
                parts[place]
                for check in self._checks
                if len(parts := check.acl.topic.split("/")) > place and "+" not in parts[place] and parts[place] != "#"
            }
            choices.append((*sorted(spelled), "+"))
        size = 1
        for choice in choices:
            size *= len(choice)
        if size > _MAX_TUPLES or len(levels) > _MAX_LEVELS or is_shared(text):
            brought = names_of_subscription(text)
            if brought is not None:
                self._tuples.append((-1, Reach(True, brought, acl, exact=False)))
            return
        for chosen in product(*choices):
            name = [self._fresh if level == "+" else level for level in chosen]
            if not is_filter("/".join(chosen)) or (chosen[0].startswith("$") and levels[0] == "+"):
                continue
            names = names_of_filter("/".join(chosen))
            received = self._received(name)
            reach = Reach(received, names, acl if received else None, self.allows("/".join(name)) or not received)
            for evaded in self._denials if reach.allow else ():
                if evaded[0] < number and evaded[1].matches(text):
                    self.evaded.append(Evaded(evaded[1].acl, "/".join(name), names))
            self._tuples.append((len(chosen) - chosen.count("+"), reach))

    def _received(self, name: Sequence[str]) -> bool:
        """Whether some filter brings one name."""
        for mask in product((False, True), repeat=len(name)):
            levels = ["+" if wild else level for wild, level in zip(mask, name, strict=True)]
            if name[0].startswith("$") and mask[0]:
                continue
            asked = ["/".join(levels), *("/".join([*levels[:size], "#"]) for size in range(len(levels) + 1))]
            for text in asked:
                if text == EVERYTHING and name[0].startswith("$"):
                    continue
                if self.allows(text) or self.allows(f"{SHARE}/{self._fresh}/{text}"):
                    return True
        return False


def _is_wild(text: str) -> bool:
    return "+" in text or "#" in text


def _common(denial: _Check, names: LevelPattern) -> LevelPattern | None:
    """Return the topics of a subscription that an ACL denies by themselves."""
    denied = denial.names
    if denied is None:
        return None
    first = names.levels[0]
    if isinstance(first, str) and first.startswith("$") and isinstance(denied.levels[0], Special):
        if denial.pattern is None:
            return None
        if denied.levels[0] is Special.REST:
            return names
        denied = LevelPattern(first + denied.text[1:], (first, *denied.levels[1:]))
    return common_topics(denied, names)


def _shared(pattern: SubscribePattern, group: str) -> str | None:
    """Return the widest shared subscription that a pattern matches, if it brings more than the pattern itself says."""
    levels = pattern.levels
    if pattern.text == EVERYTHING or levels[0] not in ("+", SHARE):
        return None
    behind = [*levels[2:], *(["#"] if pattern.open_end else [])]
    if not behind or (levels == ("+",) and pattern.open_end):
        return None
    group = group if len(levels) < 2 or levels[1] == "+" else levels[1]
    return "/".join([SHARE, group, *behind])


def _regex(behind: str) -> Regex | None:
    """Return the names that begin with `$` and go on as a pattern does; None where that is too long."""
    parts = [r"^\$[^/]*"]
    for level in behind.split("/")[1:]:
        if level == "#":
            parts.append("(/|$)")
            break
        parts.append("/[^/]*" if level == "+" else "/" + re.escape(level))
    else:
        parts.append("$")
    text = "".join(parts)
    return Regex(text) if len(text.encode()) <= _MAX_REGEX else None


def _fresh_names(stem: str) -> Iterator[str]:
    number = 0
    while True:
        yield f"{stem}{number or ''}"
        number += 1
