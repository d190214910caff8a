"""What a Mosquitto with an acl_file, or with nothing that decides access, would allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from topicwarden.events import Certainty, Client, Identity
from topicwarden.grants import Fault, Kept, Origin, Rights
from topicwarden_collectors.mosquitto.acl_file import AclFile
from topicwarden_collectors.mosquitto.grants_faults import faults_of
from topicwarden_collectors.mosquitto.grants_instead import instead
from topicwarden_collectors.mosquitto.grants_logins import Logins, sendable
from topicwarden_collectors.mosquitto.grants_rules import AclRules, everything, origin_of
from topicwarden_collectors.mosquitto.topic_grants import TopicGrants

ANONYMOUS: Final = "clients without a user name"


class AclGrants(TopicGrants):
    """The grants of one set of rules, as `topicwarden.grants.Grants`."""

    def __init__(
        self,
        broker: str,
        title: str,
        acl: AclFile | Origin,
        logins: Logins,
        *,
        blind_spots: Sequence[str] = (),
        faults: Sequence[Fault] = (),
        certainty: Certainty = Certainty.EXACT,
    ) -> None:
        """`acl`: what decides; an Origin stands for everything being allowed because nothing does."""
        self.broker = broker
        self.title = title
        self._logins = logins
        self.closed = logins.closed
        self.accounts: Sequence[Client] = tuple(_accounts(broker, acl, logins))
        self.blind_spots: Sequence[str] = (*logins.others, *_unverified(logins), *blind_spots)
        self._rules: AclRules | Rights
        if isinstance(acl, AclFile):
            self._rules = AclRules(acl, certainty)
            self.origins: Sequence[Origin] = tuple(origin_of(entry, acl.path) for entry in acl.entries)
            self.faults: Sequence[Fault] = (*faults, *faults_of(acl, logins, self.accounts))
        else:
            self._rules = everything(acl, certainty)
            self.origins = (acl,)
            self.faults = tuple(faults)

    def rights(self, client: Client) -> Rights | None:
        """Return what a client may do; None when it cannot connect. An empty id: the broker makes one up."""
        user = client.user or None
        if not self._logins.admit(user) or not sendable(client.client_id):
            return None
        if isinstance(self._rules, Rights):
            return self._rules
        return self._rules.of(user, self._logins.id_of(user, client.client_id))

    def instead(
        self,
        origin: Origin,
        client: Client,
        kept: Sequence[Kept],
        intended: Sequence[Kept] | None = None,  # noqa: ARG002 - a line stands alone
    ) -> str:
        """Return the acl_file lines that leave a client what is intended of an entry."""
        return instead(origin, client, kept, ids_are_names=self._logins.ids_are_names)


def _accounts(broker: str, acl: AclFile | Origin, logins: Logins) -> list[Client]:
    """Return the users of the password_file, those of the acl_file, and clients without a user name."""
    users: dict[str | None, None] = dict.fromkeys(logins.names)
    anonymous = logins.anonymous
    if isinstance(acl, AclFile):
        users.update(dict.fromkeys(acl.users))
        # With the acl_file alone, only lines for them speak of them.
        if not logins.known:
            anonymous = any(entry.user is None and not entry.pattern for entry in acl.entries)
    if anonymous:
        users[None] = None
    return [Client(broker, "mqtt", "", user, identity=_identity(user, logins)) for user in users]


def _identity(user: str | None, logins: Logins) -> Identity:
    if user is None:
        return Identity.ANONYMOUS
    if user in logins.names:
        return Identity.VERIFIED
    return Identity.CLAIMED if logins.unverified else Identity.UNKNOWN


def _unverified(logins: Logins) -> Sequence[str]:
    if not logins.unverified:
        return ()
    return (
        "nothing verifies user names: whoever connects chooses one, so accounts are those that are written somewhere",
    )
