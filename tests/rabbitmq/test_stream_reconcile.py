from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.events import Certainty, Outcome
from topicwarden_collectors.rabbitmq import stream_layout as layout
from topicwarden_collectors.rabbitmq.stream_decode import Named
from topicwarden_collectors.rabbitmq.stream_layout import Method, Permission
from topicwarden_collectors.rabbitmq.stream_reconcile import (
    OTHER,
    SETTLED_US,
    Reconciler,
    _fits,
    other_row,
    rows_of,
)

START = 1_700_000_000_000_000
RESOURCES: list[Named | None] = [
    None,
    Named(1, layout.KEY, "topic", "amq.topic", "a.b", False),
    Named(2, layout.KEY, "topic", "amq.topic", "c", False),
    Named(3, layout.KEY, None, "other", "a.b", False),
    Named(4, layout.QUEUE, None, "", "q", False),
    Named(5, layout.EXCHANGE_ITSELF, "topic", "", "amq.topic", False),
    Named(6, layout.BINDING, "topic", "amq.topic", "a.#", False),
    Named(7, layout.EXCHANGE_ITSELF, None, "", "other", False),
    Named(8, layout.QUEUE, None, "", "", False),
]
AB, C, ELSEWHERE, QUEUE, TOPIC_EXCHANGE, BINDING, OTHER_EXCHANGE, UNNAMED = range(1, 9)
CHANNELS = {0: 0, 1: 1, 2: 1, 3: 2, 4: 65535}


@dataclass(frozen=True)
class Happening:
    """An event of the stream."""

    actor: int
    action: int
    resource: int = 0
    method: int = 0
    outcome: int = layout.ATTEMPTED
    right: int = 0
    flags: int = 0


def publish(actor: int = 1, resource: int = AB, flags: int = 0, outcome: int = layout.ATTEMPTED) -> Happening:
    return Happening(actor, layout.PUBLISH, resource, Method.BASIC_PUBLISH, outcome, flags=flags)


def refuse(
    right: Permission, resource: int, actor: int = 1, action: int = layout.PUBLISH, method: int = 0
) -> Happening:
    return Happening(actor, action, resource, method, layout.REFUSED, right)


def bind(actor: int = 1) -> Happening:
    return Happening(actor, layout.SUBSCRIBE, BINDING, Method.QUEUE_BIND)


def declare(actor: int = 1, resource: int = QUEUE, flags: int = 0) -> Happening:
    return Happening(actor, layout.CONFIGURE, resource, Method.QUEUE_DECLARE, flags=flags)


def reconciler() -> Reconciler:
    return Reconciler(lambda number: RESOURCES[number], lambda actor: CHANNELS[actor])


def as_rows(happenings: list[Happening], first: int = 0, step_us: int = 1) -> Any:
    events = np.zeros(len(happenings), layout.EVENT)
    for i, one in enumerate(happenings):
        events[i] = (
            START + (first + i) * step_us,
            0,
            0,
            first + i,
            one.action,
            one.outcome,
            one.flags,
            one.right,
            one.method,
            0,
        )
    actor = np.array([one.actor for one in happenings], np.int32)
    resource = np.array([one.resource for one in happenings], np.int32)
    return rows_of(events, actor, resource)


Result = list[tuple[int, str, str, int]]
"""Of each row handed out: which event it was, outcome, certainty, resource."""


def shown(rows: Any) -> Result:
    return [
        (int(row["size"]), Outcome(row["outcome"]).name, Certainty(row["certainty"]).name, int(row["resource"]))
        for row in rows
    ]


def reconcile(*happenings: Happening) -> Result:
    one = reconciler()
    one.add(as_rows(list(happenings)))
    return shown(one.take(everything=True))


def test_an_attempt_that_its_actor_goes_on_after_was_allowed_exactly_and_the_last_one_by_inference() -> None:
    assert reconcile(publish(), publish(resource=C), publish(actor=2)) == [
        (0, "ALLOWED", "EXACT", AB),
        (1, "ALLOWED", "INFERRED", C),
        (2, "ALLOWED", "INFERRED", AB),
    ]


def test_a_refusal_denies_the_last_attempt_of_its_own_actor_with_the_attempts_own_resource() -> None:
    result = reconcile(publish(), publish(actor=2), publish(resource=C), refuse(Permission.WRITE, TOPIC_EXCHANGE))
    assert result == [
        (0, "ALLOWED", "EXACT", AB),
        (1, "ALLOWED", "INFERRED", AB),
        (2, "DENIED", "EXACT", C),
    ]


def test_what_still_waits_for_a_closed_channel_was_never_carried_out() -> None:
    one = reconciler()
    one.add(as_rows([publish(), refuse(Permission.WRITE, AB), publish(), publish(resource=C)]))
    assert shown(one.take(everything=True)) == [(0, "DENIED", "EXACT", AB)]
    one.add(as_rows([publish(), publish(actor=2)], first=4))
    assert shown(one.take(everything=True)) == [(5, "ALLOWED", "INFERRED", AB)]
    assert one.counts.not_carried_out == 3


def test_a_connection_is_not_closed_by_a_refusal_and_its_disconnect_is_kept_anyhow() -> None:
    disconnect = Happening(0, layout.DISCONNECT)
    assert reconcile(publish(actor=0), refuse(Permission.WRITE, AB, actor=0), publish(actor=0, resource=C)) == [
        (0, "DENIED", "EXACT", AB),
        (2, "ALLOWED", "INFERRED", C),
    ]
    assert reconcile(publish(), refuse(Permission.WRITE, AB), publish(), Happening(1, layout.DISCONNECT)) == [
        (0, "DENIED", "EXACT", AB),
        (3, "ALLOWED", "EXACT", 0),
    ]
    assert reconcile(disconnect) == [(0, "ALLOWED", "EXACT", 0)]


def test_the_further_keys_of_a_refused_publish_are_refused_with_it() -> None:
    copy = publish(resource=C, flags=layout.FURTHER_KEY)
    assert reconcile(publish(), copy, copy, refuse(Permission.WRITE, AB)) == [
        (0, "DENIED", "EXACT", AB),
        (1, "DENIED", "EXACT", C),
        (2, "DENIED", "EXACT", C),
    ]
    assert [row[2] for row in reconcile(publish(), copy, publish())] == ["EXACT", "EXACT", "INFERRED"]
    assert [row[2] for row in reconcile(publish(), copy)] == ["INFERRED", "INFERRED"]


def test_both_ends_of_a_refused_exchange_binding_are_refused() -> None:
    source = Happening(1, layout.SUBSCRIBE, BINDING, Method.EXCHANGE_BIND)
    destination = Happening(1, layout.CONFIGURE, OTHER_EXCHANGE, Method.EXCHANGE_BIND)
    refusal = refuse(Permission.WRITE, OTHER_EXCHANGE, action=layout.CONFIGURE, method=Method.EXCHANGE_BIND)
    assert [row[1] for row in reconcile(source, destination, refusal)] == ["DENIED", "DENIED"]


@pytest.mark.parametrize(
    ("attempt", "refusal"),
    [
        (publish(), refuse(Permission.WRITE, ELSEWHERE)),
        (publish(), refuse(Permission.WRITE, OTHER_EXCHANGE)),
        (publish(), refuse(Permission.CONFIGURE, QUEUE)),
        (publish(), refuse(Permission.READ, TOPIC_EXCHANGE)),
        (publish(), refuse(Permission.WRITE, QUEUE)),
        (declare(), refuse(Permission.CONFIGURE, TOPIC_EXCHANGE)),
        (declare(), refuse(Permission.CONFIGURE, QUEUE, method=Method.QUEUE_DELETE)),
        (declare(flags=layout.PASSIVE), refuse(Permission.CONFIGURE, QUEUE)),
        (Happening(1, layout.SUBSCRIBE, QUEUE, Method.BASIC_CONSUME), refuse(Permission.WRITE, QUEUE)),
        (Happening(1, layout.CONNECT), refuse(Permission.READ, 0)),
        (refuse(Permission.WRITE, AB), refuse(Permission.WRITE, AB)),
    ],
)
def test_a_refusal_that_cannot_be_the_attempts_is_an_event_of_its_own(attempt: Happening, refusal: Happening) -> None:
    rows = reconcile(attempt, refusal)
    assert rows[-1] == (1, "DENIED", "EXACT", refusal.resource)
    # What stands before an unexplained refusal is not claimed to be allowed exactly.
    assert ("ALLOWED", "EXACT") not in {row[1:3] for row in rows if attempt.action != layout.CONNECT}


@pytest.mark.parametrize(
    ("attempt", "refusal"),
    [
        (bind(), refuse(Permission.WRITE, QUEUE)),
        (bind(), refuse(Permission.READ, TOPIC_EXCHANGE)),
        (bind(), refuse(Permission.READ, BINDING)),
        (declare(), refuse(Permission.CONFIGURE, QUEUE)),
        (declare(resource=UNNAMED), refuse(Permission.CONFIGURE, QUEUE)),
        (declare(), refuse(Permission.WRITE, OTHER_EXCHANGE)),
        (declare(), refuse(Permission.READ, QUEUE)),
        (
            Happening(1, layout.CONFIGURE, OTHER_EXCHANGE, Method.EXCHANGE_DECLARE),
            refuse(Permission.WRITE, TOPIC_EXCHANGE),
        ),
        (Happening(1, layout.SUBSCRIBE, QUEUE, Method.BASIC_GET), refuse(Permission.READ, QUEUE)),
        (Happening(1, layout.CONFIGURE, QUEUE, Method.QUEUE_PURGE), refuse(Permission.READ, QUEUE)),
        (publish(outcome=layout.NO_EXCHANGE), refuse(Permission.WRITE, TOPIC_EXCHANGE)),
        (publish(), refuse(Permission.WRITE, 0)),
    ],
)
def test_a_refusal_of_anything_the_operation_asks_for_is_the_attempts(attempt: Happening, refusal: Happening) -> None:
    assert reconcile(attempt, refusal) == [(0, "DENIED", "EXACT", attempt.resource)]


def test_a_publish_to_no_exchange_is_denied_by_inference_and_closes_the_channel() -> None:
    missing = publish(resource=ELSEWHERE, outcome=layout.NO_EXCHANGE)
    copy = publish(resource=C, flags=layout.FURTHER_KEY, outcome=layout.NO_EXCHANGE)
    assert reconcile(missing, copy, publish(), declare()) == [
        (0, "DENIED", "INFERRED", ELSEWHERE),
        (1, "DENIED", "INFERRED", C),
    ]


def test_a_binding_from_no_exchange_is_denied_at_both_ends_even_when_they_come_apart() -> None:
    source = Happening(1, layout.SUBSCRIBE, BINDING, Method.EXCHANGE_BIND, layout.NO_EXCHANGE)
    destination = Happening(1, layout.CONFIGURE, OTHER_EXCHANGE, Method.EXCHANGE_BIND)
    expected = [(0, "DENIED", "INFERRED", BINDING), (1, "DENIED", "INFERRED", OTHER_EXCHANGE)]
    assert reconcile(source, destination, publish()) == expected
    one = reconciler()
    one.add(as_rows([source]))
    result = shown(one.take())
    one.add(as_rows([destination, publish()], first=1))
    assert result + shown(one.take(everything=True)) == expected


def test_in_a_transaction_nothing_allowed_is_exact() -> None:
    inside = publish(flags=layout.IN_TRANSACTION)
    assert [row[1:3] for row in reconcile(inside, inside, refuse(Permission.WRITE, AB))] == [
        ("ALLOWED", "INFERRED"),
        ("DENIED", "EXACT"),
    ]


def test_passive_declares_are_no_events_but_show_that_their_actor_went_on() -> None:
    one = reconciler()
    one.add(as_rows([publish(), declare(flags=layout.PASSIVE)]))
    assert shown(one.take(everything=True)) == [(0, "ALLOWED", "EXACT", AB)]
    assert one.counts.passive == 1


def test_an_attempt_waits_for_its_refusal_and_what_came_after_it_waits_too() -> None:
    one = reconciler()
    one.add(as_rows([publish(), Happening(2, layout.DISCONNECT)]))
    assert shown(one.take()) == []
    assert one.waiting == 2
    one.add(as_rows([refuse(Permission.WRITE, AB)], first=2))
    assert shown(one.take()) == [(0, "DENIED", "EXACT", AB), (1, "ALLOWED", "EXACT", 0)]
    assert one.waiting == 0


def test_an_attempt_is_allowed_by_inference_once_newer_events_have_come() -> None:
    one = reconciler()
    one.add(as_rows([publish(), publish(actor=2)], step_us=SETTLED_US - 1))
    assert shown(one.take()) == []
    one.add(as_rows([publish(actor=3)], first=2, step_us=SETTLED_US - 1))
    assert shown(one.take()) == [(0, "ALLOWED", "INFERRED", AB)]


def test_a_clock_that_is_set_back_does_not_hold_events_back() -> None:
    one = reconciler()
    one.add(as_rows([publish()], first=10_000_000))
    one.add(as_rows([publish(actor=2)]))
    assert shown(one.take()) == [(10_000_000, "ALLOWED", "INFERRED", AB)]


def test_after_a_gap_nothing_that_rests_on_silence_is_exact() -> None:
    one = reconciler()
    one.sure = False
    one.add(as_rows([publish(), publish(), refuse(Permission.WRITE, AB)]))
    assert [row[1:3] for row in shown(one.take(everything=True))] == [("ALLOWED", "INFERRED"), ("DENIED", "EXACT")]


def test_a_late_refusal_is_an_event_with_its_attempts_resource() -> None:
    one = reconciler()
    one.add(as_rows([publish()]))
    assert shown(one.take(everything=True)) == [(0, "ALLOWED", "INFERRED", AB)]
    one.add(as_rows([refuse(Permission.WRITE, TOPIC_EXCHANGE), publish()], first=1))
    assert shown(one.take(everything=True)) == [(0, "DENIED", "EXACT", AB)]
    assert (one.counts.late, one.counts.not_carried_out) == (1, 1)


def test_a_refusal_long_after_the_attempt_is_not_taken_for_it() -> None:
    one = reconciler()
    one.add(as_rows([publish()]))
    one.take(everything=True)
    one.add(as_rows([refuse(Permission.WRITE, TOPIC_EXCHANGE)], first=2_000_000))
    assert shown(one.take(everything=True)) == [(2_000_000, "DENIED", "EXACT", TOPIC_EXCHANGE)]
    assert one.counts.unmatched == 1


def test_a_row_that_is_no_event_keeps_its_place() -> None:
    one = reconciler()
    one.add(as_rows([publish()]))
    one.add(other_row(START, 77))
    one.add(as_rows([publish()], first=1))
    rows = one.take(everything=True)
    assert [int(action) for action in rows["action"]] == [layout.PUBLISH, OTHER, layout.PUBLISH]
    assert int(rows["resource"][1]) == 77


# The same by a plain loop ---------------------------------------------------------------------------------------


@dataclass
class Plain:
    """What the plain loop knows of an actor."""

    operation: list[int] = field(default_factory=list)
    """The events of its last operation, while a refusal may still come."""
    ending: bool = False
    """Whether the broker closes the channel after that operation."""
    closing: bool = False


def plain_loop(happenings: list[Happening]) -> tuple[Result, int, int]:
    """Go through the events one by one; returns the rows, how many were not carried out, how many were passive."""
    actors = {number: Plain() for number in CHANNELS}
    decided: dict[int, tuple[str, str]] = {}
    dropped = passive = 0
    for index, one in enumerate(happenings):
        actor = actors[one.actor]
        if one.outcome == layout.REFUSED:
            operation = [happenings[i] for i in actor.operation]
            if operation and may_belong(one, operation):
                decided.update(dict.fromkeys(actor.operation, ("DENIED", "EXACT")))
                actor.closing = CHANNELS[one.actor] != 0
            else:
                for i in actor.operation:
                    if decided[i][0] == "ALLOWED" and happenings[i].action > layout.DISCONNECT:
                        decided[i] = ("ALLOWED", "INFERRED")
                decided[index] = ("DENIED", "EXACT")
                actor.closing = actor.closing or actor.ending
            actor.operation, actor.ending = [], False
            continue
        continues = bool(actor.operation) and is_further(one)
        if not continues:
            for i in actor.operation:
                certain = happenings[i].flags & layout.IN_TRANSACTION == 0
                if decided[i] == ("ALLOWED", "INFERRED") and certain:
                    decided[i] = ("ALLOWED", "EXACT")
            actor.closing = actor.closing or actor.ending
            actor.operation, actor.ending = [], False
        if one.action == layout.DISCONNECT:
            actor.closing = False
        if actor.closing:
            dropped += 1
            continue
        actor.operation.append(index)
        if one.action <= layout.DISCONNECT:
            decided[index] = ("ALLOWED", "EXACT")
        elif one.outcome == layout.NO_EXCHANGE:
            decided[index] = ("DENIED", "INFERRED")
            actor.ending = actor.ending or CHANNELS[one.actor] != 0
        else:
            decided[index] = ("ALLOWED", "INFERRED")
        if one.flags & layout.PASSIVE:
            passive += 1
    rows = [
        (i, *verdict, happenings[i].resource)
        for i, verdict in sorted(decided.items())
        if not happenings[i].flags & layout.PASSIVE
    ]
    return rows, dropped, passive


def is_further(one: Happening) -> bool:
    return bool(one.flags & layout.FURTHER_KEY) or (one.action, one.method) == (layout.CONFIGURE, Method.EXCHANGE_BIND)


def may_belong(refusal: Happening, operation: list[Happening]) -> bool:
    head = operation[0]
    if head.action <= layout.DISCONNECT or head.flags & layout.PASSIVE or refusal.method not in (0, head.method):
        return False
    attempts = [RESOURCES[one.resource] for one in operation]
    return _fits(refusal.right, RESOURCES[refusal.resource], head.method, head.action, attempts)


RIGHTS = st.sampled_from([Permission.CONFIGURE, Permission.WRITE, Permission.READ])
OPERATIONS = st.one_of(
    st.builds(
        lambda key, flags, copies: [
            publish(0, key, flags),
            *(publish(0, copy, flags | layout.FURTHER_KEY) for copy in copies),
        ],
        st.sampled_from([AB, C]),
        st.sampled_from([0, layout.IN_TRANSACTION]),
        st.lists(st.sampled_from([AB, C]), max_size=2),
    ),
    st.builds(
        lambda copies: [
            publish(0, ELSEWHERE, flag, layout.NO_EXCHANGE) for flag in [0, *[layout.FURTHER_KEY] * copies]
        ],
        st.integers(0, 2),
    ),
    st.sampled_from(
        [
            [declare(0)],
            [declare(0, flags=layout.PASSIVE)],
            [bind(0)],
            [
                Happening(0, layout.SUBSCRIBE, BINDING, Method.EXCHANGE_BIND),
                Happening(0, layout.CONFIGURE, OTHER_EXCHANGE, Method.EXCHANGE_BIND),
            ],
            [Happening(0, layout.DISCONNECT)],
            [Happening(0, layout.CONNECT)],
        ]
    ),
    st.builds(
        lambda right, resource, method: [refuse(right, resource, 0, method=method)],
        RIGHTS,
        st.integers(0, len(RESOURCES) - 1),
        st.sampled_from([0, 0, int(Method.BASIC_PUBLISH), int(Method.QUEUE_DECLARE)]),
    ),
)


@st.composite
def streams(draw: st.DrawFn) -> list[Happening]:
    """What some actors do, each in its own order, mixed."""
    each = {actor: [one for op in draw(st.lists(OPERATIONS, max_size=6)) for one in op] for actor in CHANNELS}
    turns = draw(st.permutations([actor for actor, happenings in each.items() for _ in happenings]))
    left = {actor: iter(happenings) for actor, happenings in each.items()}
    return [replace(next(left[actor]), actor=actor) for actor in turns]


@settings(max_examples=400)
@given(streams(), st.lists(st.integers(0, 60), max_size=4))
def test_the_vectors_give_what_a_plain_loop_gives_however_the_stream_is_cut(
    happenings: list[Happening], cuts: list[int]
) -> None:
    expected, dropped, passive = plain_loop(happenings)
    for places in ([], sorted(cuts)):
        one = reconciler()
        result: Result = []
        for start, stop in pairwise([0, *(min(place, len(happenings)) for place in places), len(happenings)]):
            one.add(as_rows(happenings[start:stop], first=start))
            result += shown(one.take())
        result += shown(one.take(everything=True))
        assert result == expected
        assert (one.counts.not_carried_out, one.counts.passive, one.counts.late) == (dropped, passive, 0)
        assert one.waiting == 0
