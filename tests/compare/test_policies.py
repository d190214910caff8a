"""What a change of a policy allows and denies, held against plain evaluation of both policies, client by client."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from topicwarden.compare.policies import compare_policies
from topicwarden.compare.policies_limits import KINDS, effect, most_generous
from topicwarden.compare.policies_model import Difference, Effect, PolicyDiff, Side
from topicwarden.compare.policies_names import representatives
from topicwarden.compare.policies_rights import Rights, permissions
from topicwarden.events import Action, Client, Identity
from topicwarden.patterns import bind_key, key_matches
from topicwarden.patterns import matches as topic_matches
from topicwarden.policy import Glob, Place, Policy, Role, Space, parse_policy, parse_policy_with_lines

TOPIC = Space("topic")
KEY = Space("key", "x")
QUEUE = Space("queue")
EXCHANGE = Space("exchange")
QUESTIONS = [
    (Action.PUBLISH, TOPIC),
    (Action.PUBLISH, KEY),
    (Action.SUBSCRIBE, TOPIC),
    (Action.SUBSCRIBE, KEY),
    (Action.SUBSCRIBE, QUEUE),
    (Action.CONFIGURE, QUEUE),
    (Action.CONFIGURE, EXCHANGE),
]


def diff(old: str, new: str) -> PolicyDiff:
    sides = []
    for name, text in (("old.yaml", old), ("new.yaml", new)):
        policy, lines = parse_policy_with_lines("topicwarden: 1\n" + text, name)
        sides.append(Side(policy, name, lines))
    return compare_policies(*sides)


def roles(**by_name: str) -> str:
    return "roles:\n" + "".join(f"  {name}: {{{body}}}\n" for name, body in by_name.items())


def told(differences: Sequence[Difference]) -> list[tuple[str, str, str]]:
    return [(one.permission.kind, one.permission.place.label, one.example.name) for one in differences]


# -- the plain definition, apart from what is tested -------------------------------------------------------------------


def holds(place: Place, name: str, client: Client) -> bool:
    if place.space.family == "topic":
        return topic_matches(place.pattern, name, client.user, client.client_id)
    return key_matches(bind_key(place.pattern, client.user, client.client_id), name)


def allowed(policy: Policy, client: Client, action: Action, space: Space, name: str) -> list[tuple[str, Place]]:
    return [
        (role_name, place)
        for role_name, role in policy.roles.items()
        if role.has_member(client)
        for place in role.places(action)
        if place.space == space and holds(place, name, client)
    ]


# -- random policies, clients and names --------------------------------------------------------------------------------

GLOBS = ["a", "b", "ab", "*", "?", "a*", "*b", "?b", "a?", "*a*", "$*", "a/b", "*.*", "?*"]
SELECTORS = st.fixed_dictionaries(
    {},
    optional={
        "user": st.sampled_from(GLOBS),
        "client": st.sampled_from(GLOBS),
        "vhost": st.sampled_from(["v", "?", "*"]),
        "broker": st.sampled_from(["p", "*"]),
        "address": st.sampled_from(["10.0.0.0/8", "10.0.0.0/24", "::/0", "::ffff:0:0/96", "0.0.0.0/0"]),
        "tls_subject": st.sampled_from(["CN=a", "CN=*"]),
    },
).filter(bool) | st.sampled_from([{"anonymous": True}, {"anonymous": True, "client": "a*"}])
LEVELS = ["a", "b", "ab", "+", "%u", "%c", "", "$x"]
TOPICS = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]),
    st.lists(st.sampled_from(LEVELS), min_size=1, max_size=3),
    st.sampled_from([[], ["#"]]),
).filter(bool) | st.just("#")
WORDS = st.lists(st.sampled_from(["a", "b", "*", "#", "%u", "%c"]), min_size=1, max_size=3).map(".".join)
KEYS = WORDS.filter(lambda text: not ("#" in text and "%u" in text and "%c" in text))
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "rate": st.sampled_from(["1/s", "10/s", "600/min", "5/h"]),
        "byte_rate": st.sampled_from(["1KiB/s", "60KiB/min"]),
    },
)
SIZES = st.fixed_dictionaries({}, optional={"max_size": st.sampled_from(["10", "20"])})
PLACES = st.one_of(TOPICS.map(lambda t: {"topic": t}), KEYS.map(lambda k: {"exchange": "x", "key": k}))


def distinct(values: st.SearchStrategy[Any], key: Any = str) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, max_size=2, unique_by=key)


def place_only(rule: dict[str, Any]) -> str:
    return str({key: rule[key] for key in ("topic", "exchange", "key") if key in rule})


ROLES = st.fixed_dictionaries(
    {"members": st.lists(SELECTORS, min_size=1, max_size=2, unique_by=str)},
    optional={
        "publish": distinct(st.builds(lambda *parts: {k: v for p in parts for k, v in p.items()}, PLACES, LIMITS, SIZES), place_only),  # noqa: E501
        "subscribe": distinct(PLACES),
        "consume": distinct(KEYS.map(lambda k: {"queue": k})),
        "configure": distinct(KEYS.map(lambda k: {"queue": k}) | KEYS.map(lambda k: {"exchange": k})),
        "rate": st.sampled_from(["2/s", "20/s"]),
    },
)  # fmt: skip


def policy_of(by_name: dict[str, Any]) -> Policy:
    return parse_policy(yaml.safe_dump({"topicwarden": "1", "roles": by_name}), "p")


@st.composite
def two_policies(draw: st.DrawFn) -> tuple[Policy, Policy]:
    """Two policies that have something in common, as before and after a change."""
    old = draw(st.dictionaries(st.sampled_from("rst"), ROLES, min_size=1, max_size=3))
    new = dict(old)
    for name in draw(st.lists(st.sampled_from("rst"), min_size=1, max_size=2, unique=True)):
        change = draw(st.sampled_from(["role", "members", "publish", "remove"]))
        if change == "remove":
            new.pop(name, None)
        elif change == "role" or name not in new:
            new[name] = draw(ROLES)
        else:
            other = draw(ROLES)
            new[name] = {**new[name], change: other.get(change, [])}
    return policy_of(old), policy_of(new)


NAMES = ["a", "b", "ab", "ba", "$x", "a.b", "a/b", "", "c", "b.a"]
CLIENTS = st.builds(
    lambda user, client_id, vhost, broker, address, subject: Client(
        broker, "mqtt", client_id, user, address, None, subject, vhost, Identity.VERIFIED
    ),
    st.sampled_from([None, *NAMES]),
    st.sampled_from(NAMES),
    st.sampled_from([None, "v", "w", "vv"]),
    st.sampled_from(["p", "q"]),
    st.sampled_from([None, "10.0.0.1", "10.1.0.1", "192.0.2.1", "::1", "::ffff:10.0.0.1", "::ffff:192.0.2.1"]),
    st.sampled_from([None, "CN=a", "CN=b", "O=x"]),
)
TOPIC_NAMES = st.lists(st.sampled_from(["a", "b", "ab", "ba", "$x", "", "c"]), min_size=1, max_size=4).map("/".join)
KEY_NAMES = st.lists(st.sampled_from(["a", "b", "ab", "ba", "$x", "c"]), max_size=4).map(".".join)


@settings(max_examples=150, deadline=None)
@given(
    policies=two_policies(),
    clients=st.lists(CLIENTS, min_size=6, max_size=6),
    topics=st.lists(TOPIC_NAMES, min_size=6, max_size=6),
    keys=st.lists(KEY_NAMES, min_size=6, max_size=6),
)
def test_whatever_one_policy_allows_and_the_other_does_not_is_reported_and_nothing_else(
    policies: tuple[Policy, Policy], clients: list[Client], topics: list[str], keys: list[str]
) -> None:
    old, new = policies
    found = compare_policies(Side(old, "old"), Side(new, "new"))
    assert not found.unanswered
    for differences, mine, other in ((found.allows, new, old), (found.denies, old, new)):
        for one in differences:
            question = (one.example.client, one.permission.action, one.permission.place.space, one.example.name)
            assert (one.permission.role, one.permission.place) in allowed(mine, *question)
            assert not allowed(other, *question)
        for client, (action, space) in itertools.product(clients, QUESTIONS):
            for name in topics if space == TOPIC else keys:
                if space in (QUEUE, EXCHANGE) and not name:
                    continue
                granting = allowed(mine, client, action, space, name)
                if granting and not allowed(other, client, action, space, name):
                    for role, place in granting:
                        assert any(
                            (one.permission.role, one.permission.action, one.permission.place) == (role, action, place)
                            and any(member.matches(client) for member in one.members)
                            for one in differences
                        ), (client, action, space, name, role, place)


FEW_USERS = st.sampled_from(["a", "b", "*", "?", "a*", "*b", "$*"])
FEW = st.fixed_dictionaries(
    {}, optional={"user": FEW_USERS, "client": st.sampled_from(["a", "*b", "?*"])}
).filter(bool) | st.just({"anonymous": True})  # fmt: skip
WHO = [Client("p", "mqtt", client_id, user) for user in [None, *NAMES] for client_id in NAMES]


@settings(max_examples=150, deadline=None)
@given(
    old=st.lists(st.tuples(FEW, st.sampled_from(["t", "%u", "a/%u", "+/a", "a", "%c/%u"])), min_size=1, max_size=4),
    new=st.tuples(FEW, st.sampled_from(["t", "%u", "a/%u", "%u/a", "+", "%u/%c"])),
)
def test_whoever_gains_is_found_however_selectors_overlap(
    old: list[tuple[dict[str, Any], str]], new: tuple[dict[str, Any], str]
) -> None:
    rules = [{f"r{n}": {"members": [who], "publish": [{"topic": topic}]}} for n, (who, topic) in enumerate([*old, new])]
    before, after = (policy_of({k: v for rule in part for k, v in rule.items()}) for part in (rules[:-1], rules[-1:]))
    gains = compare_policies(Side(before, "old"), Side(after, "new")).allows
    names = ["t", "a", "b", "ab", "$x", "a/a", "a/ab", "b/a", "$x/a", "ab/a", "a/b", "c"]
    for client, name in itertools.product(WHO, names):
        question = (client, Action.PUBLISH, TOPIC, name)
        assert gains or not allowed(after, *question) or allowed(before, *question), question


@settings(max_examples=150, deadline=None)
@given(
    policies=two_policies(),
    clients=st.lists(CLIENTS, min_size=10, max_size=10),
    topics=st.lists(TOPIC_NAMES, min_size=6, max_size=6),
)
def test_no_limit_changes_unsaid(policies: tuple[Policy, Policy], clients: list[Client], topics: list[str]) -> None:
    old, new = policies
    found = compare_policies(Side(old, "old"), Side(new, "new"))
    assert not found.unanswered
    for client, topic in itertools.product(clients, topics):
        for what in KINDS:
            change = limits_at(policies, what, client, TOPIC, topic)
            if change is not None:
                assert_told(change, found, (what, client, topic))
    for one in found.limits:
        if one.example is not None and one.permission is not None:
            at = (one.example.client, one.permission.place.space, one.example.name)
            assert limits_at(policies, one.what, *at) is one.effect
    for client in clients:
        over_all = []
        for policy in policies:
            own = [role for role in policy.roles.values() if role.publish and role.has_member(client)]
            over_all.append((own, most_generous([KINDS["rate"](role) for role in own])))
        if over_all[0][0] and over_all[1][0]:
            assert_told(effect(over_all[0][1], over_all[1][1]), found, client)


METERED = st.builds(
    lambda topic, limit: {"topic": topic, **limit},
    st.sampled_from(["t", "+", "#", "t/#", "t/a"]),
    st.sampled_from(
        [{}, {"rate": "2/s", "burst": 1}, {"rate": "1/s", "burst": 9}, {"rate": "1/s"}, {"rate": "3/s", "burst": 5}]
    ),
)


@settings(max_examples=150, deadline=None)
@example(
    [{"topic": "t", "rate": "1/s", "burst": 9}, {"topic": "#", "rate": "1/s"}],
    [{"topic": "+", "rate": "2/s", "burst": 1}, {"topic": "#", "rate": "1/s"}],
)
@given(*[st.lists(METERED, min_size=1, max_size=3, unique_by=lambda rule: rule["topic"]) for _ in range(2)])
def test_of_several_rules_for_a_name_the_one_that_governs_is_compared(old: list[Any], new: list[Any]) -> None:
    policies = [policy_of({"r": {"members": [{"user": "u"}], "publish": rules}}) for rules in (old, new)]
    found = compare_policies(Side(policies[0], "old"), Side(policies[1], "new"))
    assert not found.unanswered
    own = {(one.permission.place.pattern, one.what) for one in found.limits if one.permission and not one.example}
    told_by_example = {one.effect for one in found.limits if one.example}
    for name in ("t", "t/a", "a", "t/b", "a/b"):
        change = limits_at(policies, "rate", Client("p", "mqtt", "", "u"), TOPIC, name)
        if change in (None, Effect.NONE):
            continue
        gained = [one for one in (*found.allows, *found.denies) if topic_matches(one.permission.place.pattern, name)]
        assert change in told_by_example or gained or any(topic_matches(pattern, name) for pattern, _ in own)
    for one in found.limits:
        assert one.effect is not Effect.NONE
        if one.example is not None:
            assert limits_at(policies, "rate", one.example.client, TOPIC, one.example.name) is one.effect


def limits_at(policies: Sequence[Policy], what: str, client: Client, space: Space, name: str) -> Effect | None:
    """Say how the limit that governs a publish changes; None when not both policies allow it."""
    governing = []
    for policy in policies:
        rules = [
            rule
            for role in policy.roles.values()
            if role.has_member(client)
            for rule in role.publish
            if rule.place.space == space and holds(rule.place, name, client)
        ]
        if not rules:
            return None
        governing.append(most_generous([KINDS[what](rule) for rule in rules]))
    return effect(*governing)


def assert_told(change: Effect, found: PolicyDiff, about: object) -> None:
    if change in (Effect.LOOSER, Effect.EITHER):
        assert found.opens, about
    if change is not Effect.NONE:
        assert found.limits or found.allows or found.denies or found.unanswered, about


@settings(max_examples=100, deadline=None)
@given(two_policies())
def test_a_change_taken_back_is_the_same_the_other_way_round(policies: tuple[Policy, Policy]) -> None:
    old, new = (Side(policy, "p") for policy in policies)
    there, back = compare_policies(old, new), compare_policies(new, old)
    assert told(there.allows) == told(back.denies)
    assert told(there.denies) == told(back.allows)
    assert compare_policies(new, new).empty


@settings(max_examples=60, deadline=None)
@given(two_policies())
def test_who_joins_and_leaves_a_role_is_shown_by_a_client(policies: tuple[Policy, Policy]) -> None:
    old, new = policies
    for change in compare_policies(Side(old, "old"), Side(new, "new")).others:
        if change.section == "members" and change.client is not None:
            before, after = (policy.roles[change.subject].has_member(change.client) for policy in policies)
            assert (before, after) == ((False, True) if change.what == "joins" else (True, False))


@settings(max_examples=60, deadline=None)
@given(two_policies(), st.lists(CLIENTS, min_size=5, max_size=5))
def test_a_clients_roles_are_those_of_the_policy(policies: tuple[Policy, Policy], clients: list[Client]) -> None:
    rights = Rights(Side(policies[0], "p"))
    for client in clients:
        assert list(rights.roles_of(client)) == policies[0].roles_of(client)


@given(ROLES)
def test_a_roles_permissions_are_the_places_the_policy_gives_it(written: dict[str, Any]) -> None:
    role: Role = policy_of({"r": written}).roles["r"]
    for action in (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE):
        mine = [one.place for one in permissions("r", role) if one.action is action]
        assert set(mine) == set(role.places(action))


WORDS_TO_TRY = ["".join(word) for size in range(4) for word in itertools.product("abx.", repeat=size)]


@settings(max_examples=200, deadline=None)
@given(
    globs=st.lists(st.text("ab.*?", min_size=1, max_size=4), max_size=4, unique=True),
    literals=st.lists(st.sampled_from(WORDS_TO_TRY), max_size=5, unique=True),
)
def test_for_every_set_of_globs_that_a_name_can_match_there_is_a_name(globs: list[str], literals: list[str]) -> None:
    names, complete = representatives({glob: i for i, glob in enumerate(globs)}, literals=literals, fillers=["someone"])
    assert complete
    by_set: dict[int, list[str]] = {}
    read = [Glob(glob) for glob in globs]
    for name in names:
        assert name.text is not None
        assert name.holds == sum(1 << i for i, glob in enumerate(read) if glob.matches(name.text))
        by_set.setdefault(name.holds, []).append(name.text)
        assert not (name.fresh and name.text in literals)
    fresh = {name.holds for name in names if name.fresh}
    for word in WORDS_TO_TRY:
        matching = sum(1 << i for i, glob in enumerate(read) if glob.matches(word))
        assert matching in by_set
        # Where there are only a few names, those that are spelled out somewhere are all there.
        assert matching in fresh or word not in literals or word in by_set[matching]
        # And one that is spelled out nowhere, where there is one.
        assert word in literals or word in globs or set(by_set[matching]) - {*literals, *globs}


# -- cases a person would ask for ------------------------------------------------------------------------------------


def test_a_wider_pattern_is_newly_allowed_with_a_shortest_name_and_its_line() -> None:
    found = diff(
        roles(sensor='members: [{user: "sensor-*"}], publish: [{topic: "plant/+/%u/telemetry"}]'),
        roles(sensor='members: [{user: "sensor-*"}],\n    publish: [\n      {topic: "plant/+/%u/#"}]'),
    )
    (one,) = found.allows
    assert (one.written.file, one.written.line, one.written.path) == ("new.yaml", 5, "roles.sensor.publish[0]")
    assert (one.example.client.user, one.example.name) == ("sensor-x", "plant/x/sensor-x")
    assert not found.denies
    assert found.opens


def test_a_rule_that_other_roles_of_the_same_clients_give_already_is_nothing_new() -> None:
    before = roles(
        all='members: [{user: "*"}], publish: [{topic: "plant/#"}]', sensor='members: [{user: "s-*"}], consume: []'
    )
    after = roles(
        all='members: [{user: "*"}], publish: [{topic: "plant/#"}]',
        sensor='members: [{user: "s-*"}], publish: [{topic: "plant/+/%u"}]',
    )
    assert diff(before, after).empty


def test_roles_add_up_only_for_clients_that_have_them_all() -> None:
    before = roles(
        a='members: [{user: "a*"}], publish: [{topic: "t/+"}]', b='members: [{user: "*b"}], publish: [{topic: "t"}]'
    )
    after = before + '  c: {members: [{user: "a*b"}, {user: "a*"}], publish: [{topic: "t/+"}, {topic: "t"}]}\n'
    (one,) = diff(before, after).allows
    assert [str(member.user) for member in one.members] == ["a*"]
    assert one.permission.place.pattern == "t"


def test_another_name_for_a_role_allows_nothing() -> None:
    body = 'members: [{user: "s-*"}], publish: [{topic: "t/%u", rate: 1/s}], rate: 2/s'
    found = diff(roles(a=body), roles(b=body))
    assert [*found.allows, *found.denies, *found.limits] == []
    assert not found.opens
    assert [(one.what, one.subject) for one in found.others] == [("removed", "a"), ("new", "b")]


def test_a_user_name_that_a_pattern_spells_out_is_looked_at() -> None:
    before = roles(r='members: [{user: "*"}], publish: [{topic: "t/+"}]')
    after = roles(r='members: [{user: "*"}], publish: [{topic: "t/%u"}, {topic: "t/admin"}]')
    assert told(diff(before, after).denies) == [("publish", "t/+", "t/x")]
    assert told(diff(after, before).allows) == [("publish", "t/+", "t/x")]
    assert not diff(before, after).allows


def test_a_client_that_calls_itself_after_the_brokers_own_topics_is_not_forgotten() -> None:
    before = roles(r='members: [{user: "*"}], publish: [{topic: "+/x"}]')
    after = roles(r='members: [{user: "*"}], publish: [{topic: "%u/x"}]')
    (one,) = diff(before, after).allows
    assert one.example.name.startswith("$")
    assert one.example.client.user == one.example.name.split("/")[0]


def test_a_client_id_is_not_taken_for_the_user_name() -> None:
    who = 'members: [{user: "s-*", client: "s-*"}]'
    (one,) = diff(
        roles(r=f'{who}, publish: [{{topic: "a/%c"}}]'), roles(r=f'{who}, publish: [{{topic: "a/%u"}}]')
    ).allows
    assert one.example.name == f"a/{one.example.client.user}" != f"a/{one.example.client.client_id}"
    same = "members: [{user: s, client: s}]"
    assert not diff(
        roles(r=f'{same}, publish: [{{topic: "a/%c"}}]'), roles(r=f'{same}, publish: [{{topic: "a/%u"}}]')
    ).allows


def test_clients_without_a_user_name_are_no_members_of_every_user() -> None:
    before = roles(r='members: [{user: "*"}], publish: [{topic: "t/#"}]')
    after = roles(r='members: [{client: "c-*"}], publish: [{topic: "t/#"}]')
    found = diff(before, after)
    assert [one.example.client.user for one in found.allows] == [None]
    assert [one.example.client.user for one in found.denies] == ["someone"]


def test_clients_that_different_selectors_of_the_other_policy_match_are_all_looked_at() -> None:
    for known, unknown in (('{user: "*"}', "{anonymous: true}"), ("{anonymous: true}", '{user: "*"}')):
        before = roles(a=f"members: [{known}], publish: [{{topic: t}}]", b=f"members: [{unknown}]")
        found = diff(before, before + '  c: {members: [{client: "c*"}], publish: [{topic: t}]}\n')
        assert [one.example.client.user is None for one in found.allows] == ["anonymous" in unknown]


def test_a_mapped_address_is_in_networks_of_both_versions() -> None:
    before = roles(r='members: [{address: "10.0.0.0/8"}], publish: [{topic: "t"}]')
    after = roles(r='members: [{address: "::ffff:10.0.0.0/104"}], publish: [{topic: "t"}]')
    found = diff(before, after)
    assert not found.allows
    assert [one.example.client.address for one in found.denies] == ["10.0.0.0"]


def test_a_permission_to_bind_brings_queues_that_the_server_names() -> None:
    before = roles(r="members: [{user: u}]")
    after = roles(r='members: [{user: u}], subscribe: [{topic: t}, {exchange: x, key: "a.*"}]')
    found = [one for one in diff(before, after).allows if one.permission.implied]
    assert [(one.permission.action, one.written.path) for one in found] == [
        (Action.SUBSCRIBE, "roles.r.subscribe[1]"),
        (Action.CONFIGURE, "roles.r.subscribe[1]"),
    ]


def test_a_queue_has_a_name() -> None:
    before = roles(r='members: [{user: u}], configure: [{queue: "*.#"}]')
    after = roles(r='members: [{user: u}], configure: [{queue: "#"}]')
    assert not diff(before, after).allows
    key = diff(
        roles(r='members: [{user: u}], publish: [{exchange: x, key: "*.#"}]'),
        roles(r='members: [{user: u}], publish: [{exchange: x, key: "#"}]'),
    )
    assert told(key.allows) == [("publish", "exchange x, key #", "")]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("rate: 10/s", "rate: 20/s", [("rate", Effect.LOOSER)]),
        ("rate: 10/s", "rate: 5/s", [("rate", Effect.TIGHTER)]),
        ("rate: 10/s, burst: 5", "rate: 5/s, burst: 10", [("rate", Effect.EITHER)]),
        ("rate: 10/s", "rate: 600/min, burst: 10", []),
        ("rate: 10/s", "max_size: 4KiB", [("rate", Effect.LOOSER), ("max_size", Effect.TIGHTER)]),
        ("byte_rate: 1KiB/s", "byte_rate: 1KiB/s, max_size: 2KiB", [("byte_rate", Effect.LOOSER), ("max_size", Effect.TIGHTER)]),  # noqa: E501
    ],
)  # fmt: skip
def test_a_rules_limits_are_compared(old: str, new: str, expected: list[tuple[str, Effect]]) -> None:
    body = 'members: [{{user: "*"}}], publish: [{{topic: t, {}}}]'
    found = diff(roles(r=body.format(old)), roles(r=body.format(new)))
    assert [(change.what, change.effect) for change in found.limits] == expected
    assert found.opens == any(kind in (Effect.LOOSER, Effect.EITHER) for _, kind in expected)
    assert [*found.allows, *found.denies] == []


def test_a_limit_that_is_lifted_by_a_rule_beside_it_is_told_with_a_name() -> None:
    limited = '{topic: "t/#", rate: 10/s}'
    found = diff(
        roles(r=f'members: [{{user: "*"}}], publish: [{limited}]'),
        roles(r=f'members: [{{user: "*"}}], publish: [{limited}, {{topic: "t/a"}}]'),
    )
    (change,) = found.limits
    assert (change.what, change.old, change.new, change.effect) == (
        "rate",
        "10/s, 10 at once",
        None,
        Effect.LOOSER,
    )
    assert change.example is not None
    assert change.example.name == "t/a"
    assert not found.allows


def test_a_limit_over_all_publishes_is_lifted_by_a_role_without_one() -> None:
    before = roles(a='members: [{user: "*"}], rate: 5/s, publish: [{topic: t}]')
    after = before + '  b: {members: [{user: "u-*"}], publish: [{topic: t}]}\n'
    (change,) = diff(before, after).limits
    assert (change.role, change.permission, change.new, change.effect) == ("b", None, None, Effect.LOOSER)
    assert change.example is not None
    assert change.example.client.user == "u-x"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "exceptions: [{finding: TW201, client: c, reason: r, until: 2027-01-01}]", ["exceptions new looser"]),
        ("exceptions: [{finding: TW201, client: c, reason: r, until: 2027-01-01}]", "", ["exceptions removed tighter"]),
        (
            "exceptions: [{finding: TW201, client: c, reason: r, until: 2027-01-01}]",
            "exceptions: [{finding: tw201, client: c, reason: r, until: 2027-02-01}]",
            ["exceptions changed looser"],
        ),
        (
            "exceptions: [{finding: TW201, client: c, reason: r, until: 2027-01-01}]",
            "exceptions: [{finding: TW201, client: c, reason: s, until: 2027-01-01}]",
            ["exceptions changed none"],
        ),
        (
            "exceptions: [{finding: TW112, grant: g, holder: h, reason: r, until: 2027-01-01}]",
            "exceptions: [{finding: TW112, grant: g, holder: i, reason: r, until: 2027-01-01}]",
            ["exceptions removed tighter", "exceptions new looser"],
        ),
        (
            "exceptions: [{finding: TW110, user: u, change: tags, reason: r, until: 2027-01-01}]",
            "exceptions: [{finding: TW110, user: u, change: tags, broker: b, reason: r, until: 2027-01-01}]",
            ["exceptions removed tighter", "exceptions new looser"],
        ),
        (
            "exceptions: [{finding: TW112, grant: g, file: f, reason: r, until: 2027-01-01}]",
            "exceptions: [{finding: TW112, grant: g, file: f, reason: r, until: 2027-01-02}]",
            ["exceptions changed looser"],
        ),
        ("payload: {max_entropy: 7}", "payload: {max_entropy: 6}", ["payload max_entropy tighter"]),
        ("payload: {max_entropy: 7}", "", ["payload max_entropy looser"]),
        ('payload: {text_only: ["a/#"]}', 'payload: {text_only: ["a/#", "a/b"]}', []),
        ('payload: {text_only: ["a/#"]}', 'payload: {text_only: ["a/+"]}', ["payload text_only looser"]),
        ("", "thresholds: {denials: 11/min, max_levels: 8}", ["thresholds denials looser", "thresholds max_levels tighter"]),  # noqa: E501
        ("", "thresholds: {denials: 1/s}", ["thresholds denials either"]),
        ("", "inventory: {brokers: [{address: h, ports: [1, 2]}]}", ["inventory broker looser"]),
        (
            "inventory: {brokers: [{address: h, ports: [1]}, {address: h, ports: [2]}]}",
            "inventory: {brokers: [{address: h, ports: [2, 1]}]}",
            [],
        ),
        (
            "inventory: {tools: [{process: p, hosts: [h]}]}",
            "inventory: {tools: [{process: p, users: [u]}]}",
            ["inventory tool either"],
        ),
        ("inventory: {tools: [{process: p, hosts: [h]}]}", "inventory: {tools: [{process: p}]}", ["inventory tool looser"]),  # noqa: E501
        ("", 'naming: [{within: {topic: "a/#"}, levels: [a, b]}]', ["naming new rule tighter"]),
        (
            'naming: [{within: {topic: "a/#"}, levels: [a, b]}]',
            'naming: [{within: {topic: "a/#"}, levels: [a, b], more: true}]',
            ["naming changed rule looser"],
        ),
        (
            'naming: [{within: {topic: "a/#"}, levels: [a, b]}]',
            'naming: [{within: {topic: "a/#"}, levels: [a, "[a-z]"]}]',
            ["naming changed rule either"],
        ),
        ('naming: [{within: {topic: "a/#"}, levels: [a, b]}]', "", ["naming removed rule looser"]),
    ],
)  # fmt: skip
def test_everything_else_is_compared(old: str, new: str, expected: list[str]) -> None:
    found = diff(old, new)
    assert [f"{change.section} {change.what} {change.effect}" for change in found.others] == expected
    assert found.opens == any(line.endswith(("looser", "either")) for line in expected)


def test_too_many_overlapping_patterns_are_undecided_and_never_no_change() -> None:
    many = ", ".join(f'{{user: "*{a}{b}*"}}' for a in "abcd" for b in "efgh")
    before = roles(r=f"members: [{many}], publish: [{{topic: t}}]")
    after = roles(r=f'members: [{many}], publish: [{{topic: t}}, {{topic: "u"}}]')
    found = diff(before, after)
    assert found.opens
    assert told(found.allows) == [("publish", "u", "u")]
    narrowed = diff(before, roles(r='members: [{user: "*ae*bf*"}], publish: [{topic: t}]'))
    assert not narrowed.empty
    assert any(one.question == "newly allowed" for one in narrowed.unanswered) or not narrowed.allows


def test_a_thousand_users_by_name_are_compared_quickly() -> None:
    users = ", ".join(f"{{user: device-{n}}}" for n in range(1000))
    rules = ", ".join(f'{{topic: "site/{n}/%u/#"}}' for n in range(20))
    before = roles(r=f"members: [{users}], publish: [{rules}]")
    after = roles(r=f'members: [{users}], publish: [{rules}, {{topic: "new/%u"}}]', s='members: [{user: "device-7*"}]')
    (one,) = diff(before, after).allows
    assert len(one.members) == 1000
