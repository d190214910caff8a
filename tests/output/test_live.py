"""The terminal while watching, through a real pseudo-terminal."""

from __future__ import annotations

import io
import os
import termios
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from topicwarden.findings import Severity
from topicwarden.output import Live, Status, TextSink, make_sink
from topicwarden.output.live import status_text

from .samples import finding, many, summary
from .screen import terminal

STATUS = Status(1_234_567, 1234.4, 12, {Severity.HIGH: 2, Severity.LOW: 1}, 1_500_000, 0, 0)


@pytest.fixture(autouse=True)
def _terminal_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_findings_scroll_above_one_status_line() -> None:
    with terminal(80) as tty, Live(TextSink(tty.stream), tty.stream) as live:
        live.status(STATUS)
        live.opened(finding())
        live.status(STATUS)
        live.updated(finding(count=10_000))
        live.message("the broker was restarted")
        lines = tty.update().lines
    assert lines[0].startswith("HIGH      TW201 publish.outside-policy")
    assert lines[-3].endswith("again: 10 000 times by now, on 2 names")
    assert lines[-2] == "the broker was restarted"
    assert lines[-1] == "1 234 events/s | findings: 2 high, 1 low | lag 1 ms | 12 clients"
    assert sum("events/s" in line for line in lines) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_of_the_status_line_stays_after_ctrl_c_or_an_exception(error: type[BaseException]) -> None:
    with terminal(80) as tty:
        before = termios.tcgetattr(tty.stream)
        with pytest.raises(error), Live(TextSink(tty.stream), tty.stream) as live:  # noqa: PT012 - the block is the case
            live.status(STATUS)
            live.opened(finding())
            raise error
        assert termios.tcgetattr(tty.stream) == before
        lines = tty.update().lines
    assert lines[-1] == ""
    assert not any("events/s" in line for line in lines)


def test_even_when_killed_the_prompt_overwrites_the_line() -> None:
    with terminal(80) as tty:
        Live(TextSink(tty.stream), tty.stream).status(STATUS)
        screen = tty.update()
        assert (screen.row, screen.column) == (0, 0)


@pytest.mark.parametrize("narrower", [40, 20, 50])
def test_making_the_window_narrower_leaves_no_rest_of_the_old_line(narrower: int) -> None:
    with terminal(200) as tty, Live(TextSink(tty.stream), tty.stream) as live:
        live.status(STATUS)
        tty.resize(narrower)
        assert len(tty.screen.lines) > 1, "the old line was folded"
        live.status(STATUS)
        assert len(tty.update().lines) == 1
        assert len(tty.screen.lines[0]) < narrower


def test_findings_follow_the_width_of_the_window() -> None:
    with terminal(200) as tty:
        sink = TextSink(tty.stream)
        tty.resize(40)
        sink.opened(finding())
        assert tty.update().lines[:2] == ["HIGH      TW201 publish.outside-policy", "  2026-11-23T09:58:09.123Z"]


def test_the_summary_takes_the_place_of_the_status_line() -> None:
    with terminal(80) as tty, Live(TextSink(tty.stream), tty.stream) as live:
        live.status(STATUS)
        live.finish(summary())
        lines = tty.update().lines
    assert not any("events/s" in line for line in lines)
    assert lines[1].startswith("topicwarden watch: 2026-11-23T09:58:00Z to 2026-11-23T11:00:03Z")


def test_piped_there_is_no_status_line_and_no_escape_sequence_at_all() -> None:
    out, err = io.StringIO(), io.StringIO()
    with Live(make_sink("text", out), err) as live:
        live.status(STATUS)
        for item in many():
            live.opened(item)
            live.status(STATUS)
        live.finish(summary())
    assert err.getvalue() == ""
    assert out.getvalue().replace("\n", "").isprintable()


def test_with_findings_piped_the_status_still_shows_on_the_terminal() -> None:
    out = io.StringIO()
    with terminal(80) as tty, Live(make_sink("jsonl", out), tty.stream) as live:
        live.status(STATUS)
        live.opened(finding())
        assert tty.update().lines == ["1 234 events/s | findings: 2 high, 1 low | lag 1 ms | 12 clients"]
    assert out.getvalue().startswith('{"type":"finding"')


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_move_its_cursor_gets_no_status_line(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    with terminal(80) as tty, Live(TextSink(tty.stream), tty.stream) as live:
        live.status(STATUS)
        assert tty.update().lines == [""]


def test_no_color_is_honoured() -> None:
    with terminal(80) as tty:
        assert "\x1b[" in _written(tty.stream, tty.master)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NO_COLOR", "1")
            assert "\x1b" not in _written(tty.stream, tty.master)
            patch.setenv("NO_COLOR", "")
            assert "\x1b[" in _written(tty.stream, tty.master)


def _written(stream: TextIO, master: int) -> str:
    TextSink(stream).opened(finding())
    written = ""
    while "times, exact" not in written:  # a terminal hands over what it has, in as many pieces as it likes
        written += os.read(master, 65536).decode()
    return written


def test_a_terminal_that_went_away_ends_the_status_line_not_the_findings() -> None:
    out = io.StringIO()
    with terminal(80) as tty, open(os.dup(tty.stream.fileno()), "w", buffering=1) as gone:  # noqa: PTH123 - a descriptor
        live = Live(make_sink("jsonl", out), gone)
        live.status(STATUS)
        gone.close()
        live.opened(finding())
        live.status(STATUS)
    assert '"opened"' in out.getvalue()


@given(
    st.builds(
        Status,
        st.integers(0, 10**15),
        st.floats(0, 1e9),
        st.integers(0, 10**6),
        st.dictionaries(st.sampled_from(Severity), st.integers(0, 20_000)),
        st.integers(-(10**12), 10**18),
        st.integers(0, 10**12),
        st.integers(0, 10**6),
    ),
    st.integers(20, 200),
)
def test_the_status_fits_any_width_and_never_hides_losses(status: Status, width: int) -> None:
    line = status_text(status, width)
    assert cell_len(line) <= width
    assert ("LOST" in line) == (status.gaps > 0)
