"""Reads what the broker would allow."""

from __future__ import annotations

from collections.abc import Sequence

from topicwarden.grants import Grants
from topicwarden.sources import SourceOptions


def read_grants(source: str, options: SourceOptions) -> Sequence[Grants]:
    """Read a source; raises ConfigurationError when it cannot be read."""
    raise NotImplementedError
