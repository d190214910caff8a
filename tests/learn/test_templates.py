from __future__ import annotations

import random

from hypothesis import example, given
from hypothesis import strategies as st

from topicwarden.events import Action, Resource, ResourceKind
from topicwarden.learn.rules import RuleSet
from topicwarden.learn.templates import SIBLINGS, Miner
from topicwarden.learn.vocabulary import ONE, Name, Vocabulary, is_pattern

Used = dict[str, set[int]]


def mine(used: Used, support: int = 5, action: Action = Action.PUBLISH) -> Used:
    vocabulary = Vocabulary()
    names: dict[Name, set[int]] = {}
    for text, holders in used.items():
        name = vocabulary.name_of(action, Resource(ResourceKind.TOPIC, text))
        assert isinstance(name, tuple)
        names[name] = set(holders)
    return {vocabulary.place(name).pattern: held for name, held in Miner(vocabulary, support).mine(names).items()}


def test_ever_new_values_of_many_accounts_become_a_wildcard() -> None:
    used = {f"orders/{n}/created": {n % 20} for n in range(200)}
    assert mine(used) == {"orders/+/created": set(range(20))}


def test_a_closed_set_of_words_stays_literal() -> None:
    used = {f"log/{word}": set(range(100)) for word in "abcdefghij"}
    assert mine(used) == used


def test_words_that_many_share_stay_literal_beside_ever_new_values() -> None:
    closed = {f"fw/{word}": set(range(30)) for word in ("stable", "beta")}
    strays = {f"fw/z{n}": {100 + n} for n in range(40)}
    assert mine({**closed, **strays}) == {**closed, "fw/+": set(range(100, 140))}


def test_a_property_of_the_account_becomes_a_wildcard() -> None:
    used = {f"site/s{n % 10}/dev/temp": {n, n + 10} for n in range(10)}
    assert mine(used) == {"site/+/dev/temp": set(range(20))}


def test_stray_names_below_values_leave_their_shape_as_it_is() -> None:
    used = {f"site/s{n}/dev/{kind}": {n, n + 10, n + 20} for n in range(10) for kind in ("temp", "hum")}
    strays = {f"site/s{n}/stray{n}": {99} for n in range(10)} | {f"site/z{n}/stray": {98} for n in range(30)}
    found = mine({**used, **strays})
    assert found["site/+/dev/temp"] == found["site/+/dev/hum"] == set(range(30))


def test_one_accounts_many_names_make_no_wildcard() -> None:
    used: Used = {f"orders/{n}/created": {7} for n in range(500)}
    assert mine(used) == used


def test_the_first_level_is_never_generalised() -> None:
    used = {f"app{n}/status": {n, n + 1} for n in range(50)}
    assert mine(used) == used


def test_a_wildcard_that_was_asked_for_is_never_widened() -> None:
    used = {f"plant/s{n}/#": {n} for n in range(100)} | {f"plant/s{n}/+/x": {n} for n in range(100)}
    assert mine(used, action=Action.SUBSCRIBE) == used


LEVEL = st.sampled_from([f"v{n}" for n in range(14)])
USED = st.dictionaries(
    st.tuples(st.sampled_from(["a", "b"]), LEVEL, LEVEL).map("/".join),
    st.sets(st.integers(0, 12), min_size=1, max_size=6),
    max_size=120,
)


def _begins(name: Name, template: Name) -> bool:
    return len(name) > len(template) and all(t in (ONE, n) for t, n in zip(template, name, strict=False))


@given(USED, st.integers(1, 6), st.randoms(use_true_random=False))
@example(
    {f"a/v{n}/v0": {0} for n in range(8)} | {"a/v0/v1": {0}}, 1, random.Random(1)
)  # a wildcard that eight values made, and a name that one of them alone has below it
def test_templates_cover_all_that_was_used_and_rest_on_enough(used: Used, support: int, source: random.Random) -> None:
    vocabulary = Vocabulary()
    names: dict[Name, set[int]] = {}
    for text, holders in used.items():
        name = vocabulary.name_of(Action.PUBLISH, Resource(ResourceKind.TOPIC, text))
        assert isinstance(name, tuple)
        names[name] = holders
    before = {name: set(holders) for name, holders in names.items()}
    found = Miner(vocabulary, support).mine(names)
    assert names == before
    rules = RuleSet(found)
    assert all(rules.admitting(name) for name in names)
    assert set().union(*found.values()) == set().union(*names.values())
    for template, holders in found.items():
        admitted = [name for name in names if RuleSet([template]).admitting(name)]
        assert holders <= set().union(*(names[name] for name in admitted))
        if not is_pattern(template):
            assert template in names
            continue
        assert template[1] != ONE
        assert len(holders) >= min(support, 1)
        for place in range(2, len(template)):
            if template[place] == ONE:
                # What stands in the same place made it a wildcard, whatever stood below: `a/+/b` may rest on one name
                # in `a/+`. How many accounts a template needs to be granted is the draft's to say.
                beside = [name for name in names if _begins(name, template[:place])]
                assert len({name[place] for name in beside}) >= SIBLINGS
                assert len(set().union(*(names[name] for name in beside))) >= support
    shuffled = list(used.items())
    source.shuffle(shuffled)
    assert mine(dict(shuffled), support) == {vocabulary.place(name).pattern: held for name, held in found.items()}
