"""`demo`: a real broker, real clients, planted deviations, and whether each was found and nobody else accused."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from topicwarden.cli import EXIT_CLEAN, EXIT_FINDINGS
from topicwarden.cli.options import NEVER, RunOptions
from topicwarden.cli.pipeline import Pipeline, about_sources, open_pipeline
from topicwarden.cli.watch import finish, open_collectors, watch
from topicwarden.errors import ConfigurationError, Problem, TopicwardenError
from topicwarden.findings import Finding, Severity
from topicwarden.output.escape import visible
from topicwarden.sources import Demo, Planted, SourceOptions, load_brokers

SETTLE_SECONDS: Final = 1.0
"""How long no event may come after the last client is gone before we believe that all were seen."""
RECORDING: Final = "events.arrow"
LIMIT_SECONDS: Final = 90.0
"""When the demo is given up, however far it is."""


def run(broker_name: str, folder: Path | None) -> int:
    """Run the demo; returns 0 only when every planted deviation was found and no well-behaved client accused.

    Raises ConfigurationError for a broker there is not, ObservationError when its parts cannot be started.
    """
    brokers = load_brokers()
    if broker_name not in brokers:
        raise ConfigurationError(Problem(f"there is no demo for {broker_name!r}", hint=f"one of: {', '.join(brokers)}"))
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="topicwarden-demo-"))
    elif folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(Problem("the folder is not empty", str(folder), hint="name a new one"))
    folder = folder.resolve()
    print(f"starting a {broker_name} of the demo's own in {folder}", file=sys.stderr)
    with brokers[broker_name].demo(folder) as demo:
        return _watch_and_judge(broker_name, folder, demo)


def _watch_and_judge(broker_name: str, folder: Path, demo: Demo) -> int:
    brokers = load_brokers()
    options = RunOptions(policy=demo.policy, fail_on=NEVER, record=folder / RECORDING, broker_kind=broker_name)
    watching = open_collectors(
        demo.sources,
        brokers,
        broker_name,
        SourceOptions(
            broker="demo",
            state_dir=folder / "state",
            from_start=True,
            username=demo.username,
            password_file=demo.password_file,
        ),
    )
    traffic = _Traffic(demo)
    streams = (sys.stdout, sys.stderr)
    about = about_sources("demo", watching.summaries(), watching.kinds)
    with open_pipeline("demo", options, streams, about=about, kinds=watching.kinds) as pipeline:
        try:
            # No client acts before it is seen to.
            seen = _all_seen(traffic, pipeline)
            asyncio.run(watch(watching, pipeline, stop_after=LIMIT_SECONDS, until=seen, begun=traffic.start))
        finally:
            demo.stop_traffic()
            if traffic.begun:
                traffic.join()
        finish(pipeline, watching)
        findings = pipeline.engine.ledger.findings()
    failures = watching.failures
    if traffic.error is not None:
        failures.append(traffic.error)
    missed = [planted for planted in demo.planted if not _found(planted, findings)]
    accused = sorted({_name(finding) for finding in findings} - {"", *(planted.client for planted in demo.planted)})
    _print_verdict(demo, findings, accused, folder)
    for failure in failures:
        print(f"error: {visible(str(failure))}", file=sys.stderr)
    return EXIT_FINDINGS if missed or accused or failures or watching.interrupted else EXIT_CLEAN


class _Traffic(threading.Thread):
    """The demo's clients, in a thread of their own."""

    def __init__(self, demo: Demo) -> None:
        super().__init__(name="demo-traffic")
        self._demo = demo
        self.error: TopicwardenError | None = None

    @property
    def begun(self) -> bool:
        """Whether it was started, be it over or not."""
        return self.ident is not None

    def run(self) -> None:
        try:
            self._demo.traffic()
        except TopicwardenError as error:
            self.error = error


def _all_seen(traffic: _Traffic, pipeline: Pipeline) -> Callable[[], bool]:
    """Return a condition that holds once the clients are gone and no event has come for a moment."""
    before, since = -1, time.monotonic()

    def holds() -> bool:
        nonlocal before, since
        if not traffic.begun or traffic.is_alive() or pipeline.events != before:
            before, since = pipeline.events, time.monotonic()
        return time.monotonic() - since > SETTLE_SECONDS

    return holds


def _found(planted: Planted, findings: Sequence[Finding]) -> bool:
    """Whether the planted deviation is among the findings."""
    return any(finding.type.code == planted.code and _name(finding) == planted.client for finding in findings)


def _name(finding: Finding) -> str:
    """Return whom a finding accuses: nobody when it is only a record of something."""
    if finding.client is None or finding.severity is Severity.INFO:
        return ""
    return finding.client.user or finding.client.client_id


def _print_verdict(demo: Demo, findings: Sequence[Finding], accused: Sequence[str], folder: Path) -> None:
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    console.print(Text("\nThe demo's own check", "bold"))
    for one in demo.planted:
        found = _found(one, findings)
        mark = ("found  ", "green") if found else ("MISSED ", "bold red")
        console.print(Text.assemble(mark, f"{one.code}  {one.client} {one.what}"))
    if accused:
        console.print(Text(f"ACCUSED WRONGLY: {', '.join(map(visible, accused))}", "bold red"))
    else:
        console.print(Text("found   nothing against the clients that behave"))
    console.print(Text(f"\nIts files are in {folder}:"), soft_wrap=True)
    console.print(
        Text(f"  {RECORDING:<16} every event; `topicwarden check` finds the same in it again"), soft_wrap=True
    )
    for name, what in demo.files.items():
        console.print(Text(f"  {name:<16} {what}"), soft_wrap=True)
