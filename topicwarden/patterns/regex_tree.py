"""What an expression says, as a tree."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from topicwarden.patterns.byte_sets import ByteSet


@dataclass(frozen=True, slots=True)
class OneOf:
    """One byte of a set."""

    allowed: ByteSet


@dataclass(frozen=True, slots=True)
class Concatenation:
    """One after the other; nothing when there are no parts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """Any of them."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """From `least` to `most` times; None: any number."""

    part: Node
    least: int
    most: int | None


class Anchor(Enum):
    """A place in the name, which takes up no byte."""

    START = "^"
    END = r"\z"
    END_OR_LAST_NEWLINE = "$"


@dataclass(frozen=True, slots=True)
class Lookahead:
    """A place from which the rest of the name begins with `part`, or does not; takes up no byte."""

    part: Node
    wanted: bool


Node = OneOf | Concatenation | Alternation | Repeat | Anchor | Lookahead
