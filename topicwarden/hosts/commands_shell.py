"""Reads a shell's text: which programs it starts with which words, and what flows into what.

It is a reader, not a shell: nothing is run, variables are known only where the text itself sets them to a constant.
Everything is bounded by the length of the text, nesting by `MAX_DEPTH`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from topicwarden.hosts.commands_shell_words import VARIABLE, Group, Redirect, Simple, Word, unescaped

MAX_DEPTH: Final = 4
"""Levels of `$(…)` and of shells within shells that are read."""
MAX_COMMANDS: Final = 256
"""Simple commands read of one text."""

_PLAIN: Final = re.compile(r"[^\s\"'\\$`;|&()<>#]+|#+")
_MASKED: Final = re.compile(r"<payload(?::[a-z]{1,8})?>")
_IN_DOUBLE: Final = re.compile(r"[^\"\\$`]+")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_REDIRECT: Final = re.compile(r"(\d{0,4})(<<<|<<-|<<|<>|<&|>>|>&|>\||<|>)")
_OPENERS: Final = frozenset({"while", "until", "if", "for", "select", "case", "{"})
_CLOSERS: Final = frozenset({"done", "fi", "esac", "}"})
_PREFIXES: Final = frozenset({"then", "else", "elif", "do", "!", "time", "coproc"})


class Script:
    """A shell's text, read."""

    def __init__(self, text: str, *, depth: int = 0) -> None:
        self.text = text
        self.top = Group()
        self.assignments: list[tuple[str, int, int]] = []
        """Names of variables, and where the texts stand that they are set to."""
        self.unread: list[tuple[int, int]] = []
        """Where there is more than was read."""
        self._inner: list[Group] = []
        self._variables: dict[str, str | None] = {}
        self._left = MAX_COMMANDS
        self._depth = depth
        self._read(0, len(text), self.top, depth)

    def pipelines(self) -> Iterator[list[Simple | Group]]:
        """Yield every pipeline, those within groups after the one they stand in, those of `$(…)` last."""
        waiting = [*self._inner, self.top]
        while waiting:
            group = waiting.pop()
            for pipeline in group.pipelines:
                yield pipeline
                waiting += [part for part in pipeline if isinstance(part, Group)]

    def _read(self, at: int, end: int, top: Group, depth: int) -> None:
        _Reader(self, at, end, top, depth).run()


class _Reader:
    """Reads one level of a text, from `at` to `end`."""

    def __init__(self, script: Script, at: int, end: int, top: Group, depth: int) -> None:
        self.script = script
        self.text = script.text
        self.at = at
        self.end = end
        self.top = top
        self.depth = depth
        self.groups = [top]
        self.cases: set[int] = set()
        """Levels that are a `case`: a `)` there ends a pattern."""
        self.simple = Simple()
        self.assigned: dict[str, str | None] = {}
        self.documents: list[tuple[Redirect, bool]] = []
        self.closed: Group | None = None

    def run(self) -> None:
        while self.at < self.end and self.script._left > 0:
            character = self.text[self.at]
            if character in " \t\r":
                self.at += 1
            elif character == "\n":
                self._end_command()
                self._break()
                self.at += 1
                self._read_documents()
            elif character == "#":
                self._comment()
            elif character in ";&|":
                self._operator()
            elif character == "(":
                self._open_bracket()
            elif character == ")":
                self.at += 1
                if len(self.groups) in self.cases:
                    self.simple = Simple()
                    self._break()
                else:
                    self._end_command()
                    self._close()
            elif character == "\\" and self.text[self.at + 1 : self.at + 2] == "\n":
                self.at += 2
            else:
                self._word_or_redirect()
        self._end_command()
        if self.at < self.end:
            self.script.unread.append((self.at, self.end))

    # Commands

    def _end_command(self) -> None:
        simple = self.simple
        if simple.words or simple.redirects:
            simple.ends = self.at
            simple.inner = self.depth > self.script._depth
            self.groups[-1].pipelines[-1].append(simple)
            self.script._left -= 1
        if not simple.words:
            self._set(self.assigned)
        elif simple.words[0].text in ("export", "readonly", "local", "declare"):
            for word in simple.words[1:]:
                match = _ASSIGNMENT.match(word.text)
                if match is not None:
                    name = match[0][:-1]
                    self._set({name: word.text[match.end() :] if word.literal else None})
                    self.script.assignments.append((name, word.start + match.end(), word.end))
        self.assigned = {}
        self.simple = Simple()
        self.closed = None

    def _set(self, assigned: dict[str, str | None]) -> None:
        """Remember constants; a variable that is set to two values may have either."""
        known = self.script._variables
        for name, value in assigned.items():
            known[name] = value if known.setdefault(name, value) == value else None

    def _break(self) -> None:
        if self.groups[-1].pipelines[-1]:
            self.groups[-1].pipelines.append([])

    def _operator(self) -> None:
        two = self.text[self.at : self.at + 2]
        if two == "&>":
            self._word_or_redirect()
            return
        self._end_command()
        if self.text[self.at] == "|" and two != "||":
            self.at += 2 if two == "|&" else 1
        else:
            self._break()
            self.at += 2 if two in ("&&", "||", ";;", ";&") else 1

    def _open(self) -> None:
        group = Group()
        if len(self.groups) < 64:
            self.groups[-1].pipelines[-1].append(group)
            self.groups.append(group)

    def _close(self) -> None:
        if len(self.groups) > 1:
            self.closed = self.groups.pop()

    def _open_bracket(self) -> None:
        self.at += 1
        if self.simple.words:
            # A function's name, or an array: what is in brackets is read as commands of its own.
            if self.text[self.at : self.at + 1] == ")":
                self.at += 1
                self.simple = Simple()
                return
            self._end_command()
        if len(self.groups) in self.cases and not self.simple.words and not self.groups[-1].pipelines[-1]:
            # Before a pattern.
            return
        self._open()
        self.cases.discard(len(self.groups))

    def _comment(self) -> None:
        line = self.text.find("\n", self.at, self.end)
        self.at = self.end if line < 0 else line

    # Words

    def _word_or_redirect(self) -> None:
        if self.text.startswith("&>", self.at):
            self.at += 3 if self.text.startswith("&>>", self.at) else 2
            self._redirect(">")
            return
        if _MASKED.match(self.text, self.at) is None:
            match = _REDIRECT.match(self.text, self.at, self.end)
            if match is not None:
                if self.text[match.end() : match.end() + 1] == "(" and match[2] in "<>":
                    self.at = match.end() + 1
                    self._substitution(")")
                    return
                self.at = match.end()
                self._redirect(match[2])
                return
        word = self._word()
        if word is None:
            self.at += 1
        else:
            self._add(word)

    def _redirect(self, operator: str) -> None:
        while self.at < self.end and self.text[self.at] in " \t":
            self.at += 1
        word = self._word()
        if word is None:
            return
        redirect = Redirect(operator, word)
        target = self.closed.redirects if self.closed is not None and not self.simple.words else self.simple.redirects
        target.append(redirect)
        if operator in ("<<", "<<-"):
            self.documents.append((redirect, operator == "<<-"))

    def _add(self, word: Word) -> None:
        simple = self.simple
        if not simple.words and word.pattern:
            if word.text in _OPENERS:
                self._end_command()
                self._open()
                self.cases.discard(len(self.groups))
                if word.text == "case":
                    self.cases.add(len(self.groups))
                if word.text in ("for", "select", "case"):
                    self.simple.words.append(word)
                return
            if word.text in _CLOSERS:
                self._end_command()
                self._close()
                return
            if word.text in _PREFIXES:
                return
            match = _ASSIGNMENT.match(word.text)
            if match is not None:
                self.assigned[match[0][:-1]] = word.text[match.end() :] if word.literal else None
                self.script.assignments.append((match[0][:-1], word.start + match.end(), word.end))
                return
        if self.closed is None:
            simple.words.append(word)

    def _word(self) -> Word | None:
        """Read one word; None when there is none here."""
        text, end, start = self.text, self.end, self.at
        parts: list[str] = []
        literal = True
        while self.at < end:
            character = text[self.at]
            plain = _PLAIN.match(text, self.at, end)
            if plain is not None and not (character == "#" and self.at == start):
                parts.append(plain[0])
                self.at = plain.end()
            elif character == "'":
                close = text.find("'", self.at + 1, end)
                close = end if close < 0 else close
                parts.append(text[self.at + 1 : close])
                self.at = close + 1
            elif character == '"':
                self.at += 1
                literal = self._double(parts) and literal
            elif character == "\\":
                if text[self.at + 1 : self.at + 2] != "\n":
                    parts.append(text[self.at + 1 : self.at + 2])
                self.at += 2
            elif character in "$`":
                literal = self._expansion(parts, quoted=False) and literal
            elif character == "<" and (masked := _MASKED.match(text, self.at, end)) is not None:
                parts.append(masked[0])
                self.at = masked.end()
            else:
                break
        self.at = min(self.at, end)
        if self.at == start:
            return None
        return Word("".join(parts), start, self.at, literal, pattern=text[start] not in "\"'\\$`")

    def _double(self, parts: list[str]) -> bool:
        """Read up to the closing quote; return whether all is literal."""
        literal = True
        while self.at < self.end:
            character = self.text[self.at]
            plain = _IN_DOUBLE.match(self.text, self.at, self.end)
            if plain is not None:
                parts.append(plain[0])
                self.at = plain.end()
            elif character == '"':
                self.at += 1
                break
            elif character == "\\":
                following = self.text[self.at + 1 : self.at + 2]
                parts.append(following if following in '"\\$`' else "" if following == "\n" else "\\" + following)
                self.at += 2
            else:
                literal = self._expansion(parts, quoted=True) and literal
        return literal

    def _expansion(self, parts: list[str], *, quoted: bool) -> bool:
        """Read what begins with `$` or a backtick; return whether it is known."""
        start = self.at
        following = self.text[start + 1 : start + 2]
        if self.text[start] == "`":
            self.at += 1
            self._substitution("`")
        elif following == "(":
            self.at += 2
            self._substitution(")")
        elif following == "'" and not quoted:
            self.at = start + 2
            parts.append(self._escaped())
            return True
        elif following == '"' and not quoted:
            self.at = start + 1
            return True
        else:
            match = VARIABLE.match(self.text, start, self.end)
            if match is not None:
                self.at = match.end()
                value = self.script._variables.get(match[1] or match[2])
                if value is not None and len(value) <= 256:
                    parts.append(value)
                    return True
            elif following == "{":
                close = self.text.find("}", start, self.end)
                self.at = self.end if close < 0 else close + 1
            elif following in "@*#?$!-" and following:
                self.at += 2
            else:
                self.at += 1
                parts.append("$")
                return True
        parts.append(self.text[start : self.at])
        return False

    def _escaped(self) -> str:
        """Read the rest of a `$'…'`."""
        start = self.at
        while self.at < self.end and self.text[self.at] != "'":
            self.at += 2 if self.text[self.at] == "\\" else 1
        body = self.text[start : min(self.at, self.end)]
        self.at += 1
        return unescaped(body)

    def _substitution(self, closing: str) -> None:
        """Read the commands of a substitution up to its end, as commands of their own."""
        start = self.at
        end = _closing(self.text, start, self.end, closing)
        if self.depth < self.script._depth + MAX_DEPTH:
            group = Group()
            self.script._inner.append(group)
            self.script._read(start, end, group, self.depth + 1)
        else:
            self.script.unread.append((start, end))
        self.at = min(end + 1, self.end)

    def _read_documents(self) -> None:
        """Read the here-documents whose beginning was on the line that ended."""
        for redirect, tabs in self.documents:
            start = self.at
            while True:
                line = self.text.find("\n", self.at, self.end)
                line = self.end if line < 0 else line
                content = self.text[self.at : line]
                body = self.at
                self.at = min(line + 1, self.end)
                if (content.lstrip("\t") if tabs else content) == redirect.word.text:
                    redirect.body = (start, body)
                    break
                if line >= self.end:
                    redirect.body = (start, self.end)
                    break
        self.documents = []


def _closing(text: str, at: int, end: int, closing: str) -> int:
    """Return where a substitution ends."""
    if closing == "`":
        while at < end and text[at] != "`":
            at += 2 if text[at] == "\\" else 1
        return min(at, end)
    within = [")"]
    while at < end:
        character = text[at]
        if character == "\\":
            at += 1
        elif character == within[-1]:
            within.pop()
            if not within:
                return at
        elif within[-1] == '"':
            if text.startswith("$(", at):
                within.append(")")
                at += 1
        elif character == "'":
            quote = text.find("'", at + 1, end)
            at = end if quote < 0 else quote
        elif character == '"':
            within.append('"')
        elif character == "(":
            within.append(")")
        at += 1
    return end
