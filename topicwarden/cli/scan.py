"""`scan`: what a broker would allow, against the policy and against what was observed."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from topicwarden.cli import EXIT_BLIND, EXIT_CLEAN, EXIT_FINDINGS
from topicwarden.cli.check import Opened, open_file
from topicwarden.cli.observed import files_in, gather
from topicwarden.cli.options import RunOptions
from topicwarden.cli.pipeline import about_sources, policy_facts
from topicwarden.cli.progress import Progress
from topicwarden.cli.recorded import is_store
from topicwarden.cli.signals import Interrupt
from topicwarden.cli.sources import broker_for
from topicwarden.cli.witnesses import Tried, WitnessCheck, read_credentials, try_witnesses
from topicwarden.compare.scan import Question, Scan, Scanned
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events.observed import Observed
from topicwarden.findings import Finding, Ledger, Severity, load_catalogue
from topicwarden.grants import Grants
from topicwarden.output.live import Live
from topicwarden.output.origin import Origin
from topicwarden.output.sinks import Sink, make_sink
from topicwarden.output.summary import Kept, ScannedGrants, SourceSummary, Summary
from topicwarden.policy import load_policy
from topicwarden.report.scans import ScannedSource, scan_facts, source_rows
from topicwarden.sources import BlindSpot, Broker, Counters, SourceOptions, load_brokers

__all__ = ["ScanOptions", "WitnessCheck", "run"]


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What `scan` was asked for."""

    policy: Path | None = None
    output_format: str = "text"
    fail_on: int = Severity.MEDIUM
    observed: Sequence[str] = ()
    broker_kind: str | None = None
    witness_check: WitnessCheck | None = None
    store: Path | None = None
    """Where findings are kept."""
    store_key: Path | None = None


@dataclass(frozen=True, slots=True)
class _Done:
    """A scan of one broker's grants that came to its end."""

    configuration: str
    grants: Grants
    scanned: Scanned
    tried: Tried


def run(sources: Sequence[str], options: ScanOptions, source_options: SourceOptions) -> int:
    """Scan each source, print what was found, and keep it where that was asked for; returns the exit code.

    Raises ConfigurationError for what is wrong with the policy, a configuration or a store, ObservationError for a
    broker or a file that cannot be read.
    """
    catalogue = load_catalogue()
    policy = None
    if options.policy is not None:
        policy = load_policy(options.policy, [*catalogue, *(entry.name for entry in catalogue.values())])
    if options.store is not None:
        # Not at the top: a store's libraries take as long to load as everything else together.
        from topicwarden.cli.keeping import check_keeping

        check_keeping(options.store, options.store_key)
    elif options.store_key is not None:
        raise ConfigurationError(Problem("--store-key is about a store", hint="name it: --store DIR"))
    brokers = load_brokers()
    read = read_grants(brokers, sources, options, source_options)
    found = [grants for _, grants in read]
    check = options.witness_check
    passwords = {} if check is None else read_credentials(check.credentials)
    kinds = {grants.broker: grants.kind for grants in found}
    origin = Origin(host=socket.gethostname(), kinds=kinds)
    sink = make_sink(options.output_format, sys.stdout, origin=origin)
    ledger = Ledger(catalogue)
    now = time.time_ns()
    scan = Scan(ledger, policy, now)
    done: list[_Done] = []
    with Interrupt() as interrupt, Progress(sys.stderr) as progress:
        opened = _open(brokers, options, source_options)
        observed = gather(opened, progress, interrupt) if opened else None
        for configuration, grants in read:
            if interrupt.happened:
                break
            scan.questions.clear()
            result = scan.run(grants, observed_at(observed, grants, found), progress)
            tried = Tried()
            if check is not None:
                tried = _try(brokers[grants.kind], check, scan.questions, passwords, source_options, progress)
            done.append(_Done(configuration, grants, result, tried))
    findings = sorted(ledger.findings(), key=_by_place)
    kept = None
    try:
        if options.store is not None and done:
            kept = _keep(options.store, options, done, ledger, findings, now, sink, origin)
    finally:
        # First it is kept: whoever reads our output may go away. If it is not, it is still shown.
        for finding in findings:
            sink.opened(finding)
    seen = observed or Observed()
    sink.finish(
        Summary(
            command="scan",
            sources=[source for one in opened for source in one.sources],
            findings=findings,
            started_ns=now if seen.first_ns is None else seen.first_ns,
            ended_ns=now if seen.last_ns is None else seen.last_ns,
            clients=seen.principals,
            topics=seen.names,
            denied=seen.denied,
            overflow=ledger.overflow,
            policy=None if options.policy is None else str(options.policy),
            interrupted=interrupt.happened,
            scanned=[_summary(one.grants, one.scanned, one.tried) for one in done],
            kept=kept,
        )
    )
    if kept is not None and (kept.dropped or kept.error is not None):
        return EXIT_BLIND
    failed = any(finding.accepted is None and finding.severity >= options.fail_on for finding in findings)
    if failed or interrupt.happened:
        return EXIT_FINDINGS
    # Where nobody could be judged, that nothing was found says nothing.
    blind = any(not one.scanned.classes and not one.grants.closed for one in done)
    return EXIT_BLIND if blind else EXIT_CLEAN


def _by_place(finding: Finding) -> tuple[object, ...]:
    """Order findings as one works through them: the gravest first, then as they stand in the configuration."""
    evidence = finding.evidence
    return (
        -finding.severity,
        finding.type.code,
        str(evidence.get("where_file", "")),
        int(evidence.get("where_line", 0)),
        str(evidence.get("holder", "")),
        str(evidence.get("grant", "")),
        finding.fingerprint,
    )


def _keep(
    folder: Path,
    options: ScanOptions,
    done: Sequence[_Done],
    ledger: Ledger,
    findings: Sequence[Finding],
    now_ns: int,
    sink: Sink,
    origin: Origin,
) -> Kept:
    """Keep what was found; only now, so that nobody else is kept from the store while we scan."""
    from topicwarden.cli.keeping import open_keeper

    read = [
        ScannedSource(
            one.scanned.title,
            one.scanned.broker,
            one.configuration,
            one.scanned.grants,
            one.scanned.accounts,
            one.scanned.undecided,
            one.scanned.usage is not None and one.scanned.usage.first_ns is not None,
        )
        for one in done
    ]
    watched = [
        SourceSummary(one.scanned.title, one.scanned.broker, list(map(BlindSpot, one.grants.blind_spots)), Counters())
        for one in done
    ]
    about = about_sources("scan", watched, origin.kinds, more=source_rows(read)) | {
        "policy": policy_facts(options.policy),
        "scan": scan_facts(now_ns, len(findings), whole=not ledger.overflow),
    }
    keeping = RunOptions(store=folder, store_key=options.store_key)
    with Live(sink, sys.stderr) as live, open_keeper(folder, keeping, about, live, origin, patient=True) as keeper:
        for finding in findings:
            keeper.scanned(finding, now_ns)
        keeper.close()
        return keeper.kept()


def configuration_named(source: str) -> str:
    """Return what tells a source from others, however it was spelled, and without anybody's password."""
    if "://" not in source:
        return os.path.abspath(source)  # noqa: PTH100 - a link stays one: what it names may be another file tomorrow
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def read_grants(
    brokers: Mapping[str, Broker], sources: Sequence[str], options: ScanOptions, source_options: SourceOptions
) -> list[tuple[str, Grants]]:
    """Read every source's grants, each with its configuration; what is wrong with any of them is told at once."""
    found: list[tuple[str, Grants]] = []
    problems: list[Problem] = []
    for source in sources:
        if "://" not in source and not Path(source).exists():
            problems.append(Problem("no such file", source, hint="check the path"))
            continue
        try:
            read = broker_for(brokers, source, options.broker_kind).grants(source, source_options)
            found += [(configuration_named(source), grants) for grants in read]
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(*problems)
    return found


def _open(brokers: Mapping[str, Broker], options: ScanOptions, source_options: SourceOptions) -> list[Opened]:
    reading = SourceOptions(broker=source_options.broker, from_start=True)
    # A name given to the grants need not be the one a store's events have; `observed_at` sees to it.
    stores = replace(reading, broker=None)
    return [
        open_file(file, brokers, None, stores if is_store(file) else reading) for file in files_in(options.observed)
    ]


def observed_at(observed: Observed | None, grants: Grants, found: Sequence[Grants]) -> Observed | None:
    """Return what was observed at this broker; when there is only one of each, their names need not agree."""
    if observed is None or (len(observed.brokers) <= 1 and len({one.broker for one in found}) == 1):
        return observed
    if grants.broker not in observed.brokers:
        raise ConfigurationError(
            Problem(
                f"nothing was observed at broker {grants.broker!r}, but at "
                f"{', '.join(map(repr, sorted(observed.brokers)))}",
                grants.title,
                hint="scan one broker at a time, or give both the same name with --broker",
            )
        )
    return observed.at(grants.broker)


def _try(
    broker: Broker,
    check: WitnessCheck,
    questions: Sequence[Question],
    passwords: Mapping[str, str],
    source_options: SourceOptions,
    progress: Progress,
) -> Tried:
    # We ask as the users it is about, never as ourselves.
    options = replace(source_options, username=None, password_file=None)
    probe = broker.probe(check.address, options, passwords, allow_publish=check.allow_publish)
    try:
        return try_witnesses(probe, questions, progress, allow_publish=check.allow_publish)
    finally:
        probe.close()


def _summary(grants: Grants, scanned: Scanned, tried: Tried) -> ScannedGrants:
    return ScannedGrants(
        title=scanned.title,
        broker=scanned.broker,
        blind_spots=[BlindSpot(spot) for spot in grants.blind_spots],
        grants=scanned.grants,
        accounts=scanned.accounts,
        classes=scanned.classes,
        undecided=scanned.undecided,
        confirmed=tried.confirmed,
        refuted=tried.refuted,
        not_tried=tried.not_tried,
        unexplained=0 if scanned.usage is None else scanned.usage.unmatched,
    )
