"""Gathering who did what: one row for each (client, action, name), with counts, times, sizes and peaks, all bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from topicwarden.events import Action, Client, EventBatch, Identity, Outcome
from topicwarden.learn.vocabulary import Name, Unfit, Vocabulary
from topicwarden.patterns import unsafe_characters

Int64 = npt.NDArray[np.int64]

MAX_PAIRS: Final = 1 << 21
"""Most (client, action, name) triples; further ones are counted and not looked at."""
MAX_PAIRS_OF_ONE: Final = 1 << 14
"""Most of them for one account, so that one client's made-up names leave room for everybody else's."""
MAX_CLIENTS: Final = 1 << 19
MAX_NAMES_UNFIT: Final = 1 << 12
"""Unfit names remembered one by one."""
SECOND: Final = 1_000_000_000
PERIODS: Final = (SECOND, 60 * SECOND)
"""Lengths of the periods whose fullest is remembered, in nanoseconds."""

_ACTIONS: Final = (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE)
_NEVER: Final = np.iinfo(np.int64).max
_NOT_KEPT: Final = -1


class Standing(IntEnum):
    """Whether what an account did can be evidence of what it needs."""

    NAMED = 0
    """It has a user name that the broker checked, or that the source does not say was unchecked."""
    CLAIMED = 1
    """The user name is only claimed: whoever likes can act under as many as they like."""
    ANONYMOUS = 2
    UNNAMED = 3
    """The source does not tell the user name."""
    UNWRITABLE = 4
    """The user name or virtual host cannot be written in a policy: `*`, `?` or hidden characters."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who permissions are for: a user in a virtual host of a broker, whatever client id it uses."""

    broker: str
    vhost: str | None
    user: str | None
    standing: Standing


@dataclass(slots=True)
class UnfitName:
    """A name that is not learnt from, and how often it was used."""

    why: Unfit
    action: Action
    label: str
    count: int = 0
    first_ns: int = _NEVER
    last_ns: int = 0
    accounts: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Observations:
    """What was observed. Arrays of pairs have one entry per (client, action, name, refused or not)."""

    vocabulary: Vocabulary
    accounts: list[Account]
    client_ids: list[str]
    """By client number; a client is an account with one client id."""
    client_account: list[int]
    names: list[Name]
    """By number, as they were used: placeholders are not put in yet."""
    pair_client: Int64
    pair_name: Int64
    denied: npt.NDArray[np.bool_]
    count: Int64
    first_ns: Int64
    last_ns: Int64
    max_size: Int64
    """Largest payload in bytes; -1 when none is known."""
    peaks: list[Int64]
    """For each of `PERIODS`: most events of the pair in one such period, counted from the epoch."""
    account_peaks: list[Int64]
    """The same over all publishes of an account, by account number."""
    unverified: set[int]
    """Accounts of whose identity the source does not say whether the broker checked it."""
    unfit: list[UnfitName]
    unfit_events: dict[Unfit, int]
    overflow: int
    """Events of pairs for which there was no room."""
    overflowing: dict[int, int]
    """Those of them that were over an account's own bound, by account."""
    events: int
    """All events with an action that needs a permission."""
    first_event_ns: int
    last_event_ns: int


class Peaks:
    """The most events of each row in one period, kept while batches come in."""

    def __init__(self, period: int) -> None:
        self._period = period
        self._current = np.full(1024, -1, np.int64)
        self._within = np.zeros(1024, np.int64)
        self.most = np.zeros(1024, np.int64)

    def add(self, row: Int64, time_ns: Int64, count: Int64) -> None:
        """Take events: the row each belongs to, its time, and how many events it stands for."""
        if not len(row):
            return
        needed = int(row.max()) + 1
        if needed > len(self.most):
            self._current = _grown(self._current, needed, -1)
            self._within, self.most = _grown(self._within, needed), _grown(self.most, needed)
        period = time_ns // self._period
        order = np.lexsort((period, row))
        rows, periods = row[order], period[order]
        new = np.ones(len(rows), bool)
        new[1:] = (rows[1:] != rows[:-1]) | (periods[1:] != periods[:-1])
        starts = np.flatnonzero(new)
        rows, periods, sums = rows[starts], periods[starts], np.add.reduceat(count[order], starts)
        # Where a period goes on that the batch before had begun.
        sums = sums + np.where(self._current[rows] == periods, self._within[rows], 0)
        np.maximum.at(self.most, rows, sums)
        last = np.ones(len(rows), bool)
        last[:-1] = rows[1:] != rows[:-1]
        self._current[rows[last]], self._within[rows[last]] = periods[last], sums[last]


class Gatherer:
    """Takes batches, from however many sources, and holds what they say."""

    def __init__(self, *, max_pairs: int = MAX_PAIRS, max_pairs_of_one: int = MAX_PAIRS_OF_ONE) -> None:
        self._max_pairs, self._max_pairs_of_one = max_pairs, max_pairs_of_one
        self._vocabulary = Vocabulary()
        self._accounts: list[Account] = []
        self._account_numbers: dict[Account, int] = {}
        self._pairs_of: list[int] = []
        self._client_ids: list[str] = []
        self._client_account: list[int] = []
        self._clients: dict[tuple[int, str], int] = {}
        self._names: list[Name] = []
        self._name_numbers: dict[Name, int] = {}
        self._pairs: dict[int, int] = {}
        self._pair_keys: list[int] = []
        self._count = np.zeros(1024, np.int64)
        self._first = np.full(1024, _NEVER, np.int64)
        self._last = np.full(1024, -_NEVER, np.int64)
        self._size = np.full(1024, -1, np.int64)
        self._peaks = [Peaks(period) for period in PERIODS]
        self._account_peaks = [Peaks(period) for period in PERIODS]
        self._unverified: set[int] = set()
        self._unfit: dict[tuple[Unfit, Action, str], UnfitName] = {}
        self._unfit_events: dict[Unfit, int] = {}
        self._overflow = 0
        self._overflowing: dict[int, int] = {}
        self._events = 0
        self._first_event, self._last_event = _NEVER, -_NEVER
        # What the numbers of the batch's tables mean; forgotten when they get a new meaning. Actions are plain numbers
        # here: an enumeration's hash is a Python function, and this is looked at for each new pair.
        self._tables: object = None
        self._known_clients: dict[int, int] = {}
        self._known_names: dict[int, dict[int, int | Unfit]] = {}

    @property
    def events(self) -> int:
        """How many events have been taken that need a permission."""
        return self._events

    @property
    def pairs(self) -> int:
        """How many different (client, action, name) there are so far."""
        return len(self._pair_keys)

    def add(self, batch: EventBatch) -> None:
        """Take a batch."""
        if batch.tables is not self._tables:
            self._tables, self._known_clients, self._known_names = batch.tables, {}, {}
        for number in batch.new_clients:
            self._known_clients.pop(number, None)
        for number in batch.new_resources:
            self._known_names.pop(number, None)
        rows = np.flatnonzero(np.isin(batch.action, _ACTIONS))
        if not len(rows):
            return
        count = batch.count[rows].astype(np.int64)
        time = np.clip(batch.time_ns[rows], 0, 1 << 61)
        self._events += int(count.sum())
        self._first_event = min(self._first_event, int(time.min()))
        self._last_event = max(self._last_event, int(time.max()))
        key = batch.client[rows].astype(np.int64) << 37 | batch.resource[rows].astype(np.int64) << 5
        key |= batch.action[rows].astype(np.int64) << 1 | (batch.outcome[rows] == Outcome.DENIED)
        distinct, inverse = np.unique(key, return_inverse=True)
        inverse = inverse.ravel()
        events = np.bincount(inverse, weights=count).astype(np.int64).tolist()
        firsts, lasts = np.full(len(distinct), _NEVER, np.int64), np.zeros(len(distinct), np.int64)
        np.minimum.at(firsts, inverse, time)
        np.maximum.at(lasts, inverse, time)
        spans = zip(distinct.tolist(), events, firsts.tolist(), lasts.tolist(), strict=True)
        pairs = np.array([self._pair(batch, key, *span) for key, *span in spans], np.int64)
        self._reserve(len(self._pair_keys))
        kept = pairs >= 0
        self._first[pairs[kept]] = np.minimum(self._first[pairs[kept]], firsts[kept])
        self._last[pairs[kept]] = np.maximum(self._last[pairs[kept]], lasts[kept])
        pair = pairs[inverse]
        good = np.flatnonzero(pair >= 0)
        pair, time, count = pair[good], time[good], count[good]
        np.add.at(self._count, pair, count)
        np.maximum.at(self._size, pair, batch.size[rows[good]])
        published = np.flatnonzero(
            (batch.action[rows[good]] == Action.PUBLISH) & (batch.outcome[rows[good]] != Outcome.DENIED)
        )
        pair, time, count = pair[published], time[published], count[published]
        unique, back = np.unique(pair, return_inverse=True)
        of = [self._client_account[self._pair_keys[number] >> 33] for number in unique.tolist()]
        account = np.array(of, np.int64)[back.ravel()]
        self._published(batch, rows[good[published]], pair, account)
        for own, over_all in zip(self._peaks, self._account_peaks, strict=True):
            own.add(pair, time, count)
            over_all.add(account, time, count)

    def _published(self, batch: EventBatch, rows: Int64, pair: Int64, account: Int64) -> None:
        """Take more of publishes that were not refused, for whoever gathers more: their rows, pairs and accounts."""

    def _pair(self, batch: EventBatch, key: int, events: int, first_ns: int, last_ns: int) -> int:
        """Return the number of the pair that a key of `add` is about; negative when it is not kept."""
        action, denied = key >> 1 & 15, key & 1
        client = self._client(batch, key >> 37)
        if client == _NOT_KEPT:
            self._overflow += events
            return _NOT_KEPT
        account = self._client_account[client]
        full = self._pairs_of[account] >= self._max_pairs_of_one
        if full or len(self._pair_keys) >= self._max_pairs:
            # Nothing new is interned any more: what cannot be kept must not cost memory either.
            found = self._known_names.get(key >> 5 & 0xFFFFFFFF, {}).get(action, _NOT_KEPT)
        else:
            found = self._name(batch, key >> 5 & 0xFFFFFFFF, action)
        if isinstance(found, Unfit):
            self._unfit_events[found] = self._unfit_events.get(found, 0) + events
            if found not in (Unfit.MADE_UP, Unfit.TRUNCATED):
                resource = batch.tables.resources.entries[key >> 5 & 0xFFFFFFFF]
                assert resource is not None  # the batch uses it
                entry = self._unfit_entry(found, Action(action), resource.label)
                if entry is not None:
                    entry.count += events
                    entry.first_ns, entry.last_ns = min(entry.first_ns, first_ns), max(entry.last_ns, last_ns)
                    if len(entry.accounts) < MAX_NAMES_UNFIT:
                        entry.accounts.add(account)
            return _NOT_KEPT
        # client < 2**19, name < 2**32
        long = client << 33 | found << 1 | denied
        pair = self._pairs.get(long) if found >= 0 else None
        if pair is None:
            if full:
                self._overflowing[account] = self._overflowing.get(account, 0) + events
            if full or len(self._pair_keys) >= self._max_pairs:
                self._overflow += events
                return _NOT_KEPT
            pair = self._pairs[long] = len(self._pair_keys)
            self._pair_keys.append(long)
            self._pairs_of[account] += 1
        return pair

    def _unfit_entry(self, why: Unfit, action: Action, label: str) -> UnfitName | None:
        entry = self._unfit.get((why, action, label))
        if entry is None and len(self._unfit) < MAX_NAMES_UNFIT:
            entry = self._unfit[why, action, label] = UnfitName(why, action, label)
        return entry

    def _client(self, batch: EventBatch, number: int) -> int:
        known = self._known_clients.get(number)
        if known is not None:
            return known
        client = batch.tables.clients.entries[number]
        assert client is not None  # the batch uses it
        account = Account(client.broker, client.vhost, client.user, _standing(client))
        account_number = self._account_numbers.get(account)
        if account_number is None:
            if len(self._accounts) >= MAX_CLIENTS:
                return _NOT_KEPT
            account_number = self._account_numbers[account] = len(self._accounts)
            self._accounts.append(account)
            self._pairs_of.append(0)
        if client.identity is Identity.UNKNOWN:
            self._unverified.add(account_number)
        found = self._clients.get((account_number, client.client_id))
        if found is None:
            if len(self._client_ids) >= MAX_CLIENTS:
                return _NOT_KEPT
            found = self._clients[account_number, client.client_id] = len(self._client_ids)
            self._client_ids.append(client.client_id)
            self._client_account.append(account_number)
        self._known_clients[number] = found
        return found

    def _name(self, batch: EventBatch, number: int, action: int) -> int | Unfit:
        by_action = self._known_names.setdefault(number, {})
        known = by_action.get(action)
        if known is None:
            resource = batch.tables.resources.entries[number]
            assert resource is not None
            name = self._vocabulary.name_of(Action(action), resource)
            known = by_action[action] = name if isinstance(name, Unfit) else self._number(name)
        return known

    def _number(self, name: Name) -> int:
        number = self._name_numbers.get(name)
        if number is None:
            number = self._name_numbers[name] = len(self._names)
            self._names.append(name)
        return number

    def _reserve(self, rows: int) -> None:
        if rows > len(self._count):
            self._count, self._first = _grown(self._count, rows), _grown(self._first, rows, _NEVER)
            self._last, self._size = _grown(self._last, rows, -_NEVER), _grown(self._size, rows, -1)

    def finish(self) -> Observations:
        """Return what was gathered; the gatherer is used up."""
        rows = len(self._pair_keys)
        keys = np.array(self._pair_keys, np.int64)
        self._pairs, self._pair_keys = {}, []
        self._reserve(rows)
        return Observations(
            vocabulary=self._vocabulary,
            accounts=self._accounts,
            client_ids=self._client_ids,
            client_account=self._client_account,
            names=self._names,
            pair_client=keys >> 33,
            pair_name=keys >> 1 & 0xFFFFFFFF,
            denied=(keys & 1).astype(bool),
            count=self._count[:rows],
            first_ns=self._first[:rows],
            last_ns=self._last[:rows],
            max_size=self._size[:rows],
            peaks=[_grown(peak.most, rows)[:rows] for peak in self._peaks],
            account_peaks=[
                _grown(peak.most, len(self._accounts))[: len(self._accounts)] for peak in self._account_peaks
            ],
            unverified=self._unverified,
            unfit=list(self._unfit.values()),
            unfit_events=self._unfit_events,
            overflow=self._overflow,
            overflowing=self._overflowing,
            events=self._events,
            first_event_ns=self._first_event if self._events else 0,
            last_event_ns=self._last_event if self._events else 0,
        )


def _standing(client: Client) -> Standing:
    if client.user is None:
        return Standing.UNNAMED if client.identity is Identity.UNKNOWN else Standing.ANONYMOUS
    if client.identity is Identity.CLAIMED:
        return Standing.CLAIMED
    if any(not _writable(text) for text in (client.user, client.vhost, client.broker) if text is not None):
        return Standing.UNWRITABLE
    return Standing.NAMED


def _writable(text: str) -> bool:
    """Whether a selector can name exactly this: globs have no escape, and hidden characters hide from the reviewer."""
    return 0 < len(text) <= 1024 and "*" not in text and "?" not in text and not unsafe_characters(text)


def _grown(array: Int64, rows: int, fill: int = 0) -> Int64:
    """Return the array with room for so many rows, at least doubled when it grows."""
    if rows <= len(array):
        return array
    return np.concatenate([array, np.full(max(rows - len(array), len(array)), fill, np.int64)])
