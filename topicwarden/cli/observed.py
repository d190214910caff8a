"""Recordings and logs that commands compare with: found, read, and added up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from topicwarden.cli.check import Opened
from topicwarden.cli.progress import Progress
from topicwarden.cli.recorded import is_store
from topicwarden.cli.signals import Interrupt
from topicwarden.errors import ObservationError, Problem
from topicwarden.events.observed import Observed
from topicwarden.output import wording


def files_in(paths: Iterable[str]) -> list[str]:
    """Return the files and stores named, and for other folders all files in them, by name.

    Raises ObservationError for a folder that holds none.
    """
    found: list[str] = []
    for path in paths:
        if "://" in path or ":" in path.split("/", 1)[0]:
            found.append(path)
        elif Path(path).is_dir() and not is_store(path):
            inside = sorted(str(one) for one in Path(path).iterdir() if one.is_file() and not one.name.startswith("."))
            if not inside:
                raise ObservationError(Problem("the folder holds no file", path, hint="name recordings or logs"))
            found += inside
        else:
            found.append(path)
    return found


def gather(opened: Sequence[Opened], progress: Progress, interrupt: Interrupt) -> Observed:
    """Read files to their end, or until interrupted, and add up what they hold."""
    observed = Observed()
    events = 0
    for one in opened:
        if one.add_up is not None:
            observed.merge(one.add_up(interrupt))
            if interrupt.happened:
                return observed
            continue
        for batch in one.batches:
            observed.add(batch)
            events += len(batch)
            progress(f"reading what was observed: {wording.counted(events, 'event')}")
            if interrupt.happened:
                return observed
    return observed
