"""Takes payloads out of command lines whose arguments were joined by spaces: where one ends is not known."""

from __future__ import annotations

import re
from typing import Final

from topicwarden.hosts.commands_mentions import may_matter
from topicwarden.hosts.commands_options import given, is_option
from topicwarden.hosts.commands_payload import MASKED, Taken, is_payload, script_text, sends, shell_text
from topicwarden.hosts.commands_targets import PAYLOAD
from topicwarden.hosts.commands_wrapped import INTERPRETERS, script, started
from topicwarden.hosts.tools import TOOLS, Tool, program_name
from topicwarden.hosts.tools_grammar import Means

_WORD: Final = re.compile(r"\S+")
_MAX_PAYLOADS: Final = 4


def joined_without_payloads(line: str, executable: str = "") -> Taken:
    """Return the words of a line without payloads: one goes on to the next option of its tool."""
    spans = [match.span() for match in _WORD.finditer(line)]
    words = [line[start:end] for start, end in spans]
    taken = Taken(words)
    if not words or not may_matter((line,), executable):
        return taken
    found = started(words, executable)
    if found is None:
        return taken
    if found.text is not None:
        text = line[spans[found.text][0] :]
        taken.words = words[: found.text] + shell_text(text, taken.payloads, depth=1).split()
    elif found.name in INTERPRETERS:
        runs = script(found.name, found.words)
        if runs is not None and runs[0] == "code" and runs[1] < len(found.places):
            place = found.places[runs[1]]
            start = spans[place][0] + runs[2]
            modules = " ".join(words[:place]) if found.name == "perl" else ""
            text = line[spans[place][0] : start] + script_text(line[start:], found.name, taken.payloads, modules)
            taken.words = words[:place] + text.split()
        elif runs is not None and runs[0] == "file" and program_name(words[found.places[runs[1]]]) in TOOLS:
            place = found.places[runs[1]]
            _joined_tool(taken, place, spans, line, TOOLS[program_name(words[place])])
    elif found.name in TOOLS:
        _joined_tool(taken, found.places[0], spans, line, TOOLS[found.name])
    return taken


def _joined_tool(taken: Taken, place: int, spans: list[tuple[int, int]], line: str, tool: Tool) -> None:
    before, words = taken.words[:place], taken.words[place:]
    spans = spans[place:]
    if not sends(tool, words):
        return
    first: int | None = None
    for turn in range(_MAX_PAYLOADS + 1):
        found = given(words, tool)
        one = next((one for one in found if is_payload(one, tool)), None)
        if one is None:
            break
        end = one.place + 1 if turn < _MAX_PAYLOADS else len(words)
        while end < len(words) and not is_option(words[end], tool) and words[end].partition("=")[0] not in tool.keys:
            end += 1
        taken.payloads.append(line[spans[one.place][0] + one.start : spans[end - 1][1]])
        words[one.place : end] = [words[one.place][: one.start] + PAYLOAD]
        spans[one.place : end] = [spans[one.place]]
        first = one.place if first is None else first
    if first is None:
        return
    values: dict[Means, set[str]] = {}
    verbs = True
    for one in found:
        values.setdefault(one.means, set()).add(one.value)
        if one.means in (Means.STRAY, Means.OPERAND) and one.place > first:
            # No option of its own, and no value of one: the payload may go on here.
            verbs = verbs and one.value in tool.verbs
            if not verbs and not MASKED.fullmatch(one.value):
                words[one.place] = PAYLOAD
    single = (Means.HOST, Means.PORT, Means.URL, Means.ADDRESS, *(() if tool.several else (Means.NAME,)))
    taken.ambiguous = any(len(values.get(means, ())) > 1 for means in single)
    taken.words = before + words
