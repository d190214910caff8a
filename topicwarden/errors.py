"""The errors a person sees. Each carries data; only the command line turns them into text and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where it stands, and what to do about it."""

    message: str
    """What is wrong, with the value; no full stop."""
    file: str | None = None
    line: int | None = None
    """1-based."""
    hint: str | None = None

    def __str__(self) -> str:
        where = "" if self.file is None else f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        return f"{where}{self.message}" + (f"\n\nhint: {self.hint}" if self.hint else "")


class TopicwardenError(Exception):
    """Base of what the command line catches. `exit_code` is the process's, as the design fixes them."""

    exit_code = 2

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems: Sequence[Problem] = problems


class ConfigurationError(TopicwardenError):
    """Wrong usage, or a file people write by hand that is wrong. All of a file's problems are in one error."""

    exit_code = 2


class ObservationError(TopicwardenError):
    """We could not observe: no ring, no log, no connection, no permission, another version's format."""

    exit_code = 3
