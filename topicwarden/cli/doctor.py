"""`doctor`: is a broker set up so that we can see, and so that access is controlled at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final, TextIO

from topicwarden.cli import EXIT_CLEAN, EXIT_FINDINGS
from topicwarden.cli.sources import broker_for
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.output.escape import visible
from topicwarden.sources import Advice, Broker, DoctorReport, SourceOptions

LEVELS: Final = ("problem", "warning", "note", "ok")
STYLES: Final[Mapping[str, str]] = {"problem": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


def run(
    brokers: Mapping[str, Broker], target: str, options: SourceOptions, broker_name: str | None, output_format: str
) -> int:
    """Diagnose and print; returns 1 when there is a problem."""
    if "://" not in target and not Path(target).exists():
        raise ConfigurationError(Problem("no such file", target, hint="check the path"))
    broker = broker_for(brokers, target, broker_name)
    report = broker.doctor(target, options)
    if output_format == "json":
        json.dump(as_json(report), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        print_report(report, sys.stdout)
    return EXIT_FINDINGS if any(advice.level == "problem" for advice in report.advice) else EXIT_CLEAN


def as_json(report: DoctorReport) -> dict[str, object]:
    """Return the report as JSON values; keys are the dataclasses' own."""
    return {
        "title": report.title,
        "advice": [asdict(advice) for advice in report.advice],
        "blind_spots": [asdict(spot) for spot in report.blind_spots],
    }


def print_report(report: DoctorReport, stream: TextIO) -> None:
    """Print gravest first; exact lines to add stand indented on lines of their own, ready to copy."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False, soft_wrap=not stream.isatty())
    console.print(Text(visible(report.title), "bold"))
    for advice in sorted(report.advice, key=lambda advice: LEVELS.index(advice.level)):
        heading = Text.assemble((f"{advice.level:>8}", STYLES[advice.level]), "  ", visible(advice.message))
        if advice.level == "ok":
            console.print(heading.append(f" [{advice.check}]", "dim"))
            continue
        console.print(heading)
        for line in _details(advice):
            console.print(Text(" " * 10 + line), soft_wrap=True)
    if report.blind_spots:
        console.print(Text("\nCannot be seen as configured", "bold"))
        for spot in report.blind_spots:
            console.print(Text(f"  - {visible(spot.what)}"))
            if spot.fix:
                console.print(Text(f"      to see it: {visible(spot.fix)}"))
    counts = {level: sum(advice.level == level for advice in report.advice) for level in LEVELS}
    console.print(Text("\n" + ", ".join(f"{counts[level]} {level}" for level in LEVELS)))


def _details(advice: Advice) -> Iterator[str]:
    where = "" if advice.file is None else f" at {visible(advice.file)}" + (f":{advice.line}" if advice.line else "")
    yield f"[{advice.check}]{where}"
    if advice.fix:
        yield "fix:"
        for line in advice.fix.split("\n"):
            yield f"  {visible(line)}"
