"""From names to templates: levels that hold ever new values become a wildcard, closed sets of words stay as they are.

Two tests make a level a wildcard, both over at least `SIBLINGS` values that stand in the same place:

- *Open class*: by Good and Turing (I. J. Good, Biometrika 40, 1953) the next (account, value) incidence shows a value
  never seen before with probability n1/N, n1 of the N incidences being of values that one account alone showed. From
  `UNSEEN` on, values that few accounts share are merged; those that many share stay literal.
- *Same shape*: values below which the same names stand. They are merged when that saves `SAVED` names or more, or when
  an account has hardly more than one of them, so that they are a property of the account, such as its site.

Thresholds are counts of accounts, never shares of all: what one per cent of a fleet does may be an attack on all of it.
Names with wildcards, which were asked for so, are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from topicwarden.learn.vocabulary import FIRST_WORD, ONE, Name, Vocabulary, is_pattern

SIBLINGS: Final = 8
UNSEEN: Final = 0.05
SAVED: Final = 40
PER_ACCOUNT: Final = 1.5
"""Values an account has on average, at most, for a property of the account."""
ALIKE: Final = 0.8
"""Share of what stands below most values that must stand below one for it to have the same shape."""

Holders = set[int]
"""The accounts that used a name."""
_Rest = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Miner:
    """Merges names into templates."""

    vocabulary: Vocabulary
    support: int
    """Fewest accounts whose values may become a wildcard; also how many make a value stay literal."""
    tick: Callable[[], None] = lambda: None
    """Called now and then; may raise to stop."""

    def mine(self, names: Mapping[Name, Holders]) -> dict[Name, Holders]:
        """Return the templates with their holders. Every name given is admitted by one of them; sets may be shared."""
        found: dict[Name, Holders] = {}
        by_root: dict[int, list[tuple[Name, Holders]]] = {}
        for name in sorted(names):
            if is_pattern(name):
                _merge(found, [(name, names[name])])
            else:
                by_root.setdefault(name[0], []).append((name, names[name]))
        for root, items in by_root.items():
            first = 2 if self.vocabulary.roots[root].sheltered else 1
            _merge(found, ((name, holders) for name, holders in self._below(items, 0, first).items()))
        return found

    def _below(self, items: list[tuple[Name, Holders]], depth: int, first: int) -> dict[_Rest, Holders]:
        """Return what stands behind the prefix of length `depth` that all items share, as rests with their holders."""
        if len(items) < SIBLINGS:
            rests: dict[_Rest, Holders] = {}
            _merge(rests, ((name[depth:], holders) for name, holders in items))
            return rests
        self.tick()
        result: dict[_Rest, Holders] = {}
        children: dict[int, list[tuple[Name, Holders]]] = {}
        for item in items:
            if len(item[0]) == depth:
                _merge(result, [((), item[1])])
            else:
                children.setdefault(item[0][depth], []).append(item)
        if depth >= first:
            self._open_class(children, depth)
        below = {word: self._below(rest, depth + 1, first) for word, rest in children.items()}
        if depth >= first:
            self._same_shape(below)
        for word, rests in below.items():
            _merge(result, (((word, *rest), holders) for rest, holders in rests.items()))
        return result

    def _open_class(self, children: dict[int, list[tuple[Name, Holders]]], depth: int) -> None:
        """Merge rare values where there seem to be many unseen ones; changes `children`."""
        if len(children) < SIBLINGS:
            return
        shared = {word: _distinct(h for _, h in items) for word, items in children.items() if word >= FIRST_WORD}
        once = sum(number == 1 for number in shared.values())
        if once < UNSEEN * sum(shared.values()):
            return
        # A closed set of words that an attacker adds to must not dissolve, so what several accounts share stays.
        rare = [word for word, number in shared.items() if number < max(self.support, 2)]
        if len(rare) < SIBLINGS:
            return
        if _distinct(holders for word in rare for _, holders in children[word]) < self.support:
            return
        merged: dict[Name, Holders] = {}
        items = [item for word in rare for item in children.pop(word)]
        _merge(merged, (((*name[:depth], ONE, *name[depth + 1 :]), holders) for name, holders in items))
        children.setdefault(ONE, []).extend(merged.items())

    def _same_shape(self, below: dict[int, dict[_Rest, Holders]]) -> None:
        """Merge values below which the same stands; changes `below`."""
        values = [word for word in below if word >= FIRST_WORD]
        if len(values) < SIBLINGS:
            return
        weight: dict[_Rest, int] = {}
        times: dict[_Rest, int] = {}
        for word in values:
            for rest, holders in below[word].items():
                weight[rest] = weight.get(rest, 0) + len(holders)
                times[rest] = times.get(rest, 0) + 1
        heavy = max(weight.values()) / 2
        core = {
            rest: weight[rest]
            for rest, number in times.items()
            if number >= SIBLINGS and (2 * number >= len(values) or weight[rest] >= heavy)
        }
        # By weight: stray names that an attacker puts below many values, or below new ones, leave the shape as it is.
        enough = ALIKE * sum(core.values())
        alike = [word for word in values if sum(core.get(rest, 0) for rest in below[word]) >= enough] if core else []
        holders_of = {
            word: set[int]().union(*(holders for rest, holders in below[word].items() if rest in core))
            for word in alike
        }
        # What one account alone shows is for the other test: an attacker can show many such values.
        alike = [word for word in alike if len(holders_of[word]) > 1]
        if len(alike) < SIBLINGS:
            return
        incidences = sum(len(holders_of[word]) for word in alike)
        accounts = set[int]().union(*(holders_of[word] for word in alike))
        saved = sum(rest in core for word in alike for rest in below[word]) - len(core)
        of_the_account = incidences <= PER_ACCOUNT * len(accounts)
        if len(accounts) < self.support or not (saved >= SAVED or of_the_account):
            return
        taken = [(rest, below[word].pop(rest)) for word in alike for rest in core if rest in below[word]]
        for word in alike:
            if not below[word]:
                del below[word]
        _merge(below.setdefault(ONE, {}), taken)


def _distinct(several: Iterable[Holders]) -> int:
    sets = list(several)
    return len(sets[0]) if len(sets) == 1 else len(set().union(*sets))


def _merge(into: dict[tuple[int, ...], Holders], items: Iterable[tuple[tuple[int, ...], Holders]]) -> None:
    """Unite holders of the same names, without changing a set that somebody else holds."""
    ours: set[tuple[int, ...]] = set()
    for name, holders in items:
        before = into.get(name)
        if before is None:
            into[name] = holders
        elif name in ours:
            before |= holders
        else:
            into[name] = before | holders
            ours.add(name)
