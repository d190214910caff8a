"""The policer over columns must equal a token bucket fed one event at a time."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.engine.clock import SECOND, SteadyClock
from topicwarden.engine.gcra import MAX_LIMIT, police
from topicwarden.engine.grouping import group_rows


def plain(
    slot: list[int], time: list[int], cost: list[int], limit: list[int], count: list[int], tat: list[int]
) -> list[int]:
    """One event after the other, as the definition says."""
    excess = []
    for key, now, one, most, times in zip(slot, time, cost, limit, count, strict=True):
        over = 0
        for _ in range(times):
            level = max(tat[key], now)
            if level + one <= now + most:
                tat[key] = level + one
            else:
                over += 1
        excess.append(over)
    return excess


rows = st.tuples(
    st.integers(0, 5),  # slot
    st.integers(-3, 40),  # time step
    st.integers(1, 60),  # cost
    st.integers(1, 4),  # count
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(rows, max_size=120),
    st.lists(st.integers(0, 200), min_size=6, max_size=6),
    st.lists(st.integers(0, 120), max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_columns_police_as_one_event_at_a_time_however_they_are_cut(
    events: list[tuple[int, int, int, int]], limits: list[int], cuts: list[int], counted: bool, uniform: bool
) -> None:
    slot = np.array([e[0] for e in events], np.int64)
    time = np.clip(100 + np.cumsum([e[1] for e in events]), 0, None).astype(np.int64)
    cost = np.array([20 if uniform else e[2] for e in events], np.int64)
    count = np.array([e[3] if counted else 1 for e in events], np.int64)
    limit = np.array(limits, np.int64)[slot]
    tat = np.zeros(6, np.int64)
    got: list[int] = []
    edges = [0, *sorted(min(c, len(events)) for c in cuts), len(events)]
    for a, b in itertools.pairwise(edges):
        part = slice(a, b)
        got += police(slot[part], time[part], cost[part], limit[part], tat, count[part] if counted else None).tolist()
    expected_tat = [0] * 6
    expected = plain(slot.tolist(), time.tolist(), cost.tolist(), limit.tolist(), count.tolist(), expected_tat)
    assert got == expected
    assert tat.tolist() == expected_tat


def test_many_violating_keys_replay_in_step_and_agree() -> None:
    random = np.random.default_rng(1)
    slot = random.integers(0, 200, 4000)
    time = np.cumsum(random.integers(0, 50, 4000))
    for cost in (np.full(4000, 9000), random.integers(1, 20_000, 4000)):
        limit = np.full(4000, 20_000)
        tat, expected_tat = np.zeros(200, np.int64), [0] * 200
        got = police(slot, time, cost, limit, tat)
        assert got.tolist() == plain(
            slot.tolist(), time.tolist(), cost.tolist(), limit.tolist(), [1] * 4000, expected_tat
        )
        assert got.sum() > 1000
        assert tat.tolist() == expected_tat


def test_sums_that_would_leave_64_bits_are_still_exact() -> None:
    slot = np.zeros(64, np.int64)
    time = np.arange(64, dtype=np.int64) + 1_700_000_000 * SECOND
    cost = np.full(64, MAX_LIMIT // 3)
    limit = np.full(64, MAX_LIMIT - 1)
    tat = np.zeros(1, np.int64)
    assert police(slot, time, cost, limit, tat).tolist() == [0, 0, 0] + [1] * 61
    count = np.full(64, 2**32 - 1)
    tat = np.zeros(1, np.int64)
    assert police(slot, time, cost, limit, tat, count).tolist()[:2] == [2**32 - 4, 2**32 - 1]


def test_far_apart_times_of_many_keys_take_the_long_way_and_agree() -> None:
    slot = np.tile(np.arange(8), 4)
    time = np.repeat(np.array([0, 1 << 60, 5, 1 << 60]), 8)
    cost = np.full(32, 10)
    limit = np.full(32, 10)
    tat, expected = np.zeros(8, np.int64), [0] * 8
    assert police(slot, time, cost, limit, tat).tolist() == plain(
        slot.tolist(), time.tolist(), cost.tolist(), limit.tolist(), [1] * 32, expected
    )


@given(st.lists(st.integers(0, 5), max_size=50), st.booleans())
def test_groups_keep_row_order(keys: list[int], huge: bool) -> None:
    key = np.array(keys, np.int64) + ((1 << 61) if huge else 0)
    order, starts = group_rows(key)
    assert order.tolist() == sorted(range(len(keys)), key=lambda row: (keys[row], row))
    assert len(starts) == len(set(keys))


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([0, 1, SECOND, -SECOND // 2, -SECOND - 1, -5000 * SECOND, 4000 * SECOND]), max_size=40),
    st.lists(st.integers(0, 40), max_size=3),
)
def test_steady_time_does_not_depend_on_the_cuts_and_never_goes_back_more_than_a_second(
    steps: list[int], cuts: list[int]
) -> None:
    time = 1_700_000_000 * SECOND + np.cumsum(np.array([0, *steps], np.int64))
    whole, back = SteadyClock().advance(time)
    clock = SteadyClock()
    edges = [0, *sorted(min(c, len(time)) for c in cuts), len(time)]
    parts = [clock.advance(time[a:b]) for a, b in itertools.pairwise(edges)]
    assert np.concatenate([p[0] for p in parts]).tolist() == whole.tolist()
    assert np.concatenate([p[1] for p in parts]).tolist() == back.tolist()
    assert (np.maximum.accumulate(whole) - whole <= SECOND).all()


def test_a_clock_set_back_does_not_stop_the_meters() -> None:
    hour = 3600 * SECOND
    start = 1_700_000_000 * SECOND
    steady, back = SteadyClock().advance(np.array([start, start - hour, start - hour + SECOND], np.int64))
    assert (steady - start).tolist() == [0, 0, SECOND]
    assert back.tolist() == [0, hour, 0]


def test_a_clock_that_swings_does_not_run_away() -> None:
    start = 1_700_000_000 * SECOND
    swing = np.tile(np.array([start, start + 100_000 * 3600 * SECOND], np.int64), 500)
    steady, _ = SteadyClock().advance(swing)
    assert int(steady.max()) == start + 100_000 * 3600 * SECOND
