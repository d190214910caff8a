"""Compiles a rule's EQL into predicates over events of hosts, with the `eql` package; nothing else here knows it.

The package's own engine is not run: it keeps a sequence that does not complete until `maxspan` has passed, without any
bound, and looks at all of them at every event. Only its predicates are used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

import eql  # type: ignore[import-untyped]
from eql import ast
from eql.engine import Event, PythonEngine  # type: ignore[import-untyped]

from topicwarden.engine.host_rules_needs import needs_of
from topicwarden.engine.host_rules_query import Key, Query, RuleError, RuleList, Term
from topicwarden.hosts.ecs import EcsEvent, field_of

__all__ = ["RuleError", "RuleList", "compile_query", "expand"]

MAX_TERMS: Final = 16

_TOKEN: Final = re.compile(
    r"""(?P<text>\"{3}.*?\"{3}|\?"(?:\\"|[^"\r\n])*"|"(?:\\.|[^"\\\r\n])*"|'(?:\\.|[^'\\\r\n])*')"""
    r"""|(?P<comment>//[^\n]*|/\*.*?\*/)|\$\{(?P<list>[^}\n]*)\}|(?P<cidr>(?i:cidrmatch))\b""",
    re.DOTALL,
)


def compile_query(text: str, lists: Mapping[str, RuleList]) -> Query:
    """Compile a rule's EQL; raises RuleError."""
    expanded, original = expand(text, lists)
    try:
        return _compiled(expanded)
    except eql.EqlParseError as error:
        line, column = original(error.line, error.column)
        raise RuleError(str(error.error_msg), line + 1, column + 1) from error
    except _UnusableError as error:
        raise RuleError(str(error), 1, 1) from error
    except (eql.EqlError, ValueError, TypeError, RecursionError) as error:
        raise RuleError(f"cannot be run: {error}", 1, 1) from error


@lru_cache(maxsize=128)
def _compiled(expanded: str) -> Query:
    """Parsing takes some ten milliseconds a rule; a query remembers nothing, so all may share it."""
    with eql.parser.elasticsearch_syntax:
        return _query(eql.parse_query(expanded))


def expand(text: str, lists: Mapping[str, RuleList]) -> tuple[str, Callable[[int, int], tuple[int, int]]]:
    """Put lists in place of `${name}`, and write `cidrMatch` as the package does.

    Returns the text and what leads from a place in it (line and column, 0-based) back to the place in the rule. Raises
    RuleError for a list that there is not.
    """
    parts: list[str] = []
    moved: dict[int, list[tuple[int, int, int]]] = {}
    """By line: where in it a list ends, how much longer than its name it is, and where it begins."""
    position = 0
    for match in _TOKEN.finditer(text):
        replacement = match[0]
        if match["cidr"] is not None:
            replacement = "cidrMatch"
        elif match["list"] is not None:
            name = match["list"]
            line, column = text.count("\n", 0, match.start()), match.start() - (text.rfind("\n", 0, match.start()) + 1)
            if name not in lists:
                raise RuleError(f"there is no list {name!r}", line + 1, column + 1)
            replacement = _written(lists[name])
            start = column + sum(longer for _, longer, _ in moved.get(line, ()))
            longer = len(replacement) - len(match[0])
            moved.setdefault(line, []).append((start + len(replacement), longer, column))
        parts += [text[position : match.start()], replacement]
        position = match.end()
    parts.append(text[position:])

    def original(line: int, column: int) -> tuple[int, int]:
        less = 0
        for end, longer, begin in moved.get(line, ()):
            if column >= end:
                less += longer
            elif column - less >= begin:
                return line, begin
        return line, column - less

    return "".join(parts), original


def _written(values: RuleList) -> str:
    """Return a list's items as EQL has them; of an empty one, what nothing matches."""
    if not values:
        # Fits wherever a list does: in `in (…)`, and in cidrMatch as a network that nothing connects to.
        return '"255.255.255.255/32"'
    return ", ".join(str(value) if isinstance(value, int) else ast.String(value).render() for value in values)


class _UnusableError(Exception):
    """EQL that we do not run; its text says what."""


class _Predicates(PythonEngine):  # type: ignore[misc]
    """The package's predicates, where what is not as a rule supposes is null as in Elasticsearch, and no exception."""

    def _convert_in_set(self, node: Any) -> Callable[[Any], Any]:
        inner = super()._convert_in_set(node)

        def callback(scope: Any) -> Any:
            try:
                return inner(scope)
            except TypeError:  # a list, which the package looks up in a set
                return None

        return callback

    def _function_cidr_match(self, arguments: Any) -> Callable[[Any], bool | None]:
        get_value = self.convert(arguments[0])
        networks = [ip_network(argument.value) for argument in arguments[1:]]

        def callback(scope: Any) -> bool | None:
            value = get_value(scope)
            address = _address(value) if isinstance(value, str) else None
            return None if address is None else any(address in network for network in networks)

        return callback


@lru_cache(maxsize=16_384)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _query(parsed: Any) -> Query:
    if parsed.pipes:
        raise _UnusableError("pipes are not run: a rule says at_least and within")
    first = parsed.first
    engine = _Predicates()
    if isinstance(first, ast.EventQuery):
        return Query((_term(engine, first, ()),))
    if not isinstance(first, ast.Sequence):
        raise _UnusableError(f"{type(first).__name__.lower()} is not run: a rule is one event or a sequence")
    if first.max_span is None:
        raise _UnusableError("a sequence must say with maxspan")
    if len(first.queries) > MAX_TERMS:
        raise _UnusableError(f"a sequence has at most {MAX_TERMS} terms")
    for subquery in first.queries:
        if unknown := sorted(name for name, value in subquery.params.kv.items() if value.value):
            raise _UnusableError(f"{', '.join(unknown)} is not run in a sequence")
    terms = tuple(_term(engine, subquery.query, subquery.join_values) for subquery in first.queries)
    close = first.close
    until = None if close is None else _term(engine, close.query, close.join_values)
    return Query(terms, first.max_span.as_milliseconds() * 1_000_000, until)


def _term(engine: Any, query: Any, join_values: Iterable[Any]) -> Term:
    check = engine.convert(query)
    paths = [_path(value) for value in join_values]

    def matches(event: EcsEvent) -> bool:
        return bool(check(Event(event.category, 0, event.document)))

    def key(event: EcsEvent) -> Key | None:
        values = [folded(field_of(event.document, path)) for path in paths]
        # Elasticsearch joins nothing on a field that is missing; the package would.
        return None if any(value is None for value in values) else tuple(values)

    return Term(query.event_type, needs_of(query.query), matches, key)


def _path(value: Any) -> str:
    if not isinstance(value, ast.Field) or not all(isinstance(part, str) for part in value.path):
        raise _UnusableError(f"a sequence is joined by fields, not by {value.render()}")
    return ".".join([value.base, *value.path])


def folded(value: Any) -> Any:
    """Return a value as the package compares it: text without case, a list as what can be looked up."""
    if isinstance(value, str):
        return value.lower()
    if isinstance(value, list | tuple):
        return tuple(folded(item) for item in value)
    return value if isinstance(value, int | float | bool) else None
