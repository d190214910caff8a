"""What to write in the place of a grant that is too wide, so that nobody loses what the policy intends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from topicwarden.compare.grants import kept, whole
from topicwarden.compare.intent import Intent
from topicwarden.compare.principals import Principal
from topicwarden.compare.told import name_of
from topicwarden.grants import Grants, Kept, Origin

MOST_HOLDERS: Final = 16
"""Other kinds of clients that are looked at for what they need of a grant."""


class Replacements:
    """Finds the smallest grants to put in the place of others, of one broker."""

    def __init__(self, grants: Grants, classes: Sequence[Principal], intent_of: Callable[[Principal], Intent]) -> None:
        """`classes`: all the broker's clients, so that what is shared is known; `intent_of`: what one is to do."""
        self._grants = grants
        self._intent_of = intent_of
        holders: dict[Origin, dict[int, Principal]] = {}
        for principal in classes:
            for rules in principal.rights.by.values():
                for rule in rules.rules:
                    if rule.allow:
                        holders.setdefault(rule.origin, {})[id(principal)] = principal
        self._holders = {origin: list(found.values()) for origin, found in holders.items()}

    def of(self, principal: Principal, intent: Intent, origin: Origin) -> str:
        """Return what to write: what the grant's holder keeps of it, and what others keep who have it too."""
        own = kept(principal, intent, origin)
        lines: list[str] = []
        others = [one for one in self._holders.get(origin, ()) if one is not principal]
        for other in others[:MOST_HOLDERS]:
            theirs = self._intent_of(other)
            parts = kept(other, theirs, origin)
            if not parts:
                continue
            named = [replace(part, pattern=_named(part, other.client.user)) for part in parts]
            lines.append(self._grants.instead(origin, other.client, named, whole(theirs)))
            if other.alike:
                lines.append(f"# and likewise for {len(other.alike)} more like {name_of(other.client)}")
        mine = self._grants.instead(origin, principal.client, own, whole(intent))
        needed = bool(lines)
        if needed:
            lines.insert(0, "# others need this: give it to each of them by name, and take it from all")
        if len(others) > MOST_HOLDERS:
            lines.append(f"# {len(others) - MOST_HOLDERS} more kinds of clients have it too and were not looked at")
        return "\n".join([*lines, *([mine] if own or not needed else [])])


def _named(part: Kept, user: str | None) -> str:
    """Return a pattern with the user's name spelt out."""
    syntax = part.space.syntax
    return syntax.separator.join(
        user if level == "%u" and user is not None else level for level in syntax.levels(part.pattern)
    )
