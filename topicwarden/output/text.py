"""A finding as lines for a person: `brief` to scroll by while watching, `full` to be read.

Lines are rich Texts: their `plain` is complete without colour. Nothing here prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from string import Formatter
from types import MappingProxyType
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from topicwarden.findings import Finding, FindingType, Scalar, Severity
from topicwarden.output import wording
from topicwarden.output.attack import technique
from topicwarden.output.behind import command_line, place, process_in_words
from topicwarden.output.escape import MIN_COLUMNS, quoted, visible
from topicwarden.output.layout import columns, wrap

SEVERITY_STYLE: Final[Mapping[Severity, str]] = MappingProxyType(
    {
        Severity.CRITICAL: "bold white on red",
        Severity.HIGH: "bold red",
        Severity.MEDIUM: "bold yellow",
        Severity.LOW: "cyan",
        Severity.INFO: "dim",
    }
)
_NAME_STYLE: Final = "cyan"
_SEVERITY_COLUMNS: Final = len("CRITICAL  ")
_LABEL_COLUMNS: Final = 11
_NARROW: Final = 60
_LEAST_TITLE: Final = 24
_LONGEST_NAME: Final = 400
_TIMES: Final = re.compile(r"^ times\b")
_CLIENT_FIELDS: Final = frozenset({"user", "client_id", "identity", "protocol", "address", "vhost"})
_PROSE: Final = frozenset({"reason", "how", "others", "period"})
"""Evidence that is our own words; names in it are made visible, not put in quotes."""
_NAMES: Final = frozenset({"port", "pid"})
"""Evidence that is a number and no quantity."""
FRAMEWORKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "nist-800-53r5": "NIST SP 800-53r5",
        "iso-27001-2022": "ISO/IEC 27001:2022",
        "iec-62443-3-3": "IEC 62443-3-3",
        "pci-dss-4.0": "PCI DSS 4.0",
        "soc2": "SOC 2",
    }
)


def title(finding: Finding, name_columns: int | None = None) -> Text:
    """Return the catalogue's one-line title with this finding's names and numbers, each made visible.

    Fields: client, broker, count, witness (the first one seen), every evidence key, and of the client user, client_id,
    identity, protocol, address, vhost. A field the finding has no value for reads `(not recorded)`.
    """
    line = Text()
    once = False
    for literal, field, _, _ in Formatter().parse(finding.type.title):
        line.append(_TIMES.sub(" time", literal) if once else literal)
        once = field == "count" and finding.count == 1
        if field is not None:
            line.append(_field(finding, field, name_columns), _NAME_STYLE)
    return line


def _field(finding: Finding, field: str, name_columns: int | None) -> str:
    value: Scalar | None
    if field == "client":
        return wording.client_name(finding.client, finding.broker, name_columns)
    if field == "broker":
        value = finding.broker if finding.host is None else finding.host
    elif field == "count":
        value = finding.count
    elif field == "witness":
        value = next(iter(finding.witnesses), None)
    elif field in finding.evidence:
        value = finding.evidence[field]
    elif field in _CLIENT_FIELDS and finding.client is not None:
        value = getattr(finding.client, field)
    else:
        value = None
    if value is None:
        return "(not recorded)"
    return _fact(field, value, name_columns)


def _fact(key: str, value: Scalar, name_columns: int | None) -> str:
    if key in _PROSE and isinstance(value, str):
        return visible(value)
    if key in _NAMES and isinstance(value, int):
        return str(value)
    return wording.scalar(value, name_columns)


def brief(finding: Finding, width: int | None = None) -> list[Text]:
    """Return a new finding as a heading, its title and who it is about: three lines, more only where they wrap.

    `width` in columns; None (not a terminal) wraps nothing.
    """
    names = _name_columns(width)
    indent = " " * _SEVERITY_COLUMNS if width is None or width >= _NARROW else "  "
    heading = Text.assemble(
        _severity(finding.severity),
        (finding.type.code, "bold"),
        f" {finding.type.name}  ",
        (wording.timestamp(finding.last_ns), "dim"),
    )
    lines = wrap(heading, width, rest=indent)
    lines += wrap(title(finding, names), width, indent, indent)
    if "where_file" in finding.evidence:
        return lines + _about_grant(finding, width, indent)
    facts = []
    if finding.client is not None:
        facts += _who(finding, names, short=True)
    facts.append(place(finding, names))
    if finding.client is not None and finding.client.vhost is not None:
        facts.append(f"virtual host {quoted(finding.client.vhost, names)}")
    facts.append(wording.times(finding.count))
    facts.append(wording.CERTAINTY_SHORT[finding.certainty])
    if finding.accepted is not None:
        facts.append(f"accepted: {visible(finding.accepted)}")
    lines += wrap(Text(", ".join(facts), "dim"), width, indent, indent)
    if finding.behind:
        lines += _behind(finding, width, names, indent)
    return lines


def _behind(finding: Finding, width: int | None, names: int, indent: str) -> list[Text]:
    """Return the first process behind a finding: what was run, and who ran it."""
    behind = finding.behind[0]
    lines = wrap(Text(f"run: {command_line(behind.process, names)}"), width, indent, indent + "  ")
    facts = process_in_words(behind, names)
    more = len(finding.behind) - 1 + finding.more_behind
    if more:
        facts += f"; and {wording.counted(more, 'further command')}"
    return lines + wrap(Text(facts, "dim"), width, indent, indent + "  ")


def grew(finding: Finding, width: int | None = None) -> Text:
    """Return a finding that was shown before as one line that says how often it happened by now."""
    heading = Text.assemble(_severity(finding.severity), (finding.type.code, "bold"), " ")
    if width is not None and width < _NARROW:
        heading = Text.assemble(_severity(finding.severity, pad=False), (finding.type.code, "bold"), " ")
    names = len(finding.witnesses)
    spread = f", on more than {names} names" if finding.more_witnesses else f", on {names} names" if names > 1 else ""
    often = wording.times(finding.count)
    for tail in (f", again: {often} by now{spread}", f", again: {often} by now", f" again: {often}"):
        room = None if width is None else width - cell_len(heading.plain) - cell_len(tail)
        if room is None or room >= _LEAST_TITLE:
            break
    subject = title(finding, _name_columns(width))
    if room is not None and cell_len(subject.plain) > room:
        subject = _cut(title(finding, max(room // 2, MIN_COLUMNS + 8)), room)
    return Text.assemble(heading, subject, (tail, "bold"))


def _about_grant(finding: Finding, width: int | None, indent: str) -> list[Text]:
    """Return where a grant stands, whose it is, and what to write instead."""
    evidence, names = finding.evidence, _name_columns(width)
    where = f"{visible(str(evidence['where_file']))}" + (
        f":{evidence['where_line']}" if "where_line" in evidence else ""
    )
    facts = [where]
    if "grant" in evidence:
        facts.append(quoted(str(evidence["grant"]), names))
    if "holder" in evidence:
        facts.append(f"for {visible(str(evidence['holder']))}")
    lines = wrap(Text(", ".join(facts)), width, indent, indent)
    facts = []
    if finding.client is not None:
        facts.append(wording.client_name(finding.client, finding.broker, names))
        if finding.client.vhost is not None:
            facts[-1] += f" in virtual host {quoted(finding.client.vhost, names)}"
    if "alike" in evidence:
        facts.append(f"and {wording.number(int(evidence['alike']))} more alike")
    if "stands_for" in evidence:
        facts.append(f"stands for {visible(str(evidence['stands_for']))}")
    if len(finding.witnesses) > 1:
        facts.append("also " + "; ".join(visible(name) for name in list(finding.witnesses)[1:]))
    facts.append(f"broker {quoted(finding.broker, names)}")
    facts.append(wording.CERTAINTY_SHORT[finding.certainty])
    if "broker_says" in evidence:
        facts.append(visible(str(evidence["broker_says"])))
    if finding.accepted is not None:
        facts.append(f"accepted: {visible(finding.accepted)}")
    lines += wrap(Text(", ".join(facts), "dim"), width, indent, indent)
    if "indirect" in evidence:
        lines += wrap(Text(f"it also lets a client {visible(str(evidence['indirect']))}"), width, indent, indent)
    for number, line in enumerate(str(evidence.get("instead", "")).split("\n") if evidence.get("instead") else ()):
        # A line to copy is never folded.
        lines.append(Text.assemble(indent, ("instead: " if number == 0 else " " * 9, "green"), visible(line)))
    return lines


def full(finding: Finding, width: int | None = None) -> list[Text]:
    """Return everything there is to say about a finding, under labels."""
    lines = [Text.assemble(_severity(finding.severity), (finding.type.code, "bold"), f" {finding.type.name}")]
    lines += wrap(title(finding, _LONGEST_NAME), width, "  ", "  ")
    for label, values in _sections(finding):
        lines += _labelled(label, values, width)
    return lines


def explain(finding_type: FindingType, width: int | None = None) -> list[Text]:
    """Return what the catalogue says about a code, for `explain` and for whoever reads a report."""
    lines = [Text.assemble(_severity(finding_type.severity), (finding_type.code, "bold"), f" {finding_type.name}")]
    lines += wrap(Text(finding_type.title), width, "  ", "  ")
    sections = [("compares", [Text(finding_type.difference)])]
    if finding_type.needs_policy:
        sections.append(("needs", [Text("a policy")]))
    for label, values in [*sections, *_catalogue_sections(finding_type)]:
        lines += _labelled(label, values, width)
    return lines


def _sections(finding: Finding) -> Iterator[tuple[str, list[Text]]]:
    """Yield the labels of a full finding with their paragraphs."""
    if finding.accepted is not None:
        yield "accepted", [Text.assemble("by an exception of the policy: ", visible(finding.accepted))]
    client = finding.client
    if client is not None:
        where = [
            f"broker {quoted(finding.broker, _LONGEST_NAME)}",
            f"protocol {quoted(client.protocol, _LONGEST_NAME)}",
        ]
        if client.vhost is not None:
            where.append(f"virtual host {quoted(client.vhost, _LONGEST_NAME)}")
        if client.tls_subject is not None:
            where.append(f"TLS subject {quoted(client.tls_subject, _LONGEST_NAME)}")
        yield "who", [Text(", ".join(_who(finding, _LONGEST_NAME))), Text(", ".join(where))]
    else:
        yield "where", [Text(place(finding, _LONGEST_NAME))]
    if finding.witnesses:
        # The count stands first: after a right-to-left name a terminal could turn its digits around.
        rows = [
            [Text(wording.times(count)), Text(quoted(name, _LONGEST_NAME), _NAME_STYLE)]
            for name, count in finding.witnesses.items()
        ]
        values = columns(rows, right=[0])
        if finding.more_witnesses:
            values.append(Text(f"and {wording.times(finding.more_witnesses)} on other names, which were not kept"))
        yield "what", values
    if finding.evidence:
        yield (
            "evidence",
            [
                Text(f"{visible(key.replace('_', ' '))}: {_fact(key, value, _LONGEST_NAME)}")
                for key, value in finding.evidence.items()
            ],
        )
    if finding.behind:
        values = []
        for behind in finding.behind:
            values.append(Text(command_line(behind.process, _LONGEST_NAME)))
            values.append(Text("  " + process_in_words(behind, _LONGEST_NAME)))
        if finding.more_behind:
            values.append(Text(f"and {wording.counted(finding.more_behind, 'further command')}, which were not kept"))
        yield "run", values
    seen = Text(f"{wording.times(finding.count)}, first {wording.timestamp(finding.first_ns)}")
    if finding.last_ns != finding.first_ns:
        seen.append(f", last {wording.timestamp(finding.last_ns)}")
    yield "seen", [seen]
    yield "certainty", [Text(wording.CERTAINTY[finding.certainty])]
    yield from _catalogue_sections(finding.type)
    yield "id", [Text(finding.fingerprint)]


def _catalogue_sections(finding_type: FindingType) -> Iterator[tuple[str, list[Text]]]:
    yield "meaning", _paragraphs(finding_type.meaning)
    yield "why", _paragraphs(finding_type.why)
    yield "fix", _paragraphs(finding_type.fix)
    yield "limits", [Text(visible(" ".join(limit.split()))) for limit in finding_type.limits]
    if finding_type.attack:
        yield "ATT&CK", [Text(f"{item} {technique(item).full_name}") for item in finding_type.attack]
    if finding_type.controls:
        yield (
            "controls",
            [Text(f"{FRAMEWORKS.get(key, key)}: {', '.join(ids)}") for key, ids in finding_type.controls.items()],
        )


def _paragraphs(prose: str) -> list[Text]:
    return [Text(visible(line.rstrip())) for line in prose.strip("\n").split("\n") if line.strip()]


def _labelled(label: str, values: list[Text], width: int | None) -> list[Text]:
    """Return paragraphs beside their label; below it where lines are narrow."""
    narrow = width is not None and width < _NARROW
    indent = "    " if narrow else "  " + " " * _LABEL_COLUMNS
    lines = [Text(f"  {label}", "bold")] if narrow else []
    for index, value in enumerate(values):
        first = indent if narrow or index else f"  {label:<{_LABEL_COLUMNS}}"
        wrapped = wrap(value, width, first, indent + "  ")
        if first is not indent:
            wrapped[0].stylize("bold", 0, _LABEL_COLUMNS + 2)
        lines += wrapped
    return lines


def _who(finding: Finding, name_columns: int, short: bool = False) -> list[str]:
    client = finding.client
    if client is None:
        return []
    parts = [wording.user_in_words(client, name_columns, short)]
    if client.client_id or client.protocol == "mqtt":  # elsewhere clients have none
        parts.append(f"client id {quoted(client.client_id, name_columns)}" if client.client_id else "no client id")
    parts.append(wording.address_in_words(client, name_columns))
    return parts


def _severity(severity: Severity, pad: bool = True) -> Text:
    word = Text(severity.name, SEVERITY_STYLE[severity])
    return Text.assemble(word, " " * (_SEVERITY_COLUMNS - len(severity.name) if pad else 1))


def _name_columns(width: int | None) -> int:
    """Return how many columns one name may take in a brief."""
    return 200 if width is None else max(MIN_COLUMNS, width - 12)


def _cut(line: Text, room: int) -> Text:
    """Return the beginning of `line` in `room` columns, marked as cut."""
    if room < 2:
        return Text("")
    cut = line.copy()
    cut.truncate(room, overflow="ellipsis")
    return cut
