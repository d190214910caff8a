"""The event batch: what every collector produces and everything else consumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from topicwarden.events.tables import Client, Resource, Tables


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


def finish_batch(tables: Tables, columns: Mapping[str, npt.ArrayLike], notices: Sequence[Notice] = ()) -> EventBatch:
    """Build a batch from columns (keys of `COLUMNS`) and finish it in the tables. Every producer ends here."""
    arrays: dict[str, Any] = {name: np.asarray(columns[name], dtype) for name, dtype in COLUMNS.items()}
    batch = EventBatch(
        tables=tables,
        new_clients=tables.clients.take_redefined(),
        new_resources=tables.resources.take_redefined(),
        notices=notices,
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

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def empty(self) -> bool:
        """Whether there is neither an event nor a notice to take."""
        return not self._rows and not self._notices

    def notice(self, notice: Notice) -> None:
        """Append something to say about the observing itself."""
        self._notices.append(notice)

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
        notices, self._rows, self._notices = self._notices, [], []
        return finish_batch(self.tables, dict(zip(COLUMNS, columns, strict=True)), notices)
