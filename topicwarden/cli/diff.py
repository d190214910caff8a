"""`diff`: what a change of a policy newly allows and newly denies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from topicwarden.cli import EXIT_CLEAN, EXIT_FINDINGS
from topicwarden.cli.options import one_of
from topicwarden.compare.policies import compare_policies
from topicwarden.compare.policies_model import PolicyDiff, Side
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import load_catalogue
from topicwarden.output.escape import encodable
from topicwarden.output.policy_diff import document, markdown, text_lines
from topicwarden.output.sinks import TextSink
from topicwarden.policy import load_policy_with_lines

FORMATS: Final = ("text", "json", "markdown")


def run(old: Path, new: Path, output_format: str) -> int:
    """Compare two policies and print the difference; returns the exit code.

    0: nothing passes that did not before; 1: something does, or may. Raises ConfigurationError with all problems of
    both files.
    """
    one_of("--format", output_format, FORMATS)
    diff = compare_policies(*_sides(old, new))
    if output_format == "text":
        sink = TextSink(sys.stdout)
        sink.print(text_lines(diff, sink.width))
    else:
        written = document(diff) if output_format == "json" else markdown(diff)
        sys.stdout.write(encodable(written, sys.stdout.encoding))
    return _exit_code(diff)


def _exit_code(diff: PolicyDiff) -> int:
    return EXIT_FINDINGS if diff.opens else EXIT_CLEAN


def _sides(*paths: Path) -> list[Side]:
    catalogue = load_catalogue()
    codes = [*catalogue, *(entry.name for entry in catalogue.values())]
    sides: list[Side] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            policy, lines = load_policy_with_lines(path, codes)
            sides.append(Side(policy, str(path), lines))
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(*problems)
    return sides
