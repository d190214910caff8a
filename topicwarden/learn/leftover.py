"""Building the review list: what is not granted, joined into patterns that a person can read through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from topicwarden.events import Action
from topicwarden.learn.observations import Int64, Observations, Standing
from topicwarden.learn.review import MAX_EXAMPLES, Reason, ReviewItem
from topicwarden.learn.rules import RuleSet
from topicwarden.learn.templates import Holders, Miner
from topicwarden.learn.vocabulary import CLIENT, ONE, REST, Name, Unfit, Vocabulary
from topicwarden.policy import MQTT_EXCHANGE

MAX_ITEMS: Final = 5000
"""Entries of the review list; the rest are counted in one more."""

_STANDINGS: Final = {
    Standing.CLAIMED: Reason.CLAIMED,
    Standing.ANONYMOUS: Reason.ANONYMOUS,
    Standing.UNNAMED: Reason.USER_UNKNOWN,
    Standing.UNWRITABLE: Reason.UNWRITABLE_USER,
}
_UNFIT: Final = {
    Unfit.UNSAFE: Reason.UNSAFE_NAME,
    Unfit.INEXPRESSIBLE: Reason.INEXPRESSIBLE,
    Unfit.INVALID: Reason.INVALID_NAME,
}
_ORDER: Final = {reason: number for number, reason in enumerate(Reason)}


def restriction(vocabulary: Vocabulary, name: Name) -> Reason | None:
    """Say why a name is never granted without review, whoever asked for it; None when it may be."""
    root = vocabulary.root(name)
    family, within = root.space.family, root.space.within
    if within.startswith("amq.rabbitmq."):
        return Reason.CONTROL
    first = name[1] if len(name) > 1 else None
    if family == "topic" or within == MQTT_EXCHANGE:
        if first in (ONE, REST):
            return Reason.WIDE
        if first == CLIENT:
            return Reason.CLIENT_ID_FIRST
        if first is not None and vocabulary.word(first).startswith("$"):
            return Reason.CONTROL
    return None


@dataclass(frozen=True, slots=True)
class Cause:
    """Why pairs are left over, as far as it depends on whose they are."""

    reason: Reason
    role: str | None = None
    members: int = 0


class Leftover:
    """Collects the items of the review list."""

    def __init__(self, seen: Observations, names: Sequence[Name], name: Int64, account: Int64, user: Int64) -> None:
        self._seen, self._names, self._name, self._account, self._user = seen, names, name, account, user
        self._items: list[ReviewItem] = []
        # For reading only, so that one client's thousand names are one line, too.
        self._joining = Miner(seen.vocabulary, 1)

    def add_pairs(self, pairs: Int64, cause: Callable[[int], Cause], support: int = 0) -> None:
        """Put pairs on the list; with `support`, what fewer users did is told as that."""
        groups: dict[Cause, list[int]] = {}
        for pair in pairs.tolist():
            groups.setdefault(cause(pair), []).append(pair)
        for why, members in groups.items():
            self._add_group(np.array(members, np.int64), why, support)

    def _add_group(self, pairs: Int64, cause: Cause, support: int) -> None:
        """Join the names of a group into patterns, and make an item of each."""
        holders: dict[Name, Holders] = {}
        for number, account in zip(self._name[pairs].tolist(), self._account[pairs].tolist(), strict=True):
            holders.setdefault(self._names[number], set()).add(account)
        vocabulary = self._seen.vocabulary
        mined = self._joining.mine(holders)
        patterns = RuleSet(sorted(mined, key=lambda n: (vocabulary.root(n).action, vocabulary.place(n).label)))
        admitted = {name: patterns.admitting(name) for name in holders}
        pattern_of = {name: found[0] if found else -1 for name, found in admitted.items()}
        by_pattern: dict[int | Name, list[int]] = {}
        for pair, number in zip(pairs.tolist(), self._name[pairs].tolist(), strict=True):
            name = self._names[number]
            pattern = pattern_of[name]
            by_pattern.setdefault(name if pattern < 0 else pattern, []).append(pair)
        for key, members in by_pattern.items():
            name = patterns.rules[key] if isinstance(key, int) else key
            item = self._item(name, np.array(members, np.int64), cause)
            if support and cause.reason is not Reason.SEVERAL_ROLES and item.users < support:
                item = replace(item, reason=Reason.ONE_USER if item.users == 1 else Reason.FEW_USERS)
            self._items.append(item)

    def _item(self, name: Name, pairs: Int64, cause: Cause) -> ReviewItem:
        seen = self._seen
        accounts = np.unique(self._account[pairs])
        users = np.unique(self._user[accounts])
        return ReviewItem(
            reason=cause.reason,
            action=seen.vocabulary.root(name).action,
            place=seen.vocabulary.place(name),
            names=len(np.unique(seen.pair_name[pairs])),
            users=int((users >= 0).sum()),
            clients=len(np.unique(seen.pair_client[pairs])),
            examples=self._examples(accounts, pairs),
            events=int(seen.count[pairs].sum()),
            first_ns=int(seen.first_ns[pairs].min()),
            last_ns=int(seen.last_ns[pairs].max()),
            role=cause.role,
            members=cause.members,
        )

    def _examples(self, accounts: Int64, pairs: Int64) -> tuple[str, ...]:
        """Return some user names, or client ids where there are no users."""
        users = {user for n in accounts.tolist() if (user := self._seen.accounts[n].user) is not None}
        found = users or {self._seen.client_ids[n] for n in np.unique(self._seen.pair_client[pairs]).tolist()}
        return tuple(sorted(found)[:MAX_EXAMPLES])

    def add_accounts(self, reason: Reason, accounts: Sequence[int], role: str | None = None) -> None:
        """Put accounts on the list, whatever they did."""
        numbers = np.array(accounts, np.int64)
        inside = np.zeros(len(self._seen.accounts), bool)
        inside[numbers] = True
        pairs = np.flatnonzero(inside.take(self._account) & ~self._seen.denied)
        users = np.unique(self._user[numbers])
        self._items.append(
            ReviewItem(
                reason=reason,
                names=len(np.unique(self._seen.pair_name[pairs])),
                users=int((users >= 0).sum()),
                clients=len(np.unique(self._seen.pair_client[pairs])),
                examples=self._examples(numbers, pairs),
                events=int(self._seen.count[pairs].sum()),
                first_ns=int(self._seen.first_ns[pairs].min(initial=np.iinfo(np.int64).max)),
                last_ns=int(self._seen.last_ns[pairs].max(initial=0)),
                role=role,
            )
        )

    def add_others(
        self,
        eligible: npt.NDArray[np.bool_],
        granted: npt.NDArray[np.bool_],
        without_vhost: set[int],
        *,
        only: Action | None = None,
    ) -> None:
        """Put on the list what was never evidence: refused, of nobody known, or for names that are not granted.

        `only`: leave out all other actions.
        """
        seen = self._seen
        action = np.array([seen.vocabulary.root(name).action for name in self._names], np.int64).take(self._name)
        wanted = action == only if only is not None else np.ones(len(action), bool)
        refused = Cause(Reason.DENIED)
        for also in (False, True):
            first = len(self._items)
            self.add_pairs(np.flatnonzero(seen.denied & wanted & (granted == also)), lambda _: refused)
            self._items[first:] = [replace(item, also_granted=also) for item in self._items[first:]]
        restricted = [restriction(seen.vocabulary, name) for name in self._names]

        def cause(pair: int) -> Cause:
            account = int(self._account[pair])
            standing = seen.accounts[account].standing
            if standing in _STANDINGS:
                return Cause(_STANDINGS[standing])
            reason = restricted[int(self._name[pair])]
            return Cause(Reason.VHOST_UNKNOWN if reason is None and account in without_vhost else reason or Reason.MORE)

        self.add_pairs(np.flatnonzero(~seen.denied & ~eligible & wanted), cause)
        for unfit in (one for one in seen.unfit if only in (None, one.action)):
            accounts = np.array(sorted(unfit.accounts), np.int64)
            users = np.unique(self._user[accounts])
            self._items.append(
                ReviewItem(
                    reason=_UNFIT[unfit.why],
                    action=unfit.action,
                    label=unfit.label,
                    names=1,
                    users=int((users >= 0).sum()),
                    examples=self._examples(accounts, np.zeros(0, np.int64)),
                    events=unfit.count,
                    first_ns=unfit.first_ns,
                    last_ns=unfit.last_ns,
                )
            )
        for account, events in sorted(seen.overflowing.items())[:MAX_ITEMS]:
            examples = self._examples(np.array([account]), np.zeros(0, np.int64))
            self._items.append(
                ReviewItem(
                    Reason.TOO_MANY_NAMES,
                    users=len(examples),
                    examples=examples,
                    events=events,
                    first_ns=seen.first_event_ns,
                    last_ns=seen.last_event_ns,
                )
            )

    def items(self) -> tuple[ReviewItem, ...]:
        """Return the list, what matters most first."""

        def key(item: ReviewItem) -> tuple[object, ...]:
            label = item.place.label if item.place else item.label
            return (_ORDER[item.reason], -item.users, -item.events, int(item.action or 0), label, item.role or "")

        ordered = sorted(self._items, key=key)
        if len(ordered) <= MAX_ITEMS:
            return tuple(ordered)
        rest = ordered[MAX_ITEMS:]
        more = ReviewItem(
            Reason.MORE,
            names=sum(item.names for item in rest),
            events=sum(item.events for item in rest),
            first_ns=min(item.first_ns for item in rest),
            last_ns=max(item.last_ns for item in rest),
        )
        return (*ordered[:MAX_ITEMS], more)
