"""What is usual here: brokers, tools, topics and rates, as a file that `learn --baseline` drafts and a person reviews.

It says what was, not what is intended: nothing is allowed or forbidden by it. What is not in it is unusual, no more.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from topicwarden.events import Shape
from topicwarden.policy.fields import PlainDotted, PlainFilter, Port, Size, Text
from topicwarden.policy.loading import FileKind, parse_file, read_text
from topicwarden.policy.places import Place, place_of
from topicwarden.policy.strict import Strict
from topicwarden.policy.values import RefusedError, shown

FORMAT: Final = 1
"""Version of the baseline file."""
MAX_TOPICS: Final = 8000
MAX_ENTRIES: Final = 10_000
"""Most brokers, and most tools."""
MAX_LISTED: Final = 1000
"""Most hosts, users or parents of one entry."""

Bits = Annotated[float, Field(ge=0, le=8)]
Speed = Annotated[float, Field(gt=0, le=1e9)]
"""Messages per second."""
Share = Annotated[float, Field(ge=0, le=1)]
ShapeName = Literal["empty", "text", "json", "base64", "hex", "binary"]
LevelShape = Annotated[str, Field(min_length=1, max_length=64)]
Names = Annotated[tuple[Text, ...], Field(max_length=MAX_LISTED)]
Does = Literal["publish", "subscribe", "both", "manage", "connect"]


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", value):
        try:
            return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise RefusedError(f"there is no time {value}", "a time is written YYYY-MM-DDTHH:MM:SSZ") from None
    raise RefusedError(f"a time is written YYYY-MM-DDTHH:MM:SSZ, not {shown(value)}")


Moment = Annotated[datetime, BeforeValidator(_moment)]


def _one_kind(keys: Collection[str], what: str) -> RefusedError | None:
    hint = "write topic: FILTER, or exchange: NAME and key: PATTERN"
    if "topic" in keys and {"exchange", "key"} & set(keys):
        return RefusedError(f"{what} names one kind of place, not a topic and an exchange together", hint)
    if "topic" not in keys and not {"exchange", "key"} <= set(keys):
        return RefusedError(f"{what} does not say which names it is about", hint)
    return None


class Learnt(Strict):
    """What it was learnt from."""

    since: Moment
    until: Moment
    events: Annotated[int, Field(ge=0)]
    """Publishes that were learnt from."""
    covered: Share
    """Share of them whose names are among `topics`: how much it means when a name is not."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.until < self.since:
            raise RefusedError("until lies before since")
        return self


class UsualBroker(Strict):
    """A broker that hosts connect to."""

    address: Text
    ports: Annotated[tuple[Port, ...], Field(min_length=1, max_length=MAX_LISTED)]
    hosts: Names = ()
    """The hosts that connect to it; none listed: any."""


class UsualTool(Strict):
    """A program that talks to brokers on a host."""

    host: Text
    process: Text
    """File name of the program."""
    users: Names = ()
    parents: Names = ()
    """File names of the programs that start it."""
    does: Annotated[tuple[Does, ...], Field(min_length=1, max_length=5)]


class Range(Strict):
    """From the lowest to the highest usual value."""

    low: Size
    high: Size

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.high < self.low:
            raise RefusedError(f"high {self.high} is below low {self.low}")
        return self


class BitsRange(Strict):
    """From the lowest to the highest usual entropy, in bits per byte."""

    low: Bits
    high: Bits

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.high < self.low:
            raise RefusedError(f"high {self.high:g} is below low {self.low:g}")
        return self


class UsualLevel(Strict):
    """How the words of an open level are built."""

    shapes: Annotated[tuple[LevelShape, ...], Field(max_length=32)] = ()
    """What they look like: `level_shape`; none listed: any."""
    length: Range


class UsualTopic(Strict):
    """Names that are published to, and what is sent there."""

    topic: PlainFilter | None = None
    exchange: Text | None = None
    key: PlainDotted | None = None
    levels: tuple[UsualLevel, ...] = ()
    """One for each open level of the name, in order; none: nothing is said of them."""
    size: Range | None = None
    """Payload bytes; None: not known."""
    shapes: Annotated[tuple[ShapeName, ...], Field(max_length=6)] = ()
    """None listed: not known."""
    entropy: BitsRange | None = None

    @classmethod
    def shape_problem(cls, keys: Collection[str]) -> RefusedError | None:
        """Refuse an entry for both protocols, or for none."""
        return _one_kind(keys, "an entry of topics")

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        place = self.place
        syntax = place.space.syntax
        if syntax.rest in place.levels:
            hint = f"write {syntax.one} for each level that differs"
            raise RefusedError(f"{shown(place.pattern)} is open-ended: a usual name has a number of levels", hint)
        wild = place.levels.count(syntax.one)
        if self.levels and len(self.levels) != wild:
            raise RefusedError(
                f"{shown(place.pattern)} has {wild} open levels, and {len(self.levels)} are described",
                f"describe each {syntax.one} in its order, or none",
            )
        return self

    @property
    def place(self) -> Place:
        """The names."""
        place = place_of(self.topic, self.exchange, self.key, None)
        assert place is not None  # `shape_problem` has refused such an entry
        return place

    @property
    def shown_shapes(self) -> frozenset[Shape]:
        """The shapes of payloads."""
        return frozenset(Shape[name.upper()] for name in self.shapes)


class UsualRate(Strict):
    """How much one client publishes that publishes there, over all its publishes wherever they go."""

    topic: PlainFilter | None = None
    exchange: Text | None = None
    key: PlainDotted | None = None
    typical: Speed
    """Messages per second of a client over the time it was seen, in the middle of all clients."""
    peak: Speed
    """Most messages of one client in ten seconds by the clock, per second."""

    @classmethod
    def shape_problem(cls, keys: Collection[str]) -> RefusedError | None:
        """Refuse an entry for both protocols, or for none."""
        return _one_kind(keys, "a rate")

    @property
    def place(self) -> Place:
        """Where the clients publish."""
        place = place_of(self.topic, self.exchange, self.key, None)
        assert place is not None  # `shape_problem` has refused such a rate
        return place


class Baseline(Strict):
    """The whole of a baseline file."""

    topicwarden_baseline: int
    """Version of the file: 1."""
    learnt: Learnt
    brokers: Annotated[tuple[UsualBroker, ...], Field(max_length=MAX_ENTRIES)] = ()
    tools: Annotated[tuple[UsualTool, ...], Field(max_length=MAX_ENTRIES)] = ()
    topics: Annotated[tuple[UsualTopic, ...], Field(max_length=MAX_TOPICS)] = ()
    rates: Annotated[tuple[UsualRate, ...], Field(max_length=MAX_TOPICS)] = ()

    @field_validator("topicwarden_baseline")
    @classmethod
    def _readable(cls, value: int) -> int:
        if value != FORMAT:
            raise RefusedError(f"this topicwarden reads version {FORMAT} of baselines, not {value}")
        return value

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        topics = [entry.place for entry in self.topics]
        rates = [entry.place for entry in self.rates]
        for what, places in (("topics", topics), ("rates", rates)):
            seen: set[Place] = set()
            for place in places:
                if place in seen:
                    raise RefusedError(f"{what} has {shown(place.label)} twice", "merge the two")
                seen.add(place)
        lost = [place for place in rates if place not in set(topics)]
        if lost:
            raise RefusedError(f"rates has {shown(lost[0].label)}, which is not among topics", "remove it, or add it")
        return self


KIND: Final = FileKind(Baseline, "baseline", "begin the file with topicwarden_baseline: 1")


def load_baseline(path: Path) -> Baseline:
    """Read a baseline file; raises ConfigurationError with every problem of the file, sorted by line."""
    return parse_baseline(read_text(path, KIND.noun), str(path))


def parse_baseline(text: str, file: str) -> Baseline:
    """Read a baseline from text; `file` is its name in messages. Raises as `load_baseline` does."""
    return parse_file(text, file, KIND, {})[0]


def level_shape(level: str) -> str:
    """Return what a level looks like: runs of letters, capitals and digits by their kinds, all else as written.

    `sensor-12` is `a-9`, `Hall3` is `Aa9`, a MAC address `9a:9a:…`: letters outside ASCII are `a` or `A`, too, and
    characters that are neither letter nor digit stand for themselves, in printable ASCII, else as `?`. Hexadecimal of 8
    characters or more with letters and digits mixed is `x`, for its runs say nothing. At most 64 characters.
    """
    if len(level) >= HEX_LENGTH and _HEX.fullmatch(level) and not level.isdigit() and not level.isalpha():
        return "x"
    level = level[:1024]
    kinds = level.translate(_ASCII) if level.isascii() else "".join(map(_kind, level))
    return _REPEATED.sub(r"\1", kinds)[:SHAPE_LENGTH]


def _kind(character: str) -> str:
    if character.isdigit():
        return "9"
    if character.isalpha():
        return "A" if character.isupper() else "a"
    return _ASCII[ord(character)] if character.isascii() else "?"


HEX_LENGTH: Final = 8
SHAPE_LENGTH: Final = 64
_HEX: Final = re.compile(r"(?:0[xX])?(?:[0-9a-f]+|[0-9A-F]+)")
_ASCII: Final = {
    number: "9" if c.isdigit() else "A" if c.isupper() else "a" if c.isalpha() else c if c.isprintable() else "?"
    for number, c in enumerate(map(chr, range(128)))
}
_REPEATED: Final = re.compile(r"([9aA])\1+")
