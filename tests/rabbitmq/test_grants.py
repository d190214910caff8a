"""The model of grants: what changes mean, held against a running RabbitMQ and against plain cases."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pika
import pika.exceptions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.events import Action, Certainty, GrantChange, Resource, ResourceKind, Right
from topicwarden.events.rows import change_from_row, change_row
from topicwarden_collectors.rabbitmq import grants_names
from topicwarden_collectors.rabbitmq.definitions import read_definitions
from topicwarden_collectors.rabbitmq.grants import Grants
from topicwarden_collectors.rabbitmq.grants_rights import MAX_RIGHTS
from topicwarden_collectors.rabbitmq.grants_versions import behaviour_of
from topicwarden_collectors.rabbitmq.node import Node, quoted
from topicwarden_collectors.rabbitmq.permissions import Permission

VHOST = "grants"
TAGS = ["administrator", "monitoring", "management", "impersonator", "policymaker", "other"]


def queue(name: str) -> Resource:
    return Resource(ResourceKind.QUEUE, name)


def exchange(name: str) -> Resource:
    return Resource(ResourceKind.EXCHANGE, name)


def key(name: str, within: str) -> Resource:
    return Resource(ResourceKind.KEY, name, within=within)


def binding(name: str, within: str) -> Resource:
    return Resource(ResourceKind.BINDING, name, within=within)


def granted(user: str, configure: str, write: str, read: str, vhost: str = "v") -> dict[str, str]:
    return {"user": user, "vhost": vhost, "configure": configure, "write": write, "read": read}


def document(**more: Any) -> str:
    return json.dumps(
        {
            "rabbit_version": "3.10.8",
            "users": [{"name": "bob", "tags": []}, {"name": "root", "tags": ["administrator"]}],
            "vhosts": [{"name": "/"}, {"name": "v"}],
            "permissions": [granted("bob", "", "^orders$", "^bob")],
            "exchanges": [
                {"name": "orders", "vhost": "v", "type": "topic"},
                {"name": "logs", "vhost": "v", "type": "fanout", "internal": True},
            ],
            "queues": [{"name": "bob-in", "vhost": "v"}, {"name": "others", "vhost": "v"}],
            "bindings": [
                {
                    "vhost": "v",
                    "source": "orders",
                    "destination": "others",
                    "destination_type": "queue",
                    "routing_key": "a.b",
                }
            ],
            **more,
        }
    )


@pytest.fixture
def grants() -> Grants:
    grants = Grants("broker")
    grants.load(read_definitions(document()))
    return grants


def change(grants: Grants, event: str, by: str = "root", **pairs: str) -> GrantChange:
    made = grants.apply(5, event, {**pairs, "user_who_performed_action": by})
    assert made is not None
    assert change_row(change_from_row(change_row(made))) == change_row(made)
    return made


def rights(listed: Sequence[Right]) -> set[tuple[str, str]]:
    return {(right.action.name, right.resource.label) for right in listed}


def test_a_wider_permission_is_shown_in_the_names_it_opens(grants: Grants) -> None:
    made = change(grants, "permission.created", **granted("bob", "^bob", "^orders$", ".*"))
    assert (made.before, made.after) == (
        "configure '' write '^orders$' read '^bob'",
        "configure '^bob' write '^orders$' read '.*'",
    )
    assert (made.what, made.grantee.user, made.grantee.vhost, made.by and made.by.user) == (
        "permission",
        "bob",
        "v",
        "root",
    )
    built_in = ("amq.rabbitmq.trace", "amq.direct", "amq.fanout", "amq.headers", "amq.match", "amq.topic")
    assert rights(made.gained) == {
        ("SUBSCRIBE", "queue others"),
        ("CONFIGURE", "queue bob-in"),
        *(("SUBSCRIBE", f"exchange {name}") for name in (*built_in, "orders", "logs")),
    }
    assert made.gained[0].resource.name == "amq.rabbitmq.trace"
    assert (made.lost, made.unlisted, made.certainty) == ((), 0, Certainty.EXACT)


def test_a_narrower_permission_is_shown_in_the_names_it_closes(grants: Grants) -> None:
    made = change(grants, "permission.created", **granted("bob", "", "", "^bob"))
    assert (rights(made.gained), rights(made.lost)) == (set(), {("PUBLISH", "exchange orders")})
    made = change(grants, "permission.deleted", user="bob", vhost="v")
    assert rights(made.lost) == {("SUBSCRIBE", "queue bob-in")}
    assert made.after == ""


def test_writing_to_the_default_exchange_and_to_internal_ones_is_a_right(grants: Grants) -> None:
    made = change(grants, "permission.created", **granted("bob", "", "^(amq\\.default|amq\\.rabbitmq\\..*|logs)$", ""))
    assert rights(made.gained) == {
        ("PUBLISH", "exchange amq.default"),
        ("PUBLISH", "exchange amq.rabbitmq.trace"),
        ("PUBLISH", "exchange logs"),
    }


def test_event_and_log_exchange_are_names_of_the_default_virtual_host_only(grants: Grants) -> None:
    made = change(grants, "permission.created", **granted("bob", "", "", "^amq\\.rabbitmq", "/"))
    assert [right.resource.name for right in made.gained] == [
        "amq.rabbitmq.event",
        "amq.rabbitmq.log",
        "amq.rabbitmq.trace",
    ]
    assert made.before == ""


def test_a_permission_for_names_nobody_has_changes_no_right(grants: Grants) -> None:
    made = change(grants, "permission.created", **granted("bob", "^later", "^orders$", "^bob"))
    assert (made.gained, made.lost, made.certainty) == ((), (), Certainty.EXACT)


def test_names_that_come_later_count_from_then_on(grants: Grants) -> None:
    assert grants.apply(1, "queue.created", {"vhost": "v", "name": "later", "exclusive": "false"}) is None
    assert grants.apply(1, "queue.created", {"vhost": "v", "name": "later-own", "exclusive": "true"}) is None
    assert grants.apply(1, "exchange.created", {"vhost": "v", "name": "later-x", "type": "direct"}) is None
    made = change(grants, "permission.created", **granted("bob", "^later", "^orders$", "^bob"))
    assert rights(made.gained) == {("CONFIGURE", "queue later"), ("CONFIGURE", "exchange later-x")}
    assert grants.exchange_type("v", "later-x") == "direct"
    grants.apply(1, "queue.deleted", {"vhost": "v", "name": "later"})
    grants.apply(1, "exchange.deleted", {"vhost": "v", "name": "later-x"})
    assert grants.exchange_type("v", "later-x") is None
    assert change(grants, "permission.deleted", user="bob", vhost="v").lost == (
        Right(Action.SUBSCRIBE, queue("bob-in")),
        Right(Action.PUBLISH, exchange("orders")),
    )


def test_without_definitions_what_was_before_is_not_known_and_nothing_is_exact() -> None:
    grants = Grants("broker")
    assert grants.may("bob", "v", Action.PUBLISH, exchange("x")) is None
    made = change(grants, "permission.created", **granted("bob", "", "", "^amq\\.topic$"))
    assert (made.before, made.certainty) == (None, Certainty.INFERRED)
    assert rights(made.gained) == {("SUBSCRIBE", "exchange amq.topic")}
    assert grants.may("bob", "v", Action.SUBSCRIBE, exchange("amq.topic")) is True
    # No topic permission was seen; that is no proof that there is none.
    assert grants.may("bob", "v", Action.SUBSCRIBE, binding("#", "amq.topic")) is None


def test_an_expression_we_do_not_judge_makes_the_change_inferred(grants: Grants) -> None:
    made = change(grants, "permission.created", **granted("bob", "", "(*UTF)x", "^bob"))
    assert made.certainty is Certainty.INFERRED
    assert grants.may("bob", "v", Action.PUBLISH, exchange("orders")) is None


def test_many_rights_are_counted_and_the_telling_ones_listed(grants: Grants) -> None:
    for number in range(600):
        grants.apply(1, "queue.created", {"vhost": "v", "name": f"q{number}"})
    made = change(grants, "permission.created", **granted("bob", ".*", ".*", ".*"))
    assert len(made.gained) == MAX_RIGHTS
    assert made.gained[0] == Right(Action.SUBSCRIBE, exchange("amq.rabbitmq.trace"))
    assert {right.action for right in made.gained[:3]} == {Action.SUBSCRIBE, Action.PUBLISH}
    # 2 x 602 queues, one of which could be read before, and of 9 exchanges 8 to read, 8 more to write, 2 to configure
    assert len(made.gained) + made.unlisted == 2 * 602 - 1 + 8 + 8 + 2


@pytest.mark.parametrize("deleted", [{"exchange": "orders"}, {}])
def test_losing_a_topic_permission_is_gaining_rights(grants: Grants, deleted: Mapping[str, str]) -> None:
    grants.saw_key("v", "else", "orders", "secret.plans")
    made = change(
        grants,
        "topic.permission.created",
        user="bob",
        vhost="v",
        exchange="orders",
        write="^mine\\.{username}",
        read="",
    )
    assert rights(made.lost) == {
        ("PUBLISH", "exchange orders, key secret.plans"),
        ("PUBLISH", "exchange orders, key a.b"),
    }
    assert (made.before, made.after) == ("", "exchange 'orders' write '^mine\\.{username}' read ''")
    assert grants.may("bob", "v", Action.PUBLISH, key("mine.bob.x", "orders")) is True
    assert grants.may("bob", "v", Action.PUBLISH, key("mine.eve.x", "orders")) is False
    made = change(grants, "topic.permission.deleted", user="bob", vhost="v", **deleted)
    assert rights(made.gained) == {
        ("PUBLISH", "exchange orders, key secret.plans"),
        ("PUBLISH", "exchange orders, key a.b"),
    }
    assert made.certainty is Certainty.INFERRED  # keys nobody has used yet are gained too
    assert made.after == ""


def test_topic_permissions_count_for_exchanges_of_type_topic_only(grants: Grants) -> None:
    change(grants, "permission.created", **granted("bob", "", ".*", ".*"))
    for name in ("orders", "logs", "amq.direct", "amq.topic", "unheard-of"):
        change(grants, "topic.permission.created", user="bob", vhost="v", exchange=name, write="^a", read="^b")
    allowed = {
        name: grants.may("bob", "v", Action.PUBLISH, key("z", name)) for name in ("orders", "logs", "amq.direct")
    }
    assert allowed == {"orders": False, "logs": True, "amq.direct": True}
    assert grants.may("bob", "v", Action.PUBLISH, key("z", "unheard-of")) is None
    assert grants.may("bob", "v", Action.SUBSCRIBE, binding("b.#", "amq.topic")) is True
    assert grants.may("bob", "v", Action.SUBSCRIBE, binding("#", "amq.topic")) is False


def test_a_topic_permission_with_the_client_id_depends_on_the_client(grants: Grants) -> None:
    change(
        grants, "topic.permission.created", user="bob", vhost="v", exchange="orders", write="^d\\.{client_id}$", read=""
    )
    assert grants.may("bob", "v", Action.PUBLISH, key("d.1", "orders")) is None
    assert grants.may("bob", "v", Action.PUBLISH, key("d.1", "orders"), client_id="1") is True
    assert grants.may("bob", "v", Action.PUBLISH, key("d.1", "orders"), client_id="2") is False
    assert grants.may("bob", "v", Action.PUBLISH, key("d.1", "orders"), client_id=".*") is True
    grants.load(read_definitions(document(rabbit_version="4.2.9")))
    change(
        grants, "topic.permission.created", user="bob", vhost="v", exchange="orders", write="^d\\.{client_id}$", read=""
    )
    assert grants.may("bob", "v", Action.PUBLISH, key("d.1", "orders"), client_id=".*") is False


def test_a_deletion_that_may_be_of_a_topic_permission_alone_is_not_believed_to_be_more(grants: Grants) -> None:
    change(grants, "topic.permission.created", user="bob", vhost="v", exchange="orders", write="^a", read="")
    made = change(grants, "permission.deleted", user="bob", vhost="v")
    assert (made.after, made.gained, made.lost, made.certainty) == (None, (), (), Certainty.UNKNOWN)
    assert (grants.stale, grants.loaded) == (True, True)
    assert grants.may("bob", "v", Action.PUBLISH, key("zzz", "orders")) is None
    change(grants, "permission.created", **granted("bob", "", "^orders$", ""))
    assert grants.may("bob", "v", Action.PUBLISH, exchange("orders")) is True
    grants.load(read_definitions(document(rabbit_version="3.13.1")))
    assert (grants.stale, grants.loaded) == (False, True)
    change(grants, "topic.permission.created", user="bob", vhost="v", exchange="orders", write="^a", read="")
    assert change(grants, "permission.deleted", user="bob", vhost="v").certainty is Certainty.EXACT


def test_tags_that_give_power_are_named_when_they_are_new(grants: Grants) -> None:
    made = change(grants, "user.tags.set", name="bob", tags="other,impersonator,administrator")
    assert made.powers == ("administrator", "impersonator")
    assert (made.before, made.after) == ("", "tags administrator, impersonator, other")
    made = change(grants, "user.tags.set", name="bob", tags="administrator,monitoring")
    assert made.powers == ("monitoring",)
    assert grants.apply(1, "user.tags.set", {"name": "bob", "tags": "monitoring,administrator"}) is None
    made = change(grants, "user.tags.set", name="stranger", tags="management")
    assert (made.before, made.powers, made.certainty) == (None, ("management",), Certainty.INFERRED)


def test_a_deleted_user_loses_what_he_had(grants: Grants) -> None:
    made = change(grants, "user.deleted", name="bob")
    assert (made.grantee.vhost, made.after) == ("v", "")
    assert made.before == "configure '' write '^orders$' read '^bob' in 'v'"
    assert rights(made.lost) == {("PUBLISH", "exchange orders"), ("SUBSCRIBE", "queue bob-in")}
    assert grants.may("bob", "v", Action.PUBLISH, exchange("orders")) is None


def test_rights_in_several_virtual_hosts_are_counted_for_none_would_say_which(grants: Grants) -> None:
    change(grants, "permission.created", **granted("bob", "", "^amq\\.topic$", "", "/"))
    made = change(grants, "user.deleted", name="bob")
    assert (made.grantee.vhost, made.lost, made.unlisted) == (None, (), 3)


@pytest.mark.parametrize(
    ("event", "pairs", "what", "before", "after"),
    [
        ("user.created", {"name": "eve"}, "user", "", "a user without permissions"),
        ("user.password.changed", {"name": "bob"}, "password", None, "a password"),
        ("user.password.cleared", {"name": "bob"}, "password", None, ""),
        ("user.limits.set", {"name": "limits", "username": "bob", "max-connections": "5"}, "limits", None, None),
        ("user.limits.cleared", {"name": "limits", "username": "bob"}, "limits", None, ""),
        ("vhost.created", {"name": "new"}, "virtual host", "", "a virtual host"),
        ("vhost.deleted", {"name": "v"}, "virtual host", "a virtual host", ""),
    ],
)
def test_other_changes_are_told_in_words(
    grants: Grants, event: str, pairs: Mapping[str, str], what: str, before: str | None, after: str | None
) -> None:
    made = change(grants, event, **pairs)
    assert (made.what, made.before, made.after, made.gained, made.lost) == (what, before, after, (), ())


@pytest.mark.parametrize(("actor", "who"), [("rmq-internal", None), ("none", None), ("", None), ("rmq-cli", "rmq-cli")])
def test_who_did_it_is_who_rabbitmq_says(grants: Grants, actor: str, who: str | None) -> None:
    made = change(grants, "user.password.changed", by=actor, name="bob")
    assert (made.by and made.by.user) == who


def test_everything_remembered_is_bounded(grants: Grants, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants_names, "MAX_NAMES", 10)
    monkeypatch.setattr(grants_names, "MAX_VHOSTS", 4)
    for number in range(100):
        grants.apply(1, "queue.created", {"vhost": "v", "name": f"q{number}"})
        grants.apply(1, "vhost.created", {"name": f"v{number}"})
        grants.saw_key("v", "bob", "orders", f"key-{number}")
        grants.saw_key("v", "bob", f"x{number}", "key")
    assert grants.names.overflowed == 94 + 98
    assert len(list(grants.names.keys("v", "orders"))) == grants_names.MAX_KEYS + 1
    made = change(grants, "permission.created", **granted("bob", "", "", ""))
    assert made.certainty is Certainty.INFERRED  # there are names that could not be kept


TEXTS = st.sampled_from(["bob", "root", "v", "/", "orders", "^a", ".*", "", "administrator", "(*X)", "é\x00"])
PAIRS = st.dictionaries(
    st.sampled_from(
        ["user", "vhost", "name", "exchange", "configure", "write", "read", "tags", "username", "type", "routing_key"]
    ),
    TEXTS,
)
EVENTS = st.sampled_from(
    [
        f"{kind}.{what}"
        for kind in ("permission", "topic.permission", "user", "vhost")
        for what in ("created", "deleted")
    ]
    + [f"{kind}.{what}" for kind in ("queue", "exchange", "binding") for what in ("created", "deleted")]
    + ["user.tags.set", "user.password.changed", "user.limits.set", "nonsense", "", "queue."]
)


@given(st.lists(st.tuples(EVENTS, PAIRS), max_size=20), st.booleans())
def test_no_sequence_of_events_is_an_error(events: list[tuple[str, dict[str, str]]], loaded: bool) -> None:
    grants = Grants("broker")
    if loaded:
        grants.load(read_definitions(document()))
    for event, pairs in events:
        made = grants.apply(1, event, pairs)
        assert made is None or change_row(change_from_row(change_row(made)))
    grants.may("bob", "v", Action.PUBLISH, key("a", "orders"))


@pytest.mark.parametrize(
    ("version", "escapes", "copies", "deletion"),
    [
        (None, None, None, None),
        ("junk", None, None, None),
        ("3.10.8", "", False, False),
        ("3.11.26", "", False, True),
        ("3.12.8", "", False, False),
        ("3.13.7", "", False, True),
        ("4.0.2", "", False, True),
        ("4.0.3", "", True, True),
        ("4.0.12", None, True, True),
        ("4.1.14", None, True, True),
        ("4.2.3", "", True, True),
        ("4.2.4+3.gabc", "\\^$.|?*+()[]{}", True, True),
        ("4.2.9", "\\^$.|?*+()[]{}-", True, True),
        ("4.3.2", "\\^$.|?*+()[]{}", True, True),
        ("4.3.3", "\\^$.|?*+()[]{}-", True, True),
        ("5.0", "\\^$.|?*+()[]{}-", True, True),
    ],
)
def test_versions_differ_where_their_sources_do(
    version: str | None, escapes: str | None, copies: bool | None, deletion: bool | None
) -> None:
    found = behaviour_of(version)
    assert (found.escapes, found.checks_copies, found.names_topic_deletion) == (escapes, copies, deletion)


# Held against a running RabbitMQ -------------------------------------------------------------------------------------


@pytest.fixture
def vhost(rabbit: Node) -> Iterator[str]:
    rabbit.add_vhost(VHOST)
    yield VHOST
    rabbit.api("DELETE", f"/vhosts/{VHOST}")
    for name in [user["name"] for user in rabbit.api("GET", "/users") if user["name"].startswith("grants-")]:
        rabbit.api("DELETE", f"/users/{quoted(name)}")


def loaded_from(node: Node) -> Grants:
    grants = Grants("broker")
    grants.load(read_definitions(json.dumps(node.api("GET", "/definitions"))))
    return grants


def words(value: Any) -> str:
    return ",".join(map(words, value)) if isinstance(value, list) else str(value)


class Listener:
    """Reads amq.rabbitmq.event."""

    def __init__(self, node: Node) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(node.url()))
        self.channel = self.connection.channel()
        self.queue = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(self.queue, "amq.rabbitmq.event", "#")
        self.node = node

    def events(self) -> list[tuple[str, dict[str, str]]]:
        """What was said so far; a user made and deleted marks the end."""
        self.node.add_user("grants-end", "x")
        self.node.api("DELETE", "/users/grants-end")
        seen: list[tuple[str, dict[str, str]]] = []
        for method, properties, _ in self.channel.consume(self.queue, auto_ack=True, inactivity_timeout=20):
            assert method, "no event came for 20 s"
            assert properties
            pairs = {name: words(value) for name, value in (properties.headers or {}).items()}
            if method.routing_key == "user.deleted" and pairs["name"] == "grants-end":
                break
            seen.append((str(method.routing_key), pairs))
        return seen


def test_after_any_changes_the_model_is_what_the_broker_then_exports(rabbit: Node, vhost: str) -> None:
    dice = random.Random(11)
    listener = Listener(rabbit)
    people = ["grants-a", "grants-b", "grants-c"]
    grants = loaded_from(rabbit)
    regexes = ["", ".*", "^a", "^b\\.", "^(a|b)$"]
    exchanges = ["amq.topic", "ax", "bx"]

    def user() -> str:
        return quoted(dice.choice(people))

    def change_something() -> None:
        match dice.randrange(9):
            case 0 | 1:
                rabbit.add_user(dice.choice(people), "p", ",".join(dice.sample(TAGS, dice.randrange(3))))
            case 2 | 3:
                rabbit.permit(dice.choice(people), vhost, *(dice.choice(regexes) for _ in range(3)))
            case 4:
                rabbit.permit_topics(dice.choice(people), vhost, dice.choice(exchanges), *dice.choices(regexes, k=2))
            case 5:
                rabbit.api("DELETE", f"/permissions/{vhost}/{user()}")
            case 6:
                rabbit.api("DELETE", f"/topic-permissions/{vhost}/{user()}")
            case 7:
                rabbit.api("PUT", f"/queues/{vhost}/q{dice.randrange(5)}", {"durable": True})
            case 8:
                rabbit.api("DELETE", f"/users/{user()}")

    for _ in range(90):
        try:
            change_something()
        except OSError:  # what is not there cannot be changed
            continue
    made = [change for event in listener.events() if (change := grants.apply(1, *event))]
    listener.connection.close()
    fresh = loaded_from(rabbit)
    assert len(made) > 30
    assert {change.by.user for change in made if change.by} == {"operator"}
    told = 0
    for name in people:
        for resource in (
            exchange("amq.topic"),
            exchange("ax"),
            key("a", "amq.topic"),
            key("b.c", "amq.topic"),
            queue("q1"),
        ):
            for action in (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE, Action.CONNECT):
                ours = grants.may(name, vhost, action, resource)
                told += ours is not None
                assert ours in (None, fresh.may(name, vhost, action, resource)), (name, resource, action)
    assert told > 20
    assert set(grants.names.resources(vhost, Action.SUBSCRIBE)) == set(fresh.names.resources(vhost, Action.SUBSCRIBE))


def test_clearing_one_topic_permission_is_said_to_be_a_permission_deleted(rabbit: Node, vhost: str) -> None:
    rabbit.add_user("grants-a", "p")
    rabbit.permit("grants-a", vhost, "", "^amq\\.topic$", "")
    rabbit.permit_topics("grants-a", vhost, "amq.topic", "^mine$", "")
    grants, listener = loaded_from(rabbit), Listener(rabbit)
    rabbit.api("DELETE", f"/topic-permissions/{vhost}/grants-a/amq.topic")
    rabbit.api("DELETE", f"/permissions/{vhost}/grants-a")
    both = [pairs for event, pairs in listener.events() if event == "permission.deleted"]
    listener.connection.close()
    for pairs in both:
        del pairs["timestamp_in_ms"]
    assert len(both) == 2
    assert both[0] == both[1]
    made = grants.apply(1, "permission.deleted", both[0])
    assert made is not None
    assert made.certainty is Certainty.UNKNOWN
    assert made.after is None


def test_what_the_model_allows_is_what_clients_may_do(rabbit: Node, vhost: str) -> None:
    people = {
        "grants-all": (".*", ".*", ".*"),
        "grants-none": ("", "", ""),
        "grants-own": ("^own-", "^(own-|amq\\.default$|amq\\.topic$)", "^(own-|amq\\.topic$)"),
        "grants-spy": ("^amq\\.gen", "^amq\\.gen", "^(amq\\.gen|amq\\.rabbitmq\\.trace$)"),
        "grants-not-amq": ("^(?!amq\\.)", "^(?!amq\\.)", "^(?!amq\\.)"),
    }
    rabbit.api("PUT", f"/exchanges/{vhost}/own-x", {"type": "topic", "durable": True})
    rabbit.api("PUT", f"/queues/{vhost}/own-q", {"durable": True})
    rabbit.api("PUT", f"/queues/{vhost}/{quoted('qé')}", {"durable": True})
    for user, permission in people.items():
        rabbit.add_user(user, "p")
        rabbit.permit(user, vhost, *permission)
    rabbit.permit_topics("grants-own", vhost, "amq.topic", "^{username}\\.a$", "^{username}\\.#$")
    rabbit.permit_topics("grants-all", vhost, "amq.topic", "^x", "^x")
    grants = loaded_from(rabbit)
    outcomes = set()
    for user in people:
        actor = Actor(rabbit, user, vhost)
        for resource in (
            key("any", ""),
            key("a.b", "own-x"),
            key("x", "amq.topic"),
            key(f"{user}.a", "amq.topic"),
            key(f"{user}.a\n", "amq.topic"),
            key("k", "amq.fanout"),
        ):
            ours = grants.may(user, vhost, Action.PUBLISH, resource)
            outcomes.add(ours)
            assert actor.publishes(resource) is ours, (user, resource)
        for name in ("own-q", "qé"):
            assert actor.gets(name) is grants.may(user, vhost, Action.SUBSCRIBE, queue(name)), (user, name)
        for name in ("own-q", "other-q"):
            assert actor.declares(name) is grants.may(user, vhost, Action.CONFIGURE, queue(name)), (user, name)
        for resource in (
            binding("x.#", "amq.topic"),
            binding(f"{user}.#", "amq.topic"),
            binding("#", "amq.rabbitmq.trace"),
        ):
            bind = grants.may(user, vhost, Action.SUBSCRIBE, resource)
            to = grants.may(user, vhost, Action.PUBLISH, queue("own-q"))
            assert actor.binds(resource, "own-q") is (bind and to), (user, resource)
        actor.connection.close()
    assert outcomes == {True, False}


class Actor:
    """A client that tries things, each on a channel of its own."""

    def __init__(self, node: Node, user: str, vhost: str) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(node.url(user, vhost, "p")))

    def _try(self, act: Any) -> bool:
        channel = self.connection.channel()
        try:
            act(channel)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != 403:
                raise
            return False
        channel.close()
        return True

    def publishes(self, resource: Resource) -> bool:
        def act(channel: Any) -> None:
            channel.confirm_delivery()
            channel.basic_publish(resource.within, resource.name, b"")

        return self._try(act)

    def gets(self, name: str) -> bool:
        return self._try(lambda channel: channel.basic_get(name, auto_ack=True))

    def declares(self, name: str) -> bool:
        return self._try(lambda channel: channel.queue_declare(name, durable=True))

    def binds(self, resource: Resource, name: str) -> bool:
        return self._try(lambda channel: channel.queue_bind(name, resource.within, resource.name))


def test_the_permission_of_a_user_can_be_looked_up(grants: Grants) -> None:
    assert grants.permission("bob", "v") == Permission("", "^orders$", "^bob")
    assert grants.permission("root", "v") is None
    assert grants.may("root", "v", Action.CONNECT, exchange("")) is False
    assert grants.may("bob", "v", Action.CONNECT, exchange("")) is True
