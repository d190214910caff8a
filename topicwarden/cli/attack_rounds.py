"""One attack after the other under one watch, each judged by an engine that has seen nothing of those before it."""

from __future__ import annotations

import asyncio
import io
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final, TypeVar

from topicwarden.cli.atomic_shell import AtomicShell
from topicwarden.cli.attack_automation import CLIENTS, ENOUGH, Automation
from topicwarden.cli.attack_plan import Planned
from topicwarden.cli.options import NEVER, RunOptions
from topicwarden.cli.pipeline import Pipeline, about_sources, open_pipeline
from topicwarden.cli.watch import Watching
from topicwarden.errors import TopicwardenError
from topicwarden.events import EventBatch
from topicwarden.findings import Finding
from topicwarden.output.escape import visible
from topicwarden.output.rounds import Round
from topicwarden.sources import Staged

SETTLE_SECONDS: Final = 5.0
"""How long after a test its findings are waited for."""
QUIET_SECONDS: Final = 0.5
"""How long further findings are waited for once an expected one is there, or none is to be."""
SKEW_SECONDS: Final = 0.2
"""All is on one machine, with one clock; rules wait so long for what comes late."""
POLL_SECONDS: Final = 0.05
WARM_UP: Final = 2
"""How often the automation publishes before the first test is played."""
_T = TypeVar("_T")


@dataclass
class Scene:
    """What all rounds of one run have in common."""

    folder: Path
    attacked: str
    approved: str
    staged: Mapping[str, Staged]
    policy: Path
    automation: Automation
    verbose: bool = False
    stop: Event = field(default_factory=Event)
    unmet: dict[str, Sequence[str]] = field(default_factory=dict)
    """What tests need that is not there, by their labels."""

    def values_of(self, planned: Planned) -> Mapping[str, str] | None:
        """Return a test's input arguments; None when there is no server to play it against."""
        staged = self.staged.get(planned.expected.stage)
        return None if staged is None else planned.values(self.attacked, staged, self.folder)

    def check(self, planned: Planned) -> None:
        """Find out what a test needs that is not there; to be called before anything is watched."""
        values = self.values_of(planned)
        wanting = [f"needs a server that takes long to start: --with {planned.expected.stage}"]
        if values is not None:
            wanting = AtomicShell(self.folder, self.stop).unmet(planned.atomic, values)
        if wanting:
            self.unmet[planned.label] = wanting


class _StoppedError(Exception):
    """The run is over, in the middle of a round."""


class Relay:
    """Stands where `watch` wants its pipeline, and hands everything to that of the round that is played."""

    def __init__(self, idle: Pipeline) -> None:
        self._idle = idle
        self._current = idle
        self._before: list[EventBatch] = []
        """What was there when the watch began: every round starts from it."""
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._current, name)

    def feed(self, batch: EventBatch) -> None:
        """Take one batch."""
        if not self._begun:
            self._before.append(batch)
        self._current.feed(batch)

    def begin(self, pipeline: Pipeline) -> None:
        """Hand everything to this pipeline from now on."""
        self._begun = True
        for batch in self._before:
            pipeline.feed(batch)
        self._current = pipeline

    def end(self) -> Sequence[Finding]:
        """Hand nothing more to it; returns what it has found."""
        pipeline, self._current = self._current, self._idle
        pipeline.advance(None)
        return pipeline.engine.ledger.findings()


class Rounds(Thread):
    """Plays the rounds, in a thread of its own beside the watch; `begin` is called in the watch's loop."""

    def __init__(
        self,
        scene: Scene,
        watching: Watching,
        relay: Relay,
        planned: Sequence[Planned],
        show: Callable[[Round], None],
    ) -> None:
        """`planned`: none: the automation alone. `show`: called with each round when it is over."""
        super().__init__(name="attack")
        self._scene = scene
        self._watching = watching
        self._relay = relay
        self._planned = planned
        self._show = show
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accusations: list[Finding] = []
        self.done: list[Round] = []
        self.error: TopicwardenError | None = None

    @property
    def begun(self) -> bool:
        """Whether it was started, be it over or not."""
        return self.ident is not None

    def begin(self) -> None:
        """Start, from the loop that the watch runs in."""
        self._loop = asyncio.get_running_loop()
        self.start()

    def run(self) -> None:
        """Play all rounds to the end, or until the run is over."""
        try:
            # The broker tries once a second to reach the helper that it asks whose a connection is.
            self._automation_publishes(WARM_UP)
            if not self._planned:
                self._finish(self._innocent())
                return
            shell = AtomicShell(self._scene.folder, self._scene.stop)
            for planned in self._planned:
                self._finish(self._attack(planned, shell))
            self._finish(self._of_automation(self._accusations))
        except _StoppedError:
            pass
        except TopicwardenError as error:
            self.error = error

    def _finish(self, played: Round) -> None:
        self.done.append(played)
        self._show(played)

    def _attack(self, planned: Planned, shell: AtomicShell) -> Round:
        """Play one test."""
        scene = self._scene
        played = Round(planned.label, planned.atomic.name, planned.expected.caught_by)
        values, played.skipped = scene.values_of(planned), scene.unmet.get(planned.label, ())
        if played.skipped or values is None:
            return played
        print(f"playing {planned.label}: {visible(planned.atomic.name)}", file=sys.stderr)
        output = scene.folder / f"{planned.label}.output"

        def attack() -> None:
            failure = shell.play(planned.atomic, values, output).failure
            if failure is not None and not scene.stop.is_set():
                played.failures.append(f"{failure}; what it wrote is in {output}")

        def caught(findings: Sequence[Finding]) -> bool:
            return any(
                finding.type.code in planned.expected.caught_by and is_about(finding, scene.attacked)
                for finding in findings
            )

        found = self._watched(planned.label, attack, caught)
        played.findings = [finding for finding in found if is_about(finding, scene.attacked)]
        self._accusations += [finding for finding in found if is_about(finding, scene.approved, automation=True)]
        return played

    def _innocent(self) -> Round:
        """Watch the automation alone until it has published often enough to be called a beacon."""
        print("watching sanctioned automation", file=sys.stderr)
        found = self._watched("automation", lambda: self._automation_publishes(ENOUGH), lambda _: True)
        return self._of_automation([one for one in found if is_about(one, self._scene.approved, automation=True)])

    def _automation_publishes(self, times: int) -> None:
        """Return once the automation has published so often, or has ended."""
        automation = self._scene.automation
        before = automation.published
        while automation.published < before + times and automation.failure is None:
            if self._scene.stop.wait(POLL_SECONDS):
                raise _StoppedError

    def _of_automation(self, accusations: Sequence[Finding]) -> Round:
        """Return how the automation came out: whatever was found against it was found wrongly."""
        automation = self._scene.automation
        published = automation.published
        name = f"sanctioned automation published to an approved broker, {published} times"
        played = Round("automation", name, findings=accusations)
        if (failure := automation.failure) is not None or not published:
            played.failures.append(failure or "the automation has not published")
        return played

    def _watched(
        self, name: str, act: Callable[[], None], enough: Callable[[Sequence[Finding]], bool]
    ) -> Sequence[Finding]:
        """Judge what comes while `act` runs, and until `enough` was found after it or time is up; returns all of it."""
        scene, watching = self._scene, self._watching
        streams = (sys.stdout, sys.stderr) if scene.verbose else (io.StringIO(), io.StringIO())
        with open_pipeline(
            "attack",
            run_options(scene, name),
            streams,
            about=about_sources("attack", watching.summaries(), watching.kinds, watching.broker_hosts),
            kinds=watching.kinds,
            broker_hosts=watching.broker_hosts,
        ) as pipeline:
            self._in_loop(lambda: self._relay.begin(pipeline))
            act()
            over = time.monotonic()
            while True:
                found = self._in_loop(pipeline.engine.ledger.findings)
                waited = time.monotonic() - over
                if waited > (QUIET_SECONDS if enough(found) else SETTLE_SECONDS):
                    break
                if scene.stop.wait(POLL_SECONDS):
                    raise _StoppedError
            return self._in_loop(self._relay.end)

    def _in_loop(self, call: Callable[[], _T]) -> _T:
        """Call something in the loop that the watch runs in, between two batches."""

        async def called() -> _T:
            return call()

        assert self._loop is not None
        coroutine = called()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise _StoppedError from None
        while True:
            try:
                return future.result(POLL_SECONDS)
            except TimeoutError:
                if self._scene.stop.is_set():
                    future.cancel()
                    raise _StoppedError from None


def run_options(scene: Scene, name: str | None = None) -> RunOptions:
    """Return how a round is judged; `name`: what its recording is called, None: it is not kept."""
    record = None if name is None else scene.folder / f"{name}.arrow"
    return RunOptions(policy=scene.policy, fail_on=NEVER, record=record, skew=SKEW_SECONDS)


def is_about(finding: Finding, address: str, *, automation: bool = False) -> bool:
    """Whether a finding has to do with our server at this address, or with an attacker's, or the automation's, client.

    Our servers have no other clients. Whatever else runs on the machine is seen, too; nobody else has these addresses.
    """
    if finding.client is not None:
        return finding.client.client_id.startswith(CLIENTS) is automation
    if any(behind.remote is not None and behind.remote.address == address for behind in finding.behind):
        return True
    words = [*finding.scope, *map(str, finding.evidence.values()), *finding.witnesses]
    words += [argument for behind in finding.behind for argument in behind.process.arguments]
    whole = re.compile(rf"(?<![\d.]){re.escape(address)}(?![\d.])")
    return any(whole.search(word) for word in words)
