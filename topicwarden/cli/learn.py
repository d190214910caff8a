"""`learn`: a draft of a policy from recordings and logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from topicwarden.sources import SourceOptions


@dataclass(frozen=True, slots=True)
class LearnOptions:
    """What `learn` was asked for."""

    output: Path
    review: Path | None = None
    min_coverage: float = 0.7
    broker_kind: str | None = None


def run(files: Sequence[str], options: LearnOptions, source_options: SourceOptions) -> int:
    """Read the files, write the draft and the review list; returns the exit code."""
    raise NotImplementedError
