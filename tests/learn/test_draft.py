"""The draft from scenarios: what is granted, what is left for review, and that the engine agrees."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.scenario import batches
from topicwarden.engine import Engine
from topicwarden.events import (
    Action,
    Certainty,
    Client,
    EventBatch,
    EventBuilder,
    Identity,
    Outcome,
    Resource,
    ResourceKind,
    Tables,
)
from topicwarden.findings import load_catalogue
from topicwarden.learn.draft import Draft, draft
from topicwarden.learn.observations import Gatherer
from topicwarden.learn.review import Reason, document
from topicwarden.learn.yaml_text import Provenance, policy_text
from topicwarden.policy import Policy, parse_policy

Events = Sequence[Mapping[str, Any]]
USERS = [f"user-{n}" for n in range(12)]


def learn(events: Events) -> Draft:
    gatherer = Gatherer()
    for batch in batches(events):
        gatherer.add(batch)
    return draft(gatherer.finish())


def policy_of(found: Draft) -> Policy:
    return parse_policy(policy_text(found, Provenance("learn", ["here"], "0", "review")), "draft")


def rules(found: Draft) -> dict[str, list[str]]:
    return {role.name: [f"{r.action.name.lower()} {r.place.label}" for r in role.rules] for role in found.roles}


def reasons(found: Draft) -> dict[str, Reason]:
    return {(item.place.label if item.place else item.label): item.reason for item in found.review}


def all_of(users: Sequence[str], *events: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{**event, "user": user} for user in users for event in events]


def own(users: Sequence[str], kind: str, name: str, **more: Any) -> list[dict[str, Any]]:
    return [{kind: name.replace("%u", user), "user": user, **more} for user in users]


NORMAL = [
    *own(USERS, "publish", "plant/%u/telemetry", size=100),
    *own(USERS, "subscribe", "plant/%u/command"),
]


def test_what_all_members_do_is_granted_with_their_own_names() -> None:
    found = learn(NORMAL)
    assert rules(found) == {"user": ["publish plant/%u/telemetry", "subscribe plant/%u/command"]}
    (role,) = found.roles
    assert [selector.user for selector in role.selectors] == ["user-*"]
    assert role.rules[0].max_size == "256"
    assert found.coverage.estimate == 1.0
    assert found.review == ()


def test_amqp_names_become_rules_of_their_kinds() -> None:
    found = learn(
        [
            *[{"publish": f"invoice.{n}.created", "exchange": "invoices", "user": USERS[n % 12]} for n in range(60)],
            *all_of(USERS, {"subscribe": "order.*.paid", "exchange": "orders"}),
            *all_of(USERS, {"subscribe": "direct.key", "exchange": "direct", "literal": True}),
            *all_of(USERS, {"subscribe": "#", "exchange": "fan"}),
            *all_of(USERS, {"consume": "work"}, {"configure": "work"}, {"configure": "orders", "kind": "exchange"}),
            *own(USERS, "consume", "inbox.%u"),
            *all_of(USERS, {"consume": "amq.gen-JzTY20BRgKO"}, {"configure": "amq.gen-JzTY20BRgKO"}),
        ]
    )
    (labels,) = rules(found).values()
    assert labels == [
        "publish exchange invoices, key invoice.*.created",
        "subscribe exchange direct, key direct.key",
        "subscribe exchange fan, key #",
        "subscribe exchange orders, key order.*.paid",
        "subscribe queue inbox.%u",
        "subscribe queue work",
        "configure exchange orders",
        "configure queue work",
    ]
    assert found.skipped == {"made-up": 24}
    policy = policy_of(found)
    (drafted,) = policy.roles.values()
    assert [rule.queue for rule in drafted.consume] == ["inbox.%u", "work"]
    assert len(drafted.configure) == 2


@pytest.mark.parametrize(
    ("event", "label", "reason"),
    [
        ({"subscribe": "#"}, "#", Reason.WIDE),
        ({"subscribe": "+/telemetry"}, "+/telemetry", Reason.WIDE),
        ({"subscribe": "$share/g/#"}, "#", Reason.WIDE),
        ({"subscribe": "$SYS/#"}, "$SYS/#", Reason.CONTROL),
        ({"publish": "$CONTROL/dynamic-security/v1"}, "$CONTROL/dynamic-security/v1", Reason.CONTROL),
        ({"subscribe": "#", "exchange": "amq.topic"}, "exchange amq.topic, key #", Reason.WIDE),
        ({"subscribe": "*.x", "exchange": "amq.topic"}, "exchange amq.topic, key *.x", Reason.WIDE),
        (
            {"subscribe": "#", "exchange": "amq.rabbitmq.trace"},
            "exchange amq.rabbitmq.trace, key #",
            Reason.CONTROL,
        ),
        ({"publish": "plant/%u"}, "plant/%u", Reason.INEXPRESSIBLE),
        ({"publish": "plant/\u202ex"}, "plant/\u202ex", Reason.UNSAFE_NAME),
    ],
)
def test_some_names_are_never_granted_however_many_use_them(
    event: Mapping[str, Any], label: str, reason: Reason
) -> None:
    found = learn([*NORMAL, *all_of(USERS, event)])
    assert rules(found) == {"user": ["publish plant/%u/telemetry", "subscribe plant/%u/command"]}
    assert reasons(found) == {label: reason}
    assert found.review[0].users == 12


def test_a_client_id_as_first_level_is_not_granted() -> None:
    events = [{"publish": f"c-{user}/x", "user": user, "client": f"c-{user}"} for user in USERS]
    found = learn([*NORMAL, *events])
    assert reasons(found) == {"%c/x": Reason.CLIENT_ID_FIRST}


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ({"identity": "claimed"}, Reason.CLAIMED),
        ({"user": None, "client": "c"}, Reason.ANONYMOUS),
        ({"user": None, "client": "c", "identity": "unknown"}, Reason.USER_UNKNOWN),
    ],
)
def test_nobody_unverified_is_evidence(who: Mapping[str, Any], reason: Reason) -> None:
    found = learn([{**event, **who} for event in all_of([f"x{n}" for n in range(50)], {"publish": "a/b"})])
    assert found.roles == ()
    assert reasons(found) == {"a/b": reason}


def test_a_claimed_name_adds_nothing_to_what_the_verified_user_of_that_name_does() -> None:
    found = learn([*NORMAL, *all_of(USERS, {"publish": "admin/reboot", "identity": "claimed"})])
    assert rules(found) == {"user": ["publish plant/%u/telemetry", "subscribe plant/%u/command"]}
    assert reasons(found) == {"admin/reboot": Reason.CLAIMED}


def test_users_of_whom_the_source_does_not_say_are_granted_and_marked() -> None:
    found = learn([{**event, "identity": "unknown"} for event in NORMAL])
    assert len(found.roles) == 1
    assert [(item.reason, item.role, item.users) for item in found.review] == [(Reason.UNVERIFIED, "user", 12)]


@pytest.mark.parametrize("user", ["*", "sensor-?", "evil\u202e", "\ud800", "", "a" * 2000])
def test_a_user_whose_name_cannot_be_written_is_not_granted_anything(user: str) -> None:
    found = learn([*NORMAL, {"publish": "plant/x/telemetry", "user": user, "client": "c"}])
    assert rules(found) == {"user": ["publish plant/%u/telemetry", "subscribe plant/%u/command"]}
    assert Reason.UNWRITABLE_USER in reasons(found).values()
    assert policy_of(found).roles["user"].members[0].user is not None


def test_what_was_refused_is_no_need_and_is_listed() -> None:
    refused = all_of(USERS, {"publish": "admin/x", "outcome": "denied", "repeat": 3})
    found = learn([*NORMAL, *refused, {"publish": "plant/user-1/telemetry", "user": "user-1", "outcome": "denied"}])
    assert rules(found) == {"user": ["publish plant/%u/telemetry", "subscribe plant/%u/command"]}
    assert {(item.reason, item.events, item.why) for item in found.review} == {
        (Reason.DENIED, 36, "the broker refused it 36 times"),
        (Reason.DENIED, 1, "the broker refused it 1 times, and the draft grants it"),
    }


def test_what_one_or_few_users_do_is_left_for_review_in_one_line() -> None:
    alone = [{"publish": f"orders/{n}/created", "user": "shop"} for n in range(50)]
    few = all_of(["a", "b", "c"], {"publish": "news/de"})
    found = learn([*NORMAL, *alone, *few])
    assert reasons(found) == {"orders/+/created": Reason.ONE_USER, "news/de": Reason.FEW_USERS}
    assert document(found.review[-1])["names"] == 50
    assert document(found.review[-1])["examples"] == ["shop"]


def test_what_few_members_do_besides_is_told_with_their_role() -> None:
    users = [f"user-{n}" for n in range(40)]
    found = learn([*own(users, "publish", "plant/%u/telemetry"), *all_of(users[:6], {"publish": "plant/alarm"})])
    (item,) = found.review
    assert (item.reason, item.role, item.users, item.members) == (Reason.RARE_IN_ROLE, "user", 6, 40)


def test_names_that_were_cut_are_counted_and_not_used() -> None:
    found = learn([*NORMAL, *all_of(USERS, {"publish": "plant/long", "length": 5000})])
    assert found.skipped == {"truncated": 12}
    assert rules(found) == {"user": ["publish plant/%u/telemetry", "subscribe plant/%u/command"]}


def test_several_virtual_hosts_are_told_apart() -> None:
    found = learn(
        [
            *all_of(USERS, {"consume": "work", "vhost": "one"}),
            *all_of([f"other-{n}" for n in range(12)], {"consume": "jobs", "vhost": "two"}),
        ]
    )
    assert {(s.user, s.vhost) for role in found.roles for s in role.selectors} == {
        ("user-*", "one"),
        ("other-*", "two"),
    }


def test_a_user_in_many_virtual_hosts_is_one_user() -> None:
    events = [{"consume": "work", "user": "solo", "vhost": f"v{n}"} for n in range(20)]
    found = learn(events)
    assert found.roles == ()
    assert set(reasons(found).values()) == {Reason.ONE_USER}


def test_names_beyond_one_accounts_bound_are_counted_and_leave_room_for_others() -> None:
    gatherer = Gatherer(max_pairs_of_one=100)
    flood = [{"publish": f"flood/{n}/x", "user": "flooder"} for n in range(500)]
    for batch in batches([*flood, *NORMAL], size=64):
        gatherer.add(batch)
    found = draft(gatherer.finish())
    assert found.overflow == 400
    assert (Reason.TOO_MANY_NAMES, ("flooder",), 400) in {(i.reason, i.examples, i.events) for i in found.review}
    assert len(found.roles) == 1


# -- properties ------------------------------------------------------------------------------------------------------

NAME = st.sampled_from(["a/x", "a/y", "b/1/t", "b/2/t", "b/3/t", "c/%u/t", "$SYS/x", "d", "a/+", "b/#", "#"])
EVENT = st.builds(
    lambda user, name, kind, outcome, at: {
        kind if "+" not in name and "#" not in name else "subscribe": name.replace("%u", user),
        "user": user,
        "outcome": outcome,
        "at": at,
    },
    st.sampled_from([f"u-{n}" for n in range(9)]),
    NAME,
    st.sampled_from(["publish", "subscribe"]),
    st.sampled_from(["allowed", "allowed", "allowed", "unknown", "denied"]),
    st.integers(0, 500),
)
SCENARIO = st.lists(EVENT, max_size=150)


def text_of(found: Draft) -> str:
    return policy_text(found, Provenance("learn", [], "0", "r"))


@settings(deadline=None, max_examples=60)
@given(SCENARIO, st.randoms(use_true_random=False))
def test_the_order_of_events_and_reading_them_in_parts_changes_nothing(
    events: list[Mapping[str, Any]], source: random.Random
) -> None:
    first = learn(events)
    shuffled = list(events)
    source.shuffle(shuffled)
    second = learn(shuffled)
    assert text_of(first) == text_of(second)
    assert first.review == second.review
    gatherer = Gatherer()
    for batch in batches(sorted(events, key=lambda event: int(event["at"])), size=7):
        gatherer.add(batch)
    assert text_of(draft(gatherer.finish())) == text_of(first)


@settings(deadline=None, max_examples=60)
@given(SCENARIO)
def test_replayed_the_draft_gives_findings_only_for_what_the_review_list_names(
    events: list[Mapping[str, Any]],
) -> None:
    events = sorted(events, key=lambda event: int(event["at"]))
    found = learn(events)
    engine = Engine(load_catalogue(), policy_of(found))
    for batch in batches(events):
        engine.step(batch)
    listed = {user for item in found.review for user in item.examples}
    counted = sum(item.events for item in found.review if item.reason is not Reason.DENIED)
    for finding in engine.ledger.findings():
        assert finding.client is not None
        assert finding.client.user in listed, finding
        assert finding.type.code not in ("TW211", "TW212", "TW213"), finding
    accused = sum(f.count for f in engine.ledger.findings() if f.type.code in ("TW201", "TW202", "TW203"))
    assert accused <= counted
    assert found.granted_events + counted == sum(event["outcome"] != "denied" for event in events)


TEXT = st.text(max_size=12) | st.sampled_from(
    [
        "+",
        "#",
        "*",
        "%u",
        "%c",
        "a/%u",
        "null",
        "no",
        "- x",
        "{",
        "#c",
        "a: b",
        '"',
        "\\",
        "\n",
        "\x85",
        "é",
        "😀",
        "\ud800",
    ]
)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(TEXT, min_size=1, max_size=6),
    st.lists(st.tuples(TEXT, TEXT, st.sampled_from(list(ResourceKind)), TEXT), min_size=1, max_size=6),
    st.sampled_from([Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE]),
)
def test_hostile_names_never_break_the_file_nor_widen_it(
    users: list[str], names: list[tuple[str, str, ResourceKind, str]], action: Action
) -> None:
    def hostile(builder: EventBuilder) -> EventBatch:
        for n in range(8):
            for user in users:
                client = Client("b", "mqtt", f"{user}{n}", f"{user}{n}", vhost=user, identity=Identity.VERIFIED)
                for first, second, kind, within in names:
                    keyed = kind in (ResourceKind.KEY, ResourceKind.BINDING)
                    resource = Resource(kind, f"{first}/{second}", within=within if keyed else "")
                    builder.add(n, action, client, resource, Outcome.ALLOWED, Certainty.EXACT)
        return builder.take()

    gatherer = Gatherer()
    gatherer.add(hostile(EventBuilder(Tables())))
    found = draft(gatherer.finish())
    policy = policy_of(found)
    drafted = [rule.place for role in found.roles for rule in role.rules]
    loaded = [place for role in policy.roles.values() for act in (action,) for place in role.places(act)]
    assert set(drafted) <= set(loaded)
    wanted = {f"{first}/{second}" for first, second, _, _ in names}
    for place in drafted:
        literal = [level for level in place.levels if level not in place.space.syntax.specials]
        assert all(any(level in name for name in wanted) for level in literal)
    members = [member for role in policy.roles.values() for member in role.members]
    known = {f"{user}{n}" for user in users for n in range(8)}
    assert all(str(member.user) in known or str(member.user).endswith("*") for member in members)
    for item in found.review:
        document(item)
