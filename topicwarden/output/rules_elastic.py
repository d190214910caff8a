"""Rules as in elastic/detection-rules: one TOML file each, in EQL or, where events are counted, in ES|QL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from topicwarden.findings import Severity
from topicwarden.output.attack import FRAMEWORK, technique
from topicwarden.output.rule_conditions import Condition, Leaf, Not, OneOf, UnsupportedError, every, leaves
from topicwarden.output.rule_fields import StandardQuery, standard_field
from topicwarden.output.rule_lines import LOSS, in_command_line
from topicwarden.output.rule_saying import Said, say
from topicwarden.output.rules import (
    AUTHOR,
    REVISED,
    ExportedRule,
    PreparedRule,
    identifier,
    level,
    sentence,
    title,
)
from topicwarden.output.rules_eql import eql, esql

RISK: Final[Mapping[Severity, int]] = {
    Severity.INFO: 21,
    Severity.LOW: 21,
    Severity.MEDIUM: 47,
    Severity.HIGH: 73,
    Severity.CRITICAL: 99,
}
"""Risk scores as Elastic's own rules have them."""
_FIRST: Final[Mapping[str, Sequence[str]]] = {
    "host": ('host.os.type == "linux"',),
    "process": ('host.os.type == "linux"', 'event.type == "start"'),
    "network": ('host.os.type == "linux"', 'event.type == "start"'),
    "sensor": (),
}
_INDEXES: Final[Mapping[str, Sequence[str]]] = {
    "host": ("logs-endpoint.events.process*", "logs-endpoint.events.network*"),
    "process": ("logs-endpoint.events.process*",),
    "network": ("logs-endpoint.events.network*",),
    "sensor": ("logs-zeek.connection*", "logs-network_traffic.*", "packetbeat-*"),
}
_INTEGRATIONS: Final[Mapping[str, Sequence[str]]] = {
    "host": ("endpoint",),
    "process": ("endpoint",),
    "network": ("endpoint",),
    "sensor": ("zeek", "network_traffic"),
}
_SOURCES: Final[Mapping[str, str]] = {
    "host": "Data Source: Elastic Defend",
    "process": "Data Source: Elastic Defend",
    "network": "Data Source: Elastic Defend",
    "sensor": "Data Source: Network Packet Capture",
}
_SETUPS: Final[Mapping[str, str]] = {
    "host": "Elastic Defend on the Linux hosts, with events of processes and of the network.",
    "process": "Elastic Defend on the Linux hosts, with events of processes. Other agents have other words in "
    "event.action: auditd_manager and Auditbeat say `executed`.",
    "network": "Elastic Defend on the Linux hosts, with events of the network. Other agents have other words in "
    "event.action: auditd_manager and Auditbeat say `connected-to`.",
    "sensor": "A network sensor that recognises protocols whatever their ports (Zeek with its MQTT and XMPP analyzers, "
    "Packetbeat), and writes what it found to network.protocol.",
}
_MINUTE: Final = 60
_FIRST_SEEN: Final = "Esql.first_seen"
_LAST_SEEN: Final = "Esql.last_seen"
_COUNT: Final = "Esql.event_count"
_TACTICS: Final[Mapping[str, tuple[str, str]]] = {
    "T1059": ("TA0002", "Execution"),
    "T1059.004": ("TA0002", "Execution"),
    "T1027": ("TA0005", "Defense Evasion"),
}
"""Of techniques that our table gives none."""


def elastic_rule(prepared: PreparedRule) -> ExportedRule:
    """Return a rule as one file for each kind of source; raises UnsupportedError where there is none."""
    files: dict[str, str] = {}
    losses: list[str] = [*prepared.losses_of_counting]
    for query in prepared.queries:
        counted = prepared.at_least > 1
        told = [*query.losses, *prepared.losses_of_counting]
        text, more = _counting(prepared, query) if counted else (eql(query.query, _FIRST[query.source]), [])
        told += more
        stem = f"command_and_control_{prepared.type.name.replace('.', '_').replace('-', '_')}"
        files[f"{stem}_{query.source}.toml"] = _document(prepared, query, text, counted, list(dict.fromkeys(told)))
        losses += told
    return ExportedRule(prepared.type.code, prepared.type.name, files, tuple(dict.fromkeys(losses)))


def _counting(prepared: PreparedRule, query: StandardQuery) -> tuple[str, list[str]]:
    """Return a query in ES|QL that counts, and what it loses by being one."""
    if query.query.span_seconds is not None:
        raise UnsupportedError("sequences cannot be counted")
    (event,) = query.query.events
    said = say(event.condition, _countable)
    if said.condition is None or isinstance(said.condition, bool):
        raise UnsupportedError(f"ES|QL has no words for {said.wanting}")
    condition = every([*_kinds(query.source), said.condition])
    group = [standard_field(field) for field in prepared.detection.group]
    by = [field for field in group if field is not None]
    losses = sorted(said.losses)
    if query.source == "process" and any(field.startswith("destination.") for field in by):
        by = [field for field in by if not field.startswith("destination.")]
        losses.append("destinations are counted together: starts of programs do not tell them")
    shown = [field for path in prepared.detection.evidence.values() if (field := standard_field(path)) is not None]
    if query.source == "process":
        shown = [*(field for field in shown if not field.startswith("destination.")), "process.command_line"]
    values = [field for field in dict.fromkeys(shown) if field not in by]
    stats = [f"{_COUNT} = COUNT(*)", f"{_FIRST_SEEN} = MIN(@timestamp)", f"{_LAST_SEEN} = MAX(@timestamp)"]
    stats += [f"Esql.{field.replace('.', '_')}_values = VALUES({field})" for field in values]
    kept = [*by, *(stat.partition(" = ")[0] for stat in stats)]
    lines = [f"FROM {', '.join(_INDEXES[query.source])}"]
    # An agent may give several actions of one event; a comparison with a list is null.
    lines += ["| MV_EXPAND event.action"] if any(leaf.field == "event.action" for leaf in leaves(condition)) else []
    lines += [f"| WHERE\n    {esql(condition)}", "| STATS\n    " + ",\n    ".join(stats) + f"\n  BY {', '.join(by)}"]
    lines += [f"| WHERE {_COUNT} >= {prepared.at_least}", f"| SORT {_COUNT} DESC", f"| KEEP {', '.join(kept)}"]
    interval = _interval(prepared.detection.within)
    losses.append(f"it counts over {_minutes(prepared.detection.within) + interval} minutes, every {interval} minutes")
    return "\n".join(lines) + "\n", losses


def _kinds(source: str) -> list[Condition]:
    if source == "sensor":
        return []
    return [OneOf("host.os.type", ("linux",)), OneOf("event.type", ("start",))]


def _countable(leaf: Leaf, negative: bool) -> Said:
    """Say a condition where fields hold one value each: arguments are looked for in the command line."""
    if isinstance(leaf, OneOf) and leaf.field == "process.args":
        line = in_command_line(leaf)
        return Said(Not(line) if negative else line, frozenset({LOSS}))
    return Said(Not(leaf) if negative else leaf)


def _minutes(seconds: float) -> int:
    return max(1, round(seconds / _MINUTE))


def _interval(within: float) -> int:
    """Return how often it is asked, in minutes: often enough that little is counted over more than is meant."""
    return min(60, max(5, _minutes(within) // 12))


def _document(prepared: PreparedRule, query: StandardQuery, text: str, counted: bool, losses: Sequence[str]) -> str:
    rule = prepared.type
    date = REVISED.replace("-", "/")
    references = [technique(one).url for one in rule.attack]
    lines = [
        "[metadata]",
        f"creation_date = {_string(date)}",
        f"integration = {_strings(_INTEGRATIONS[query.source])}",
        'maturity = "production"',
        f"updated_date = {_string(date)}",
        "",
        "[rule]",
        f"author = {_strings([AUTHOR])}",
        f"description = {_prose(sentence(rule.meaning))}",
        f"false_positives = {_strings(map(sentence, prepared.detection.false_positives))}",
    ]
    if counted:
        interval = _interval(prepared.detection.within)
        lines += [f'from = "now-{_minutes(prepared.detection.within) + interval}m"', f'interval = "{interval}m"']
    else:
        lines += ['from = "now-9m"', f"index = {_strings(_INDEXES[query.source])}"]
    lines += [
        f"language = {_string('esql' if counted else 'eql')}",
        'license = "Apache-2.0"',
        f"name = {_string(title(rule))}",
        f"note = {_prose(_note(prepared, losses))}",
        f"references = {_strings(references)}",
        f"risk_score = {RISK[rule.severity]}",
        f"rule_id = {_string(identifier(rule.code, 'elastic', query.source))}",
        f"setup = {_prose('## Setup' + chr(10) * 2 + _SETUPS[query.source])}",
        f"severity = {_string(level(rule.severity))}",
        f"tags = {_strings(_tags(query.source, rule.attack))}",
        'timestamp_override = "event.ingested"',
        f"type = {_string('esql' if counted else 'eql')}",
        f"query = '''\n{_literal(text)}'''",
        "",
        *_threats(rule.attack),
    ]
    return "\n".join(lines)


def _note(prepared: PreparedRule, losses: Sequence[str]) -> str:
    rule, detection = prepared.type, prepared.detection
    parts = [
        "## Triage and analysis",
        f"### Why it matters\n\n{sentence(rule.why)}",
        f"### What to do\n\n{sentence(rule.fix)}",
        "### Tuning\n\n" + "\n".join(f"- {sentence(one)}" for one in detection.tuning),
        "### What it cannot see\n\n" + "\n".join(f"- {sentence(one)}" for one in rule.limits),
    ]
    if losses:
        told = "\n".join(f"- {sentence(one)}" for one in losses)
        parts.append(f"### What this rule says less, or more, than topicwarden's {rule.code}\n\n{told}")
    return "\n\n".join(parts)


def _tags(source: str, techniques: Sequence[str]) -> list[str]:
    tactics = list(dict.fromkeys(name for one in techniques if (name := _tactic(one)[1])))
    domain = ["Domain: Network"] if source == "sensor" else ["Domain: Endpoint", "OS: Linux"]
    return [
        *domain,
        "Use Case: Threat Detection",
        *(f"Tactic: {name}" for name in tactics),
        _SOURCES[source],
        "Resources: Investigation Guide",
    ]


def _tactic(technique_id: str) -> tuple[str, str]:
    found = technique(technique_id)
    return _TACTICS.get(technique_id, (found.tactic_id or "", found.tactic or ""))


def _threats(techniques: Sequence[str]) -> list[str]:
    by_tactic: dict[tuple[str, str], dict[str, list[str]]] = {}
    for one in techniques:
        tactic = _tactic(one)
        if tactic[0]:
            parent = one.partition(".")[0]
            subs = by_tactic.setdefault(tactic, {}).setdefault(parent, [])
            subs += [one] if "." in one else []
    lines: list[str] = []
    for (tactic_id, tactic_name), parents in by_tactic.items():
        lines += ["[[rule.threat]]", f"framework = {_string(FRAMEWORK)}", ""]
        for parent, subs in parents.items():
            lines += ["[[rule.threat.technique]]", *_named(parent), ""]
            for sub in subs:
                lines += ["[[rule.threat.technique.subtechnique]]", *_named(sub), ""]
        reference = _string(f"https://attack.mitre.org/tactics/{tactic_id}/")
        lines += ["[rule.threat.tactic]", f"id = {_string(tactic_id)}", f"name = {_string(tactic_name)}"]
        lines += [f"reference = {reference}", ""]
    return lines


def _named(technique_id: str) -> list[str]:
    found = technique(technique_id)
    return [f"id = {_string(found.id)}", f"name = {_string(found.name)}", f"reference = {_string(found.url)}"]


def _string(text: str) -> str:
    """Return a basic string of TOML 1.0."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return (
        '"'
        + "".join(letter if letter >= " " and letter != "\x7f" else f"\\u{ord(letter):04x}" for letter in escaped)
        + '"'
    )


def _strings(texts: Iterable[str]) -> str:
    listed = [_string(text) for text in texts]
    flat = f"[{', '.join(listed)}]"
    return flat if len(flat) <= 90 else "[\n" + "".join(f"    {one},\n" for one in listed) + "]"


def _prose(text: str) -> str:
    """Return a string of several lines, which ends with a line feed."""
    escaped = text.replace("\\", "\\\\").replace('"""', '""\\"')
    return f'"""\n{escaped}\n"""'


def _literal(text: str) -> str:
    """Return the inside of a literal string of several lines; raises UnsupportedError for what would end it."""
    if "'''" in text:
        raise UnsupportedError("its query cannot be quoted")
    return text
