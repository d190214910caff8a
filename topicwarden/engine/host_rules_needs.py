"""The pre-filter: what can be said of a query without asking `eql`, read off the query, and quick to ask.

Asking `eql` takes microseconds, and most events of a host match no rule: a look at a field or two spares it. An answer
of NO or YES is what `eql` would say; MAYBE means it must be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from eql import ast  # type: ignore[import-untyped]

from topicwarden.engine.host_rules_query import MAYBE, NO, YES, Needs, Path, Values, Verdict

_OF_TEXT: Final = frozenset({"cidrMatch", "wildcard", "match", "matchLite", "startsWith", "endsWith", "stringContains"})
"""Functions that are false or null where their first argument is missing."""
_ODD: Final = object()
"""What a field is where its path goes through something that is no object."""


def needs_of(expression: Any) -> Needs:
    """Return what can be said of an expression of `eql.ast`."""
    return Needs(_verdict(expression)[1], _necessary(expression))


def _verdict(node: Any) -> tuple[int, Verdict]:
    """Return the verdict of a node, and how dear it is: what is cheap and decides is asked first."""
    if isinstance(node, ast.And):
        return _compound(node.terms, least=True)
    if isinstance(node, ast.Or):
        return _compound(node.terms, least=False)
    if isinstance(node, ast.Comparison) and node.comparator == ast.Comparison.EQ:
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if _is_path(one) and isinstance(other, ast.Literal):
                return 0, _equals(_getter(_path(one)), other.value)
    if isinstance(node, ast.InSet) and _is_path(node.expression):
        if all(isinstance(item, ast.Literal) for item in node.container):
            values = frozenset(_folded(item.value) for item in node.container)
            return 1, _one_of(_getter(_path(node.expression)), values)
    elif isinstance(node, ast.IsNull) and _is_path(node.expr):
        return 1, _there(_getter(_path(node.expr)), there=NO, missing=YES)
    elif isinstance(node, ast.IsNotNull) and _is_path(node.expr):
        return 1, _there(_getter(_path(node.expr)), there=YES, missing=NO)
    elif isinstance(node, ast.Literal) and node.value is True:
        return 0, lambda _: YES
    needed = list(_necessary(node))
    if needed:
        return 3, _there(_getter(needed[0]), there=MAYBE, missing=NO)
    return 4, lambda _: MAYBE


def _compound(terms: Any, *, least: bool) -> tuple[int, Verdict]:
    ordered = sorted((_verdict(term) for term in terms), key=lambda entry: entry[0])
    parts = [part for _, part in ordered]
    dearness = ordered[-1][0] + 1 if least else 2

    def all_of(document: Mapping[str, Any]) -> int:
        worst = YES
        for part in parts:
            found = part(document)
            if found < worst:
                if found == NO:
                    return NO
                worst = found
        return worst

    def any_of(document: Mapping[str, Any]) -> int:
        best = NO
        for part in parts:
            found = part(document)
            if found > best:
                if found == YES:
                    return YES
                best = found
        return best

    return (min(dearness, 3), all_of) if least else (2, any_of)


def _getter(path: Path) -> Callable[[Mapping[str, Any]], Any]:
    """Return what reads a field: None where it is missing, _ODD where only `eql` knows what it is."""
    first, *rest = path

    def get(document: Mapping[str, Any]) -> Any:
        value = document.get(first)
        for part in rest:
            if type(value) is not dict:
                # EQL reads `a.b` of a text in `a` as a comparison.
                return None if value is None else _ODD
            value = value.get(part)
        return value

    return get


def _equals(get: Callable[[Mapping[str, Any]], Any], wanted: Any) -> Verdict:
    kind = type(wanted)
    wanted = _folded(wanted)

    def verdict(document: Mapping[str, Any]) -> int:
        value = get(document)
        if type(value) is kind:
            return YES if (value.lower() if kind is str else value) == wanted else NO
        return NO if value is None else MAYBE

    return verdict


def _one_of(get: Callable[[Mapping[str, Any]], Any], values: frozenset[object]) -> Verdict:
    def verdict(document: Mapping[str, Any]) -> int:
        value = get(document)
        if value is None:
            return NO
        kind = type(value)
        if kind is str:
            return YES if value.lower() in values else NO
        if kind is int:
            return YES if value in values else NO
        return MAYBE

    return verdict


def _there(get: Callable[[Mapping[str, Any]], Any], *, there: int, missing: int) -> Verdict:
    def verdict(document: Mapping[str, Any]) -> int:
        value = get(document)
        return missing if value is None else MAYBE if value is _ODD else there

    return verdict


def _necessary(node: Any) -> dict[Path, Values]:
    """Return the fields that must be there for a node to be true, with what they must be one of."""
    if isinstance(node, ast.And):
        found: dict[Path, Values] = {}
        for term in node.terms:
            for path, values in _necessary(term).items():
                known = found.get(path)
                found[path] = values if known is None else known if values is None else known & values
        return found
    if isinstance(node, ast.Or):
        first, *rest = [_necessary(term) for term in node.terms]
        for other in rest:
            first = {path: _either(values, other[path]) for path, values in first.items() if path in other}
        return first
    if isinstance(node, ast.Comparison):
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if node.comparator == ast.Comparison.EQ and _is_path(one) and isinstance(other, ast.Literal):
                return {_path(one): frozenset({_folded(other.value)})}
        return {_path(side): None for side in (node.left, node.right) if _is_path(side)}
    if isinstance(node, ast.InSet) and _is_path(node.expression):
        literal = all(isinstance(item, ast.Literal) for item in node.container)
        return {_path(node.expression): frozenset(_folded(i.value) for i in node.container)} if literal else {}
    if isinstance(node, ast.IsNotNull):
        return {_path(node.expr): None} if _is_path(node.expr) else {}
    if isinstance(node, ast.FunctionCall):
        known_function = node.name in _OF_TEXT and node.arguments and _is_path(node.arguments[0])
        return {_path(node.arguments[0]): None} if known_function else {}
    return {_path(node): None} if _is_path(node) else {}


def _is_path(node: Any) -> bool:
    return isinstance(node, ast.Field) and all(isinstance(part, str) for part in node.path)


def _path(node: Any) -> Path:
    return (node.base, *node.path)


def _either(one: Values, other: Values) -> Values:
    return None if one is None or other is None else one | other


def _folded(value: object) -> object:
    return value.lower() if isinstance(value, str) else value
