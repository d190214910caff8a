"""`export`: a policy in a broker's own syntax, and how it fares with what was observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from topicwarden.sources import SourceOptions


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What `export` was asked for."""

    target: str
    output: Path | None = None
    accounts: Sequence[str] = ()
    users: Sequence[str] = ()
    observed: Sequence[str] = ()
    broker_kind: str | None = None


def run(policy: Path, options: ExportOptions, source_options: SourceOptions) -> int:
    """Write the export and say what it lacks; returns the exit code."""
    raise NotImplementedError
