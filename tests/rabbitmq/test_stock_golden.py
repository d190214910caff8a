"""Recordings of a real node, decoded as they were when somebody last looked; and what no input may do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.spec import BasicProperties

from tests.rabbitmq.stock_record import CLOCK_NS, FOLDER, golden_lines, news_of, rows_of, started
from tests.rabbitmq.test_event_messages import CREATED, EVENTS, VALUES
from tests.rabbitmq.test_trace_messages import HEADERS
from topicwarden_collectors.rabbitmq.link import Delivery, Subscription

RECORDINGS = sorted(FOLDER.glob("stock-*.news.jsonl"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_a_recording_gives_the_events_it_gave(path: Path) -> None:
    assert golden_lines(path.read_text()) == path.with_name(path.name.replace(".news.", ".events.")).read_text()


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_the_firehose_may_come_before_the_connections_it_is_about(path: Path) -> None:
    """Three queues keep no common order: everything the firehose says is the same when it arrives first."""
    news = [news_of(line) for line in path.read_text().splitlines()]
    traces = [one for one in news if one.subscription.exchange == "amq.rabbitmq.trace"]
    others = [one for one in news if one.subscription.exchange != "amq.rabbitmq.trace"]
    seen = []
    for order in ([*others, *traces], [*traces, *others]):
        decoder = started()
        for one in order:
            decoder.feed([one], CLOCK_NS)
        decoder.finish()
        rows = [row for row in rows_of(decoder) if row.get("action") in ("publish", "deliver")]
        assert rows
        seen.append(sorted(map(json.dumps, rows)))
    assert seen[0] == seen[1]


def test_no_event_of_a_recording_is_about_a_client_somebody_made_up() -> None:
    for path in RECORDINGS:
        rows = [json.loads(line) for line in golden_lines(path.read_text()).splitlines()]
        users = {row["client"].get("user") for row in rows if "action" in row}
        assert users <= {"bob", "carol", "nobody", "operator"}
        assert "forged" not in {row.get("resource", {}).get("name") for row in rows if "action" in row}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["amq.rabbitmq.event", "amq.rabbitmq.log", "amq.rabbitmq.trace"]),
            st.sampled_from([*EVENTS, "publish.orders", "deliver.q"]),
            st.dictionaries(st.sampled_from([*CREATED, *HEADERS, "x-death", "queue", "channel"]), VALUES, max_size=6),
            st.binary(max_size=60),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_no_message_whatever_raises(messages: list[tuple[str, str, dict[Any, Any], bytes, bool]]) -> None:
    decoder = started()
    for number, (exchange, key, headers, body, whole) in enumerate(messages):
        filled: Any = {**CREATED, **HEADERS, "queue": "q", "channel": CREATED["pid"], **headers} if whole else headers
        delivery = Delivery(
            Subscription("plant", exchange), exchange, key, False, BasicProperties(headers=filled), body, len(body)
        )
        decoder.feed([delivery], CLOCK_NS + number * 10**8)
        decoder.pass_time(CLOCK_NS + number * 10**8)
    decoder.finish()
    rows_of(decoder)
