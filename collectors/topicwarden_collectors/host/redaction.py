"""Takes secrets out of command lines, before anything else sees them.

What is replaced by `***`: values of options that name a secret, whichever program they are given to; of options that
mean one only to some programs (`-P` of mosquitto_pub, `-p` of rabbitmqadmin, `-u name:secret` of curl); passwords in
URLs; assignments (`MQTT_PASSWORD=x`, `password="x"`, `"token": "x"`); arguments of calls that take a password
(`username_pw_set`, `PlainCredentials`); Authorization headers; private keys. The same within one argument that is a
script (`sh -c`, `python -c`). In doubt more is taken out: a lost word costs less than a stored password.

What cannot be told from other words stays: a secret in a variable with another name, or one that is encoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from topicwarden.events import MAX_ARGUMENT, MAX_ARGUMENTS
from topicwarden_collectors.host.redaction_options import MASK, marked
from topicwarden_collectors.host.redaction_words import names_secret

RAW_ARGUMENT: Final = 8 * MAX_ARGUMENT
"""Characters of an argument in which secrets are looked for; what is kept is cut after they are out."""
RAW_LINE: Final = 8 * RAW_ARGUMENT
"""Characters of a whole command line in which secrets are looked for, so that a hostile one costs little."""
_MAX_CALLS: Final = 16
"""Calls looked at in one text, so that a hostile one costs no more than its length; what follows them is taken out."""

_LITERAL: Final = (
    r"(?:[rRbBuUfF]{0,2}(?:\"\"\"(?:\\.|[^\\])*?(?:\"\"\"|\\?\Z)|'''(?:\\.|[^\\])*?(?:'''|\\?\Z)"
    r"|\"(?:\\.|[^\"\\])*(?:\"|\\?\Z)|'(?:\\.|[^'\\])*(?:'|\\?\Z)))"
)
_ESCAPED_LITERAL: Final = r"\\+([\"'])(?:(?!\\+\4).)*(?:\\+\4|\Z)"
_SHELL_WORD: Final = r"(?:\"(?:\\.|[^\"\\])*(?:\"|\\?\Z)|'[^']*(?:'|\Z)|\\.|[^\s;|&\"'\\])+"
_ASSIGNED: Final = re.compile(
    rf"(?<![\w.-])([\w.-]++)((?:\\*[\"'])?\s*+(?::=|=>|[:=])\s*+)"
    rf"({_ESCAPED_LITERAL}|{_LITERAL}(?:\s*\+?\s*{_LITERAL})*(?:(?![,)\]}}]){_SHELL_WORD})?|{_SHELL_WORD})",
    re.DOTALL,
)
_WHOLE: Final = re.compile(r"([\w.-]+)=", re.ASCII)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_AUTHORITY_ENDS: Final = re.compile(r"[/?#]")
_PORT: Final = re.compile(r"\d{1,5}[\"'`;,)\]}]*", re.ASCII)
_URL_CUT: Final = re.compile(r"(://[^\s/?#:@]*+):[^\s@]*\Z")
_HEADER: Final = re.compile(r"(authorization\\*[\"']?\s*+[:=]\s*+\\*[\"']?)[^\"'\r\n]+", re.IGNORECASE)
_KEY: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)", re.DOTALL)
_CALL: Final = re.compile(
    r"(?:username_pw_set|PlainCredentials|ClientXMPP|HTTPBasicAuth|BasicAuth|basic_auth|set_credentials|login)\s*+\("
)
_QUOTED: Final = re.compile(_LITERAL, re.DOTALL)
_WORD: Final = re.compile(r"(?:\"(?:\\.|[^\"\\])*(?:\"|\\?\Z)|'[^']*(?:'|\Z)|\\.|[^\s\"'\\;|&()<>])+", re.DOTALL)
_FLAT_WORD: Final = re.compile(r"[^\s\"'`\\;|&()<>]+")
_JOINED_WORD: Final = re.compile(r"\S+")
_SCRIPT_OPTION: Final = re.compile(r"-[A-Za-z]*[ce]|--command|--eval|--execute", re.ASCII)
_HINTS: Final = re.compile(r"[:=(\s]")
"""Without one of these an argument holds no secret by itself."""


def redacted(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the arguments of a command line with its secrets replaced by `***`; the first names the program."""
    kept = []
    marks = marked(arguments)
    for position, argument in enumerate(arguments):
        mark = marks.get(position)
        if mark is not None:
            kept.append(argument[:mark] + MASK)
        elif _HINTS.search(argument) is None:
            kept.append(argument)
        else:
            script = position > 0 and _SCRIPT_OPTION.fullmatch(arguments[position - 1]) is not None
            kept.append(_in_argument(argument, script=script))
    return tuple(kept)


def command_line(arguments: Sequence[str], *, cut: bool = False) -> tuple[tuple[str, ...], bool]:
    """Return arguments as an event may hold them, redacted and bounded, and whether any are missing or shortened.

    `cut`: the source has already shortened the last one, or left some out.
    """
    left = RAW_LINE
    raw = []
    for argument in arguments[:MAX_ARGUMENTS]:
        raw.append(argument[: min(RAW_ARGUMENT, max(left, MAX_ARGUMENT))])
        left -= len(raw[-1])
    kept = list(redacted(raw))
    shortened = False
    for position, part in enumerate(raw):
        if len(part) < len(arguments[position]):
            shortened = True
        elif not cut or position < len(raw) - 1:
            continue
        kept[position] = _without_cut_url(kept[position])
    return _bounded(kept, cut=cut or shortened or len(arguments) > MAX_ARGUMENTS)


def joined_command_line(line: str, *, cut: bool = False) -> tuple[tuple[str, ...], bool]:
    """Do the same for a command line whose arguments were joined by spaces: where one ends is not known.

    A value that is a secret goes on to the next word that looks like an option.
    """
    cut = cut or len(line) > RAW_LINE
    text = _with_neither_calls_nor_urls(line[:RAW_LINE])
    text = _ASSIGNED.sub(_assigned, _in_words(text, _JOINED_WORD, greedy=True))
    words = text.split()
    if cut and words:
        words[-1] = _without_cut_url(words[-1])
    return _bounded(words, cut=cut or len(words) > MAX_ARGUMENTS)


def _bounded(arguments: Sequence[str], *, cut: bool) -> tuple[tuple[str, ...], bool]:
    kept = tuple(argument[:MAX_ARGUMENT] for argument in arguments[:MAX_ARGUMENTS])
    return kept, cut or any(len(argument) > MAX_ARGUMENT for argument in arguments[:MAX_ARGUMENTS])


def _without_cut_url(argument: str) -> str:
    """Take out what may be the beginning of a password, of an address whose `@` was cut off."""
    return _URL_CUT.sub(rf"\1:{MASK}", argument) if "://" in argument else argument


def _in_argument(argument: str, *, script: bool) -> str:
    """Take secrets out of one argument that is no secret as a whole."""
    if not script:
        match = _WHOLE.match(argument)
        if match is not None and names_secret(match[1]):
            return match[0] + MASK
    text = _without_password(argument) if _SCHEME.match(argument) is not None else argument
    text = _with_neither_calls_nor_urls(text)
    if any(character.isspace() for character in text):
        text = _in_words(text, _WORD)
        text = _in_words(text, _FLAT_WORD)
    return _ASSIGNED.sub(_assigned, text)


def _assigned(match: re.Match[str]) -> str:
    return match[1] + match[2] + MASK if names_secret(match[1]) else match[0]


def _with_neither_calls_nor_urls(text: str) -> str:
    if "PRIVATE KEY" in text:
        text = _KEY.sub(MASK, text)
    if "(" in text:
        text = "".join(_without_second_arguments(text))
    if "://" in text and "@" in text:
        text = _JOINED_WORD.sub(lambda run: _without_password(run[0]), text)
    return _HEADER.sub(rf"\1{MASK}", text)


def _without_password(run: str) -> str:
    """Take the passwords out of a text that is one address or several, with nothing between them.

    A `/` in a password ends the authority for RFC 3986; what stands before it then is no port, and that gives it away.
    Where it could be a port it is one: else an address could be written so that another host seems to be meant.
    """
    last = run.rfind("@")
    kept, at = [], 0
    start = run.find("://")
    while 0 <= start < last:
        begin = start + 3
        ends = _AUTHORITY_ENDS.search(run, begin)
        end = len(run) if ends is None else ends.start()
        sign = run.rfind("@", begin, end)
        colon = run.find(":", begin, end if sign < 0 else sign)
        if sign < 0 and colon >= 0 and run[begin] != "[" and _PORT.fullmatch(run, colon + 1, end) is None:
            sign = last
        if colon >= 0 and sign > colon:
            kept += [run[at : colon + 1], MASK]
            at = sign
            begin = sign
        start = run.find("://", begin)
    return "".join([*kept, run[at:]])


def _in_words(text: str, word: re.Pattern[str], *, greedy: bool = False) -> str:
    """Take secrets out of a text that is a command line, or a script of several."""
    spans = [match.span() for match in word.finditer(text)]
    words = [text[start:end] for start, end in spans]
    if word is _WORD:
        words = [_unquoted(one) for one in words]
    kept, at = [], 0
    for position, mark in sorted(marked(words, greedy=greedy).items()):
        start, end = spans[position]
        kept += [text[at:start], words[position][:mark], MASK]
        at = end
    return "".join([*kept, text[at:]])


def _unquoted(word: str) -> str:
    return word if word.isalnum() else re.sub(r"[\"'\\]", "", word)


def _without_second_arguments(text: str) -> Iterator[str]:
    """Yield the text without what calls that take a password get after their first argument."""
    at = 0
    for number, match in enumerate(_CALL.finditer(text)):
        if match.end() < at:
            continue
        if number >= _MAX_CALLS:
            yield text[at : match.end()] + MASK
            return
        comma, end = _arguments(text, match.end())
        if end == len(text) and comma is None:
            comma = match.end() - 1
        if comma is not None:
            yield text[at : comma + 1] + MASK
            at = end
    yield text[at:]


def _arguments(text: str, start: int) -> tuple[int | None, int]:
    """Return where a call's first argument ends (None: it is the only one), and where its arguments end."""
    comma, depth, at = None, 0, start
    while at < len(text):
        character = text[at]
        if character in "\"'":
            literal = _QUOTED.match(text, at)
            at = literal.end() if literal is not None else at + 1
            continue
        if character in "([{":
            depth += 1
        elif character in ")]}":
            if depth == 0:
                return comma, at
            depth -= 1
        elif character == "," and depth == 0 and comma is None:
            comma = at
        at += 1
    return comma, at
