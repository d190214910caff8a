"""The draft as the text of a policy file: sorted, commented, and safe whatever the names in it hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.events import Action
from topicwarden.learn.draft import Draft, RoleDraft, RuleDraft, Selector
from topicwarden.learn.review import Reason, timestamp

WIDTH: Final = 120
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_NULLS: Final = frozenset({"null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a draft comes from, for its header; all of it may be hostile text."""

    command: str
    sources: Sequence[str]
    version: str
    review: str
    """Where the review list is."""


def policy_text(draft: Draft, provenance: Provenance) -> str:
    """Return the policy file. The same draft and provenance give the same text."""
    lines = [*_header(draft, provenance), "topicwarden: 1"]
    if draft.roles:
        lines.append("roles:")
    for role in draft.roles:
        lines += _role(role)
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return text as a YAML scalar that reads back as exactly this text."""
    if _PLAIN.fullmatch(text) and text not in _NULLS:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isascii() and character.isprintable():
        return character
    # What Python calls printable may still be drawn as nothing, so only letters and digits are left as they are.
    if character.isalnum():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _header(draft: Draft, provenance: Provenance) -> Iterator[str]:
    coverage = draft.coverage
    left = sum(item.events for item in draft.review if item.reason is not Reason.UNVERIFIED)
    yield f"# A draft by topicwarden {provenance.version}, to be read before it is used: see docs/learn.md"
    yield f"# command:  {comment(provenance.command)}"
    for source in provenance.sources:
        yield f"# source:   {comment(source)}"
    yield f"# period:   {timestamp(draft.first_ns)} to {timestamp(draft.last_ns)}"
    pairs = f"{number(draft.pairs)} different (client, name)"
    yield f"# events:   {number(draft.events)} by {counted(draft.accounts, 'account')}, {pairs}"
    yield (
        f"# coverage: {coverage.estimate:.3f}, estimated: {coverage.sample:.3f} of templates x "
        f"{coverage.completeness:.3f} of what each member does"
    )
    yield (f"# left out: {number(left)} events in {number(len(draft.review))} entries of {comment(provenance.review)}")
    if draft.skipped:
        yield "# skipped:  " + ", ".join(
            f"{number(count)} events with {why} names" for why, count in draft.skipped.items()
        )
    if draft.overflow:
        yield f"# NOT READ: {number(draft.overflow)} events, for which there was no room"


def _role(role: RoleDraft) -> Iterator[str]:
    yield ""
    yield f"  {role.name}: # {counted(role.members, 'account')}"
    yield "    members:"
    yield from _flow([_selector(selector) for selector in role.selectors])
    for key, action, families in (
        ("publish", Action.PUBLISH, ("topic", "key")),
        ("subscribe", Action.SUBSCRIBE, ("topic", "key")),
        ("consume", Action.SUBSCRIBE, ("queue",)),
        ("configure", Action.CONFIGURE, ("queue", "exchange")),
    ):
        rules = [rule for rule in role.rules if rule.action is action and rule.place.space.family in families]
        if rules:
            yield f"    {key}:"
            yield from map(_rule, rules)


def _flow(items: Sequence[str]) -> Iterator[str]:
    """Write list entries several to a line."""
    line = "      ["
    for number, item in enumerate(items):
        text = item + ("," if number + 1 < len(items) else "]")
        if len(line) + len(text) + 1 > WIDTH and line.strip() != "[":
            yield line.rstrip()
            line = "       "
        line += text + " "
    yield line.rstrip()


def _selector(selector: Selector) -> str:
    parts = {"user": selector.user, "vhost": selector.vhost, "broker": selector.broker}
    return "{" + ", ".join(f"{key}: {quoted(text)}" for key, text in parts.items() if text is not None) + "}"


def _rule(rule: RuleDraft) -> str:
    place = rule.place
    match place.space.family:
        case "topic":
            parts = {"topic": place.pattern}
        case "key":
            parts = {"exchange": place.space.within, "key": place.pattern}
        case family:
            parts = {family: place.pattern}
    text = [f"{key}: {quoted(value)}" for key, value in parts.items()]
    text += [
        f"{key}: {value}"
        for key, value in (("rate", rule.rate), ("burst", rule.burst), ("max_size", rule.max_size))
        if value is not None
    ]
    told = f"{counted(rule.users, 'user')}, {counted(rule.events, 'event')}, last {timestamp(rule.last_ns)[:10]}"
    return f"      - {{{', '.join(text)}}} # {told}"


def comment(text: str) -> str:
    """Return text that ends no comment and hides nothing."""
    return "".join(map(_escaped, text))


def counted(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def number(value: int) -> str:
    """Return a number with its digits in groups."""
    return f"{value:,}".replace(",", " ")
