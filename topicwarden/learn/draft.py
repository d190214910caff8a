"""The draft: from observations to roles with rules and limits, and to the list of what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from topicwarden.events import Action
from topicwarden.learn.coverage import Coverage, completeness, sample_coverage
from topicwarden.learn.evidence import Evidence
from topicwarden.learn.leftover import Cause, Leftover
from topicwarden.learn.limits import rate_for, size_for
from topicwarden.learn.members import selectors
from topicwarden.learn.observations import Int64, Observations
from topicwarden.learn.review import Reason, ReviewItem
from topicwarden.learn.roles import MAX_TEMPLATES, SHARE, Set, find_roles
from topicwarden.learn.rules import RuleSet
from topicwarden.learn.templates import Holders, Miner
from topicwarden.learn.vocabulary import Name
from topicwarden.policy import Place

SUPPORT: Final = 5
"""Fewest user names that must have done something for it to be granted, and fewest members of a role."""
MAX_RULES: Final = 1000
"""Most rules of one role."""
MAX_ALL_RULES: Final = 8000
MAX_SELECTORS: Final = 2 << 20
"""Most bytes of selectors; a policy file may have four MiB."""
_SELECTOR_BYTES: Final = 20

Bool = npt.NDArray[np.bool_]
Tick = Callable[[str], None]
"""Called now and then with what is being done; may raise to stop."""


@dataclass(frozen=True, slots=True)
class RuleDraft:
    """A permission, and what speaks for it."""

    action: Action
    place: Place
    users: int
    events: int
    last_ns: int
    rate: str | None = None
    burst: int | None = None
    max_size: str | None = None


@dataclass(frozen=True, slots=True)
class Selector:
    """Who has a role: a user name or glob, in a virtual host and broker where there are several."""

    user: str
    vhost: str | None = None
    broker: str | None = None


@dataclass(frozen=True, slots=True)
class RoleDraft:
    """A role, its members and rules."""

    name: str
    selectors: tuple[Selector, ...]
    rules: tuple[RuleDraft, ...]
    members: int


@dataclass(frozen=True, slots=True)
class Draft:
    """What was learnt."""

    roles: tuple[RoleDraft, ...]
    review: tuple[ReviewItem, ...]
    coverage: Coverage
    events: int
    granted_events: int
    first_ns: int
    last_ns: int
    accounts: int
    pairs: int
    """Different (client, action, name)."""
    overflow: int
    skipped: Mapping[str, int]
    """Events not learnt from for their names, by the reason."""


@dataclass(slots=True)
class _Role:
    """A role while it is worked out."""

    members: list[int]
    rules: list[Name] = field(default_factory=list)
    holders: list[int] = field(default_factory=list)
    """How many members used each rule."""
    drafts: list[RuleDraft] = field(default_factory=list)


def draft(seen: Observations, tick: Tick = lambda _: None, *, support: int = SUPPORT) -> Draft:
    """Work out the draft. `support`: fewest users that must have done something for it to be granted."""
    return _Drafting(seen, tick, support).run()


def vouched(seen: Observations, tick: Tick = lambda _: None, *, support: int = SUPPORT) -> tuple[Evidence, Bool]:
    """Return the evidence, and which of its pairs a draft would grant: what members of a role have in common."""
    drafting = _Drafting(seen, tick, support)
    drafting.run()
    return drafting.evidence, drafting.evidence.eligible & drafting.granted


class _Drafting:
    def __init__(self, seen: Observations, tick: Tick, support: int) -> None:
        self.seen, self.tick, self.support = seen, tick, support
        self.evidence = Evidence(seen, lambda: tick("looking for templates"))
        self.account, self.user = self.evidence.account, self.evidence.user
        self.names, self.name, self.eligible = self.evidence.names, self.evidence.name, self.evidence.eligible
        self.miner = Miner(seen.vocabulary, support, lambda: tick("looking for templates"))
        self.granted = np.zeros(len(self.name), bool)
        self.room = MAX_ALL_RULES

    def run(self) -> Draft:
        seen = self.seen
        self.tick("looking for templates")
        chosen = np.flatnonzero(self.eligible)
        templates = self.miner.mine(self.evidence.holders(chosen))
        coverage_sample = sample_coverage(map(len, templates.values()), len(np.unique(self.account[chosen])))
        self.tick("looking for roles")
        used, frequent = self._used(templates)
        found = find_roles(used, frequent, self.support, lambda: self.tick("looking for roles"))
        roles = [self._role(members) for members in found.members]
        roles = [role for role in roles if role.rules]
        self.tick("writing the review list")
        leftover = Leftover(seen, self.names, self.name, self.account, self.user)
        drafts = self._named(roles, leftover)
        self._fill(leftover, roles, drafts, found.undecided)
        return Draft(
            roles=tuple(drafts),
            review=leftover.items(),
            coverage=Coverage(coverage_sample, completeness((len(role.members), role.holders) for role in roles)),
            events=seen.events,
            granted_events=int(seen.count[self.granted & ~seen.denied].sum()),
            first_ns=seen.first_event_ns,
            last_ns=seen.last_event_ns,
            accounts=len(seen.accounts),
            pairs=len(self.name),
            overflow=seen.overflow,
            skipped={why.value: count for why, count in sorted(seen.unfit_events.items())},
        )

    def _used(self, templates: Mapping[Name, Holders]) -> tuple[dict[int, Set], int]:
        """Return the templates that each account used, by number, and how many there are; only those with support."""
        frequent = [name for name, holders in templates.items() if self.evidence.users(holders) >= self.support]
        frequent.sort(key=lambda name: (-len(templates[name]), self.evidence.order(name)))
        frequent = sorted(frequent[:MAX_TEMPLATES], key=self.evidence.order)
        used: dict[int, list[int]] = {}
        for number, name in enumerate(frequent):
            for account in templates[name]:
                used.setdefault(account, []).append(number)
        return {account: tuple(numbers) for account, numbers in used.items()}, len(frequent)

    # -- roles -------------------------------------------------------------------------------------------------------

    def _role(self, members: list[int]) -> _Role:
        """Return the role of these accounts, its rules mined from what they did alone.

        So no wildcard rests on what somebody outside the role did.
        """
        self.tick("drafting rules")
        role = _Role(members)
        inside = np.zeros(len(self.seen.accounts), bool)
        inside[members] = True
        pairs = np.flatnonzero(self.eligible & inside.take(self.account))
        if len(members) < self.support or self.evidence.users(members) < self.support:
            return role
        templates = self.miner.mine(self.evidence.holders(pairs))
        least = max(self.support, SHARE * len(members))
        names = [
            name for name, held in templates.items() if len(held) >= least and self.evidence.users(held) >= self.support
        ]
        names.sort(key=lambda name: (-len(templates[name]), self.evidence.order(name)))
        names = _not_covered(names[: min(MAX_RULES, self.room)])
        self.room -= len(names)
        names.sort(key=self.evidence.order)
        rules = RuleSet(names)
        admitted: list[list[int]] = [[] for _ in names]
        for number in np.unique(self.name[pairs]).tolist():
            for rule in rules.admitting(self.names[number]):
                admitted[rule].append(number)
        for name, numbers in zip(names, admitted, strict=True):
            covered = np.zeros(len(self.names), bool)
            covered[numbers] = True
            own_pairs = pairs[covered.take(self.name[pairs])]
            self.granted[own_pairs] = True
            users = np.unique(self.account[own_pairs])
            role.rules.append(name)
            role.holders.append(len(users))
            role.drafts.append(self._rule(name, own_pairs, self.evidence.users(users.tolist())))
        return role

    def _rule(self, name: Name, pairs: Int64, users: int) -> RuleDraft:
        """Return the rule for a name that these pairs speak for."""
        seen, root = self.seen, self.seen.vocabulary.root(name)
        rate = burst = size = None
        if root.action is Action.PUBLISH:
            most = []
            accounts, back = np.unique(self.account[pairs], return_inverse=True)
            for peaks, over_all in zip(seen.peaks, seen.account_peaks, strict=True):
                # The peaks of an account's names need not fall together, but all together they are not above its own.
                together = np.bincount(back.ravel(), weights=peaks[pairs]).astype(np.int64)
                most.append(int(np.minimum(together, over_all[accounts]).max()))
            rate, burst = rate_for(*most)
            size = size_for(int(seen.max_size[pairs].max()))
        return RuleDraft(
            action=root.action,
            place=seen.vocabulary.place(name),
            users=users,
            events=int(seen.count[pairs].sum()),
            last_ns=int(seen.last_ns[pairs].max()),
            rate=rate,
            burst=burst,
            max_size=size,
        )

    def _named(self, roles: list[_Role], leftover: Leftover) -> list[RoleDraft]:
        """Give roles their selectors and names; takes out those for which there is no room."""
        brokers = {account.broker for account in self.seen.accounts}
        hosts = {account.vhost for account in self.seen.accounts}
        taken: set[str] = set()
        drafts, kept = [], []
        room = MAX_SELECTORS
        common = Counter(rule for role in roles for rule in role.rules)
        for role in roles:
            found = self._selectors(role.members, len(brokers) > 1, len(hosts) > 1)
            own_rules = [
                rule for rule, name in zip(role.drafts, role.rules, strict=True) if common[name] == 1
            ] or role.drafts
            name = _unique(_role_name(found, own_rules), taken)
            size = sum(_SELECTOR_BYTES + len(repr(selector.user)) * 2 for selector in found)
            if size > room:
                self.granted[np.isin(self.account, role.members)] = False
                leftover.add_accounts(Reason.TOO_LARGE, role.members, name)
                continue
            room -= size
            kept.append(role)
            drafts.append(RoleDraft(name, found, tuple(role.drafts), len(role.members)))
            doubtful = [account for account in role.members if account in self.seen.unverified]
            if doubtful:
                leftover.add_accounts(Reason.UNVERIFIED, doubtful, name)
        roles[:] = kept
        return drafts

    def _selectors(self, members: Sequence[int], by_broker: bool, by_host: bool) -> tuple[Selector, ...]:
        accounts = self.seen.accounts
        places: dict[tuple[str, str | None], list[str]] = {}
        for member in members:
            account = accounts[member]
            places.setdefault((account.broker, account.vhost), []).append(account.user or "")
        inside = set(members)
        found = []
        for (broker, vhost), users in sorted(places.items(), key=lambda item: (item[0][0], item[0][1] or "")):
            # Also those who were only refused, or only claimed a name: a glob must select none of them.
            others = [
                account.user
                for number, account in enumerate(accounts)
                if number not in inside and account.user is not None and account.broker == broker
            ]
            if by_host and vhost is not None:
                others = [
                    account.user
                    for number, account in enumerate(accounts)
                    if number not in inside
                    and account.user is not None
                    and (account.broker, account.vhost) == (broker, vhost)
                ]
            globs, names = selectors(users, others)
            found += [
                Selector(user, vhost if by_host else None, broker if by_broker else None) for user in [*globs, *names]
            ]
        return tuple(found)

    # -- what is left over -------------------------------------------------------------------------------------------

    def _fill(
        self,
        leftover: Leftover,
        roles: Sequence[_Role],
        drafts: Sequence[RoleDraft],
        undecided: Mapping[int, tuple[int, ...]],
    ) -> None:
        """Put everything that is not granted on the review list."""
        role_of = np.full(len(self.seen.accounts), -1, np.int64)
        for number in range(len(roles) - 1, -1, -1):
            role_of[roles[number].members] = number
        for account in undecided:
            if role_of[account] < 0:
                role_of[account] = -2
        causes = [Cause(Reason.NO_ROLE), Cause(Reason.SEVERAL_ROLES)]
        by_role = [Cause(Reason.RARE_IN_ROLE, role.name, role.members) for role in drafts]
        left = self.eligible & ~self.granted
        self._mark_granted_refusals(roles, role_of)
        leftover.add_pairs(
            np.flatnonzero(left),
            lambda pair: by_role[role] if (role := int(role_of[self.account[pair]])) >= 0 else causes[role + 2 == 0],
            self.support,
        )
        leftover.add_others(self.eligible, self.granted, set(self.evidence.without_vhost))

    def _mark_granted_refusals(self, roles: Sequence[_Role], role_of: Int64) -> None:
        """Find what was refused although the draft grants it."""
        sets = [RuleSet(role.rules) for role in roles]
        known: dict[tuple[int, int], bool] = {}
        for pair in np.flatnonzero(self.seen.denied).tolist():
            role = int(role_of[self.account[pair]])
            if role < 0:
                continue
            key = (role, int(self.name[pair]))
            if key not in known:
                known[key] = bool(sets[role].admitting(self.names[key[1]]))
            self.granted[pair] = known[key]


def _not_covered(names: list[Name]) -> list[Name]:
    """Return the rules that no other one admits."""
    rules = RuleSet(names)
    return [name for number, name in enumerate(names) if rules.admitting(name) in ([number], [])]


def _role_name(found: Sequence[Selector], rules: Sequence[RuleDraft]) -> str:
    """Return a name for a role: what its members' names have in common, else what its rules are about."""
    globs = [selector.user[:-1] for selector in found if selector.user.endswith("*")]
    rule = min(rules, key=lambda rule: (-rule.users, rule.place.label))
    specials = rule.place.space.syntax.specials
    levels = [level for level in rule.place.levels if level not in specials] or [rule.place.space.within]
    for words in (globs[:1], levels[:2]):
        clean = "-".join(filter(None, map(_plain, words)))[:56].strip("_.-")
        if clean:
            return clean
    return "role"


def _plain(word: str) -> str:
    """Return what of a word may stand in a role's name."""
    return "".join(c for c in word if c.isascii() and (c.isalnum() or c in "_.-")).strip("_.-")


def _unique(name: str, taken: set[str]) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    taken.add(candidate)
    return candidate
