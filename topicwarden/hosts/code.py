"""Reads a script's text: what it imports and which calls it makes with which constants.

Python that is whole is read by its own grammar (`ast`). What is cut, had secrets taken out of it or is of another
language is scanned for calls, with quotes and brackets respected. Nothing is evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Final

from topicwarden.hosts.code_model import MAX_ARGUMENTS, MAX_CALLS, MAX_LITERALS, READERS, Call, Literal, Value
from topicwarden.hosts.code_scan import scanned_calls

MAX_CODE: Final = 16384
"""Characters of a script that are read."""
_MAX_DEPTH: Final = 8

LIBRARIES: Final[Mapping[str, tuple[str, str]]] = {
    **{
        name: (name, "mqtt")
        for name in ("paho", "gmqtt", "hbmqtt", "amqtt", "asyncio_mqtt", "aiomqtt", "umqtt", "mqtt")
    },
    **{name: (name, "mqtt") for name in ("awsiotsdk", "AWSIoTPythonSDK", "mosquitto", "async-mqtt")},
    **{
        name: (name, "amqp")
        for name in ("pika", "aio_pika", "aiormq", "kombu", "amqp", "amqpstorm", "rabbitpy", "puka", "librabbitmq")
    },
    **{name: (name, "amqp") for name in ("amqplib", "bunny", "proton", "rhea")},
    **{name: (name, "stomp") for name in ("stomp", "stompest", "stompjs", "stompit")},
    **{
        name: (name, "xmpp")
        for name in ("slixmpp", "sleekxmpp", "xmpp", "aioxmpp", "nbxmpp", "pyxmpp2", "xmpp4r", "blather")
    },
    "Net::MQTT": ("Net::MQTT", "mqtt"),
    "AnyEvent::MQTT": ("AnyEvent::MQTT", "mqtt"),
    "Net::AMQP": ("Net::AMQP", "amqp"),
    "Net::RabbitMQ": ("Net::RabbitMQ", "amqp"),
    "AnyEvent::RabbitMQ": ("AnyEvent::RabbitMQ", "amqp"),
    "Net::Stomp": ("Net::Stomp", "stomp"),
    "Net::STOMP": ("Net::STOMP", "stomp"),
    "Net::XMPP": ("Net::XMPP", "xmpp"),
    "Net::Jabber": ("Net::Jabber", "xmpp"),
    "@xmpp/client": ("@xmpp/client", "xmpp"),
}
"""Modules that speak to brokers, by the first part of their name; and what they speak."""

_IMPORT: Final = re.compile(
    r"""(?:\bfrom\s+['"]?|\brequire\s*\(?\s*['"]?|\buse\s+|\b__import__\s*\(\s*['"]|\bimport_module\s*\(\s*['"]"""
    r"""|\bimport\s+(?:[\w.]{1,60}(?:\s+as\s+\w{1,60})?\s*,\s*){0,8}['"]?)([@A-Za-z_][\w.:/@-]{1,60})"""
)
_PERL: Final = re.compile(r"[A-Z][A-Za-z]{1,20}::[A-Z][A-Za-z]{1,20}")
_UNSAFE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\(?![\n\r'\"\\abfnrtvxuUN0-7])|[0-9](?:and|else|for|if|in|is|not|or)\b")
"""What makes Python's parser warn: such texts are scanned, so that no text writes to our standard error."""
_MASK_IN_CODE: Final = re.compile(r"(?<=[(,=:\s\[{])\*\*\*(?=[\s,)\]};]|$)")


@dataclass(frozen=True, slots=True)
class Code:
    """A script, read."""

    library: str | None
    protocol: str | None
    """What the library speaks."""
    sockets: bool
    """Whether it opens connections without one."""
    calls: tuple[Call, ...]
    addresses: tuple[str, ...]
    """Texts in it that are addresses with a scheme."""
    partial: bool = False
    """Whether there is more in it than was read."""


@lru_cache(maxsize=64)
def read_code(text: str, *, python: bool = True, modules: str = "") -> Code:
    """Return what a script imports and calls; `modules` are those that are named outside of it."""
    partial = len(text) > MAX_CODE
    text = text[:MAX_CODE]
    if modules:
        # Perl's `-MNet::Stomp`.
        modules = re.sub(r"(?:^|\s)-[mM]", " use ", modules[:MAX_CODE])
    library, protocol = _library(f"{text} {modules}" if modules else text)
    sockets = (
        re.search(r"\bsocket\b|\bTCPSocket\b|\bopen_connection\b|\bIO::Socket\b|['\"](?:node:)?(?:net|tls)['\"]", text)
        is not None
    )
    if library is None and not sockets:
        return Code(None, None, False, (), ())
    calls = _by_grammar(text) if python else None
    if calls is None:
        calls = scanned_calls(text)
    addresses = tuple(match[1] for match in re.finditer(r"[\"'`]([A-Za-z][A-Za-z+]{2,10}://[^\s\"'`]{1,500})", text))[
        :16
    ]
    partial = partial or len(calls) >= MAX_CALLS or any(_is_full(call) for call in calls)
    return Code(library, protocol, sockets, calls, addresses, partial)


def _is_full(call: Call) -> bool:
    """Whether a call may have more arguments, or an argument more texts, than were read."""
    values = [*call.arguments, *call.named.values()]
    return len(values) >= MAX_ARGUMENTS or any(len(value.literals) >= MAX_LITERALS for value in values)


def _library(text: str) -> tuple[str | None, str | None]:
    for pattern in (_IMPORT, _PERL):
        for match in pattern.finditer(text):
            # Of `import a, b` the pattern takes the last; all before it are looked at, too.
            for found in re.split(r"[\s,'\"(]+", match[0]):
                for name in (found, "::".join(found.split("::")[:2]), re.split(r"[./]", found)[0]):
                    if name in LIBRARIES:
                        return LIBRARIES[name]
    return None, None


def _by_grammar(text: str) -> tuple[Call, ...] | None:
    """Return the calls of a Python script, None when it cannot be parsed."""
    if _UNSAFE.search(text) is not None or "\0" in text:
        return None
    # Secrets were replaced without quotes; as many characters keep every place.
    source = _MASK_IN_CODE.sub("'*'", text)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tuple(_Tree(text, tree).calls())


class _Tree:
    def __init__(self, text: str, tree: ast.Module) -> None:
        self._text = text
        self._lines = [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", text))]
        self._ascii = text.isascii()
        self._nodes = list(_walk(tree))
        self._set: dict[str, list[ast.expr]] = {}
        for node in self._nodes:
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self._set.setdefault(target.id, []).append(node.value)

    def calls(self) -> Iterator[Call]:
        left = MAX_CALLS
        for node in self._nodes:
            if not isinstance(node, ast.Call):
                continue
            name = _called(node)
            if not name:
                continue
            left -= 1
            if left < 0:
                break
            arguments = tuple(self._value(one) for one in node.args[:MAX_ARGUMENTS] if not isinstance(one, ast.Starred))
            named = {one.arg: self._value(one.value) for one in node.keywords[:MAX_ARGUMENTS] if one.arg is not None}
            yield Call(name, arguments, named)

    def _value(self, node: ast.expr, depth: int = 0) -> Value:
        literals = tuple(islice(self._literals(node), MAX_LITERALS))
        if isinstance(node, ast.Name):
            known = self._set.get(node.id, [])
            if depth < _MAX_DEPTH and len(known) == 1:
                return self._value(known[0], depth + 1)
            return Value(literals=literals)
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                return Value(node.value, literals=literals)
            if isinstance(node.value, bytes):
                return Value(_text(node.value), literals=literals)
            if isinstance(node.value, int) and not isinstance(node.value, bool):
                return Value(number=node.value)
        if isinstance(node, ast.Tuple | ast.List) and depth < _MAX_DEPTH:
            return Value(items=tuple(self._value(one, depth + 1) for one in node.elts[:32]), literals=literals)
        return Value(literals=literals)

    def _literals(self, node: ast.expr) -> Iterator[Literal]:
        """Yield the texts within an expression, and within what its variables are set to."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "encode":
            node = node.func.value
        whole = node
        if isinstance(node, ast.Name) and len(self._set.get(node.id, ())) == 1:
            whole = self._set[node.id][0]
        waiting: list[tuple[ast.AST, int]] = [(node, 0)]
        seen = 0
        while waiting and seen < 1024:
            one, depth = waiting.pop()
            seen += 1
            if isinstance(one, ast.JoinedStr):
                parts = [part.value for part in one.values if isinstance(part, ast.Constant)]
                yield self._literal(one, "".join(part for part in parts if isinstance(part, str)))
                continue
            if isinstance(one, ast.Constant):
                if isinstance(one.value, str):
                    yield self._literal(one, one.value, whole=one is whole)
                elif isinstance(one.value, bytes):
                    yield self._literal(one, _text(one.value), whole=one is whole)
                continue
            if isinstance(one, ast.Call) and _called(one) in READERS:
                continue
            if isinstance(one, ast.Name) and depth < 3:
                waiting += [(value, depth + 1) for value in self._set.get(one.id, [])[:8]]
            waiting += [
                (child, depth) for child in ast.iter_child_nodes(one) if isinstance(child, ast.expr | ast.keyword)
            ]

    def _literal(self, node: ast.Constant | ast.JoinedStr, value: str, *, whole: bool = False) -> Literal:
        start, end = (
            self._place(node.lineno, node.col_offset),
            self._place(node.end_lineno or 1, node.end_col_offset or 0),
        )
        match = re.match(r"[A-Za-z]{0,2}(?:\"\"\"|'''|\"|')", self._text[start : start + 6])
        return Literal(start, end, value, match[0] if match is not None else "'", whole)

    def _place(self, line: int, column: int) -> int:
        """Return the character at a line and a column in bytes."""
        start = self._lines[min(line - 1, len(self._lines) - 1)]
        if self._ascii:
            return start + column
        return start + len(self._text[start : start + column].encode()[:column].decode(errors="ignore"))


def _called(node: ast.Call) -> str:
    """Return the last part of what is called."""
    called = node.func
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def _text(data: bytes) -> str:
    """Return bytes as a text that is these bytes in UTF-8."""
    return data.decode("utf-8", "surrogateescape")


def _walk(tree: ast.Module) -> Iterable[ast.AST]:
    """Return the nodes of a tree in the order in which they stand in the text."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += reversed(list(ast.iter_child_nodes(node)))
    return found
