"""The event batch: what every collector produces and everything else consumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from topicwarden.events.tables import Client, Resource, ResourceKind, Tables

if TYPE_CHECKING:
    from topicwarden.events.host_events import HostEvent


class Action(IntEnum):
    """What was done."""

    AUTHENTICATE = 1
    CONNECT = 2
    DISCONNECT = 3
    PUBLISH = 4
    SUBSCRIBE = 5
    UNSUBSCRIBE = 6
    DELIVER = 7
    CONFIGURE = 8
    GRANT_CHANGE = 9
    EXECUTE = 10
    DIAL = 11


DOING: Final[Mapping[Action, str]] = {
    Action.PUBLISH: "publish to",
    Action.SUBSCRIBE: "receive from",
    Action.CONFIGURE: "configure",
}
"""What a right lets its holder do, before the name of what it is about."""


class Outcome(IntEnum):
    """What the broker decided."""

    UNKNOWN = 0
    ALLOWED = 1
    DENIED = 2


class Certainty(IntEnum):
    """How the outcome is known."""

    UNKNOWN = 0
    INFERRED = 1
    EXACT = 2


class Shape(IntEnum):
    """What a payload looks like, judged where it passes; the payload itself is never kept."""

    UNKNOWN = 0
    EMPTY = 1
    TEXT = 2
    """Printable UTF-8 or ASCII that is none of the below."""
    JSON = 3
    BASE64 = 4
    HEX = 5
    BINARY = 6


SIZE_UNKNOWN: Final = -1
QOS_UNKNOWN: Final = 255
RETAIN_UNKNOWN: Final = 255
ENTROPY_UNKNOWN: Final = float("nan")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the source has to say about its own observing: a gap, a forged line, an overflow. Becomes a finding."""

    code: str
    """The finding's code in the catalogue, such as `TW901`."""
    time_ns: int
    broker: str
    scope: str = ""
    """Tells apart causes that share a code; equal notices are counted, not repeated."""
    count: int = 1
    client: Client | None = None
    witness: str | None = None
    """An example a person can look at; printed escaped."""
    evidence: Mapping[str, str | int | float] = field(default_factory=dict)
    of_host: bool = False
    """Whether the source tells of a host; `broker` is then the host's name."""


@dataclass(frozen=True, slots=True)
class Right:
    """One thing a grant lets its holder do."""

    action: Action
    """PUBLISH, SUBSCRIBE or CONFIGURE."""
    resource: Resource
    """Something that exists at the broker; an EXCHANGE stands for some key in it."""

    @property
    def words(self) -> str:
        """The right in words: `publish to plant/x`; hostile text, so escape before printing."""
        return f"{DOING[self.action]} {self.resource.label}"


@dataclass(frozen=True, slots=True)
class GrantChange:
    """A change of what the broker grants, while it was observed.

    What the change means is worked out where the broker's own rules are known, on the names the broker has: `gained`
    and `lost` list the rights that differ before and after. So a permission that only matters for names nobody has yet
    changes no right.
    """

    time_ns: int
    grantee: Client
    """Whose grants changed: broker, user and virtual host, as far as they are concerned; no address or client id."""
    what: str
    """Kind of change: `permission`, `topic permission`, `user`, `tags`, `password`, `virtual host`."""
    by: Client | None = None
    """Who changed it; None when the broker does not say."""
    before: str | None = None
    """The grant before, in the broker's own words; '' = there was none, None = not known."""
    after: str | None = None
    """The grant after; '' = there is none now."""
    gained: Sequence[Right] = ()
    lost: Sequence[Right] = ()
    unlisted: int = 0
    """Rights gained or lost that did not fit in the lists."""
    powers: Sequence[str] = ()
    """Powers over the broker itself that the grantee got: `administrator`, `impersonator` …"""
    certainty: Certainty = Certainty.EXACT
    """How well `gained` and `lost` are known."""


@dataclass(slots=True)
class EventBatch:
    """Events as columns of equal length; row i of every column is event i, in the order the source gave them.

    Numbers in `client` and `resource` refer to `tables` as it stands when the batch is handed over; the consumer must
    be done with them before the producer builds the next batch.
    """

    tables: Tables
    time_ns: npt.NDArray[np.int64]
    """Nanoseconds since the epoch, UTC, by the broker's clock; need not be sorted (clocks are set back)."""
    action: npt.NDArray[np.uint8]
    outcome: npt.NDArray[np.uint8]
    certainty: npt.NDArray[np.uint8]
    client: npt.NDArray[np.uint32]
    resource: npt.NDArray[np.uint32]
    size: npt.NDArray[np.int64]
    """Payload bytes; -1 = not known."""
    entropy: npt.NDArray[np.float32]
    """Bits per byte of the payload's first 1024 bytes, 0 to 8; NaN = not measured."""
    shape: npt.NDArray[np.uint8]
    qos: npt.NDArray[np.uint8]
    """0 to 2; 255 = not known."""
    retain: npt.NDArray[np.uint8]
    """0 or 1; 255 = not known."""
    count: npt.NDArray[np.uint32]
    """How many equal events the row stands for; 1 unless the source sums up."""
    new_clients: Sequence[int]
    """Client numbers that got a new meaning since the batch before: forget what you knew of them."""
    new_resources: Sequence[int]
    notices: Sequence[Notice] = ()
    changes: Sequence[GrantChange] = ()
    """Changes of grants, in order; each also has a GRANT_CHANGE event among the rows."""
    hosts: Sequence[HostEvent] = ()
    """What hosts were seen to do, in the order the source gave it. Not rows: no broker decided anything about them."""

    def __len__(self) -> int:
        return len(self.time_ns)


COLUMNS: Final[Mapping[str, type[np.generic]]] = {
    "time_ns": np.int64,
    "action": np.uint8,
    "outcome": np.uint8,
    "certainty": np.uint8,
    "client": np.uint32,
    "resource": np.uint32,
    "size": np.int64,
    "entropy": np.float32,
    "shape": np.uint8,
    "qos": np.uint8,
    "retain": np.uint8,
    "count": np.uint32,
}
"""The columns of a batch, in order, with their types."""


def finish_batch(
    tables: Tables,
    columns: Mapping[str, npt.ArrayLike],
    notices: Sequence[Notice] = (),
    changes: Sequence[GrantChange] = (),
    hosts: Sequence[HostEvent] = (),
) -> EventBatch:
    """Build a batch from columns (keys of `COLUMNS`) and finish it in the tables. Every producer ends here."""
    arrays: dict[str, Any] = {name: np.asarray(columns[name], dtype) for name, dtype in COLUMNS.items()}
    batch = EventBatch(
        tables=tables,
        new_clients=tables.clients.take_redefined(),
        new_resources=tables.resources.take_redefined(),
        notices=notices,
        changes=changes,
        hosts=hosts,
        **arrays,
    )
    tables.tick()
    return batch


class EventBuilder:
    """Builds batches row by row, for sources that are parsed one line or message at a time."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._rows: list[tuple[int, int, int, int, int, int, int, float, int, int, int, int]] = []
        self._notices: list[Notice] = []
        self._changes: list[GrantChange] = []
        self._hosts: list[HostEvent] = []

    def __len__(self) -> int:
        return len(self._rows) + len(self._hosts)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take."""
        return not (self._rows or self._hosts or self._notices or self._changes)

    def notice(self, notice: Notice) -> None:
        """Append something to say about the observing itself."""
        self._notices.append(notice)

    def host(self, event: HostEvent) -> None:
        """Append something a host was seen to do."""
        self._hosts.append(event)

    def change(self, change: GrantChange, *, with_event: bool = True) -> None:
        """Append a change of grants, with its GRANT_CHANGE event: by whoever made it, else by the grantee."""
        self._changes.append(change)
        if not with_event:
            return
        who = change.grantee
        about = f"{change.what} of {who.user or 'everybody'}" + (f" in {who.vhost}" if who.vhost else "")
        self.add(
            change.time_ns,
            Action.GRANT_CHANGE,
            change.by or who,
            Resource(ResourceKind.GRANT, about),
            Outcome.ALLOWED,
            Certainty.EXACT,
        )

    def add(
        self,
        time_ns: int,
        action: Action,
        client: Client,
        resource: Resource,
        outcome: Outcome = Outcome.UNKNOWN,
        certainty: Certainty = Certainty.UNKNOWN,
        *,
        size: int = SIZE_UNKNOWN,
        entropy: float = ENTROPY_UNKNOWN,
        shape: Shape = Shape.UNKNOWN,
        qos: int = QOS_UNKNOWN,
        retain: int = RETAIN_UNKNOWN,
        count: int = 1,
    ) -> None:
        """Append one event. The caller takes the batch when `tables.must_flush` says so."""
        self._rows.append(
            (
                time_ns,
                action,
                outcome,
                certainty,
                self.tables.clients.intern(client),
                self.tables.resources.intern(resource),
                size,
                entropy,
                shape,
                qos,
                retain,
                count,
            )
        )

    def take(self) -> EventBatch:
        """Return what was added since the last call and finish that batch in the tables."""
        columns = list(zip(*self._rows, strict=True)) if self._rows else [()] * len(COLUMNS)
        notices, changes, hosts = self._notices, self._changes, self._hosts
        self._rows, self._notices, self._changes, self._hosts = [], [], [], []
        return finish_batch(self.tables, dict(zip(COLUMNS, columns, strict=True)), notices, changes, hosts)
