"""Takes secrets and payloads out of command lines, before anything else sees them.

What is replaced by `***`: values of options that name a secret, whichever program they are given to; of options that
mean one only to some programs (`-P` of mosquitto_pub, `-p` of rabbitmqadmin, `-u name:secret` of curl); passwords in
URLs; assignments (`MQTT_PASSWORD=x`, `password="x"`, `"token": "x"`); arguments of calls that take a password
(`username_pw_set`, `PlainCredentials`); Authorization headers; private keys. The same within one argument that is a
script (`sh -c`, `python -c`). In doubt more is taken out: a lost word costs less than a stored password.

What cannot be told from other words stays: a secret in a variable with another name, or one that is encoded.

Payloads are replaced by `<payload>` and measured; which words are one `topicwarden.hosts.commands_payload` knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from topicwarden.events import MAX_ARGUMENT, MAX_ARGUMENTS, SeenPayload
from topicwarden.hosts.commands_payload import MAX_TEXT, without_payloads
from topicwarden.hosts.commands_payload_joined import joined_without_payloads
from topicwarden_collectors.host.payload import measure
from topicwarden_collectors.host.redaction_options import MASK, marked
from topicwarden_collectors.host.redaction_words import names_secret

RAW_ARGUMENT: Final = 8 * MAX_ARGUMENT
"""Characters of an argument in which secrets are looked for; what is kept is cut after they are out."""
RAW_LINE: Final = 8 * RAW_ARGUMENT
"""Characters of a whole command line in which secrets are looked for, so that a hostile one costs little."""
_WALKED: Final = 4 * MAX_ARGUMENTS
"""Arguments among which payloads are looked for."""
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
_QUOTE: Final = re.compile(r"[\"'`]")
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


class SeenCommand(NamedTuple):
    """A command line as an event may hold it."""

    arguments: tuple[str, ...]
    cut: bool
    """Whether arguments are missing or were shortened, or, joined by spaces, may mean something else."""
    payload: SeenPayload | None
    """The largest of the payloads that were taken out."""


def command_line(arguments: Sequence[str], *, cut: bool = False, executable: str = "") -> tuple[tuple[str, ...], bool]:
    """Return the arguments and `cut` of `seen_command`."""
    return seen_command(arguments, cut=cut, executable=executable)[:2]


def joined_command_line(line: str, *, cut: bool = False, executable: str = "") -> tuple[tuple[str, ...], bool]:
    """Return the arguments and `cut` of `seen_joined_command`."""
    return seen_joined_command(line, cut=cut, executable=executable)[:2]


def seen_command(arguments: Sequence[str], *, cut: bool = False, executable: str = "") -> SeenCommand:
    """Return a command line as an event may hold it: redacted, bounded, its payload measured.

    `cut`: the source has already shortened the last argument, or left some out. `executable`: the program's path, where
    known; it counts more than the first argument, which may be anything.
    """
    taken = without_payloads(arguments[:_WALKED], executable)
    texts = taken.words
    shortened = len(arguments) > MAX_ARGUMENTS or any(
        # A script's text of which only the beginning was read.
        len(before) > MAX_TEXT and after is not before and any(map(str.isspace, after))
        for before, after in zip(arguments, texts, strict=False)
    )
    left = RAW_LINE
    raw = []
    for argument in texts[:MAX_ARGUMENTS]:
        raw.append(argument[: min(RAW_ARGUMENT, max(left, MAX_ARGUMENT))])
        left -= len(raw[-1])
    kept = list(redacted(raw))
    for position, part in enumerate(raw):
        if len(part) < len(texts[position]):
            shortened = True
        elif not cut or position < len(raw) - 1:
            continue
        kept[position] = _without_cut_url(kept[position])
    bounded, is_cut = _bounded(kept, cut=cut or shortened)
    return SeenCommand(bounded, is_cut, _largest(taken.payloads, cut=cut))


def seen_joined_command(line: str, *, cut: bool = False, executable: str = "") -> SeenCommand:
    """Do the same for a command line whose arguments were joined by spaces: where one ends is not known.

    A value that is a secret goes on to the next word that looks like an option, a payload to its tool's next option.
    """
    cut = cut or len(line) > RAW_LINE
    taken = joined_without_payloads(line[:RAW_LINE], executable)
    payload = _largest(taken.payloads, cut=cut)
    cut = cut or taken.ambiguous
    text = _with_neither_calls_nor_urls(
        " ".join(taken.words) if taken.words != line[:RAW_LINE].split() else line[:RAW_LINE]
    )
    text = _ASSIGNED.sub(_assigned, _in_words(text, _JOINED_WORD, greedy=True))
    words = text.split()
    if cut and words:
        words[-1] = _without_cut_url(words[-1])
    bounded, cut = _bounded(words, cut=cut or len(words) > MAX_ARGUMENTS)
    return SeenCommand(bounded, cut, payload)


def _largest(payloads: Sequence[str], *, cut: bool) -> SeenPayload | None:
    if not payloads:
        return None
    data = _bytes(max(payloads, key=len))
    looks = measure(data, cut=cut)
    return SeenPayload(len(data), looks.entropy, looks.shape)


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # A surrogate that stands for no byte: escaped in JSON.
        return text.encode("utf-8", "replace")


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
    Where it could be a port it is one. Else all that follows is taken out, the host, too: some programs take `1883x`
    for a port (C's atoi), and an address must not be written so that another host seems to be meant. Of several `@`
    some programs take the first and some the last: two masks say so.
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
            kept += [run[at : colon + 1], MASK]
            quote = _QUOTE.search(run, last)
            at = len(run) if quote is None else quote.start()
            break
        if colon >= 0 and sign > colon:
            kept += [run[at : colon + 1], f"{MASK}@{MASK}" if "@" in run[colon:sign] else MASK]
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
