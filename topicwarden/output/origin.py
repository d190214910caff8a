"""Who speaks: what the machine formats say about the observer itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from topicwarden import __version__

PRODUCT = "topicwarden"


@dataclass(frozen=True, slots=True)
class Origin:
    """The observing side of every document."""

    version: str = __version__
    host: str | None = None
    """This machine's name; None: left out."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """The kind (`mosquitto`) of each broker by the operator's name for it; one not listed is left out."""
