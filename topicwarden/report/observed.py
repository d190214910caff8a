"""Chapters about the observing: what was watched, by which policy, and what could not be seen."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from topicwarden.findings import Catalogue
from topicwarden.output import wording
from topicwarden.report.coverage import Coverage
from topicwarden.report.inputs import Inputs, Run
from topicwarden.report.model import Column, Figure, Kind, Query, Section, Table, clock
from topicwarden.report.reading import MAX_ROWS, Reading
from topicwarden.report.scans import is_scan


def scope(inputs: Inputs, reading: Reading) -> Section:
    """Return what the report is about: time, store, policy, and what was watched."""
    span, policy = inputs.span, inputs.policy
    brokers = [str(row[0]) for row in reading.rows(Query("select distinct broker from clients order by 1"))[0]]
    facts = [
        ("Period", f"{clock(span.from_ns)}Z to {clock(span.to_ns)}Z, both ends included"),
        ("Length", wording.duration(span.to_ns - span.from_ns)),
        ("Store", f"{inputs.store.info.id}, begun {clock(inputs.store.info.created_ns)}Z"),
        ("Brokers", ", ".join(brokers) or "none had an event in the period"),
    ]
    warnings = []
    if policy is None:
        warnings.append(
            "No policy was given, so nothing in this report says whether what was observed or granted was intended."
        )
    else:
        facts += [("Policy", policy.file), ("SHA-256 of the policy", policy.sha256)]
        counts = ((policy.roles, "role"), (policy.permissions, "permission"), (policy.exceptions, "exception"))
        facts.append(("It has", ", ".join(wording.counted(count, noun) for count, noun in counts)))
    judged = policies_of(inputs)
    if judged.digests:
        facts.append(("Watched against, SHA-256", ", ".join(judged.digests)))
    if judged.problem is not None and runs_in(inputs):
        again = f"topicwarden check {shlex.quote(inputs.directory)} --policy FILE"
        warnings.append(f"Deviations may be missing: {judged.problem}. `{again}` judges again what is stored.")
    if not brokers:
        warnings.append("Not one event of a broker is stored of this period: whatever follows about it is empty.")
    rows = [
        (
            str(row.get("title", "")),
            "host" if row.get("host") is True else "broker",
            str(row.get("broker", "")),
            run.opened.time_ns,
            run.last_ns,
        )
        for run in runs_in(inputs)
        for row in sources_of(run)
    ]
    table = Table(
        "sources",
        "What was watched",
        (
            Column("source", "Source", Kind.NAME),
            Column("kind", "Of a"),
            Column("name", "Name", Kind.NAME),
            Column("since", "Since", Kind.TIME),
            Column("until", "Until", Kind.TIME),
        ),
        tuple(rows[:MAX_ROWS]),
        len(rows),
        empty="The store does not say what was watched.",
    )
    tables = (table, _scans(inputs)) if inputs.scans else (table,)
    return Section("scope", "Scope and period", (), tuple(warnings), tuple(facts), (), tables)


def _scans(inputs: Inputs) -> Table:
    """Return the scans that were kept in the period."""
    rows = [
        (one.title, one.broker, scan.time_ns, one.grants, one.undecided, scan.policy, "yes" if one.compared else "no")
        for scan in inputs.scans
        for one in scan.sources
    ]
    return Table(
        "scans",
        "Scans of how grants stood",
        (
            Column("source", "Source", Kind.NAME),
            Column("name", "Broker", Kind.NAME),
            Column("when", "When", Kind.TIME),
            Column("grants", "Grants", Kind.NUMBER),
            Column("undecided", "Questions without an answer", Kind.NUMBER),
            Column("policy", "Held against, SHA-256", Kind.NAME),
            Column("compared", "Compared with what was observed"),
        ),
        tuple(rows[:MAX_ROWS]),
        len(rows),
        note="Each looks at a moment: it says nothing of what was done before or after it.",
    )


def unseen(inputs: Inputs, reading: Reading, catalogue: Catalogue, coverage: Coverage) -> Section:
    """Return what could not be seen: it stands before every result."""
    spots = _blind_spots(inputs)
    gaps = coverage.gaps
    missing = wording.duration(coverage.missing_ns)
    notices, count_notices = reading.rows(_NOTICES)
    warnings = []
    if not inputs.grants_read and not inputs.grants_told:
        warnings.append("Grants were not read: what brokers would allow beyond what was seen is not known here.")
    if not inputs.hosts_watched:
        warnings.append("No host was watched: which programs are behind clients, and what else they do, is not known.")
    if coverage.unreadable:
        warnings.append(
            f"{wording.counted(coverage.unreadable, 'stored finding')} could not be read and are in no list: verify "
            "the store."
        )
    if coverage.gaps_allowed:
        warnings.append(
            f"Controls may be called satisfied below though {missing} of the period were not seen: "
            f"{wording.duration(coverage.allowed_gap_ns)} were allowed (--allow-gaps). Each of them says so."
        )
    figures = (
        Figure("blind-spots", "blind spots", len(spots), "blind-spots"),
        Figure(
            "gaps",
            "gaps in the evidence",
            len(gaps),
            "gaps",
            note=f"together {missing}" if gaps else None,
        ),
        Figure(
            "unseen", "remarks of sources on their own observing", reading.number(_NOTICES_SUM), "notices", _NOTICES_SUM
        ),
    )
    tables = (
        Table(
            "blind-spots",
            "Blind spots",
            (
                Column("source", "Source", Kind.NAME),
                Column("what", "What it cannot see"),
                Column("fix", "What would make it visible"),
            ),
            tuple(spots[:MAX_ROWS]),
            len(spots),
            empty="No source named one. That is what the sources say, not a proof that there are none.",
        ),
        Table(
            "gaps",
            "Gaps in the evidence",
            (
                Column("from", "From", Kind.TIME),
                Column("until", "Until", Kind.TIME),
                Column("reason", "Why"),
                Column("lost", "Rows known to be lost", Kind.NUMBER),
            ),
            tuple((gap.from_ns, gap.until_ns, gap.why, gap.lost) for gap in gaps[:MAX_ROWS]),
            len(gaps),
            note="From the store's log, which is signed. Where the number of lost rows is not known, a dash stands.",
            empty="None in the period.",
        ),
        Table(
            "notices",
            "What sources said about their own observing",
            (
                Column("code", "Code"),
                Column("what", "What it means"),
                Column("where", "Broker or host", Kind.NAME),
                Column("scope", "Where it happened", Kind.NAME),
                Column("count", "Occurrences", Kind.NUMBER),
                Column("first", "First", Kind.TIME),
                Column("last", "Last", Kind.TIME),
            ),
            tuple((row[0], _meaning(catalogue, row[0]), *row[1:]) for row in notices),
            count_notices,
            _NOTICES,
            empty="Nothing was said.",
        ),
    )
    return Section(
        "unseen",
        "What could not be seen",
        ("Read this before any result: where nothing could be seen, that nothing was found says nothing.",),
        tuple(warnings),
        (),
        figures,
        tables,
    )


def sources_of(run: Run) -> list[Mapping[str, Any]]:
    """Return what a writer said of its sources when it began."""
    about = (run.opened.facts or {}).get("about")
    rows = about.get("sources") if isinstance(about, Mapping) else None
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


@dataclass(frozen=True, slots=True)
class Policies:
    """By which policies the writers of the period say that they judged."""

    digests: tuple[str, ...]
    """SHA-256 of each."""
    problem: str | None
    """Why what was observed was not, or perhaps not, held against the report's policy; None: it was."""


def policies_of(inputs: Inputs) -> Policies:
    """Return what the writers of the period say of the policy they judged by."""
    digests: dict[str, None] = {}
    unsaid = without = False
    for run in runs_in(inputs):
        about = (run.opened.facts or {}).get("about")
        about = about if isinstance(about, Mapping) else {}
        policy = about.get("policy")
        digest = policy.get("sha256") if isinstance(policy, Mapping) else None
        if isinstance(digest, str):
            digests[digest] = None
        elif "policy" in about:
            without = True
        else:
            unsaid = True
    problem = None
    if inputs.runs and not runs_in(inputs):
        problem = "nobody watched"
    elif unsaid or not (digests or without):
        problem = "whether what was watched was held against a policy is not recorded"
    elif without:
        problem = "not everything that was watched was held against a policy"
    elif inputs.policy is not None and set(digests) != {inputs.policy.sha256}:
        problem = "what was watched was held against another policy than the report's"
    return Policies(tuple(digests), problem)


def runs_in(inputs: Inputs) -> list[Run]:
    """Return the writers that watched in the period; all that ever did when none was.

    What is read from recordings is of another time than that of the reading. Scans watch nothing.
    """
    span = inputs.span
    runs = [run for run in inputs.runs if not is_scan(run.opened)]
    found = [run for run in runs if run.opened.time_ns <= span.to_ns and run.last_ns >= span.from_ns]
    return found or runs


def _blind_spots(inputs: Inputs) -> list[tuple[str, str, str | None]]:
    found: dict[tuple[str, str, str | None], None] = {}
    for run in runs_in(inputs):
        for row in sources_of(run):
            spots = row.get("blind_spots")
            for spot in spots if isinstance(spots, list) else []:
                if isinstance(spot, Mapping):
                    fix = spot.get("fix")
                    found[str(row.get("title", "")), str(spot.get("what")), None if fix is None else str(fix)] = None
    for title, what, fix in inputs.grants_spots:
        found[title, what, fix] = None
    return list(found)


_NOTICES: Final = Query(
    "select code, coalesce(host, broker) as place, scope, sum(count)::bigint as count, min(time) as first_seen, "
    "max(time) as last_seen from notices group by 1, 2, 3 order by 1, 2, 3"
)
_NOTICES_SUM: Final = Query("select coalesce(sum(count), 0) from notices")


def _meaning(catalogue: Catalogue, code: str) -> str:
    return catalogue[code].meaning.strip() if code in catalogue else "not known to this version"
