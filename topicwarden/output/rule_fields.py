"""Writes a rule's conditions with standard fields only (ECS 9), or says what of it cannot be written so.

Nothing is left out silently. A condition that standard fields cannot say makes all that it is a part of unsayable, up
to an alternative: that is dropped, and what is missed by it is told; where there is no other, the rule is not exported.
Where a condition is said with other means, what they catch besides, or miss, is told as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from topicwarden.hosts.commands_model import Does
from topicwarden.output import rule_commands as commands
from topicwarden.output.rule_conditions import (
    Compared,
    Condition,
    EventQuery,
    Every,
    InNetworks,
    Known,
    Leaf,
    Matches,
    Not,
    OneOf,
    RuleQuery,
    Some,
    UnsupportedError,
    every,
    leaves,
    negated,
    some,
)
from topicwarden.output.rule_saying import Said, say
from topicwarden.policy import Inventory

STANDARD: Final = frozenset(
    "@timestamp container.id destination.address destination.domain destination.ip destination.port event.action"  # noqa: SIM905
    " event.category event.outcome event.type host.id host.name host.os.type network.direction network.protocol"
    " network.transport"
    " process.args process.args_count process.command_line process.entity_id process.executable process.interactive"
    " process.name process.parent.executable process.parent.name process.parent.pid process.pid source.address"
    " source.bytes source.ip source.port user.name".split()
)
"""The fields of ECS 9 that a rule may have when it leaves us."""
OURS: Final = "topicwarden."
PROTOCOLS: Final = ("mqtt", "amqp", "stomp", "xmpp")
_AGENT: Final[Mapping[str, frozenset[str]]] = {
    "process": frozenset({"exec", "end"}),
    "network": frozenset({"connection_attempted"}),
}
"""What agents on hosts report by these words."""
_SPOKEN: Final = frozenset({"connected", "published", "subscribed", "spoke"})
"""What brokers and network sensors report."""
_BY_NAME: Final = "programs are told by their file names: copies under other names are missed"
_IN_LINE: Final = "a port is looked for among the arguments: a program's default port, which is not there, is missed"
_BROKER_IN_LINE: Final = (
    "an approved broker is told by its name or address in the command line: a program's default is taken for another's"
)


@dataclass(frozen=True, slots=True)
class Here:
    """What is known of a place when a rule is exported for it."""

    inventory: Inventory = field(default_factory=Inventory)
    ports: Sequence[int] = ()
    """On which publish/subscribe is expected."""

    def missing(self, needs: Sequence[str]) -> str | None:
        """Return what of a rule's needs is not there, in words; None: all is there."""
        there = {"inventory": bool(self.inventory.brokers), "tools": bool(self.inventory.tools)}
        words = {
            "inventory": "the approved brokers: --policy with inventory.brokers",
            "tools": "the sanctioned tools: --policy with inventory.tools",
            "baseline": "what is usual at each host, which changes and cannot be a part of a rule",
        }
        wanting = [words.get(need, need) for need in needs if not there.get(need, False)]
        return f"it needs {' and '.join(wanting)}" if wanting else None


@dataclass(frozen=True, slots=True)
class StandardQuery:
    """A rule's query with standard fields only."""

    source: str
    """Who reports such events: `process` and `network`: an agent on a host; `sensor`: a network sensor."""
    query: RuleQuery
    losses: tuple[str, ...]
    """What it says less, or more, than ours."""


def standard_queries(query: RuleQuery, here: Here) -> list[StandardQuery]:
    """Return what can be said of a rule in standard fields, one query for each kind of source that reports its events.

    Raises UnsupportedError with the reason where nothing can.
    """
    if len(query.events) > 1:
        losses: set[str] = set()
        events = [_standard(event, event.category, here, losses, alone=False) for event in query.events]
        close = query.until
        until = None if close is None else _standard(close, close.category, here, losses, alone=False)
        return [StandardQuery("host", RuleQuery(tuple(events), query.span_seconds, until), tuple(sorted(losses)))]
    (event,) = query.events
    sources = {"any": ("process", "network", "sensor"), "network": ("network", "sensor")}
    found: list[StandardQuery] = []
    reasons: dict[str, str] = {}
    for source in sources.get(event.category, (event.category,)):
        losses = set()
        try:
            found.append(StandardQuery(source, RuleQuery((_standard(event, source, here, losses),)), ()))
        except UnsupportedError as error:
            if not isinstance(error, _NeverError):
                reasons[source] = str(error)
        else:
            found[-1] = StandardQuery(source, found[-1].query, tuple(sorted(losses)))
    if not found:
        told = list(dict.fromkeys(reasons.values())) or ["nothing would ever match it"]
        raise UnsupportedError("; ".join(told))
    missed = tuple(f"{_EVENTS[source]} are left out, for they lack {why}" for source, why in reasons.items())
    return [StandardQuery(one.source, one.query, (*one.losses, *missed)) for one in found]


_EVENTS: Final = {"process": "starts of programs", "network": "connections", "sensor": "reports of network sensors"}


def standard_field(name: str) -> str | None:
    """Return the standard field that says what a field of ours says; None: there is none."""
    return name if name in STANDARD else {"topicwarden.command.tool": "process.name"}.get(name)


class _NeverError(UnsupportedError):
    """Nothing would match."""


def _standard(event: EventQuery, source: str, here: Here, losses: set[str], *, alone: bool = True) -> EventQuery:
    shaped = _with_shapes(event.condition)
    said = say(shaped, _Saying(source, here).leaf)
    if said.condition is False:
        if alone:
            raise _NeverError("nothing would ever match it")
        raise UnsupportedError("events that only a broker or a network sensor tells")
    if said.condition is None:
        raise UnsupportedError(said.wanting)
    if said.condition is True or (alone and not any(_tells(leaf) for leaf in leaves(said.condition))):
        raise UnsupportedError("anything that tells it from other events")
    if wrong := [name for name in event.by if name not in STANDARD]:
        raise UnsupportedError(f"the fields it is joined by ({', '.join(wrong)})")
    losses |= said.losses | ({_BY_LETTERS} if shaped != event.condition else set())
    return EventQuery("network" if source == "sensor" else source, said.condition, event.by)


def _tells(leaf: Leaf) -> bool:
    """Whether a condition tells anything but the kind of event."""
    return not leaf.field.startswith(("event.", "network.transport", "network.direction"))


class _Saying:
    """Says conditions about the events of one kind of source."""

    def __init__(self, source: str, here: Here) -> None:
        self._source = source
        self._here = here

    def leaf(self, leaf: Leaf, negative: bool) -> Said:
        """Say one condition, or its negation."""
        name = leaf.field
        if name == "event.action" and isinstance(leaf, OneOf):
            return self._action(leaf, negative)
        if name.startswith(OURS):
            ours = name.removeprefix(OURS)
            method = _OURS.get(ours)
            return Said(None, why=(_WHY.get(ours, name),)) if method is None else method(self, leaf, negative)
        if name not in STANDARD:
            return Said(None, why=(name,))
        if self._source == "process" and name.startswith(("destination.", "source.")):
            return self._destination_in_line(leaf, negative)
        if self._source == "sensor" and name.startswith(("process.", "user.", "container.")):
            return Said(None, why=("the process",))
        if self._source != "sensor" and name == "network.protocol":
            return Said(None, why=("the protocol that is spoken",))
        if self._source == "network" and name.startswith("process.parent."):
            return Said(None, why=("the parent of what connects",))
        return Said(negated(leaf) if negative else leaf)

    def _action(self, leaf: OneOf, negative: bool) -> Said:
        if self._source == "sensor":
            # A sensor has its own words for what it saw; its log of a protocol has nothing else.
            return Said(bool(_SPOKEN & set(leaf.values)) is not negative)
        there = tuple(value for value in leaf.values if value in _AGENT[self._source])
        if not there:
            return Said(negative)
        return Said(negated(OneOf(leaf.field, there)) if negative else OneOf(leaf.field, there))

    def _destination_in_line(self, leaf: Leaf, negative: bool) -> Said:
        if leaf.field == "destination.port" and isinstance(leaf, OneOf) and not negative:
            ports = [value for value in leaf.values if isinstance(value, int)]
            return Said(commands.has_port(ports), frozenset({_IN_LINE}))
        return Said(None, why=("where a command line points to",))

    def approved(self, leaf: Leaf, negative: bool) -> Said:
        """Say `destination.approved`."""
        brokers = self._here.inventory.brokers
        if not brokers:
            # Without an inventory nothing is approved or not: it is not known.
            return Said(negative if isinstance(leaf, Known) else False)
        if self._source == "process":
            return self._approved_in_line(leaf, negative)
        known = Known("destination.ip")
        if isinstance(leaf, Known):
            return Said(Not(known) if negative else known)
        places: list[Condition] = []
        by_name: list[str] = []
        for broker in brokers:
            network = _network(broker.address)
            if network is None:
                by_name.append(broker.address)
            else:
                address = InNetworks("destination.ip", (str(network),))
                places.append(every([address, OneOf("destination.port", tuple(broker.ports))]))
        lost = f"connections to brokers that the policy gives by name look like others: {', '.join(by_name)}"
        losses = frozenset({lost} if by_name else ())
        wanted = _asked_for(leaf) is not negative
        if not places:
            return Said(False if wanted else known, losses)
        return Said(some(places) if wanted else every([known, Not(some(places))]), losses)

    def _approved_in_line(self, leaf: Leaf, negative: bool) -> Said:
        if isinstance(leaf, Known):
            return Said(not negative)
        spelled: list[str] = []
        for broker in self._here.inventory.brokers:
            network = _network(broker.address)
            if network is not None and network.num_addresses > 1:
                octets = network.prefixlen // 8 if isinstance(network, IPv4Network) and network.prefixlen else 0
                if not octets or network.prefixlen % 8:
                    return Said(None, why=("where a command line points to",))
                spelled.append("*" + ".".join(str(network).split(".")[:octets]) + ".*")
            else:
                spelled.append(f"*{broker.address}*")
        named = OneOf("process.command_line", tuple(spelled), wildcards=True)
        wanted = _asked_for(leaf) is not negative
        return Said(named if wanted else Not(named), frozenset({_BROKER_IN_LINE}))

    def inventory(self, leaf: Leaf, negative: bool) -> Said:
        """Say `inventory.brokers`: whether there is an inventory."""
        there = bool(self._here.inventory.brokers)
        return Said((there if isinstance(leaf, Known) else there is _asked_for(leaf)) is not negative)

    def sanctioned(self, leaf: Leaf, negative: bool) -> Said:
        """Say `sanctioned`."""
        tools = self._here.inventory.tools
        if isinstance(leaf, Known):
            return Said(bool(tools) is not negative)
        wanted = _asked_for(leaf) is not negative
        if not tools:
            return Said(False)
        if self._source == "sensor":
            return Said(None, why=("the process",))
        entries: list[Condition] = []
        lost: set[str] = set()
        for tool in tools:
            if tool.parents and self._source == "network":
                lost.add(f"a sanctioned {tool.process} is not told apart: its entry asks for the parent")
                continue
            asked = (("host.name", tool.hosts), ("user.name", tool.users), ("process.parent.name", tool.parents))
            terms: list[Condition] = [_glob("process.name", str(tool.process))]
            terms += [_glob(name, *map(str, patterns)) for name, patterns in asked if patterns]
            entries.append(every(terms))
        if not entries:
            return Said(not wanted, frozenset(lost))
        return Said(some(entries) if wanted else Not(some(entries)), frozenset(lost))

    def scope(self, leaf: Leaf, negative: bool) -> Said:
        """Say `destination.scope`, as far as rules ask for it."""
        if self._source == "process":
            return Said(None, why=("where a command line points to",))
        if isinstance(leaf, Known):
            said: Condition = Known("destination.ip")
        elif isinstance(leaf, OneOf) and leaf.values == ("loopback",):
            said = InNetworks("destination.ip", ("127.0.0.0/8", "::1/128"))
        else:
            return Said(None, why=("the kind of address",))
        return Said(negated(said) if negative else said)

    def pubsub(self, leaf: Leaf, negative: bool) -> Said:
        """Say `destination.pubsub`: whether publish/subscribe is spoken there."""
        if self._source != "sensor":
            return Said(None, why=("the protocol that is spoken",))
        return _flag(leaf, OneOf("network.protocol", PROTOCOLS), negative, ())

    def broker(self, leaf: Leaf, negative: bool) -> Said:
        """Say `broker.name`: which of the brokers that we watch it was."""
        if not isinstance(leaf, Known):
            return Said(None, why=("the broker's own events",))
        lost = frozenset({"connections to brokers that topicwarden watches are not told apart"})
        return Said(True, lost) if negative else Said(False)

    def tool(self, leaf: Leaf, negative: bool) -> Said:
        """Say `command.tool`."""
        if self._source == "sensor":
            return Said(None, why=("the process",))
        if isinstance(leaf, Known):
            named = commands.speaks_to_brokers(self._source, self._here.ports)
        elif isinstance(leaf, OneOf) and not leaf.wildcards:
            named = commands.named_as([str(value) for value in leaf.values])
        else:
            return Said(None, why=("the tool in a command line",))
        losses = {_BY_NAME}
        if self._source == "network":
            losses.add("what interpreters run (python -c) is taken for an application, not for a tool")
        return Said(negated(named) if negative else named, frozenset(losses))

    def library(self, leaf: Leaf, negative: bool) -> Said:
        """Say `command.library`."""
        if self._source == "sensor" or not isinstance(leaf, Known):
            return Said(None, why=("the library that a program uses",))
        named = _glob("process.name", *commands.INTERPRETERS)
        if self._source == "process":
            named = commands.imports_library()
        return Said(negated(named) if negative else named, frozenset({_BY_NAME}))

    def does(self, leaf: Leaf, negative: bool) -> Said:
        """Say `command.does`."""
        values = leaf.values if isinstance(leaf, OneOf) else ()
        named = commands.that_do([Does(str(value)) for value in values])
        if named is None or self._source == "sensor":
            return Said(None, why=("what a command does",))
        return Said(negated(named) if negative else named, frozenset({_BY_NAME}))

    def raw(self, leaf: Leaf, negative: bool) -> Said:
        """Say `command.raw`."""
        if self._source == "sensor":
            return Said(None, why=("the process",))
        return _flag(leaf, commands.pipes_bytes(self._source, self._here.ports), negative, (_BY_NAME,))

    def own(self, leaf: Leaf, negative: bool) -> Said:
        """Say `command.own`: whether the process itself does it, and not one that it starts."""
        return Said(_asked_for(leaf) is not negative)

    def shell(self, leaf: Leaf, negative: bool) -> Said:
        """Say `command.shell`: by its file name it is the program itself, not a shell that has it in an argument."""
        return Said(_asked_for(leaf) is negative)

    def secret(self, leaf: Leaf, negative: bool) -> Said:
        """Say `command.secret`."""
        if self._source != "process":
            return Said(None, why=("the arguments",))
        general = "passwords given to programs for everything (curl, python) are missed"
        return _flag(leaf, commands.has_secret(), negative, (_BY_NAME, general))


_OURS: Final[Mapping[str, Callable[[_Saying, Leaf, bool], Said]]] = {
    "destination.approved": _Saying.approved,
    "destination.scope": _Saying.scope,
    "destination.pubsub": _Saying.pubsub,
    "inventory.brokers": _Saying.inventory,
    "sanctioned": _Saying.sanctioned,
    "broker.name": _Saying.broker,
    "command.tool": _Saying.tool,
    "command.library": _Saying.library,
    "command.does": _Saying.does,
    "command.raw": _Saying.raw,
    "command.own": _Saying.own,
    "command.shell": _Saying.shell,
    "command.secret": _Saying.secret,
}
_WHY: Final[Mapping[str, str]] = {
    "score": "the TopicAnomalyScore",
    "join": "the join of a process with a broker's session",
    "topic": "the topic",
    "baseline.application_host": "what is usual at a host",
    "command.payload.entropy": "the entropy of a message",
    "command.payload.size": "the size of a message",
    "command.payload.shape": "the shape of a message",
    "command.protocol": "the bytes that are written into a connection",
}
_BY_LETTERS: Final = "base64 and hexadecimal are told by a run of their letters: a long path is taken for one of them"
_LETTERS: Final = {"base64": "[A-Za-z0-9+/]", "hex": "[0-9A-Fa-f]"}


def _with_shapes(condition: Condition) -> Condition:
    """Put one condition in place of each pair for the shape and the least size of a message in a command line."""
    if isinstance(condition, Some):
        return some([_with_shapes(term) for term in condition.terms])
    if not isinstance(condition, Every):
        return condition
    terms = [_with_shapes(term) for term in condition.terms]
    payload = f"{OURS}command.payload."
    shape = next((term for term in terms if isinstance(term, OneOf) and term.field == f"{payload}shape"), None)
    size = next((term for term in terms if isinstance(term, Compared) and term.field == f"{payload}size"), None)
    if shape is None or size is None or size.comparator != ">=" or set(shape.values) - set(_LETTERS):
        return every(terms)
    letters = [_LETTERS[str(value)] for value in shape.values]
    found = Matches("process.command_line", tuple(f".*{one}{{{size.number:.0f},}}.*" for one in letters))
    return every([found if term is shape else term for term in terms if term is not size])


def _flag(leaf: Leaf, meaning: Condition, negative: bool, losses: Sequence[str]) -> Said:
    """Say a condition about a field that is yes or no, where `meaning` says when it is yes."""
    if isinstance(leaf, Known):
        return Said(None, why=(leaf.field,))
    wanted = _asked_for(leaf) is not negative
    return Said(meaning if wanted else negated(meaning), frozenset(losses))


def _asked_for(leaf: Leaf) -> bool:
    """Whether a condition asks for yes."""
    if isinstance(leaf, OneOf) and leaf.values in ((True,), (False,)):
        return bool(leaf.values[0])
    raise UnsupportedError(f"{leaf.field} is compared with what is neither yes nor no")


def _glob(name: str, *patterns: str) -> Condition:
    return OneOf(name, patterns, wildcards=any("*" in pattern or "?" in pattern for pattern in patterns))


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(str(text), strict=False)
    except ValueError:
        return None
