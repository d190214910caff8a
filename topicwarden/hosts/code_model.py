"""What is read of a script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_CALLS: Final = 256
MAX_ARGUMENTS: Final = 16
MAX_LITERALS: Final = 128
READERS: Final = frozenset(
    {"open", "Path", "read_text", "getenv", "get", "environ", "run", "check_output", "getoutput", "popen", "Popen"}
    | {"system", "execSync", "readFileSync"}
)
"""Calls that get what they return from elsewhere: their arguments say from where."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant text in a script."""

    start: int
    end: int
    value: str
    prefix: str = ""
    """Its quotes and what stands before them, such as `b'`."""
    whole: bool = False
    """Whether it is the argument as a whole, not a part of what is reckoned from it."""


@dataclass(frozen=True, slots=True)
class Value:
    """An argument of a call."""

    text: str | None = None
    """None: it is no constant text."""
    number: int | None = None
    items: tuple[Value, ...] = ()
    """Of a tuple or list."""
    literals: tuple[Literal, ...] = ()
    """All constant texts within it, and those that variables in it are set to."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call with its arguments."""

    name: str
    """The last part of what is called."""
    arguments: tuple[Value, ...]
    named: Mapping[str, Value] = field(default_factory=dict)
    closed: bool = True
    """Whether its end is there: else more arguments may have followed."""

    def value(self, place: int | None, *names: str) -> Value | None:
        """Return an argument by its place or one of its names; None when it is not given."""
        for name in names:
            if name in self.named:
                return self.named[name]
        return self.arguments[place] if place is not None and place < len(self.arguments) else None
