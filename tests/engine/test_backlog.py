"""How far keys are ahead of their rates equals one event at a time, whatever reaches the bound."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.engine.backlog import ahead


def plainly(
    slot: list[int], time: list[int], cost: list[int], most: int, tat: list[int]
) -> tuple[list[int], list[int]]:
    found = []
    for key, now, one in zip(slot, time, cost, strict=True):
        tat[key] = min(max(tat[key], now) + one, now + most)
        found.append(tat[key] - now)
    return found, tat


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_it_equals_one_event_at_a_time_however_events_are_cut(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 50))
    scale = data.draw(st.sampled_from([1, 10**9, 2**40]))
    keys = data.draw(st.integers(1, 4))

    def numbers(low: int, high: int) -> list[int]:
        return data.draw(st.lists(st.integers(low, high), min_size=rows, max_size=rows))

    slot, time, cost = numbers(0, keys - 1), numbers(0, 300), numbers(1, data.draw(st.sampled_from([3, 40, 300])))
    time, cost = [scale * t for t in time], [scale * c for c in cost]
    most = scale * data.draw(st.integers(1, 150))
    start = [scale * n for n in data.draw(st.lists(st.integers(0, 400), min_size=keys, max_size=keys))]
    expected, last = plainly(slot, time, cost, most, list(start))
    cut = data.draw(st.integers(0, rows))
    tat, found = np.array(start, np.int64), list[int]()
    for part in (slice(0, cut), slice(cut, rows)):
        keyed, at, costs = (np.array(column[part], np.int64) for column in (slot, time, cost))
        found += ahead(keyed, at, costs, most, tat).tolist()
    assert found == expected
    assert tat.tolist() == last


def test_a_flood_of_the_largest_costs_stays_inside_64_bits() -> None:
    rows, most = 1 << 17, (1 << 60) - 1
    tat = np.zeros(2, np.int64)
    time = np.full(rows, (1 << 61) - 1)
    found = ahead(np.arange(rows) % 2, time, np.full(rows, most), most, tat)
    assert (found == most).all()
    assert tat.tolist() == [(1 << 61) - 1 + most] * 2
