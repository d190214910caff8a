"""Grants beside which something else decides that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from topicwarden.events import Action, Certainty, Client
from topicwarden.grants import Fault, Grants, Kept, Origin, Path, Rights, Rule, Rules
from topicwarden.patterns import Anything, Names
from topicwarden.policy import Place, Space
from topicwarden_collectors.mosquitto.grants_rules import TOPICS
from topicwarden_collectors.mosquitto.topic_grants import TopicGrants


class Doubtful:
    """Grants of which no rule, and no denial for want of one, is certain."""

    def __init__(self, grants: Grants, blind_spots: Sequence[str], faults: Sequence[Fault]) -> None:
        """`faults`: of code TW114, at least one; its origin stands for what cannot be read."""
        self._grants = grants
        self._unread = faults[0].origin
        self.broker = grants.broker
        self.kind = grants.kind
        self.title = grants.title
        self.accounts = grants.accounts
        self.closed: Final = False
        self.origins = grants.origins
        self.faults: Sequence[Fault] = (*faults, *grants.faults)
        self.blind_spots: Sequence[str] = (*blind_spots, *grants.blind_spots)

    def rights(self, client: Client) -> Rights | None:
        """Return the rights, each rule inferred, with a last one that denies what no rule is about."""
        rights = self._grants.rights(client)
        if rights is None:
            return None
        end = Rule(False, Anything(), self._unread, Certainty.INFERRED)
        by = {(action, TOPICS): Rules() for action in (Action.PUBLISH, Action.SUBSCRIBE)} | dict(rights.by)
        return Rights(
            {
                key: Rules((*(replace(rule, certainty=Certainty.INFERRED) for rule in rules.rules), end))
                for key, rules in by.items()
            }
        )

    def paths(self, client: Client) -> Sequence[Path]:
        """Return the grants' own."""
        return self._grants.paths(client)

    def carried(self, place: Place) -> Place:
        """Return what the grants say."""
        return self._grants.carried(place)

    def needed(self, action: Action, place: Place) -> Sequence[tuple[Action, Space, Names]]:
        """Return what the grants say."""
        return self._grants.needed(action, place)

    def instead(
        self, origin: Origin, client: Client, kept: Sequence[Kept], intended: Sequence[Kept] | None = None
    ) -> str:
        """Return what the grants say."""
        return self._grants.instead(origin, client, kept, intended)


class Unknown(TopicGrants):
    """Grants of which nothing can be read: no client is judged."""

    closed: Final = False

    def __init__(self, broker: str, title: str, blind_spots: Sequence[str], faults: Sequence[Fault]) -> None:
        self.broker = broker
        self.title = title
        self.accounts: Sequence[Client] = ()
        self.origins: Sequence[Origin] = ()
        self.faults = faults
        self.blind_spots = blind_spots

    def rights(self, client: Client) -> Rights | None:
        """Return None: there is nothing to judge."""

    def instead(
        self,
        origin: Origin,  # noqa: ARG002 - there is none
        client: Client,  # noqa: ARG002
        kept: Sequence[Kept],  # noqa: ARG002
        intended: Sequence[Kept] | None = None,  # noqa: ARG002
    ) -> str:
        """Return nothing: there is no grant to replace."""
        return ""
