"""Many rules at once: which of them admit a name."""

from __future__ import annotations

from collections.abc import Iterable

from topicwarden.learn.vocabulary import ONE, REST, Name, matches


class RuleSet:
    """Rules by number; a look-up costs as many hashes as there are different places of wildcards."""

    def __init__(self, rules: Iterable[Name]) -> None:
        self.rules = list(rules)
        self._by_shape: dict[tuple[int, int], dict[tuple[int, ...], dict[Name, int]]] = {}
        self._open_ended: list[tuple[int, Name]] = []
        for number, rule in enumerate(self.rules):
            if REST in rule[1:]:
                self._open_ended.append((number, rule))
                continue
            places = tuple(place for place in range(1, len(rule)) if rule[place] == ONE)
            self._by_shape.setdefault((rule[0], len(rule)), {}).setdefault(places, {})[rule] = number

    def admitting(self, name: Name) -> list[int]:
        """Return the numbers of the rules that admit the name, sorted."""
        found = [number for number, rule in self._open_ended if matches(rule, name)]
        if REST not in name[1:]:
            for places, rules in self._by_shape.get((name[0], len(name)), {}).items():
                wanted = name
                if places:
                    levels = list(name)
                    for place in places:
                        levels[place] = ONE
                    wanted = tuple(levels)
                number = rules.get(wanted)
                if number is not None:
                    found.append(number)
        return sorted(found)
