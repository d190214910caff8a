"""Asks a running broker, as its users, whether it allows something."""

from __future__ import annotations

from collections.abc import Mapping

from topicwarden.grants import Probe
from topicwarden.sources import SourceOptions


def open_probe(target: str, options: SourceOptions, passwords: Mapping[str, str], *, allow_publish: bool) -> Probe:
    """Be ready to ask; raises ConfigurationError or ObservationError when that is impossible."""
    raise NotImplementedError
