"""Which findings about grants the policy's exceptions accept, and which acceptances have run out."""

from __future__ import annotations

from collections.abc import Sequence

from topicwarden.compare.intent import Intent, Unions
from topicwarden.compare.principals import Principal
from topicwarden.events import Action
from topicwarden.findings import Catalogue, Ledger
from topicwarden.grants import Grants
from topicwarden.patterns import Covered, Names
from topicwarden.policy import ExceptionRule, Place, Policy, Space


class Acceptance:
    """Answers for one class of clients. A grant is accepted only if all that is too much of it is."""

    def __init__(self, policy: Policy, principal: Principal, now_ns: int, grants: Grants, catalogue: Catalogue) -> None:
        self._rules = [policy.exceptions[number] for number in principal.exceptions]
        self._now = now_ns
        self._grants = grants
        self._catalogue = catalogue
        self._expired: dict[int, ExceptionRule] = {}

    def anyway(self, code: str) -> str | None:
        """Return the reason of an exception for this code that is about no name in particular."""
        return self._first([rule for rule in self._for(code) if rule.place is None])

    def of(
        self,
        code: str,
        space: Space,
        names: Names,
        unions: Unions,
        intent: Intent | None = None,
        action: Action = Action.PUBLISH,
    ) -> str | None:
        """Return the reason why all of these names that are not intended are accepted; None when some are not."""
        reason = self.anyway(code)
        if reason is not None:
            return reason
        known = [] if intent is None else list(intent.names(action, space))
        placed: list[tuple[ExceptionRule, Names]] = []
        for rule in self._for(code):
            place = rule.place and self._grants.carried(rule.place)
            if place is not None and place.space == space:
                placed.append((rule, _names(place)))
        holding = [(rule, one) for rule, one in placed if self._now < rule.until_ns]
        if holding and _covered(space, names, [*known, *(one for _, one in holding)], unions):
            return _told(holding[0][0])
        if placed and _covered(space, names, [*known, *(one for _, one in placed)], unions):
            self._expired.update((id(rule), rule) for rule, _ in placed if self._now >= rule.until_ns)
        return None

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
                    "exception_client": str(rule.client or rule.user),
                    "reason": rule.reason,
                    "until": rule.until.isoformat(),
                },
            )
        self._expired.clear()

    def _for(self, code: str) -> list[ExceptionRule]:
        return [rule for rule in self._rules if self._is_about(rule, code)]

    def _is_about(self, rule: ExceptionRule, code: str) -> bool:
        return rule.finding.lower() in (code.lower(), self._catalogue[code].name)

    def _first(self, rules: Sequence[ExceptionRule]) -> str | None:
        for rule in rules:
            if self._now < rule.until_ns:
                return _told(rule)
        self._expired.update((id(rule), rule) for rule in rules)
        return None


def _told(rule: ExceptionRule) -> str:
    return f"{rule.reason} (until {rule.until.isoformat()})"


def _names(place: Place) -> Names:
    syntax = place.space.syntax
    names: Names = syntax.parse(place.pattern)
    return names


def _covered(space: Space, names: Names, by: Sequence[Names], unions: Unions) -> bool:
    return isinstance(unions.uncovered(space, by, names), Covered)
