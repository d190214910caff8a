"""Chapters about what was judged: the three sets and their differences, controls, and exceptions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from topicwarden.report.controls import ControlResult
from topicwarden.report.inputs import Inputs
from topicwarden.report.model import Cell, Column, Difference, Figure, Kind, Query, Section, Sets, Table
from topicwarden.report.observed import Policies, runs_in
from topicwarden.report.reading import MAX_ROWS, Reading, Totals

NANOSECONDS: Final = 1_000_000_000
SOON_DAYS: Final = 30
STATUSES: Final = ("not satisfied", "not assessed", "satisfied")
NO_GRANTS: Final = "grants were not read: pass a broker's configuration with --grants"
TOLD_GRANTS: Final = "from findings of earlier scans; no configuration was read for this report"
CONTROLS: Final = "controls-"
"""What the tables of frameworks' controls are called, before the framework's key."""
_DIFFERENCES: Final = (
    ("granted - intended", "granted − intended", "excess privilege: brokers would allow what nobody intended"),
    ("granted - observed", "granted − observed", "unused privilege: allowed, and nobody did it"),
    ("intended - granted", "intended − granted", "a legitimate client is or would be refused"),
    ("observed - intended", "observed − intended", "deviation: done, and not intended"),
    ("observed, denied", "observed, denied", "probing or misconfiguration: tried, and refused"),
    ("hosts observed - inventory", "hosts observed − inventory", "programs that talk to a broker and should not"),
)
_LIKE: Final[Mapping[str, str]] = {
    "hosts observed - usual": "hosts observed - inventory",
    "hosts observed - intended": "hosts observed - inventory",
    "observed - usual": "observed - intended",
    "observed - granted": "observed - intended",
}
"""Differences that are told with one of the six."""


def difference_of(difference: str) -> str:
    """Return which of the six differences a finding's is told with; itself when with none."""
    return _LIKE.get(difference, difference)


def sets(inputs: Inputs, reading: Reading, totals: Sequence[Totals], judged: Policies) -> Sets:
    """Return the three sets and the six differences."""
    observed = Query(
        "select count(*) from (select distinct broker, vhost, protocol, user, client_id, action, resource from events "
        "where action in ('publish', 'subscribe', 'configure') and outcome <> 'denied')"
    )
    granted = sum(one.grants for one in inputs.grants) if inputs.grants else None
    policy = inputs.policy
    found = []
    for number, (key, name, reads_as) in enumerate(_DIFFERENCES, 1):
        ours = [one for one in totals if difference_of(one.difference) == key]
        opened = [one for one in ours if not one.accepted]
        count = sum(one.findings for one in opened)
        accepted = sum(one.findings for one in ours) - count
        unknown = _unknown(inputs, key, judged)
        notes = [f"{accepted} more accepted by an exception"] if accepted else []
        if unknown is not None:
            notes.append(unknown)
        note = "; ".join(notes) or None
        looked = unknown is None or count > 0
        figure = Figure(f"difference-{number}", name, count if looked else None, "findings-by-code", None, note)
        found.append(Difference(number, name, reads_as, figure, sum(one.occurrences for one in opened)))
    return Sets(
        Figure("granted", "Granted", granted, None, None, None if inputs.grants else NO_GRANTS),
        Figure(
            "observed",
            "Observed",
            reading.different() if runs_in(inputs) else None,
            "busiest-clients",
            observed,
            "different (client, action, name) that a broker let pass or did not report as refused",
        ),
        Figure(
            "intended",
            "Intended",
            None if policy is None else policy.permissions,
            None,
            None,
            "no policy was given" if policy is None else None,
        ),
        tuple(found),
    )


def _unknown(inputs: Inputs, key: str, judged: Policies) -> str | None:
    """Return why it cannot be said that there are no such differences, or no more; None: it was looked at."""
    no_grants = TOLD_GRANTS if inputs.grants_told else NO_GRANTS
    match key:
        case "granted - intended" | "intended - granted":
            if not inputs.grants_read:
                return no_grants
            if inputs.policy is None:
                return "no policy was given"
            return None if all(one.judged for one in inputs.grants) else "another policy, or none, judged the grants"
        case "granted - observed":
            if inputs.grants_read:
                known = all(one.unused_known for one in inputs.grants)
                return None if known else "grants were not compared with what was observed"
            return no_grants
        case "observed - intended":
            return judged.problem
        case "observed, denied":
            return None if runs_in(inputs) else "nobody watched"
        case _:
            return judged.problem if inputs.hosts_watched else "no host was watched"


def controls(results: Sequence[ControlResult]) -> Section:
    """Return what the evidence says of each control."""
    if not results:
        return Section("controls", "Controls, with the evidence", ("Controls were not assessed.",))
    by_status = Counter(one.status for one in results)
    frameworks: dict[str, list[ControlResult]] = {}
    for one in results:
        frameworks.setdefault(one.framework, []).append(one)
    summary = Table(
        "frameworks",
        "Frameworks",
        (
            Column("framework", "Framework"),
            *(Column(status.replace(" ", "_"), status.capitalize(), Kind.NUMBER) for status in STATUSES),
        ),
        tuple(
            (ones[0].framework_title, *(sum(one.status == status for one in ones) for status in STATUSES))
            for ones in frameworks.values()
        ),
        len(frameworks),
    )
    return Section(
        "controls",
        "Controls, with the evidence",
        (
            (
                "Each control is judged only in what a broker's traffic and grants can show of it; the rest of a "
                "control is for people. Satisfied is said of the period and as far as was observed, and only where "
                "everything was that the statement rests on. What was not looked at is not assessed, whatever was "
                "found elsewhere."
            ),
        ),
        figures=tuple(
            Figure(f"controls-{status.replace(' ', '-')}", status, by_status[status], "frameworks")
            for status in STATUSES
        ),
        tables=(summary, *(_framework(ones) for ones in frameworks.values())),
    )


def _framework(results: Sequence[ControlResult]) -> Table:
    order = {status: number for number, status in enumerate(STATUSES)}
    rows: list[tuple[Cell, ...]] = [
        (
            one.control,
            one.title,
            one.status,
            one.assesses,
            one.reason,
            # The period stands at the head of the report.
            tuple(said for said in one.evidence if not said.startswith("From ")),
            one.findings,
        )
        for one in sorted(results, key=lambda one: order.get(one.status, len(order)))
    ]
    return Table(
        f"{CONTROLS}{results[0].framework}",
        results[0].framework_title,
        (
            Column("control", "Control"),
            Column("title", "Title"),
            Column("status", "Status", Kind.STATUS),
            Column("assesses", "What is assessed"),
            Column("reason", "Why", Kind.SAID),
            Column("evidence", "Evidence", Kind.SAID_ALL),
            Column("findings", "Findings", Kind.FINDINGS),
        ),
        tuple(rows),
        len(rows),
    )


def exceptions(inputs: Inputs, reading: Reading) -> Section:
    """Return what somebody accepted, until when, and what was accepted by it."""
    accepted_by = {str(text): int(count) for text, count in reading.found(
        "select accepted, count(*) from found where accepted is not null group by 1 order by 2 desc, 1"
    )}  # fmt: skip
    left_over = dict(accepted_by)
    today = datetime.fromtimestamp(inputs.now_ns // NANOSECONDS, UTC).date()
    rows: list[tuple[Cell, ...]] = []
    for rule in () if inputs.intended is None else inputs.intended.exceptions:
        left = (rule.until - today).days
        state = "EXPIRED" if left < 0 else "ends soon" if left <= SOON_DAYS else "in force"
        who = tuple(f"{'client id' if key == 'client' else key} {value}" for key, value in rule.about.items())
        used = left_over.pop(f"{rule.reason} (until {rule.until.isoformat()})", 0)
        place = None if rule.place is None else rule.place.label
        rows.append((state, rule.finding, who, place, rule.reason, rule.until.isoformat(), left, used))
    gone = tuple(("not in this policy", None, (), None, text, None, None, count) for text, count in left_over.items())
    table = Table(
        "exceptions",
        "Exceptions and their end dates",
        (
            Column("state", "State"),
            Column("finding", "Accepts"),
            Column("who", "For whom", Kind.NAMES),
            Column("place", "Where", Kind.NAME),
            Column("reason", "Reason", Kind.NAME),
            Column("until", "Last day", Kind.DAY),
            Column("left", "Days left", Kind.NUMBER),
            Column("used", "Findings accepted", Kind.NUMBER),
        ),
        (*sorted(rows, key=lambda row: str(row[5])), *gone)[:MAX_ROWS],
        len(rows) + len(gone),
        note="State as of the day the report was made. Findings whose exception had run out when they occurred are "
        "open.",
        empty="No exception is in the policy, and nothing was accepted."
        if inputs.policy
        else "No policy was given, and nothing was accepted.",
    )
    expired = sum(row[0] == "EXPIRED" for row in rows)
    warnings = (f"{expired} of {len(rows)} exceptions have run out.",) if expired else ()
    figures = (
        Figure("exceptions", "exceptions in the policy", len(rows) if inputs.policy else None, "exceptions"),
        Figure("expired", "of them expired", expired if inputs.policy else None, "exceptions"),
        Figure("accepted", "findings accepted", sum(accepted_by.values()),
               "findings"),
    )  # fmt: skip
    return Section("exceptions", "Exceptions", warnings=warnings, figures=figures, tables=(table,))
