"""Runs a command in a session of its own, and leaves nothing of it running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

POLL_SECONDS: Final = 0.02
GRACE_SECONDS: Final = 2.0
"""Between asking processes to end and ending them."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int | None
    """None: it was ended by us."""
    timed_out: bool


def run_session(arguments: Sequence[str], folder: Path, output: Path, seconds: float, stop: Event | None) -> Ended:
    """Run a command in `folder` to its end, or until time is up or `stop` is set; then end whatever it left behind.

    What it writes is added to the file `output`. Raises OSError when it cannot be started.
    """
    with output.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - whoever calls says what is run
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    deadline = time.monotonic() + seconds
    timed_out = stopped = False
    try:
        while not _has_ended(process.pid):
            timed_out = time.monotonic() > deadline
            stopped = stop is not None and stop.is_set()
            if timed_out or stopped:
                break
            time.sleep(POLL_SECONDS)
    finally:
        _end_all(process)
    return Ended(None if timed_out or stopped else process.returncode, timed_out)


def _has_ended(pid: int) -> bool:
    """Whether a child has ended. It is not reaped: until it is, its number cannot be another session's."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """End a command's whole session; while the command itself is there, it may tidy up first."""
    if not _has_ended(process.pid):
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while not _has_ended(process.pid) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
