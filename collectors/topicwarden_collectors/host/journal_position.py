"""Which entry of the journal was read last, kept over restarts and SIGKILL.

As for a log file: what is handed out is claimed before, and done when its consumer asks for the next.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from pathlib import Path
from typing import Final

from topicwarden.errors import ConfigurationError, ObservationError, Problem

_SIZE: Final = 1024


class JournalPosition:
    """The file that keeps it."""

    def __init__(self, folder: Path) -> None:
        """Open or create it; raises ConfigurationError when the folder cannot be used, ObservationError when another
        process has it in use.
        """
        self.path = folder / "journal-sysmon.position"
        self.cursor: str | None = None
        """The entry that was read last when it was opened."""
        self.unconfirmed = 0
        """Events claimed that the consumer may never have judged."""
        self.damaged = False
        """Whether something was kept that could not be read."""
        self._claimed = self._done = 0
        self._kept: str | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._file: int | None = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise ConfigurationError(
                Problem(
                    f"the reading position cannot be kept: {os.strerror(error.errno or 0)}",
                    str(self.path),
                    hint="give --state-dir a folder this account may write to",
                )
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ObservationError(
                Problem(
                    "another topicwarden is reading the journal with the same state folder",
                    str(self.path),
                    hint="stop it, or give this one a --state-dir of its own",
                )
            ) from error
        self._load(os.pread(self._file, _SIZE + 1, 0))

    def _load(self, data: bytes) -> None:
        if not data:
            return
        digest, _, text = data.rstrip(b"\0").partition(b" ")
        if digest != b"%08x" % zlib.crc32(text):
            self.damaged = True
            return
        kept = json.loads(text)
        self.cursor = self._kept = kept["cursor"]
        self.unconfirmed = max(0, kept["claimed"] - kept["done"])

    def claim(self, cursor: str, events: int) -> None:
        """Record, before so many events are handed out, that every entry up to this one is read."""
        if cursor == self._kept and not events:
            return
        self._kept = cursor
        self._claimed += events
        self._write()

    def done(self) -> None:
        """Record that the consumer is done with what was claimed."""
        if self._done != self._claimed:
            self._done = self._claimed
            self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        text = json.dumps({"cursor": self._kept, "claimed": self._claimed, "done": self._done}).encode()
        try:
            os.pwrite(self._file, b"%08x %s" % (zlib.crc32(text), text.ljust(_SIZE - 9, b"\0")), 0)
        except OSError as error:
            raise ObservationError(
                Problem(
                    f"the reading position cannot be kept any more: {os.strerror(error.errno or 0)}",
                    str(self.path),
                    hint="without it events could be given twice; make room, or watch without --state-dir",
                )
            ) from error

    def close(self) -> None:
        """Release the file; closing twice is no error."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
