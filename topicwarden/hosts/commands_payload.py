"""Takes payloads out of command lines: what is sent is measured at the door and never stored.

Replaced by `<payload>` are: values of options that are a payload to the tool they are given to; what a shell's text
echoes or prints into a pipe to such a tool, or into a connection, its here-documents, and variables it sets for that;
constant texts that a script passes to calls that send. Where a conversation begins in the protocol of a broker, the
mark says in which (`<payload:xmpp>`).

What stays: payloads made by other programs than those of the table, given in their arguments; file names; properties
and headers of messages. A program in a pipe whose own process is told, too, does not know the pipe.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from topicwarden.hosts.code import MAX_CODE, read_code
from topicwarden.hosts.code_model import Literal
from topicwarden.hosts.commands_code import payload_literals
from topicwarden.hosts.commands_mentions import may_matter, mentions
from topicwarden.hosts.commands_model import Does
from topicwarden.hosts.commands_options import Given, given
from topicwarden.hosts.commands_raw import socat_addresses
from topicwarden.hosts.commands_shell import MAX_DEPTH, Script
from topicwarden.hosts.commands_shell_words import Group, Redirect, Simple, Word, simples, unescaped, variables
from topicwarden.hosts.commands_targets import MASK, PAYLOAD, protocol_of_bytes
from topicwarden.hosts.commands_tool import looks_like, read_tool
from topicwarden.hosts.commands_wrapped import INTERPRETERS, SHELLS, Started, script, started
from topicwarden.hosts.tools import RAW, TOOLS, Tool, program_name
from topicwarden.hosts.tools_grammar import Means

MASKED: Final = re.compile(r"<payload(?::[a-z]{1,8})?>")
_SAYS: Final = frozenset({"echo", "printf", "yes"})
_HAS_LITERALS: Final = frozenset({"awk", "gawk", "mawk", "jq", "perl", "python", "ruby", "node", "php"})
_PASSES: Final = frozenset({"cat", "tee", "head", "tail"})
_ECHO_OPTION: Final = re.compile(r"-[neE]+")
_QUOTED: Final = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.DOTALL)
_PLAIN: Final = re.compile(r"(?:[\w@%+=:,./-]|<payload(?::[a-z]{1,8})?>|\*\*\*)+", re.ASCII)
MAX_TEXT: Final = MAX_CODE
"""Characters of a shell's or script's text that are read; what follows is taken out where any of it may be sent."""
_COMMAND_OPTIONS: Final = frozenset({"-c", "-e", "--sh-exec", "--exec"})
_SOCAT_COMMAND: Final = re.compile(r"(?:system|exec|shell):", re.IGNORECASE)


@dataclass(slots=True)
class Taken:
    """A command line without payloads."""

    words: list[str]
    payloads: list[str] = field(default_factory=list)
    """What was taken out, as far as it is what will be sent."""
    ambiguous: bool = False
    """Whether, its arguments joined by spaces, a word may belong to a payload or be an option that counts."""


def without_payloads(words: Sequence[str], executable: str = "") -> Taken:
    """Return the arguments of a command line without payloads; the first names the program."""
    taken = Taken(list(words))
    if words and may_matter(words, executable):
        for place, text in _edits(words, executable, taken.payloads, depth=0).items():
            taken.words[place] = text
    return taken


def is_payload(one: Given, tool: Tool) -> bool:
    """Whether something is a payload that is to be taken out; curl may be given a file's name for one."""
    if one.means is not Means.PAYLOAD or one.missing or MASKED.fullmatch(one.value) is not None:
        return False
    return not (tool.name == "curl" and one.value.startswith("@"))


def sends(tool: Tool, words: Sequence[str]) -> bool:
    """Whether a tool's payload options mean one: curl's do only where it speaks MQTT or publishes."""
    return tool.name != "curl" or read_tool(tool, words, cut=False) is not None


# Arguments


def _edits(
    words: Sequence[str], executable: str, payloads: list[str], *, depth: int, feeds: bool = False
) -> dict[int, str]:
    """Return which words of a command line are to be replaced, and by what."""
    found = started(words, executable)
    if found is None:
        return _anywhere(words, {})
    if found.text is not None:
        if depth >= MAX_DEPTH:
            return {found.text: PAYLOAD} if mentions(words[found.text :]) else {}
        return _shell(found, payloads if not found.remote else [], depth=depth, feeds=feeds)
    if found.name in INTERPRETERS:
        return _interpreted(found, payloads, feeds=feeds)
    tool = TOOLS.get(found.name)
    if tool is None and found.places[:1] == (0,):
        tool = looks_like(found.words)
    if tool is None:
        return _anywhere(words, {})
    edits = {}
    # What xargs is given is a pattern of what will be sent.
    for place, text in _tool_edits(tool, found.words, [] if found.template else payloads, depth=depth).items():
        edits[found.places[place]] = text
    return edits


def _tool_edits(tool: Tool, words: Sequence[str], payloads: list[str], *, depth: int) -> dict[int, str]:
    edits: dict[int, str] = {}
    if tool.name in RAW:
        if tool.name == "socat":
            for address in socat_addresses(words):
                match = _SOCAT_COMMAND.match(address)
                if match is not None and depth < MAX_DEPTH:
                    text = shell_text(address[match.end() :], payloads, depth=depth + 1, feeds=True)
                    edits[list(words).index(address, 1)] = match[0] + text
            return edits
        for one in given(words, tool):
            if one.name in _COMMAND_OPTIONS and one.value and depth < MAX_DEPTH and tool.name != "telnet":
                text = shell_text(one.value, payloads, depth=depth + 1, feeds=True)
                edits[one.place] = words[one.place][: one.start] + text
        return edits
    if not sends(tool, words):
        return edits
    for one in given(words, tool):
        if is_payload(one, tool):
            payloads.append(one.value)
            edits[one.place] = words[one.place][: one.start] + PAYLOAD
    return edits


def _anywhere(words: Sequence[str], edits: dict[int, str]) -> dict[int, str]:
    """Take out payloads behind programs that are not known to start others; they are not measured."""
    for place in range(1, len(words)):
        tool = TOOLS.get(program_name(words[place]))
        if tool is None or tool.name in RAW or tool.name == "curl":
            continue
        for inner, text in _tool_edits(tool, words[place:], [], depth=MAX_DEPTH).items():
            edits.setdefault(place + inner, text)
        break
    return edits


def _shell(found: Started, payloads: list[str], *, depth: int, feeds: bool) -> dict[int, str]:
    words, place = found.words, found.text
    if place is None:
        return {}
    if found.joined:
        rest = [words[place]] if len(words) == place + 1 else list(words[place:])
        if len(rest) > 1:
            inner = _edits(rest, "", payloads, depth=depth + 1, feeds=feeds)
            return {place + at: text for at, text in inner.items()}
    text = shell_text(words[place], payloads, depth=depth + 1, feeds=feeds)
    return {place: text} if text != words[place] else {}


def _interpreted(found: Started, payloads: list[str], *, feeds: bool) -> dict[int, str]:
    runs = script(found.name, found.words)
    if runs is None or runs[1] >= len(found.words):
        return {}
    kind, place, start = runs
    word = found.words[place]
    if kind == "code":
        modules = " ".join(found.words[1:place]) if found.name == "perl" else ""
        text = script_text(word[start:], found.name, payloads, modules)
        if feeds:
            text = _without_literals(text)
        return {found.places[place]: word[:start] + text} if text != word[start:] else {}
    name = program_name(word[start:])
    tool = TOOLS.get(name)
    if tool is not None and tool.name not in RAW:
        inner = _tool_edits(tool, found.words[place:], payloads, depth=MAX_DEPTH)
        return {found.places[place + at]: text for at, text in inner.items() if at}
    if not mentions((word,)):
        return {}
    # A script whose name says that it publishes: its payload, by the usual names of such options.
    edits = {}
    for at in range(place + 1, len(found.words)):
        option, equals, value = found.words[at].partition("=")
        if option not in ("-m", "--message", "--payload", "--msg", "--body", "--data"):
            continue
        if not equals and at + 1 < len(found.words):
            value = found.words[at + 1]
        if value and MASKED.fullmatch(value) is None:
            payloads.append(value)
            edits[found.places[at if equals else at + 1]] = f"{option}={PAYLOAD}" if equals else PAYLOAD
    return edits


# Scripts


def script_text(text: str, interpreter: str, payloads: list[str], modules: str = "") -> str:
    """Return a script without the constants it sends."""
    if not mentions((text, modules)):
        return text
    code = read_code(text, python=interpreter in ("python", "pypy"), modules=modules)
    if code.library is None and not code.sockets:
        return text
    literals = {literal.start: (literal, secret) for literal, secret in payload_literals(code) if literal.value}
    edits = []
    for literal, secret in literals.values():
        if secret:
            edits.append((literal.start, literal.end, MASK))
        elif MASKED.fullmatch(literal.value) is None:
            if literal.whole:
                payloads.append(literal.value)
            edits.append((literal.start, literal.end, _replaced(literal, raw=code.protocol is None)))
    edited = _edited(text, edits)
    return _without_literals(edited[:MAX_TEXT]) if code.partial else edited


def _replaced(literal: Literal, *, raw: bool) -> str:
    quote = re.sub(r"[A-Za-z]", "", literal.prefix) or "'"
    prefix = literal.prefix[: -len(quote)].replace("f", "").replace("F", "")
    return f"{prefix}{quote}{_mark(literal.value, raw=raw)}{quote}"


def _mark(text: str, *, raw: bool) -> str:
    protocol = protocol_of_bytes(text) if raw else None
    return PAYLOAD if protocol is None else f"<payload:{protocol}>"


def _without_literals(text: str) -> str:
    return _QUOTED.sub(lambda match: match[0][0] + _mark(match[0], raw=True) + match[0][0], text)


def _edited(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """Return a text with parts replaced; of two that overlap the longer one counts."""
    kept, at = [], 0
    for start, end, replacement in sorted(edits, key=lambda edit: (edit[0], -edit[1])):
        if start < at:
            continue
        kept += [text[at:start], replacement]
        at = end
    return "".join((*kept, text[at:]))


# Shells


def shell_text(text: str, payloads: list[str], *, depth: int, feeds: bool = False) -> str:
    """Return a shell's text without payloads; `feeds`: what it writes is one as a whole."""
    if not feeds and not mentions((text,)):
        return text
    return _Shell(text[:MAX_TEXT], payloads, depth).edited(feeds=feeds)


class _Shell:
    def __init__(self, text: str, payloads: list[str], depth: int) -> None:
        self._script = Script(text)
        self._text = text
        self._payloads = payloads
        self._depth = depth
        self._edits: list[tuple[int, int, str]] = []
        self._variables: set[str] = set()
        self._loops: list[Simple] = []

    def edited(self, *, feeds: bool) -> str:
        device = re.search(r"/dev/tcp/", self._text) is not None
        for pipeline in self._script.pipelines():
            last = False
            for place in range(len(pipeline) - 1, -1, -1):
                part = pipeline[place]
                consumer = self._consumes(part)
                if isinstance(part, Simple) and self._program_from_input(part, pipeline[place - 1] if place else None):
                    last = True
                elif consumer is not None:
                    raw, exact = consumer
                    # What flows into the last flows through all before it.
                    for before in () if last else range(place):
                        self._produce(pipeline[before], pipeline[before + 1 : place], raw=raw, exact=exact)
                    self._input(part, raw=raw, exact=exact)
                    last = True
                if feeds:
                    self._produce(part, pipeline[place + 1 :], raw=True, exact=True)
            for part in pipeline:
                if isinstance(part, Simple):
                    self._simple(part, device=device)
        self._assigned()
        for start, end in self._script.unread:
            if mentions((self._text,)):
                self._edits.append((start, end, PAYLOAD))
        return _edited(self._text, self._edits)

    def _simple(self, simple: Simple, *, device: bool) -> None:
        if simple.words and simple.words[0].text == "for":
            self._loops.append(simple)
            return
        if device and any(_is_device(redirect) for redirect in simple.redirects):
            self._say(simple, [], raw=True, exact=True)
            self._input(simple, raw=True, exact=True)
        words = [word.text for word in simple.words]
        if not words:
            return
        found: list[str] = []
        unsure: list[str] = []
        for place, text in _edits(words, "", found, depth=self._depth).items():
            word = simple.words[place]
            self._edits.append((word.start, word.end, _quoted(text)))
            self._variables |= variables(self._text[word.start : word.end])
            if not word.literal:
                unsure.append(word.text)
        # What holds a variable or a program's output is not what will be sent.
        self._payloads += [text for text in found if not any(text in word for word in unsure)]

    def _program_from_input(self, simple: Simple, before: Simple | Group | None) -> bool:
        """Take payloads out of the program that a shell or an interpreter reads from its input, if it does."""
        found = started([word.text for word in simple.words])
        if found is None or found.text is not None:
            return False
        shell = found.name in SHELLS
        if not shell and (found.name not in INTERPRETERS or script(found.name, found.words) is not None):
            return False

        def edited(text: str) -> str:
            if shell:
                return shell_text(text, self._payloads, depth=self._depth + 1) if self._depth < MAX_DEPTH else PAYLOAD
            return script_text(text, found.name, self._payloads)

        for redirect in simple.redirects:
            if redirect.body is not None:
                start, end = redirect.body
                self._edits.append((start, end, edited(self._text[start:end])))
            elif redirect.operator == "<<<":
                self._edits.append((redirect.word.start, redirect.word.end, _quoted(edited(redirect.word.text))))
        if isinstance(before, Simple) and len(before.words) > 1 and before.words[0].text in _SAYS:
            word = before.words[-1]
            self._edits.append((word.start, word.end, _quoted(edited(word.text))))
        return True

    def _consumes(self, part: Simple | Group) -> tuple[bool, bool] | None:
        """Return whether a part of a pipeline sends its input: as bytes (raw), and whether that is certain (exact)."""
        for simple in simples(part):
            words = [word.text for word in simple.words]
            if not words or not mentions(words):
                continue
            found = started(words)
            if found is not None and found.text is None and not found.remote:
                tool = TOOLS.get(found.name)
                if tool is not None and (tool.name in RAW or tool.does is not Does.SUBSCRIBE or tool.name == "curl"):
                    return tool.name in RAW, tool.does in (Does.PUBLISH, Does.BOTH) or tool.name in RAW
                if found.name in INTERPRETERS:
                    return True, False
            if any((tool := TOOLS.get(program_name(word))) and tool.does is not Does.SUBSCRIBE for word in words[1:]):
                return False, False
            if found is not None and found.text is not None and mentions(words[found.text :]):
                return True, False
        return None

    def _produce(self, part: Simple | Group, stages: Sequence[Simple | Group], *, raw: bool, exact: bool) -> None:
        """Take out what a part of a pipeline writes into what follows."""
        for simple in simples(part):
            self._say(simple, stages, raw=raw, exact=exact)
        self._input(part, raw=raw, exact=exact and not stages)
        if isinstance(part, Group):
            for simple in simples(part):
                self._input(simple, raw=raw, exact=exact and not stages)

    def _say(self, simple: Simple, stages: Sequence[Simple | Group], *, raw: bool, exact: bool) -> None:
        if not simple.words:
            return
        found = started([word.text for word in simple.words])
        if found is None:
            return
        if found.text is not None and self._depth < MAX_DEPTH:
            word = simple.words[found.text]
            text = shell_text(word.text, self._payloads if exact else [], depth=self._depth + 1, feeds=True)
            self._edits.append((word.start, word.end, _quoted(text)))
            return
        operands = [simple.words[place] for place in found.places[1:]]
        if found.name in _HAS_LITERALS:
            for word in operands:
                text = _without_literals(word.text)
                if text != word.text:
                    self._edits.append((word.start, word.end, _quoted(text)))
            return
        if found.name not in _SAYS:
            return
        options = ""
        while found.name == "echo" and operands and _ECHO_OPTION.fullmatch(operands[0].text):
            options += operands.pop(0).text
        if not operands:
            return
        text = " ".join(word.text for word in operands)
        if MASKED.fullmatch(text):
            return
        start, end = operands[0].start, operands[-1].end
        self._edits.append((start, end, _mark(text, raw=raw)))
        self._variables |= variables(self._text[start:end])
        if exact and all(word.literal for word in operands):
            if found.name == "printf" or "e" in options:
                text = unescaped(text)
            sent = _through(text, stages, newline=found.name == "echo" and "n" not in options)
            if sent is not None:
                self._payloads.append(sent)

    def _input(self, part: Simple | Group, *, raw: bool, exact: bool) -> None:
        """Take out here-documents and here-strings."""
        for redirect in part.redirects:
            if redirect.body is not None:
                start, end = redirect.body
                body = self._text[start:end]
                if MASKED.fullmatch(body.strip()):
                    continue
                self._edits.append((start, end, _mark(body, raw=raw) + ("\n" if body.endswith("\n") else "")))
                self._variables |= variables(body)
                if exact:
                    self._payloads.append(body.removesuffix("\n"))
            elif redirect.operator == "<<<" and not MASKED.fullmatch(redirect.word.text):
                word = redirect.word
                self._edits.append((word.start, word.end, _mark(word.text, raw=raw)))
                self._variables |= variables(self._text[word.start : word.end])
                if exact and word.literal:
                    self._payloads.append(word.text)

    def _assigned(self) -> None:
        """Take out what variables are set to that are sent."""
        for name, start, end in self._script.assignments:
            if name in self._variables and start < end and not MASKED.fullmatch(self._text[start:end]):
                self._edits.append((start, end, PAYLOAD))
        for simple in self._loops:
            words: list[Word] = simple.words
            if len(words) > 3 and words[1].text in self._variables:
                self._edits.append((words[3].start, words[-1].end, PAYLOAD))


def _quoted(text: str) -> str:
    """Return a text as one word of a shell, with the quotes that are easiest to read."""
    if _PLAIN.fullmatch(text):
        return text
    if "'" in text and not any(character in text for character in '"$`\\!'):
        return f'"{text}"'
    return shlex.quote(text)


def _is_device(redirect: Redirect) -> bool:
    text = redirect.word.text
    return text.startswith("/dev/tcp/") or (redirect.operator == ">&" and text.isdigit() and int(text[:4]) > 2)


def _through(text: str, stages: Sequence[Simple | Group], *, newline: bool) -> str | None:
    """Return what a text becomes on its way through programs, None when that is not known."""
    for stage in stages:
        name = _stage(stage)
        if name in _PASSES:
            continue
        if name != "base64":
            return None
        if newline:
            text += "\n"
        text = base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
        newline = False
    return text


def _stage(part: Simple | Group) -> str:
    if isinstance(part, Group) or not part.words:
        return ""
    words = [word.text for word in part.words]
    plain = all(word in ("-w0", "-w", "0", "-") for word in words[1:])
    return program_name(words[0]) if plain or words[0] != "base64" else ""
