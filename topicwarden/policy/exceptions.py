"""Findings that somebody accepted for a while, and what exactly an exception accepts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Final, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from topicwarden.events import Client, Resource
from topicwarden.policy.fields import Day, NamePattern, PlainDotted, PlainFilter, PlainNamedDotted, Text, near
from topicwarden.policy.places import Place, covers, place_of
from topicwarden.policy.strict import Strict, one_place
from topicwarden.policy.values import NANOSECONDS, Glob, RefusedError, shown

LONGEST_GRANT: Final = 65_536
"""Characters of a grant that an exception can name; brokers take expressions of any length."""
ONLY_CHANGES: Final = frozenset({"tw110", "grant.changed", "tw111", "grant.powerful"})
"""Findings that only a change of grants makes."""
CHANGES: Final = ONLY_CHANGES | {"tw101", "grant.excess", "tw103", "grant.missing"}
"""Findings that a change of grants makes."""
_NO_GRANT: Final = ONLY_CHANGES | {"tw103", "grant.missing"}
"""Findings about grants that are about none in particular."""
_WHO: Final = ("client", "user", "host", "process")
_PLACES: Final = frozenset({"topic", "exchange", "key", "queue"})
_OF_BROKER: Final = frozenset({"client", "broker", "vhost", "grant", "holder", "file", "change"}) | _PLACES
"""Keys that mean nothing where a host is meant."""

Words = Annotated[str, Field(min_length=1, max_length=LONGEST_GRANT)]
"""Exactly this text: no pattern."""


class ExceptionRule(Strict):
    """A finding somebody accepted for a while. When it has expired, that is a finding."""

    finding: str
    """Code or dotted name."""
    client: NamePattern | None = None
    """Client id: chosen by the client itself unless the broker binds it to the user; None: any, and none."""
    user: NamePattern | None = None
    """User name; None: any, and none. With `host` or `process`: the user a process runs as."""
    broker: NamePattern | None = None
    """The operator's name of the broker; None: any."""
    vhost: NamePattern | None = None
    """Virtual host; None: any, and none."""
    host: NamePattern | None = None
    """For findings about hosts: the host's name. With this or `process` it is about no client of a broker."""
    process: NamePattern | None = None
    """For findings about hosts: the program's file name."""
    grant: Words | None = None
    """For findings about how grants stand: the grant's words. With these, `holder` and `file` it is about one grant."""
    holder: Words | None = None
    """To whom the configuration gives the grant, in the reader's words; None: the reader names nobody."""
    file: NamePattern | None = None
    """Where the grant stands; None: anywhere."""
    change: NamePattern | None = None
    """For findings about changes of grants: what was changed, or the powers given; None: how grants stand, or, of
    findings that only changes make, anything."""
    topic: PlainFilter | None = None
    """Only for topics matched by this filter; with none of these keys: any name."""
    exchange: Text | None = None
    """Only for routing and binding keys of this exchange that match `key`."""
    key: PlainDotted | None = None
    queue: PlainNamedDotted | None = None
    reason: Text
    until: Day
    """The last day on which it holds, UTC."""

    @classmethod
    def shape_problem(cls, keys: Collection[str]) -> RefusedError | None:
        """Refuse an exception for everybody, and keys for different kinds of findings together."""
        given = set(keys)
        if not {"client", "user", "host", "process", "grant"} & given and not {"change", "vhost"} <= given:
            hint = "add client: PATTERN or user: PATTERN, or for one grant: grant: TEXT"
            return RefusedError("an exception does not say for whom", hint)
        for kinds, wrong, what, hint in (
            (
                {"host", "process"},
                _OF_BROKER,
                "a host or a process",
                "findings about hosts name no client of a broker: leave it out, or write two exceptions",
            ),
            (
                {"grant"},
                {"client", "change"} | _PLACES,
                "a grant",
                "the grant's own words say what it is about, and it is given to users: leave it out",
            ),
            (
                {"change"},
                {"client"} | _PLACES,
                "a change of grants",
                "what was changed is said by `change`, and grants are given to users: leave it out",
            ),
        ):
            if kinds & given and wrong & given:
                return RefusedError(f"an exception for {what} cannot have {min(wrong & given)}", hint)
        if {"holder", "file"} & given and "grant" not in given:
            name = min({"holder", "file"} & given)
            return RefusedError(f"{name} says which grant is meant, and there is none", "add grant: TEXT")
        return one_place(keys, "an exception", "queue") if _PLACES & given else None

    @property
    def scope(self) -> tuple[str, ...]:
        """What tells it from other exceptions."""
        who = [value for key, value in self.about.items() if key in _WHO]
        more = [f"{key} {value}" for key, value in self.about.items() if key not in _WHO]
        return (self.finding, *who, *more, self.place.label if self.place else "", self.until.isoformat())

    @property
    def about(self) -> Mapping[str, str]:
        """Whom and what it is for, without the names of topics, keys and queues: the keys that are given."""
        keys = ("client", "user", "broker", "vhost", "host", "process", "grant", "holder", "file", "change")
        return {key: str(value) for key in keys if (value := getattr(self, key)) is not None}

    @property
    def for_whom(self) -> str:
        """The first thing that it says about whom it is for, in words."""
        for pattern in (self.client, self.user, self.process, self.host):
            if pattern is not None:
                return str(pattern)
        if self.grant is not None:
            return f"{self.grant} for {self.holder}" if self.holder else self.grant
        return f"virtual host {self.vhost}"

    @field_validator("finding")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        known: Collection[str] | None = (info.context or {}).get("known_findings")
        if known is not None and value.lower() not in {name.lower() for name in known}:
            raise RefusedError(f"no finding is called {shown(value)}", near(value, known, "run topicwarden explain"))
        if not re.fullmatch(r"TW[0-9]{3}|[a-z-]+\.[a-z-]+", value, re.IGNORECASE | re.ASCII):
            raise RefusedError(
                f"a finding is a code (TW201) or a dotted name (publish.outside-policy), not {shown(value)}"
            )
        return value

    @model_validator(mode="after")
    def _says_what_the_finding_has(self) -> Self:
        finding = self.finding.lower()
        if self.grant is not None and (finding in _NO_GRANT or not finding.startswith(("tw1", "grant."))):
            raise RefusedError(f"{self.finding} is about no one grant", "write user: PATTERN in place of grant")
        if self.change is not None and finding not in CHANGES:
            raise RefusedError(
                f"{self.finding} is about no change of grants", "those that are: TW101, TW103, TW110, TW111"
            )
        return self

    @property
    def until_ns(self) -> int:
        """The first nanosecond (since the epoch, UTC) at which it holds no more."""
        return int(datetime.combine(self.until + timedelta(days=1), time(), UTC).timestamp()) * NANOSECONDS

    @property
    def place(self) -> Place | None:
        """The names it is about; None: any."""
        return place_of(self.topic, self.exchange, self.key, self.queue)

    @property
    def of_host(self) -> bool:
        """Whether it is about findings about hosts."""
        return self.host is not None or self.process is not None

    @property
    def of_names(self) -> bool:
        """Whether it is about what clients use, or may use: about no one grant, no change, no host."""
        return not self.of_host and self.grant is None and self.change is None

    def names(self, code: str, name: str) -> bool:
        """Whether it is about findings of this code and dotted name."""
        return self.finding.lower() in (code.lower(), name.lower())

    # Whether it accepts a finding; its end date is not looked at ------------------------------------------------------

    def covers_host(self, code: str, name: str, host: str, process: str | None, user: str | None) -> bool:
        """Whether it accepts the finding about a host; `process` is a file name."""
        asked = ((self.host, host), (self.process, process), (self.user, user))
        return self.of_host and self.names(code, name) and _all_match(asked)

    def covers(self, code: str, name: str, client: Client | None, resource: Resource) -> bool:
        """Whether it accepts the finding about what a client did.

        When the finding is about a subscription or binding, everything that it receives must be in the place.
        """
        if not self.of_names or client is None or not self.names(code, name):
            return False
        asked = (
            (self.client, client.client_id),
            (self.user, client.user),
            (self.broker, client.broker),
            (self.vhost, client.vhost),
        )
        return _all_match(asked) and (self.place is None or covers(self.place, resource))

    def is_for_account(self, account: Client) -> bool:
        """Whether it is about a user's grants, or some of them.

        An account has no client id: where a client id is asked for, its user name counts.
        """
        if self.of_host:
            return False
        asked = (
            (self.client, account.user),
            (self.user, account.user),
            (self.broker, account.broker),
            (self.vhost, account.vhost),
        )
        return _all_match(asked)

    def is_of_grant(self, broker: str, words: str, holder: str, file: str) -> bool:
        """Whether it is about this grant, whoever has it."""
        return (
            self.grant == words
            and (self.holder or "") == holder
            and _all_match(((self.broker, broker), (self.file, file)))
        )

    def covers_change(self, code: str, name: str, grantee: Client, change: str) -> bool:
        """Whether it accepts the finding about a change of somebody's grants.

        `change`: what was changed, or the powers that were given.
        """
        if not self.names(code, name) or self.grant is not None or self.place is not None:
            return False
        if not self.is_for_account(grantee):
            return False
        return self.finding.lower() in ONLY_CHANGES if self.change is None else self.change.matches(change)


def _all_match(asked: Collection[tuple[Glob | None, str | None]]) -> bool:
    """Whether each value matches its pattern; one that is not known matches none but None."""
    return all(pattern is None or (value is not None and pattern.matches(value)) for pattern, value in asked)
