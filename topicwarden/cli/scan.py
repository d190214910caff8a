"""`scan`: what a broker would allow, against the policy and against what was observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from topicwarden.findings import Severity
from topicwarden.sources import SourceOptions


@dataclass(frozen=True, slots=True)
class WitnessCheck:
    """How witnesses are tried on a running broker."""

    address: str
    credentials: Path | None
    allow_publish: bool


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What `scan` was asked for."""

    policy: Path | None = None
    output_format: str = "text"
    fail_on: int = Severity.MEDIUM
    observed: Sequence[str] = ()
    broker_kind: str | None = None
    witness_check: WitnessCheck | None = None


def run(sources: Sequence[str], options: ScanOptions, source_options: SourceOptions) -> int:
    """Scan each source and print what was found; returns the exit code."""
    raise NotImplementedError
