"""Which broker's package a source on the command line belongs to, and where things are kept by default."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden.sources import Broker

HEAD = 4096
"""How much of a file is shown to the brokers' packages for recognition, in bytes."""


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


def default_sources(brokers: Mapping[str, Broker]) -> Sequence[str]:
    """Return the sources present on this machine; raises ObservationError saying what to set up when there is none."""
    found = [source for broker in brokers.values() if (source := broker.default_source()) is not None]
    if not found:
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
