"""Which findings of kept scans still stand at a period's end, and what its newest scans say of the grants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import md5
from typing import Final

from topicwarden.output.escape import well_formed
from topicwarden.report.inputs import GrantsRead, Inputs
from topicwarden.report.reading import Reading
from topicwarden.report.scans import ALWAYS, KINDS, KeptScan, ScannedSource, Succession, complete, scans_of

FRESH: Final = 1 << 60
"""Number of the scan that was made for the report: it is the newest."""


def with_scans(inputs: Inputs, reading: Reading) -> tuple[Inputs, Succession]:
    """Set findings apart that scans of the period did not find again; return the inputs with what these scans read.

    What a scan made for the report says of a broker goes before what kept ones say of it.
    """
    span = inputs.span
    scans = scans_of([run.opened for run in inputs.runs])
    known = [one for one in scans if one.time_ns is not None and one.time_ns <= span.to_ns]
    later = [one.number for one in scans if one.time_ns is None or one.time_ns > span.to_ns]
    whole = complete(known, reading.kept(one.number for one in known))
    succession = Succession(known, [*whole, *_fresh(inputs)])
    superseded = superseded_sql(known, succession, later)
    if superseded is not None:
        reading.set_apart(superseded)
    within = [one for one in known if one.time_ns is not None and one.time_ns >= span.from_ns]
    grants, spots = _read(inputs, [one for one in within if one in whole])
    told = replace(
        inputs, grants=[*inputs.grants, *grants], grants_spots=[*inputs.grants_spots, *spots], scans=tuple(within)
    )
    return told, succession


def superseded_sql(scans: Sequence[KeptScan], succession: Succession, later: Iterable[int] = ()) -> str | None:
    """Return what of `finding_history` scans have superseded, as SQL; None: nothing.

    `later`: scans after the period, which say nothing of it.
    """
    brokers = {broker for scan in scans for broker in scan.configurations}
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for scan in scans:
        for broker in scan.configurations:
            if succession.after(scan.number, broker, ALWAYS) is None:
                continue  # then nothing is: what is looked for anyway is looked for whenever anything is
            open_kinds = (kind for kind in KINDS if succession.after(scan.number, broker, kind) is None)
            still = sorted(code for kind in open_kinds for code in KINDS[kind])
            groups.setdefault((broker, tuple(still)), []).append(scan.number)
    if not groups:
        return None
    found = []
    for (broker, codes), runs in sorted(groups.items()):
        parts = [_runs_are(runs)]
        if len(brokers) > 1:
            # A name may hold anything, and this stands between a shell's quotes.
            digest = md5(well_formed(broker).encode(), usedforsecurity=False).hexdigest()
            parts.append(f"md5(broker) = '{digest}'")
        if codes:
            listed = "', '".join(codes)
            parts.append(f"code not in ('{listed}')")
        found.append(" and ".join(parts))
    if later := list(later):
        found.append(_runs_are(later))
    return " or ".join(found)


def _runs_are(runs: Sequence[int]) -> str:
    return f"run in ({', '.join(map(str, sorted(runs)))})"


def _fresh(inputs: Inputs) -> list[KeptScan]:
    """Return the scan that was made for the report, if there was one."""
    if not inputs.grants or not inputs.scanned_whole:
        return []
    sources = tuple(
        ScannedSource(one.title, one.broker, one.configuration, compared=one.unused_known) for one in inputs.grants
    )
    return [KeptScan(FRESH, inputs.now_ns, sources, None if inputs.policy is None else inputs.policy.sha256)]


def _read(inputs: Inputs, scans: Sequence[KeptScan]) -> tuple[list[GrantsRead], list[tuple[str, str, str | None]]]:
    """Return the grants as the newest of these scans read them, and what it could not read."""
    newest: dict[tuple[str, str], KeptScan] = {}
    digests: dict[tuple[str, str], str] = {}
    compared: set[tuple[str, str]] = set()
    fresh = {one.broker for one in inputs.grants}
    for scan in scans:
        for one in scan.sources:
            key = (one.broker, one.configuration)
            if one.broker in fresh:
                continue
            newest[key] = scan
            if scan.policy is not None:
                digests[key] = scan.policy
            if one.broker in scan.compared:
                compared.add(key)
    grants, spots = [], []
    for key, scan in newest.items():
        digest = digests.get(key)
        judged = digest is not None and (inputs.policy is None or digest == inputs.policy.sha256)
        for one in scan.sources:
            if (one.broker, one.configuration) == key:
                grants.append(
                    GrantsRead(one.title, one.broker, one.grants, one.accounts, one.undecided, key in compared,
                               one.configuration, judged)
                )  # fmt: skip
                spots += [(one.title, what, fix) for what, fix in one.blind_spots]
    return grants, spots
