"""What of the observations can be evidence: names with the clients' own names taken out, by whom, and which count."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from topicwarden.learn.leftover import restriction
from topicwarden.learn.observations import Int64, Observations, Standing
from topicwarden.learn.templates import Holders
from topicwarden.learn.vocabulary import Name, own


class Evidence:
    """Columns beside the pairs of the observations."""

    def __init__(self, seen: Observations, tick: Callable[[], None] = lambda: None) -> None:
        self._seen, self._tick = seen, tick
        self.account: Int64 = np.array(seen.client_account, np.int64)[seen.pair_client]
        """The account of each pair."""
        self.names: list[Name] = []
        """With placeholders, by number."""
        self.name = self._own_names()
        """The number of each pair's name."""
        self.without_vhost = self._without_vhost()
        """Accounts whose virtual host is not told although their broker has some."""
        self.eligible = self._eligible()
        """Which pairs are evidence: accepted, of an account somebody vouches for, for a fit name."""
        users = sorted({account.user for account in seen.accounts if account.user is not None})
        numbers = {user: number for number, user in enumerate(users)}
        self.user: Int64 = np.array([numbers.get(account.user or "", -1) for account in seen.accounts], np.int64)
        """The number of each account's user name; accounts of several virtual hosts may share one."""

    def _own_names(self) -> Int64:
        """Put placeholders into the names; returns the number of each pair's name."""
        seen, vocabulary = self._seen, self._seen.vocabulary
        user = [vocabulary.number_of(seen.accounts[account].user) for account in seen.client_account]
        client = [vocabulary.number_of(text) for text in seen.client_ids]
        numbers: dict[Name, int] = {}
        result = np.zeros(len(seen.pair_name), np.int64)
        for pair, (who, name) in enumerate(zip(seen.pair_client.tolist(), seen.pair_name.tolist(), strict=True)):
            if pair & 0xFFFF == 0:
                self._tick()
            owned = seen.names[name]
            if user[who] is not None or client[who] is not None:
                owned = own(owned, user[who], client[who])
            number = numbers.get(owned)
            if number is None:
                number = numbers[owned] = len(self.names)
                self.names.append(owned)
            result[pair] = number
        return result

    def _eligible(self) -> npt.NDArray[np.bool_]:
        seen = self._seen
        by_account = np.array([account.standing is Standing.NAMED for account in seen.accounts], bool)
        by_account[self.without_vhost] = False
        fit = np.array([restriction(seen.vocabulary, name) is None for name in self.names], bool)
        eligible: npt.NDArray[np.bool_] = ~seen.denied & by_account.take(self.account) & fit.take(self.name)
        return eligible

    def _without_vhost(self) -> list[int]:
        hosts: dict[str, set[str | None]] = {}
        for account in self._seen.accounts:
            hosts.setdefault(account.broker, set()).add(account.vhost)
        return [n for n, a in enumerate(self._seen.accounts) if a.vhost is None and len(hosts[a.broker]) > 1]

    def holders(self, pairs: Int64) -> dict[Name, Holders]:
        """Return the names of these pairs with the accounts that used them."""
        if not len(pairs):
            return {}
        order = np.lexsort((self.account[pairs], self.name[pairs]))
        names, accounts = self.name[pairs][order], self.account[pairs][order]
        starts = np.flatnonzero(np.diff(names, prepend=-1))
        ends = np.append(starts[1:], len(names))
        listed = accounts.tolist()
        return {
            self.names[number]: set(listed[start:end])
            for number, start, end in zip(names[starts].tolist(), starts.tolist(), ends.tolist(), strict=True)
        }

    def users(self, accounts: Iterable[int]) -> int:
        """Return how many different user names these accounts have."""
        return len(np.unique(self.user[list(accounts)]))

    def order(self, name: Name) -> tuple[int, str, str, str]:
        """Return what names are sorted by: action, space, pattern."""
        root, place = self._seen.vocabulary.root(name), self._seen.vocabulary.place(name)
        return (root.action, root.space.family, root.space.within, place.pattern)
