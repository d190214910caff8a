"""The lines of a rabbitmq.conf, as cuttlefish reads them.

Tried on `cuttlefish_conf` 3.0.1, which RabbitMQ 3.10.8 has: a setting is `key = value` on one line; everything from
a `#` on is a comment, quotes or not; of equal keys the last counts; a line that is nothing of all this, and a setting
without value or with one that is not ISO 8859-1, keeps the node from starting. Later versions of cuttlefish know values
in single quotes: `Setting.value` is then what stands between them, and `#` in them is no comment to those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from topicwarden.errors import Problem

MAX_LINES: Final = 100_000
_WORD: Final = r"(?:\\\.|[A-Za-z0-9_-])+"
_SETTING: Final = re.compile(
    rf"[ \t]*(?P<key>{_WORD}(?:\.{_WORD})*)[ \t]*=[ \t]*"
    r"(?:'(?P<quoted>(?:[^'\n]|'')*)'[ \t]*(?:#.*)?$|(?P<value>[^#]*?)[ \t]*(?:#.*)?$)"
)
_INCLUDE: Final = re.compile(r"[ \t]*include[ \t]*(?P<path>[A-Za-z0-9\-_.*\\/]+)[ \t]*(?:#.*)?$")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, and where it stands."""

    key: str
    value: str
    file: str
    line: int
    """1-based."""


@dataclass(frozen=True, slots=True)
class Lines:
    """What a file says."""

    settings: list[Setting]
    includes: list[tuple[str, int]]
    """Paths, which may have wildcards, with their lines."""
    refused: list[Problem]
    """Lines the node does not start with."""


def read_lines(data: bytes, file: str) -> Lines:
    """Read a file's bytes; never raises."""
    found = Lines([], [], [])
    text = data.decode("utf-8", "replace")
    rows = text.split("\n")
    for number, row in enumerate(rows[:MAX_LINES], 1):
        line = row.removesuffix("\r")
        if not line.strip(" \t") or line.lstrip(" \t").startswith("#"):
            continue
        setting = _SETTING.match(line)
        if setting is not None:
            value = setting["value"] if setting["quoted"] is None else setting["quoted"]
            if value and all(letter <= "\xff" for letter in value):
                found.settings.append(Setting(setting["key"].replace("\\.", "."), value, file, number))
                continue
        include = _INCLUDE.match(line)
        if include is not None:
            found.includes.append((include["path"], number))
            continue
        found.refused.append(
            Problem(
                "the node does not start with this line: it is no setting", file, number, "write it as: key = value"
            )
        )
    if len(rows) > MAX_LINES:
        found.refused.append(Problem(f"it has more than {MAX_LINES} lines; the rest was not read", file))
    return found
