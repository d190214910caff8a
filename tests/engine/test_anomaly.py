"""Scores equal the plain oracle's, however events are cut; and what must be high is high, what must be low is low."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.anomaly_oracle import AnomalyOracle
from tests.engine.scenario import batches
from topicwarden.engine import Engine
from topicwarden.engine.anomaly import MAX_NOVELTIES, Scores
from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import Lane
from topicwarden.engine.local_names import LocalNames
from topicwarden.events import EventBatch, Resource, ResourceKind
from topicwarden.findings import load_catalogue, load_topic_words
from topicwarden.policy import Baseline, Policy, parse_baseline, parse_policy

CATALOGUE = load_catalogue()
WORDS = load_topic_words()


class Listening(Engine):
    """An engine that keeps the scores of all publishes."""

    def __init__(self, policy: Policy | None = None, baseline: Baseline | None = None) -> None:
        super().__init__(CATALOGUE, policy, baseline=baseline, scoring=True)
        self.kept: list[tuple[int, float, float, float]] = []

    def _judge_publishes(self, lane: Lane, batch: EventBatch, rows: Int64, steady_ns: Int64) -> Scores | None:
        scores = super()._judge_publishes(lane, batch, rows, steady_ns)
        if scores is not None:
            columns = (scores.score, scores.name, scores.payload, scores.rate)
            self.kept += zip(*(column.tolist() for column in columns), strict=True)
        return scores

    def run(self, events: Iterable[EventBatch]) -> Listening:
        for batch in events:
            self.step(batch)
        return self


DEMO = """\
topicwarden_baseline: 1
learnt: {since: 2026-05-01T00:00:00Z, until: 2026-05-15T00:00:00Z, events: 90000, covered: 0.96}
topics:
  - topic: "plant/north/+/telemetry"
    levels: [{shapes: [a-9], length: {low: 8, high: 9}}]
    size: {low: 50, high: 50}
    shapes: [json]
    entropy: {low: 4.28, high: 4.38}
  - topic: "plant/south/+/telemetry"
    levels: [{shapes: [a-9], length: {low: 8, high: 8}}]
    size: {low: 49, high: 50}
    shapes: [json]
    entropy: {low: 4.28, high: 4.38}
rates:
  - {topic: "plant/north/+/telemetry", typical: 2, peak: 2.7}
"""
SYSTEM_DATA = {"publish": "c2/beacon", "user": "x", "size": 96, "entropy": 4.7, "shape": "text"}
BASE64 = {"publish": "plant/north/sensor-1/telemetry", "user": "x", "size": 320, "entropy": 5.79, "shape": "base64"}
RANDOM = {"publish": "x7f3kq9zv2/a8s7df6g5h", "user": "x", "size": 50, "entropy": 4.3, "shape": "json"}


def highest(events: Sequence[Mapping[str, Any]], policy: str | None = None, baseline: str | None = None) -> int:
    engine = Listening(
        None if policy is None else parse_policy(policy, "p"),
        None if baseline is None else parse_baseline(baseline, "b"),
    )
    return max(kept[0] for kept in engine.run(batches(events)).kept)


@pytest.mark.parametrize("event", [SYSTEM_DATA, BASE64, RANDOM], ids=["c2/beacon", "base64", "random name"])
def test_what_command_and_control_looks_like_is_found_with_a_baseline_and_notable_without(
    event: dict[str, Any],
) -> None:
    assert highest([event], baseline=DEMO) >= 70
    assert 50 <= highest([event]) < 70


def test_two_wild_parts_are_alarming_even_without_a_baseline() -> None:
    assert highest([{**SYSTEM_DATA, "shape": "base64", "entropy": 5.6}]) >= 80


@pytest.mark.parametrize(
    "topic",
    [
        "zigbee2mqtt/0x00158d0001f2a3b4",
        "tele/246f28aec410/SENSOR",
        "550e8400-e29b-41d4-a716-446655440000/state",
        "homeassistant/sensor/heizkreis_2/config",
        "s7-1200/DB10_ToolChange/CurrentTemperatureSetpoint",
        "cmnd/licht/POWER",
        "site/s12/dev/sen-000123/cmd",
        "2026/11/28/7",
        "工場/温度",
        "$aws/things/lamp/shadow/update",
    ],
)
def test_names_of_real_fleets_are_not_unusual_by_themselves(topic: str) -> None:
    assert highest([{"publish": topic, "user": "u", "size": 20, "entropy": 3, "shape": "json"}]) <= 20


def test_nothing_known_accuses_nobody() -> None:
    engine = Listening().run(batches([{"publish": "a/b", "user": "u"}, {"publish": "", "user": "u"}]))
    assert engine.kept == [(0, 0.0, 0.0, 0.0)] * 2


def test_an_empty_payload_is_not_unusual() -> None:
    event = {"publish": "plant/north/sensor-1/telemetry", "user": "x", "size": 0, "entropy": 0, "shape": "empty"}
    assert highest([event], baseline=DEMO) == 0


def test_a_client_at_the_usual_peak_is_never_ahead() -> None:
    event = {"publish": "plant/north/sensor-1/telemetry", "user": "x", "repeat": 3000, "every": 1 / 2.7}
    engine = Listening(None, parse_baseline(DEMO, "b")).run(batches([event]))
    assert max(kept[3] for kept in engine.kept) == 0
    # A burst of all that ten seconds hold at the peak, at once, on top of the steady peak.
    burst = {**event, "repeat": 27, "every": 0}
    engine = Listening(None, parse_baseline(DEMO, "b")).run(batches([event, burst]))
    assert max(kept[3] for kept in engine.kept) == 0


def test_ten_times_the_peak_is_all_of_the_sign_within_fifteen_seconds_and_forgiven_after_eighty() -> None:
    event = {"publish": "plant/north/sensor-1/telemetry", "user": "x", "repeat": 410, "every": 1 / 27}
    engine = Listening(None, parse_baseline(DEMO, "b"))
    engine.run(batches([event, {**event, "repeat": 1, "at": 410 / 27 + 80}]))
    assert engine.kept[-2][3] == 1
    assert engine.kept[-1][3] == 0


def test_what_five_users_publish_is_new_no_more_but_its_words_stay() -> None:
    def scored(name: str, **more: Any) -> list[int]:
        events = [{"publish": name, "user": f"u{n}", "client": "c", "shape": "json", **more} for n in range(40)]
        return [kept[0] for kept in Listening(None, parse_baseline(DEMO, "b")).run(batches(events)).kept]

    assert scored("office/lamp")[:4] == [50] * 4
    assert scored("office/lamp")[-1] == 0
    assert scored("c2/beacon")[0] >= 70
    assert 60 <= scored("c2/beacon")[-1] < 70
    assert set(scored("office/lamp", identity="claimed")) == {50}


def test_each_device_under_a_new_word_counts_towards_its_being_common() -> None:
    events = [{"publish": f"plant/north/sensor-{n}/humidity", "user": f"sensor-{n}"} for n in range(40)]
    engine = Listening(None, parse_baseline(DEMO, "b")).run(batches(events))
    assert engine.kept[0][1] > 0.3
    assert engine.kept[-1][1] == 0


def test_a_storm_of_new_names_does_not_grow_what_is_kept_without_bound() -> None:
    engine = Listening(None, parse_baseline(DEMO, "b"))
    storm = {"publish": "n{n}", "user": "u", "repeat": MAX_NOVELTIES + 50, "every": 0.001}
    engine.run(batches([storm], 1 << 14))
    assert engine._scorer is not None
    assert engine._scorer.uncounted == 50


def test_without_scoring_nothing_is_kept_for_it() -> None:
    engine = Engine(CATALOGUE, None)
    (batch,) = batches([SYSTEM_DATA])
    engine.step(batch)
    assert engine._scorer is None
    assert engine._lane(batch.tables).scores is None
    assert [finding.type.code for finding in engine.ledger.findings()] == []


def test_why_says_what_is_unusual_and_what_was_not_measured() -> None:
    engine = Listening().run(batches([{**SYSTEM_DATA, "shape": "base64"}]))
    (finding,) = [one for one in engine.ledger.findings() if one.type.code == "TW420"]
    assert finding.evidence["why"] == "words of command and control: c2, beacon; base64"
    assert finding.evidence["not_measured"] == "distance of the name, rate"
    engine = Listening(None, parse_baseline(DEMO, "b")).run(batches([BASE64]))
    (finding,) = [one for one in engine.ledger.findings() if one.type.code == "TW420"]
    assert finding.evidence["why"] == (
        "base64 where json is usual; 320 bytes where 50 are usual at most; "
        "5.79 bits per byte where 4.38 are usual at most"
    )
    assert finding.evidence["not_measured"] == "nothing"


@pytest.mark.parametrize(
    ("wanted", "sign"),
    [
        ("plant/+/+/telemetry", 0),
        ("$share/g/plant/north/+/telemetry", 0),
        ("plant/#", 0),
        ("#", 0),
        ("+/+/#", 0),
        ("plant/north/sensor-1/humidity", 0.35),
        ("office/#", 0.67),
        ("c2/commands/#", 0.95),
    ],
)
def test_a_filter_is_as_near_as_the_nearest_name_it_asks_for(wanted: str, sign: float) -> None:
    view = LocalNames(None, parse_baseline(DEMO, "b"), WORDS).view(
        Resource(ResourceKind.TOPIC, wanted), breaks_rule=False
    )
    assert view.sign == pytest.approx(sign, abs=0.03)


# -- the oracle -------------------------------------------------------------------------------------------------------

LEVELS = ["p", "q", "a1", "a2", "b-7", "zz", "c2", "cmd", "x7f3kq9zv2", "a8s7df6g5h", "kqzvxwpt", "19", "Ab", ""]
names = st.one_of(
    st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4).map("/".join),
    st.sampled_from(["p/a1/t", "p/a2/t", "p/b-7/t", "p/q", "s/" + "u" * 40 + "/t", "c2/beacon", "p/x7f3kq9zv2/t"]),
)
level = st.builds(
    lambda shapes, high: {"shapes": shapes, "length": {"low": 1, "high": high}},
    st.sampled_from([["a9"], ["a9", "a-9"], ["x"], []]),
    st.integers(1, 4),
)
TOPICS = ["p/+/t", "p/q", "+/c2", "s/+/t", "p/+/+", "c2/+", "+/+/t"]


@st.composite
def baselines(draw: st.DrawFn) -> dict[str, Any]:
    topics = []
    for topic in draw(st.lists(st.sampled_from(TOPICS), unique=True, max_size=4)):
        entry: dict[str, Any] = {"topic": topic}
        opened = topic.split("/").count("+")
        if opened and draw(st.booleans()):
            entry["levels"] = [draw(level) for _ in range(opened)]
        if draw(st.booleans()):
            low = draw(st.sampled_from([0, 10, 200]))
            entry["size"] = {"low": low, "high": low + draw(st.sampled_from([0, 5, 90]))}
        if draw(st.booleans()):
            entry["shapes"] = draw(
                st.lists(st.sampled_from(["json", "text", "binary", "base64", "empty"]), unique=True, max_size=2)
            )
        if draw(st.booleans()):
            entry["entropy"] = {"low": 1, "high": draw(st.sampled_from([2.0, 4.4]))}
        topics.append(entry)
    paced = [topic["topic"] for topic in topics if draw(st.booleans())]
    rates = [{"topic": topic, "typical": 1, "peak": draw(st.sampled_from([0.1, 1, 30]))} for topic in paced]
    learnt = {"since": "2026-05-01T00:00:00Z", "until": "2026-05-02T00:00:00Z", "events": 9}
    learnt["covered"] = draw(st.sampled_from([0, 0.5, 1]))
    return {"topicwarden_baseline": 1, "learnt": learnt, "topics": topics, "rates": rates}


policies = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"topicwarden": st.just(1)},
        optional={
            "roles": st.sampled_from(
                [
                    {"r": {"members": [{"user": "a"}], "publish": [{"topic": "p/%u/t"}, {"topic": "q/#"}]}},
                    {"r": {"members": [{"user": "a"}], "publish": [{"topic": "+/c2"}]}},
                    {"r": {"members": [{"user": "a"}], "publish": [{"exchange": "x", "key": "a.*"}]}},
                ]
            ),
            "naming": st.just([{"within": {"topic": "p/#"}, "levels": ["p", "[a-z][0-9]"], "more": True}]),
            "payload": st.just({"max_entropy": 6.9, "no_encoded": ["p/#"], "text_only": ["q/#"]}),
        },
    ),
)
publishes = st.fixed_dictionaries(
    {"publish": names, "user": st.sampled_from(["a", "b", "c", "d", "e", "f", "g"])},
    optional={
        "client": st.sampled_from(["c", "d"]),
        "identity": st.sampled_from(["verified", "unknown", "claimed"]),
        "every": st.sampled_from([0, 0.01, 1, 20]),
        "repeat": st.sampled_from([1, 2, 30]),
        "count": st.sampled_from([1, 2, 400]),
        "outcome": st.sampled_from(["allowed", "allowed", "unknown", "denied"]),
        "size": st.sampled_from([0, 3, 16, 64, 150, 1000, 90_000]),
        "entropy": st.sampled_from([0.0, 2.6, 4.4, 5.8, 7.5]),
        "shape": st.sampled_from(["json", "text", "binary", "base64", "hex", "empty", "unknown"]),
        "length": st.just(300),
        "exchange": st.sampled_from(["x", "amq.default"]),
    },
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policies, st.none() | baselines(), st.lists(publishes, max_size=12), st.integers(1, 40))
def test_scores_equal_the_oracles_however_events_are_cut(
    written: dict[str, Any] | None, usual: dict[str, Any] | None, scenario: list[dict[str, Any]], size: int
) -> None:
    policy = None if written is None else Policy.model_validate(written)
    baseline = None if usual is None else Baseline.model_validate(usual)
    expected = AnomalyOracle(policy, baseline, WORDS).scores(batches(scenario))
    whole = Listening(policy, baseline).run(batches(scenario))
    parts = Listening(policy, baseline).run(batches(scenario, size))
    assert whole.kept == parts.kept
    assert len(whole.kept) == len(expected)
    for found, wanted in zip(whole.kept, expected, strict=True):
        assert found[1:] == pytest.approx(wanted[1:], abs=1e-6)
        assert abs(found[0] - wanted[0]) <= 1  # a half may round either way
    as_found = [(f.fingerprint, f.count, f.evidence, f.witnesses) for f in whole.ledger.findings()]
    assert as_found == [(f.fingerprint, f.count, f.evidence, f.witnesses) for f in parts.ledger.findings()]
