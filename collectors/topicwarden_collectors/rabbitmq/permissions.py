"""What RabbitMQ decides from a permission: a regular expression searched for in the bytes of a name.

Read from and tried on rabbitmq-server 3.10.8: `rabbit_auth_backend_internal:check_resource_access` and
`check_topic_access` run `re:run(Name, Regex, [{capture, none}])`. That is PCRE (8.44 in Erlang 25) on bytes, not
anchored; `$` also matches before a newline at the end; the empty expression stands for `^$`; a search that goes over
PCRE's match limit counts as "does not match". PCRE2 answers the same for nearly every expression; those for which the
two may differ are told by `why_unsure`, and nothing is answered for them.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pcre2  # type: ignore[import-untyped] # ships no types

from topicwarden_collectors.rabbitmq import exchanges

DEFAULT_EXCHANGE: Final = exchanges.DEFAULT
"""What the default exchange, whose name is empty, is called where permissions are checked."""
MAX_REGEX_BYTES: Final = 4096
MAX_NAME_BYTES: Final = 65536
_LIMITS: Final = b"(*LIMIT_MATCH=300000)(*LIMIT_HEAP=16384)"
"""A search takes at most a few milliseconds and 16 MiB, then there is no answer. RabbitMQ goes on to 10 million steps,
then refuses."""
_MAX_DEPTH: Final = 40
_MAX_REPEAT: Final = 1000
_STRIKES: Final = 8
"""Searches of an expression that may go over the limit before it is given up for good."""
_CACHED: Final = 4096

_LITERAL_ESCAPES: Final = frozenset(b"aefnrt")
_SET_ESCAPES: Final = frozenset(b"dDhHvV")
_LATIN1_ESCAPES: Final = frozenset(b"wWsS")
_POSITION_ESCAPES: Final = frozenset(b"AZzGN")
_POSIX_CLASS: Final = re.compile(
    rb"\[:\^?(?:alpha|lower|upper|alnum|ascii|blank|cntrl|digit|graph|print|punct|space|word|xdigit):\]"
)
_GROUP: Final = re.compile(rb"\(\?(?:[:=!>]|P?<[A-Za-z_]\w{0,30}>|<[=!]|(?P<flags>[ims]*(?:-[ims]+)?)(?P<end>[:)]))")
_COUNT: Final = re.compile(rb"\{(\d{1,6})(?:,(\d{0,6}))?\}")
_DOUBTFUL_COUNT: Final = re.compile(rb"\{[\d\s]*,?[\d\s]*\}")


@dataclass(frozen=True, slots=True)
class Permission:
    """A user's permissions in a virtual host: regular expressions, unanchored; '' allows nothing but the empty name."""

    configure: str
    write: str
    read: str

    def __str__(self) -> str:
        return f"configure '{self.configure}' write '{self.write}' read '{self.read}'"


@dataclass(frozen=True, slots=True)
class TopicPermission:
    """A user's permissions on the routing keys of one exchange, with `{username}`, `{vhost}`, `{client_id}`."""

    write: str
    read: str

    def __str__(self) -> str:
        return f"write '{self.write}' read '{self.read}'"


def why_unsure(regex: str) -> str | None:
    """Return why PCRE2 might not answer what RabbitMQ's PCRE does for an expression; None when it does."""
    return _screen(_bytes(regex)).reason


def expanded(regex: str, variables: Mapping[str, str], *, escapes: str = "") -> str:
    """Return a topic permission with its variables replaced, in RabbitMQ's order: by the variables' names.

    Values go in as they are up to 4.2.3, so that a client id `.*` is part of the expression; `escapes` are the
    characters newer servers put a backslash before (`grants_versions`). An AMQP 0-9-1 client has no `client_id`: the
    variable then stays in the expression as text.
    """
    text = regex or "^$"
    for name in sorted(variables):
        value = "".join(f"\\{letter}" if letter in escapes else letter for letter in variables[name])
        text = text.replace("{" + name + "}", value)
    return text


def allows(regex: str, name: str) -> bool | None:
    """Whether a permission allows a name; None when that cannot be told without asking the broker."""
    return Expressions().allows(regex, name)


class Expressions:
    """Compiled permissions, the most recently used ones kept."""

    def __init__(self, kept: int = _CACHED) -> None:
        self._kept = kept
        self._compiled: OrderedDict[str, _Expression] = OrderedDict()

    def allows(self, regex: str, name: str) -> bool | None:
        """Whether a permission allows a name; None when that cannot be told without asking the broker.

        `name` as RabbitMQ checks it: the default exchange is `amq.default`.
        """
        return self._expression(regex).allows(name)

    def allowing(self, regex: str, names: Iterable[str]) -> Iterator[tuple[str, bool | None]]:
        """Yield those of many names that a permission allows, or (None) perhaps allows."""
        allows = self._expression(regex).allows
        for name in names:
            answer = allows(name)
            if answer is not False:
                yield name, answer

    def _expression(self, regex: str) -> _Expression:
        found = self._compiled.get(regex)
        if found is None:
            found = self._compiled[regex] = _Expression(regex or "^$")
            if len(self._compiled) > self._kept:
                self._compiled.popitem(last=False)
        else:
            self._compiled.move_to_end(regex)
        return found


class _Expression:
    """One expression, compiled."""

    __slots__ = ("_ascii_only", "_compiled", "_everything", "_strikes")

    def __init__(self, regex: str) -> None:
        pattern = _bytes(regex)
        screened = _screen(pattern)
        self._ascii_only = screened.latin1
        self._strikes = 0
        self._everything = regex in (".*", "^.*")
        self._compiled: Any = None
        if screened.reason is None:
            try:
                self._compiled = pcre2.compile(_LIMITS + pattern)
            except pcre2.LibraryError:
                # RabbitMQ takes no expression it cannot compile, so PCRE and PCRE2 differ about this one.
                self._compiled = None

    def allows(self, name: str) -> bool | None:
        if self._everything:
            return True
        if self._compiled is None or self._strikes >= _STRIKES:
            return None
        subject = _bytes(name)
        if len(subject) > MAX_NAME_BYTES or (self._ascii_only and not subject.isascii()):
            return None
        try:
            return self._compiled.search(subject) is not None
        except pcre2.LibraryError:
            self._strikes += 1
            return None


@dataclass(frozen=True, slots=True)
class _Screened:
    """What an expression uses."""

    reason: str | None
    latin1: bool = False
    """Whether what it says of bytes above 127 depends on tables: Erlang's PCRE has those of ISO 8859-1."""


def _bytes(text: str) -> bytes:
    """Return a name's or an expression's bytes; bytes that are no UTF-8 stand in texts as lone surrogates."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _screen(pattern: bytes) -> _Screened:
    """Walk over an expression and say whether all it uses means the same to PCRE 8.44 and PCRE2."""
    if len(pattern) > MAX_REGEX_BYTES:
        return _Screened(f"it is longer than {MAX_REGEX_BYTES} bytes")
    if 0 in pattern:
        return _Screened("it contains a zero byte")
    latin1 = False
    groups: list[bool] = []  # for each open group whether it is, or is within, a lookbehind
    at = 0
    while at < len(pattern):
        byte = pattern[at]
        at += 1
        match byte:
            case 0x5C:  # \
                if pattern[at : at + 1] == b"Q":
                    end = pattern.find(b"\\E", at)
                    at = len(pattern) if end < 0 else end + 2
                    continue
                width, tables, reason = _escape(pattern, at, in_class=False)
                if reason:
                    return _Screened(reason)
                at, latin1 = at + width, latin1 or tables
            case 0x5B:  # [
                at, tables, reason = _character_class(pattern, at)
                if reason:
                    return _Screened(reason)
                latin1 = latin1 or tables
            case 0x28:  # (
                behind = bool(groups and groups[-1])
                if pattern[at : at + 1] in (b"?", b"*"):
                    group = _GROUP.match(pattern, at - 1)
                    if group is None:
                        return _Screened("it has a group that is not a plain one or a look around")
                    at = group.end()
                    latin1 = latin1 or b"i" in (group["flags"] or b"")
                    if group["end"] == b")":
                        continue
                    behind = behind or group[0] in (b"(?<=", b"(?<!")
                groups.append(behind)
                if len(groups) > _MAX_DEPTH:
                    return _Screened("its groups are nested too deeply")
            case 0x29:  # )
                if not groups:
                    return _Screened("it has a ) too many")
                groups.pop()
            case 0x2A | 0x2B | 0x3F if groups and groups[-1]:  # * + ?
                return _Screened("it looks behind for something of no fixed length")
            case 0x7B:  # {
                count = _COUNT.match(pattern, at - 1)
                if count is None:
                    if _DOUBTFUL_COUNT.match(pattern, at - 1):
                        return _Screened("it has a repeat count that is one to some versions of PCRE only")
                    continue
                if any(int(number) > _MAX_REPEAT for number in count.groups(b"0") if number):
                    return _Screened(f"it repeats something more than {_MAX_REPEAT} times")
                if groups and groups[-1]:
                    return _Screened("it looks behind for something of no fixed length")
                at = count.end()
    return _Screened(None, latin1)


def _escape(pattern: bytes, at: int, *, in_class: bool) -> tuple[int, bool, str | None]:
    """Return the width of what follows a backslash, whether it needs tables, and what is wrong with it."""
    if at >= len(pattern):
        return 0, False, "it ends with a backslash"
    byte = pattern[at]
    if byte in _LATIN1_ESCAPES:
        return 1, True, None
    if byte in _LITERAL_ESCAPES or byte in _SET_ESCAPES or not (chr(byte).isascii() and chr(byte).isalnum()):
        return 1, False, None
    if byte == 0x78:  # x
        digits = pattern[at + 1 : at + 3]
        if re.fullmatch(rb"[0-9A-Fa-f]{2}", digits):
            return 3, False, None
    elif not in_class:
        if byte in b"bB":
            return 1, True, None
        if byte in _POSITION_ESCAPES and pattern[at + 1 : at + 2] != b"{":
            return 1, False, None
        if byte == 0x45:  # E, which closes nothing here
            return 1, False, None
    return 0, False, f"it uses \\{chr(byte)}"


def _character_class(pattern: bytes, at: int) -> tuple[int, bool, str | None]:
    """Return where a character class that was opened before `at` ends, whether it needs tables, what is wrong."""
    latin1 = False
    if pattern[at : at + 1] == b"^":
        at += 1
    first = True
    while at < len(pattern):
        byte = pattern[at]
        if byte == 0x5D and not first:  # ]
            return at + 1, latin1, None
        first = False
        at += 1
        if byte == 0x5C:
            width, tables, reason = _escape(pattern, at, in_class=True)
            if reason:
                return at, latin1, reason
            at, latin1 = at + width, latin1 or tables
        elif byte == 0x5B and pattern[at : at + 1] in (b":", b".", b"="):
            name = _POSIX_CLASS.match(pattern, at - 1)
            if name is None:
                return at, latin1, "it has [: [. or [= in a character class"
            at, latin1 = name.end(), True
    return at, latin1, "it has a character class that does not end"
