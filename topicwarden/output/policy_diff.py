"""A change of a policy for people at a terminal, for a pull request's comment, and for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from topicwarden import __version__
from topicwarden.compare.policies_model import (
    Difference,
    Effect,
    Example,
    LimitChange,
    Other,
    Permission,
    PolicyDiff,
    Unanswered,
    Written,
)
from topicwarden.compare.policies_rest import selector_items
from topicwarden.events import Client
from topicwarden.output import jsonl, wording
from topicwarden.output.escape import MIN_COLUMNS, quoted, shorten, visible
from topicwarden.output.layout import wrap
from topicwarden.policy import MemberSelector

_NAMED: Final = 4
"""Selectors and the like that are named; the rest are counted."""
_LONGEST_NAME: Final = 200
MARKDOWN_MAX: Final = 60_000
"""Characters of a comment; GitHub takes 65 536."""
_STYLES: Final = {"red": "bold red", "green": "bold green", "yellow": "bold yellow", "plain": "bold"}
_WORDS: Final = {
    Effect.LOOSER: "looser",
    Effect.TIGHTER: "tighter",
    Effect.EITHER: "looser or tighter",
    Effect.NONE: "",
}


@dataclass(frozen=True, slots=True)
class _Name:
    """Text that is not ours: each format makes it harmless in its own way."""

    text: str


_Sentence = list[str | _Name]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One change in words."""

    sentences: Sequence[_Sentence]
    """What changes; then what shows it."""
    written: Written


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    colour: str
    entries: Sequence[_Entry]


def text_lines(diff: PolicyDiff, width: int | None = None) -> list[Text]:
    """Return the change for a terminal of this many columns; None: no terminal, one line a sentence."""
    names = _LONGEST_NAME if width is None else max(MIN_COLUMNS, width - 12)

    def show(name: str) -> str:
        return quoted(name, names)

    lines = wrap(Text(f"{visible(diff.old)} to {visible(diff.new)}: {_verdict(diff)}", "bold"), width)
    for section in _sections(diff):
        lines += [Text(), Text(f"{section.title} ({wording.number(len(section.entries))})", _STYLES[section.colour])]
        for entry in section.entries:
            first, *others = [_styled(sentence, show) for sentence in entry.sentences]
            lines += wrap(first, width, "  ", "    ")
            for sentence in others:
                lines += wrap(sentence, width, "    ", "      ")
            lines += wrap(Text(visible(_where(entry.written)), "dim"), width, "    ", "      ")
    return lines


def markdown(diff: PolicyDiff) -> str:
    """Return the change as GitHub-flavoured Markdown in which no name can be anything but a name.

    Names stand in code spans, in which nothing has a meaning but the run of backticks that ends them, and that is
    longer than any in the name (CommonMark 0.31, section 6.1); line breaks and the like are escaped before.
    """
    parts = [f"### Policy change: {_verdict(diff)}", f"From {_code(diff.old)} to {_code(diff.new)}"]
    left = MARKDOWN_MAX - sum(map(len, parts))
    for section in _sections(diff):
        lines: list[str] = []
        for number, entry in enumerate(section.entries):
            sentences = ["".join(p if isinstance(p, str) else _code(p.text) for p in s) for s in entry.sentences]
            item = "- " + "\n  ".join([*sentences, f"in {_code(_where(entry.written))}"])
            left -= len(item) + 1
            if left < 0:
                more = wording.number(len(section.entries) - number)
                lines.append(f"- and {more} more, for which there is no room: run `topicwarden diff`")
                break
            lines.append(item)
        parts += [f"**{section.title}** ({wording.number(len(section.entries))})", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def document(diff: PolicyDiff) -> str:
    """Return the change as one JSON document; docs/diff.md lists the keys."""
    content = {
        "type": "policy-diff",
        "old": diff.old,
        "new": diff.new,
        "opens": diff.opens,
        "newly_allows": [_difference_object(one) for one in diff.allows],
        "newly_denies": [_difference_object(one) for one in diff.denies],
        "limits": [
            {
                "role": one.role,
                **_permission_object(one.permission),
                "what": one.what,
                "old": one.old,
                "new": one.new,
                "effect": one.effect.value,
                "example": None if one.example is None else _example_object(one.example),
                **_written_object(one.written),
            }
            for one in diff.limits
        ],
        "other": [
            {
                "section": one.section,
                "what": one.what,
                "subject": one.subject,
                "old": one.old,
                "new": one.new,
                "effect": one.effect.value,
                "client": None if one.client is None else _client_object(one.client),
                **_written_object(one.written),
            }
            for one in diff.others
        ],
        "undecided": [
            {
                "question": one.question,
                "role": one.role,
                **_permission_object(one.permission),
                "reason": one.reason,
                **_written_object(one.written),
            }
            for one in diff.unanswered
        ],
        "observer": {"version": __version__},
    }
    return json.dumps(json.loads(jsonl.encode(content)), indent=2) + "\n"


# -- in words ----------------------------------------------------------------------------------------------------------


def _verdict(diff: PolicyDiff) -> str:
    """Return the change in one line."""
    if diff.empty:
        return "no change of what is allowed, limited or judged"
    loosened = sum(change.effect in (Effect.LOOSER, Effect.EITHER) for change in diff.limits)
    loosened += sum(change.effect in (Effect.LOOSER, Effect.EITHER) for change in diff.others)
    counts = [
        f"{wording.number(len(diff.allows)) if diff.allows else 'nothing'} newly allowed",
        f"{wording.number(len(diff.denies)) if diff.denies else 'nothing'} newly denied",
    ]
    if loosened:
        counts.append(f"{wording.number(loosened)} loosened")
    if diff.unanswered:
        counts.append(f"{wording.number(len(diff.unanswered))} undecided")
    return ", ".join(counts)


def _sections(diff: PolicyDiff) -> Iterator[_Section]:
    """Yield what there is to say, gravest first; what is empty is left out."""
    every = [
        _Section("Newly allowed", "red", [_difference(one, "may") for one in diff.allows]),
        _Section("Not decided", "red", [_undecided(one) for one in diff.unanswered]),
        _Section("Newly denied", "yellow", [_difference(one, "may no longer") for one in diff.denies]),
        _Section("Limits", _colour(diff.limits), [_limit(one) for one in diff.limits]),
        _Section("Other changes", _colour(diff.others), [_other(one) for one in diff.others]),
    ]
    return (section for section in every if section.entries)


def _colour(changes: Sequence[LimitChange | Other]) -> str:
    effects = {change.effect for change in changes}
    return "red" if effects & {Effect.LOOSER, Effect.EITHER} else "green" if Effect.TIGHTER in effects else "plain"


def _difference(one: Difference, may: str) -> _Entry:
    heading: _Sentence = ["role ", _Name(one.permission.role), " ("]
    for number, member in enumerate(one.members[:_NAMED]):
        heading += ["; or " if number else "", *_selector(member)]
    if len(one.members) > _NAMED:
        heading.append(f"; or {wording.number(len(one.members) - _NAMED)} more")
    heading += ["): ", *_permission(one.permission)]
    if one.permission.implied:
        heading.append(", which comes with the permission to bind")
    example: _Sentence = ["for example ", *_client(one.example.client, one.members, one.permission), f" {may} "]
    example += [*_deed(one.permission, one.example.name)]
    return _Entry([heading, example], one.written)


def _permission(permission: Permission) -> _Sentence:
    return _deed(permission, permission.place.pattern)


def _deed(permission: Permission, name: str) -> _Sentence:
    """Return what a permission lets somebody do to a name or a pattern."""
    space = permission.place.space
    if space.family == "key":
        verb = "publish to" if permission.kind == "publish" else "bind to"
        return [f"{verb} exchange ", _Name(space.within), " with key ", _Name(name)]
    if permission.kind in ("publish", "subscribe") and space.family == "topic":
        return [f"{permission.kind} to ", _Name(name)]
    verb = "configure" if permission.action.name == "CONFIGURE" else "consume from"
    return [f"{verb} {space.family} ", _Name(name)]


def _selector(member: MemberSelector) -> _Sentence:
    words: _Sentence = []
    for key, value in selector_items(member):
        words += [", "] if words else []
        words += ["without a user name"] if key == "anonymous" else [f"{key.replace('_', ' ')} ", _Name(value)]
    return words


def _client(client: Client, members: Sequence[MemberSelector], permission: Permission | None = None) -> _Sentence:
    """Return who, as far as it matters: what the selectors and the permission look at."""
    words: _Sentence = ["a client without a user name"] if client.user is None else ["user ", _Name(client.user)]
    owned = permission is not None and "%c" in permission.place.levels
    if owned or any(member.client is not None for member in members):
        words += [", client id ", _Name(client.client_id)] if client.client_id else [" and without a client id"]
    if client.vhost is not None:
        words += [", virtual host ", _Name(client.vhost)]
    if any(member.broker is not None for member in members):
        words += [", broker ", _Name(client.broker)]
    if client.address is not None:
        words += [", from ", _Name(client.address)]
    if client.tls_subject is not None:
        words += [", TLS subject ", _Name(client.tls_subject)]
    return words


def _undecided(one: Unanswered) -> _Entry:
    about: _Sentence = ["role ", _Name(one.role)]
    if one.permission is not None:
        about += [": ", *_permission(one.permission)]
    return _Entry([[f"{one.question}? ", *about], [one.reason]], one.written)


def _limit(one: LimitChange) -> _Entry:
    words: _Sentence = [f"{_WORDS[one.effect]}: role ", _Name(one.role)]
    words += [", all its publishes"] if one.permission is None else [": ", *_permission(one.permission)]
    words.append(f": {one.what} from {one.old or 'unlimited'} to {one.new or 'unlimited'}")
    sentences = [words]
    if one.example is not None:
        example: _Sentence = ["for example ", *_client(one.example.client, one.members, one.permission)]
        if one.permission is not None:
            example += [" at ", *_deed(one.permission, one.example.name)[1:]]
        sentences.append(example)
    return _Entry(sentences, one.written)


def _other(one: Other) -> _Entry:
    effect = f"{_WORDS[one.effect]}: " if _WORDS[one.effect] else ""
    match one.section:
        case "roles":
            return _Entry([[f"{one.what} role ", _Name(one.subject)]], one.written)
        case "members" if one.client is not None and one.member is not None:
            words: _Sentence = [*_selector(one.member), f" {one.what} role ", _Name(one.subject)]
            return _Entry([words, ["for example ", *_client(one.client, [one.member])]], one.written)
        case "members":
            return _Entry([["role ", _Name(one.subject), f": members {one.what}"]], one.written)
    words = [f"{effect}{one.section}: {one.what}"]
    words += [" ", _Name(one.subject)] if one.subject else []
    for before, value in ((" from ", one.old), (" to " if one.old is not None else ": ", one.new)):
        words += [before, _Name(value)] if value is not None and value != one.subject else []
    return _Entry([words], one.written)


def _where(written: Written) -> str:
    return written.file if written.line is None else f"{written.file}:{written.line}"


# -- each format's own -------------------------------------------------------------------------------------------------


def _styled(sentence: _Sentence, show: Callable[[str], str]) -> Text:
    return Text.assemble(*(piece if isinstance(piece, str) else (show(piece.text), "cyan") for piece in sentence))


def _code(text: str) -> str:
    """Return a name as a code span."""
    inner = shorten(text, _LONGEST_NAME) or '""'
    longest = max((len(run) for run in re.findall("`+", inner)), default=0)
    # One space at each end is taken away again; it keeps backticks of the name from those around it.
    if "`" in (inner[0], inner[-1]) or (inner[0] == inner[-1] == " " and inner.strip(" ")):
        inner = f" {inner} "
    fence = "`" * (longest + 1)
    return f"{fence}{inner}{fence}"


def _difference_object(one: Difference) -> dict[str, Any]:
    return {
        "role": one.permission.role,
        "kind": one.permission.kind,
        "action": one.permission.action.name.lower(),
        **_permission_object(one.permission),
        "implied": one.permission.implied,
        "members": [dict(selector_items(member)) for member in one.members],
        "example": _example_object(one.example),
        **_written_object(one.written),
    }


def _permission_object(permission: Permission | None) -> dict[str, Any]:
    place = None if permission is None else permission.place
    return {
        "space": None if place is None else {"family": place.space.family, "within": place.space.within or None},
        "pattern": None if place is None else place.pattern,
    }


def _example_object(example: Example) -> dict[str, Any]:
    return {"client": _client_object(example.client), "name": example.name}


def _client_object(client: Client) -> dict[str, Any]:
    return {
        "user": client.user,
        "client_id": client.client_id,
        "vhost": client.vhost,
        "broker": client.broker,
        "address": client.address,
        "tls_subject": client.tls_subject,
    }


def _written_object(written: Written) -> dict[str, Any]:
    return {"file": written.file, "line": written.line, "path": written.path}
