"""`learn`: a draft of a policy from recordings and logs, or with `--baseline` of what is usual."""

from __future__ import annotations

import gc
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topicwarden import __version__
from topicwarden.cli import EXIT_BLIND, EXIT_CLEAN, EXIT_FINDINGS
from topicwarden.cli.check import open_file
from topicwarden.cli.signals import Interrupt
from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden.learn.baseline import DAYS, BaselineDraft, BaselineGatherer, learn_baseline
from topicwarden.learn.baseline_text import baseline_text, host_document
from topicwarden.learn.draft import SUPPORT, Draft, draft
from topicwarden.learn.observations import Gatherer
from topicwarden.learn.review import MEANING, Reason, ReviewItem, document
from topicwarden.learn.yaml_text import Provenance, policy_text
from topicwarden.output.escape import encodable, quoted, visible
from topicwarden.output.jsonl import encode
from topicwarden.output.sinks import is_terminal
from topicwarden.output.summary import SourceSummary
from topicwarden.output.wording import counted, number
from topicwarden.policy import parse_baseline, parse_policy
from topicwarden.sources import SourceOptions, load_brokers

QUIET_SECONDS: Final = 2.0
"""Shorter work shows no progress."""
LINE_SECONDS: Final = 10.0
"""How often progress is told where there is no terminal to redraw a line on."""
_SHOWN: Final = 3
"""Entries of the review list shown for each reason."""


@dataclass(frozen=True, slots=True)
class LearnOptions:
    """What `learn` was asked for."""

    output: Path
    review: Path | None = None
    min_coverage: float = 0.7
    min_users: int = SUPPORT
    broker_kind: str | None = None
    baseline: bool = False
    """Learn what is usual instead of what to allow."""
    min_days: int = DAYS

    @property
    def review_path(self) -> Path:
        """Where the review list goes."""
        return self.review or self.output.with_suffix(".review.jsonl")


class _InterruptedError(Exception):
    """Ctrl-C: leave at once, nothing is written yet."""


class _Progress:
    """Says on stderr what is being done, once it takes long; raises _InterruptedError after Ctrl-C."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._terminal = is_terminal(sys.stderr)
        self._began = time.monotonic()
        self._told = self._began + QUIET_SECONDS - (0.2 if self._terminal else LINE_SECONDS)
        self._drawn = False

    def tell(self, what: str) -> None:
        """Show what is being done now; call it often."""
        if self._interrupt.happened:
            raise _InterruptedError
        now = time.monotonic()
        if now - self._told < (0.2 if self._terminal else LINE_SECONDS):
            return
        self._told = now
        text = encodable(f"{what} ({now - self._began:.0f} s)", sys.stderr.encoding)
        sys.stderr.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        sys.stderr.flush()
        self._drawn = self._terminal

    def close(self) -> None:
        """Take the line away."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            self._drawn = False


def run(files: Sequence[str], options: LearnOptions, source_options: SourceOptions) -> int:
    """Read the files, write the draft and the review list; returns the exit code.

    0: both are written. 1: too little seems to have been seen, or nothing can be granted; only the review list is
    written. 3: interrupted; nothing is written. Raises ConfigurationError when a file to write is already there,
    ObservationError when nothing was observed that needs a permission.
    """
    for path in (options.output, options.review_path):
        _refuse_existing(path)
    with Interrupt() as interrupt:
        progress = _Progress(interrupt)
        try:
            learnt, sources = _learn(files, options, source_options, progress)
        except _InterruptedError:
            progress.close()
            sys.stderr.write("interrupted, nothing is written\n")
            return EXIT_BLIND
        finally:
            progress.close()
        if isinstance(learnt, BaselineDraft):
            return _write_baseline(learnt, options, sources)
        if not learnt.events:
            raise ObservationError(
                Problem("nothing was observed that needs a permission", hint="record more: topicwarden watch --record")
            )
        return _write(learnt, options, sources)


def _learn(
    files: Sequence[str], options: LearnOptions, source_options: SourceOptions, progress: _Progress
) -> tuple[Draft | BaselineDraft, list[SourceSummary]]:
    # Millions of small containers, none of them in a cycle: looking for cycles among them takes as long as learning.
    gc.disable()
    try:
        return _gathered_and_drafted(files, options, source_options, progress)
    finally:
        gc.enable()


def _gathered_and_drafted(
    files: Sequence[str], options: LearnOptions, source_options: SourceOptions, progress: _Progress
) -> tuple[Draft | BaselineDraft, list[SourceSummary]]:
    brokers = load_brokers()
    opened = [open_file(file, brokers, options.broker_kind, source_options) for file in files]
    baseline = BaselineGatherer() if options.baseline else None
    gatherer = baseline or Gatherer()
    for file, one in zip(files, opened, strict=True):
        for batch in one.batches:
            gatherer.add(batch)
            progress.tell(
                f"reading {quoted(file, 60)}: {number(gatherer.events)} events, {number(gatherer.pairs)} different"
            )
    sources = [source for one in opened for source in one.sources]
    if baseline is not None:
        usual = learn_baseline(baseline, progress.tell, support=options.min_users, min_days=options.min_days)
        return usual, sources
    return draft(gatherer.finish(), progress.tell, support=options.min_users), sources


def _write(learnt: Draft, options: LearnOptions, sources: Sequence[SourceSummary]) -> int:
    """Write what may be written, and say what was found."""
    review = options.review_path
    estimate = learnt.coverage.estimate
    refused = not learnt.roles or estimate < options.min_coverage
    text = ""
    if not refused:
        provenance = Provenance(
            command="topicwarden " + shlex.join(sys.argv[1:]),
            sources=_told(sources),
            version=__version__,
            review=str(review),
        )
        text = policy_text(learnt, provenance)
        parse_policy(text, str(options.output))  # a draft that cannot be loaded is worse than none
    _create(review, "".join(encode(document(item)) + "\n" for item in learnt.review))
    if not refused:
        _create(options.output, text)
    for line in _summary(learnt, options, sources):
        sys.stderr.write(encodable(line, sys.stderr.encoding) + "\n")
    return EXIT_FINDINGS if refused else EXIT_CLEAN


def _write_baseline(learnt: BaselineDraft, options: LearnOptions, sources: Sequence[SourceSummary]) -> int:
    """Write what is usual and what is left out; raises ObservationError when there was nothing to learn from."""
    if not learnt.events and not learnt.host_events:
        raise ObservationError(
            Problem("no publish and nothing of a host was observed", hint="record more: topicwarden watch --record")
        )
    review = options.review_path
    nothing = not (learnt.topics or learnt.brokers or learnt.tools)
    text = ""
    if not nothing:
        command = "topicwarden " + shlex.join(sys.argv[1:])
        provenance = Provenance(command, sources=_told(sources), version=__version__, review=str(review))
        text = baseline_text(learnt, provenance)
        parse_baseline(text, str(options.output))  # a baseline that cannot be loaded is worse than none
    documents = [*map(document, learnt.review), *map(host_document, learnt.left_out)]
    _create(review, "".join(encode(one) + "\n" for one in documents))
    if not nothing:
        _create(options.output, text)
    for line in _baseline_summary(learnt, options, sources, nothing):
        sys.stderr.write(encodable(line, sys.stderr.encoding) + "\n")
    return EXIT_FINDINGS if nothing else EXIT_CLEAN


def _baseline_summary(
    learnt: BaselineDraft, options: LearnOptions, sources: Sequence[SourceSummary], nothing: bool
) -> list[str]:
    lines = [f"source: {visible(line)}" for line in _told(sources)]
    lines.append(
        f"{number(learnt.events)} publishes by {number(learnt.accounts)} accounts, {number(learnt.host_events)} events "
        f"of hosts; usual are {counted(len(learnt.topics), 'topic')}, {counted(len(learnt.brokers), 'broker')}, "
        f"{counted(len(learnt.tools), 'tool')}, and {learnt.covered:.0%} of the publishes"
    )
    if learnt.overflow:
        lines.append(f"warning: no room for {number(learnt.overflow)} events; nothing was learnt from them")
    lines += _reviewed(learnt.review)
    if learnt.left_out:
        lines.append(f"to review, few-days ({number(len(learnt.left_out))}): brokers and tools that were rarely seen")
        lines += [f"  {item.kind} {quoted(item.label, 70)}: {item.why}" for item in learnt.left_out[:_SHOWN]]
    lines.append(f"review list: {visible(str(options.review_path))}")
    if nothing:
        lines += [
            "no baseline is written: nothing was done by enough users, or on enough days",
            "",
            f"hint: record for {options.min_days} days, or lower --min-days or --min-users and trust what few did",
        ]
    else:
        lines.append(f"baseline: {visible(str(options.output))}")
    return lines


def _told(sources: Sequence[SourceSummary]) -> list[str]:
    """Return a line about each source, and one about each thing it cannot see or has lost."""
    lines = []
    for source in sources:
        lines.append(source.title)
        lines += [f"  cannot see: {spot.what}" for spot in source.blind_spots]
        if source.counters.lost or source.counters.gaps:
            lines.append(f"  lost: {source.counters.lost} events in {source.counters.gaps} gaps")
    return lines


def _summary(learnt: Draft, options: LearnOptions, sources: Sequence[SourceSummary]) -> list[str]:
    coverage = learnt.coverage
    rules = sum(len(role.rules) for role in learnt.roles)
    lines = [f"source: {visible(line)}" for line in _told(sources)]
    lines.append(
        f"{number(learnt.events)} events by {number(learnt.accounts)} accounts; the draft has "
        f"{number(len(learnt.roles))} roles with {number(rules)} rules and grants {number(learnt.granted_events)}"
    )
    lines.append(
        f"estimated coverage {coverage.estimate:.2f}: {coverage.sample:.2f} of what there is to do, and of that "
        f"{coverage.completeness:.2f} for each client"
    )
    if learnt.overflow:
        lines.append(f"warning: no room for {number(learnt.overflow)} events; they are neither granted nor listed")
    lines += _reviewed(learnt.review)
    lines.append(f"review list: {visible(str(options.review_path))}")
    if not learnt.roles:
        lines += [
            "no draft is written: nothing was done by enough users whose names the broker checked",
            "",
            "hint: the review list says what was seen and why it was not enough; docs/learn.md has the thresholds",
        ]
    elif coverage.estimate < options.min_coverage:
        lines += [
            f"no draft is written: the coverage {coverage.estimate:.3f} is below {options.min_coverage:g}",
            "",
            "hint: observe for longer, or lower --min-coverage and expect legitimate clients to be denied",
        ]
    else:
        lines.append(f"draft: {visible(str(options.output))}")
    return lines


def _reviewed(review: Sequence[ReviewItem]) -> list[str]:
    """Return some of the review list, by reason."""
    lines = []
    by_reason: dict[Reason, list[ReviewItem]] = {}
    for item in review:
        by_reason.setdefault(item.reason, []).append(item)
    for reason, items in by_reason.items():
        lines.append(f"to review, {reason.value} ({number(len(items))}): {MEANING[reason]}")
        lines += [f"  {_line(item)}" for item in items[:_SHOWN]]
        if len(items) > _SHOWN:
            lines.append(f"  and {number(len(items) - _SHOWN)} more")
    return lines


def _line(item: ReviewItem) -> str:
    """Return an entry in one line, hostile text escaped."""
    what = f"{item.action.name.lower()} " if item.action else ""
    label = item.place.label if item.place else item.label
    who = ", ".join(quoted(name, 30) for name in item.examples[:3])
    about = counted(item.users, "user") if item.users else counted(item.clients, "client")
    role = f" of role {item.role}" if item.role else ""
    name = quoted(label, 70) + " " if label else ""
    return f"{what}{name}by {about}{role} ({who}), {number(item.events)} events"


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ConfigurationError(Problem("already there, and never overwritten", str(path), hint="use a new name"))
    if not path.parent.is_dir():
        raise ConfigurationError(Problem("no such folder", str(path.parent), hint="create it first"))


def _create(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError(Problem(f"cannot be written: {error.strerror or error}", str(path))) from error
