"""What the commands that judge events have in common on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import Severity

NEVER: Final = Severity.CRITICAL + 1
"""No finding is as severe as this."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How `watch`, `check` and `demo` judge and print."""

    policy: Path | None = None
    output_format: str = "text"
    fail_on: int = Severity.MEDIUM
    """The lowest severity that makes the exit code 1; `NEVER` for none."""
    record: Path | None = None
    broker_kind: str | None = None
    baseline: Path | None = None
    """What `learn --baseline` wrote; None: what is usual is not known."""
    skew: float = 2.0
    """Seconds by which the clocks of hosts and brokers may differ."""
    store: Path | None = None
    """Where events and findings are kept."""
    store_key: Path | None = None
    retain: Sequence[str] = ()
    """How long the store keeps what: `400d`, `events=90d`; none: for ever."""
    retain_size: Sequence[str] = ()
    timestamp_url: str | None = None
    """Of an authority (RFC 3161) that vouches for the time of the store's checkpoints."""
    """The key that signs them; None: the default one."""


def severity_named(name: str) -> int:
    """Return the severity of this name, or `NEVER`; raises ConfigurationError for another word."""
    names = [severity.name.lower() for severity in Severity]
    wanted = one_of("--fail-on", name.lower(), (*names, "never"))
    return NEVER if wanted == "never" else Severity[wanted.upper()]


def one_of(option: str, value: str, choices: Sequence[str]) -> str:
    """Return the value when it is one of the choices; raises ConfigurationError naming them otherwise."""
    if value not in choices:
        raise ConfigurationError(Problem(f"{option} {value!r} is not known", hint=f"one of: {', '.join(choices)}"))
    return value
