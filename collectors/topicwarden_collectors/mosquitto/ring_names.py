"""What the ring's identifiers mean: a window over the announcements that can still be referred to."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from topicwarden.events import Table

T = TypeVar("T", bound=Hashable)

_UNSET: Final = 0xFFFFFFFF


class NameWindow(Generic[T]):
    """Maps wire identifiers to numbers of one table, direct-mapped by the identifier's low bits.

    Identifiers only grow, and an event refers to nothing announced more than half a ring before it, so what is
    overwritten here was out of use. A name enters the table when an event first uses it, and again when the table has
    forgotten it meanwhile: names nobody acts under cost no room there.

    The table must have no other user while this window is in use: the window learns what the table forgets only from
    its own calls of `intern`.
    """

    def __init__(self, table: Table[T], size: int) -> None:
        """`size`: a power of two, at least as many as can be in use at once."""
        self._table = table
        self._mask = np.uint32(size - 1)
        self._ids = np.zeros(size, np.uint32)
        self._numbers = np.full(size, _UNSET, np.uint32)
        self._entries: dict[int, T] = {}

    def announce(self, ids: npt.NDArray[np.uint32], entries: Sequence[T]) -> None:
        """Give identifiers (none of them 0) their meaning; of equal ones the last counts."""
        places = ids & self._mask
        self._ids[places] = ids
        self._numbers[places] = _UNSET
        self._entries.update(zip(places.tolist(), entries, strict=True))

    def knows(self, ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """Tell which identifiers have a meaning here; 0 ("none") has."""
        known: npt.NDArray[np.bool_] = self._ids[ids & self._mask] == ids
        known |= ids == 0
        return known

    def numbers(self, ids: npt.NDArray[np.uint32], none: T) -> npt.NDArray[np.uint32]:
        """Return the table's numbers for identifiers that `knows` is true of; `none` is what 0 stands for.

        All are marked as used. The caller sees to it that one batch asks for no more identifiers than half the
        table's capacity, so that there is always something else to forget.
        """
        places = ids & self._mask
        numbers: npt.NDArray[np.uint32] = self._numbers[places]
        # Before anything is interned, or that could forget what this very batch is about to use.
        unset = numbers == _UNSET
        nameless = ids == 0
        some_unset, some_nameless = bool(unset.any()), bool(nameless.any())
        self._table.touch(numbers[~unset] if some_unset else numbers)
        if some_unset:
            for place in np.unique(places[unset & ~nameless]).tolist():
                self._numbers[place] = self._intern(self._entries[place])
            numbers = self._numbers[places]
        if some_nameless:
            numbers[nameless] = self._intern(none)
        return numbers

    def _intern(self, entry: T) -> int:
        evicted = self._table.evicted
        number = self._table.intern(entry)
        if self._table.evicted != evicted:
            # The newcomer already has one of the numbers that were freed; the others still stand empty.
            stale = np.zeros(self._table.capacity, np.bool_)
            stale[[i for i, known in enumerate(self._table.entries) if known is None]] = True
            stale[number] = True
            placed = np.flatnonzero(self._numbers != _UNSET)
            self._numbers[placed[stale[self._numbers[placed]]]] = _UNSET
        return number
