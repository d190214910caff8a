"""The chapter about privilege: what brokers would allow beyond what is intended or was used, ranked by harm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from topicwarden.report.findings import SEVERITIES, read_findings
from topicwarden.report.inputs import Inputs
from topicwarden.report.model import Column, Figure, Kind, Query, ReportFinding, Section, Table
from topicwarden.report.reading import MAX_ROWS, Reading, Totals
from topicwarden.report.scans import Succession

_EXCESS: Final = frozenset({"TW101", "TW104", "TW109", "TW111", "TW112", "TW113", "TW115"})
_UNUSED: Final = frozenset({"TW102", "TW108"})
_WASTE: Final = frozenset({"TW105", "TW106", "TW107"})
NOT_STORED: Final = (
    "What the scan made for this report found (--grants) is not in the store: no query gives it, and "
    "`topicwarden scan` finds it again."
)
_PRIVILEGE: Final = _EXCESS | _UNUSED | _WASTE


def privilege(
    inputs: Inputs,
    reading: Reading,
    findings: Sequence[ReportFinding],
    totals: Sequence[Totals],
    succession: Succession,
) -> Section:
    """Return excess and unused privilege per client and role, ranked by harm."""
    ours = [one for one in findings if one.code in _PRIVILEGE and one.accepted is None]
    warnings = []
    if not inputs.grants_read and not inputs.grants_told:
        warnings.append(
            "Grants were not read, so excess and unused privilege is not known"
            f"{', but for what was seen to be granted' if ours else ''}: pass a broker's configuration with --grants, "
            "or keep the findings of scans in the store, with `topicwarden scan --store` while nobody watches into it."
        )
    elif not any(one.unused_known for one in inputs.grants) and not any(one.code in _UNUSED for one in ours):
        warnings.append("Grants were not compared with what was observed: unused privilege is not known.")
    ranked = sorted(ours, key=_harm)
    count = sum(one.findings for one in totals if one.code in _PRIVILEGE and not one.accepted)
    table = Table(
        "privilege",
        "Excess and unused privilege, the most harmful first",
        (
            Column("rank", "Rank", Kind.NUMBER),
            Column("severity", "Severity", Kind.SEVERITY),
            Column("kind", "Kind"),
            Column("client", "Client", Kind.NAME),
            Column("affected", "Clients affected", Kind.NUMBER),
            Column("roles", "Roles", Kind.NAME),
            Column("witness", "What it lets them do", Kind.NAMES),
            Column("grant", "Grant", Kind.NAME),
            Column("where", "Where it stands", Kind.NAME),
            Column("certainty", "Certainty"),
            Column("finding", "Finding", Kind.FINDING),
        ),
        tuple(
            (
                place,
                one.severity,
                _kind_of(one.code),
                one.who,
                _affected(one),
                _known(one.evidence.get("roles")),
                tuple(name for name, _ in one.witnesses[:3]),
                _known(one.evidence.get("grant")),
                _where(one),
                one.certainty,
                one.fingerprint,
            )
            for place, one in enumerate(ranked[:MAX_ROWS], 1)
        ),
        count,
        _of_codes(reading, _PRIVILEGE),
        note="Harm: severity first, then excess before unused before ineffective, then how many clients it affects, "
        "then how certain it is." + (f" {NOT_STORED}" if inputs.scanned else ""),
        empty="Nothing was found. Read above whether grants were read at all.",
    )
    return Section(
        "privilege",
        "Excess and unused privilege",
        warnings=tuple(warnings),
        figures=tuple(
            Figure(
                f"privilege-{key}",
                label,
                sum(one.findings for one in totals if one.code in codes and not one.accepted),
                "privilege",
                _count_of(reading, codes),
            )
            for key, label, codes in (
                ("excess", "grants that allow too much", _EXCESS),
                ("unused", "grants that nobody used, or only in part", _UNUSED),
                ("ineffective", "grants that decide nothing", _WASTE),
            )
        ),
        tables=(table, *_by_owner(reading, ours), *_gone(reading, succession)),
    )


def _gone(reading: Reading, succession: Succession) -> Iterable[Table]:
    """Yield what scans of the period found, and newer ones did not find again."""
    rows, _ = read_findings(reading.documents("gone", MAX_ROWS))
    if not rows:
        return
    told = reading.told_by(one.fingerprint for one in rows)
    cells = []
    for one in rows:
        again = succession.gone_at(told.get(one.fingerprint, ()), one.broker, one.code)
        cells.append(
            (
                one.severity,
                one.code,
                one.who,
                tuple(name for name, _ in one.witnesses[:3]),
                _known(one.evidence.get("grant")),
                _where(one),
                "open" if one.accepted is None else "accepted",
                one.first_ns,
                one.last_ns,
                None if again is None else again.time_ns,
                one.fingerprint,
            )
        )
    yield Table(
        "gone-privilege",
        "Found by scans, and not any more",
        (
            Column("severity", "Severity", Kind.SEVERITY),
            Column("code", "Code"),
            Column("client", "Client", Kind.NAME),
            Column("witness", "For example", Kind.NAMES),
            Column("grant", "Grant", Kind.NAME),
            Column("where", "Where it stood", Kind.NAME),
            Column("state", "State then"),
            Column("first", "First found", Kind.TIME),
            Column("last", "Last found", Kind.TIME),
            Column("gone", "Not found", Kind.TIME),
            Column("fingerprint", "Fingerprint"),
        ),
        tuple(cells),
        int(reading.found("select count(*) from gone")[0][0]),
        reading.findings_in(gone=True),
        note="A newer scan of the same configuration looked for it and did not find it. Whether it was mended, "
        "accepted or cannot be judged any more, the findings of that scan say. None of these counts anywhere else.",
    )


def _by_owner(reading: Reading, ours: Sequence[ReportFinding]) -> Iterable[Table]:
    def roles_of(one: ReportFinding) -> list[str]:
        roles = one.evidence.get("roles")
        return roles.split(", ") if isinstance(roles, str) and roles else ["(no role)"]

    for table_id, title, head, owners_of in (
        ("privilege-by-client", "By client", "Client", lambda one: [one.who]),
        ("privilege-by-role", "By role", "Role", roles_of),
    ):
        owners: dict[str, list[ReportFinding]] = {}
        for one in ours:
            for owner in owners_of(one):
                owners.setdefault(owner, []).append(one)
        rows = [
            (
                owner,
                max((one.severity for one in ones), key=SEVERITIES.index),
                sum(one.code in _EXCESS for one in ones),
                sum(one.code in _UNUSED for one in ones),
                sum(one.code in _WASTE for one in ones),
            )
            for owner, ones in owners.items()
        ]
        rows.sort(key=lambda row: (-SEVERITIES.index(row[1]), -row[2], -row[3], row[0]))
        yield Table(
            table_id,
            title,
            (
                Column("owner", head, Kind.NAME),
                Column("worst", "Worst", Kind.SEVERITY),
                Column("excess", "Too much", Kind.NUMBER),
                Column("unused", "Unused", Kind.NUMBER),
                Column("ineffective", "Decides nothing", Kind.NUMBER),
            ),
            tuple(rows[:MAX_ROWS]),
            len(rows),
            _of_codes(reading, _PRIVILEGE),
        )


def _harm(one: ReportFinding) -> tuple[object, ...]:
    kind = 0 if one.code in _EXCESS else 1 if one.code in _UNUSED else 2
    return (-SEVERITIES.index(one.severity), kind, -_affected(one), one.certainty != "exact", one.who, one.fingerprint)


def _kind_of(code: str) -> str:
    return "too much" if code in _EXCESS else "unused" if code in _UNUSED else "decides nothing"


def _affected(one: ReportFinding) -> int:
    alike = one.evidence.get("alike")
    return 1 + alike if isinstance(alike, int) else 1


def _where(one: ReportFinding) -> str | None:
    file, line = one.evidence.get("where_file"), one.evidence.get("where_line")
    if file is None:
        return None
    return f"{file}:{line}" if line is not None else str(file)


def _known(value: object) -> str | None:
    return None if value is None else str(value)


def _of_codes(reading: Reading, codes: Iterable[str]) -> Query:
    return reading.findings_in(f"f.accepted is null and f.code in ({_listed(codes)})")


def _count_of(reading: Reading, codes: Iterable[str]) -> Query:
    found = _of_codes(reading, codes)
    return Query(f"select count(*) from ({found.sql})", found.of_period)  # noqa: S608 - codes of ours


def _listed(codes: Iterable[str]) -> str:
    return ", ".join(f"'{code}'" for code in sorted(codes))
