"""The closing summary as lines for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from topicwarden.events import Client
from topicwarden.findings import Finding
from topicwarden.output import wording
from topicwarden.output.escape import MIN_COLUMNS, quoted, visible
from topicwarden.output.layout import columns, wrap
from topicwarden.output.summary import InventoryRow, Kept, ScannedGrants, SourceSummary, Summary, next_steps
from topicwarden.output.text import SEVERITY_STYLE, title

MAX_FINDINGS: Final = 50
MAX_ACCEPTED: Final = 20
MAX_CLIENTS: Final = 20
_NARROW: Final = 60
_WIDE: Final = 100
_ADDRESS_COLUMNS: Final = 39
"""An IPv6 address at its longest."""


def summary_lines(summary: Summary, width: int | None = None) -> list[Text]:
    """Return the summary in lines of at most `width` columns (None: as long as they are)."""
    span = f"{wording.timestamp(summary.started_ns, 0)} to {wording.timestamp(summary.ended_ns, 0)}".replace(".Z", "Z")
    length = wording.duration(summary.ended_ns - summary.started_ns)
    ended = ", interrupted" if summary.interrupted else ""
    heading = f"topicwarden {summary.command}: {span} ({length}{ended})"
    if summary.scanned and not summary.sources:
        heading = f"topicwarden {summary.command}{ended}"
    lines = wrap(Text(heading, "bold"), width, rest="  ")
    sections = [_mode(summary, width), *([_grants(summary, width)] if summary.scanned else [])]
    if summary.sources or not summary.scanned:
        sections.append(_counts(summary, width))
    elif summary.kept is not None:
        sections.append(_kept(summary.kept, width))
    for section in (*sections, _findings(summary, width)):
        lines += [Text(), *section]
    if summary.accepted:
        lines += [Text(), *_accepted(summary.accepted, width)]
    if summary.inventory:
        lines += [Text(), *_inventory(summary, width)]
    if steps := next_steps(summary):
        lines += [Text(), Text("What to do next", "bold")]
        for number, step in enumerate(steps, 1):
            lines += wrap(Text(step), width, f"  {number}. ", "     ")
    return lines


def _mode(summary: Summary, width: int | None) -> list[Text]:
    lines = [Text("Read" if summary.scanned else "Watched", "bold")]
    read: list[ScannedGrants | SourceSummary] = [*summary.scanned, *summary.sources]
    for source in read:
        noun = "host" if isinstance(source, SourceSummary) and source.host else "broker"
        name = f", as {noun} {quoted(source.broker)}" if source.broker or noun == "broker" else ""
        lines += wrap(Text(f"{visible(source.title)}{name}"), width, "  ", "    ")
    if not summary.sources and not summary.scanned:
        lines.append(Text("  nothing"))
    policy = "no policy: only what needs none was checked" if summary.policy is None else visible(summary.policy)
    lines += wrap(Text(f"held against {policy}"), width, "  ", "    ")
    lines.append(Text("Not seen", "bold"))
    spots = list(dict.fromkeys((spot.what, spot.fix) for source in read for spot in source.blind_spots))
    for what, fix in spots:
        lines += wrap(Text(visible(what)), width, "  - ", "    ")
        for index, line in enumerate((fix or "").split("\n") if fix else []):
            lines += wrap(Text(visible(line)), width, "    fix: " if index == 0 else " " * 9, " " * 9)
    if not spots:
        lines += wrap(Text("no blind spot of these sources is known"), width, "  ", "  ")
    return lines


def _grants(summary: Summary, width: int | None) -> list[Text]:
    """Return what was judged of the grants, and what a running broker said to it."""
    total = {
        "grants": sum(one.grants for one in summary.scanned),
        "accounts": sum(one.accounts for one in summary.scanned),
        "classes of clients that may do the same": sum(one.classes for one in summary.scanned),
    }
    trouble = {
        "questions that could not be answered": sum(one.undecided for one in summary.scanned),
        "witnesses the running broker refuted": sum(one.refuted for one in summary.scanned),
        "witnesses that could not be tried": sum(one.not_tried for one in summary.scanned),
        "observed events that no grant explains": sum(one.unexplained for one in summary.scanned),
    }
    confirmed = sum(one.confirmed for one in summary.scanned)
    if confirmed:
        total["witnesses the running broker confirmed"] = confirmed
    rows = [[Text(wording.number(value)), Text(name)] for name, value in total.items()]
    rows += [[Text(wording.number(value), "bold red"), Text(name)] for name, value in trouble.items() if value]
    lines = [Text("Grants", "bold")]
    return lines + [part for row in columns(rows, right=[0], indent="  ") for part in wrap(row, width, rest="    ")]


def _counts(summary: Summary, width: int | None) -> list[Text]:
    lines = [Text("Counts", "bold")]
    seen = [
        ("events", summary.events),
        ("clients", summary.clients),
        ("topics", summary.topics),
        ("denied", summary.denied),
    ]
    trouble = [
        (f"lost (in {wording.counted(summary.gaps, 'gap')})", summary.lost),
        ("undecodable", summary.undecodable),
        ("unresolved", summary.unresolved),
    ]
    joined = summary.joined
    if joined is not None and joined.exact + joined.weak + joined.none:
        seen += [
            ("sessions whose process is known for sure", joined.exact),
            ("sessions with a likely process", joined.weak),
            ("sessions without a known process", joined.none),
        ]
    if joined is not None:
        trouble.append(("events of hosts dropped: a table was full", joined.dropped))
    kept = summary.kept
    if kept is not None:
        seen.append(("rows kept in the store", kept.rows))
        trouble.append(("rows that could not be kept", kept.dropped))
    rows = [[Text(wording.number(value)), Text(name)] for name, value in seen]
    rows += [[Text(wording.number(value), "bold red" if value else ""), Text(name)] for name, value in trouble]
    lines += [part for row in columns(rows, right=[0], indent="  ") for part in wrap(row, width, rest="    ")]
    if kept is not None:
        lines += _store(kept, width)
    for source in summary.sources:
        if source.counters.decode_errors:
            stages = ", ".join(f"{visible(k)}: {wording.number(v)}" for k, v in source.counters.decode_errors.items())
            lines += wrap(Text(f"undecodable by stage: {stages}"), width, "  ", "    ")
    return lines


def _kept(kept: Kept, width: int | None) -> list[Text]:
    """Return what was kept of a scan that had nothing to count."""
    lines = [Text("Kept", "bold"), Text(f"  {wording.counted(kept.rows, 'finding')}")]
    if kept.dropped:
        lost = f"{wording.counted(kept.dropped, 'finding')} that could not be kept"
        lines += wrap(Text(lost, "bold red"), width, "  ", "    ")
    return lines + _store(kept, width)


def _store(kept: Kept, width: int | None) -> list[Text]:
    lines = wrap(Text(f"store: {visible(kept.folder)}"), width, "  ", "    ")
    if kept.gap_ns is not None:
        span = " to ".join(wording.timestamp(moment, 3) for moment in kept.gap_ns)
        lines += wrap(Text(f"nothing was kept from {span}: its writer died", "bold red"), width, "  ", "    ")
    if kept.error is not None:
        lines += wrap(Text(f"it could not be written: {visible(kept.error)}", "bold red"), width, "  ", "    ")
    return lines


def _findings(summary: Summary, width: int | None) -> list[Text]:
    by_severity = summary.by_severity()
    if not by_severity:
        heading = "Findings: none" + (", but events were lost" if summary.lost else "")
        return wrap(Text(heading, "bold"), width)
    counts = ", ".join(f"{wording.number(count)} {severity.name.lower()}" for severity, count in by_severity.items())
    lines = wrap(Text(f"Findings: {counts}", "bold"), width, rest="  ")
    shown = summary.open[:MAX_FINDINGS]
    lines += _finding_rows(shown, width)
    if len(summary.open) > len(shown):
        more = f"and {wording.number(len(summary.open) - len(shown))} more: --format jsonl has them all"
        lines += wrap(Text(more), width, "  ", "    ")
    if summary.overflow:
        lost = f"{wording.times(summary.overflow)} something was found that is not listed: there were too many causes"
        lines += wrap(Text(lost, "bold red"), width, "  ", "    ")
    return lines


def _finding_rows(findings: Sequence[Finding], width: int | None) -> list[Text]:
    """Return a line for each finding: severity, code, times, title; the title below where lines are narrow."""
    narrow = width is not None and width < _NARROW
    heads = columns(
        [
            [
                Text(finding.severity.name, SEVERITY_STYLE[finding.severity]),
                Text(finding.type.code, "bold"),
                Text(wording.times(finding.count)),
            ]
            for finding in findings
        ],
        right=[2],
        indent="  ",
    )
    longest = max((len(head.plain) for head in heads), default=0)
    lines: list[Text] = []
    for head, finding in zip(heads, findings, strict=True):
        names = 120 if width is None else max(width - 12 if narrow else width // 2, MIN_COLUMNS)
        if narrow:
            lines += [head, *wrap(title(finding, names), width, "    ", "    ")]
        else:
            line = Text.assemble(head, " " * (longest + 2 - len(head.plain)), title(finding, names))
            lines += wrap(line, width, rest=" " * (longest + 2))
    return lines


def _accepted(findings: Sequence[Finding], width: int | None) -> list[Text]:
    lines = [Text(f"Accepted by the policy's exceptions: {wording.number(len(findings))}", "bold")]
    for finding in findings[:MAX_ACCEPTED]:
        names = None if width is None else max(width * 2 // 3, MIN_COLUMNS)
        line = Text.assemble((finding.type.code, "bold"), " ", title(finding, names))
        line.append(f", {wording.times(finding.count)}; {visible(finding.accepted or '')}")
        lines += wrap(line, width, "  ", "    ")
    if len(findings) > MAX_ACCEPTED:
        lines.append(Text(f"  and {wording.number(len(findings) - MAX_ACCEPTED)} more"))
    return lines


def _inventory(summary: Summary, width: int | None) -> list[Text]:
    shown = summary.inventory[:MAX_CLIENTS]
    many = summary.clients > len(shown)
    heading = f"Clients: the {len(shown)} busiest of {wording.number(summary.clients)}" if many else "Clients"
    lines = [Text(heading, "bold")]
    if width is not None and width < _NARROW:
        for row in shown:
            lines += wrap(Text(_who(row, width - 6), "cyan"), width, "  ", "    ")
            facts = [f"{wording.number(row.publishes)} published"]
            facts += [
                f"{_rate(row)} a second",
                wording.counted(row.topics, "topic"),
                f"{wording.number(row.denied)} denied",
            ]
            lines += wrap(Text(", ".join(facts)), width, "    ", "    ")
        return lines
    heads = ["publishes", "a second", "topics", "denied", "who"]
    # Where a client connects from is the first thing to go: it changes, and the findings say it.
    addresses = width is None or width >= _WIDE
    table = [[Text(head, "dim") for head in [*heads, *(["from"] if addresses else [])]]]
    room = 80 if width is None else width - 40 - (_ADDRESS_COLUMNS + 2 if addresses else 0)
    for row in shown:
        counts = [wording.number(row.publishes), _rate(row), wording.number(row.topics)]
        cells = [*map(Text, counts), Text(wording.number(row.denied), "bold yellow" if row.denied else "")]
        cells.append(Text(_who(row, room), "cyan"))
        if addresses:
            cells.append(Text(quoted(row.address, _ADDRESS_COLUMNS) if row.address else "not known"))
        table.append(cells)
    for line in columns(table, right=range(4), indent="  "):
        lines += wrap(line, width, rest=" " * 6)
    return lines


def _rate(row: InventoryRow) -> str:
    return wording.scalar(float(row.rate))


def _who(row: InventoryRow, room: int) -> str:
    """Return the client's name in about `room` columns, with its client id beside the user name when that says more."""
    client = Client(row.broker, "", row.client_id, row.user, row.address, identity=row.identity)
    if row.user is None or row.client_id in ("", row.user):
        words = len(wording.client_name(client, row.broker)) - len(quoted(row.user or row.client_id))
        return wording.client_name(client, row.broker, max(room - words, MIN_COLUMNS))
    user = wording.client_name(client, row.broker, max((room - 4) // 2, MIN_COLUMNS))
    return f"{user} as {quoted(row.client_id, max(room - 4 - len(user), MIN_COLUMNS))}"
