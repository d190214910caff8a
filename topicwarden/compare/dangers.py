"""What is dangerous in grants by itself, when there is no policy to hold them against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from topicwarden.compare.intent import Unions
from topicwarden.compare.principals import Principal
from topicwarden.compare.told import name_of
from topicwarden.events import Action
from topicwarden.grants import Rule
from topicwarden.patterns import Anything, Covered, LevelPattern, Names, names_overlap, parse
from topicwarden.patterns.meet import meet
from topicwarden.policy import Space

TOPICS = Space("topic")
_EVERYTHING = parse("#")
_CONTROL = parse("$CONTROL/#")
_STATE = parse("$SYS/#")


@dataclass(frozen=True, slots=True)
class Danger:
    """A rule that is dangerous whatever was meant."""

    principal: Principal
    action: Action
    space: Space
    rule: Rule
    reason: str
    witness: str | None = None


def dangers(principals: Sequence[Principal], unions: Unions) -> Iterator[Danger]:
    """Yield what every class of clients may do that is dangerous by itself."""
    for principal in principals:
        for (action, space), rules in principal.rights.by.items():
            for rule in rules.rules:
                if rule.allow:
                    for reason in _reasons(action, space, rule.names, unions):
                        yield Danger(principal, action, space, rule, reason)
    yield from _foreign_branches(principals)


def _reasons(action: Action, space: Space, names: Names, unions: Unions) -> Iterator[str]:
    if space == TOPICS:
        if isinstance(unions.uncovered(space, [names], _EVERYTHING), Covered):
            yield (
                "it lets a client publish to every topic"
                if action is Action.PUBLISH
                else ("it lets a client receive every topic")
            )
        # Both are names that `#` does not match, so whoever grants them means them, or grants everything.
        if action is Action.PUBLISH and names_overlap(names, _CONTROL):
            yield "it lets a client change the broker's own settings ($CONTROL)"
        if action is Action.SUBSCRIBE and names_overlap(names, _STATE):
            yield "it shows a client the broker's own state and log ($SYS)"
    elif space.family in ("exchange", "queue") and isinstance(unions.uncovered(space, [names], Anything()), Covered):
        doing = {
            Action.PUBLISH: "publish to every",
            Action.SUBSCRIBE: "receive from every",
            Action.CONFIGURE: "declare and delete every",
        }[action]
        yield f"it lets a client {doing} {space.family}"


def _foreign_branches(principals: Sequence[Principal]) -> Iterator[Danger]:
    """Yield rules by which a client can publish in a branch that belongs to another.

    A branch belongs to a user when a rule for that user has the user's name as a level; a rule that has its holder's
    own name in it is about the holder's branch and never accused.
    """
    branches = [
        (owner, rule.names)
        for owner in principals
        if owner.client.user is not None
        for (action, space), rules in owner.rights.by.items()
        if action is Action.PUBLISH and space == TOPICS
        for rule in rules.rules
        if rule.allow and isinstance(rule.names, LevelPattern) and owner.client.user in rule.names.levels
    ]
    for principal in principals:
        told = set()
        for rule in principal.rights.rules(Action.PUBLISH, TOPICS).rules:
            names = rule.names
            if not rule.allow or not isinstance(names, LevelPattern) or principal.client.user in names.levels:
                continue
            for owner, branch in branches:
                if (owner is principal and not owner.alike) or rule.origin in told or names.levels == branch.levels:
                    continue
                common = meet(names, branch)
                # Whoever spells the owner's name out means it; a wildcard in its place may not.
                if common is not None and owner.client.user not in names.levels:
                    told.add(rule.origin)
                    other = owner.alike[0] if owner is principal else owner.client
                    yield Danger(
                        principal,
                        Action.PUBLISH,
                        TOPICS,
                        rule,
                        f"it lets a client publish in the branch of another, {name_of(other)} for example",
                    )
