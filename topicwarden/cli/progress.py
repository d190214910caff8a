"""What is being done, said on stderr by commands that may take long."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TextIO

from topicwarden.output.escape import encodable
from topicwarden.output.live import terminal_width_exact
from topicwarden.output.sinks import is_terminal

QUIET_S: Final = 2.0
"""What takes no longer says nothing."""
REDRAW_S: Final = 0.2
REPEAT_S: Final = 10.0
"""How often it is said where there is no terminal."""


class Progress:
    """One line that says what is being done; leaving the context takes it away."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = is_terminal(stream)
        self._next = clock() + QUIET_S
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._write("\r\x1b[K")

    def __call__(self, doing: str) -> None:
        """Say what is being done now; `doing` must be fit to print. Cheap enough to be called very often."""
        now = self._clock()
        if now < self._next:
            return
        if self._terminal:
            self._next = now + REDRAW_S
            self._drawn = True
            room = terminal_width_exact(self._stream) - 1
            self._write(f"\r\x1b[K{encodable(doing, self._stream.encoding)[:room]}\r")
        else:
            self._next = now + REPEAT_S
            self._write(f"{encodable(doing, self._stream.encoding)} ...\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._next = float("inf")  # whoever looked on is gone
