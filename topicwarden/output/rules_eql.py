"""Conditions in EQL and ES|QL, as Elasticsearch has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

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
    Value,
)

WIDTH: Final = 110
"""Columns of a line of a query, where it can be kept."""
_KEYWORDS: Final = ("event.", "network.", "host.os.")
"""Fields whose values are fixed words: their capitals are as they are."""


def eql(query: RuleQuery, first: Sequence[str] = ()) -> str:
    """Return a query in EQL; `first`: conditions of every event, as they are written."""
    if query.span_seconds is None:
        (event,) = query.events
        return f"{event.category} where {_eql_event(event, first, '  ')}\n"
    lines = [f"sequence with maxspan={query.span_seconds:g}s"]
    for event in query.events:
        by = f" by {', '.join(event.by)}" if event.by else ""
        lines.append(f"  [{event.category} where {_eql_event(event, first, '    ')}]{by}")
    if query.until is not None:
        by = f" by {', '.join(query.until.by)}" if query.until.by else ""
        lines.append(f"until [{query.until.category} where {_eql_event(query.until, first, '    ')}]{by}")
    return "\n".join(lines) + "\n"


def _eql_event(event: EventQuery, first: Sequence[str], indent: str) -> str:
    terms = _kind_first(event.condition)
    return f" and\n{indent}".join([*first, *(_eql(term, indent, inner=True) for term in terms)])


def _kind_first(condition: Condition) -> Sequence[Condition]:
    """Return the terms of a condition, first those about the kind of event."""
    terms = condition.terms if isinstance(condition, Every) else (condition,)
    return sorted(terms, key=lambda term: not (isinstance(term, OneOf) and term.field.startswith(_KEYWORDS)))


def _eql(condition: Condition, indent: str, *, inner: bool) -> str:
    """Return a condition; `inner`: in brackets where it is made of several."""
    if isinstance(condition, Not):
        return _eql_not(condition.term, indent)
    if isinstance(condition, Every | Some):
        word = "and" if isinstance(condition, Every) else "or"
        parts = [_eql(term, f"{indent}  ", inner=True) for term in condition.terms]
        return _joined(parts, word, indent, inner)
    return _eql_leaf(condition, indent)


def _eql_not(term: Condition, indent: str) -> str:
    if isinstance(term, Known):
        return f"{term.field} == null"
    if isinstance(term, OneOf) and len(term.values) == 1 and "==" in (said := _eql_leaf(term, indent)):
        return said.replace(" == ", " != ", 1)
    return f"not {_eql(term, indent, inner=True)}"


def _eql_leaf(leaf: Leaf, indent: str) -> str:
    match leaf:
        case Known():
            return f"{leaf.field} != null"
        case Compared():
            return f"{leaf.field} {leaf.comparator} {leaf.number:g}"
        case InNetworks():
            return _call("cidrmatch", leaf.field, [_text(network) for network in leaf.networks], indent)
        case Matches():
            return _listed(leaf.field, "regex~", [_text(one) for one in leaf.expressions], indent)
        case OneOf():
            return _listed(leaf.field, _eql_operator(leaf), [_literal(value) for value in leaf.values], indent)


def _eql_operator(leaf: OneOf) -> str:
    several = len(leaf.values) > 1
    if leaf.wildcards:
        return "like" if leaf.exact else "like~"
    if leaf.exact or not any(isinstance(value, str) for value in leaf.values) or leaf.field.startswith(_KEYWORDS):
        return "in" if several else "=="
    # `:` would take these for wildcards.
    return "in~" if several or any(letter in str(leaf.values[0]) for letter in "*?") else ":"


def _listed(field: str, operator: str, values: Sequence[str], indent: str) -> str:
    if len(values) == 1 and operator not in ("in", "in~"):
        return f"{field} {operator} {values[0]}"
    return f"{field} {operator} ({_folded(values, indent)})"


def _call(name: str, field: str, values: Sequence[str], indent: str) -> str:
    folded = _folded(values, indent)
    return f"{name}({field},{'' if folded.startswith(chr(10)) else ' '}{folded})"


def esql(condition: Condition) -> str:
    """Return a condition in ES|QL, for a WHERE; fields that hold several values must not be in it."""
    terms = _kind_first(condition)
    return " AND\n    ".join(_esql(term, "    ", inner=True) for term in terms)


def _esql(condition: Condition, indent: str, *, inner: bool) -> str:
    if isinstance(condition, Not):
        if isinstance(condition.term, Known):
            return f"{condition.term.field} IS NULL"
        return f"NOT {_esql(condition.term, indent, inner=True)}"
    if isinstance(condition, Every | Some):
        word = "AND" if isinstance(condition, Every) else "OR"
        parts = [_esql(term, f"{indent}  ", inner=True) for term in condition.terms]
        return _joined(parts, word, indent, inner)
    return _esql_leaf(condition, indent)


def _esql_leaf(leaf: Leaf, indent: str) -> str:
    match leaf:
        case Known():
            return f"{leaf.field} IS NOT NULL"
        case Compared():
            return f"{leaf.field} {leaf.comparator} {leaf.number:g}"
        case InNetworks():
            return _call("CIDR_MATCH", leaf.field, [_text(network) for network in leaf.networks], indent)
        case Matches():
            return _either([f"{leaf.field} RLIKE {_text(one)}" for one in leaf.expressions], indent)
        case OneOf():
            return _esql_one_of(leaf, indent)


def _esql_one_of(leaf: OneOf, indent: str) -> str:
    values = [_literal(value) for value in leaf.values]
    field = leaf.field
    if isinstance(leaf.values[0], str) and not leaf.exact and not field.startswith(_KEYWORDS):
        field = f"TO_LOWER({field})"
        values = [value.lower() for value in values]
    if leaf.wildcards:
        return _either([f"{field} LIKE {value}" for value in values], indent)
    return f"{field} == {values[0]}" if len(values) == 1 else f"{field} IN ({_folded(values, indent)})"


def _either(parts: Sequence[str], indent: str) -> str:
    return parts[0] if len(parts) == 1 else _joined(parts, "OR", indent, inner=True)


def _joined(parts: Sequence[str], word: str, indent: str, inner: bool) -> str:
    flat = f" {word} ".join(parts)
    if "\n" not in flat and len(flat) + len(indent) <= WIDTH:
        return f"({flat})" if inner else flat
    joined = f" {word}\n{indent}  ".join(parts)
    return f"(\n{indent}  {joined}\n{indent})" if inner else joined


def _folded(values: Sequence[str], indent: str) -> str:
    """Return a list in as many lines as it needs."""
    flat = ", ".join(values)
    if len(flat) + len(indent) <= WIDTH - 30:
        return flat
    lines: list[str] = [""]
    for value in values:
        if lines[-1] and len(indent) + 4 + len(lines[-1]) + len(value) > WIDTH:
            lines.append("")
        lines[-1] += f"{value}, "
    inside = f"\n{indent}    ".join(line.rstrip() for line in lines).rstrip(",")
    return f"\n{indent}    {inside}\n{indent}  "


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    escaped = re.sub(r'["\\]', lambda found: "\\" + found[0], text)
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'
