"""How the plugin matches topics and filters with those of its ACLs (2.0.11).

ACLs about publishing and receiving are matched with topics by `mosquitto_topic_matches_sub`, those about subscribing
with filters: literally, or by the plugin's own `sub_acl_check`, level by level as text, where

- `+` and `#` at the first level stand for `$SYS` too, and for the `$share` of a shared subscription;
- `/#` matches the filter `#`, which asks for everything: both are cut down to an empty level.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from topicwarden.patterns import Level, LevelPattern, Special
from topicwarden.patterns.meet import meet
from topicwarden_collectors.mosquitto.acl_file import MAX_TOPIC_SLASHES, valid_filter
from topicwarden_collectors.mosquitto.grants_logins import sendable

SHARE: Final = "$share"
EVERYTHING: Final = "#"
_WILDCARDS: Final = {"+": Special.ONE, "#": Special.REST}


def names_of_filter(text: str) -> LevelPattern:
    """Return the topics that a valid filter matches."""
    levels: tuple[Level, ...] = tuple(_WILDCARDS.get(level, level) for level in text.split("/"))
    return LevelPattern(text, levels)


def names_of_acl(topic: str) -> LevelPattern | None:
    """Return the topics that an ACL about publishing or receiving matches; None when it can match none.

    The file's topics are not checked. What is no filter matches nothing, except where `/#` after a `+` has something
    behind it: `a/+/#x` matches what `a/+` does.
    """
    levels = topic.split("/")
    for number, level in enumerate(levels):
        last = number == len(levels) - 1
        if level in ("+", "#") and (level == "+" or last):
            continue
        if level.startswith("#") and number and levels[number - 1] == "+":
            topic = "/".join(levels[:number])
            break
        if "+" in level or "#" in level:
            return None
    if not topic or not sendable(topic) or topic.count("/") - topic.endswith("/#") > MAX_TOPIC_SLASHES:
        return None
    return names_of_filter(topic)


@lru_cache(maxsize=1 << 14)
def _cut(text: str) -> tuple[tuple[str, ...], bool]:
    """Return a filter's levels without `#` at its end, and whether there was one (`hash_check`)."""
    if text == EVERYTHING:
        return ("",), True
    if text.endswith("/#"):
        return tuple(text[:-2].split("/")), True
    return tuple(text.split("/")), False


@dataclass(frozen=True, slots=True)
class SubscribePattern:
    """An ACL's pattern, ready to be held against the filters that clients ask for."""

    text: str
    levels: tuple[str, ...]
    open_end: bool

    @classmethod
    def of(cls, text: str) -> SubscribePattern:
        """Take a pattern apart."""
        return cls(text, *_cut(text))

    @property
    def usable(self) -> bool:
        """Whether there is a filter that it matches."""
        return is_filter(self.text)

    def matches(self, asked: str) -> bool:
        """Whether it matches a valid filter (`sub_acl_check`)."""
        if self.text == EVERYTHING:
            return True
        levels, open_end = _cut(asked)
        if (open_end and not self.open_end) or len(self.levels) > len(levels):
            return False
        if len(levels) > len(self.levels) and not self.open_end:
            return False
        return all(mine in ("+", level) for mine, level in zip(self.levels, levels, strict=False))


def is_filter(text: str) -> bool:
    """Whether a client can subscribe to this."""
    return bool(text) and sendable(text) and valid_filter(text)


def common_topics(a: LevelPattern, b: LevelPattern) -> LevelPattern | None:
    """Return the filter of what two filters both match; None when there is nothing. Most of many are told at once."""
    for mine, other in zip(a.levels, b.levels, strict=False):
        if mine != other and isinstance(mine, str) and isinstance(other, str):
            return None
    return meet(a, b)


def is_shared(text: str) -> bool:
    """Whether a filter is a shared subscription. The group may be empty, and `+` (2.0.11)."""
    return text.startswith(f"{SHARE}/") and text.count("/") >= 2


def names_of_subscription(text: str) -> LevelPattern | None:
    """Return the topics that a subscription to a valid filter brings; None when it brings none.

    A shared subscription brings what the filter behind its group matches, but nothing that begins with `$` (2.0.11).
    """
    first = text.partition("/")[0]
    if is_shared(text):
        behind = text.split("/", 2)[2]
        return None if not behind or behind.startswith("$") else names_of_filter(behind)
    return None if first.startswith(SHARE) else names_of_filter(text)
