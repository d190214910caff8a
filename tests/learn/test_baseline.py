"""What is usual is learnt; what a few did, or one did once, is not, and everything left out is listed."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.learn.planted import Use, Workload, plant
from topicwarden.engine import Engine
from topicwarden.engine.anomaly import Scores
from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import Lane
from topicwarden.events import (
    Action,
    Certainty,
    Client,
    Dialled,
    Endpoint,
    EventBatch,
    EventBuilder,
    Executed,
    HostEvent,
    Identity,
    Outcome,
    Process,
    Resource,
    ResourceKind,
    Shape,
    Spoke,
    Spoken,
    Tables,
)
from topicwarden.findings import load_catalogue
from topicwarden.learn.baseline import BaselineDraft, BaselineGatherer, learn_baseline, quorum
from topicwarden.learn.baseline_text import baseline_text, host_document
from topicwarden.learn.review import Reason
from topicwarden.learn.yaml_text import Provenance
from topicwarden.policy import Baseline, parse_baseline

SECOND = 1_000_000_000
DAY = 24 * 3600 * SECOND
START_NS = 1_780_272_000 * SECOND


class Traffic:
    """Publishes of clients whose client id is their user name, as batches."""

    def __init__(self) -> None:
        self.builder = EventBuilder(Tables())
        self.now = START_NS

    def publish(self, user: str | None, topic: str, *, at: int | None = None, every: float = 1, **more: Any) -> Traffic:
        self.now = self.now + round(every * SECOND) if at is None else at
        identity = Identity.ANONYMOUS if user is None else more.pop("identity", Identity.VERIFIED)
        client = Client("b", "mqtt", user or "anybody", user, identity=identity)
        given = {"size": 50, "entropy": 4.2, "shape": Shape.JSON, **more}
        outcome = given.pop("outcome", Outcome.ALLOWED)
        resource = Resource(ResourceKind.TOPIC, topic)
        self.builder.add(self.now, Action.PUBLISH, client, resource, outcome, Certainty.EXACT, **given)
        return self

    def host(self, *events: HostEvent) -> Traffic:
        for event in events:
            self.builder.host(event)
        return self

    def learn(self, *, support: int = 5, min_days: int = 3) -> BaselineDraft:
        return learnt_from([self.builder.take()], support, min_days)


def learnt_from(batches: Iterable[EventBatch], support: int = 5, min_days: int = 3) -> BaselineDraft:
    gatherer = BaselineGatherer()
    for batch in batches:
        gatherer.add(batch)
    return learn_baseline(gatherer, support=support, min_days=min_days)


def written(draft: BaselineDraft) -> Baseline:
    text = baseline_text(draft, Provenance("learn", ["source"], "0", "review"))
    assert text == baseline_text(draft, Provenance("learn", ["source"], "0", "review"))
    return parse_baseline(text, "baseline")


def fleet(sensors: int = 10, readings: int = 3) -> Traffic:
    traffic = Traffic()
    for _ in range(readings):
        for number in range(sensors):
            traffic.publish(f"sensor-{number}", f"plant/sensor-{number}/telemetry")
    return traffic


# -- topics -----------------------------------------------------------------------------------------------------------


def test_what_many_users_publish_is_usual_with_what_they_send() -> None:
    baseline = written(fleet().learn())
    (topic,) = baseline.topics
    assert topic.topic == "plant/+/telemetry"
    assert [(level.shapes, level.length.low, level.length.high) for level in topic.levels] == [(("a-9",), 8, 8)]
    assert topic.size is not None
    assert (topic.size.low, topic.size.high) == (50, 50)
    assert topic.shapes == ("json",)
    assert topic.entropy is not None
    assert (topic.entropy.low, topic.entropy.high) == pytest.approx((4.2, 4.2), abs=0.011)
    assert baseline.learnt.events == 30
    assert baseline.learnt.covered == 1


def test_what_one_client_did_once_is_not_usual_and_is_listed() -> None:
    draft = fleet().publish("sensor-1", "c2/beacon").publish("intruder", "c2/commands").learn()
    assert [topic.place.pattern for topic in draft.topics] == ["plant/+/telemetry"]
    listed = {item.place.pattern: item.reason for item in draft.review if item.place}
    assert listed == {"c2/beacon": Reason.ONE_USER, "c2/commands": Reason.ONE_USER}
    assert draft.covered == 0.93


def test_what_few_users_do_is_usual_after_three_days_and_says_so() -> None:
    traffic = fleet()
    for day in range(3):
        traffic.publish("board", "plant/hall/status", at=START_NS + day * DAY)
        if day < 2:
            traffic.publish("lamp", "plant/yard/light", at=START_NS + day * DAY)
    draft = traffic.learn()
    assert [topic.place.pattern for topic in draft.topics] == ["plant/+/telemetry", "plant/hall/status"]
    text = baseline_text(draft, Provenance("learn", [], "0", "review"))
    (line,) = [line for line in text.splitlines() if "FEW USERS, here for the days" in line]
    assert "plant/hall/status" in line


def test_what_few_members_of_a_large_role_do_is_not_usual_however_many_names_they_make_up() -> None:
    traffic = fleet(100)
    for number in range(9):
        traffic.publish(f"sensor-{number}", f"admin/z{number}")
    draft = traffic.learn()
    assert [topic.place.pattern for topic in draft.topics] == ["plant/+/telemetry"]


@pytest.mark.parametrize(
    "who", [{"user": None}, {"user": "u", "identity": Identity.CLAIMED}], ids=["anonymous", "claimed"]
)
def test_what_nobody_vouches_for_is_not_usual_but_counts_in_what_is_not_covered(who: dict[str, Any]) -> None:
    traffic = fleet()
    for number in range(30):
        user = None if who["user"] is None else f"u{number}"
        traffic.publish(user, f"shop/u{number}/x", **{key: v for key, v in who.items() if key != "user"})
    draft = traffic.learn()
    assert [topic.place.pattern for topic in draft.topics] == ["plant/+/telemetry"]
    assert draft.covered == 0.5


def test_refused_publishes_are_neither_usual_nor_counted() -> None:
    traffic = fleet()
    for number in range(10):
        traffic.publish(f"sensor-{number}", "admin/firmware", outcome=Outcome.DENIED)
    draft = traffic.learn()
    assert len(draft.topics) == 1
    assert (draft.events, draft.covered) == (30, 1)
    assert [item.reason for item in draft.review] == [Reason.DENIED]


def test_a_minority_cannot_stretch_what_is_usual() -> None:
    traffic = fleet(20)
    for number in range(4):
        name = f"sensor-{number}"
        for _ in range(50):
            traffic.publish(name, f"plant/{name}/telemetry", size=90_000, entropy=7.9, shape=Shape.BINARY)
            traffic.publish(name, f"plant/{name}/telemetry", size=1, entropy=0.1, shape=Shape.BASE64)
    draft = traffic.learn()
    (topic,) = written(draft).topics
    assert topic.size is not None
    assert topic.entropy is not None
    assert (topic.size.low, topic.size.high) == (50, 50)
    assert (topic.entropy.low, topic.entropy.high) == pytest.approx((4.2, 4.2), abs=0.011)
    assert topic.shapes == ("json",)
    assert "few sent up to 90 000 bytes" in baseline_text(draft, Provenance("learn", [], "0", "review"))


def test_half_of_a_small_fleet_and_never_more_than_the_support_decides() -> None:
    assert [quorum(users, 5) for users in (1, 2, 3, 6, 9, 10, 1000)] == [1, 1, 2, 3, 5, 5, 5]
    assert quorum(1000, 1) == 1


def test_the_peak_is_that_of_all_a_client_publishes_in_ten_seconds_where_it_was_seen_long_enough() -> None:
    traffic = Traffic()
    for second in range(120):
        for number in range(10):
            name = f"sensor-{number}"
            at = START_NS + second * SECOND
            traffic.publish(name, f"plant/{name}/telemetry", at=at)
            if second % 10 == 0:
                traffic.publish(name, f"plant/{name}/state", at=at)
    draft = traffic.learn()
    rates = {str(rate.topic): (rate.typical, rate.peak) for rate in written(draft).rates}
    assert rates == {"plant/+/telemetry": (1.11, 1.1), "plant/+/state": (1.11, 1.1)}
    assert written(fleet().learn()).rates == ()


# -- hosts ------------------------------------------------------------------------------------------------------------


def ran(day: int, host: str = "ci-1", user: str = "ci", tool: str = "/usr/bin/mosquitto_pub") -> Executed:
    arguments = (tool.rpartition("/")[2], "-h", "10.0.0.1", "-t", "plant/a", "-m", "<payload>")
    process = Process(host, 7, tool, arguments, parent_executable="/usr/sbin/cron", user=user)
    return Executed(START_NS + day * DAY, process)


def dialled(day: int, host: str, port: int = 1883, **more: Any) -> Dialled:
    return Dialled(START_NS + day * DAY, host, Endpoint("10.0.0.1", port), **more)


def test_a_program_is_usual_on_a_host_where_it_ran_on_three_days() -> None:
    draft = Traffic().host(*map(ran, range(3)), ran(0, "laptop"), ran(0, "laptop"), ran(1, "laptop")).learn()
    (tool,) = written(draft).tools
    assert (tool.host, tool.process, tool.users, tool.parents, tool.does) == (
        "ci-1",
        "mosquitto_pub",
        ("ci",),
        ("cron",),
        ("publish",),
    )
    (left,) = draft.left_out
    document = host_document(left)
    assert document["tool"] == "mosquitto_pub on laptop"
    assert document["why"] == "seen on 2 days, and 3 days are needed"
    assert document["events"] == 3


def test_programs_that_have_nothing_to_do_with_brokers_are_none() -> None:
    draft = (
        Traffic().host(*(Executed(START_NS + d * DAY, Process("h", 1, "/bin/ls", ("ls",))) for d in range(4))).learn()
    )
    assert not draft.tools
    assert not draft.left_out


def test_a_broker_is_usual_when_five_hosts_or_three_days_speak_for_it() -> None:
    many = [dialled(0, f"gw-{number}") for number in range(5)]
    long = [dialled(day, "gw-1", 8883) for day in range(3)]
    rare = [dialled(0, "gw-1", 5222), dialled(0, "gw-2", 5222)]
    other = [dialled(day, "gw-1", 443) for day in range(5)]
    failed = [dialled(day, "gw-1", 5672, established=False) for day in range(5)]
    draft = Traffic().host(*many, *long, *rare, *other, *failed).learn()
    (broker,) = written(draft).brokers
    assert (broker.address, broker.ports) == ("10.0.0.1", (1883, 8883))
    assert broker.hosts == tuple(f"gw-{number}" for number in range(5))
    (left,) = draft.left_out
    assert left.label == "10.0.0.1 port 5222"
    assert left.why == "seen on 1 day by 2 hosts, and 3 days or 5 hosts are needed"


def test_an_endpoint_where_a_sensor_saw_the_protocol_spoken_is_a_broker_on_whatever_port() -> None:
    spoke = [
        Spoke(
            START_NS + day * DAY, "zeek", Endpoint("10.0.0.9", 4000), Endpoint("10.0.0.2", 443), "mqtt", Spoken.CONNECT
        )
        for day in range(3)
    ]
    (broker,) = written(Traffic().host(*spoke).learn()).brokers
    assert (broker.address, broker.ports, broker.hosts) == ("10.0.0.2", (443,), ("10.0.0.9",))


def test_what_few_days_mean_is_the_users_own_choice() -> None:
    draft = Traffic().host(ran(0), dialled(0, "gw")).learn(min_days=1)
    assert len(draft.tools) == len(draft.brokers) == 1


# -- the plant whose truth is known -----------------------------------------------------------------------------------


def batches_of(workload: Workload, uses: Sequence[Use]) -> Iterator[EventBatch]:
    source = random.Random(1)
    builder = EventBuilder(Tables())
    clients = [Client("plant", "mqtt", p.client_id, p.user, identity=Identity.VERIFIED) for p in workload.people]
    for number, (who, action, topic) in enumerate(uses):
        builder.add(
            START_NS + number * 1_000_000,
            action,
            clients[who],
            Resource(ResourceKind.TOPIC, topic),
            Outcome.ALLOWED,
            Certainty.EXACT,
            size=source.randint(30, 60),
            entropy=4 + source.random() / 2,
            shape=Shape.JSON,
        )
        if len(builder) >= 1 << 15 or builder.tables.must_flush:
            yield builder.take()
    if not builder.empty:
        yield builder.take()


@functools.cache
def planted(poison: float) -> tuple[Workload, BaselineDraft]:
    workload = plant(2000, poison=poison, seed=2, tests=6000, plenty=0.4)
    observed = sorted([*workload.legitimate, *workload.poison])
    random.Random(3).shuffle(observed)
    return workload, learnt_from(batches_of(workload, observed))


class Listening(Engine):
    def __init__(self, baseline: Baseline | None) -> None:
        super().__init__(load_catalogue(), None, baseline=baseline, scoring=True)
        self.kept: list[int] = []

    def _judge_publishes(self, lane: Lane, batch: EventBatch, rows: Int64, steady_ns: Int64) -> Scores | None:
        scores = super()._judge_publishes(lane, batch, rows, steady_ns)
        if scores is not None:
            self.kept += scores.score.tolist()
        return scores


@pytest.mark.parametrize("poison", [0.0, 0.01])
def test_the_plants_topics_are_learnt_and_no_poison(poison: float) -> None:
    _, draft = planted(poison)
    found = {topic.place.pattern for topic in draft.topics}
    for wanted in ("site/+/dev/+/telemetry/temp", "gw/+/+/up", "logs/gateway/error", "orders/+/created", "status/+"):
        assert wanted in found
    assert not [name for name in found if name.startswith(("admin", "$", "site/x", "news", "fw/release/+"))]
    assert draft.covered >= 0.97


def test_well_behaved_clients_of_the_plant_are_never_notable() -> None:
    workload, draft = planted(0.01)
    for baseline in (None, written(draft)):
        for uses in (workload.legitimate, workload.held_out):
            engine = Listening(baseline)
            for batch in batches_of(workload, sorted(uses)):
                engine.step(batch)
            assert engine.kept
            assert max(engine.kept) < 50


# -- hostile names ----------------------------------------------------------------------------------------------------

hostile = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(hostile, hostile, hostile, st.integers(1, 5))
def test_whatever_names_hold_the_file_is_read_back_as_what_was_learnt(
    name: str, user: str, host: str, support: int
) -> None:
    traffic = Traffic()
    for number in range(5):
        traffic.publish(f"{user}{number}", f"a/{name}/b")
    events = [ran(day, host or "h", user or "u", f"/bin/{'mosquitto_pub'}") for day in range(3)]
    draft = traffic.host(*events, *(dialled(day, host or "h") for day in range(3))).learn(support=support)
    baseline = written(draft)
    assert [topic.place for topic in baseline.topics] == [topic.place for topic in draft.topics]
    assert [tool.host for tool in baseline.tools] == [tool.host for tool in draft.tools]
    assert [broker.hosts for broker in baseline.brokers] == [broker.hosts for broker in draft.brokers]
