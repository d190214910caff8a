"""What was lost is told once, with how much; and what cannot be seen by what one is allowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from topicwarden.errors import ObservationError, Problem
from topicwarden.events import EventBuilder, Tables
from topicwarden.sources import Counters
from topicwarden_collectors.host.live_blind_spots import Means, live_blind_spots
from topicwarden_collectors.host.live_losses import Losses


@given(st.lists(st.integers(0, 50), max_size=20))
def test_a_growing_count_is_told_as_what_it_grew_by(steps: list[int]) -> None:
    counters, builder = Counters(), EventBuilder(Tables())
    losses = Losses("h", counters, builder)
    total = 0
    for step in steps:
        total += step
        losses.total(total, "connections", "too many")
        losses.overflowed(total, "processes")
        losses.counted(total, "attributions", "too many")
    notices = builder.take().notices
    for scope, code in (("connections", "TW901"), ("processes", "TW902"), ("attributions", "TW901")):
        told = [notice for notice in notices if notice.scope == scope]
        assert sum(notice.count for notice in told) == total
        assert {notice.code for notice in told} <= {code}
        assert all(notice.count > 0 and notice.broker == "h" and notice.evidence for notice in told)
    # What another counts is not counted twice, and an overflow loses no event.
    assert counters.lost == total
    assert counters.gaps == sum(step > 0 for step in steps)


REFUSED = ObservationError(Problem("the kernel does not tell us", hint="ask root"))


@given(
    st.builds(
        Means,
        events=st.booleans(),
        events_refused=st.sampled_from([None, REFUSED]),
        ends=st.booleans(),
        sockets=st.booleans(),
        privileged=st.booleans(),
        attributed=st.booleans(),
        ports=st.frozensets(st.integers(1, 65535), min_size=1, max_size=3),
    )
)
def test_whatever_is_missing_is_said_and_how_to_get_it(means: Means) -> None:
    spots = live_blind_spots(means)
    words = [spot.what for spot in spots]
    assert all(what and "\n" not in what and not what.endswith(".") for what in words)
    assert len(set(words)) == len(words)
    assert any(what.startswith("processes that live shorter") for what in words) is not means.events
    assert any("other users' processes the path" in what for what in words) is not means.privileged
    assert any("neither SOCK_DIAG nor" in what for what in words) is not means.sockets
    if means.sockets:
        assert any("between two looks" in what for what in words) is not means.ends
    if not means.events and means.events_refused is not None:
        assert any(spot.fix == "ask root" for spot in spots)
