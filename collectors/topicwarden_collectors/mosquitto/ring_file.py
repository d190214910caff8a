"""The ring's file: opened with every check, read without ever trusting its size.

Slots are read with `preadv`, not through a map: a file that is cut short meanwhile then gives a short read, where a map
would kill the process with SIGBUS. It costs one copy, which has to be made anyway before slots may be judged as whole.
Only the first page is mapped, because `head` and `reserved` must each be loaded in one piece.

The fences the format asks for are the kernel's: around its copy it takes and drops a reference to the page, with fully
ordered atomic operations.
"""

from __future__ import annotations

import errno
import grp
import mmap
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from topicwarden.errors import ObservationError, Problem
from topicwarden_collectors.mosquitto import ring_layout as layout

_COUNTS: Final = (
    "topics_announced",
    "clients_announced",
    "topics_evicted",
    "clients_evicted",
    "names_cut",
    "reloads",
)
_PEER_COUNTS: Final = (
    "peers_unknown",
    "attributed",
    "attribution_unknown",
    "attribution_late",
    "attribution_absent",
    "attribution_skipped",
)
"""Told only where the plugin looks at peers."""
_FIELDS: Final = dict(layout.HEADER.fields or {})
_NOT_LOADED: Final = (
    "load the plugin: `topicwarden doctor` with the path of mosquitto.conf prints the lines to add; "
    "the ring appears when the broker has been restarted"
)


class RingFile:
    """One generation of a ring, open for reading."""

    def __init__(self, path: Path) -> None:
        """Raise ObservationError, with what to do, when the path holds no ring that this version can read."""
        self.path = path
        self._file = _open(path)
        try:
            header = self._checked_header()
            self._map = mmap.mmap(self._file, layout.DATA_OFFSET, access=mmap.ACCESS_READ)
        except BaseException:
            os.close(self._file)
            raise
        # 64-bit words, so that each load is one aligned machine load.
        self._words: npt.NDArray[np.uint64] | None = np.frombuffer(self._map, "<u8", layout.HEADER.itemsize // 8)
        self.slot_count = int(header["slot_count"])
        self.generation = int(header["generation"])
        self.started_ns = int(header["started_ns"]) & ((1 << 63) - 1)
        self.pid = int(header["pid"])
        self.broker_version = bytes(header["broker_version"]).decode("ascii", "replace")
        version = int(header["plugin_version"])
        self.plugin_version = f"{version >> 16}.{version >> 8 & 0xFF}.{version & 0xFF}"
        self._buffer = np.empty((0, layout.SLOT_SIZE), np.uint8)

    def _checked_header(self) -> Any:
        """Return the header as it was when everything was found right."""
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode):
            raise self._error("it is not a regular file", "name the ring file the plugin writes (plugin_opt_ring)")
        data = os.pread(self._file, layout.HEADER.itemsize, 0)
        if not data.startswith(layout.MAGIC) and any(data):
            raise self._error("it is not a topicwarden ring", "name the file in the plugin's line `plugin_opt_ring`")
        if len(data) < layout.HEADER.itemsize or not any(data):
            raise self._error(
                f"the ring is half-written: it has no header yet ({found.st_size} bytes)",
                "try again; if it stays so, restart the broker: it makes a new ring",
            )
        header = np.frombuffer(data, layout.HEADER)[0]
        readable = layout.VERSION_OLDEST <= header["version"] <= layout.VERSION
        if not readable or header["slot_size"] != layout.SLOT_SIZE:
            raise self._error(
                f"the ring has format version {header['version']} with {header['slot_size']}-byte slots; this "
                f"topicwarden reads versions {layout.VERSION_OLDEST} to {layout.VERSION} with {layout.SLOT_SIZE}-byte "
                "slots",
                "install the plugin and topicwarden of the same release, then restart the broker",
            )
        count = int(header["slot_count"])
        if (
            not layout.MIN_SLOT_COUNT <= count <= layout.MAX_SLOT_COUNT
            or count & (count - 1)
            or not header["generation"]
        ):
            raise self._error(
                f"the ring's header is damaged: {count} slots, generation {header['generation']}",
                "restart the broker: it makes a new ring",
            )
        self._size = layout.DATA_OFFSET + count * layout.SLOT_SIZE
        if found.st_size < self._size:
            raise self._error(
                f"the ring is half-written or was cut short: {found.st_size} bytes instead of {self._size}",
                "restart the broker: it makes a new ring; nothing else may write to this file",
            )
        return header

    def _error(self, message: str, hint: str) -> ObservationError:
        return ObservationError(Problem(message, str(self.path), hint=hint))

    def _word(self, name: str) -> int:
        """Load the 64-bit word of the live header that holds the field; raises ObservationError when the file has
        shrunk or is closed.

        Between check and load the file could still be cut off within its first page; nothing closes that gap of a
        microsecond for mapped memory, and only the broker's own account could do it.
        """
        if self._words is None:
            raise self._error("the ring is closed", "open it again")
        size = os.fstat(self._file).st_size
        if size < self._size:
            raise self._error(
                f"the ring was cut short while it was read: {size} bytes instead of {self._size}",
                "restart the broker: it makes a new ring; nothing else may write to this file",
            )
        return int(self._words[_FIELDS[name][1] // 8])

    @property
    def head(self) -> int:
        """The stream position after the last whole group."""
        return self._word("head")

    @property
    def oldest(self) -> int:
        """The oldest stream position that the producer is not about to overwrite."""
        return max(0, self._word("reserved") - self.slot_count)

    @property
    def mode(self) -> int:
        """TW_MODE_* flags as they are now."""
        return self._word("mode") >> 32  # the upper half of its word

    @property
    def events(self) -> int:
        """How many events there have been in this generation; the plugin sets it now and then."""
        return self._word("events")

    @property
    def heartbeat_ns(self) -> int:
        """When the broker's loop last called the plugin, nanoseconds since the epoch; 0: it never does."""
        return self._word("heartbeat_ns")

    def counts(self) -> Mapping[str, int]:
        """Return the plugin's own counters."""
        names = (*_COUNTS, *_PEER_COUNTS) if self.mode & layout.MODE_PEER_PORT else _COUNTS
        return {name: self._word(name) for name in names}

    @property
    def overwritten(self) -> bool:
        """Whether another generation was written over this one, in the same file."""
        return self._word("generation") != self.generation

    def replaced(self) -> bool:
        """Whether the path now holds another ring: another file, or another generation in this one."""
        try:
            there = self.path.stat()
        except OSError:
            return False  # gone or out of reach: this one may still be written to
        here = os.fstat(self._file)
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            return True
        return self.overwritten

    def read(self, position: int, limit: int) -> tuple[npt.NDArray[np.uint8], int]:
        """Copy at most `limit` slots from `position` on; return those that are surely whole, and the first's position.

        The array is overwritten by the next call.
        """
        count = max(0, min(self.head - position, limit, self.slot_count))
        if not count:
            return self._buffer[:0], position
        if len(self._buffer) < count:
            self._buffer = np.empty((min(self.slot_count, max(count, 1024)), layout.SLOT_SIZE), np.uint8)
        first = position & (self.slot_count - 1)
        before_wrap = min(count, self.slot_count - first)
        self._copy(first, self._buffer[:before_wrap])
        if before_wrap < count:
            self._copy(0, self._buffer[before_wrap:count])
        torn = min(count, max(0, self.oldest - position))
        return self._buffer[torn:count], position + torn

    def _copy(self, slot: int, target: npt.NDArray[np.uint8]) -> None:
        view = target.reshape(-1).data
        done = 0
        while done < len(view):
            read = os.preadv(self._file, [view[done:]], layout.DATA_OFFSET + slot * layout.SLOT_SIZE + done)
            if not read:
                raise self._error("the ring was cut short while it was read", "restart the broker: it makes a new ring")
            done += read

    def close(self) -> None:
        """Release the file; closing twice is no error."""
        if self._words is not None:
            self._words = None  # or the map would refuse to close
            self._map.close()
            os.close(self._file)


def _open(path: Path) -> int:
    """Open for reading, without waiting (a FIFO would make us)."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError as error:
        raise ObservationError(Problem("there is no ring here", str(path), hint=_NOT_LOADED)) from error
    except PermissionError as error:
        raise ObservationError(
            Problem("no permission to read the ring", str(path), hint=_who_may_read(path))
        ) from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = "name the ring file itself" if error.errno in (errno.ENOTDIR, errno.ELOOP) else _NOT_LOADED
        raise ObservationError(Problem(f"the ring cannot be opened: {reason}", str(path), hint=hint)) from error


def _who_may_read(path: Path) -> str:
    try:
        group = path.stat().st_gid
    except OSError:
        return f"its folder {path.parent} is closed to this account; run topicwarden as a member of the folder's group"
    try:
        name = grp.getgrgid(group).gr_name
    except KeyError:
        name = str(group)
    return f"run topicwarden as a member of the group {name} (the plugin option `plugin_opt_mode` sets the file's mode)"
