"""Bounded tables that give each client and each resource a small number, so that the hot path never sees a string.

A table holds at most `capacity` entries. When it is full, the entries not used for longest are forgotten and their
numbers are given to newcomers; whoever keeps arrays indexed by these numbers (the engine) learns of that through the
batch's `new_clients` and `new_resources`. So memory stays bounded however many names an attacker invents, and `evicted`
says how many were forgotten.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt


class Identity(StrEnum):
    """How far the broker vouches for a client's user name."""

    VERIFIED = "verified"
    """The broker checked a password, certificate, key or token."""
    CLAIMED = "claimed"
    """The client wrote it and the broker had nothing to check it against, or refused it."""
    ANONYMOUS = "anonymous"
    """No user name; the client id is what the client wrote."""
    UNKNOWN = "unknown"
    """The source does not say."""


@dataclass(frozen=True, slots=True)
class Client:
    """Who acted, as the broker knows it: never taken from a message's content."""

    broker: str
    """The name the operator gave this broker."""
    protocol: str
    """`mqtt`, `amqp`, `stomp`, `xmpp`."""
    client_id: str
    """MQTT client id, or the protocol's like; '' when it has none."""
    user: str | None = None
    """User name or JID; None when anonymous or not known."""
    address: str | None = None
    """Peer IP address without port, or the path of a unix socket's listener."""
    port: int | None = None
    """Peer TCP port."""
    tls_subject: str | None = None
    vhost: str | None = None
    identity: Identity = Identity.UNKNOWN

    @property
    def principal(self) -> tuple[str, str | None, str | None, str]:
        """What rates and findings are counted by: broker, virtual host, user, client id; not the address or port."""
        return (self.broker, self.vhost, self.user, self.client_id)


class ResourceKind(IntEnum):
    """What a name names; each has its own syntax in `topicwarden.patterns`."""

    # Enum's own hash is a Python function, and resources are keys of every table.
    __hash__ = int.__hash__

    NONE = 0
    """The event has no resource (connect, disconnect)."""
    TOPIC = 1
    """An MQTT topic name, or a topic filter in subscribe and unsubscribe events."""
    KEY = 2
    """An AMQP routing key, taken literally, in the exchange `within`; the default exchange is `amq.default`."""
    BINDING = 3
    """A binding key with wildcards (`*`, `#`) of the exchange `within`: what flows from it into a queue. A binding to
    an exchange that does not look at keys (fanout, headers) is `#`, one to a direct exchange is a KEY."""
    QUEUE = 4
    """A queue: to consume from in subscribe events, to declare, purge or delete in configure events."""
    EXCHANGE = 5
    """An exchange as a whole: to declare or delete, or, in a `Right`, to publish to or bind to with any key."""
    GRANT = 6
    """What a grant change is about, in words: the name is for people only."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What was acted on, in the broker's own spelling."""

    kind: ResourceKind
    name: str
    length: int = -1
    """The name's full length in bytes of UTF-8; larger than the name's own when the source cut it (then judge nothing
    that depends on the missing part). -1 stands for "not cut" and is replaced when built."""
    within: str = ""
    """Where the name counts: the exchange of a routing or binding key; '' where names stand alone."""

    def __post_init__(self) -> None:
        if self.length < 0:
            object.__setattr__(self, "length", len(self.name.encode("utf-8", "surrogatepass")))

    @property
    def truncated(self) -> bool:
        """Whether the source gave only the beginning of the name."""
        return self.length > len(self.name.encode("utf-8", "surrogatepass"))

    @property
    def made_up(self) -> bool:
        """Whether the broker invented the name: queues it named for a client, and where replies are published to.

        AMQP 0-9-1 reserves names that begin with `amq.` for the server.
        """
        return self.kind is not ResourceKind.TOPIC and self.name.startswith(("amq.gen-", "amq.rabbitmq.reply-to"))

    @property
    def label(self) -> str:
        """How people are shown it; hostile text, so escape before printing."""
        if self.kind is ResourceKind.TOPIC:
            return self.name
        match self.kind:
            case ResourceKind.KEY:
                return f"exchange {self.within}, key {self.name or '(empty)'}"
            case ResourceKind.BINDING:
                return f"exchange {self.within}, binding key {self.name or '(empty)'}"
            case ResourceKind.QUEUE:
                return f"queue {self.name}"
            case ResourceKind.EXCHANGE:
                return f"exchange {self.name}"
            case _:
                return self.name


NO_RESOURCE = Resource(ResourceKind.NONE, "")

T = TypeVar("T", bound=Hashable)


class Table(Generic[T]):
    """A bounded two-way map between entries and numbers below `capacity`.

    `entries[i]` is entry i (None when never used or forgotten).
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 16:
            raise ValueError(f"a table needs room for at least 16 entries, not {capacity}")
        self.capacity = capacity
        self.entries: list[T | None] = []
        self.evicted = 0
        """Entries forgotten so far to make room."""
        self._number: dict[T, int] = {}
        self._free: list[int] = []
        self._used = np.zeros(1024, np.int64)
        self._clock = 1
        self._redefined: list[int] = []

    def __len__(self) -> int:
        return len(self._number)

    def intern(self, entry: T) -> int:
        """Return the entry's number, giving it one if it has none; may forget entries unused since the last `tick`."""
        number = self._number.get(entry)
        if number is not None:
            self._used[number] = self._clock
            return number
        if self._free:
            number = self._free.pop()
            self.entries[number] = entry
        elif len(self.entries) < self.capacity:
            number = len(self.entries)
            self.entries.append(entry)
            if number >= len(self._used):
                self._used = np.concatenate([self._used, np.zeros(len(self._used), np.int64)])
        else:
            self._evict()
            number = self._free.pop()
            self.entries[number] = entry
        self._number[entry] = number
        self._used[number] = self._clock
        self._redefined.append(number)
        return number

    def touch(self, numbers: npt.NDArray[np.uint32]) -> None:
        """Mark these numbers as used now (one call per batch, for numbers that were not interned anew)."""
        self._used[numbers] = self._clock

    def tick(self) -> None:
        """A batch is finished: entries it used may be forgotten from now on, oldest first."""
        self._clock += 1

    @property
    def must_flush(self) -> bool:
        """Whether the batch in progress has used so much of the table that it should be finished before going on."""
        return len(self._redefined) >= self.capacity // 2

    def take_redefined(self) -> list[int]:
        """Return the numbers that were given to a new entry since the last call; for whoever builds the batch."""
        taken, self._redefined = self._redefined, []
        return taken

    def _evict(self) -> None:
        """Forget the least recently used eighth of the table, but nothing the batch in progress has used."""
        used = self._used[: self.capacity]
        count = max(1, self.capacity // 8)
        oldest = np.argpartition(used, count - 1)[:count]
        victims = oldest[used[oldest] < self._clock].tolist()
        if not victims:
            raise RuntimeError(
                f"a batch uses more than {self.capacity} different entries; finish it when must_flush says so"
            )
        for number in victims:
            entry = self.entries[number]
            self.entries[number] = None
            if entry is not None:
                del self._number[entry]
        self._free = victims
        self.evicted += len(victims)


@dataclass(slots=True)
class Tables:
    """The tables that the numbers in a run of batches refer to. One per collector; never shared between threads."""

    clients: Table[Client] = field(default_factory=lambda: Table[Client](1 << 17))
    resources: Table[Resource] = field(default_factory=lambda: Table[Resource](1 << 18))

    def __post_init__(self) -> None:
        self.resources.intern(NO_RESOURCE)

    def tick(self) -> None:
        """Finish a batch in both tables."""
        self.clients.tick()
        self.resources.tick()

    @property
    def must_flush(self) -> bool:
        """Whether the batch in progress should be finished before more names are interned."""
        return self.clients.must_flush or self.resources.must_flush
