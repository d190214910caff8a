"""The types of a policy's values, as pydantic fields that refuse with a hint."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf

from topicwarden.patterns import binding_problem, filter_problem
from topicwarden.policy.regexes import regex_problem
from topicwarden.policy.values import (
    Glob,
    Rate,
    RefusedError,
    parse_byte_rate,
    parse_day,
    parse_glob,
    parse_network,
    parse_rate,
    parse_size,
    shown,
)


def near(word: str, known: Collection[str], otherwise: str | None = None) -> str | None:
    """Return `did you mean …` when something known is spelled much like `word`."""
    close = get_close_matches(word[:64].lower(), {name.lower(): name for name in known}, n=1)
    return f"did you mean {next(name for name in known if name.lower() == close[0])}" if close else otherwise


def _topic_filter(value: str, *, placeholders: bool) -> str:
    problem = filter_problem(value, placeholders=placeholders)
    if problem is not None:
        raise RefusedError(f"{shown(value)} is no topic filter: {problem}", _FILTER_HINT)
    if value.startswith("$share/"):
        raise RefusedError(
            f"{shown(value)} names a shared subscription", f"write the filter alone: {value.split('/', 2)[2]}"
        )
    if not placeholders and not {"%u", "%c"}.isdisjoint(value.split("/")):
        raise RefusedError(
            f"{shown(value)} holds %u or %c, which stand for a role's member and mean nothing here", "write + instead"
        )
    return value


_FILTER_HINT = "+ stands for one whole level, # for all the levels below, %u and %c for the client's own names"


def _dotted_pattern(value: str, *, placeholders: bool) -> str:
    """Check an AMQP 0-9-1 topic pattern: words between dots, `*` one word, `#` any number of words."""
    problem = binding_problem(value, placeholders=placeholders)
    if problem is not None:
        raise RefusedError(f"{shown(value)} is no pattern for keys: {problem}", _DOTTED_HINT)
    words = value.split(".")
    for word in words:
        if len(word) > 1 and ("*" in word or "#" in word):
            raise RefusedError(f"* and # must be whole words between dots, not part of {shown(word)}", _DOTTED_HINT)
    if not placeholders and not {"%u", "%c"}.isdisjoint(words):
        raise RefusedError(
            f"{shown(value)} holds %u or %c, which stand for a role's member and mean nothing here", "write * instead"
        )
    return value


_DOTTED_HINT = (
    "* stands for one whole word between dots, # for any number of words, %u and %c for the client's own names"
)


def _some_name(value: str) -> str:
    if not value:
        raise RefusedError("a queue or exchange has a name of 1 to 255 bytes, not ''")
    return value


def _level_regex(value: str) -> str:
    problem = regex_problem(value)
    if problem is not None:
        raise RefusedError(f"{shown(value)} is no pattern for a level: {problem}", problem.hint)
    return value


PolicyFilter = Annotated[str, AfterValidator(lambda value: _topic_filter(value, placeholders=True))]
"""A topic filter in which `%u` and `%c` stand for the client's own names."""
PlainFilter = Annotated[str, AfterValidator(lambda value: _topic_filter(value, placeholders=False))]
DottedPattern = Annotated[str, AfterValidator(lambda value: _dotted_pattern(value, placeholders=True))]
"""A pattern of dotted names in which `%u` and `%c` stand for the client's own names."""
PlainDotted = Annotated[str, AfterValidator(lambda value: _dotted_pattern(value, placeholders=False))]
NamedDotted = Annotated[DottedPattern, AfterValidator(_some_name)]
"""The same for queues and exchanges, which have names; a key may be empty."""
PlainNamedDotted = Annotated[PlainDotted, AfterValidator(_some_name)]
NamePattern = Annotated[InstanceOf[Glob], BeforeValidator(parse_glob)]
EventRate = Annotated[InstanceOf[Rate], BeforeValidator(parse_rate)]
ByteRate = Annotated[InstanceOf[Rate], BeforeValidator(parse_byte_rate)]
Size = Annotated[int, BeforeValidator(parse_size)]
PositiveSize = Annotated[Size, Field(ge=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(parse_network)]
Day = Annotated[date, BeforeValidator(parse_day)]
LevelRegex = Annotated[str, AfterValidator(_level_regex)]
RoleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Port = Annotated[int, Field(ge=1, le=65535)]
