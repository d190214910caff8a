"""What Mosquitto's dynamic security plugin would allow, read from its dynamic-security.json (2.0.11).

Where the plugin does other than its documentation says, or than anybody would think (2.0.11, each seen on the running
broker; `acl.c` and `sub_matches_sub.c` are unchanged up to 2.0.22):

- a subscribe ACL that denies a filter does not keep its topics back: a wider filter brings them (TW105);
- `subscribePattern` `/#` also matches the filter `#`;
- in `subscribePattern`, `+` and `#` at the first level match `$SYS` and `$CONTROL` too, and the `$share` of a shared
  subscription, so that `+/+/x` lets a client subscribe to `$share/any/x`, which brings `x`;
- a default that allows does not for what begins with `$CONTROL`;
- `publishClientSend` for `$SYS/…` and `$share/…` is void: the broker refuses before it asks the plugin;
- `%u` and `%c` are ordinary letters;
- an ACL without `allow` denies, one of an unknown `acltype` is passed over, and nothing says so;
- a file that is no JSON leaves the broker running with no clients at all; a role's name that is no text crashes it;
- a client without a password cannot log in by the plugin, but where names come from certificates nothing of the client
  is looked at, neither its password nor `clientid` nor `disabled`;
- a user name that the file does not know is denied everything, whatever the defaults say.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path as FilePath
from typing import Final

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import Client, Identity
from topicwarden.grants import Fault, Grants, Kept, Origin, Rights
from topicwarden.sources import SourceOptions
from topicwarden_collectors.mosquitto.conf_files import reason
from topicwarden_collectors.mosquitto.dynsec_faults import MAX_IGNORED, UNDECIDED, faults_of, role_holders
from topicwarden_collectors.mosquitto.dynsec_instead import instead_of_acl, instead_of_default
from topicwarden_collectors.mosquitto.dynsec_json import MAX_BYTES, parse_json
from topicwarden_collectors.mosquitto.dynsec_loading import load
from topicwarden_collectors.mosquitto.dynsec_model import (
    DEFAULTS,
    Account,
    Acl,
    AclType,
    Dynsec,
    Role,
    acls_of,
)
from topicwarden_collectors.mosquitto.dynsec_rules import RoleRules, Worked
from topicwarden_collectors.mosquitto.grants_logins import sendable
from topicwarden_collectors.mosquitto.topic_grants import TopicGrants

_JUDGED: Final = (AclType.SEND, AclType.RECEIVE, AclType.SUBSCRIBE_LITERAL, AclType.SUBSCRIBE_PATTERN)
_GRANTING_DEFAULTS: Final = ("publishClientSend", "subscribe")
_NO_RIGHTS: Final = Rights({})


def read_dynsec(
    path: FilePath,
    options: SourceOptions,
    *,
    anonymous: bool | None = None,
    certificates: bool = False,
    names: Collection[str] = (),
    others: Sequence[str] = (),
) -> Sequence[Grants]:
    """Read a dynamic-security.json; raises ConfigurationError where the plugin could not, with all there is to say.

    What the mosquitto.conf says beside it: `anonymous`, whether clients without a user name get in (None: not known);
    `certificates`, whether user names come from certificates; `names`, who has a password elsewhere; `others`, why
    further users may get in, each a sentence without full stop.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        hint = "run this where the broker runs, as root or as the broker's own user"
        raise ConfigurationError(Problem(f"cannot be read: {reason(error)}", str(path), hint=hint)) from error
    return [
        DynsecGrants(
            options.broker or "mosquitto",
            parse_dynsec(str(path), data),
            anonymous=anonymous,
            certificates=certificates,
            names=names,
            others=others,
        )
    ]


def parse_dynsec(path: str, data: bytes) -> Dynsec:
    """Return what the plugin would hold of a file's contents; raises ConfigurationError."""
    if not data:
        raise ConfigurationError(
            Problem(
                "is empty: the plugin then knows no client, and lets nobody in",
                path,
                hint="make one with mosquitto_ctrl dynsec init",
            )
        )
    return load(path, parse_json(path, data))


class DynsecGrants(TopicGrants):
    """The grants of a dynamic-security.json, as `topicwarden.grants.Grants`."""

    def __init__(
        self,
        broker: str,
        dynsec: Dynsec,
        *,
        anonymous: bool | None = None,
        certificates: bool = False,
        names: Collection[str] = (),
        others: Sequence[str] = (),
    ) -> None:
        """See `read_dynsec`."""
        self.broker = broker
        self.title = f"dynamic security {dynsec.path}"
        self._dynsec = dynsec
        self._conf_read = anonymous is not None
        self._anonymous = anonymous is not False
        self._certificates = certificates
        self._names = frozenset(names)
        self._rules = RoleRules(dynsec)
        self.closed = not others and not certificates
        self._kept_out = {
            name: why for name, account in dynsec.accounts.items() if (why := self._why_not(account)) is not None
        }
        self.accounts: Sequence[Client] = tuple(self._accounts(anonymous))
        users = {client: self._worked(client) for client in self.accounts}
        self._acls: dict[Origin, Acl] = {
            acl.origin: acl for role in dynsec.every_role for acl in acls_of([role], *_JUDGED)
        }
        self.origins: Sequence[Origin] = (
            *self._acls,
            *(dynsec.default_origin(name) for name in _GRANTING_DEFAULTS if dynsec.defaults[name]),
        )
        held = frozenset(id(role) for client in self.accounts for role in self._roles(client))
        self.faults: Sequence[Fault] = (
            *faults_of(dynsec, users, held, self._kept_out),
            *self._too_much(users),
            *self._uncertain(),
        )
        self.blind_spots: Sequence[str] = tuple(self._blind_spots(anonymous, others))

    def rights(self, client: Client) -> Rights | None:
        """Return what a client may do; None when it cannot connect. An empty client id stands for one that fits."""
        user = client.user or None
        if not sendable(client.client_id):
            return None
        if user is None:
            return self._worked(client).rights if self._anonymous else None
        account = self._dynsec.accounts.get(user)
        if account is None:
            return _NO_RIGHTS if user in self._names or (not self.closed and sendable(user)) else None
        if user in self._kept_out:
            return None
        bound = None if self._certificates else account.client_id
        if bound is not None and client.client_id not in ("", bound):
            return None
        return self._worked(client).rights

    def instead(
        self,
        origin: Origin,
        client: Client,
        kept: Sequence[Kept],
        intended: Sequence[Kept] | None = None,  # noqa: ARG002 - a line stands alone
    ) -> str:
        """Return the commands that leave a client what is intended of a grant, and the entries for the file."""
        account = self._dynsec.accounts.get(client.user or "")
        bound = None if account is None or self._certificates else account.client_id
        acl = self._acls.get(origin)
        if acl is None:
            name = next((name for name in DEFAULTS if self._dynsec.default_origin(name) == origin), "subscribe")
            roles = self._roles(client)
            return instead_of_default(name, roles[0].name if roles else None, client, bound, kept)
        text = instead_of_acl(acl, client, bound, kept, by_default=self._dynsec.defaults["publishClientReceive"])
        role = self._dynsec.roles.get(acl.role)
        holders = role_holders(list(self._dynsec.accounts.values()), role) if role is not None else 0
        return text if holders < 2 else f"# changes role {acl.role!r} for all its {holders} clients:\n{text}"

    # Who can log in --------------------------------------------------------------------------------------------------

    def _why_not(self, account: Account) -> str | None:
        """Say why nobody can log in as a client of the file; None when somebody can."""
        if not account.name:
            return "an empty user name is none"
        if not sendable(account.name):
            return "its name holds characters that the broker takes in no user name"
        if self._certificates:
            return None
        if account.disabled:
            return "it is disabled"
        if account.client_id is not None and (not account.client_id or not sendable(account.client_id)):
            return "no client can have the client id that it is bound to"
        # Without the mosquitto.conf it is not known whether a certificate will do.
        if not account.password and account.name not in self._names and self._conf_read:
            return "it has no password, so nobody can log in as it"
        return None

    def _accounts(self, anonymous: bool | None) -> list[Client]:
        found = []
        for name, account in self._dynsec.accounts.items():
            if name not in self._kept_out:
                bound = None if self._certificates else account.client_id
                found.append(Client(self.broker, "mqtt", bound or "", name, identity=Identity.VERIFIED))
        known = self._dynsec.accounts
        found += [
            Client(self.broker, "mqtt", "", name, identity=Identity.VERIFIED)
            for name in sorted(self._names)
            if name not in known
        ]
        meant = self._dynsec.anonymous is not None or any(self._dynsec.defaults[name] for name in _GRANTING_DEFAULTS)
        if anonymous or (anonymous is None and meant):
            found.append(Client(self.broker, "mqtt", "", None, identity=Identity.ANONYMOUS))
        return found

    def _roles(self, client: Client) -> Sequence[Role]:
        if not client.user:
            return () if self._dynsec.anonymous is None else self._dynsec.anonymous.roles
        account = self._dynsec.accounts.get(client.user)
        return () if account is None else account.roles

    def _worked(self, client: Client) -> Worked:
        account = self._dynsec.accounts.get(client.user or "")
        if client.user and account is None:
            return Worked(_NO_RIGHTS, frozenset(), (), (), approximate=False)
        group = self._dynsec.anonymous if not client.user else None
        certain = (account is None or account.certain) and (group is None or group.certain)
        certain = certain and (account is None or all(one.certain for one in account.groups))
        return self._rules.of(self._roles(client), certain=certain)

    # What cannot be told ---------------------------------------------------------------------------------------------

    def _too_much(self, users: dict[Client, Worked]) -> list[Fault]:
        why = "its roles have so many ACLs that deny beside those that allow that they were not held against each other"
        return [
            Fault(
                UNDECIDED,
                Origin(self._dynsec.path, None, f"the roles of {client.user!r}"),
                client,
                None,
                {"reason": why},
            )
            for client, worked in users.items()
            if worked.approximate
        ]

    def _uncertain(self) -> list[Fault]:
        why = "it has a namesake, and which of the two the plugin finds depends on the size of its table"
        named: list[Account | Role] = [*self._dynsec.accounts.values(), *self._dynsec.roles.values()]
        origins = [one.origin for one in (*named, *self._dynsec.groups.values()) if not one.certain]
        origins += [origin for origin, acl in self._acls.items() if not acl.certain]
        return [Fault(UNDECIDED, origin, evidence={"reason": why}) for origin in origins]

    def _blind_spots(self, anonymous: bool | None, others: Sequence[str]) -> list[str]:
        found = list(others)
        if anonymous is None:
            found.append(
                "whether clients without a user name get in (allow_anonymous), and who else has a password or a"
                " certificate, stands in the mosquitto.conf, which was not read"
            )
            without = sum(not (one.password or one.disabled) for one in self._dynsec.accounts.values())
            if without:
                found.append(
                    f"clients without a password ({without}) can log in only with a certificate or by another file"
                )
        if self._certificates:
            found.append("user names come from certificates: whom the certificate authority names can log in")
        if len(self._dynsec.ignored) > MAX_IGNORED:
            found.append(f"{len(self._dynsec.ignored) - MAX_IGNORED} more parts of the file are passed over")
        return found
