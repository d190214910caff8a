"""Selectors, limits, coverage: small parts, each against a plain definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.engine.gcra import police
from topicwarden.learn.coverage import Coverage, completeness, sample_coverage
from topicwarden.learn.limits import rate_for, size_for
from topicwarden.learn.members import GLOB_MEMBERS, selectors, selects
from topicwarden.policy.values import parse_rate, parse_size

SECOND = 1_000_000_000
SENSORS = [f"sensor-{n}" for n in range(20)]


def test_a_glob_stands_for_names_that_begin_alike() -> None:
    assert selectors([*SENSORS, "gw"], ["billing"]) == (["sensor-*"], ["gw"])
    assert selectors([f"dev{n:04d}" for n in range(20)], []) == (["dev*"], [])


def test_a_glob_selects_nobody_else_who_was_seen() -> None:
    assert selectors(SENSORS, ["sensor-x"]) == ([], sorted(SENSORS))


def test_few_names_are_listed() -> None:
    assert selectors(SENSORS[: GLOB_MEMBERS - 1], []) == ([], sorted(SENSORS[: GLOB_MEMBERS - 1]))


NAMES = st.from_regex(r"(sensor|gw|s)[-_.]?(a|b)?-?[0-9]{1,2}", fullmatch=True)


@given(st.sets(NAMES, min_size=1, max_size=60), st.sets(NAMES, max_size=10))
def test_selectors_select_exactly_the_users(users: set[str], others: set[str]) -> None:
    globs, names = selectors(users, others)
    assert all(selects(globs, names, user) for user in users)
    assert not any(selects(globs, names, user) for user in others - users)
    assert set(names) <= users


@given(
    st.lists(st.tuples(st.integers(0, 400 * SECOND), st.integers(1, 9)), min_size=1, max_size=80),
    st.integers(0, 100 * SECOND),
)
def test_limits_never_accuse_what_they_were_learnt_from(events: list[tuple[int, int]], start: int) -> None:
    time = np.array(sorted(start + at for at, _ in events), np.int64)
    count = np.array([number for _, number in events], np.int64)
    most = [
        int(np.bincount(np.unique(time // period, return_inverse=True)[1], weights=count).max())
        for period in (SECOND, 60 * SECOND)
    ]
    text, burst = rate_for(*most)
    rate = parse_rate(text)
    one, slot = rate.cost_ns(1), np.zeros(len(time), np.int64)
    limit = np.full(len(time), rate.tolerance_ns(burst) + one)
    assert not police(slot, time, np.full(len(time), one), limit, np.zeros(1, np.int64), count).any()


@pytest.mark.parametrize(
    ("most", "expected"),
    [((1, 1), "2/min"), ((1, 60), "120/min"), ((10, 600), "20/s"), ((100, 100), "200/min"), ((2, 120), "4/s")],
)
def test_the_period_of_a_rate_is_the_one_that_says_most(most: tuple[int, int], expected: str) -> None:
    assert rate_for(*most)[0] == expected


@given(st.integers(0, 1 << 30))
def test_sizes_have_headroom_and_read_back(largest: int) -> None:
    text = size_for(largest)
    assert text is not None
    assert 2 * largest <= parse_size(text) <= max(64, 4 * largest)


def test_an_unknown_size_gives_no_limit() -> None:
    assert size_for(-1) is None


def test_coverage_is_high_when_all_templates_are_common_and_all_members_show_them() -> None:
    assert sample_coverage([50, 50, 40], 50) == 1.0
    assert completeness([(50, [50, 50, 40])]) == pytest.approx(140 / 150)


def test_coverage_is_low_when_members_show_half() -> None:
    assert Coverage(1.0, completeness([(100, [50, 51, 49])])).estimate == pytest.approx(0.5)


def test_coverage_is_low_when_most_templates_are_one_accounts() -> None:
    assert sample_coverage([1] * 30, 30) < 0.05
    assert sample_coverage([1], 1) == 0.0
    assert sample_coverage([], 0) == 0.0
    assert completeness([]) == 0.0


@given(st.lists(st.integers(1, 50), min_size=1, max_size=50))
def test_coverage_is_a_share(holders: list[int]) -> None:
    assert 0 <= sample_coverage(holders, max(holders)) <= 1
