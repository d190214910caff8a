"""The rights one change of a grant adds and takes away, put in order for a person to read."""

from __future__ import annotations

from typing import Final

from topicwarden.events import Action, Certainty, Right
from topicwarden_collectors.rabbitmq.permissions import DEFAULT_EXCHANGE

MAX_RIGHTS: Final = 256
"""Rights listed in one change."""
ORDER: Final = (Action.SUBSCRIBE, Action.PUBLISH, Action.CONFIGURE)
_TELLING: Final = ("amq.rabbitmq.", "amq.topicwarden.", DEFAULT_EXCHANGE)
"""Names that are listed before all others: who has rights on these sees or forges everything."""


class RightsChanged:
    """Gathers the rights gained and lost by one change; at most MAX_RIGHTS of them are listed."""

    def __init__(self, sure: bool | None = True) -> None:
        self.sure = sure
        """False: not all of it is known; None: nothing is."""
        self._gained: list[Right] = []
        self._lost: list[Right] = []
        self._unlisted = 0

    def add(self, right: Right, was: bool | None, now: bool | None, *, listed: bool = True) -> None:
        """Add a right that was and is granted or not; None: not known. Not `listed`: it is counted only."""
        if was is None or now is None:
            self.sure = self.sure and False
        if was == now or now is None:
            return
        if not listed:
            self._unlisted += 1
        else:
            # What was before may be unknown: whoever judges rights should see what is granted now and what is not.
            (self._gained if now else self._lost).append(right)

    @property
    def certainty(self) -> Certainty:
        """How well the lists are known."""
        return Certainty.UNKNOWN if self.sure is None else Certainty.EXACT if self.sure else Certainty.INFERRED

    def lists(self) -> tuple[tuple[Right, ...], tuple[Right, ...], int]:
        """Return the rights gained and lost, most telling first, and how many more there are."""
        gained, lost = sorted(self._gained, key=_telling), sorted(self._lost, key=_telling)
        shown = gained[:MAX_RIGHTS]
        gone = lost[: MAX_RIGHTS - len(shown)]
        return tuple(shown), tuple(gone), self._unlisted + len(gained) + len(lost) - len(shown) - len(gone)


def _telling(right: Right) -> tuple[int, int, str, int]:
    name = right.resource.within or right.resource.name
    rank = next((number for number, start in enumerate(_TELLING) if name.startswith(start)), len(_TELLING))
    return rank, ORDER.index(right.action), name, right.resource.kind
