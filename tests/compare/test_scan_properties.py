"""What a scan says, against asking every name of a small universe one by one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compare.plain_grants import TOPICS, PlainGrants
from topicwarden.compare.grants import excess, kept, missing
from topicwarden.compare.intent import Intentions, Unions
from topicwarden.compare.principals import principals
from topicwarden.compare.redundancy import useless
from topicwarden.events import Action, Client
from topicwarden.grants import Rules
from topicwarden.patterns import Names, Regex, Witness, bind_key, key_matches, matches, parse
from topicwarden.policy import Policy, Space, parse_policy

QUEUES = Space("queue")
LEVELS = ["a", "b", "u1", "$x"]
TOPIC_NAMES = [
    "/".join(name)
    for depth in (1, 2, 3)
    for name in [tuple(LEVELS[(n // len(LEVELS) ** i) % len(LEVELS)] for i in range(depth)) for n in range(4**depth)]
]
WORDS = ["a", "b", "ab"]
QUEUE_NAMES = [
    ".".join(WORDS[(n // 3**i) % 3] for i in range(depth)) for depth in (1, 2, 3) for n in range(3**depth)
] + ["x", "aa", "a-b"]

levels = st.sampled_from([*LEVELS, "+"])
filters = st.builds(
    lambda parts, rest: "/".join([*parts, *(["#"] if rest else [])]),
    st.lists(levels, min_size=1, max_size=3),
    st.booleans(),
)
policy_filters = st.builds(
    lambda parts, rest: "/".join([*parts, *(["#"] if rest else [])]),
    st.lists(st.sampled_from([*LEVELS, "+", "%u"]), min_size=1, max_size=3),
    st.booleans(),
)
rule_lists = st.lists(st.tuples(st.booleans(), filters.map(parse)), max_size=6)
regexes = st.sampled_from(
    ["^a$", "a", "^a", "b$", ".*", "^$", "^(a|b)$", "^a\\.b$", "^a\\..*$", "^[ab]+$", "^a|b$", "^ab?(\\.a)*$", "a.b"]
).map(Regex)
dotted = st.lists(st.sampled_from([*WORDS, "*", "#"]), min_size=1, max_size=3).map(".".join)


def policy_of(publish: Sequence[str] = (), consume: Sequence[str] = ()) -> Policy:
    lines = ["topicwarden: 1", "roles:", "  r:", '    members: [{user: "u*"}]']
    if publish:
        lines += ["    publish:", *(f'      - {{topic: "{one}"}}' for one in publish)]
    if consume:
        lines += ["    consume:", *(f'      - {{queue: "{one}"}}' for one in consume)]
    return parse_policy("\n".join(lines) + "\n", "policy.yaml")


def intended(publish: Sequence[str], topic: str) -> bool:
    return any(matches(one.replace("%u", "u1"), topic) for one in publish)


def allowed(rules: Sequence[tuple[bool, Names]], name: str) -> bool:
    return next((allow for allow, names in rules if matches(names.text, name)), False)


@settings(max_examples=150, deadline=None)
@given(rule_lists, st.lists(policy_filters, max_size=4, unique=True))
def test_excess_and_missing_are_what_asking_every_topic_finds(
    rules: list[tuple[bool, Names]], publish: list[str]
) -> None:
    grants = PlainGrants({"u1": {(Action.PUBLISH, TOPICS): rules}})
    policy = policy_of(publish)
    (principal,) = principals(grants, policy)
    intent = Intentions(policy, grants).of(principal.roles, "u1", "c")
    unions = Unions()
    found = list(excess(principal, intent, unions))
    gaps = list(missing(principal, intent, unions))
    for one in found:
        assert isinstance(one.answer, Witness)
        assert allowed(rules, one.answer.topic)
        assert not intended(publish, one.answer.topic)
    for gap in gaps:
        assert isinstance(gap.answer, Witness)
        assert not allowed(rules, gap.answer.topic)
        assert intended(publish, gap.answer.topic)
    too_much = [name for name in TOPIC_NAMES if allowed(rules, name) and not intended(publish, name)]
    too_little = [name for name in TOPIC_NAMES if not allowed(rules, name) and intended(publish, name)]
    assert bool(found) or not too_much
    assert bool(gaps) or not too_little


@settings(max_examples=150, deadline=None)
@given(regexes, st.lists(dotted, max_size=3, unique=True))
def test_excess_and_missing_of_a_regular_expression_are_what_asking_every_queue_finds(
    regex: Regex, consume: list[str]
) -> None:
    grants = PlainGrants({"u1": {(Action.SUBSCRIBE, QUEUES): [(True, regex)]}})
    policy = policy_of(consume=consume)
    (principal,) = principals(grants, policy)
    intent = Intentions(policy, grants).of(principal.roles, "u1", "c")
    unions = Unions()
    granted = re.compile(regex.text.encode())

    def says(name: str) -> tuple[bool, bool]:
        return granted.search(name.encode()) is not None, any(key_matches(one, name) for one in consume)

    found = list(excess(principal, intent, unions))
    gaps = list(missing(principal, intent, unions))
    for one in found:
        assert isinstance(one.answer, Witness)
        assert says(one.answer.topic) == (True, False)
    for gap in gaps:
        assert isinstance(gap.answer, Witness)
        assert says(gap.answer.topic) == (False, True)
    assert bool(found) or not any(says(name) == (True, False) for name in QUEUE_NAMES)
    assert bool(gaps) or not any(says(name) == (False, True) for name in QUEUE_NAMES)


@settings(max_examples=150, deadline=None)
@given(rule_lists)
def test_without_a_grant_that_is_said_to_decide_nothing_every_topic_is_decided_as_before(
    rules: list[tuple[bool, Names]],
) -> None:
    grants = PlainGrants({"u1": {(Action.PUBLISH, TOPICS): rules}})
    for one in useless(principals(grants, None), Unions()):
        number = (one.origin.line or 0) - 1
        rest = rules[:number] + rules[number + 1 :]
        for name in TOPIC_NAMES:
            assert allowed(rules, name) == allowed(rest, name), (one, name)


@settings(max_examples=100, deadline=None)
@given(rule_lists.filter(bool), st.lists(policy_filters, min_size=1, max_size=4, unique=True))
def test_what_is_kept_of_a_grant_is_what_it_and_the_policy_have_in_common(
    rules: list[tuple[bool, Names]], publish: list[str]
) -> None:
    grants = PlainGrants({"u1": {(Action.PUBLISH, TOPICS): rules}})
    policy = policy_of(publish)
    (principal,) = principals(grants, policy)
    intent = Intentions(policy, grants).of(principal.roles, "u1", "c")
    for rule in principal.rights.rules(Action.PUBLISH, TOPICS).rules:
        if rule.allow:
            parts = [part.pattern.replace("%u", "u1") for part in kept(principal, intent, rule.origin)]
            for name in TOPIC_NAMES:
                both = matches(rule.names.text, name) and intended(publish, name)
                assert both == any(matches(part, name) for part in parts), (rule, parts, name)


@given(st.lists(st.sampled_from(["u1", "u2", "u3", "u4"]), min_size=1, unique=True), rule_lists)
def test_accounts_of_one_class_may_do_the_same_each_with_its_own_name(
    users: list[str], rules: list[tuple[bool, Names]]
) -> None:
    shared: dict[str | None, dict[tuple[Action, Space], list[tuple[bool, Names]]]] = {
        user: {(Action.PUBLISH, TOPICS): [(True, parse(f"own/{user}/x"))]} for user in users
    }
    grants = _OneOrigin(shared)
    classes = list(principals(grants, policy_of(["own/%u/x"])))
    assert len(classes) == 1
    assert {classes[0].client.user, *(other.user for other in classes[0].alike)} == set(users)
    apart = list(principals(grants, policy_of(["own/%u/x", "own/u1/y"])))
    assert len(apart) == (2 if "u1" in users and len(users) > 1 else 1)


class _OneOrigin(PlainGrants):
    """As a `pattern` line of an acl_file: one grant for all."""

    def rights(self, client: Client):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        from topicwarden.grants import Origin, Rights

        if client.user not in self.users:
            return None
        origin = Origin("acl", 1, "pattern write own/%u/x")
        return Rights(
            {
                key: Rules(tuple(replace(rule, origin=origin) for rule in rules.rules))
                for key, rules in self._rules(client.user).items()
            }
        )


def test_a_binding_keeps_the_users_name_as_one_word() -> None:
    assert key_matches(bind_key("q.%u", "u1", None), "q.u1")
