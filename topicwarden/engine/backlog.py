"""How far each client is ahead of a rate: a bucket that leaks, over many keys at once, with a bound on what it holds.

A key has a level `tat` (ns). An event of cost c at time t sets `tat = min(max(tat, t) + c, t + most)`; what it is ahead
by is `tat - t`, at most `most`. So, unlike in `gcra.police`, an event too many counts, and after any flood the key is
back to normal within `most`.

As long as nothing reaches the bound, all keys are scanned by one running maximum. The keys that do are scanned by
composing functions: each event is `x -> min(max(x + c, t + c), t + most)`, which is adding and then clipping, and to
add and clip twice is to add and clip once. The result never differs from one event at a time. Times need not be sorted;
they are in [0, 2**61), `most` below 2**60.
"""

from __future__ import annotations

import numpy as np

from topicwarden.engine.gcra import MAX_LIMIT, running_maximum
from topicwarden.engine.grouping import Int64, group_rows

_FAR = np.int64(1 << 61)
"""Adding this brings every level above every bound."""


def ahead(slot: Int64, time_ns: Int64, cost: Int64, most: int, tat: Int64) -> Int64:
    """Return by how many ns each row's key is ahead of its rate right after the row, and move `tat` on.

    `slot`: which entry of `tat` each of the n rows uses. `cost`: ns, at least 1. `tat` is changed in place.
    """
    rows = len(slot)
    if not rows:
        return np.zeros(0, np.int64)
    order, starts = group_rows(slot)
    time, costs = time_ns[order], np.minimum(cost[order], most)
    lengths = np.diff(starts, append=rows)
    group = np.repeat(np.arange(len(starts)), lengths)
    slots = slot[order[starts]]
    before = tat[slots]
    # What reaches the bound for certain might also leave int64 in a plain sum.
    full = np.add.reduceat(costs.astype(np.float64), starts) > float(MAX_LIMIT)
    spent = np.cumsum(np.where(full[group], 0, costs) if full.any() else costs)
    spent -= costs if not full.any() else np.where(full[group], 0, costs)
    spent -= spent[starts][group]
    level = time - spent
    level[starts] = np.maximum(level[starts], before)
    after = running_maximum(level, group, len(starts)) + spent + costs
    full |= np.logical_or.reduceat(after > time + most, starts)
    if full.any():
        chosen = full[group]
        after[chosen] = _scan(time[chosen], costs[chosen], group[chosen], before[group[chosen]], most)
    tat[slots] = after[starts + lengths - 1]
    found = np.empty(rows, np.int64)
    found[order] = after - time
    return found


def _scan(time: Int64, cost: Int64, group: Int64, before: Int64, most: int) -> Int64:
    """Return each row's level after it, by composing clipped additions over twice as many rows at each step."""
    add, low, high = cost.copy(), time + cost, time + most
    np.minimum(low, high, out=low)
    step = 1
    while step < len(time):
        same = np.flatnonzero(group[step:] == group[:-step])
        if not len(same):
            break
        first, then = same, same + step
        # Composed from copies: every row at this step takes its predecessor as it was before it.
        low_then, high_then, add_then = low[then], high[then], add[then]
        new_low = np.clip(low[first] + add_then, low_then, high_then)
        new_high = np.clip(high[first] + add_then, low_then, high_then)
        new_add = np.minimum(add[first] + add_then, _FAR)
        add[then], low[then], high[then] = new_add, new_low, new_high
        step *= 2
    levels: Int64 = np.clip(before + add, low, high)
    return levels
