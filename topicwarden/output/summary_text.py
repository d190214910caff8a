"""The closing summary as lines for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from topicwarden.events import Client
from topicwarden.findings import Finding
from topicwarden.output import wording
from topicwarden.output.escape import MIN_COLUMNS, quoted, shorten, visible
from topicwarden.output.layout import columns, wrap
from topicwarden.output.summary import InventoryRow, Summary, next_steps
from topicwarden.output.text import SEVERITY_STYLE, title

MAX_FINDINGS: Final = 50
MAX_ACCEPTED: Final = 20
MAX_CLIENTS: Final = 20
_NARROW: Final = 60


def summary_lines(summary: Summary, width: int | None = None) -> list[Text]:
    """Return the summary in lines of at most `width` columns (None: as long as they are)."""
    span = f"{wording.timestamp(summary.started_ns, 0)} to {wording.timestamp(summary.ended_ns, 0)}".replace(".Z", "Z")
    length = wording.duration(summary.ended_ns - summary.started_ns)
    ended = ", interrupted" if summary.interrupted else ""
    lines = wrap(Text(f"topicwarden {summary.command}: {span} ({length}{ended})", "bold"), width, rest="  ")
    for section in (_mode(summary, width), _counts(summary, width), _findings(summary, width)):
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
    lines = [Text("Watched", "bold")]
    for source in summary.sources:
        lines += wrap(Text(f"{visible(source.title)}, as broker {quoted(source.broker)}"), width, "  ", "    ")
    if not summary.sources:
        lines.append(Text("  nothing"))
    policy = "no policy: only what needs none was checked" if summary.policy is None else visible(summary.policy)
    lines += wrap(Text(f"held against {policy}"), width, "  ", "    ")
    lines.append(Text("Not seen", "bold"))
    spots = list(dict.fromkeys((spot.what, spot.fix) for source in summary.sources for spot in source.blind_spots))
    for what, fix in spots:
        lines += wrap(Text(visible(what)), width, "  - ", "    ")
        for index, line in enumerate((fix or "").split("\n") if fix else []):
            lines += wrap(Text(visible(line)), width, "    fix: " if index == 0 else " " * 9, " " * 9)
    if not spots:
        lines += wrap(Text("no blind spot of these sources is known"), width, "  ", "  ")
    return lines


def _counts(summary: Summary, width: int | None) -> list[Text]:
    lines = [Text("Counts", "bold")]
    seen = [
        ("events", summary.events),
        ("clients", summary.clients),
        ("topics", summary.topics),
        ("denied", summary.denied),
    ]
    trouble = [
        (f"lost (in {wording.number(summary.gaps)} gaps)", summary.lost),
        ("undecodable", summary.undecodable),
        ("unresolved", summary.unresolved),
    ]
    rows = [[Text(wording.number(value)), Text(name)] for name, value in seen]
    rows += [[Text(wording.number(value), "bold red" if value else ""), Text(name)] for name, value in trouble]
    lines += [part for row in columns(rows, right=[0], indent="  ") for part in wrap(row, width, rest="    ")]
    for source in summary.sources:
        if source.counters.decode_errors:
            stages = ", ".join(f"{visible(k)}: {wording.number(v)}" for k, v in source.counters.decode_errors.items())
            lines += wrap(Text(f"undecodable by stage: {stages}"), width, "  ", "    ")
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
        names = 120 if width is None else max(MIN_COLUMNS, width // 2)
        if narrow:
            lines += [head, *wrap(title(finding, names), width, "    ", "    ")]
        else:
            line = Text.assemble(head, " " * (longest + 2 - len(head.plain)), title(finding, names))
            lines += wrap(line, width, rest=" " * (longest + 2))
    return lines


def _accepted(findings: Sequence[Finding], width: int | None) -> list[Text]:
    lines = [Text(f"Accepted by the policy's exceptions: {wording.number(len(findings))}", "bold")]
    for finding in findings[:MAX_ACCEPTED]:
        names = None if width is None else max(MIN_COLUMNS, width // 2)
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
            numbers = (
                f"{wording.number(row.publishes)} publishes, {_rate(row)} a second, "
                f"{wording.number(row.topics)} topics, {wording.number(row.denied)} denied"
            )
            lines += wrap(Text(_who(row, max(MIN_COLUMNS, width - 6)), "cyan"), width, "  ", "    ")
            lines += wrap(Text(numbers), width, "    ", "    ")
        return lines
    room = 80 if width is None else max(MIN_COLUMNS, (width - 46) * 2 // 3)
    table = [[Text(head, "dim") for head in ("publishes", "a second", "topics", "denied", "who", "from")]]
    for row in shown:
        counts = [wording.number(row.publishes), _rate(row), wording.number(row.topics), wording.number(row.denied)]
        where = shorten(row.address, MIN_COLUMNS) if row.address else "not known"
        denied = "bold yellow" if row.denied else ""
        table.append(
            [
                *(Text(n, denied if i == 3 else "") for i, n in enumerate(counts)),
                Text(_who(row, room), "cyan"),
                Text(where),
            ]
        )
    for line in columns(table, right=range(4), indent="  "):
        lines += wrap(line, width, rest=" " * 6)
    return lines


def _rate(row: InventoryRow) -> str:
    return wording.scalar(float(row.rate))


def _who(row: InventoryRow, room: int) -> str:
    """Return the client's name, and its client id beside the user name when that says more."""
    client = Client(row.broker, "", row.client_id, row.user, row.address, identity=row.identity)
    if row.user is None or row.client_id in ("", row.user):
        return wording.client_name(client, row.broker, room)
    half = max(room // 2, MIN_COLUMNS)
    return f"{wording.client_name(client, row.broker, half)} as {quoted(row.client_id, half)}"
