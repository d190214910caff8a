"""`attack`: plays atomic tests against servers of our own on this machine, and shows which rule caught which."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, Self, cast

from topicwarden.cli import EXIT_BLIND, EXIT_CLEAN, EXIT_FINDINGS, attack_automation, print_error
from topicwarden.cli.attack_automation import Automation
from topicwarden.cli.attack_plan import Planned, loopback, read_plan
from topicwarden.cli.attack_rounds import Relay, Rounds, Scene, run_options
from topicwarden.cli.pipeline import Pipeline, open_pipeline
from topicwarden.cli.sources import live_hosts
from topicwarden.cli.watch import Watching, open_collectors, watch
from topicwarden.errors import ConfigurationError, ObservationError, Problem, TopicwardenError
from topicwarden.output.escape import visible
from topicwarden.output.rounds import Round, round_lines, verdict_lines
from topicwarden.output.sinks import TextSink
from topicwarden.sources import SourceOptions, Staged, load_brokers, load_hosts, load_stages

LIMIT_SECONDS: Final = 300.0
"""When it is given up, however far it is."""
PLANT: Final = "mosquitto"
"""The server that the automation uses: it is always there."""


@dataclass(frozen=True, slots=True)
class AttackOptions:
    """What the user asked for."""

    numbers: Sequence[int] = ()
    """Which tests; none: all."""
    extra: Sequence[str] = ()
    """Stages that are only played where asked for."""
    address: str | None = None
    """The servers' loopback address; None: one is chosen."""
    folder: Path | None = None
    innocent: bool = False
    """Only the automation, no attack."""
    verbose: bool = False


def run(options: AttackOptions) -> int:
    """Play the tests; returns 0 only when all were caught as expected and the automation was not accused.

    Raises ConfigurationError for a target that is not ours, ObservationError when the servers cannot be started.
    """
    plan = read_plan()
    if unknown := sorted(set(options.numbers) - {planned.number for planned in plan}):
        raise ConfigurationError(Problem(f"there is no test {unknown[0]}", hint=f"1 to {len(plan)}"))
    wanted = [planned for planned in plan if not options.numbers or planned.number in options.numbers]
    if options.innocent:
        wanted = []
    addresses = _addresses(options.address)
    folder = _folder(options.folder)
    sink = TextSink(sys.stdout)
    rounds: list[Round] = []

    def show(played: Round) -> None:
        rounds.append(played)
        sink.print(round_lines(played, sink.width))

    interrupted = blind = False
    failures: list[TopicwardenError] = []
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_Ending())
            scene = _start(stack, wanted, options, folder, addresses)
            for planned in wanted:
                scene.check(planned)
            watching, blind = _watching(scene)
            interrupted = _play(scene, watching, wanted, show, failures)
        except KeyboardInterrupt:
            interrupted = True
    sink.print(verdict_lines(rounds, sink.width))
    for failure in failures:
        print_error(failure)
    print(f"interrupted; files are in {folder}" if interrupted else f"files are in {folder}", file=sys.stderr)
    if interrupted:
        return EXIT_FINDINGS
    must = {one.label for one in wanted if not one.expected.optional or one.expected.stage in options.extra}
    if all(played.as_it_should for played in rounds if not played.skipped or played.label in must) and not failures:
        return EXIT_CLEAN
    return EXIT_BLIND if blind or failures else EXIT_FINDINGS


def _start(
    stack: contextlib.ExitStack,
    wanted: Sequence[Planned],
    options: AttackOptions,
    folder: Path,
    addresses: tuple[str, str],
) -> Scene:
    """Start the servers that the tests are played against, and the automation."""
    stages = load_stages()
    needed = {planned.expected.stage for planned in wanted if not planned.expected.optional}
    staged: dict[str, Staged] = {}
    for name in sorted(needed | set(options.extra) | {PLANT}):
        if name not in stages:
            raise ConfigurationError(Problem(f"there is no server {name!r} here", hint=f"one of: {', '.join(stages)}"))
        print(f"starting {name} of our own at {addresses[0]}", file=sys.stderr)
        staged[name] = stack.enter_context(stages[name](folder / name, addresses))
    port = staged[PLANT].ports["mqtt"]
    policy = folder / "policy.yaml"
    policy.write_text(attack_automation.policy(addresses[1], port))
    automation = stack.enter_context(Automation(folder, addresses[1], port))
    return Scene(folder, *addresses, staged, policy, automation, options.verbose)


def _watching(scene: Scene) -> tuple[Watching, bool]:
    """Return the collectors of the servers and, if that is possible, of this machine; and whether it is not."""
    servers = scene.staged.values()
    sources = [source for server in servers for source in server.sources]
    account = next((server for server in servers if server.username is not None), None)
    options = SourceOptions()
    if account is not None:
        options = SourceOptions(username=account.username, password_file=account.password_file)
    plain = live_hosts(load_hosts())
    # With the helper that the broker asks, even what lives for a few milliseconds is seen.
    asked = next((server.asks_at for server in servers if server.asks_at is not None), None)
    with_helper = [] if asked is None else [[f"{source}{asked}" for source in plain]]
    for hosts in (*with_helper, plain):
        try:
            watching = open_collectors([*sources, *hosts], load_brokers(), None, options)
        except (ConfigurationError, ObservationError) as error:
            print(f"note: {visible(str(error))}", file=sys.stderr)
            continue
        for spot in (spot for source in watching.summaries() if source.host for spot in source.blind_spots):
            print(f"cannot see: {visible(spot.what)}", file=sys.stderr)
        return watching, False
    print("cannot see: what this machine's processes do; what only they show is missed below", file=sys.stderr)
    return open_collectors(sources, load_brokers(), None, options), True


def _play(
    scene: Scene,
    watching: Watching,
    wanted: Sequence[Planned],
    show: Callable[[Round], None],
    failures: list[TopicwardenError],
) -> bool:
    """Watch while the tests are played; returns whether it was interrupted."""
    nowhere = (io.StringIO(), io.StringIO())
    with open_pipeline(
        "attack", run_options(scene), nowhere, about={}, kinds=watching.kinds, broker_hosts=watching.broker_hosts
    ) as idle:
        relay = Relay(idle)
        playing = Rounds(scene, watching, relay, wanted, show)
        try:
            asyncio.run(
                watch(
                    watching,
                    cast(Pipeline, relay),
                    stop_after=LIMIT_SECONDS,
                    until=lambda: playing.begun and not playing.is_alive(),
                    begun=playing.begin,
                )
            )
        finally:
            # Whatever is being played is ended when the watch is over, however it came to that.
            scene.stop.set()
            if playing.begun:
                playing.join()
    failures += watching.failures
    if playing.error is not None:
        failures.append(playing.error)
    return watching.interrupted


class _Ending:
    """While entered, SIGTERM ends us as Ctrl-C does: the servers would go on without us otherwise."""

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._end)
        return self

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)


def _addresses(given: str | None) -> tuple[str, str]:
    """Return two loopback addresses: of the servers that are attacked, and of the same for who may use them."""
    if given is not None:
        first, _, last = loopback(given).rpartition(".")
        return given, f"{first}.{int(last) + 1 if int(last) < 254 else int(last) - 1}"
    middle = f"127.{random.randint(64, 126)}.{random.randint(0, 255)}"  # noqa: S311 - so that two runs do not meet
    host = random.randint(1, 126) * 2  # noqa: S311
    return f"{middle}.{host}", f"{middle}.{host + 1}"


def _folder(given: Path | None) -> Path:
    if given is None:
        folder = Path(tempfile.mkdtemp(prefix="topicwarden-attack-"))
    elif given.exists() and any(given.iterdir()):
        raise ConfigurationError(Problem("the folder is not empty", str(given), hint="name a new one"))
    else:
        given.mkdir(parents=True, exist_ok=True)
        folder = given
    return folder.resolve()
