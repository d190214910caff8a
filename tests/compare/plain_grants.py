"""Grants written down directly, for tests of the comparing alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from topicwarden.events import Action, Client
from topicwarden.grants import Fault, Kept, Origin, Path, Rights, Rule, Rules
from topicwarden.patterns import Names
from topicwarden.policy import Place, Space

TOPICS = Space("topic")


@dataclass
class PlainGrants:
    """Ordered rules for each user, by action and space."""

    users: Mapping[str | None, Mapping[tuple[Action, Space], Sequence[tuple[bool, Names]]]]
    closed: bool = True
    indirect: Mapping[str | None, Sequence[Path]] = field(default_factory=dict)
    broker: str = "b"
    kind: str = "plain"
    title: str = "grants.txt"
    faults: Sequence[Fault] = ()
    blind_spots: Sequence[str] = ()

    @property
    def accounts(self) -> Sequence[Client]:
        return [Client(self.broker, "mqtt", "", user) for user in self.users]

    @property
    def origins(self) -> Sequence[Origin]:
        return [rule.origin for user in self.users for rules in self._rules(user).values() for rule in rules.rules]

    def _rules(self, user: str | None) -> dict[tuple[Action, Space], Rules]:
        return {
            key: Rules(
                tuple(
                    Rule(
                        allow,
                        names,
                        Origin(
                            self.title,
                            number + 1,
                            f"{'allow' if allow else 'deny'} {key[0].name} {names} #{number}",
                            f"user {user}",
                        ),
                    )
                    for number, (allow, names) in enumerate(listed)
                )
            )
            for key, listed in self.users[user].items()
        }

    def rights(self, client: Client) -> Rights | None:
        return Rights(self._rules(client.user)) if client.user in self.users else None

    def paths(self, client: Client) -> Sequence[Path]:
        return self.indirect.get(client.user, ())

    def carried(self, place: Place) -> Place:
        return place

    def needed(self, action: Action, place: Place) -> Sequence[tuple[Action, Space, Names]]:
        return ()

    def instead(
        self, origin: Origin, client: Client, kept: Sequence[Kept], intended: Sequence[Kept] | None = None
    ) -> str:
        return "\n".join(f"allow {part.action.name} {part.pattern}" for part in kept) or "(remove it)"
