"""The conditions of a rule about hosts, apart from any language: read from its EQL, to be written in others'.

Text is compared without regard to capitals, as our own engine does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import eql  # type: ignore[import-untyped]
from eql import ast

from topicwarden.engine.host_rules_eql import RuleError, RuleList, expand

Value = str | int | float | bool


class UnsupportedError(Exception):
    """A rule has something that cannot be exported; its text says what."""


@dataclass(frozen=True, slots=True)
class Every:
    """All of them hold."""

    terms: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of them holds."""

    terms: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """It does not hold."""

    term: Condition


@dataclass(frozen=True, slots=True)
class OneOf:
    """A field has one of these values; one of a list of values is enough."""

    field: str
    values: tuple[Value, ...]
    wildcards: bool = False
    """Whether `*` and `?` in them stand for other characters."""
    exact: bool = False
    """Whether capitals matter."""


@dataclass(frozen=True, slots=True)
class Matches:
    """A text holds something that one of these regular expressions matches, from its beginning to its end."""

    field: str
    expressions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """A number is less or more than another."""

    field: str
    comparator: str
    """`<`, `<=`, `>` or `>=`."""
    number: float


@dataclass(frozen=True, slots=True)
class InNetworks:
    """An address lies in one of these networks."""

    field: str
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """A field has a value."""

    field: str


Leaf = OneOf | Matches | Compared | InNetworks | Known
Condition = Every | Some | Not | Leaf
LEAVES: Final = (OneOf, Matches, Compared, InNetworks, Known)


@dataclass(frozen=True, slots=True)
class EventQuery:
    """One event: its class and what it must be like."""

    category: str
    """`process` or `network`."""
    condition: Condition
    by: tuple[str, ...] = ()
    """In a sequence, the fields by which it is joined to the others."""


@dataclass(frozen=True, slots=True)
class RuleQuery:
    """What a rule asks for: one event, or several one after the other."""

    events: tuple[EventQuery, ...]
    span_seconds: float | None = None
    """How long a sequence may take; None: it is one event."""
    until: EventQuery | None = None


def read_query(text: str, lists: Mapping[str, RuleList]) -> RuleQuery:
    """Read a rule's EQL with its lists in place of their names; raises UnsupportedError for what is not exported."""
    try:
        expanded, _ = expand(text, lists)
        with eql.parser.elasticsearch_syntax:
            parsed = eql.parse_query(expanded)
    except (RuleError, eql.EqlError) as error:
        raise UnsupportedError(f"its EQL cannot be read: {error}") from error
    if parsed.pipes:
        raise UnsupportedError("it has pipes")
    first = parsed.first
    if isinstance(first, ast.EventQuery):
        return RuleQuery((_event(first),))
    if not isinstance(first, ast.Sequence) or first.max_span is None:
        raise UnsupportedError("it is neither one event nor a sequence with maxspan")
    events = tuple(_event(query.query, query.join_values) for query in first.queries)
    until = None if first.close is None else _event(first.close.query, first.close.join_values)
    return RuleQuery(events, first.max_span.as_milliseconds() / 1000, until)


def leaves(condition: Condition) -> Iterator[Leaf]:
    """Yield what a condition is made of."""
    if isinstance(condition, Every | Some):
        for term in condition.terms:
            yield from leaves(term)
    elif isinstance(condition, Not):
        yield from leaves(condition.term)
    else:
        yield condition


def every(terms: Sequence[Condition]) -> Condition:
    """Return the condition that all hold, without needless nesting."""
    flat: list[Condition] = []
    for term in terms:
        flat += term.terms if isinstance(term, Every) else (term,)
    return flat[0] if len(flat) == 1 else Every(tuple(flat))


def some(terms: Sequence[Condition]) -> Condition:
    """Return the condition that one holds, without needless nesting."""
    flat: list[Condition] = []
    for term in terms:
        flat += term.terms if isinstance(term, Some) else (term,)
    return flat[0] if len(flat) == 1 else Some(tuple(flat))


def negated(term: Condition) -> Condition:
    """Return the condition that it does not hold."""
    return term.term if isinstance(term, Not) else Not(term)


def _event(query: Any, join_values: Sequence[Any] = ()) -> EventQuery:
    return EventQuery(str(query.event_type), _condition(query.query), tuple(_path(value) for value in join_values))


def _condition(node: Any) -> Condition:
    if isinstance(node, ast.And):
        return every([_condition(term) for term in node.terms])
    if isinstance(node, ast.Or):
        return some([_condition(term) for term in node.terms])
    if isinstance(node, ast.Not):
        return negated(_condition(node.term))
    if isinstance(node, ast.IsNotNull):
        return Known(_path(node.expr))
    if isinstance(node, ast.IsNull):
        return Not(Known(_path(node.expr)))
    if isinstance(node, ast.InSet):
        return OneOf(_path(node.expression), tuple(_value(item) for item in node.container))
    if isinstance(node, ast.Comparison):
        return _comparison(node)
    if isinstance(node, ast.FunctionCall):
        return _call(node)
    if isinstance(node, ast.Field):
        return OneOf(_path(node), (True,))
    raise UnsupportedError(f"`{node.render()}` is not exported")


def _comparison(node: Any) -> Condition:
    field, value = _path(node.left), _value(node.right)
    if node.comparator == "==":
        return OneOf(field, (value,))
    if node.comparator == "!=":
        return Not(OneOf(field, (value,)))
    if isinstance(value, bool | str):
        raise UnsupportedError(f"`{node.render()}` compares what is no number")
    return Compared(field, node.comparator, value)


def _call(node: Any) -> Condition:
    name = node.name.lower()
    first, rest = node.arguments[0], [_value(argument) for argument in node.arguments[1:]]
    if name == "cidrmatch":
        return InNetworks(_path(first), tuple(map(str, rest)))
    if name == "wildcard":
        return OneOf(_path(first), tuple(rest), wildcards=True)
    if name in ("match", "matchlite"):
        return Matches(_path(first), tuple(map(str, rest)))
    pattern = {"startswith": "{}*", "endswith": "*{}", "stringcontains": "*{}*"}.get(name)
    if pattern is not None and len(rest) == 1 and not any(letter in str(rest[0]) for letter in "*?"):
        return OneOf(_path(first), (pattern.format(rest[0]),), wildcards=True)
    raise UnsupportedError(f"`{node.render()}` is not exported")


def _path(node: Any) -> str:
    if not isinstance(node, ast.Field) or not all(isinstance(part, str) for part in node.path):
        raise UnsupportedError(f"`{node.render()}` is no field")
    return ".".join([node.base, *node.path])


def _value(node: Any) -> Value:
    if isinstance(node, ast.String | ast.Number | ast.Boolean):
        value = node.value
        assert isinstance(value, str | int | float | bool)
        return value
    raise UnsupportedError(f"`{node.render()}` is no value")
