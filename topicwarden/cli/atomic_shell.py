"""Runs atomic tests: what they need, their commands, their clean-up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from topicwarden.cli.atomics import Atomic, CommandExecutor, prerequisite_argument, shell_argument
from topicwarden.cli.sessions import Ended, run_session
from topicwarden.errors import ObservationError, Problem

TIMEOUT_SECONDS: Final = 30.0
"""How long a test may take; its clean-up again."""
PREREQUISITE_SECONDS: Final = 15.0
_SHELLS: Final = ("sh", "bash")


@dataclass(frozen=True, slots=True)
class Played:
    """How a test went."""

    status: int | None
    """Exit status of the test's command; None: it was ended by us."""
    timed_out: bool
    cleanup_status: int | None
    """Exit status of the clean-up; 0 where there is none."""

    @property
    def failure(self) -> str | None:
        """What went wrong, in words; None: nothing."""
        if self.timed_out:
            return "it did not end in time"
        if self.status is None:
            return "it was ended early"
        if self.status != 0:
            return f"its command ended with status {self.status}"
        return None if self.cleanup_status == 0 else "its clean-up failed"


class AtomicShell:
    """Runs commands in `folder`, where what they write is kept; setting `stop` ends the test that runs."""

    def __init__(self, folder: Path, stop: Event, seconds: float = TIMEOUT_SECONDS) -> None:
        self.folder = folder
        self._stop = stop
        self._seconds = seconds

    def unmet(self, atomic: Atomic, values: Mapping[str, str]) -> list[str]:
        """Return what a test needs and is not there, in its own words."""
        wanting = []
        if atomic.executor.elevation_required and os.geteuid() != 0:
            wanting.append("it must be run as root")
        log = self.folder / "prerequisites.log"
        for dependency in atomic.dependencies:
            command = prerequisite_argument(atomic.filled(dependency.prereq_command, values, self.folder))
            ended = self._run(atomic.dependency_executor, command, log, PREREQUISITE_SECONDS, self._stop)
            if ended.status != 0:
                wanting.append(atomic.filled(dependency.description, values, self.folder).strip())
        return wanting

    def play(self, atomic: Atomic, values: Mapping[str, str], output: Path) -> Played:
        """Run a test, and its clean-up whatever happened; what they write goes to `output`."""
        executor = atomic.executor
        if not isinstance(executor, CommandExecutor):
            raise ObservationError(Problem(f"{atomic.name!r} is for a person to play"))
        command = shell_argument(atomic.filled(executor.command, values, self.folder))
        cleaned: int | None = 0
        try:
            ended = self._run(executor.name, command, output, self._seconds, self._stop)
        finally:
            if executor.cleanup_command is not None:
                cleanup = shell_argument(atomic.filled(executor.cleanup_command, values, self.folder))
                cleaned = self._run(executor.name, cleanup, output, self._seconds, None).status
        return Played(ended.status, ended.timed_out, cleaned)

    def _run(self, shell: str, command: str, output: Path, seconds: float, stop: Event | None) -> Ended:
        program = shutil.which(shell) if shell in _SHELLS else None
        if program is None:
            raise ObservationError(Problem(f"there is no {shell} here to run tests with"))
        return run_session([program, "-c", command], self.folder, output, seconds, stop)
