"""Arguments looked for in a command line as one text, for languages and sources that have no list of them."""

from __future__ import annotations

from typing import Final

from topicwarden.output.rule_conditions import OneOf

LOSS: Final = "arguments are told apart by blanks: one that holds blanks is taken for several"


def in_command_line(leaf: OneOf) -> OneOf:
    """Return the condition that one of the arguments stands in the command line, in the middle or at its end."""
    patterns: list[str] = []
    for value in leaf.values:
        word = str(value)
        patterns += [f"* {word} *", f"* {word}"] if not word.startswith("*") else [f"{word} *", word]
    # What may end in anything ends the line as well.
    short = [pattern for pattern in patterns if not pattern.endswith("* *")]
    return OneOf("process.command_line", tuple(dict.fromkeys(short)), wildcards=True, exact=leaf.exact)
