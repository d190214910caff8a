"""Regular expressions over names, as PCRE reads them: what is supported, taken apart into a tree."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression that is searched for in a name's UTF-8 bytes, not anchored (RabbitMQ's permissions)."""

    text: str
    """As it is evaluated: variables put in, and `^$` for an empty permission."""

    def __str__(self) -> str:
        return self.text
