"""What was used of grants, in columns, against one row at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compare.plain_grants import PlainGrants
from topicwarden.compare.intent import EXCHANGES
from topicwarden.compare.usage import Use, usage
from topicwarden.events import Action, Client, EventBuilder, Outcome, Resource, ResourceKind, Tables
from topicwarden.events.observed import Observed
from topicwarden.grants import Origin, Rights, Rule
from topicwarden.patterns import (
    Anything,
    Names,
    Regex,
    is_literal,
    literal_key,
    names_match,
    names_overlap,
    parse,
    parse_binding,
)
from topicwarden.policy import Place, Space, pattern_of, space_of

TOPICS, KEYS, QUEUES = Space("topic"), Space("key", "x"), Space("queue")
FILTERS = ("#", "a", "a/#", "a/+", "+/b", "a/b", "$SYS/#", "b/#")
NAMES_OF: Mapping[ResourceKind, Sequence[str]] = {
    ResourceKind.TOPIC: ("a", "a/b", "a/c", "b", "b/a", "$SYS/a", "a/#", "+/b", "#", "bad#", "$share/g/a/#"),
    ResourceKind.KEY: ("a", "a.b", "", "*"),
    ResourceKind.BINDING: ("#", "a.*", "a"),
    ResourceKind.QUEUE: ("a", "q"),
    ResourceKind.EXCHANGE: ("x", "y"),
    ResourceKind.NONE: ("",),
}
EXPRESSIONS = ("^a", "", "^x$", "b$", "^a\\C")
keyed: st.SearchStrategy[Names] = st.one_of(
    st.sampled_from(EXPRESSIONS).map(Regex),
    st.sampled_from(("#", "a.*", "a", "*.b")).map(parse_binding),
    st.just(literal_key("a")),
    st.just(Anything()),
)
topical: st.SearchStrategy[Names] = st.one_of(
    st.sampled_from(FILTERS).map(parse), st.sampled_from(EXPRESSIONS).map(Regex), st.just(Anything())
)


def listed(names: st.SearchStrategy[Names]) -> st.SearchStrategy[list[tuple[bool, Names]]]:
    return st.lists(st.tuples(st.booleans() | st.just(True), names), max_size=4)


rights = st.fixed_dictionaries(
    {
        (action, space): listed(topical if space == TOPICS else keyed)
        for action in (Action.PUBLISH, Action.SUBSCRIBE)
        for space in (TOPICS, KEYS, QUEUES, EXCHANGES)
    }
)
things = st.sampled_from(list(NAMES_OF)).flatmap(
    lambda kind: st.sampled_from(NAMES_OF[kind]).map(
        lambda name: Resource(kind, name, within="x" if kind in (ResourceKind.KEY, ResourceKind.BINDING) else "")
    )
) | st.just(Resource(ResourceKind.TOPIC, "a/b", length=99))
events = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from((Action.PUBLISH, Action.SUBSCRIBE)),
        st.sampled_from(("u", "v", "nobody", None)),
        st.sampled_from(("1", "2")),
        things,
        st.sampled_from((Outcome.ALLOWED, Outcome.ALLOWED, Outcome.DENIED)),
    ),
    max_size=25,
)


def deciding(held: Rights, action: Action, place: Place, resource: Resource) -> Iterator[tuple[Space, str, Rule]]:
    if place.space.family == "key":
        decision = held.rules(action, EXCHANGES).decide(place.space.within)
        if decision.allowed and decision.rule is not None:
            yield EXCHANGES, place.space.within, decision.rule
    rules = held.rules(action, place.space)
    wanted = pattern_of(resource) if action is Action.SUBSCRIBE else None
    if wanted is not None and not is_literal(wanted):
        asked = place.space.syntax.parse(place.pattern)
        yield from (
            (place.space, place.pattern, one) for one in rules.rules if one.allow and names_overlap(one.names, asked)
        )
        return
    decision = rules.decide(place.pattern)
    if decision.allowed and decision.rule is not None:
        yield place.space, place.pattern, decision.rule


@given(st.fixed_dictionaries({"u": rights, "v": rights, None: rights}), events)
@settings(deadline=None)
def test_grants_have_what_was_done_under_them(
    users: Mapping[str | None, Mapping[tuple[Action, Space], list[tuple[bool, Names]]]],
    told: list[tuple[int, Action, str | None, str, Resource, Outcome]],
) -> None:
    grants = PlainGrants(users)
    builder, observed = EventBuilder(Tables()), Observed()
    for time_ns, action, user, name, resource, outcome in told:
        builder.add(time_ns, action, Client("b", "mqtt", name, user), resource, outcome)
    observed.add(builder.take())
    found = usage(grants, observed, [held for one in grants.accounts if (held := grants.rights(one)) is not None])

    rows: dict[Origin, list[tuple[Action, Space, str, str | None, int, int, int]]] = {}
    known: dict[tuple[Action, Space], set[str]] = {}
    unmatched = 0
    for client, action, resource, seen in observed:
        space, allowed = space_of(resource), seen.count - seen.denied
        if not allowed or space is None or resource.truncated:
            continue
        held = grants.rights(client)
        ours = list(deciding(held, action, Place(space, resource.name), resource)) if held is not None else []
        unmatched += 0 if ours else allowed
        for where, name, rule in ours:
            known.setdefault((action, where), set()).add(name)
            row = (action, where, name, client.user, allowed, seen.first_ns, seen.last_ns)
            rows.setdefault(rule.origin, []).append(row)
    assert found.unmatched == unmatched
    assert set(found.uses) == set(grants.origins)
    for origin, use in found.uses.items():
        ours_of = rows.get(origin, [])
        assert use.events == sum(row[4] for row in ours_of)
        assert use.first_ns == min((row[5] for row in ours_of), default=None)
        assert use.last_ns == max((row[6] for row in ours_of), default=None)
        assert use.users == len({row[3] for row in ours_of})
        assert use.names == len({row[:3] for row in ours_of})
        assert use.admitted == admitted(use, ours_of, known)


def admitted(
    use: Use,
    rows: Sequence[tuple[Action, Space, str, str | None, int, int, int]],
    known: Mapping[tuple[Action, Space], set[str]],
) -> int | None:
    if not rows or all(map(is_literal, use.kinds.values())):
        return None
    return sum(
        len(
            {row[2] for row in rows if row[:2] == kind}
            | {name for name in known.get(kind, ()) if names_match(pattern, name)}
        )
        for kind, pattern in use.kinds.items()
    )
