"""The processes of all hosts seen, bounded, with numbers that are used again within seconds."""

from __future__ import annotations

from topicwarden.events import Executed, Exited, Process


class ProcessTable:
    """Knows which process had a number at a time."""

    def __init__(self, capacity: int = 1 << 16) -> None:
        raise NotImplementedError

    def executed(self, event: Executed) -> Process:
        """Keep a process; return it with what the table knows of its parent filled in."""
        raise NotImplementedError

    def exited(self, event: Exited) -> None:
        """Note that a process ended; what it was can still be asked for times before."""
        raise NotImplementedError

    def at(self, host: str, pid: int, time_ns: int) -> Process | None:
        """Return which process had this number then; None: not known."""
        raise NotImplementedError
