"""Which findings about grants the policy's exceptions accept, and which acceptances have run out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from topicwarden.compare.intent import Intent, Unions
from topicwarden.compare.principals import Principal
from topicwarden.events import Action, Client
from topicwarden.findings import Catalogue, Ledger
from topicwarden.grants import Grants, Origin
from topicwarden.patterns import Covered, Names
from topicwarden.policy import ExceptionRule, Place, Policy, Space


class Acceptance:
    """Answers for one broker's grants. A grant is accepted only if all that is too much of it is."""

    def __init__(self, policy: Policy | None, now_ns: int, grants: Grants, catalogue: Catalogue) -> None:
        self._exceptions: Sequence[ExceptionRule] = () if policy is None else policy.exceptions
        self._now = now_ns
        self._grants = grants
        self._catalogue = catalogue
        self._by_grant: dict[str, list[ExceptionRule]] = {}
        for rule in self._exceptions:
            if rule.grant is not None:
                self._by_grant.setdefault(rule.grant, []).append(rule)
        self._expired: dict[int, ExceptionRule] = {}

    def of_grant(self, code: str, origin: Origin, clients: Sequence[Client] = ()) -> str | None:
        """Return the reason of an exception for this one grant.

        `clients`: all whom the finding is about; none: it is about the grant, whoever has it, so that an exception for
        a user does not accept it.
        """
        return self._first(self._naming(code, origin, clients))

    def of_user(self, code: str, account: Client) -> str | None:
        """Return the reason of an exception for all findings of this code about a user."""
        name = self._catalogue[code].name
        return self._first(
            [
                rule
                for rule in self._exceptions
                if _of_any_grant(rule) and rule.names(code, name) and rule.is_for_account(account)
            ]
        )

    def of_class(self, code: str, principal: Principal, origin: Origin) -> str | None:
        """Return the reason of an exception for this grant, or for the user whatever the grant."""
        return self._first(self._anyway(code, principal, origin))

    def of_names(
        self,
        code: str,
        principal: Principal,
        origin: Origin,
        space: Space,
        names: Names,
        unions: Unions,
        intent: Intent | None = None,
        action: Action = Action.PUBLISH,
    ) -> str | None:
        """Return the reason why all of these names that are not intended are accepted; None when some are not."""
        anyway = self._anyway(code, principal, origin)
        held = self._holding(anyway)
        if held:
            return _told(held[0])
        known = [] if intent is None else list(intent.names(action, space))
        placed: list[tuple[ExceptionRule, Names]] = []
        for rule in self._of(principal, code):
            place = rule.place and self._grants.carried(rule.place)
            if place is not None and place.space == space:
                placed.append((rule, _names(place)))
        holding = [(rule, one) for rule, one in placed if self._now < rule.until_ns]
        if holding and _covered(space, names, [*known, *(one for _, one in holding)], unions):
            return _told(holding[0][0])
        if placed and _covered(space, names, [*known, *(one for _, one in placed)], unions):
            anyway += [rule for rule, _ in placed if self._now >= rule.until_ns]
        return self._first(anyway)

    def report_expired(self, ledger: Ledger) -> None:
        """Record the exceptions that would have accepted something, had they not run out."""
        for rule in self._expired.values():
            ledger.record(
                "TW910",
                broker=self._grants.broker,
                scope=rule.scope,
                first_ns=self._now,
                last_ns=self._now,
                evidence={
                    "finding": rule.finding,
                    "exception_client": rule.for_whom,
                    "reason": rule.reason,
                    "until": rule.until.isoformat(),
                },
            )
        self._expired.clear()

    def _anyway(self, code: str, principal: Principal, origin: Origin) -> list[ExceptionRule]:
        """Return the exceptions for this grant of a class, then those for the class that are about no names."""
        # All of a class are under the same exceptions.
        mine = self._naming(code, origin, [principal.client])
        return mine + [rule for rule in self._of(principal, code) if _of_any_grant(rule)]

    def _naming(self, code: str, origin: Origin, clients: Sequence[Client]) -> list[ExceptionRule]:
        return [
            rule
            for rule in self._by_grant.get(origin.text, ())
            if rule.names(code, self._catalogue[code].name)
            and rule.is_of_grant(self._grants.broker, origin.text, origin.holder, origin.source)
            and (all(map(rule.is_for_account, clients)) if clients else rule.user is None and rule.vhost is None)
        ]

    def _of(self, principal: Principal, code: str) -> Iterator[ExceptionRule]:
        name = self._catalogue[code].name
        for number in principal.exceptions:
            if self._exceptions[number].names(code, name):
                yield self._exceptions[number]

    def _holding(self, rules: Sequence[ExceptionRule]) -> list[ExceptionRule]:
        return [rule for rule in rules if self._now < rule.until_ns]

    def _first(self, rules: Sequence[ExceptionRule]) -> str | None:
        """Return the reason of the first that holds; when none does, those that would are kept for `report_expired`."""
        held = self._holding(rules)
        if held:
            return _told(held[0])
        self._expired.update((id(rule), rule) for rule in rules)
        return None


def _of_any_grant(rule: ExceptionRule) -> bool:
    return rule.of_names and rule.place is None


def _told(rule: ExceptionRule) -> str:
    return f"{rule.reason} (until {rule.until.isoformat()})"


def _names(place: Place) -> Names:
    syntax = place.space.syntax
    names: Names = syntax.parse(place.pattern)
    return names


def _covered(space: Space, names: Names, by: Sequence[Names], unions: Unions) -> bool:
    return isinstance(unions.uncovered(space, by, names), Covered)
