"""Reads command lines of programs that speak to publish/subscribe brokers: what they do, where, and on what name.

Read are the arguments as the program itself reads them; behind sudo, env, timeout and the like; in the text that a
shell is given with `-c`; and in the text of a script of Python (by its grammar), Perl, Ruby or Node.js. Payloads and
secrets were taken out before (`<payload>`, `***`).

What cannot be told from a command line: what configuration files, environment variables and script files say; what a
program does that has another name (of mosquitto's clients a copy is known where its arguments are unmistakable); what
flows into a program from another that is not in the same text; what variables hold that the text does not set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from topicwarden.events import MAX_ARGUMENT, MAX_ARGUMENTS, Process
from topicwarden.hosts.code import read_code
from topicwarden.hosts.commands_code import read_calls
from topicwarden.hosts.commands_mentions import may_matter, mentions
from topicwarden.hosts.commands_model import Command, Does
from topicwarden.hosts.commands_raw import read_device, read_raw
from topicwarden.hosts.commands_shell import MAX_DEPTH, Script
from topicwarden.hosts.commands_shell_words import Group, Simple, simples
from topicwarden.hosts.commands_targets import MASK, host_and_port, known, masked_protocol, port_of, protocol_of_bytes
from topicwarden.hosts.commands_tool import looks_like, read_tool
from topicwarden.hosts.commands_wrapped import INTERPRETERS, SHELLS, Started, script, started
from topicwarden.hosts.tools import RAW, TOOLS, program_name

__all__ = ["Command", "Does", "read_command"]

_MODULES: Final = {"stomp": "stomp", "amqtt.scripts.pub_script": "amqtt_pub", "amqtt.scripts.sub_script": "amqtt_sub"}
_NAMED: Final = {
    "mqtt": "mqtt", "paho": "mqtt", "mosquitto": "mqtt", "amqp": "amqp", "pika": "amqp", "rabbitmq": "amqp",
    "rabbit": "amqp", "stomp": "stomp", "xmpp": "xmpp", "slixmpp": "xmpp", "jabber": "xmpp",
}  # fmt: skip
"""Parts of a script's name that say what it speaks."""
_PUBLISHERS: Final = frozenset({"pub", "publish", "publisher", "send", "sender", "producer", "emit"})
_SUBSCRIBERS: Final = frozenset(
    {"sub", "subscribe", "subscriber", "listen", "listener", "consumer", "consume", "receive"}
)
_OTHERWISE: Final = frozenset(
    {"test", "tests", "setup", "install", "parse", "parser", "lint", "docs", "config", "build", "log"}
)
"""Parts of a script's name by which it may not connect to anything."""


def read_command(process: Process) -> Command | None:
    """Return what a process does at a broker as its arguments tell it; None when nothing in them is about one."""
    words = process.arguments[:MAX_ARGUMENTS]
    if not words or not may_matter(words, process.executable):
        return None
    command = _read(words, process.executable, cut=process.cut, depth=0)
    if command is None:
        return None
    payload = None if command.does in (Does.SUBSCRIBE, Does.MANAGE) else process.payload
    return replace(command, payload=payload, secret=any(MASK in word for word in words))


def _read(words: Sequence[str], executable: str, *, cut: bool, depth: int, fed: Sequence[str] = ()) -> Command | None:
    """Read the words of one command; `fed` are texts that flow into it."""
    found = started(words, executable)
    if found is None or found.remote:
        return None
    if found.text is not None:
        return _in_shell(found, cut=cut, depth=depth)
    if found.name in INTERPRETERS:
        return _interpreted(found, cut=cut, fed=fed)
    if found.name in SHELLS:
        read = (in_text(text, shell=found.name, depth=depth + 1) for text in fed if depth < MAX_DEPTH)
        return next((command for command in read if command is not None), None)
    cut = cut or found.template
    tool = TOOLS.get(found.name)
    if tool is None:
        tool = looks_like(found.words) if found.places[:1] == (0,) and not cut else None
        if tool is None:
            return None
    if tool.name in RAW:
        protocol = next((spoken for text in fed if (spoken := masked_protocol(text) or protocol_of_bytes(text))), None)
        return read_raw(tool, found.words, protocol=protocol, cut=cut)
    return read_tool(tool, found.words, cut=cut)


# Shells


def _in_shell(found: Started, *, cut: bool, depth: int) -> Command | None:
    if depth >= MAX_DEPTH or found.text is None:
        return None
    words = found.words
    text = words[found.text]
    if not mentions(words[found.text :]):
        return None
    if found.joined or not any(character.isspace() for character in text):
        # Of a line whose arguments were joined by spaces the text goes on to its end.
        text = " ".join(words[found.text :])
    if len(text) <= MAX_ARGUMENT * 4 and not cut and len(words[found.text]) < MAX_ARGUMENT:
        return in_text(text, shell=found.name, depth=depth + 1)
    return in_text(text, shell=found.name, depth=depth + 1, cut=True)


def in_text(text: str, *, shell: str, depth: int = 1, cut: bool = False) -> Command | None:
    """Return what a shell's text does at a broker: what the shell does itself, else the first that its programs do."""
    best: Command | None = None
    own = shell if shell in SHELLS else "sh"
    for simple, upstream in commands(Script(text[: 16 * MAX_ARGUMENT], depth=0)):
        fed = [*upstream, *(redirect.word.text for redirect in simple.redirects if redirect.operator == "<<<")]
        fed += [text[slice(*redirect.body)] for redirect in simple.redirects if redirect.body is not None]
        for redirect in simple.redirects:
            sent = [word.text for word in simple.words[1:]]
            protocol = next((one for one in map(masked_protocol, sent) if one), None)
            protocol = protocol or next((one for one in map(protocol_of_bytes, sent) if one), None)
            command = read_device(redirect.word.text, shell=own, protocol=protocol)
            if command is not None:
                return replace(command, shell=True)  # noqa: S604 - a field of ours
        words = [word.text for word in simple.words]
        last = cut and simple.ends >= len(text)
        command = _read(words, "", cut=last, depth=depth, fed=fed)
        if command is None:
            continue
        command = _without_unknown(command, simple)
        if best is None or (best.does is Does.CONNECT and not best.raw and command.does is not Does.CONNECT):
            best = replace(command, shell=True)  # noqa: S604
    return best


def _without_unknown(command: Command, simple: Simple) -> Command:
    """Leave out what holds a variable or the output of a program: it is not what the tool is given."""
    unknown = [word.text for word in simple.words if not word.literal]
    if not unknown:
        return command
    names = tuple(name for name in command.names if not any(name in text for text in unknown))
    return replace(command, names=names)


def commands(script: Script) -> Iterator[tuple[Simple, list[str]]]:
    """Yield the simple commands of a shell's text, each with the words of those that flow into it."""
    for pipeline in script.pipelines():
        upstream: list[str] = []
        for part in pipeline:
            below = list(simples(part))
            if isinstance(part, Simple):
                yield part, upstream[:64]
            else:
                for simple in below:
                    if upstream and simple.words:
                        yield simple, upstream[:64]
            for simple in below[:64]:
                upstream += [word.text for word in simple.words[1:17]]
            for redirect in part.redirects if isinstance(part, Group) else ():
                if redirect.operator == "<<<":
                    upstream.append(redirect.word.text)


# Scripts


def _interpreted(found: Started, *, cut: bool, fed: Sequence[str] = ()) -> Command | None:
    runs = script(found.name, found.words)
    python = found.name in ("python", "pypy")
    tool = "python" if python else found.name
    if runs is None:
        # It reads its script from its input.
        return next((command for text in fed if (command := read_calls(tool, read_code(text, python=python)))), None)
    kind, place, start = runs
    if place >= len(found.words):
        return None
    words = found.words[place:]
    if kind == "code":
        return _code(tool, found.words, place, start, python=python)
    name = words[0][start:]
    if kind == "module":
        known_as = _MODULES.get(name)
        if known_as is not None:
            return read_tool(TOOLS[known_as], [known_as, *words[1:]], cut=cut)
        return _by_name(tool, name.rpartition(".")[2] if "." in name else name, words[1:])
    program = program_name(name)
    if program in TOOLS:
        return _read([program, *words[1:]], "", cut=cut, depth=1)
    return _by_name(tool, program.partition(".")[0], words[1:])


def _code(tool: str, words: Sequence[str], place: int, start: int, *, python: bool) -> Command | None:
    text = words[place][start:]
    modules = " ".join(words[1:place]) if tool == "perl" else ""
    texts = [text]
    if place + 1 < len(words):
        # Of words that were joined by spaces the text goes on to the end of the line; a text of one word is rare.
        joined = " ".join((text, *words[place + 1 :]))
        texts = [text, joined] if any(character.isspace() for character in text) else [joined, text]
    read = (read_calls(tool, read_code(one, python=python, modules=modules)) for one in texts)
    return next((command for command in read if command is not None), None)


def _by_name(tool: str, name: str, words: Sequence[str]) -> Command | None:
    """Return what a script must do by its name; where, as far as usual names of its options tell."""
    parts = re.split(r"[^a-z0-9]+", name.lower())
    protocol = next((_NAMED[part] for part in parts if part in _NAMED), None)
    if protocol is None or not _OTHERWISE.isdisjoint(parts):
        return None
    does = Does.CONNECT
    if not _PUBLISHERS.isdisjoint(parts):
        does = Does.PUBLISH
    elif not _SUBSCRIBERS.isdisjoint(parts):
        does = Does.SUBSCRIBE
    host, port, names = None, None, []
    for word, following in zip(words, [*words[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        value = value if equals else following
        if option in ("--host", "--broker", "--server", "--hostname", "-h", "-H") and value and value[0] != "-":
            target = host_and_port(value.rpartition("://")[2].rpartition("@")[2].partition("/")[0])
            host, port = known(target.host or ""), target.port or port
        elif option in ("--port", "-p"):
            port = port_of(value)
        elif option in ("--topic", "-t", "--queue", "--routing-key", "--destination") and value:
            names.append(value)
    return Command(tool, does, protocol, host, port, tuple(names)[:16])
