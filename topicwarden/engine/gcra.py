"""Exact rate policing of whole columns of events: the generic cell rate algorithm over many keys at once.

Each key has a theoretical arrival time `tat`. An event of cost c (ns of the key's allowance) at time t conforms when
`max(tat, t) + c <= t + limit`; then `tat` becomes `max(tat, t) + c`. An event that does not conform takes nothing: this
is a token bucket of `limit` ns depth, the virtual scheduling algorithm of ITU-T I.371 (with I.371's tolerance being
`limit - c`). A row that stands for several events counts as that many events at the same time.

As long as nothing violates, the recurrence is a running maximum over `t - cost so far`, so all keys are scanned at
once. What comes after a key's first violation is replayed exactly; the result never differs from one event at a time.

Times need not be sorted. All sums stay inside int64 when times and tats are in [0, 2**61) and limits below 2**60.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import numpy as np

from topicwarden.engine.grouping import Int64, group_rows

MAX_TIME: Final = 1 << 61
MAX_LIMIT: Final = 1 << 60
_WIDE: Final = 48
"""While at least so many keys are replayed, one vector step over all of them beats a loop over each."""


def police(slot: Int64, time_ns: Int64, cost: Int64, limit: Int64, tat: Int64, count: Int64 | None = None) -> Int64:
    """Return how many of each row's events do not conform, and move `tat` on.

    `slot`: which entry of `tat` each of the n rows uses. `time_ns`: in [0, 2**61). `cost`: ns for one event, at least
    1. `limit`: ns, at least 0 (a cost above it never conforms). `count`: events each row stands for, at least 1; None:
    one each. `tat` is changed in place.
    """
    rows = len(slot)
    excess = np.zeros(rows, np.int64)
    if not rows:
        return excess
    order, starts = group_rows(slot)
    time, limits = time_ns[order], limit[order]
    costs = np.minimum(cost[order], limits + 1)
    counts = None if count is None else count[order]
    totals = costs if counts is None else np.where(counts > limits // costs, limits + 1, costs * counts)
    lengths = np.diff(starts, append=rows)
    group = np.repeat(np.arange(len(starts)), lengths)
    slots = slot[order[starts]]
    before = tat[slots]

    # A key that spends this much in one batch violates for certain, and its sum might leave int64: replay it whole.
    huge = np.add.reduceat(totals.astype(np.float64), starts) > float(MAX_LIMIT)
    if huge.any():
        totals = np.where(huge[group], 0, totals)
    spent = np.cumsum(totals) - totals
    spent -= spent[starts][group]
    level = time - spent
    level[starts] = np.maximum(level[starts], before)
    after = running_maximum(level, group, len(starts)) + spent + totals
    violating = after > time + limits
    ends = starts + lengths
    tat[slots] = after[ends - 1]

    where = np.flatnonzero(violating)
    bad, first = np.unique(group[where], return_index=True)
    begin = where[first]
    x = np.where(begin > starts[bad], after[begin - 1], before[bad])
    if huge.any():
        whole = np.flatnonzero(huge)
        keep = ~huge[bad]
        bad, begin, x = (
            np.append(bad[keep], whole),
            np.append(begin[keep], starts[whole]),
            np.append(x[keep], before[whole]),
        )
    if len(bad):
        sorted_excess = np.zeros(rows, np.int64)
        tat[slots[bad]] = _replay(begin, ends[bad], x, time, costs, limits, counts, sorted_excess)
        excess[order] = sorted_excess
    return excess


def running_maximum(values: Int64, group: Int64, groups: int) -> Int64:
    """Return the running maximum of `values` that starts anew with each group; may overwrite `values`."""
    low = int(values.min())
    span = int(values.max()) - low + 1
    if span * groups < 1 << 62:
        # Each group is lifted above everything in the one before, so that one running maximum serves all.
        lift = group * span
        values += lift
        values -= low
        np.maximum.accumulate(values, out=values)
        values -= lift
        values += low
        return values
    step = 1
    while step < len(values):
        same = group[step:] == group[:-step]
        if not same.any():
            break
        values[step:] = np.where(same, np.maximum(values[step:], values[:-step]), values[step:])
        step *= 2
    return values


def _replay(
    begin: Int64, end: Int64, x: Int64, time: Int64, cost: Int64, limit: Int64, count: Int64 | None, excess: Int64
) -> Int64:
    """Police the row ranges [begin, end), each from its tat `x`, one event after the other; return the last tats."""
    longest_first = np.argsort(begin - end, kind="stable")
    begin, length, x = begin[longest_first], (end - begin)[longest_first], x[longest_first].copy()
    step, active = 0, len(begin)
    while True:
        active = int(np.searchsorted(-length[:active], -step, side="left"))
        if active < _WIDE:
            break
        rows = begin[:active] + step
        now = time[rows]
        level = np.maximum(x[:active], now)
        passed = np.clip((now + limit[rows] - level) // cost[rows], 0, 1 if count is None else count[rows])
        x[:active] = np.where(passed > 0, level + passed * cost[rows], x[:active])
        excess[rows] = (1 if count is None else count[rows]) - passed
        step += 1
    for i in range(active):
        part = slice(int(begin[i]) + step, int(begin[i] + length[i]))
        counts = None if count is None else count[part]
        x[i], excess[part] = _replay_one(int(x[i]), time[part], cost[part], limit[part], counts)
    last = np.empty_like(x)
    last[longest_first] = x
    return last


def _replay_one(x: int, time: Int64, cost: Int64, limit: Int64, count: Int64 | None) -> tuple[int, Int64]:
    """Police one key's rows; where they are uniform and in order of time, leap over each run that does not conform."""
    rows = len(time)
    excess = np.ones(rows, np.int64)
    if count is None and (cost[0] == cost).all() and (limit[0] == limit).all() and (time[1:] >= time[:-1]).all():
        one, most, at, times = int(cost[0]), int(limit[0]), 0, time.tolist()
        while one <= most and (at := bisect_left(times, x + one - most, at)) < rows:
            now = times[at]
            x = max(x, now) + one
            excess[at] = 0
            at += 1
        return x, excess
    result = []
    counts = [1] * rows if count is None else count.tolist()
    for now, one, most, times_over in zip(time.tolist(), cost.tolist(), limit.tolist(), counts, strict=True):
        level = max(x, now)
        passed = min(max((now + most - level) // one, 0), times_over)
        if passed:
            x = level + passed * one
        result.append(times_over - passed)
    excess[:] = result
    return x, excess
