"""Deciding by table look-up: clients fall into identity classes, topics into topic classes, and a table decides.

A topic here is whatever is published to: an MQTT topic, or a routing key in its exchange.

An identity class is a set of roles; a topic class is the set of publish rules a topic matches, those with a placeholder
marked. `%u` and `%c` are compared row by row through hashes, so two bits more complete the look-up:
`table[identity class, topic class, is the user's, is the client id's] -> verdict`. Tables grow as classes turn up and
are bounded: what does not fit is decided exactly, pair by pair, by the same function that fills the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from topicwarden.engine.grouping import Int64
from topicwarden.engine.rulebook import Limit, RuleBook
from topicwarden.events import Client, Identity, Resource
from topicwarden.patterns import Matches

_MAX_KNOWN: Final = 1 << 17
NOT_JUDGED: Final = 0
"""Topic class of names the source cut short: nothing that depends on the missing part is said."""
BY_PAIR: Final = 1
"""Topic class of topics decided pair by pair: two rules want different owners, or the table is full."""

MISSING: Final = 0
"""Verdict of a table entry not computed yet."""
NO_ROLE: Final = 1
OUTSIDE: Final = 2
UNIDENTIFIED: Final = 3
"""The source does not know who the client is (no user name, not even that there is none): nothing is said of it."""
FREE: Final = 4
"""Verdict number of an allowed publish with no limit on it; also of topics that are not judged."""

NO_LIMIT: Final = np.iinfo(np.int64).max
_BY_USER: Final = 1
_BY_CLIENT: Final = 2
_MAX_TOPIC_CLASSES: Final = 2048
_MAX_IDENTITIES: Final = 1023
_MAX_PAIRS: Final = 1 << 16
_NO_NAME: Final = -(1 << 63)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy says of a publish by a client of one identity class."""

    allowed: bool
    message_rule: int = -1
    """Number of the rule whose message rate governs; -1: no rate applies."""
    message_column: int = -1
    """Where, from the client's first rate slot on, that rule's meter is."""
    byte_rule: int = -1
    byte_column: int = -1
    max_size: int = NO_LIMIT


@dataclass(frozen=True, slots=True)
class IdentityClass:
    """Clients with the same roles."""

    roles: tuple[int, ...]
    rules: frozenset[int]
    message_columns: dict[int, int]
    """Slot offset by rule number. Offsets 0 and 1 are for the roles' own limits on messages and bytes."""
    byte_columns: dict[int, int]
    messages: Limit | None
    """The limit over all publishes; see `RuleBook.over_all`."""
    bytes: Limit | None

    @property
    def slots(self) -> int:
        """How many meters a client of this class has."""
        return 2 + len(self.message_columns) + len(self.byte_columns)


class Classifier:
    """Classes and decision table for one policy."""

    def __init__(self, book: RuleBook) -> None:
        self.book = book
        self.identities = [IdentityClass((), frozenset(), {}, {}, None, None)]
        """Class 0 is for clients that the source cannot identify."""
        self._identity_numbers: dict[tuple[int, ...], int] = {}
        self._identity_of: dict[tuple[object, ...], int] = {}
        """Of clients seen, whatever their port."""
        self._topic_numbers: dict[tuple[tuple[int, ...], tuple[tuple[int, int], ...]], int] = {}
        self._topic_classes: list[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]] = [((), ()), ((), ())]
        self._table = np.zeros((8, 16 * 4), np.int32)
        allowed, not_allowed = Verdict(allowed=True), Verdict(allowed=False)
        self.verdicts: list[Verdict] = [allowed, not_allowed, not_allowed, allowed, allowed]
        self._verdict_numbers: dict[Verdict, int] = {self.verdicts[FREE]: FREE}
        self._pairs: dict[tuple[int, Resource, str | None, str], int] = {}
        self.overflow = 0
        """Topics decided pair by pair because the table was full."""
        self._columns()

    # -- clients and topics ------------------------------------------------------------------------------------------

    def identity_of(self, client: Client) -> int:
        """Return the number of a client's identity class."""
        if client.user is None and client.identity is Identity.UNKNOWN and self.book.asks_user:
            return 0
        # All but the port, which is another for every connection and no role asks for.
        who = (
            client.broker,
            client.protocol,
            client.client_id,
            client.user,
            client.address,
            client.tls_subject,
            client.vhost,
            client.identity,
        )
        known = self._identity_of.get(who)
        if known is None:
            if len(self._identity_of) >= _MAX_KNOWN:
                self._identity_of.clear()
            known = self._identity_of[who] = self._new_number(client)
        return known

    def _new_number(self, client: Client) -> int:
        roles = tuple(i for i, role in enumerate(self.book.roles) if any(m.matches(client) for m in role.members))
        number = self._identity_numbers.get(roles)
        if number is None:
            number = self._identity_numbers[roles] = len(self.identities)
            self.identities.append(self._new_identity(roles))
        return number

    def _new_identity(self, roles: tuple[int, ...]) -> IdentityClass:
        rules = frozenset(rule for role in roles for rule in self.book.roles[role].rules)
        metered = [rule for rule in sorted(rules) if self.book.rules[rule].messages is not None]
        weighed = [rule for rule in sorted(rules) if self.book.rules[rule].bytes is not None]
        messages, by_bytes = self.book.over_all(roles)
        return IdentityClass(
            roles=roles,
            rules=rules,
            message_columns={rule: 2 + i for i, rule in enumerate(metered)},
            byte_columns={rule: 2 + len(metered) + i for i, rule in enumerate(weighed)},
            messages=messages,
            bytes=by_bytes,
        )

    @staticmethod
    def name_hash(name: str | None) -> int:
        """Return 64 bits that stand for a user name or client id when it is compared with a topic's level.

        Python's keyed string hash: an attacker cannot aim for a collision, and by chance one in 2**64 pairs collides.
        """
        return _NO_NAME if name is None else hash(name)

    def topic_of(self, resource: Resource) -> tuple[int, int, int]:
        """Return the class of a topic or key that is whole, and the hashes of the names its `%u` and `%c` ask for."""
        found = self.book.index.match(resource)
        user = client = None
        bound: list[tuple[int, int]] = []
        for match in found.bound:
            needs = 0
            for kind, text in match.constraints:
                if kind == "user":
                    if user is not None and user != text:
                        return BY_PAIR, 0, 0
                    user, needs = text, needs | _BY_USER
                else:
                    if client is not None and client != text:
                        return BY_PAIR, 0, 0
                    client, needs = text, needs | _BY_CLIENT
            bound.append((match.number, needs))
        key = (found.always, tuple(bound))
        number = self._topic_numbers.get(key)
        if number is None:
            if len(self._topic_classes) >= _MAX_TOPIC_CLASSES:
                self.overflow += 1
                return BY_PAIR, 0, 0
            number = self._topic_numbers[key] = len(self._topic_classes)
            self._topic_classes.append(key)
        return number, self.name_hash(user), self.name_hash(client)

    # -- decisions ---------------------------------------------------------------------------------------------------

    def decide(
        self, identity: npt.NDArray[np.int32], topic: npt.NDArray[np.int32], owned: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.int32]:
        """Return the verdict number of each row; MISSING where it must be decided by `decide_pair`.

        `owned`: bit 0 set where the topic's `%u` level equals the client's user name, bit 1 likewise for `%c`.
        """
        self._grow()
        if len(self.identities) > _MAX_IDENTITIES:
            # The last row of the table is never filled in: its clients are decided by pair.
            identity = np.minimum(identity, np.int32(_MAX_IDENTITIES))
        width = self._table.shape[1]
        flat = identity * np.int32(width)
        flat += topic << np.int32(2)
        flat += owned
        table = self._table.ravel()
        verdict = table.take(flat)
        if not verdict.all():
            missing = np.unique(flat[verdict == MISSING])
            for entry in missing.tolist():
                identity_number, rest = divmod(entry, width)
                if rest >> 2 != BY_PAIR and identity_number < _MAX_IDENTITIES:
                    table[entry] = self._fill(identity_number, rest >> 2, rest & 3)
            verdict = table.take(flat)
        return verdict

    def decide_pair(self, identity: int, resource: Resource, client: Client) -> int:
        """Return the verdict number for one client and topic or key, exactly and without the table."""
        key = (identity, resource, client.user, client.client_id)
        number = self._pairs.get(key)
        if number is None:
            if len(self._pairs) >= _MAX_PAIRS:
                self._pairs.clear()
            found: Matches = self.book.index.match(resource)
            number = self._judge(identity, found.for_client(client.user, client.client_id))
            self._pairs[key] = number
        return number

    def _fill(self, identity: int, topic: int, owned: int) -> int:
        if topic == NOT_JUDGED:
            return FREE if self.identities[identity].roles else self._judge(identity, [])
        always, bound = self._topic_classes[topic]
        return self._judge(identity, [*always, *(rule for rule, needs in bound if needs & owned == needs)])

    def _judge(self, identity: int, matching: list[int]) -> int:
        """Return the verdict for a client whose identity class is given and a topic that matches these rules.

        Of several rules that allow it, the most generous governs, separately for messages, bytes and size: roles add
        up, so what one of them allows is allowed.
        """
        if not identity:
            return UNIDENTIFIED
        own = self.identities[identity]
        if not own.roles:
            return NO_ROLE
        numbers = [rule for rule in matching if rule in own.rules]
        if not numbers:
            return OUTSIDE
        rules = [self.book.rules[number] for number in numbers]
        message_rule = byte_rule = -1
        messages = [(r.messages.generosity, r.number) for r in rules if r.messages is not None]
        if len(messages) == len(rules):
            message_rule = min(messages)[1]
        weights = [(r.bytes.generosity, r.number) for r in rules if r.bytes is not None]
        if len(weights) == len(rules):
            byte_rule = min(weights)[1]
        verdict = Verdict(
            allowed=True,
            message_rule=message_rule,
            message_column=own.message_columns.get(message_rule, -1),
            byte_rule=byte_rule,
            byte_column=own.byte_columns.get(byte_rule, -1),
            max_size=max(NO_LIMIT if r.max_size is None else r.max_size for r in rules),
        )
        number = self._verdict_numbers.get(verdict)
        if number is None:
            number = self._verdict_numbers[verdict] = len(self.verdicts)
            self.verdicts.append(verdict)
            self._columns()
        return number

    def _grow(self) -> None:
        """Make the table cover all classes; past its bound, topics of new classes are decided by pair."""
        identities, width = self._table.shape
        wanted, wide = identities, width
        while wanted < min(len(self.identities), _MAX_IDENTITIES + 1):
            wanted *= 2
        while wide < 4 * len(self._topic_classes):
            wide *= 2
        if (wanted, wide) != (identities, width):
            table = np.zeros((wanted, wide), np.int32)
            table[:identities, :width] = self._table
            self._table = table

    def _columns(self) -> None:
        """Lay the verdicts out as arrays by verdict number."""
        self.allowed = np.array([v.allowed for v in self.verdicts])
        self.message_rule: Int64 = np.array([v.message_rule for v in self.verdicts], np.int64)
        self.message_column: Int64 = np.array([v.message_column for v in self.verdicts], np.int64)
        self.byte_rule: Int64 = np.array([v.byte_rule for v in self.verdicts], np.int64)
        self.byte_column: Int64 = np.array([v.byte_column for v in self.verdicts], np.int64)
        self.max_size: Int64 = np.array([v.max_size for v in self.verdicts], np.int64)
