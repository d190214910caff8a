"""Live output: findings scroll by, and on a terminal one status line stays below them.

The status line is drawn without a line feed and leaves the cursor at its beginning. So nothing has to be undone: when
we end, however we end, the next thing written overwrites it; and when the terminal is made narrower and folds the line,
clearing from the cursor to the screen's end still takes all of it. Cursor and terminal modes are never touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, TextIO

from rich.cells import cell_len
from rich.text import Text

from topicwarden.findings import Finding, Severity
from topicwarden.output import wording
from topicwarden.output.escape import encodable
from topicwarden.output.sinks import Sink, is_terminal, terminal_width
from topicwarden.output.summary import Summary

# The line first, then what folding made of it below: tmux copies a screen that is cleared from its very top, with the
# status line on it, into the history (seen with tmux 3.3a).
_CLEAR: Final = "\r\x1b[K\x1b[J"


@dataclass(frozen=True, slots=True)
class Status:
    """What the status line says."""

    events: int = 0
    """Events seen so far."""
    rate: float = 0.0
    """Events per second of late."""
    clients: int = 0
    findings: Mapping[Severity, int] = field(default_factory=dict)
    """Open findings so far by severity."""
    lag_ns: int = 0
    lost: int = 0
    gaps: int = 0


def status_text(status: Status, width: int) -> str:
    """Return the status in at most `width` columns; what matters least is left out first, losses never."""
    found = [f"{wording.number(n)} {s.name.lower()}" for s, n in sorted(status.findings.items(), reverse=True) if n]
    total = sum(status.findings.values())
    parts = {
        "lost": f"LOST {wording.number(status.lost)} in {wording.counted(status.gaps, 'gap')}" if status.gaps else "",
        "rate": f"{wording.number(round(status.rate))} events/s",
        "findings": f"findings: {', '.join(found)}" if found else "no findings",
        "lag": f"lag {wording.duration(max(status.lag_ns, 0))}",
        "clients": wording.counted(status.clients, "client"),
        "events": wording.counted(status.events, "event"),
    }
    shorter = {"findings": wording.counted(total, "finding"), "lost": f"LOST {wording.number(status.lost)}"}
    order = ["lost", "rate", "findings", "lag", "clients", "events"]

    def line() -> str:
        return " | ".join(parts[name] for name in order if parts[name])

    for name in ("events", "clients", "lag"):
        if cell_len(line()) > width:
            parts[name] = ""
    for name in ("findings", "lost"):
        if parts[name] and cell_len(line()) > width:
            parts[name] = shorter[name]
    if cell_len(line()) > width:
        parts["rate"] = ""
    fitted = Text(line())
    fitted.truncate(max(width, 0))
    return fitted.plain


class StatusLine:
    """One line at the bottom of a terminal; does nothing on any other stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text: Status | None = None
        self.enabled = is_terminal(stream) and os.environ.get("TERM", "") not in ("", "dumb")

    def show(self, status: Status) -> None:
        """Draw or redraw the line."""
        self._text = status
        self.redraw()

    def redraw(self) -> None:
        """Draw the last status again after something else was written."""
        if self.enabled and self._text is not None:
            # One column is left free: a full line would leave some terminals waiting to wrap.
            width = (terminal_width_exact(self._stream)) - 1
            line = encodable(status_text(self._text, width), self._stream.encoding)
            self._write(f"{_CLEAR}{line}\r")

    def clear(self) -> None:
        """Take the line away, so that something else can be written in its place."""
        if self.enabled and self._text is not None:
            self._write(_CLEAR)

    def close(self) -> None:
        """Take the line away for good."""
        self.clear()
        self.enabled = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # The terminal is gone (hung up, closed): findings may still go to a file, so only the line ends.
            self.enabled = False


def terminal_width_exact(stream: TextIO) -> int:
    """Return the terminal's width even where it is too narrow for findings: the status line must never fold."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return terminal_width(stream) or 80


class Live:
    """A sink with a status line below it. Use as a context manager: leaving it in any way takes the line away.

    Findings go where `sink` sends them; the status line and messages go to `stream` (stderr).
    """

    def __init__(self, sink: Sink, stream: TextIO) -> None:
        self._sink = sink
        self._stream = stream
        self._line = StatusLine(stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def opened(self, finding: Finding) -> None:
        """Show a new finding above the status line."""
        self._above(lambda: self._sink.opened(finding))

    def updated(self, finding: Finding) -> None:
        """Show a finding that grew above the status line."""
        self._above(lambda: self._sink.updated(finding))

    def status(self, status: Status) -> None:
        """Show how it goes. Call it a few times a second at most; nothing happens where there is no terminal."""
        self._line.show(status)

    def message(self, text: str) -> None:
        """Write a line for the person to stderr, above the status line. `text` must be fit to print already."""

        def write() -> None:
            self._stream.write(encodable(text, self._stream.encoding) + "\n")
            self._stream.flush()

        self._above(write)

    def finish(self, summary: Summary) -> None:
        """End the status line and show the summary."""
        self.close()
        self._sink.finish(summary)

    def close(self) -> None:
        """End the status line."""
        self._line.close()

    def _above(self, write: Callable[[], None]) -> None:
        self._line.clear()
        write()
        self._line.redraw()
