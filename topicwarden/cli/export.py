"""`export`: a policy in a broker's own syntax, and how it fares with what was observed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from topicwarden.cli import EXIT_BLIND, EXIT_CLEAN, EXIT_FINDINGS
from topicwarden.cli.check import Opened, open_file
from topicwarden.cli.observed import files_in, gather
from topicwarden.cli.progress import Progress
from topicwarden.cli.signals import Interrupt
from topicwarden.cli.sources import broker_for
from topicwarden.compare.replay import Denial, Outcome, Replay, Replayed
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import DOING, Client
from topicwarden.events.observed import Observed
from topicwarden.findings import load_catalogue
from topicwarden.grants import Export, Unsaid
from topicwarden.output import wording
from topicwarden.output.escape import encodable, shorten, visible
from topicwarden.policy import Policy, load_policy
from topicwarden.sources import Broker, SourceOptions, load_brokers

FILE_MODE: Final = 0o640
"""Who may read the files also learns who may do what; a broker's own group has to read them."""
NAME_COLUMNS: Final = 120
"""How much room a name has in the list of denials."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What `export` was asked for."""

    target: str
    output: Path | None = None
    accounts: Sequence[str] = ()
    users: Sequence[str] = ()
    observed: Sequence[str] = ()
    broker_kind: str | None = None


def run(policy: Path, options: ExportOptions, source_options: SourceOptions) -> int:
    """Write the export and say what it lacks; returns the exit code.

    0: nothing was observed that the policy allows and the export denies, and all of it could be judged. 1: something
    was. 3: nothing was observed at all. Raises ConfigurationError for what is wrong with the policy, the target, a
    configuration or the folder, ObservationError for a recording or log that cannot be read.
    """
    catalogue = load_catalogue()
    intended = load_policy(policy, [*catalogue, *(entry.name for entry in catalogue.values())])
    brokers = load_brokers()
    broker = _broker_of(brokers, options.target)
    if options.output is not None:
        _refuse_what_is_there(options.output, ())
    accounts = list(_accounts(brokers, options, source_options))
    with Interrupt() as interrupt, Progress(sys.stderr) as progress:
        observed = None
        if options.observed:
            observed = gather(_open(brokers, options, source_options), progress, interrupt)
            accounts += _seen(observed)
        progress("writing the policy for the accounts")
        export = broker.export(options.target, intended, list(dict.fromkeys(accounts)))
        replayed = None
        if observed is not None and not interrupt.happened:
            replayed = _replay(broker, export, intended, observed, progress)
    if interrupt.happened:
        _say("interrupted: nothing was written")
        return EXIT_FINDINGS
    _write(export, options.output)
    _tell(export, options.output)
    if observed is None or replayed is None:
        return EXIT_CLEAN
    return _tell_of_replay(replayed, observed)


def _broker_of(brokers: Mapping[str, Broker], target: str) -> Broker:
    """Return the package that writes this target; raises ConfigurationError when there is none."""
    for broker in brokers.values():
        if target in broker.export_targets:
            return broker
    known = ", ".join(target for broker in brokers.values() for target in broker.export_targets)
    raise ConfigurationError(Problem(f"nothing can be exported to {target!r}", hint=f"one of: {known}"))


# For whom -------------------------------------------------------------------------------------------------------------


def _accounts(brokers: Mapping[str, Broker], options: ExportOptions, source_options: SourceOptions) -> Iterator[Client]:
    """Yield the users named on the command line and those of the configurations."""
    problems: list[Problem] = []
    for source in options.accounts:
        if "://" not in source and not Path(source).exists():
            problems.append(Problem("no such file", source, hint="check the path"))
            continue
        try:
            for grants in broker_for(brokers, source, options.broker_kind).grants(source, source_options):
                yield from (replace(account, client_id="") for account in grants.accounts)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(*problems)
    for user in options.users:
        yield Client("", "", "", user)


def _seen(observed: Observed) -> Iterator[Client]:
    """Yield the users who did something that the broker did not refuse: a name that was only tried is nobody's."""
    for client in observed.let_pass:
        if client.user is not None:
            yield replace(client, client_id="", tls_subject=None)


def _open(brokers: Mapping[str, Broker], options: ExportOptions, source_options: SourceOptions) -> list[Opened]:
    return [open_file(file, brokers, None, source_options) for file in files_in(options.observed)]


# The proof ------------------------------------------------------------------------------------------------------------


def _replay(broker: Broker, export: Export, policy: Policy, observed: Observed, progress: Progress) -> Replayed:
    """Read the export back as any configuration and replay what was observed."""
    with TemporaryDirectory(prefix="topicwarden-") as folder:
        _create(Path(folder), export.files)
        grants = broker.grants(str(Path(folder) / next(iter(export.files))), SourceOptions(broker="export"))
        of = wording.number(len(observed))
        return Replay(policy, grants, export.denied_more).run(
            observed, lambda done: progress(f"replaying what was observed: {wording.number(done)} of {of}")
        )


# Files ----------------------------------------------------------------------------------------------------------------


def _write(export: Export, folder: Path | None) -> None:
    """Write the main file to stdout, or all files into a folder; raises ConfigurationError, then nothing is there."""
    if folder is None:
        text = next(iter(export.files.values()))
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.flush()
        return
    _refuse_what_is_there(folder, export.files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _create(folder, export.files)
    except OSError as error:
        raise ConfigurationError(
            Problem(
                f"the export cannot be written: {error.strerror}", str(folder), hint="name a folder we may write to"
            )
        ) from error


def _refuse_what_is_there(folder: Path, names: Sequence[str] | Mapping[str, str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(Problem("this is no folder", str(folder), hint="name a folder for the files"))
    there = [name for name in names if os.path.lexists(folder / name)]
    if there:
        raise ConfigurationError(
            *(
                Problem(
                    "the file is there already, and nothing is overwritten",
                    str(folder / name),
                    hint="name another folder, or move the file away",
                )
                for name in there
            )
        )


def _create(folder: Path, files: Mapping[str, str]) -> None:
    """Create files that are whole as soon as they are there, all of them or none; raises OSError."""
    made: list[Path] = []
    try:
        for name, text in files.items():
            path = folder / name
            # A link, unlike a rename, never takes another file's place.
            with TemporaryDirectory(prefix=".topicwarden-", dir=folder) as beside:
                whole = Path(beside) / "file"
                descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(text.encode("utf-8", "surrogateescape"))
                    file.flush()
                    os.fsync(file.fileno())
                os.link(whole, path)
            made.append(path)
    except OSError:
        for path in made:
            with suppress(OSError):
                path.unlink()
        raise


# What is said ---------------------------------------------------------------------------------------------------------


def _tell(export: Export, folder: Path | None) -> None:
    """Say what was written where, and everything that it lacks."""
    main, *others = export.files
    if folder is not None:
        for name in export.files:
            _say(f"written: {visible(str(folder / name))}")
    elif others:
        _say(f"not printed: {', '.join(others)} (-o DIR writes it beside {main})")
    for unsaid in export.unsaid:
        _say(f"not expressed: {_placed(unsaid)}")
    for unsaid in export.denied_more:
        _say(f"denied more: {_placed(unsaid)}")


def _placed(unsaid: Unsaid) -> str:
    return visible(f"{unsaid.where}: {unsaid.what}" if unsaid.where else unsaid.what)


def _tell_of_replay(replayed: Replayed, observed: Observed) -> int:
    """Say how the export fares with what was observed; returns the exit code."""
    if not observed.events:
        _say("replayed: nothing, for nothing was observed that a permission is about")
        return EXIT_BLIND
    _say(_headline(replayed))
    for denial in replayed.denials:
        _say(f"  {_told(denial)}")
    if replayed.different > len(replayed.denials):
        _say(f"  and {wording.number(replayed.different - len(replayed.denials))} more")
    for count, why in (
        (replayed.refused, "the broker had refused them"),
        (replayed.unreadable, "their names are cut or invalid"),
        (observed.overflow, "there were too many different ones to keep"),
        (observed.lost, "they are known to be missing in what was observed"),
    ):
        if count:
            _say(f"not replayed: {wording.counted(count, 'event')}, {why}")
    if replayed.undecided:
        _say(f"undecided: {wording.counted(replayed.undecided, 'event')}")
    if replayed.unexplained:
        _say(
            f"{wording.counted(replayed.unexplained, 'event')} that the policy allows would be denied, and the export "
            "does not say why: please report this as a defect of topicwarden"
        )
    clean = not (replayed.by_export or replayed.undecided_intended or observed.overflow)
    return EXIT_CLEAN if clean else EXIT_FINDINGS


def _headline(replayed: Replayed) -> str:
    text = (
        f"replayed: {wording.number(replayed.denied)} of {wording.counted(replayed.events, 'observed event')} "
        "would be denied"
    )
    if not replayed.denied:
        return text
    parts = [f"{wording.number(replayed.by_policy)} by the policy itself"]
    parts.append(f"{wording.number(replayed.by_export)} only by the export")
    if replayed.partly:
        parts.append(f"{wording.number(replayed.partly)} of all in part")
    return f"{text}: {', '.join(parts)}"


def _told(denial: Denial) -> str:
    who = wording.client_name(denial.client, denial.client.broker, NAME_COLUMNS)
    if denial.client.user is not None and denial.client.client_id not in ("", denial.client.user):
        who += f" (client {shorten(denial.client.client_id, NAME_COLUMNS)})"
    if denial.outcome is Outcome.UNDECIDED:
        by = "it cannot be told whether it would be denied"
    else:
        by = "the policy allows it" if denial.intended else "the policy denies it, too"
        by = f"in part; {by}" if denial.outcome is Outcome.PARTLY else by
    what = f"{DOING[denial.action]} {shorten(denial.resource.label, NAME_COLUMNS)}"
    first, last = wording.timestamp(denial.first_ns), wording.timestamp(denial.last_ns)
    when = first if first == last else f"{first} to {last}"
    return f"{who}: {what}, {wording.times(denial.count)}, {when}; {by}"


def _say(text: str) -> None:
    """Print a line that is fit to be printed."""
    sys.stderr.write(encodable(text, sys.stderr.encoding) + "\n")
