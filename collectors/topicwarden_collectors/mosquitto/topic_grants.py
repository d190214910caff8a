"""What all grants of a Mosquitto have in common: topics under their own names, and nothing besides a permission."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from topicwarden.events import Action, Client
from topicwarden.grants import Path
from topicwarden.patterns import Names
from topicwarden.policy import Place, Space


class TopicGrants:
    """The part of `topicwarden.grants.Grants` that is the same for every way in which Mosquitto decides."""

    kind: Final = "mosquitto"

    def paths(self, client: Client) -> Sequence[Path]:  # noqa: ARG002 - nobody has any
        """Return nothing: a topic is reached under its own name only."""
        return ()

    def carried(self, place: Place) -> Place:
        """Return the place itself."""
        return place

    def needed(self, action: Action, place: Place) -> Sequence[tuple[Action, Space, Names]]:  # noqa: ARG002 - nothing is
        """Return nothing: a permission is all that is needed."""
        return ()
