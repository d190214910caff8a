"""The review list: what was observed and is not granted, each with its reason, for a person to decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from topicwarden.events import Action
from topicwarden.policy import Place

MAX_EXAMPLES: Final = 10
"""User names shown of those who did something."""


class Reason(StrEnum):
    """Why something is not granted; in the order in which a person should look at them."""

    DENIED = "denied"
    CONTROL = "control"
    WIDE = "wide"
    RARE_IN_ROLE = "rare-in-role"
    SEVERAL_ROLES = "several-roles"
    NO_ROLE = "no-role"
    FEW_USERS = "few-users"
    ONE_USER = "one-user"
    CLAIMED = "claimed"
    ANONYMOUS = "anonymous"
    USER_UNKNOWN = "user-unknown"
    VHOST_UNKNOWN = "vhost-unknown"
    UNWRITABLE_USER = "unwritable-user"
    CLIENT_ID_FIRST = "client-id-first"
    UNSAFE_NAME = "unsafe-name"
    INEXPRESSIBLE = "inexpressible"
    INVALID_NAME = "invalid-name"
    TOO_MANY_NAMES = "too-many-names"
    TOO_LARGE = "too-large"
    UNVERIFIED = "unverified"
    MORE = "more"


MEANING: Final[Mapping[Reason, str]] = {
    Reason.DENIED: "the broker refused it",
    Reason.CONTROL: "it is the broker's own: topics that begin with $, and its exchanges of events, logs and traces",
    Reason.WIDE: "it asks for everything: a wildcard at the first level, or every key of a shared exchange",
    Reason.RARE_IN_ROLE: "few members of the role did it, so it may be an intruder's, or a need of those few",
    Reason.SEVERAL_ROLES: "what these users showed fits several roles",
    Reason.NO_ROLE: "these users have no role: what they did together forms none, or they showed too little of one",
    Reason.FEW_USERS: "too few users did it",
    Reason.ONE_USER: "only one user did it",
    Reason.CLAIMED: "the user names are only claimed: the broker checked no password",
    Reason.ANONYMOUS: "the clients have no user name",
    Reason.USER_UNKNOWN: "the source does not tell the user name",
    Reason.VHOST_UNKNOWN: "the source does not tell the virtual host, and there are several",
    Reason.UNWRITABLE_USER: "the user name or virtual host cannot stand in a policy: *, ? or hidden characters",
    Reason.CLIENT_ID_FIRST: "the client id, which clients choose, is the first level: $SYS would be one, too",
    Reason.UNSAFE_NAME: "the name is too long, too deep, or holds characters that do not show what they are",
    Reason.INEXPRESSIBLE: "the name holds text that means something else in a policy: %u, %c, *, #",
    Reason.INVALID_NAME: "it is no valid name",
    Reason.TOO_MANY_NAMES: "there were too many different names to look at all of them",
    Reason.TOO_LARGE: "the draft would be larger than a policy may be",
    Reason.UNVERIFIED: "granted, but the source does not say whether the broker checked who these users are",
    Reason.MORE: "further entries, which the list has no room for",
}


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """Something that is not granted, or granted with a doubt."""

    reason: Reason
    action: Action | None = None
    place: Place | None = None
    """The name, or a pattern that stands for `names` of them; for reading, not for granting."""
    label: str = ""
    """How it is shown when it is no place; hostile text."""
    names: int = 0
    users: int = 0
    """How many different user names; clients without one count as none."""
    clients: int = 0
    """How many different client ids."""
    examples: tuple[str, ...] = ()
    events: int = 0
    first_ns: int = 0
    last_ns: int = 0
    role: str | None = None
    """The role that the users have."""
    members: int = 0
    """How many members that role has."""
    also_granted: bool = False
    """For what was refused: whether the draft grants it."""

    @property
    def why(self) -> str:
        """Why it is here, in words."""
        text = MEANING[self.reason]
        if self.reason is Reason.RARE_IN_ROLE:
            text = f"{self.users} of the role's {self.members} members did it: an intruder, or a need of those few"
        elif self.reason is Reason.FEW_USERS:
            text = f"only {self.users} users did it"
        elif self.reason is Reason.DENIED:
            text = f"the broker refused it {self.events} times" + (", and the draft grants it" * self.also_granted)
        return text


def document(item: ReviewItem) -> dict[str, Any]:
    """Return an item as the object of one line of the review list; what does not apply is null."""
    place = item.place
    family = place.space.family if place else None
    return {
        "reason": item.reason.value,
        "why": item.why,
        "action": item.action.name.lower() if item.action else None,
        "topic": place.pattern if place and family == "topic" else None,
        "exchange": (place.space.within if family == "key" else place.pattern if family == "exchange" else None)
        if place
        else None,
        "key": place.pattern if place and family == "key" else None,
        "queue": place.pattern if place and family == "queue" else None,
        "label": item.label or None,
        "names": item.names,
        "users": item.users,
        "clients": item.clients,
        "examples": list(item.examples),
        "events": item.events,
        "first_seen": timestamp(item.first_ns) if item.events else None,
        "last_seen": timestamp(item.last_ns) if item.events else None,
        "role": item.role,
        "members": item.members or None,
    }


def timestamp(time_ns: int) -> str:
    """Return a time as ISO 8601, UTC, in whole seconds."""
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time_ns // 1_000_000_000):%Y-%m-%dT%H:%M:%S}Z"
