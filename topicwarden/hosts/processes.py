"""The processes of all hosts seen, bounded, with numbers that are used again within seconds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from dataclasses import replace
from operator import attrgetter
from typing import Final

from topicwarden.events import Executed, Exited, Process
from topicwarden.hosts.event_time import EventTime

KEEP_NS: Final = 600 * 1_000_000_000
"""How long a process is kept after it ended: events of brokers come later than those of hosts."""
MAX_IMAGES: Final = 32
"""Programs kept of one process number: a loop of `exec` must not push others out."""
MAX_EXITS: Final = 32
MAX_CHARACTERS: Final = 1 << 26
"""Characters of command lines kept in all: one process may have 64 arguments of 1024 characters each."""
MAX_DEPTH: Final = 16
_OVERHEAD: Final = 256
_START: Final = attrgetter("start_ns")


class _Image:
    """A program in a process, from when it was started there."""

    __slots__ = ("filled", "parent", "process", "start_ns", "weight")

    def __init__(self, start_ns: int, process: Process, parent: str | None) -> None:
        self.start_ns = start_ns
        self.process = process
        self.filled = _with_parent(process, parent)
        self.parent = parent
        """What the table knew of the parent when this was told; it may have been forgotten since."""
        self.weight = _OVERHEAD + len(process.executable) + sum(map(len, process.arguments))


class _Host:
    __slots__ = ("name", "slots", "time")

    def __init__(self, name: str) -> None:
        self.name = name
        self.time = EventTime()
        self.slots: dict[int, _Slot] = {}


class _Slot:
    """What is known of one process number of one host."""

    __slots__ = ("exits", "host", "images", "pid")

    def __init__(self, host: _Host, pid: int) -> None:
        self.host = host
        self.pid = pid
        self.images: list[_Image] = []
        """Sorted by start; what came first of two that started at once stands first."""
        self.exits: list[int] = []

    def at(self, time_ns: int) -> int:
        """Return the place of the image that ran then, -1 for none."""
        place = bisect_right(self.images, time_ns, key=_START) - 1
        return -1 if place < 0 or self._ended(place, time_ns) else place

    def ended_before(self, time_ns: int) -> bool:
        """Return whether the image that was started last by then is known to have ended before."""
        place = bisect_right(self.images, time_ns, key=_START) - 1
        return place >= 0 and self._ended(place, time_ns)

    def _ended(self, place: int, time_ns: int) -> bool:
        end = self.exit_of(place)
        return end is not None and end < time_ns

    def exit_of(self, place: int) -> int | None:
        """Return when the process of an image ended: the first exit since it was started, None when none was told."""
        first = bisect_left(self.exits, self.images[place].start_ns)
        return self.exits[first] if first < len(self.exits) else None

    def end_of(self, place: int) -> int | None:
        """Return when an image ended: with its process, or when another took its place."""
        end = self.exit_of(place)
        if place + 1 < len(self.images):
            following = self.images[place + 1].start_ns
            return following if end is None else min(end, following)
        return end

    @property
    def count(self) -> int:
        """How much of the table's room it takes: its images, or one for the exit of a process that was never told."""
        return len(self.images) or (1 if self.exits else 0)

    @property
    def dead(self) -> bool:
        return bool(self.exits) and (not self.images or self.exits[-1] >= self.images[-1].start_ns)


class ProcessTable:
    """Knows which process had a number at a time.

    A number's programs follow each other: an exec replaces the one before, an exit ends it (also one that is told for
    the same moment, as times are often cut to milliseconds), and whoever is executed after that is another process.
    Events may come late or out of order: what counts is their time, so the answer is the same in the end. Two
    programs started in one process at the very same time are taken in the order they were told.

    Of a fork nobody tells; a process that never executed anything is not known here. Where neither the exit of a
    process nor the exec of the next with its number was told, the first is taken for the second.

    What ended more than `keep_ns` ago, by the newest time told of its host, is forgotten. When more than `capacity`
    images, or MAX_CHARACTERS of their command lines, are known, those go first that are dead and were not asked for
    longest, then the living not heard of for longest; parents and whoever is asked for are heard of.
    """

    def __init__(self, capacity: int = 1 << 16, *, keep_ns: int = KEEP_NS) -> None:
        if capacity < 1:
            raise ValueError(f"a table of processes needs room for at least one, not {capacity}")
        self.capacity = capacity
        self.keep_ns = keep_ns
        self.evicted = 0
        """Images forgotten to make room; those that were merely old are not counted."""
        self.reused = 0
        """Process numbers that were seen to be given to another process."""
        self._hosts: dict[str, _Host] = {}
        self._alive: OrderedDict[tuple[str, int], _Slot] = OrderedDict()
        self._dead: OrderedDict[tuple[str, int], _Slot] = OrderedDict()
        self._count = 0
        self._weight = 0

    def __len__(self) -> int:
        """How many images, and exits of processes not known, are kept."""
        return self._count

    def executed(self, event: Executed) -> Process:
        """Keep a process; return it with what the table knows of its parent filled in."""
        process = event.process
        parent = self._parent_of(process, event.time_ns)
        image = _Image(event.time_ns, process, parent)
        slot = self._slot(process.host, process.pid)
        slot.host.time.saw(event.time_ns)
        place = bisect_right(slot.images, event.time_ns, key=_START)
        if place:
            end = slot.exit_of(place - 1)
            self.reused += end is not None and end <= event.time_ns
        elif slot.exits and slot.images:
            self.reused += slot.exits[0] < slot.images[0].start_ns
        self._count -= slot.count
        slot.images.insert(place, image)
        self._count += slot.count
        self._weight += image.weight
        if len(slot.images) > MAX_IMAGES:
            self.evicted += 1
            self._drop_image(slot)
        self._settle(slot)
        return image.filled

    def exited(self, event: Exited) -> None:
        """Note that a process ended; what it was can still be asked for times before."""
        slot = self._slot(event.host, event.pid)
        slot.host.time.saw(event.time_ns)
        if event.time_ns not in slot.exits:
            self._count -= slot.count
            insort(slot.exits, event.time_ns)
            self._count += slot.count
            if len(slot.exits) > MAX_EXITS:
                # Without its exit an image would seem to have run on.
                while slot.images and slot.images[0].start_ns <= slot.exits[0]:
                    self.evicted += 1
                    self._drop_image(slot)
                del slot.exits[: max(0, len(slot.exits) - MAX_EXITS)]
        self._settle(slot)

    def at(self, host: str, pid: int, time_ns: int) -> Process | None:
        """Return which process had this number then, its parent filled in; None: not known."""
        found = self._image(host, pid, time_ns)
        return None if found is None else self._filled(found[0].images[found[1]])

    def started_ns(self, host: str, pid: int, time_ns: int) -> int | None:
        """Return when the program that had this number at a time was started; None: nothing is known of it."""
        found = self._image(host, pid, time_ns)
        return None if found is None else found[0].images[found[1]].start_ns

    def exit_ns(self, host: str, pid: int, time_ns: int) -> int | None:
        """Return when the process that had this number at a time ended; None: it runs, or nothing is known of it."""
        found = self._image(host, pid, time_ns)
        return None if found is None else found[0].exit_of(found[1])

    def ancestors(self, process: Process, time_ns: int, depth: int = 4) -> tuple[str, ...]:
        """Return the programs of a process's parent, grandparent …, as each was when it started the one before.

        It ends at the first that is not known, at most `depth` and MAX_DEPTH of them. `time_ns`: when the process ran.
        """
        found: list[str] = []
        place = self._image(process.host, process.pid, time_ns)
        if place is not None and place[0].images[place[1]].process.parent_pid == process.parent_pid:
            time_ns = place[0].images[place[1]].start_ns
        while len(found) < min(depth, MAX_DEPTH):
            executable = self._parent_of(process, time_ns)
            if not executable:
                break
            found.append(executable)
            if process.parent_pid is None or process.parent_pid == process.pid:
                break
            place = self._image(process.host, process.parent_pid, time_ns)
            if place is None:
                break
            image = place[0].images[place[1]]
            process, time_ns = self._filled(image), image.start_ns
        return tuple(found)

    def running(self, host: str, time_ns: int, user: str) -> list[Process]:
        """Return a user's processes on a host at a time, by their numbers. It looks at all of the host's."""
        known = self._hosts.get(host)
        found: list[Process] = []
        if known is None:
            return found
        for pid in sorted(known.slots):
            slot = known.slots[pid]
            place = slot.at(time_ns)
            if place >= 0 and slot.images[place].process.user == user and not self._old(slot, place):
                found.append(self._filled(slot.images[place]))
        return found

    def _image(self, host: str, pid: int, time_ns: int) -> tuple[_Slot, int] | None:
        known = self._hosts.get(host)
        slot = known.slots.get(pid) if known is not None else None
        if slot is None:
            return None
        place = slot.at(time_ns)
        if place < 0 or self._old(slot, place):
            return None
        (self._dead if slot.dead else self._alive).move_to_end((host, pid))
        return slot, place

    def _old(self, slot: _Slot, place: int) -> bool:
        end = slot.end_of(place)
        return end is not None and end < slot.host.time.before(self.keep_ns)

    def _parent_of(self, process: Process, time_ns: int) -> str | None:
        if process.parent_executable is not None or process.parent_pid is None:
            return process.parent_executable
        found = self._image(process.host, process.parent_pid, time_ns)
        return (found[0].images[found[1]].process.executable or None) if found is not None else None

    def _filled(self, image: _Image) -> Process:
        """A parent that was told later than its child is known only now; one forgotten since was known then."""
        parent = self._parent_of(image.process, image.start_ns)
        if parent is not None and parent != image.parent:
            image.parent, image.filled = parent, _with_parent(image.process, parent)
        elif parent is None and image.parent is not None and self._had_ended(image):
            # Told only now: who was taken for the parent ran no more, and its number was another's by then.
            image.parent, image.filled = None, image.process
        return image.filled

    def _had_ended(self, image: _Image) -> bool:
        """Whether the program that had the parent's number last is known to have ended before."""
        known, pid = self._hosts.get(image.process.host), image.process.parent_pid
        slot = known.slots.get(pid) if known is not None and pid is not None else None
        return slot is not None and slot.ended_before(image.start_ns)

    def _slot(self, host: str, pid: int) -> _Slot:
        known = self._hosts.get(host)
        if known is None:
            known = self._hosts[host] = _Host(host)
        slot = known.slots.get(pid)
        if slot is None:
            slot = known.slots[pid] = _Slot(known, pid)
        return slot

    def _settle(self, slot: _Slot) -> None:
        """Put a slot among the living or the dead, and make room."""
        key = (slot.host.name, slot.pid)
        into, other = (self._dead, self._alive) if slot.dead else (self._alive, self._dead)
        other.pop(key, None)
        into[key] = slot
        into.move_to_end(key)
        while len(slot.images) > 1 and self._old(slot, 0):
            self._drop_image(slot)
        while self._dead:
            oldest = next(iter(self._dead.values()))
            if oldest is slot or oldest.exits[-1] >= oldest.host.time.before(self.keep_ns):
                break
            self._forget(oldest)
        while self._count > self.capacity or self._weight > MAX_CHARACTERS:
            victim = next(iter((self._dead or self._alive).values()))
            if victim is slot and len(self._dead) + len(self._alive) > 1:
                # Whoever is told now is not the one to go, even when all others live.
                victim = next(iter(self._alive.values()))
            if victim is slot and len(slot.images) > 1:
                self.evicted += 1
                self._drop_image(slot)
                continue
            self.evicted += max(len(victim.images), 1)
            self._forget(victim)

    def _drop_image(self, slot: _Slot) -> None:
        """Forget a slot's first image, and its exits before the next."""
        self._count -= slot.count
        self._weight -= slot.images.pop(0).weight
        if slot.images:
            del slot.exits[: bisect_left(slot.exits, slot.images[0].start_ns)]
        self._count += slot.count

    def _forget(self, slot: _Slot) -> None:
        self._count -= slot.count
        self._weight -= sum(image.weight for image in slot.images)
        key = (slot.host.name, slot.pid)
        self._alive.pop(key, None)
        self._dead.pop(key, None)
        del slot.host.slots[slot.pid]
        if not slot.host.slots:
            del self._hosts[slot.host.name]


def _with_parent(process: Process, parent: str | None) -> Process:
    if parent is None or process.parent_executable is not None:
        return process
    return replace(process, parent_executable=parent)
