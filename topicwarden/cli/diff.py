"""`diff`: what a change of a policy newly allows and newly denies."""

from __future__ import annotations

from pathlib import Path


def run(old: Path, new: Path, output_format: str) -> int:
    """Compare two policies and print the difference; returns the exit code."""
    raise NotImplementedError
