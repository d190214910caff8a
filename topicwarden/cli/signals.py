"""Ctrl-C and SIGTERM as a request to end well: finish what is in hand, show the summary, leave."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from select import select
from threading import Thread
from types import FrameType, TracebackType
from typing import Final, Self

_OURS: Final = frozenset({signal.SIGINT, signal.SIGTERM})
_OVER: Final = 0
"""No signal has this number."""
_AGAIN_SECONDS: Final = 0.05


class Interrupt:
    """While entered, the first SIGINT or SIGTERM only sets `happened`; a second one ends the process as usual."""

    def __init__(self) -> None:
        self.happened = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _asked(self, _number: int, _frame: FrameType | None) -> None:
        self.happened = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextmanager
def told_at_once(interrupt: Callable[[], None]) -> Iterator[None]:
    """While entered, call `interrupt`, from another thread, as soon as SIGINT or SIGTERM comes, and from then on often.

    A handler of Python's runs only when the main thread is back from what it called: a statement of DuckDB may take
    minutes until then, and one that has not quite begun may be missed. Handlers run as ever, afterwards. To be entered
    by the main thread, and only once at a time.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def wait() -> None:
        asked = False
        while True:
            if select([reading], [], [], _AGAIN_SECONDS if asked else None)[0]:
                told = os.read(reading, 1)[0]
                if told == _OVER:
                    return
                asked = asked or told in _OURS
            if asked:
                interrupt()

    thread = Thread(target=wait, name="signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.set_blocking(writing, True)
        os.write(writing, bytes([_OVER]))
        thread.join()
        os.close(reading)
        os.close(writing)


@contextmanager
def ended_by_signals() -> Iterator[list[Callable[[], None]]]:
    """While entered, SIGINT and SIGTERM raise KeyboardInterrupt, and at once call what is put into the list given."""
    interrupts: list[Callable[[], None]] = []

    def interrupt() -> None:
        for one in tuple(interrupts):
            one()

    def asked(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, asked) for number in _OURS}
    try:
        with told_at_once(interrupt):
            yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
