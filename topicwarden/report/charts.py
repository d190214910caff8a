"""Charts as geometry: what stands where, in the units of an SVG's view box. A template draws it.

They are drawn by us and not by a charting library: bars and circles need no script, print sharply, weigh some hundred
bytes each, can be links to the rows behind them, and their names pass the same escaping as every other name. Nothing is
told by colour alone: each series has a pattern of its own, and its numbers stand in the table that the chart names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.output import wording
from topicwarden.report.model import Table, clock

WIDTH: Final = 760
LEFT: Final = 64
RIGHT: Final = 12
TOP: Final = 14
BARS_HEIGHT: Final = 150
FOOT: Final = 34
LEGEND: Final = 20
ROW: Final = 24
NAME_WIDTH: Final = 230
"""Columns of a bar's name, in units of the view box."""
NAME_COLUMNS: Final = 30
MAX_ROW_BARS: Final = 12


@dataclass(frozen=True, slots=True)
class Series:
    """One kind of bar, with the style class that gives it its pattern."""

    name: str
    style: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle that links to the row of its table."""

    x: float
    y: float
    width: float
    height: float
    style: str
    says: str
    """What a pointer or a screen reader is told."""
    row: int
    """The row's place in its table, from 0."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A text, and for an axis the line it stands at."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of the legend."""

    x: float
    y: float
    style: str
    name: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of a table."""

    id: str
    title: str
    summary: str
    """The chart in a sentence, for who cannot see it."""
    width: int
    height: float
    table: str
    bars: tuple[Bar, ...]
    series: tuple[Series, ...]
    legend: tuple[Key, ...]
    base: float
    """Where the bars stand, or the axis ends."""
    left: float
    right: float
    across: tuple[Mark, ...] = ()
    """Labels under the bars."""
    up: tuple[Mark, ...] = ()
    """The scale: lines with their numbers."""
    names: tuple[Mark, ...] = ()
    """Names before lying bars: hostile."""
    ends: tuple[Mark, ...] = ()
    """Numbers behind lying bars."""


def over_time(
    chart_id: str,
    title: str,
    table: Table,
    times: Sequence[int],
    step_said: str,
    series: Sequence[tuple[str, str, str]],
    said: str,
) -> Chart | None:
    """Return stacked bars, one for each step of time; None when all is zero.

    The table's first column is when a step begins; steps that it leaves out are zero. `series`: column key, name,
    style; `said`: what is counted, such as `findings`; `step_said`: how long a step is, in words.
    """
    rows = {int(_number(cell)): row for row, cell in enumerate(table.column(table.columns[0].key))}
    cells = [table.column(key) for key, _, _ in series]
    columns = [[_number(column[rows[time]]) if time in rows else 0 for time in times] for column in cells]
    totals = [sum(values) for values in zip(*columns, strict=True)]
    highest = max(totals, default=0)
    if not highest:
        return None
    scale = nice_scale(highest)
    top = scale[-1]
    base = TOP + BARS_HEIGHT
    step = (WIDTH - LEFT - RIGHT) / len(times)
    width = max(step * 0.78, 0.5)
    bars = []
    for place, time_ns in enumerate(times):
        y = float(base)
        for values, (_, name, style) in zip(columns, series, strict=True):
            value = values[place]
            if not value:
                continue
            height = max(value / top * BARS_HEIGHT, 1.0)
            y -= height
            says = f"{clock(time_ns)}: {wording.number(int(value))} {name if name == said else f'{name} {said}'}"
            bars.append(
                Bar(round(LEFT + place * step + (step - width) / 2, 2), round(y, 2), round(width, 2), round(height, 2),
                    style, says, rows[time_ns])
            )  # fmt: skip
    up = tuple(Mark(LEFT, round(base - value / top * BARS_HEIGHT, 2), wording.number(value)) for value in scale)
    peak = totals.index(highest)
    summary = (
        f"{wording.number(int(sum(totals)))} {said} in {wording.counted(len(times), 'step')} of "
        f"{step_said}; most, {wording.number(int(highest))}, in the one that begins {clock(times[peak])}Z"
    )
    return Chart(
        chart_id,
        title,
        summary,
        WIDTH,
        base + FOOT + (LEGEND if len(series) > 1 else 0),
        table.id,
        tuple(bars),
        _series(series),
        _legend(series, LEFT, base + FOOT - 2),
        base,
        LEFT,
        WIDTH - RIGHT,
        across=tuple(_time_marks(times, step, base + 16)),
        up=up,
    )


def by_row(
    chart_id: str,
    title: str,
    table: Table,
    name_keys: Sequence[str],
    apart_key: str,
    series: Sequence[tuple[str, str, str]],
    said: str,
) -> Chart | None:
    """Return one lying bar for each of the first rows of a table, named by the first of these columns that has a value.

    Where two have the same name, a further column, `apart_key`, tells them apart. None when all is zero.
    """
    columns = [[_number(cell) for cell in table.column(key)][:MAX_ROW_BARS] for key, _, _ in series]
    named = zip(*(table.column(key) for key in name_keys), strict=True)
    names = [next((str(cell) for cell in cells if cell), "(no name)") for cells in named][:MAX_ROW_BARS]
    others = table.column(apart_key)[:MAX_ROW_BARS]
    often = Counter(names)
    apart = [f"{name} ({cell})" if often[name] > 1 else name for name, cell in zip(names, others, strict=True)]
    totals = [sum(values) for values in zip(*columns, strict=True)]
    highest = max(totals, default=0)
    if not highest:
        return None
    scale = nice_scale(highest)
    room = WIDTH - NAME_WIDTH - RIGHT - 70
    bars, heads, ends = [], [], []
    for place, name in enumerate(apart):
        y = TOP + place * ROW
        x = float(NAME_WIDTH)
        heads.append(Mark(NAME_WIDTH - 8, y + 14, name))
        for values, (_, kind, style) in zip(columns, series, strict=True):
            if not values[place]:
                continue
            width = max(values[place] / scale[-1] * room, 1.0)
            says = f"{wording.number(int(values[place]))} {kind if kind == said else f'{kind} {said}'}"
            bars.append(Bar(round(x, 2), y + 3, round(width, 2), ROW - 8, style, says, place))
            x += width
        ends.append(Mark(round(x + 6, 2), y + 14, wording.number(int(totals[place]))))
    height = TOP + len(names) * ROW + 6
    return Chart(
        chart_id,
        title,
        f"The first {len(names)} rows of the table, as bars",
        WIDTH,
        height + (LEGEND if len(series) > 1 else 0),
        table.id,
        tuple(bars),
        _series(series),
        _legend(series, NAME_WIDTH, height + 2),
        height - 6,
        NAME_WIDTH,
        WIDTH - RIGHT,
        names=tuple(heads),
        ends=tuple(ends),
    )


def nice_scale(highest: float) -> list[int]:
    """Return 3 to 6 round whole numbers from 0 to at or above the highest."""
    if highest <= 4:
        return list(range(max(int(-(-highest // 1)), 1) + 1))
    size = 1
    while True:
        for factor in (1, 2, 5):
            step = factor * size
            if highest <= step * 5:
                return [step * number for number in range(int(-(-highest // step)) + 1)]
        size *= 10


def _time_marks(times: Sequence[int], step: float, y: float) -> list[Mark]:
    """Return up to six labels under the bars: days where steps are days, else times, with the day where it begins."""
    if not times:
        return []
    every = max(-(-len(times) // 6), 1)
    long = len(times) > 1 and times[1] - times[0] >= 86_400 * 10**9
    short = len(times) > 1 and times[1] - times[0] < 60 * 10**9
    marks, day = [], ""
    for place in range(0, len(times), every):
        stamp = wording.timestamp(times[place], 1)
        of_day = stamp[11:19] if short else stamp[11:16]
        text = stamp[:10] if long or stamp[:10] != day else of_day
        if not long and stamp[:10] != day:
            text = f"{stamp[:10]} {of_day}"
        day = stamp[:10]
        marks.append(Mark(round(LEFT + (place + 0.5) * step, 2), y, text))
    return marks


def _series(series: Sequence[tuple[str, str, str]]) -> tuple[Series, ...]:
    return tuple(Series(name, style) for _, name, style in series)


def _legend(series: Sequence[tuple[str, str, str]], left: float, y: float) -> tuple[Key, ...]:
    if len(series) < 2:
        return ()
    return tuple(Key(left + place * 120, y, style, name) for place, (_, name, style) in enumerate(series))


def _number(cell: object) -> float:
    return cell if isinstance(cell, int | float) else 0
