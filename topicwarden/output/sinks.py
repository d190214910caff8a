"""Where findings go: one sink a format, all with the same three calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol, TextIO

from rich.console import Console
from rich.text import Text

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import Finding
from topicwarden.output import ecs, jsonl, ocsf
from topicwarden.output.escape import encodable
from topicwarden.output.jsonl import Event
from topicwarden.output.origin import Origin
from topicwarden.output.sarif import SarifSink
from topicwarden.output.summary import Summary
from topicwarden.output.summary_text import summary_lines
from topicwarden.output.text import brief, grew

MIN_WIDTH: Final = 40
"""Terminals narrower than this get lines of this width, which they fold themselves."""


class Sink(Protocol):
    """Takes findings as they come. Every call has handed its output to the stream, flushed, when it returns."""

    def opened(self, finding: Finding) -> None:
        """Show a cause seen for the first time."""
        ...

    def updated(self, finding: Finding) -> None:
        """Show a cause that grew."""
        ...

    def finish(self, summary: Summary) -> None:
        """Show the closing summary, and in machine formats every finding whose count has changed since shown."""
        ...


class TextSink:
    """Findings for a person: coloured and as wide as the terminal, or plain unwrapped lines when there is none."""

    def __init__(self, stream: TextIO, *, width: int | None = None, color: bool | None = None) -> None:
        """Write to `stream`; `width` and `color` override what the stream itself suggests."""
        self._stream = stream
        self._width = width
        self._color = wants_color(stream) if color is None else color
        # Only turns styles into escape sequences; it never writes and never wraps.
        self._console = Console(
            force_terminal=True, no_color=False, color_system="standard", width=10_000, highlight=False
        )

    def opened(self, finding: Finding) -> None:
        """Print the finding in a few lines."""
        self.print(brief(finding, self.width))

    def updated(self, finding: Finding) -> None:
        """Print one line with the count."""
        self.print([grew(finding, self.width)])

    def finish(self, summary: Summary) -> None:
        """Print the summary after an empty line."""
        self.print([Text(), *summary_lines(summary, self.width)])

    @property
    def width(self) -> int | None:
        """Columns to fill, asked anew each time so that resizing works; None when not a terminal."""
        return terminal_width(self._stream) if self._width is None else self._width

    def print(self, lines: Iterable[Text]) -> None:
        """Print lines as they are."""
        text = "".join(f"{self._styled(line)}\n" for line in lines)
        self._stream.write(encodable(text, self._stream.encoding))
        self._stream.flush()

    def _styled(self, line: Text) -> str:
        if not self._color:
            return line.plain
        with self._console.capture() as capture:
            self._console.print(line, end="", soft_wrap=True)
        return capture.get()


class MachineSink:
    """Findings as one JSON document a line."""

    def __init__(
        self,
        stream: TextIO,
        origin: Origin,
        finding_document: Callable[[Event, Finding, Origin], dict[str, Any]],
        summary_document: Callable[[Summary, Origin], dict[str, Any]],
    ) -> None:
        self._stream = stream
        self._origin = origin
        self._finding_document = finding_document
        self._summary_document = summary_document
        self._shown: dict[str, int] = {}
        """Count last shown by fingerprint; as bounded as the ledger."""

    def opened(self, finding: Finding) -> None:
        """Write a document with event `opened`."""
        self._emit(Event.OPENED, finding)

    def updated(self, finding: Finding) -> None:
        """Write a document with event `updated`."""
        self._emit(Event.UPDATED, finding)

    def finish(self, summary: Summary) -> None:
        """Write `final` documents where the last one is out of date, then the summary."""
        for finding in summary.findings:
            shown = self._shown.get(finding.fingerprint)
            if shown is None:
                self._emit(Event.OPENED, finding)
            elif shown != finding.count:
                self._emit(Event.FINAL, finding)
        self._write(self._summary_document(summary, self._origin))

    def _emit(self, event: Event, finding: Finding) -> None:
        self._write(self._finding_document(event, finding, self._origin))
        self._shown[finding.fingerprint] = finding.count

    def _write(self, document: dict[str, Any]) -> None:
        self._stream.write(jsonl.encode(document) + "\n")
        self._stream.flush()


_MACHINE: Final[Mapping[str, Any]] = MappingProxyType({"jsonl": jsonl, "ecs": ecs, "ocsf": ocsf})
FORMATS: Final = ("text", *_MACHINE)
"""What can be written as it happens."""
REPORT_FORMATS: Final = (*FORMATS, "sarif")
"""And what is one document about a run as a whole, which therefore has to end by itself."""


def make_sink(
    format_name: str,
    stream: TextIO,
    *,
    origin: Origin | None = None,
    width: int | None = None,
    color: bool | None = None,
    live: bool = False,
) -> Sink:
    """Return the sink of a format; `width` and `color` are for text only.

    `live`: the run has no end of its own. Raises ConfigurationError when there is no such format, or not for live runs.
    """
    if format_name == "text":
        return TextSink(stream, width=width, color=color)
    if format_name == "sarif" and not live:
        return SarifSink(stream, origin or Origin())
    documents = _MACHINE.get(format_name)
    if documents is None:
        what = "is for runs that end: scan and check" if format_name == "sarif" else "is not known"
        formats = FORMATS if live else REPORT_FORMATS
        raise ConfigurationError(
            Problem(f"the output format {format_name!r} {what}", hint=f"choose one of {', '.join(formats)}")
        )
    return MachineSink(stream, origin or Origin(), documents.finding_document, documents.summary_document)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person may be looking at this stream."""
    return not stream.closed and stream.isatty()


def wants_color(stream: TextIO) -> bool:
    """Whether to colour: on a terminal that can, unless NO_COLOR says no (no-color.org: set and not empty)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("", "dumb")


def terminal_width(stream: TextIO) -> int | None:
    """Return the terminal's width in columns as it is now, at least MIN_WIDTH; None when the stream is none."""
    if not is_terminal(stream):
        return None
    try:
        found = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 80
    return max(found or 80, MIN_WIDTH)
