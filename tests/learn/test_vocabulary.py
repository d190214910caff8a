from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.events import Action, Resource, ResourceKind
from topicwarden.learn.rules import RuleSet
from topicwarden.learn.vocabulary import Name, Unfit, Vocabulary, is_pattern, matches, own
from topicwarden.patterns import Covered, FilterUnion, KeyUnion, bind, bind_key

PUBLISH, SUBSCRIBE, CONFIGURE = Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE
TOPIC, KEY, BINDING, QUEUE, EXCHANGE = (
    ResourceKind.TOPIC,
    ResourceKind.KEY,
    ResourceKind.BINDING,
    ResourceKind.QUEUE,
    ResourceKind.EXCHANGE,
)


@pytest.mark.parametrize(
    ("action", "resource", "expected"),
    [
        (PUBLISH, Resource(TOPIC, "a//b"), "a//b"),
        (SUBSCRIBE, Resource(TOPIC, "plant/+/x/#"), "plant/+/x/#"),
        (SUBSCRIBE, Resource(TOPIC, "$share/group/plant/+"), "plant/+"),
        (PUBLISH, Resource(KEY, "a.b", within="x"), "exchange x, key a.b"),
        (PUBLISH, Resource(KEY, "", within="x"), "exchange x, key "),
        (SUBSCRIBE, Resource(BINDING, "a.*.#", within="x"), "exchange x, key a.*.#"),
        (SUBSCRIBE, Resource(KEY, "a.b", within="x"), "exchange x, key a.b"),
        (SUBSCRIBE, Resource(QUEUE, "q.1"), "queue q.1"),
        (CONFIGURE, Resource(EXCHANGE, "x"), "exchange x"),
        (PUBLISH, Resource(TOPIC, "50%/x"), "50%/x"),
    ],
)
def test_a_name_is_kept_as_it_was_asked_for(action: Action, resource: Resource, expected: str) -> None:
    vocabulary = Vocabulary()
    name = vocabulary.name_of(action, resource)
    assert not isinstance(name, Unfit)
    assert vocabulary.place(name).label == expected


@pytest.mark.parametrize(
    ("action", "resource", "why"),
    [
        (PUBLISH, Resource(TOPIC, "a/+/b"), Unfit.INVALID),
        (PUBLISH, Resource(TOPIC, ""), Unfit.INVALID),
        (SUBSCRIBE, Resource(TOPIC, "a/#/b"), Unfit.INVALID),
        (PUBLISH, Resource(TOPIC, "a/\ud800"), Unfit.INVALID),
        (PUBLISH, Resource(TOPIC, "a/b", length=99), Unfit.TRUNCATED),
        (SUBSCRIBE, Resource(QUEUE, "amq.gen-xyz"), Unfit.MADE_UP),
        (PUBLISH, Resource(KEY, "amq.rabbitmq.reply-to.g2", within="amq.default"), Unfit.MADE_UP),
        (PUBLISH, Resource(TOPIC, "a/%u"), Unfit.INEXPRESSIBLE),
        (PUBLISH, Resource(TOPIC, "a/x%cx"), Unfit.INEXPRESSIBLE),
        (SUBSCRIBE, Resource(TOPIC, "%c/+"), Unfit.INEXPRESSIBLE),
        (PUBLISH, Resource(KEY, "a.*.b", within="x"), Unfit.INEXPRESSIBLE),
        (SUBSCRIBE, Resource(KEY, "a.#", within="x"), Unfit.INEXPRESSIBLE),
        (SUBSCRIBE, Resource(BINDING, "a.b*", within="x"), Unfit.INEXPRESSIBLE),
        (PUBLISH, Resource(TOPIC, "a/\u202eb"), Unfit.UNSAFE),
        (PUBLISH, Resource(TOPIC, "a/\n b"), Unfit.UNSAFE),
        (PUBLISH, Resource(TOPIC, "a" * 256), Unfit.UNSAFE),
        (PUBLISH, Resource(TOPIC, "/".join("a" * 17)), Unfit.UNSAFE),
        (PUBLISH, Resource(KEY, "k", within="x\n"), Unfit.UNSAFE),
        (PUBLISH, Resource(KEY, "k"), Unfit.INVALID),
        (SUBSCRIBE, Resource(EXCHANGE, "x"), Unfit.INVALID),
    ],
)
def test_an_unfit_name_is_not_learnt_from(action: Action, resource: Resource, why: Unfit) -> None:
    assert Vocabulary().name_of(action, resource) is why


def name_of(vocabulary: Vocabulary, text: str, action: Action = SUBSCRIBE) -> Name:
    name = vocabulary.name_of(action, Resource(TOPIC, text))
    assert not isinstance(name, Unfit)
    return name


@pytest.mark.parametrize(
    ("user", "client_id", "text", "expected"),
    [
        ("u1", "c1", "a/u1/c1", "a/%u/%c"),
        ("same", "same", "a/same", "a/%u"),
        ("u1", "c1", "a/u1x/b", "a/u1x/b"),
        ("+", "#", "a/+/#", "a/+/#"),
        ("", "", "a//b", "a//b"),
        (None, "c1", "a/c1", "a/%c"),
    ],
)
def test_whole_levels_equal_to_the_own_names_become_placeholders(
    user: str | None, client_id: str, text: str, expected: str
) -> None:
    vocabulary = Vocabulary()
    name = name_of(vocabulary, text)
    numbers = [vocabulary.number_of(one or None) for one in (user, client_id)]
    assert vocabulary.place(own(name, *numbers)).pattern == expected


LEVELS = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=4)
FILTERS = st.tuples(LEVELS, st.booleans()).map(lambda f: "/".join([*f[0], *(["#"] if f[1] else [])]))


@given(FILTERS, FILTERS)
def test_a_rule_admits_only_what_the_policys_own_matcher_says_it_covers(rule: str, wanted: str) -> None:
    vocabulary = Vocabulary()
    first, second = name_of(vocabulary, rule), name_of(vocabulary, wanted)
    covered = isinstance(FilterUnion([bind(rule, "u", "c")]).uncovered(bind(wanted, "u", "c")), Covered)
    admits = matches(first, second)
    assert covered or not admits
    assert bool(RuleSet([first]).admitting(second)) == admits
    if not is_pattern(second):
        assert admits == covered or rule.startswith(("+", "#"))


@given(st.lists(st.sampled_from(["a", "b", "*", "#"]), max_size=4), st.lists(st.sampled_from("ab"), max_size=4))
def test_a_rule_for_keys_admits_only_what_it_covers(rule: list[str], key: list[str]) -> None:
    vocabulary = Vocabulary()
    names = [vocabulary.name_of(SUBSCRIBE, Resource(BINDING, ".".join(words), within="x")) for words in (rule, key)]
    assert isinstance(names[0], tuple)
    assert isinstance(names[1], tuple)
    if matches(names[0], names[1]):
        union = KeyUnion([bind_key(".".join(rule), None, None)])
        assert isinstance(union.uncovered(bind_key(".".join(key), None, None)), Covered)
