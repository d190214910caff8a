"""Which package a source on the command line belongs to, and where things are kept by default."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden.sources import Broker, HostPackage

HEAD = 4096
"""How much of a file is shown to the brokers' packages for recognition, in bytes."""


def host_package_for(hosts: Mapping[str, HostPackage], source: str, *, named: bool = False) -> HostPackage | None:
    """Return the package that reads this source as what hosts did; None: it is a broker's, or nobody's.

    `named`: only where its name says so (`auditd:PATH`), whatever is in it. Asked before `broker_for`: a broker's log
    may hold anything, so its package takes whatever looks a little like one. Raises ObservationError when a file cannot
    be read.
    """
    found = next((package for package in hosts.values() if package.recognises(source, b"")), None)
    if found is not None or named or "://" in source or not Path(source).is_file():
        return found
    head = read_head(source)
    return next((package for package in hosts.values() if package.recognises(source, head)), None)


def runs_here(source: str) -> bool:
    """Whether a source tells of a broker on this machine: its ring or log lies here, or its address loops back."""
    if "://" not in source:
        return True
    return urlsplit(source).hostname in ("localhost", "::1") or (urlsplit(source).hostname or "").startswith("127.")


def this_host() -> str:
    """Return this machine's name, as its own telemetry has it."""
    return socket.gethostname()


def broker_for(brokers: Mapping[str, Broker], source: str, name: str | None = None) -> Broker:
    """Return the package that reads this source: the named one, else the first that recognises it.

    Raises ConfigurationError when there is none, ObservationError when a file cannot be read.
    """
    if name is not None:
        if name not in brokers:
            raise ConfigurationError(Problem(f"no broker is called {name!r}", hint=f"one of: {', '.join(brokers)}"))
        return brokers[name]
    if source.startswith("log:"):
        # Whose log it is, only its lines say; one that is still empty is taken by whoever takes the prefix.
        path = source.removeprefix("log:")
        found = _recognised(brokers, path, read_head(path)) if Path(path).exists() else None
        if found is not None:
            return found
    # A name that says enough is not opened.
    found = _recognised(brokers, source, b"") or _recognised(brokers, source, read_head(source))
    if found is not None:
        return found
    raise ConfigurationError(
        Problem(
            "cannot tell which broker this belongs to",
            source,
            hint="say what it is: ring:PATH, log:PATH, mqtt://HOST:PORT, or --kind BROKER",
        )
    )


def _recognised(brokers: Mapping[str, Broker], source: str, head: bytes) -> Broker | None:
    return next((broker for broker in brokers.values() if broker.recognises(source, head)), None)


def read_head(source: str) -> bytes:
    """Return a file's first bytes, b'' for what is no path; raises ObservationError when a path cannot be read."""
    if "://" in source:
        return b""
    try:
        with Path(source).open("rb") as file:
            return file.read(HEAD)
    except FileNotFoundError:
        raise ObservationError(Problem("no such file", source, hint="check the path")) from None
    except OSError as error:
        raise ObservationError(Problem(f"cannot be read: {error.strerror}", source)) from error


def live_hosts(hosts: Mapping[str, HostPackage]) -> Sequence[str]:
    """Return what `watch --host` stands for."""
    return [package.live_source() for package in hosts.values()]


def default_sources(brokers: Mapping[str, Broker], *, optional: bool = False) -> Sequence[str]:
    """Return the sources present on this machine.

    Raises ObservationError saying what to set up when there is none, unless they are `optional`.
    """
    found = [source for broker in brokers.values() if (source := broker.default_source()) is not None]
    if not found and not optional:
        raise ObservationError(
            Problem(
                "no source named, and no broker plugin's ring is on this machine",
                hint=(
                    "load the plugin into the broker (topicwarden doctor PATH-OF-ITS-CONFIGURATION prints the lines),\n"
                    "or name a source: a log file, or mqtt://HOST:PORT"
                ),
            )
        )
    return found


def default_state_dir() -> Path:
    """Return where reading positions are kept: /var/lib/topicwarden for root, else the XDG state folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/topicwarden")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "topicwarden"
