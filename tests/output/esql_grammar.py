"""A strict grammar of the part of ES|QL that our rules are written in; whatever else stands there is refused.

After Elastic's reference (commands FROM, MV_EXPAND, WHERE, STATS … BY, SORT, KEEP; operators and functions of 8.19).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\\n]|\\["\\nrt])*")|(?P<number>\d+(?:\.\d+)?)|(?P<op><=|>=|==|!=|<|>|=)"""
    r"""|(?P<punct>[(),|])|(?P<word>@?[A-Za-z_][A-Za-z0-9_.@]*)|(?P<index>[a-z][a-z0-9._*-]*\*))"""
)
_INDEX = re.compile(r"\s*([a-z][a-z0-9._*-]*)")
COMMANDS = ("FROM", "MV_EXPAND", "WHERE", "STATS", "SORT", "KEEP")
KEYWORDS = frozenset({*COMMANDS, "BY", "DESC", "AND", "OR", "NOT", "IN", "LIKE", "RLIKE", "IS", "NULL"})
SCALAR = {"TO_LOWER": 1, "CIDR_MATCH": None}
AGGREGATES = {"COUNT", "MIN", "MAX", "VALUES"}


@dataclass
class Query:
    """What a query uses."""

    indexes: list[str] = field(default_factory=list)
    fields: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    """Columns that STATS makes."""
    by: list[str] = field(default_factory=list)


class EsqlError(Exception):
    """It is not ES|QL as we write it."""


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.query = Query()

    def peek(self) -> tuple[str, str]:
        if not self.text[self.at :].strip():
            return ("end", "")
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            raise EsqlError(f"at {self.text[self.at : self.at + 40]!r}")
        assert match.lastgroup is not None
        return (match.lastgroup, match[match.lastgroup])

    def take(self, *wanted: str) -> str:
        kind, value = self.peek()
        if wanted and value not in wanted and kind not in wanted:
            raise EsqlError(f"{value!r} where {' or '.join(wanted)} belongs, at {self.text[self.at : self.at + 40]!r}")
        match = _TOKEN.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return value

    def whether(self, word: str) -> bool:
        if self.peek()[1] != word:
            return False
        self.take(word)
        return True

    def column(self) -> str:
        name = self.take("word")
        if name in KEYWORDS or name in SCALAR or name in AGGREGATES:
            raise EsqlError(f"{name} where a column belongs")
        return name

    def known(self) -> str:
        """A column that is there: of the events before STATS, made by it after."""
        name = self.column()
        if not self.query.made:
            self.query.fields.add(name)
        elif name not in self.query.made | set(self.query.by):
            raise EsqlError(f"{name} is gone after STATS")
        return name

    def parse(self) -> Query:
        self.take("FROM")
        while True:
            match = _INDEX.match(self.text, self.at)
            if match is None:
                raise EsqlError("FROM what?")
            self.query.indexes.append(match[1])
            self.at = match.end()
            if not self.whether(","):
                break
        while self.peek()[0] != "end":
            self.take("|")
            command = self.take("MV_EXPAND", "WHERE", "STATS", "SORT", "KEEP")
            {"MV_EXPAND": self.known, "WHERE": self.either, "STATS": self.stats, "SORT": self.sort, "KEEP": self.keep}[
                command
            ]()
        return self.query

    def stats(self) -> None:
        made = set()
        while True:
            name = self.column()
            self.take("=")
            function = self.take(*AGGREGATES)
            self.take("(")
            if function == "COUNT":
                if self.text[self.at : self.at + 1] != "*":
                    raise EsqlError("COUNT of what?")
                self.at += 1
            else:
                self.known()
            self.take(")")
            if name in made:
                raise EsqlError(f"{name} is made twice")
            made.add(name)
            if not self.whether(","):
                break
        self.take("BY")
        self.query.by.append(self.known())
        while self.whether(","):
            self.query.by.append(self.known())
        self.query.made = made

    def sort(self) -> None:
        self.known()
        self.take("DESC")

    def keep(self) -> None:
        self.known()
        while self.whether(","):
            self.known()

    def either(self) -> None:
        self.both()
        while self.whether("OR"):
            self.both()

    def both(self) -> None:
        self.negated()
        while self.whether("AND"):
            self.negated()

    def negated(self) -> None:
        if self.whether("NOT"):
            self.negated()
        elif self.whether("("):
            self.either()
            self.take(")")
        else:
            self.comparison()

    def comparison(self) -> None:
        if self.whether("CIDR_MATCH"):
            self.take("(")
            self.known()
            self.take(",")
            self.strings()
            self.take(")")
            return
        if self.whether("TO_LOWER"):
            self.take("(")
            self.known()
            self.take(")")
            lower = True
        else:
            self.known()
            lower = False
        operator = self.take("op", "IN", "LIKE", "RLIKE", "IS")
        if operator == "IS":
            self.whether("NOT")
            self.take("NULL")
        elif operator in ("LIKE", "RLIKE"):
            self.literal(lower, "string")
        elif operator == "IN":
            self.take("(")
            self.literal(lower, "string", "number")
            while self.whether(","):
                self.literal(lower, "string", "number")
            self.take(")")
        else:
            self.literal(lower, "string", "number", "true", "false")

    def strings(self) -> None:
        self.literal(False, "string")
        while self.whether(","):
            self.literal(False, "string")

    def literal(self, lower: bool, *kinds: str) -> None:
        value = self.take(*kinds)
        if lower and value != value.lower():
            raise EsqlError(f"{value} is compared with what was made small letters")


def parse(text: str) -> Query:
    """Parse a query; raises EsqlError."""
    return _Parser(text).parse()
