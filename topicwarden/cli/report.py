"""`report`: what a store holds of a period, for people who must rely on it: HTML, PDF, JSON or CSV."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Final

import duckdb

from topicwarden import __version__
from topicwarden.cli import EXIT_BLIND, EXIT_CLEAN
from topicwarden.cli.options import one_of
from topicwarden.cli.period import Period
from topicwarden.cli.progress import Progress
from topicwarden.cli.scan import ScanOptions, observed_at, read_grants
from topicwarden.cli.signals import ended_by_signals
from topicwarden.compare.scan import Scan
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import Catalogue, Ledger, load_catalogue
from topicwarden.grants import Grants
from topicwarden.output.escape import visible
from topicwarden.output.jsonl import Event, encode, finding_document
from topicwarden.output.origin import Origin
from topicwarden.output.wording import counted
from topicwarden.policy import Policy, load_policy
from topicwarden.report import csv_files, html_page, json_document, pdf
from topicwarden.report.build import build_report
from topicwarden.report.controls import load_frameworks
from topicwarden.report.inputs import GrantsRead, Inputs
from topicwarden.report.integrity import LogRead, read_log, verified
from topicwarden.report.model import PolicyFacts, Report
from topicwarden.report.oscal import oscal_document
from topicwarden.report.reading import Span
from topicwarden.report.since import read_previous
from topicwarden.sources import SourceOptions, load_brokers
from topicwarden.store.analysis import observed
from topicwarden.store.identity import is_at_work
from topicwarden.store.reader import Store
from topicwarden.store.verify import verify
from topicwarden.store.views import Scope, Views

FORMATS: Final = ("html", "pdf", "json", "csv", "oscal")
_ENDINGS: Final[Mapping[str, str]] = {
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".json": "json",
    ".oscal.json": "oscal",
    ".csv": "csv",
    ".zip": "csv",
}
_NAMED: Final = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_PARTS: Final = ("duckdb", "pyarrow", "cryptography", "Jinja2")
"""What else made the report, of which an auditor may want to know the versions."""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What `report` was asked for."""

    period: Period = field(default_factory=Period)
    output: Path | None = None
    output_format: str | None = None
    policy: Path | None = None
    previous: Path | None = None
    grants: Sequence[str] = ()
    verify: bool = False
    allowed_gap_ns: int = 0
    """How long gaps may be, together, for a control to be satisfied all the same."""


def run(folder: Path, options: ReportOptions) -> int:
    """Write the report; returns the exit code: 3 when nothing was observed in the period, or the store was changed.

    Raises ConfigurationError for what is wrong with a file or an option, ObservationError for a store that cannot be
    read.
    """
    with ended_by_signals() as interrupts:
        try:
            return _run(folder, options, interrupts)
        except duckdb.InterruptException as error:
            # Ctrl-C while a statement ran is Ctrl-C.
            raise KeyboardInterrupt from error


def _run(folder: Path, options: ReportOptions, interrupts: list[Callable[[], None]]) -> int:
    output_format = _format(options)
    catalogue = load_catalogue()
    policy, facts = _policy(options.policy, catalogue)
    previous = None if options.previous is None else (str(options.previous), read_previous(options.previous))
    store = Store(folder)
    with Progress(sys.stderr) as progress:
        progress("reading the store's log")
        log = read_log(store)
        integrity = log.integrity
        intact = None
        if options.verify:
            verification = verify(folder, said=progress)
            integrity, intact = verified(integrity, verification), verification.intact
        span = _span(options.period, log, time.time_ns())
        scanned = _scan(store, span, options, policy, catalogue, progress, interrupts)
        progress("reading what was observed and found")
        inputs = Inputs(
            store=store,
            runs=log.runs,
            entries=log.entries,
            span=span,
            now_ns=time.time_ns(),
            version=__version__,
            integrity=integrity,
            directory=str(folder),
            host=socket.gethostname(),
            open_start=options.period.first_ns is None,
            open_end=options.period.last_ns is None,
            intended=policy,
            policy=facts,
            grants=scanned.read,
            grants_spots=scanned.spots,
            scanned=scanned.documents,
            scanned_whole=scanned.whole,
            frameworks=load_frameworks(),
            verified=intact,
            previous=previous,
            versions=_versions(),
            at_work=is_at_work(folder),
            allowed_gap_ns=options.allowed_gap_ns,
        )
        report = build_report(inputs, catalogue, lambda reading: interrupts.append(reading.interrupt))
        progress("writing the report")
        _write(report, output_format, options.output)
    empty = report.period.first_ns is None and not report.findings_total
    if options.output is not None:
        sys.stderr.write(
            f"{visible(str(options.output))}: {counted(report.findings_total, 'finding')}, "
            f"{'nothing was observed in the period' if empty else 'read chapter 2 first'}\n"
        )
    if not integrity.holds:
        sys.stderr.write(f"warning: {visible(integrity.verdict)}\n")
    return EXIT_BLIND if empty or not integrity.holds else EXIT_CLEAN


def _format(options: ReportOptions) -> str:
    """Return the format, by the option or the file's name; raises ConfigurationError when neither says."""
    name = "" if options.output is None else options.output.name.lower()
    ending = ".oscal.json" if name.endswith(".oscal.json") else Path(name).suffix
    named = options.output_format
    if named is None:
        named = _ENDINGS.get(ending) if options.output is not None else "html"
        if named is None:
            raise ConfigurationError(
                Problem(
                    "the format cannot be told from the name",
                    str(options.output),
                    hint="name it .html, .pdf, .json, .oscal.json, .csv (a folder) or .zip, or say --format",
                )
            )
    one_of("--format", named, FORMATS)
    if options.output is None and named in ("pdf", "csv"):
        raise ConfigurationError(Problem(f"{named} does not go to stdout", hint="say where with -o"))
    return named


def _policy(path: Path | None, catalogue: Catalogue) -> tuple[Policy | None, PolicyFacts | None]:
    if path is None:
        return None, None
    policy = load_policy(path, [*catalogue, *(entry.name for entry in catalogue.values())])
    roles = policy.roles.values()
    permissions = sum(
        len(role.publish) + len(role.subscribe) + len(role.consume) + len(role.configure) for role in roles
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return policy, PolicyFacts(str(path), digest, len(policy.roles), permissions, len(policy.exceptions))


def _span(period: Period, log: LogRead, now_ns: int) -> Span:
    """Return the period; an end that nobody named is that of what the store has, in whole microseconds."""
    held = log.held or Span(now_ns, now_ns)
    first = held.from_ns // 1000 * 1000 if period.first_ns is None else period.first_ns
    last = -(-held.to_ns // 1000) * 1000 if period.last_ns is None else period.last_ns
    if first > last:
        # One end was named, and all that is stored lies on its other side.
        first, last = (last, last) if period.first_ns is None else (first, first)
    return Span(first, last)


@dataclass(frozen=True, slots=True)
class _Scanned:
    """What a scan of grants, made for the report, gave."""

    read: Sequence[GrantsRead] = ()
    spots: Sequence[tuple[str, str, str | None]] = ()
    documents: Sequence[Mapping[str, Any]] = ()
    whole: bool = True
    """Whether there was room for all that was found."""


def _scan(
    store: Store,
    span: Span,
    options: ReportOptions,
    policy: Policy | None,
    catalogue: Catalogue,
    progress: Callable[[str], None],
    interrupts: list[Callable[[], None]],
) -> _Scanned:
    if not options.grants:
        return _Scanned()
    brokers = load_brokers()
    with Views(store, Scope(span.from_ns, span.to_ns)) as views:
        interrupts.append(views.interrupt)
        progress("adding up what was observed")
        seen = observed(views)
    found: list[tuple[str, Grants]] = []
    for text in options.grants:
        name, source = _named(text)
        if name is None and len(options.grants) == len(seen.brokers) == 1:
            # There is one of each: they are the same broker, whatever its configuration is called.
            (name,) = seen.brokers
        found += read_grants(brokers, [source], ScanOptions(), SourceOptions(broker=name, from_start=True))
    ledger = Ledger(catalogue)
    scan = Scan(ledger, policy, time.time_ns())
    read: list[GrantsRead] = []
    for configuration, grants in found:
        at_broker = observed_at(seen, grants, [one for _, one in found]) if len(seen) else None
        result = scan.run(grants, at_broker, progress)
        read.append(
            GrantsRead(
                result.title,
                result.broker,
                result.grants,
                result.accounts,
                result.undecided,
                at_broker is not None,
                configuration,
                policy is not None,
            )
        )
    origin = Origin(host=socket.gethostname())
    documents = [json.loads(encode(finding_document(Event.OPENED, one, origin))) for one in ledger.findings()]
    spots = [(one.title, spot, None) for _, one in found for spot in one.blind_spots]
    return _Scanned(read, spots, documents, not ledger.overflow)


def _named(text: str) -> tuple[str | None, str]:
    """Split `NAME=CONFIGURATION`; the name is what the store calls the broker."""
    named = _NAMED.fullmatch(text)
    return (None, text) if named is None or Path(text).exists() else (named[1], named[2])


def _versions() -> dict[str, str]:
    found = {}
    for name in _PARTS:
        try:
            found[name] = version_of(name)
        except PackageNotFoundError:
            found[name] = "not known"
    return found


def _write(report: Report, output_format: str, output: Path | None) -> None:
    """Write the report where it goes; raises ConfigurationError when that cannot be written."""
    try:
        if output_format == "csv":
            assert output is not None  # `_format` has refused it
            _write_csv(report, output)
            return
        data = _rendered(report, output_format)
        if output is None:
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        else:
            _replace(output, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        place = "stdout" if output is None else str(output)
        raise ConfigurationError(Problem(f"cannot be written: {error.strerror}", place)) from error


def _rendered(report: Report, output_format: str) -> bytes:
    match output_format:
        case "json":
            return json_document.text(report).encode()
        case "oscal":
            return _oscal(report)
        case "pdf":
            return pdf.render(html_page.render(report))
        case _:
            return html_page.render(report).encode()


def _oscal(report: Report) -> bytes:
    assert report.coverage is not None  # `build_report` gives it
    document = oscal_document(
        report.controls,
        report.findings,
        report.coverage,
        load_frameworks(),
        system=report.store.id,
        generated_ns=report.generated_ns,
        version=report.version,
        integrity=report.integrity,
        findings_total=report.findings_total,
    )
    return f"{json.dumps(document)}\n".encode()


def _write_csv(report: Report, output: Path) -> None:
    if output.suffix.lower() == ".zip":
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".topicwarden-") as folder:
            csv_files.write_zip(report, Path(folder) / "report.zip")
            (Path(folder) / "report.zip").replace(output)
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigurationError(
            Problem("CSV goes into a new or empty folder", str(output), hint="name another, or a .zip")
        )
    made = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    try:
        csv_files.write_folder(report, made)
        made.chmod(output.stat().st_mode & 0o7777 if output.exists() else _allowed(0o777))
        made.replace(output)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _allowed(mode: int) -> int:
    """Return what of a mode any program would give a new file; what `tempfile` makes is kept from everybody else."""
    mask = os.umask(0)
    os.umask(mask)
    return mode & ~mask


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all; what is no file, such as a terminal, is written to."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).chmod(_allowed(0o666))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
