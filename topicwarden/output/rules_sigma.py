"""Rules as Sigma: one YAML file each, of a rule for one event and, where events are counted, a correlation of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from topicwarden.output.attack import technique
from topicwarden.output.rule_conditions import (
    Compared,
    Condition,
    Every,
    InNetworks,
    Known,
    Leaf,
    Matches,
    Not,
    OneOf,
    Some,
    UnsupportedError,
)
from topicwarden.output.rule_fields import StandardQuery, standard_field
from topicwarden.output.rule_lines import LOSS, in_command_line
from topicwarden.output.rule_saying import Said, say
from topicwarden.output.rules import AUTHOR, REVISED, ExportedRule, PreparedRule, identifier, level, sentence, title

_LOGSOURCES: Final[Mapping[str, Mapping[str, str]]] = {
    "process": {"product": "linux", "category": "process_creation"},
    "network": {"product": "linux", "category": "network_connection"},
    "sensor": {"product": "zeek", "service": "conn"},
}
_PREFIXES: Final[Mapping[str, str]] = {
    "process": "proc_creation_lnx",
    "network": "net_connection_lnx",
    "sensor": "zeek_conn",
}
_HOST_FIELDS: Final[Mapping[str, str]] = {
    "host.name": "Computer",
    "process.name": "Image",
    "process.executable": "Image",
    "process.command_line": "CommandLine",
    "process.parent.name": "ParentImage",
    "process.parent.executable": "ParentImage",
    "user.name": "User",
    "destination.ip": "DestinationIp",
    "destination.address": "DestinationIp",
    "destination.domain": "DestinationHostname",
    "destination.port": "DestinationPort",
    "network.transport": "Protocol",
}
_SENSOR_FIELDS: Final[Mapping[str, str]] = {
    "source.ip": "id.orig_h",
    "source.port": "id.orig_p",
    "destination.ip": "id.resp_h",
    "destination.address": "id.resp_h",
    "destination.port": "id.resp_p",
    "network.protocol": "service",
    "network.transport": "proto",
}
_NAMES: Final = ("process.name", "process.parent.name")
"""File names, of which Sigma has the whole path."""
_IMPLIED: Final = ("event.action", "event.type", "event.category", "network.direction")
"""What a log source says by itself."""
_TACTICS: Final[Mapping[str, str]] = {
    "T1059": "execution",
    "T1059.004": "execution",
    "T1027": "defense-evasion",
}

Selection = dict[str, Any]


def sigma_rule(prepared: PreparedRule) -> ExportedRule:
    """Return a rule as one file for each kind of source; raises UnsupportedError where there is none."""
    files: dict[str, str] = {}
    losses: list[str] = []
    reasons: list[str] = []
    for query in prepared.queries:
        try:
            text, told = _documents(prepared, query)
        except UnsupportedError as error:
            reasons.append(str(error))
            continue
        stem = prepared.type.name.replace(".", "_").replace("-", "_")
        files[f"{_PREFIXES[query.source]}_{stem}.yml"] = text
        losses += told
    if not files:
        raise UnsupportedError("; ".join(reasons))
    losses += reasons
    return ExportedRule(prepared.type.code, prepared.type.name, files, tuple(dict.fromkeys(losses)))


def _documents(prepared: PreparedRule, query: StandardQuery) -> tuple[str, list[str]]:
    if query.source not in _LOGSOURCES:
        raise UnsupportedError("sequences of unlike events are not written in Sigma")
    (event,) = query.query.events
    said = say(event.condition, _Fields(query.source).leaf)
    if said.condition is None:
        raise UnsupportedError(f"Sigma's {query.source} events lack {said.wanting}")
    if isinstance(said.condition, bool):
        raise UnsupportedError(f"nothing is left of it for Sigma's {query.source} events")
    losses = [*query.losses, *sorted(said.losses), *prepared.losses_of_counting]
    counted = prepared.at_least > 1
    if counted and query.source == "process":
        losses.append("destinations are counted together: starts of programs do not tell them")
    rule = _rule(prepared, query.source, said.condition, losses, counted=counted)
    documents = [rule, _correlation(prepared, query.source)] if counted else [rule]
    return "---\n".join(_yaml(document) for document in documents), losses


def _rule(
    prepared: PreparedRule, source: str, condition: Condition, losses: Sequence[str], *, counted: bool
) -> dict[str, Any]:
    rule = prepared.type
    document: dict[str, Any] = {"title": title(rule) if not counted else f"{title(rule)}: one event"}
    document["id"] = identifier(rule.code, "sigma", source)
    if counted:
        document["name"] = _name(prepared, source)
    return document | {
        "status": "experimental",
        "description": _description(prepared, losses),
        "references": [technique(one).url for one in rule.attack],
        "author": AUTHOR,
        "date": REVISED,
        "tags": _tags(rule.attack),
        "logsource": dict(_LOGSOURCES[source]),
        "detection": _detection(condition, source),
        "falsepositives": [sentence(one) for one in prepared.detection.false_positives],
        "level": "informational" if counted else level(rule.severity),
    }


def _correlation(prepared: PreparedRule, source: str) -> dict[str, Any]:
    rule, fields = prepared.type, _Fields(source)
    group = [standard for field in prepared.detection.group if (standard := standard_field(field)) is not None]
    if source == "process":
        group = [field for field in group if not field.startswith("destination.")]
    return {
        "title": title(rule),
        "id": identifier(rule.code, "sigma correlation", source),
        "status": "experimental",
        "description": sentence(rule.meaning),
        "references": [technique(one).url for one in rule.attack],
        "author": AUTHOR,
        "date": REVISED,
        "tags": _tags(rule.attack),
        "correlation": {
            "type": "event_count",
            "rules": [_name(prepared, source)],
            "group-by": list(dict.fromkeys(name for field in group if (name := fields.name(field)) is not None)),
            "timespan": _timespan(prepared.detection.within),
            "condition": {"gte": prepared.at_least},
        },
        "falsepositives": [sentence(one) for one in prepared.detection.false_positives],
        "level": level(rule.severity),
    }


def _name(prepared: PreparedRule, source: str) -> str:
    return f"{prepared.type.name.replace('.', '_').replace('-', '_')}_{source}"


def _timespan(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"


def _description(prepared: PreparedRule, losses: Sequence[str]) -> str:
    told = sentence(prepared.type.meaning)
    if losses:
        told += f"\n\nWhat this rule says less, or more, than topicwarden's {prepared.type.code}:\n"
        told += "\n".join(f"- {sentence(one)}" for one in losses)
    return told


def _tags(techniques: Sequence[str]) -> list[str]:
    tactics = [
        _TACTICS.get(one) or (found.tactic or "").lower().replace(" ", "-")
        for one in techniques
        for found in (technique(one),)
    ]
    return [f"attack.{tag}" for tag in dict.fromkeys([*filter(None, tactics), *(one.lower() for one in techniques)])]


class _Fields:
    """Says conditions in Sigma's fields for one kind of source."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._fields = _SENSOR_FIELDS if source == "sensor" else _HOST_FIELDS

    def name(self, field: str) -> str | None:
        """Return Sigma's name of a field; None: it has none."""
        name = self._fields.get(field)
        connection = name is not None and name.startswith(("Destination", "Protocol"))
        return None if connection and self._source == "process" else name

    def leaf(self, leaf: Leaf, negative: bool) -> Said:
        """Say one condition, or its negation."""
        if leaf.field in _IMPLIED:
            return Said(not negative)
        if leaf.field == "process.args" and isinstance(leaf, OneOf):
            line = in_command_line(leaf)
            return Said(Not(line) if negative else line, frozenset({LOSS}))
        if leaf.field == "event.outcome":
            lost = frozenset({"whether a connection came to stand is not told apart"})
            return Said(True, lost) if negative else Said(None, why=("its outcome",))
        if self.name(leaf.field) is None:
            return Said(None, why=(leaf.field,))
        return Said(Not(leaf) if negative else leaf)


def _detection(condition: Condition, source: str) -> dict[str, Any]:
    """Return a detection: what must be there, what must not, and how they belong together."""
    writer = _Selections(source)
    return writer.write(condition)


class _Selections:
    """Names the parts of a condition."""

    def __init__(self, source: str) -> None:
        self._fields = _Fields(source)
        self._named: dict[str, Any] = {}
        self._base: Selection = {} if source != "network" else {"Initiated": "true"}

    def write(self, condition: Condition) -> dict[str, Any]:
        """Return the detection."""
        terms = condition.terms if isinstance(condition, Every) else (condition,)
        together: Selection = dict(self._base)
        rest: list[Condition] = []
        for term in terms:
            added = None if isinstance(term, Every | Some | Not) else self._item(term)
            if added is None or set(added) & set(together):
                rest.append(term)
            else:
                together |= added
        words = []
        if together:
            self._named["selection"] = together
            words.append("selection")
        words += [self._expression(term) for term in rest]
        return {**self._named, "condition": " and ".join(words)}

    def _expression(self, condition: Condition) -> str:
        """Return a condition in words, its parts named."""
        if isinstance(condition, Not):
            found = self._alternatives(condition.term)
            if found is not None:
                return f"not {self._name('filter_main', found)}"
            return f"not ({self._expression(condition.term)})"
        found = self._alternatives(condition)
        if found is not None:
            return self._name("selection", found)
        assert isinstance(condition, Every | Some)
        word = " and " if isinstance(condition, Every) else " or "
        return f"({word.join(self._expression(term) for term in condition.terms)})"

    def _name(self, stem: str, found: list[Selection]) -> str:
        number = 1 + sum(name.startswith(f"{stem}_") for name in self._named)
        self._named[f"{stem}_{number}"] = found[0] if len(found) == 1 else found
        return f"{stem}_{number}"

    def _alternatives(self, condition: Condition) -> list[Selection] | None:
        """Return a condition as maps of which one must fit; None: it is not so simple."""
        branches = condition.terms if isinstance(condition, Some) else (condition,)
        found: list[Selection] = []
        for branch in branches:
            selection = self._together(branch)
            if selection is None:
                return None
            found.append(selection)
        return found

    def _together(self, condition: Condition) -> Selection | None:
        terms = condition.terms if isinstance(condition, Every) else (condition,)
        selection: Selection = {}
        for term in terms:
            if isinstance(term, Every | Some | Not):
                return None
            item = self._item(term)
            if set(item) & set(selection):
                return None
            selection |= item
        return selection

    def _item(self, leaf: Leaf) -> Selection:
        """Return one condition as a field with its modifiers and values."""
        name = self._fields.name(leaf.field)
        assert name is not None
        match leaf:
            case Known():
                return {f"{name}|exists": True}
            case Compared():
                word = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}[leaf.comparator]
                return {f"{name}|{word}": leaf.number}
            case InNetworks():
                return {f"{name}|cidr": list(leaf.networks)}
            case Matches():
                return {f"{name}|re": _one_or_list([f"^{one}$" for one in leaf.expressions])}
            case OneOf():
                return self._one_of(leaf, name)

    def _one_of(self, leaf: OneOf, name: str) -> Selection:
        values = list(leaf.values)
        modifiers = "|cased" if leaf.exact else ""
        if leaf.field in _NAMES:
            if leaf.wildcards:
                shape, bare = _shape([f"*/{value}" for value in values])
                return {f"{name}{shape}{modifiers}": _one_or_list(bare)}
            return {f"{name}|endswith{modifiers}": _one_or_list([f"/{_escaped(value)}" for value in values])}
        if leaf.wildcards:
            shape, bare = _shape([str(value) for value in values])
            return {f"{name}{shape}{modifiers}": _one_or_list(bare)}
        return {f"{name}{modifiers}": _one_or_list([_escaped(v) if isinstance(v, str) else v for v in values])}


def _shape(patterns: list[str]) -> tuple[str, list[str]]:
    """Return the modifier for wildcards that are at the same ends of all patterns only, and the patterns without."""
    for modifier, begin, end in (("|contains", "*", "*"), ("|endswith", "*", ""), ("|startswith", "", "*")):
        bare = [pattern.removeprefix(begin).removesuffix(end) for pattern in patterns]
        longer = len(begin + end)
        if all(len(p) == len(b) + longer and not set("*?") & set(b) for p, b in zip(patterns, bare, strict=True)):
            return modifier, bare
    return "", patterns


def _escaped(value: object) -> str:
    """Return a text in which nothing is a wildcard."""
    return str(value).replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")


def _one_or_list(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)


class _Dumper(yaml.SafeDumper):
    """Writes YAML as Sigma's rules have it: lists indented, prose in blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - yaml's own
        """Indent lists in maps."""
        super().increase_indent(flow, False)


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, indent=4)
