"""Asks a running broker, as its users, whether it allows something.

What tells is seen on Mosquitto 2.0.11 with MQTT 5:

- publish: the answer to an empty message that is not kept, with QoS 1 (0x87: not authorised). Subscribers receive it,
  so it is only sent when that is allowed, and never below `$CONTROL`, where a message is a command;
- receive: a subscription to the name itself. One that is refused tells. One that is accepted does not, for what is
  handed out is decided again for each message (an acl_file accepts every subscription); so a message kept there, or an
  empty one published by somebody who may, has to arrive.

Answers keep their order: the broker hands a message out before it answers the publisher, and what was handed out before
it answers the subscriber's next packet has been sent before that. So nothing is waited for but answers.

A client asked about with a client id connects with that id, and the broker ends the session of whoever else has it;
one without has a random id.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden.events import Action, Client, Resource, ResourceKind
from topicwarden.grants import Probe, Verdict
from topicwarden.patterns import topic_problem
from topicwarden.sources import SourceOptions
from topicwarden_collectors.mosquitto.acl_file import MAX_TOPIC_SLASHES
from topicwarden_collectors.mosquitto.asking_link import Link, LinkError, RefusedError
from topicwarden_collectors.mosquitto.grants_logins import sendable
from topicwarden_collectors.mosquitto.sys_link import KEPT_OUT, Address, read_address, unreachable

MAX_CONNECTIONS: Final = 16
"""Open at a time; the one not asked for longest is closed first."""
MAX_PUBLISHERS: Final = 8
"""Users who are tried to publish what another is to receive, and users tried at the beginning."""
_FAILURE: Final = 0x80
_NOT_AUTHORISED: Final = 0x87
_COMMANDS: Final = "$CONTROL"
_PUBLISHER: Final = "\0publisher"
"""In the place of a client id: a connection with a random one, for publishing what others are to receive."""
_MAX_SHUT: Final = 1 << 14

Answer = tuple[Verdict, str]
_Who = tuple[str | None, str]


def open_probe(target: str, options: SourceOptions, passwords: Mapping[str, str], *, allow_publish: bool) -> Probe:
    """Be ready to ask; raises ConfigurationError or ObservationError when that is impossible."""
    address = read_address(target, replace(options, username=None, password_file=None))
    probe = BrokerProbe(replace(address, username=None, password=None), passwords, allow_publish=allow_publish)
    try:
        probe.begin()
    except BaseException:
        probe.close()
        raise
    return probe


class BrokerProbe:
    """Asks a broker; one connection for each user and client id, one question at a time."""

    def __init__(self, address: Address, passwords: Mapping[str, str], *, allow_publish: bool) -> None:
        self._address = address
        self._passwords = passwords
        self._allow_publish = allow_publish
        self._open: OrderedDict[_Who, Link] = OrderedDict()
        self._shut: dict[_Who, str] = {}
        """Why logging in failed: it is not tried again."""
        self._publisher: str | None = None
        """Who could publish the last message that was to be received."""

    def begin(self) -> None:
        """Connect as one of the users, or as nobody; raises ObservationError or ConfigurationError."""
        refusals: list[tuple[str | None, str]] = []
        users: Sequence[str | None] = list(self._passwords)[:MAX_PUBLISHERS] or [None]
        for user in users:
            try:
                self._connect((user, ""))
            except RefusedError as error:
                refusals.append((user, str(error)))
            except (OSError, ValueError) as error:
                raise ObservationError(unreachable(self._address, error)) from error
            except LinkError as error:
                hint = "check the port; TLS listeners need mqtts://, websockets are not supported"
                raise ObservationError(Problem(f"{self._address.text}: {error}", hint=hint)) from error
            else:
                return
        raise ConfigurationError(*(self._kept_out(user, why) for user, why in refusals))

    def ask(self, client: Client, action: Action, resource: Resource) -> Answer:
        """Try it out without harm; returns what the broker said, and why in words. Raises nothing."""
        why_not = self._why_not(client, action, resource)
        if why_not is not None:
            return Verdict.NOT_TRIED, why_not
        who = (client.user or None, client.client_id)
        try:
            link = self._connect(who)
            return (
                self._publish(link, resource.name) if action is Action.PUBLISH else self._receive(link, resource.name)
            )
        except RefusedError as error:
            # Without a name there is no password that could be wrong.
            verdict = Verdict.DENIED if who[0] is None and str(error) in KEPT_OUT else Verdict.NOT_TRIED
            return verdict, self._kept_out(who[0], str(error)).message
        except (OSError, ValueError) as error:
            self._drop(who)
            return Verdict.NOT_TRIED, unreachable(self._address, error).message
        except LinkError as error:
            self._drop(who)
            return Verdict.NOT_TRIED, str(error)

    def close(self) -> None:
        """End all connections."""
        for who in list(self._open):
            self._drop(who)

    def _why_not(self, client: Client, action: Action, resource: Resource) -> str | None:
        """Say why something is not asked; None when it is."""
        name = resource.name
        if action not in (Action.PUBLISH, Action.SUBSCRIBE) or resource.kind is not ResourceKind.TOPIC:
            return f"{action.name.lower()} is not asked of a {resource.kind.name.lower()}"
        if resource.truncated:
            return "only the beginning of the name is known"
        problem = topic_problem(name)
        if problem is not None:
            return problem
        if not sendable(name) or name.count("/") > MAX_TOPIC_SLASHES:
            return "the broker ends the connection of a client that sends this name"
        if not sendable(client.client_id) or not sendable(client.user or ""):
            return "the broker takes no such user name or client id"
        if client.user and client.user not in self._passwords:
            return f"no password for {client.user!r} among the credentials"
        if action is Action.PUBLISH:
            if name.startswith(_COMMANDS):
                return f"a message below {_COMMANDS} is a command to the broker"
            if not self._allow_publish:
                return "subscribers could receive the message: allow it with --allow-publish"
        return None

    def _publish(self, link: Link, name: str) -> Answer:
        code = link.publish(name)
        if code < _FAILURE:
            return Verdict.ALLOWED, "the broker took an empty message"
        if code == _NOT_AUTHORISED:
            return Verdict.DENIED, "the broker refused an empty message as not authorised"
        return Verdict.NOT_TRIED, f"the broker refused an empty message for another reason (0x{code:02x})"

    def _receive(self, link: Link, name: str) -> Answer:
        link.received.clear()
        code = link.subscribe(name)
        if code >= _FAILURE:
            if code == _NOT_AUTHORISED:
                return Verdict.DENIED, "the broker refused a subscription to it as not authorised"
            return Verdict.NOT_TRIED, f"the broker refused a subscription to it for another reason (0x{code:02x})"
        published: str | None = None
        try:
            if self._allow_publish and not name.startswith(_COMMANDS):
                published = self._published(name)
        finally:
            if link.unsubscribe(name) >= _FAILURE:
                # It would stay subscribed (dynamic security can deny that): the session ends with the connection.
                link.close()
        if name in link.received:
            return Verdict.ALLOWED, "a message was received"
        if published is not None:
            return Verdict.DENIED, f"a subscription was accepted, but a message that {published} published did not come"
        why = "nobody whose password is known may publish there" if self._allow_publish else "no message is kept there"
        return Verdict.NOT_TRIED, f"a subscription was accepted, which proves nothing, and {why}"

    def _published(self, name: str) -> str | None:
        """Have somebody publish an empty message to a name; returns who did, None when nobody may."""
        for user in self._publishers():
            # Not with the id that was asked about: that is the subscriber's.
            who = (user, _PUBLISHER)
            try:
                accepted = self._connect(who).publish(name) < _FAILURE
            except (LinkError, OSError, ValueError):
                self._drop(who)
                continue
            if accepted:
                self._publisher = user
                return "somebody without a user name" if user is None else repr(user)
        return None

    def _publishers(self) -> Iterator[str | None]:
        """Yield who is tried, whoever succeeded last first."""
        users: list[str | None] = [self._publisher, *list(self._passwords)[:MAX_PUBLISHERS], None]
        yield from dict.fromkeys(users)

    def _connect(self, who: _Who) -> Link:
        """Return a connection; raises LinkError, OSError or ValueError."""
        user, client_id = who
        link = self._open.get(who)
        if link is not None and link.usable:
            self._open.move_to_end(who)
            return link
        if who in self._shut:
            raise RefusedError(self._shut[who])
        self._drop(who)
        while len(self._open) >= MAX_CONNECTIONS:
            self._drop(next(iter(self._open)))
        password = None if user is None else self._passwords.get(user)
        address = replace(self._address, username=user, password=password)
        random_id = f"topicwarden-{secrets.token_hex(8)}"
        link = Link(address, random_id if client_id in ("", _PUBLISHER) else client_id)
        try:
            link.open()
        except RefusedError as error:
            if len(self._shut) < _MAX_SHUT:
                self._shut[who] = str(error)
            raise
        self._open[who] = link
        return link

    def _drop(self, who: _Who) -> None:
        link = self._open.pop(who, None)
        if link is not None:
            link.close()

    def _kept_out(self, user: str | None, why: str) -> Problem:
        who = "clients without a user name" if user is None else repr(user)
        hint = "give the passwords of the broker's users, a line USER:PASSWORD for each"
        if user is not None:
            hint = f"correct the line of {user!r} among the credentials, and see whether the broker binds a client id"
        return Problem(f"{self._address.text} does not let {who} in: {why}", hint=hint)
