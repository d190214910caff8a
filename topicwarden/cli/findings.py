"""`findings`: how what was found stands, in a store or a file; accepting it in the policy, and taking that back."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from topicwarden.cli import EXIT_CLEAN
from topicwarden.cli.options import one_of
from topicwarden.cli.period import moment_named
from topicwarden.cli.policy_file import PolicyFile
from topicwarden.errors import ConfigurationError, Problem, TopicwardenError
from topicwarden.findings import Catalogue, load_catalogue
from topicwarden.output import wording
from topicwarden.output.escape import visible
from topicwarden.output.jsonl import Shown, encode
from topicwarden.output.layout import wrap
from topicwarden.output.sinks import TextSink
from topicwarden.policy import Glob, Policy, load_policy, parse_policy
from topicwarden.policy.editing import Edited, add_exception, exception_lines, remove_exception
from topicwarden.report.accepting import covers_finding, propose
from topicwarden.report.findings import SEVERITIES
from topicwarden.report.triage import Found, Standing, State, Tellings, Wanted, find
from topicwarden.report.triage_lines import LineTellings
from topicwarden.report.triage_stored import StoredTellings
from topicwarden.report.triage_text import SHORT, brief_lines, full_lines
from topicwarden.store.reader import Store

ACTIONS: Final = ("list", "show", "accept", "reopen")
FORMATS: Final = ("text", "jsonl")
LIMIT: Final = 100
"""Findings that a list for people has."""
_FEWEST: Final = 4
"""Digits of a fingerprint that are needed at least."""
_SHOWN_ALIKE: Final = 10


@dataclass(frozen=True, slots=True)
class FindingsOptions:
    """What the user asked for."""

    action: str = "list"
    fingerprint: str | None = None
    output_format: str = "text"
    policy: Path | None = None
    limit: int | None = None
    # Which findings.
    codes: Sequence[str] = ()
    severity: str | None = None
    broker: str | None = None
    host: str | None = None
    user: str | None = None
    since: str | None = None
    state: State = "all"
    # How to accept.
    reason: str | None = None
    until: str | None = None
    place: Mapping[str, str] = field(default_factory=dict)
    wide: bool = False
    line: int | None = None
    yes: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    options: FindingsOptions
    tellings: Tellings
    catalogue: Catalogue
    sink: TextSink

    @property
    def known(self) -> list[str]:
        return [*self.catalogue, *(entry.name for entry in self.catalogue.values())]


def run(place: Path, options: FindingsOptions) -> int:
    """Do what was asked of a store, or of a file of JSON lines; returns the exit code.

    Raises ConfigurationError or ObservationError.
    """
    one_of("the action", options.action, ACTIONS)
    one_of("--format", options.output_format, FORMATS)
    _check(options)
    tellings = LineTellings(place) if place.exists() and not place.is_dir() else StoredTellings(Store(place))
    here = _Run(options, tellings, load_catalogue(), TextSink(sys.stdout))
    actions: Mapping[str, Callable[[_Run], None]] = {"list": _list, "show": _show, "accept": _accept, "reopen": _reopen}
    actions[options.action](here)
    return EXIT_CLEAN


def _check(options: FindingsOptions) -> None:
    """Refuse options that would be ignored: whoever gives one expects something of it."""
    filters = [options.severity, options.broker, options.host, options.user, options.since, options.limit]
    given = {
        "list": bool(options.codes or options.state != "all" or any(value is not None for value in filters)),
        "accept": bool(options.place or options.wide or options.reason is not None or options.until is not None),
        "reopen": options.line is not None,
    }
    names = {"list": "filters are", "accept": "--reason, --until, --topic … and --wide are", "reopen": "--line is"}
    for action, used in given.items():
        if used and options.action != action:
            raise ConfigurationError(Problem(f"{names[action]} for `{action}`, not for `{options.action}`"))
    if options.yes and options.action not in ("accept", "reopen"):
        raise ConfigurationError(Problem("--yes is for `accept` and `reopen`"))
    if (options.fingerprint is None) != (options.action == "list"):
        hint = "`topicwarden findings DIR` lists them" if options.fingerprint is None else None
        raise ConfigurationError(Problem(f"`{options.action}` needs {'a' if hint else 'no'} fingerprint", hint=hint))


# Looking --------------------------------------------------------------------------------------------------------------


def _list(here: _Run) -> None:
    options = here.options
    codes = set()
    for code in options.codes:
        known = here.catalogue.find(code)
        if known is None:
            raise ConfigurationError(Problem(f"there is no finding {code!r}", hint="`topicwarden explain` lists them"))
        codes.add(known.code)
    severity = 0
    if options.severity is not None:
        severity = SEVERITIES.index(one_of("--severity", options.severity.lower(), SEVERITIES))
    since = "" if options.since is None else wording.timestamp(moment_named("--since", options.since), 9)
    broker, host, user = (None if text is None else Glob(text) for text in (options.broker, options.host, options.user))
    wanted = Wanted(frozenset(codes), severity, broker, host, user, since, options.state)
    policy = _policy_of_today(here)
    machine = options.output_format == "jsonl"
    limit = options.limit if machine or options.limit is not None else LIMIT
    found = find(here.tellings, wanted, limit)
    shown = 0
    for standing in found.standing:
        says = None if policy is None else _policy_says(standing.document, policy, here.catalogue)
        if machine:
            sys.stdout.write(_line(standing, says))
        else:
            here.sink.print(brief_lines(standing, here.sink.width, says))
        shown += 1
    if not machine:
        here.sink.print(_closing(here, found, shown))
    elif found.unreadable or found.overflow:
        sys.stderr.write("\n".join(_incomplete(here, found)) + "\n")


def _closing(here: _Run, found: Found, shown: int) -> list[Text]:
    lines = [
        f"{wording.counted(found.total, 'finding')}" + (f", the first {shown} shown" if shown < found.total else "")
    ]
    if shown < found.total:
        lines.append(
            "More with --limit N; fewer with --code, --severity, --broker, --host, --user, --since, --open, --gone"
        )
    lines += _incomplete(here, found)
    return [part for line in lines for part in wrap(Text(line), here.sink.width)]


def _incomplete(here: _Run, found: Found) -> list[str]:
    lines = []
    if found.unreadable:
        lines.append(here.tellings.unreadable(found.unreadable))
    if found.overflow:
        lines.append(
            f"{wording.counted(found.overflow, 'document')} are about further findings, which there was no room for: "
            "narrow the list"
        )
    return lines


def _show(here: _Run) -> None:
    standing = _one(here)
    policy = _policy_of_today(here)
    says = None if policy is None else _policy_says(standing.document, policy, here.catalogue)
    if here.options.output_format == "jsonl":
        sys.stdout.write(_line(standing, says))
    else:
        here.sink.print(full_lines(standing, here.catalogue, here.sink.width, says))


def _line(standing: Standing, says: str | None) -> str:
    """Return the stored document with what all runs say of it."""
    document = dict(standing.document)
    document |= {"first_seen": standing.first_seen, "last_seen": standing.last_seen, "runs": standing.runs}
    document["gone"] = standing.gone
    if says is not None:
        document["policy_says"] = says
    # What was stored is well-formed and escaped already.
    return encode(_as_stored(document)) + "\n"


def _as_stored(value: Any) -> Any:
    if isinstance(value, str):
        return Shown(value)
    if isinstance(value, dict):
        return {key: _as_stored(item) for key, item in value.items()}
    return [_as_stored(item) for item in value] if isinstance(value, list) else value


def _one(here: _Run) -> Standing:
    prefix = (here.options.fingerprint or "").lower()
    if len(prefix) < _FEWEST or len(prefix) > 32 or set(prefix) - set("0123456789abcdef"):
        raise ConfigurationError(
            Problem(f"{prefix!r} is no fingerprint", hint=f"give {_FEWEST} to 32 of its hex digits, from the first on")
        )
    found = find(here.tellings, Wanted(prefix=prefix), _SHOWN_ALIKE)
    standing = list(found.standing)
    if not standing:
        missing = f"; {'; '.join(_incomplete(here, found))}" if found.unreadable else ""
        noun, hint = here.tellings.noun, "`topicwarden findings DIR` lists them"
        raise ConfigurationError(Problem(f"the {noun} has no finding {prefix}{missing}", hint=hint))
    if len(standing) > 1:
        names = ", ".join(one.document["fingerprint"] for one in standing)
        raise ConfigurationError(Problem(f"{found.total} findings begin with {prefix}", hint=f"such as {names}"))
    return standing[0]


# Accepting ------------------------------------------------------------------------------------------------------------


def _accept(here: _Run) -> None:
    options = here.options
    file, reason, until = _policy_file(here), options.reason, options.until
    if not reason or until is None:
        raise ConfigurationError(
            Problem("an exception has a reason and an end", hint="--reason 'replaced by Q2' --until 2027-06-30")
        )
    standing = _one(here)
    document = standing.document
    proposal = propose(document, here.catalogue, options.place, wide=options.wide)
    today = _today()
    for number, rule in enumerate(_parsed(file, here).exceptions):
        if rule.until >= today and covers_finding(rule, document, here.catalogue):
            line = exception_lines(file.text)[number]
            raise ConfigurationError(
                Problem(f"an exception accepts it already, until {rule.until.isoformat()}", str(file.path), line)
            )
    edited = add_exception(file.text, str(file.path), {**proposal.keys, "reason": reason, "until": until}, here.known)
    if edited.rule.until < today:
        raise ConfigurationError(Problem(f"--until {until} is past", hint=f"today is {today.isoformat()}, UTC"))
    if not covers_finding(edited.rule, document, here.catalogue):
        raise ConfigurationError(
            Problem(
                "the exception would not cover all that is known of this finding",
                hint="choose a wider --topic (or --exchange and --key, or --queue)",
            )
        )
    notes = [f"{note[0].upper()}{note[1:]}" for note in proposal.notes]
    if standing.gone is not None:
        notes.append("The newest scan did not find it any more")
    _write(here, file, edited, standing, notes)


def _reopen(here: _Run) -> None:
    file = _policy_file(here)
    standing = _one(here)
    policy = _parsed(file, here)
    lines = exception_lines(file.text)
    fitting = [
        number
        for number, rule in enumerate(policy.exceptions)
        if covers_finding(rule, standing.document, here.catalogue)
    ]
    if here.options.line is not None:
        fitting = [number for number in fitting if lines[number] == here.options.line]
    if not fitting:
        at = "" if here.options.line is None else f" on line {here.options.line}"
        raise ConfigurationError(Problem(f"no exception{at} covers this finding", str(file.path)))
    if len(fitting) > 1:
        where = ", ".join(str(lines[number]) for number in fitting)
        raise ConfigurationError(
            Problem(
                "several exceptions cover this finding", str(file.path), hint=f"choose with --line, one of: {where}"
            )
        )
    edited = remove_exception(file.text, str(file.path), fitting[0], here.known)
    notes = ["Whatever else it accepted is open again too"]
    if edited.left_empty:
        notes.append("An empty list of exceptions stays: the file had more there than an entry")
    _write(here, file, edited, standing, notes)


def _write(here: _Run, file: PolicyFile, edited: Edited, standing: Standing, notes: Sequence[str]) -> None:
    """Show what changes, ask, and write."""
    machine = here.options.output_format == "jsonl"
    stream = sys.stderr if machine else sys.stdout
    stream.write(file.diff(edited.text))
    for note in notes:
        stream.write(f"{note}\n")
    stream.flush()
    if not here.options.yes:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                Problem("nothing was written: nobody was there to confirm it", hint="say --yes to write it")
            )
        sys.stderr.write(f"Write this to {visible(str(file.path))}? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise ConfigurationError(Problem("nothing was written"))
    file.write(edited.text)
    fingerprint = standing.document["fingerprint"]
    if machine:
        rule = edited.rule.model_dump(mode="json", exclude_none=True)
        action = {"type": here.options.action, "fingerprint": fingerprint, "policy": str(file.path)}
        sys.stdout.write(
            encode(action | {"exception": {k: str(v) for k, v in rule.items()}, "notes": list(notes)}) + "\n"
        )
        return
    done = "accepted from the next run on" if here.options.action == "accept" else "open again from the next run on"
    here.sink.print([Text(f"{fingerprint[:SHORT]} is {done}; have the change of the policy reviewed")])


def _policy_file(here: _Run) -> PolicyFile:
    if here.options.policy is None:
        raise ConfigurationError(
            Problem(f"`{here.options.action}` changes a policy file", hint="name it with --policy FILE")
        )
    return PolicyFile.read(here.options.policy)


def _parsed(file: PolicyFile, here: _Run) -> Policy:
    return parse_policy(file.text, str(file.path), here.known)


def _policy_of_today(here: _Run) -> Policy | None:
    return None if here.options.policy is None else load_policy(here.options.policy, here.known)


def _policy_says(document: Mapping[str, Any], policy: Policy, catalogue: Catalogue) -> str:
    """Return whether the policy accepts a finding today: that may be another one than it was judged by."""
    today = _today()
    try:
        covering = [rule for rule in policy.exceptions if covers_finding(rule, document, catalogue)]
    except TopicwardenError:
        return "no exception can accept it"
    ends = [rule.until for rule in covering]
    if not ends:
        return "the policy accepts it with no exception"
    last = max(ends)
    return f"the policy accepts it until {last}" if last >= today else f"the policy's exception ended on {last}"


def _today() -> date:
    return datetime.fromtimestamp(time.time(), UTC).date()
