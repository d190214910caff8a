"""Lines that a line break inside a name forged.

Mosquitto before 2.0.16 takes a certificate's common name as user name (`use_identity_as_username`) without looking for
control characters (seen with 2.0.11; 2.0.16 and later refuse such a certificate). The broker then writes one log
message that is several lines, the later ones as the certificate's owner likes them, timestamp and all.

Two signs give it away: a connect line that ends within a name although it is shorter than the longest line, and, in a
log with debug lines, a connect line that the will line does not follow. One message is at most 999 bytes with all its
lines, ends as every connect line does, and then comes what the broker writes next: the will line, and CONNACK with the
client's id. So lines are set aside until the end is found.

A common name that imitates all of that, too, cannot be told from the truth by any reader of the log; with a timestamp
in each line it takes more than the 64 characters X.520 allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from topicwarden_collectors.mosquitto.log_grammar import MAX_LINE, ConnectReading, read_connected, unfinished_connect
from topicwarden_collectors.mosquitto.log_lines import Line

LOOK_AHEAD: Final = 8
"""Lines read beyond the longest message, to see what follows it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the lines set aside."""

    forged: int
    """How many of them belong to the message; 0 when there is no sign that any does."""
    reading: ConnectReading | None
    """Who connected, when that can be told."""


@dataclass(slots=True)
class Quarantine:
    """Lines set aside because they may be part of the connect message that began with `first`."""

    time_ns: int
    first: bytes
    """What follows `New client connected from ` in the message's first line."""
    size: int
    """Bytes of the message so far, its timestamp included."""
    whole: bool
    """Whether the first line alone would make a good connect line."""
    lines: list[Line] = field(default_factory=list)
    window: int | None = None
    """How many of the lines can belong to the message; None as long as it may go on."""
    full: bool = False
    """Whether the message may have been cut at the longest line's end, where the last line of the window ends."""

    def takes(self, line: Line) -> bool:
        """Set the line aside if it may still help to decide."""
        if self.window is None:
            size = self.size + 1 + len(line.raw)
            if size <= MAX_LINE:
                self.size = size
                self.full = size == MAX_LINE
            if size >= MAX_LINE:
                self.window = len(self.lines) + (size == MAX_LINE)
        elif len(self.lines) - self.window >= LOOK_AHEAD:
            return False
        self.lines.append(line)
        return True

    def judge(self, message_of: Callable[[bytes], bytes | None]) -> Verdict:
        """Decide which lines belong to the message; `message_of` takes the timestamp off a line."""
        window = len(self.lines) if self.window is None else self.window
        raws = [line.raw for line in self.lines]
        ends = [i for i in range(window) if raws[i].endswith(b"').") or (self.full and i == window - 1)]
        for end in reversed(ends):
            for reading in self._readings(raws, end, window):
                if _goes_on(raws[end + 1 :], reading.client_id, message_of):
                    return Verdict(end + 1, reading)
        if self.full:
            return Verdict(window, self._by_first_line())
        if not ends:
            return Verdict(0, None)
        readings = self._readings(raws, ends[-1], window) if len(ends) == 1 and not self.whole else []
        return Verdict(ends[-1] + 1, readings[0] if len(readings) == 1 else self._by_first_line())

    def _readings(self, raws: list[bytes], end: int, window: int) -> list[ConnectReading]:
        cut = self.full and end == window - 1
        line = read_connected(b"\n".join([self.first, *raws[: end + 1]]), cut)
        return [] if line is None else list(line.readings)

    def _by_first_line(self) -> ConnectReading | None:
        """Return at least whose line it is: the client id, if the first line shows all of it."""
        line = read_connected(self.first, False)
        if line is None:
            return None
        if line.unfinished is None:
            return ConnectReading(line.readings[0].client_id, None, True) if len(line.readings) == 1 else None
        found = unfinished_connect(line.unfinished)
        return None if found is None else ConnectReading(found, None, True)


def _goes_on(raws: list[bytes], client_id: bytes, message_of: Callable[[bytes], bytes | None]) -> bool:
    """Whether these lines begin as the broker goes on after a connect line of this client."""
    if not raws:
        return False
    will = message_of(raws[0])
    if will is None or not will.startswith((b"No will message specified.", b"Will message specified (")):
        return False
    following = raws[1:] if will.startswith(b"No") else raws[2:]
    if not following:
        return False
    answer = message_of(following[0])
    text = b"\n".join([answer or b"", *following[1:]])
    return text.startswith(b"Sending CONNACK to " + client_id + b" (")


@dataclass(slots=True)
class BrokenLine:
    """A line of a client whose id holds line breaks (`use_username_as_clientid`), and the lines that complete it."""

    first: Line
    time_ns: int
    expected: tuple[bytes, ...]
    """The id's lines after its first."""
    lines: list[Line] = field(default_factory=list)

    def takes(self, line: Line) -> bool | None:
        """Take the next line: True when more must follow, None when it completes, False when it does not belong."""
        expected = self.expected[len(self.lines)]
        last = len(self.lines) == len(self.expected) - 1
        if line.raw != expected and not (last and line.raw.startswith(expected)):
            return False
        self.lines.append(line)
        return None if last else True


def ends_with_id(message: bytes, first_line: bytes) -> bool:
    """Whether a message may break off after the first line of a client id that holds line breaks."""
    if first_line:
        return message.endswith(first_line)
    return not message or message.endswith(b" ")
