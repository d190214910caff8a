"""What verifying a store says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from topicwarden.store.notes import Checkpoint, Verifier

MAX_FOUND: Final = 10_000
"""Things that are named; more are counted."""


class Damage(StrEnum):
    """What was done to it, as far as that can be told."""

    CHANGED = "changed"
    MISSING = "missing"
    INSERTED = "inserted"
    REORDERED = "reordered"
    UNREADABLE = "unreadable"
    FORGED = "forged"
    """A checkpoint that the key did not sign, or that does not fit the log."""
    LEFT = "left"
    """Rows that an entry says were deleted are still there."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that is not as the log, or its signature, says."""

    what: Damage
    place: str
    """The file or folder, within the store; hostile text."""
    message: str
    """What is wrong and what was expected; hostile text."""
    segment: int | None = None
    last_segment: int | None = None
    """With `segment`: the last one of several."""
    first_row: int | None = None
    """The first row of the file that is concerned, from 0."""
    last_row: int | None = None
    entry: int | None = None
    """The index of the log's entry that says otherwise."""


@dataclass(slots=True)
class Verification:
    """What was verified, and what was found."""

    store: str
    """Its identity."""
    verifier: Verifier
    """The key that its checkpoints were tried with."""
    own_key: bool
    """Whether that came from the store itself: then all of it may be another's, and only fits together."""
    entries: int = 0
    segments: int = 0
    sealed: int | None = None
    """Number of the newest segment that was verified; newer rows are not looked at."""
    sealed_ns: int | None = None
    rows: int = 0
    """Rows whose digests were computed and fit."""
    files: int = 0
    bytes: int = 0
    checkpoints: int = 0
    """Checkpoints whose signature holds and that fit the log."""
    newest: Checkpoint | None = None
    outside: int = 0
    """Checkpoints from elsewhere that the log continues."""
    timestamps: int = 0
    """Timestamp tokens by an authority that is trusted."""
    untrusted_timestamps: int = 0
    """Timestamp tokens over the right checkpoint; who made them was not verified."""
    retired: int = 0
    """Parts that an entry says were deleted, and are."""
    gaps: int = 0
    lost: int = 0
    """Rows that the log itself says are missing."""
    found: list[Found] = field(default_factory=list)
    unnamed: int = 0
    """What was found beyond `MAX_FOUND`."""
    remarks: list[str] = field(default_factory=list)
    """What is no damage, but good to know; hostile text."""

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return not self.found

    @property
    def unsigned(self) -> int:
        """The newest entries that no checkpoint signs yet."""
        return self.entries - (self.newest.size if self.newest is not None else 0)

    def add(self, found: Iterable[Found]) -> None:
        """Name what was found, as far as there is room."""
        for one in found:
            if len(self.found) < MAX_FOUND:
                self.found.append(one)
            else:
                self.unnamed += 1
