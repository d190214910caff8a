"""From the text of a file that people write to its model, or to all of its problems at once, each with its line.

Policies are read here, and, with a `FileKind` of their own, other files in the same manner.
"""

from __future__ import annotations

import re
import types
from collections import abc
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Generic, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.policy.fields import near
from topicwarden.policy.model import Policy
from topicwarden.policy.strict import Strict
from topicwarden.policy.values import RefusedError, shown
from topicwarden.policy.yaml_tree import Mapping, Node, Scalar, Sequence, read_tree

MAX_BYTES: Final = 4 << 20
"""Largest policy file."""
MAX_PROBLEMS: Final = 1000
"""Problems listed one by one; the rest are counted."""

Where = tuple[str | int, ...]
"""A place in the file: keys and list positions from the top."""
Model = TypeVar("Model", bound=Strict)


@dataclass(frozen=True, slots=True)
class FileKind(Generic[Model]):
    """A kind of file that people write."""

    model: type[Model]
    noun: str
    """What it is called in messages: `policy`."""
    smallest: str
    """How the smallest one begins, as a hint."""


POLICY: Final = FileKind(Policy, "policy", "the smallest policy is the one line topicwarden: 1")


class PolicyLines:
    """Where the parts of a policy stand in its file."""

    def __init__(self, file: str, tree: Mapping) -> None:
        self.file = file
        self._tree = tree

    def of(self, *where: str | int) -> int:
        """Return the line (1-based) of what stands there: `of("roles", "sensor", "publish", 0)`.

        What is not written has the line of the nearest part around it. What an alias stands for has the line of the
        anchor.
        """
        return _find(self._tree, where)[2]


def load_policy(path: Path, known_findings: Collection[str] | None = None) -> Policy:
    """Read a policy file; raises ConfigurationError with every problem of the file, sorted by line.

    `known_findings`: the codes and dotted names that exceptions may name; None leaves them unchecked.
    """
    return load_policy_with_lines(path, known_findings)[0]


def load_policy_with_lines(path: Path, known_findings: Collection[str] | None = None) -> tuple[Policy, PolicyLines]:
    """Read a policy file, and where its parts stand; raises as `load_policy` does."""
    return parse_policy_with_lines(read_text(path, POLICY.noun), str(path), known_findings)


def read_text(path: Path, noun: str) -> str:
    """Return a file's text; what is too large comes back as text that is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            Problem(
                f"cannot read the {noun}: {error.strerror or error}",
                str(path),
                hint="check the path and its permissions",
            )
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(data) <= MAX_BYTES:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigurationError(
                Problem(f"byte 0x{data[error.start]:02x} is not UTF-8", str(path), line, "save the file as UTF-8")
            ) from error
        text = " " * len(data)
    return text


def parse_policy(text: str, file: str, known_findings: Collection[str] | None = None) -> Policy:
    """Read a policy from text; `file` is its name in messages. Raises as `load_policy` does."""
    return parse_policy_with_lines(text, file, known_findings)[0]


def parse_policy_with_lines(
    text: str, file: str, known_findings: Collection[str] | None = None
) -> tuple[Policy, PolicyLines]:
    """Read a policy from text, and where its parts stand; raises as `load_policy` does."""
    policy, tree = parse_file(text, file, POLICY, {"known_findings": known_findings})
    return policy, PolicyLines(file, tree)


def parse_file(text: str, file: str, kind: FileKind[Model], context: dict[str, Any]) -> tuple[Model, Mapping]:
    """Read a file of some kind from text; returns its model and tree. Raises as `load_policy` does.

    `context`: what the model's validators may ask for.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise ConfigurationError(Problem("holds a lone surrogate: not UTF-8", file, line)) from error
    if size > MAX_BYTES:
        raise ConfigurationError(Problem(f"a {kind.noun} cannot be larger than {MAX_BYTES} bytes", file))
    tree, problems = read_tree(text, file)
    found = None
    if tree is None:
        problems = problems or [Problem(f"the {kind.noun} is empty", file, None, kind.smallest)]
    elif not isinstance(tree, Mapping):
        message = f"a {kind.noun} is a mapping of keys to values"
        problems = [*problems, Problem(message, file, tree.line, kind.smallest)]
    else:
        problems += _structure_problems(tree, file, kind.model)
        try:
            found = kind.model.model_validate(_plain(tree), context=context)
        except ValidationError as error:
            problems += _value_problems(error, tree, file)
    if problems or found is None or not isinstance(tree, Mapping):
        unique = {(p.line or 0, p.message): p for p in problems}
        told = [unique[key] for key in sorted(unique)]
        if len(told) > MAX_PROBLEMS:
            told[MAX_PROBLEMS:] = [Problem(f"and {len(told) - MAX_PROBLEMS} more problems", file, told[-1].line)]
        raise ConfigurationError(*told)
    return found, tree


def _plain(node: Node) -> Any:
    """Return the tree as dicts, lists and text."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return [_plain(item) for item in node.items]
    return {key: _plain(value) for key, value in node.entries.items()}


def _structure_problems(tree: Mapping, file: str, whole: type[Strict]) -> Iterator[Problem]:
    """Yield what is wrong with keys: unknown ones, ones that cannot stand together, entries that stand twice."""
    todo: list[tuple[Any, Node, Where, int]] = [(whole, tree, (), tree.line)]
    while todo:
        kind, node, where, line = todo.pop()
        if isinstance(node, Mapping):
            model = _model(kind)
            if model is not None:
                yield from _key_problems(model, node, where, line, file)
            for key, value in node.entries.items():
                below = _below(kind, key)
                if below is not None:
                    todo.append((below, value, (*where, key), node.lines[key]))
        elif isinstance(node, Sequence):
            yield from _repetitions(node, where, file)
            below = _below(kind, 0)
            if below is not None:
                todo += [(below, item, (*where, number), item.line) for number, item in enumerate(node.items)]


def _key_problems(model: type[Strict], node: Mapping, where: Where, line: int, file: str) -> Iterator[Problem]:
    known = model.model_fields
    for key in node.entries:
        if key not in known:
            hint = near(key, list(known), f"the keys here are {', '.join(known)}")
            yield Problem(f"{_at(where)}unknown key {shown(key)}", file, node.lines[key], hint)
    refused = model.shape_problem([key for key in node.entries if key in known])
    if refused is not None:
        yield Problem(f"{_at(where)}{refused}", file, line, refused.hint)


def _repetitions(node: Sequence, where: Where, file: str) -> Iterator[Problem]:
    """Yield entries equal to an earlier one, and publish rules for the same names: which limits would hold?"""
    if where[-1:] == ("levels",):
        return  # two levels of a name may well be built alike
    seen: dict[object, int] = {}
    for item in node.items:
        plain = _plain(item)
        if isinstance(plain, dict) and where[-1:] == ("publish",):
            plain = {key: plain[key] for key in ("topic", "exchange", "key") if key in plain} or plain
        key = _frozen(plain)
        if key in seen:
            hint = f"the first is on line {seen[key]}"
            yield Problem(f"{_at(where)}{_summary(plain)} stands twice", file, item.line, hint)
        else:
            seen[key] = item.line


def _summary(plain: Any) -> str:
    if isinstance(plain, dict):
        return shown(", ".join(f"{key}: {value}" for key, value in plain.items()))
    return shown(plain if isinstance(plain, str) else str(plain))


def _frozen(plain: Any) -> object:
    if isinstance(plain, dict):
        return frozenset((key, _frozen(value)) for key, value in plain.items())
    return tuple(map(_frozen, plain)) if isinstance(plain, list) else plain


def _model(kind: Any) -> type[Strict] | None:
    """Return the model that a mapping of this type is, looking through Annotated and Optional."""
    for candidate in _alternatives(kind):
        if isinstance(candidate, type) and issubclass(candidate, Strict):
            return candidate
    return None


def _alternatives(kind: Any) -> list[Any]:
    origin = get_origin(kind)
    if origin is Annotated:
        return _alternatives(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return [inner for argument in get_args(kind) for inner in _alternatives(argument)]
    return [kind]


def _below(kind: Any, step: str | int) -> Any:
    """Return the type of what stands under a key or in a list of this type; None when there can be nothing."""
    for candidate in _alternatives(kind):
        if isinstance(candidate, type) and issubclass(candidate, Strict):
            found = candidate.model_fields.get(step) if isinstance(step, str) else None
            return None if found is None else found.annotation
        arguments = get_args(candidate)
        if isinstance(step, str) and get_origin(candidate) is abc.Mapping:
            return arguments[1]
        if isinstance(step, int) and get_origin(candidate) is tuple:
            return arguments[0]
    return None


def _value_problems(error: ValidationError, tree: Mapping, file: str) -> Iterator[Problem]:
    """Yield the model's complaints with their lines; those about keys were found before."""
    for details in error.errors(include_url=False):
        where, node, line = _find(tree, details["loc"])
        if details["type"] == "extra_forbidden" or (isinstance(node, Scalar) and node.missing):
            continue
        if details["type"] == "too_short" and isinstance(node, Sequence) and node.items:
            continue  # pydantic counts only the entries that are right; the wrong ones are reported themselves
        if details["loc"][-1:] == ("[key]",):
            name = shown(str(details["input"]))
            yield Problem(f"{name} is no name for a role", file, line, "letters, digits, _ . - and at most 64 of them")
            continue
        message, hint = _said(details, where)
        yield Problem(f"{_at(where)}{message}", file, line, hint)


def _find(tree: Mapping, location: tuple[int | str, ...]) -> tuple[Where, Node, int]:
    """Walk to a place the model named; returns the deepest place that exists in the file, its node and line."""
    node: Node = tree
    line = tree.line
    where: Where = ()
    for step in location:
        if isinstance(node, Mapping) and isinstance(step, str) and step in node.entries:
            line, node = node.lines[step], node.entries[step]
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            line = node.line
        else:
            break
        where = (*where, step)
    return where, node, node.line if isinstance(node, Scalar) else line


def _said(details: ErrorDetails, where: Where) -> tuple[str, str | None]:
    """Return a complaint in our words, and a hint."""
    value = details["input"]
    given = "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else shown(value)
    refused = details.get("ctx", {}).get("error")
    if isinstance(refused, RefusedError):
        return str(refused), refused.hint
    kind = details["type"]
    if kind == "missing":
        key = str(details["loc"][-1])
        return f"the key {shown(key)} is missing", _MISSING.get(key, f"add {key}: …")
    if kind == "literal_error":
        return f"expected {details['ctx']['expected']}, not {given}", None
    if kind == "too_short" and where[-1:] == ("members",):
        return "a role that nobody has", _MISSING["members"]
    if kind == "too_short":
        return "must have at least one entry", None
    for start, wanted, hint in _WANTED:
        if kind.startswith(start):
            return f"expected {wanted}, not {given}", hint
    limit = next((f"{_LIMITS[key]} {value:g}" for key, value in details.get("ctx", {}).items() if key in _LIMITS), None)
    return (f"must be {limit}, not {given}" if limit else f"{details['msg']}: {given}"), None


_MISSING: Final = {
    "topicwarden": "the policy language has a version: begin the file with topicwarden: 1",
    "members": 'say who has the role: members: [{user: "sensor-*"}]',
    "until": "an exception ends: until: YYYY-MM-DD",
    "reason": "say why it is accepted; auditors will ask",
}
_WANTED: Final = (
    ("tuple", "a list", "write [a, b], or one entry a line after a dash"),
    ("model", "a mapping", "write key: value, or {key: value}"),
    ("mapping", "a mapping", "write key: value, or {key: value}"),
    ("dict", "a mapping", "write key: value, or {key: value}"),
    ("string", "text", None),
    ("int", "a whole number", None),
    ("float", "a number", None),
    ("finite", "a number", None),
    ("bool", "true or false", None),
)
_LIMITS: Final = {"ge": "at least", "le": "at most", "gt": "more than", "lt": "less than"}


def _at(where: Where) -> str:
    """Return `roles.sensor.publish[0]: `, or nothing at the top."""
    text = ""
    for step in where:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", step) else shown(step))
    return f"{text}: " if text else ""
