"""What a package offers the core: the doors that every broker and every host's telemetry, ours or others', comes in by.

A broker's package registers one `Broker` under the entry point group `topicwarden.brokers`, a package that reads what
hosts do one `HostPackage` under `topicwarden.hosts`. Who can run a server for `attack` to be played against registers a
`Stage` under `topicwarden.stages`. The core calls nothing else of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import Client, EventBatch
from topicwarden.grants import Export, Grants, Probe
from topicwarden.policy import Policy


@dataclass(frozen=True, slots=True)
class BlindSpot:
    """Something a source cannot see as it is set up; printed with every result."""

    what: str
    """One sentence without full stop: what is not seen."""
    fix: str | None = None
    """What would make it visible, when something would."""


@dataclass(slots=True)
class Counters:
    """What a source has done so far; served as metrics and on the status line."""

    events: int = 0
    lost: int = 0
    """Events known to have happened and not seen (sequence gaps, overwritten before read)."""
    gaps: int = 0
    """How many times events were lost."""
    unresolved: int = 0
    """Events seen whose client or resource name never became known; dropped."""
    decode_errors: dict[str, int] = field(default_factory=dict)
    """Records, lines or messages that could not be read, by stage."""
    lag_ns: int = 0
    """How far behind the broker the last batch was: reader's clock minus the event's time."""
    source: dict[str, int] = field(default_factory=dict)
    """The source's own counts (for example table evictions inside the broker)."""

    def error(self, stage: str, count: int = 1) -> None:
        """Count something that could not be decoded."""
        self.decode_errors[stage] = self.decode_errors.get(stage, 0) + count


class Collector(Protocol):
    """A live source. `docs/collector.md` says what it must do; `tests/collector_contract.py` checks it."""

    @property
    def title(self) -> str:
        """The mode in a few words, for people: `mosquitto plugin, every event (/run/topicwarden/mosquitto.ring)`."""
        ...

    @property
    def broker(self) -> str:
        """The name given to this broker in every event."""
        ...

    @property
    def counters(self) -> Counters:
        """Counts so far."""
        ...

    @property
    def observing(self) -> bool:
        """Whether it has begun: what happens from now on is seen, or told as lost. False while still connecting."""
        ...

    def blind_spots(self) -> Sequence[BlindSpot]:
        """What this source cannot see as it stands now; never empty for a mode that is not complete."""
        ...

    def batches(self) -> AsyncIterator[EventBatch]:
        """Yield batches until closed. Raises ObservationError when observing is impossible, never for bad input."""
        ...

    async def close(self) -> None:
        """Stop and release everything; `batches` then ends after handing over what it has."""
        ...


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What the command line knows and a source may need."""

    broker: str | None = None
    """The operator's name for the broker; a source chooses a default from its address."""
    state_dir: Path | None = None
    """Where a source may keep its reading position over restarts; None: keep none."""
    username: str | None = None
    password_file: Path | None = None
    """File whose first line is our own password; never a password on a command line."""
    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None
    from_start: bool = False
    """Read what is already there (a log's beginning, the ring's oldest record) before following."""
    timezone: str | None = None
    """IANA zone of timestamps that carry none; None: this machine's local time."""
    host: str | None = None
    """The name of the host whose log a source is, where the log does not say; None: this machine's."""
    ports: Collection[int] = ()
    """Ports of brokers besides the usual ones, for sources that look at connections."""
    first_ns: int | None = None
    """Of a store, read only what happened from then on, ..."""
    last_ns: int | None = None
    """... and until then."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One line of a doctor's report about a broker's set-up."""

    level: str
    """`ok`, `note`, `warning` or `problem`; a problem makes doctor exit 1."""
    check: str
    """Short dotted name, stable: `plugin.loaded`, `acl.present`."""
    message: str
    file: str | None = None
    line: int | None = None
    fix: str | None = None
    """The exact lines to add or change, in the broker's syntax."""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What a broker's configuration means for what we can see and for who may do what."""

    title: str
    advice: Sequence[Advice]
    blind_spots: Sequence[BlindSpot]


@dataclass(frozen=True, slots=True)
class FileAbout:
    """What is known of a file a broker left, before it is read."""

    title: str
    """Its kind and path, for people."""
    broker: str
    """The name its events will carry."""
    blind_spots: Sequence[BlindSpot]


@dataclass(frozen=True, slots=True)
class Planted:
    """A deviation the demo plants, and the finding that must come of it."""

    what: str
    """In words, for people."""
    code: str
    client: str
    """The user who does it; the client id where there is no user name."""


class Demo(Protocol):
    """A real broker of the demo's own, with real clients that behave and clients that do not."""

    @property
    def sources(self) -> Sequence[str]:
        """What `watch` is to be pointed at."""
        ...

    @property
    def username(self) -> str | None:
        """Our own account at the broker, where the sources need one."""
        ...

    @property
    def password_file(self) -> Path | None:
        """The file with its password."""
        ...

    @property
    def policy(self) -> Path:
        """The intended policy."""
        ...

    @property
    def planted(self) -> Sequence[Planted]:
        """Every deviation; a client that is accused and not listed here was accused wrongly."""
        ...

    @property
    def files(self) -> Mapping[str, str]:
        """What each file it leaves in its folder is, by name."""
        ...

    def traffic(self) -> None:
        """Run all clients to their end (up to a minute); called in a thread of its own."""
        ...

    def stop_traffic(self) -> None:
        """Make `traffic` return soon; may be called from any thread."""
        ...


class Broker(Protocol):
    """One kind of broker."""

    @property
    def name(self) -> str:
        """`mosquitto`, `rabbitmq` …"""
        ...

    def default_source(self) -> str | None:
        """A source present on this machine that `watch` uses when none is named; None when there is none."""
        ...

    def recognises(self, source: str, head: bytes) -> bool:
        """Whether `source` (path or URL) is this broker's; `head` is a file's first 4096 bytes, b'' for others."""
        ...

    def watch(self, source: str, options: SourceOptions) -> Collector:
        """Build a live collector; raises ConfigurationError or ObservationError at once when it cannot work."""
        ...

    def read(self, source: str, options: SourceOptions, counters: Counters) -> Iterator[EventBatch]:
        """Read a recording this broker left (a log file) to its end."""
        ...

    def about_file(self, source: str, options: SourceOptions) -> FileAbout:
        """Say what a file is before `read` reads it; raises nothing."""
        ...

    def doctor(self, target: str, options: SourceOptions) -> DoctorReport:
        """Judge a configuration, or a running broker where `options` has an account for it.

        Raises ConfigurationError when it cannot be read, ObservationError when it cannot be reached.
        """
        ...

    def grants(self, source: str, options: SourceOptions) -> Sequence[Grants]:
        """Read what a configuration, or a running broker where `options` has an account for it, would allow.

        One for each part of the broker with rules of its own. Raises ConfigurationError when it cannot be read (all
        of a file's problems at once), ObservationError when it cannot be reached.
        """
        ...

    @property
    def export_targets(self) -> Sequence[str]:
        """The native forms a policy can be exported to: `mosquitto-acl` …; unique over all brokers."""
        ...

    def export(self, target: str, policy: Policy, accounts: Sequence[Client]) -> Export:
        """Write a policy in a native form, for these accounts and those that the policy names outright."""
        ...

    def probe(self, target: str, options: SourceOptions, passwords: Mapping[str, str], *, allow_publish: bool) -> Probe:
        """Connect to a running broker to ask it as its users; `passwords` by user name.

        Unless `allow_publish`, nothing is done that an existing subscriber could receive. Raises ConfigurationError or
        ObservationError when it cannot begin.
        """
        ...

    def demo(self, folder: Path) -> AbstractContextManager[Demo]:
        """Start the demo's broker with its files in `folder`; leaving the context stops it, whatever happened."""
        ...


class HostPackage(Protocol):
    """One kind of telemetry of hosts, or several: what was run and whom it connected to.

    Its batches hold no rows, only `hosts` and notices; a collector's `broker` is the host's name.
    """

    @property
    def name(self) -> str:
        """`host` for ours."""
        ...

    def recognises(self, source: str, head: bytes) -> bool:
        """Whether `source` (path or prefixed name) is this package's; `head` is a file's first 4096 bytes, or b''.

        It is asked before the brokers are, and takes only what no broker's log can look like.
        """
        ...

    def live_source(self) -> str:
        """What `watch --host` stands for: this machine, as it runs."""
        ...

    def watch(self, source: str, options: SourceOptions) -> Collector:
        """Build a live collector; raises ConfigurationError or ObservationError at once when it cannot work."""
        ...

    def read(self, source: str, options: SourceOptions, counters: Counters) -> Iterator[EventBatch]:
        """Read a log to its end, in batches of at most a thousand events, so that several can be merged by time."""
        ...

    def about_file(self, source: str, options: SourceOptions) -> FileAbout:
        """Say what a file is before `read` reads it; raises nothing. `broker` is the host's name, '' = its own word."""
        ...


@dataclass(frozen=True, slots=True)
class Staged:
    """A server of our own, as it runs on loopback addresses, for attacks to be played against."""

    title: str
    """What it is, for people: `mosquitto with the plugin`."""
    ports: Mapping[str, int]
    """What is open at each address, by what it is for: `mqtt`, `amqp`, `xmpp`; `unusual` is one that nobody expects."""
    sources: Sequence[str] = ()
    """What `watch` is to be pointed at; none: nothing in it is observed."""
    username: str | None = None
    """Our own account, where the sources need one."""
    password_file: Path | None = None
    account: tuple[str, str] | None = None
    """User name and password that a client needs; None: it takes anybody."""
    asks_at: Path | None = None
    """The socket at which it asks whose a connection is: `host:SOCKET` answers there."""


class Stage(Protocol):
    """One kind of server that attacks can be played against."""

    def __call__(self, folder: Path, addresses: Sequence[str]) -> AbstractContextManager[Staged]:
        """Run it on these loopback addresses, its files in `folder`; leaving the context stops it, whatever happened.

        Raises ObservationError when its parts are not installed, cannot be built, or do not start.
        """
        ...


def load_stages() -> Mapping[str, Stage]:
    """Return the servers that attacks can be played against, by name; raises ConfigurationError as `load_brokers`."""
    return _load("topicwarden.stages", "stage")


def load_hosts() -> Mapping[str, HostPackage]:
    """Return the registered packages that read hosts, by name; raises ConfigurationError as `load_brokers` does."""
    return _load("topicwarden.hosts", "host package")


def load_brokers() -> Mapping[str, Broker]:
    """Return the registered brokers by name, in name order; raises ConfigurationError when one cannot be loaded."""
    return _load("topicwarden.brokers", "broker package")


def _load(group: str, what: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in sorted(entry_points(group=group), key=lambda e: e.name):
        try:
            found[entry.name] = entry.load()
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                Problem(
                    f"{what} {entry.name!r} ({entry.value}) cannot be loaded: {error}",
                    hint="reinstall the package that provides it, or uninstall it",
                )
            ) from error
    return found
