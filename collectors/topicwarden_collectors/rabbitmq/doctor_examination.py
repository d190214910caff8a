"""What every check of the doctor has at hand: the catalogue of checks, and the advice so far."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from topicwarden.sources import Advice, BlindSpot
from topicwarden_collectors.rabbitmq import exchanges

EVENTS: Final = exchanges.EVENTS
LOG: Final = exchanges.LOG
TRACE: Final = exchanges.TRACE
PLUGIN_EXCHANGE: Final = exchanges.AUDIT
PLUGIN: Final = "topicwarden_audit"
OWN_CONFIGURE: Final = r"^amq\.gen-.*$"
OWN_WRITE: Final = r"^amq\.gen-.*$"
OWN_READ: Final = r"^(amq\.gen-.*|amq\.rabbitmq\.(trace|event|log)|amq\.topicwarden\.audit)$"
"""The least our own account needs in a virtual host it reads (the permissions were tried on 3.10.8)."""
NOT_AUDIT: Final = r"^(?!amq\.(?:rabbitmq|topicwarden)\.)"

CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "config.accepted": "every line of rabbitmq.conf is one the node starts with",
        "config.unread": "every file of the configuration could be read and understood",
        "config.exposed": "no file with a password in it can be read by everybody",
        "server.version": "the version is known, and what it does not check",
        "vhosts.seen": "the virtual hosts are known",
        "plugin.enabled": "the topicwarden plugin is enabled: it alone sees every attempt and every refusal",
        "events.exchange": "events are published: who connects, and who changes which grant",
        "log.exchange": "the log is published: without the plugin it alone has refusals",
        "log.exchange-level": "the published log has messages of level info",
        "log.exchange-format": "the published log is JSON, so that a name in it cannot pass for another message",
        "trace.on": "tracing is on where publishes are to be seen without the plugin, and nowhere else",
        "account.minimal": "our own account may read the audit streams and nothing else",
        "login.backends": "grants come from RabbitMQ's own database alone",
        "login.anonymous": "clients without a login are refused",
        "guest.exists": "there is no user guest",
        "guest.password": "guest has another password than guest",
        "guest.remote": "guest can log in from the broker's own machine only",
        "user.weak-password": "no password is the user's own name",
        "user.administrator": "users with the tag administrator are known, and few",
        "user.impersonator": "no user may publish under another's name",
        "user.idle": "every user has a permission somewhere",
        "permission.everything": "no user may do everything in a virtual host",
        "permission.undecided": "every permission is one we can judge",
        "stream.readable": "nobody but auditors may read all payloads or the audit streams of a virtual host",
        "stream.forgeable": "nobody may put messages into the audit streams",
        "stream.bound": "nothing of the audit streams flows into queues that stay",
        "stream.forged": "no binding, alternate exchange or dead letter exchange leads into the audit streams",
        "topic.client-id": "no topic permission is made of what a client chose",
        "topic.no-effect": "every topic permission is of a topic exchange",
        "listener.plain-text": "listeners reachable over the network are encrypted",
        "listener.management": "the management API is not offered to the network without encryption",
    }
)
"""Every check by its stable name, with what is true when it passes."""

_PLAIN: Final = re.compile(r"[\w@%+=:,./-]+", re.ASCII)


@dataclass(slots=True)
class Examination:
    """One run of the doctor."""

    advice: list[Advice] = field(default_factory=list)
    blind_spots: list[BlindSpot] = field(default_factory=list)

    def say(
        self, level: str, check: str, message: str, file: str | None = None, line: int | None = None, fix: str = ""
    ) -> None:
        """Add advice; a fix that cannot be shown as plain text is left out."""
        if check not in CHECKS:
            raise AssertionError(f"check {check} is not in the catalogue")
        shown = fix if fix and all(letter.isprintable() or letter == "\n" for letter in fix) else None
        self.advice.append(Advice(level, check, message, file, line, shown))

    def ok(self, *checks: str) -> None:
        """Say that checks passed, those excepted that have said something already."""
        for check in checks:
            if not any(advice.check == check for advice in self.advice):
                self.say("ok", check, CHECKS[check])

    def blind(self, what: str, fix: str | None = None) -> None:
        """Add a blind spot."""
        spot = BlindSpot(what, fix)
        if spot not in self.blind_spots:
            self.blind_spots.append(spot)


def add_lines(file: str, *lines: str) -> str:
    """Return a fix that adds lines at the end of rabbitmq.conf; of equal keys the last counts."""
    return "\n".join([f"# {file}: add at the end, then restart the node", *lines])


def remove_line(file: str, line: int) -> str:
    """Return a fix that takes a line out of rabbitmq.conf."""
    return f"# {file}: remove line {line}, then restart the node"


def commands(*lines: str) -> str:
    """Return a fix made of commands for the broker's machine."""
    return "\n".join(["# on the broker's machine", *lines])


def argument(text: str) -> str:
    """Return a text as one argument of a shell command."""
    return text if _PLAIN.fullmatch(text) else shlex.quote(text)


def names(listed: list[str], shown: int = 5) -> str:
    """Return some names for a message, and how many more there are."""
    text = ", ".join(repr(one) for one in listed[:shown])
    return text if len(listed) <= shown else f"{text} and {len(listed) - shown} more"
