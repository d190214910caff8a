"""What RabbitMQ grants to whom, as of now: its definitions, kept up to date by its own events.

It answers what a change of a grant means in concrete rights, and what a user may do. Only RabbitMQ's own database
(`rabbit_auth_backend_internal`) is modelled: for users it does not hold (LDAP, OAuth 2 …) nothing is answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from topicwarden.events import Action, Client, GrantChange, Identity, Resource, ResourceKind, Right
from topicwarden_collectors.rabbitmq.definitions import Definitions
from topicwarden_collectors.rabbitmq.grants_names import Names
from topicwarden_collectors.rabbitmq.grants_rights import ORDER, RightsChanged
from topicwarden_collectors.rabbitmq.grants_versions import behaviour_of
from topicwarden_collectors.rabbitmq.permissions import (
    DEFAULT_EXCHANGE,
    Expressions,
    Permission,
    TopicPermission,
    expanded,
)

POWERS: Final = ("administrator", "impersonator", "policymaker", "monitoring", "management")
"""Tags that give power over the broker itself, gravest first."""
MAX_GRANTS: Final = 200_000
"""Users, and pairs of user and virtual host, remembered."""
COMMAND_LINE: Final = "rmq-cli"
"""Who RabbitMQ says changed something when it was rabbitmqctl."""
_NOBODY: Final = frozenset({"", "none", "rmq-internal", "undefined"})
_KIND: Final[Mapping[Action, str]] = {
    Action.CONFIGURE: "configure",
    Action.PUBLISH: "write",
    Action.SUBSCRIBE: "read",
    Action.UNSUBSCRIBE: "read",
}
_Account = tuple[str, str]
"""User and virtual host."""


class Grants:
    """A model of one broker's grants. Not for several threads."""

    def __init__(self, broker: str, *, default_vhost: str = "/", rabbit_version: str | None = None) -> None:
        """Start with nothing known.

        `default_vhost` is where `amq.rabbitmq.event` and `amq.rabbitmq.log` are. Definitions bring their version.
        """
        self.broker = broker
        self.names = Names(default_vhost)
        self.overflowed = 0
        """Grants forgotten because there were too many."""
        self.stale = False
        """Whether an event left something unknown that loading the definitions again would tell."""
        self._behaviour = behaviour_of(rabbit_version)
        self._expressions = Expressions()
        self._loaded = False
        self._tags: dict[str, tuple[str, ...]] = {}
        self._permissions: dict[_Account, Permission] = {}
        self._topics: dict[_Account, dict[str, TopicPermission]] = {}
        self._unsure: set[_Account] = set()

    def served_by(self, rabbit_version: str | None) -> None:
        """Take over which RabbitMQ it is, as the server itself says."""
        if rabbit_version is not None:
            self._behaviour = behaviour_of(rabbit_version)

    @property
    def loaded(self) -> bool:
        """Whether a whole broker's definitions were loaded."""
        return self._loaded

    def load(self, definitions: Definitions) -> None:
        """Take over definitions; a whole broker's replace everything known, one virtual host's only its names."""
        self.names.load(definitions)
        if definitions.rabbit_version is not None:
            self._behaviour = behaviour_of(definitions.rabbit_version)
        if not definitions.whole:
            return
        self._loaded, self.stale = True, False
        self._tags = {user.name: user.tags for user in definitions.users[:MAX_GRANTS]}
        self._permissions = {(one.user, one.vhost): one.permission for one in definitions.permissions[:MAX_GRANTS]}
        self._topics = {}
        for one in definitions.topic_permissions[:MAX_GRANTS]:
            self._topics.setdefault((one.user, one.vhost), {})[one.exchange] = one.permission
        self._unsure = set()
        lists: Sequence[Sequence[object]] = (
            definitions.users,
            definitions.permissions,
            definitions.topic_permissions,
        )
        self.overflowed += sum(max(0, len(rows) - MAX_GRANTS) for rows in lists)

    # What the broker says happened --------------------------------------------------------------------------------

    def apply(self, time_ns: int, event: str, pairs: Mapping[str, str]) -> GrantChange | None:
        """Take over one of RabbitMQ's events (`permission.created` …); returns the change of grants it is.

        `pairs` are the event's fields as text, lists joined by `,`. Events of exchanges, queues and bindings keep the
        names known and return None, like events that concern no grant.
        """
        if self.names.apply(event, pairs):
            return None
        match event:
            case "permission.created" | "permission.deleted":
                return self._permission(time_ns, event, pairs)
            case "topic.permission.created" | "topic.permission.deleted":
                return self._topic_permission(time_ns, event, pairs)
            case "user.tags.set":
                return self._tags_set(time_ns, pairs)
            case "user.created" | "user.deleted":
                return self._user(time_ns, event, pairs)
            case "user.password.changed":
                return self._change(time_ns, pairs, pairs.get("name"), None, "password", None, "a password")
            case "user.password.cleared":
                return self._change(time_ns, pairs, pairs.get("name"), None, "password", None, "")
            case "user.limits.set" | "user.limits.cleared":
                after = "" if event.endswith("cleared") else None
                return self._change(time_ns, pairs, pairs.get("username"), None, "limits", None, after)
            case "vhost.created" | "vhost.deleted":
                return self._vhost(time_ns, event, pairs)
        return None

    def saw_key(self, vhost: str, user: str | None, exchange: str, key: str) -> None:
        """Remember a routing key somebody used; it stands for others when a topic permission changes."""
        del user  # who used it does not matter: it shows that the key exists
        self.names.saw_key(vhost, exchange, key)

    def exchange_type(self, vhost: str, name: str) -> str | None:
        """Return an exchange's type, None when it is not known; '' and `amq.default` are the default exchange."""
        return self.names.exchange_type(vhost, name)

    # What is granted now ------------------------------------------------------------------------------------------

    def permission(self, user: str, vhost: str) -> Permission | None:
        """Return a user's permissions in a virtual host; None when there are none or they are not known."""
        return self._permissions.get((user, vhost))

    def may(
        self, user: str | None, vhost: str, action: Action, resource: Resource, *, client_id: str | None = None
    ) -> bool | None:
        """Whether the permissions known now let a user do this; None when that is not known.

        Permissions only: not whether the resource exists, is exclusive to another or is internal. PUBLISH, SUBSCRIBE
        (also to bind), UNSUBSCRIBE (unbind) and CONFIGURE of exchanges, queues, keys and bindings; CONNECT without a
        resource. `client_id` is an MQTT client's, for topic permissions that use it.
        """
        if user is None or not self._known(user, vhost):
            return None
        permission = self._permissions.get((user, vhost))
        if action is Action.CONNECT:
            return permission is not None
        kind = _KIND.get(action)
        if kind is None or resource.truncated:
            return None
        if permission is None:
            return False
        within = resource.within if resource.kind in (ResourceKind.KEY, ResourceKind.BINDING) else resource.name
        if resource.kind not in (ResourceKind.KEY, ResourceKind.BINDING, ResourceKind.QUEUE, ResourceKind.EXCHANGE):
            return None
        allowed = self._expressions.allows(getattr(permission, kind), within or DEFAULT_EXCHANGE)
        if allowed and resource.kind in (ResourceKind.KEY, ResourceKind.BINDING):
            return self._topic_allows(user, vhost, within, kind, resource.name, client_id)
        return allowed

    def _topic_allows(
        self, user: str, vhost: str, exchange: str, kind: str, key: str, client_id: str | None
    ) -> bool | None:
        if not self._loaded:
            return None
        row = self._topics.get((user, vhost), {}).get(exchange)
        if row is None:
            return True
        exchange_type = self.exchange_type(vhost, exchange)
        if exchange_type not in (None, "topic"):
            return True
        allowed = self._key_allowed(row, kind, user, vhost, key, client_id)
        return allowed if allowed or exchange_type == "topic" else None

    def _key_allowed(
        self, row: TopicPermission | None, kind: str, user: str, vhost: str, key: str, client_id: str | None = None
    ) -> bool | None:
        """Whether a topic permission allows a key; no row allows all."""
        if row is None:
            return True
        regex: str = getattr(row, kind)
        variables = {"username": user, "vhost": vhost}
        if client_id is not None:
            variables["client_id"] = client_id
        elif "{client_id}" in regex:
            return None  # it depends on the client
        escapes = self._behaviour.escapes
        if escapes is None and any(not value.isalnum() for name, value in variables.items() if f"{{{name}}}" in regex):
            return None
        return self._expressions.allows(expanded(regex, variables, escapes=escapes or ""), key)

    def _known(self, user: str, vhost: str) -> bool:
        """Whether it is known what the user is granted in the virtual host."""
        account = (user, vhost)
        if account in self._unsure:
            return False
        return account in self._permissions or (self._loaded and not self.overflowed and user in self._tags)

    # Events, one by one -------------------------------------------------------------------------------------------

    def _permission(self, time_ns: int, event: str, pairs: Mapping[str, str]) -> GrantChange | None:
        user, vhost = pairs.get("user"), pairs.get("vhost")
        if user is None or vhost is None:
            return None
        account = (user, vhost)
        known, old = self._known(user, vhost), self._permissions.get(account)
        new: Permission | None = None
        if event == "permission.created":
            if any(name not in pairs for name in ("configure", "write", "read")):
                return self._lost_track(time_ns, pairs, user, vhost, "permission")
            new = Permission(pairs["configure"], pairs["write"], pairs["read"])
            if account in self._permissions or len(self._permissions) < MAX_GRANTS:
                self._permissions[account] = new
            else:
                self.overflowed += 1
        else:
            perhaps_topic = bool(self._topics.get(account)) or not self._loaded
            if perhaps_topic and not self._behaviour.names_topic_deletion:
                # RabbitMQ 3.10.8 says the same, word for word, when the topic permission of one exchange is cleared
                # (clear_topic_permissions/4; issue 9937): nothing is lost then, and perhaps much is gained.
                return self._lost_track(time_ns, pairs, user, vhost, "permission")
            self._permissions.pop(account, None)
        self._unsure.discard(account)
        if known and old is None and new is None:
            return None
        before = (str(old) if old else "") if known else None
        rights = RightsChanged()
        for right, was, now in self._differences(vhost, old, new, known=known):
            rights.add(right, was, now)
        if not known or self.names.overflowed or not self._loaded:
            rights.sure = False
        return self._change(time_ns, pairs, user, vhost, "permission", before, str(new) if new else "", rights)

    def _differences(
        self, vhost: str, old: Permission | None, new: Permission | None, *, known: bool
    ) -> Iterator[tuple[Right, bool | None, bool | None]]:
        """Yield every right on a name that exists, with whether it was and is granted, where that may differ.

        Where it is not `known` what was granted before, that may be everywhere.
        """
        for action in ORDER:
            kind = _KIND[action]
            before, after = (None if one is None else str(getattr(one, kind)) for one in (old, new))
            if known and before == after:
                continue
            for resource in self.names.resources(vhost, action):
                name = resource.name
                was, now = (regex is not None and self._expressions.allows(regex, name) for regex in (before, after))
                if not known:
                    was = None
                if was is None or now is None or was != now:
                    yield Right(action, resource), was, now

    def _topic_permission(self, time_ns: int, event: str, pairs: Mapping[str, str]) -> GrantChange | None:
        user, vhost, exchange = pairs.get("user"), pairs.get("vhost"), pairs.get("exchange")
        if user is None or vhost is None:
            return None
        account = (user, vhost)
        known = self._loaded and account not in self._unsure
        rows = self._topics.setdefault(account, {})
        old = dict(rows) if exchange is None else {name: row for name, row in rows.items() if name == exchange}
        new: dict[str, TopicPermission] = {}
        if event == "topic.permission.created":
            if exchange is None or "write" not in pairs or "read" not in pairs:
                return self._lost_track(time_ns, pairs, user, vhost, "topic permission")
            new[exchange] = TopicPermission(pairs["write"], pairs["read"])
        for name in old:
            del rows[name]
        if len(self._topics) < MAX_GRANTS and len(rows) < MAX_GRANTS:
            rows.update(new)
        else:
            self.overflowed += 1
        if not rows:
            del self._topics[account]
        if known and not old and not new:
            return None
        rights = RightsChanged()
        # Keys are made up by clients, so those known are examples: never more than inferred.
        rights.sure = False
        for name in sorted({*old, *new}):
            self._topic_differences(user, vhost, name, old.get(name), new.get(name), rights)
        return self._change(
            time_ns,
            pairs,
            user,
            vhost,
            "topic permission",
            _topic_words(old) if known else None,
            _topic_words(new),
            rights,
        )

    def _topic_differences(
        self,
        user: str,
        vhost: str,
        exchange: str,
        old: TopicPermission | None,
        new: TopicPermission | None,
        rights: RightsChanged,
    ) -> None:
        permission = self._permissions.get((user, vhost))
        if permission is None or self.exchange_type(vhost, exchange) not in (None, "topic"):
            return
        for action, resources in (
            (Action.SUBSCRIBE, self.names.bindings(vhost, exchange)),
            (Action.PUBLISH, self.names.keys(vhost, exchange)),
        ):
            kind = _KIND[action]
            if not self._expressions.allows(getattr(permission, kind), exchange):
                continue
            for resource in resources:
                was, now = (self._key_allowed(row, kind, user, vhost, resource.name) for row in (old, new))
                rights.add(Right(action, resource), was, now)

    def _tags_set(self, time_ns: int, pairs: Mapping[str, str]) -> GrantChange | None:
        user = pairs.get("name")
        if user is None:
            return None
        old = self._tags.get(user)
        new = tuple(tag for tag in (part.strip() for part in pairs.get("tags", "").split(",")) if tag)
        self._remember_user(user, new)
        powers = tuple(power for power in POWERS if power in new and power not in (old or ()))
        rights = RightsChanged(sure=old is not None)
        before = None if old is None else _tag_words(old)
        if before == _tag_words(new):
            return None
        return self._change(time_ns, pairs, user, None, "tags", before, _tag_words(new), rights, powers)

    def _user(self, time_ns: int, event: str, pairs: Mapping[str, str]) -> GrantChange | None:
        user = pairs.get("name")
        if user is None:
            return None
        if event == "user.created":
            self._remember_user(user, ())
            return self._change(time_ns, pairs, user, None, "user", "", "a user without permissions")
        known = user in self._tags
        self._tags.pop(user, None)
        mine = sorted(account for account in self._permissions if account[0] == user)
        rights, words = RightsChanged(sure=known and self._loaded), []
        for account in mine:
            old = self._permissions.pop(account)
            words.append(f"{old} in '{account[1]}'")
            for right, was, now in self._differences(account[1], old, None, known=True):
                # Rights do not name a virtual host, so they are listed only where there is no doubt about it.
                rights.add(right, was, now, listed=len(mine) == 1)
        for account in [account for account in self._topics if account[0] == user]:
            del self._topics[account]
        self._unsure = {account for account in self._unsure if account[0] != user}
        before = "; ".join(words[:16]) or "a user without permissions" if known else None
        return self._change(time_ns, pairs, user, mine[0][1] if len(mine) == 1 else None, "user", before, "", rights)

    def _vhost(self, time_ns: int, event: str, pairs: Mapping[str, str]) -> GrantChange | None:
        vhost = pairs.get("name")
        if vhost is None:
            return None
        if event == "vhost.created":
            self.names.add_vhost(vhost)
            return self._change(time_ns, pairs, None, vhost, "virtual host", "", "a virtual host")
        self.names.remove_vhost(vhost)
        # Each permission in it was withdrawn by an event of its own, before this one (3.10.8).
        tables: tuple[dict[_Account, Any], ...] = (self._permissions, self._topics)
        for table in tables:
            for account in [account for account in table if account[1] == vhost]:
                del table[account]
        self._unsure = {account for account in self._unsure if account[1] != vhost}
        return self._change(time_ns, pairs, None, vhost, "virtual host", "a virtual host", "")

    def _lost_track(
        self, time_ns: int, pairs: Mapping[str, str], user: str, vhost: str, what: str
    ) -> GrantChange | None:
        """Say that something changed and that it is not known what."""
        self.stale = True
        if len(self._unsure) < MAX_GRANTS:
            self._unsure.add((user, vhost))
        else:
            self.overflowed += 1
        old = self._permissions.get((user, vhost))
        rights = RightsChanged()
        rights.sure = None
        return self._change(time_ns, pairs, user, vhost, what, str(old) if old else None, None, rights)

    def _remember_user(self, user: str, tags: tuple[str, ...]) -> None:
        if user in self._tags or len(self._tags) < MAX_GRANTS:
            self._tags[user] = tags
        else:
            self.overflowed += 1

    def _change(
        self,
        time_ns: int,
        pairs: Mapping[str, str],
        user: str | None,
        vhost: str | None,
        what: str,
        before: str | None,
        after: str | None,
        rights: RightsChanged | None = None,
        powers: Sequence[str] = (),
    ) -> GrantChange:
        rights = rights or RightsChanged()
        gained, lost, unlisted = rights.lists()
        return GrantChange(
            time_ns=time_ns,
            # The broker names the user; nobody has logged in.
            grantee=Client(self.broker, "amqp", "", user, vhost=vhost, identity=Identity.VERIFIED),
            what=what,
            by=self._by(pairs),
            before=before,
            after=after,
            gained=gained,
            lost=lost,
            unlisted=unlisted,
            powers=powers,
            certainty=rights.certainty,
        )

    def _by(self, pairs: Mapping[str, str]) -> Client | None:
        """Return who RabbitMQ says did it. A user could be called `rmq-cli` too, so that name vouches for nobody."""
        actor = pairs.get("user_who_performed_action", "")
        if actor in _NOBODY:
            return None
        identity = Identity.UNKNOWN if actor == COMMAND_LINE else Identity.VERIFIED
        return Client(self.broker, "amqp", "", actor, identity=identity)


def _tag_words(tags: Sequence[str]) -> str:
    return f"tags {', '.join(sorted(tags))}" if tags else ""


def _topic_words(rows: Mapping[str, TopicPermission]) -> str:
    return "; ".join(f"exchange '{name}' {row}" for name, row in sorted(rows.items())[:16])
