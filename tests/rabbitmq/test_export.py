"""A policy as RabbitMQ's permissions: imported into a node, they allow and deny what the policy says."""

from __future__ import annotations

import json
import os
import random
import shlex
import stat
import subprocess
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pika
import pytest
from paho.mqtt.client import Client as MqttClient
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers import wait_for
from topicwarden.compare.replay import Outcome, Replay
from topicwarden.errors import ConfigurationError
from topicwarden.events import Action, Client, Resource, ResourceKind
from topicwarden.grants import Export, Unsaid, Verdict
from topicwarden.patterns import Covered, KeyUnion, key_matches, matches
from topicwarden.policy import Policy, parse_policy
from topicwarden.sources import SourceOptions
from topicwarden_collectors.rabbitmq import BROKER
from topicwarden_collectors.rabbitmq.asking import NodeProbe, open_probe
from topicwarden_collectors.rabbitmq.export import export
from topicwarden_collectors.rabbitmq.node import SCRIPTS, Node, quoted

VHOST = "exporting"
USERS = tuple(f"exp-{number}" for number in range(1, 5))
PUBLISH, SUBSCRIBE, CONFIGURE = Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE


def policy_of(text: str) -> Policy:
    return parse_policy("topicwarden: 1\n" + text, "policy.yaml")


def accounts(*users: str, vhost: str | None = VHOST, protocol: str = "amqp") -> list[Client]:
    return [Client("fx", protocol, "", user, vhost=vhost) for user in users]


def exported(text: str, *users: str, vhost: str | None = VHOST) -> Export:
    return export("rabbitmq", policy_of(text), accounts(*users, vhost=vhost))


def rows(written: Export) -> dict[str, list[dict[str, str]]]:
    document: dict[str, list[dict[str, str]]] = json.loads(written.files["definitions.json"])
    return document


def names_of(unsaid: Sequence[Unsaid], words: str) -> list[str]:
    return [one.where for one in unsaid if words in one.what]


ROLE = "roles:\n  r:\n    members: [{user: exp-1, vhost: exporting}]\n"


# What is written ------------------------------------------------------------------------------------------------------


def test_an_export_holds_permissions_and_topic_permissions_and_nothing_else() -> None:
    written = exported(
        """\
roles:
  billing:
    members: [{user: billing, vhost: prod}]
    publish: [{exchange: invoices, key: "invoice.*.created"}, {exchange: log, key: "#"}]
    subscribe: [{exchange: orders, key: "order.#"}]
    consume: [{queue: "billing.*"}]
    configure: [{queue: "billing.*"}]
"""
    )
    own = r"amq\.gen-[^.]*"
    assert rows(written) == {
        "topic_permissions": [
            {"user": "billing", "vhost": "prod", "exchange": exchange, "write": write, "read": read}
            for exchange, write, read in (
                ("invoices", r"^invoice\.[^.]*\.created\z", r"[^\x00-\xff]"),
                ("log", ".*", r"[^\x00-\xff]"),
                ("orders", r"[^\x00-\xff]", r"^order(?:\.[^.]*)*\z"),
            )
        ],
        "permissions": [
            {
                "user": "billing",
                "vhost": "prod",
                "configure": rf"^(billing\.[^.]*|{own})$",
                "write": rf"^(billing\.[^.]*|invoices|log|{own})$",
                "read": rf"^(billing\.[^.]*|orders|{own})$",
            }
        ],
    }
    assert next(iter(written.files)) == "definitions.json"


def test_topics_become_keys_of_the_mqtt_exchange_for_each_user() -> None:
    written = exported(
        """\
roles:
  sensor:
    members: [{user: "exp-*"}]
    publish: [{topic: "plant/+/%u/temp"}]
    subscribe: [{topic: "plant/%u/#"}]
""",
        "exp-1",
        "exp-2",
        "other",
    )
    found = {row["user"]: (row["exchange"], row["write"], row["read"]) for row in rows(written)["topic_permissions"]}
    assert found == {
        user: ("amq.topic", rf"^plant\.[^.]*\.{user}\.temp\z", rf"^plant\.{user}(?:\.[^.]*)*\z")
        for user in ("exp-1", "exp-2")
    }
    assert {row["configure"] for row in rows(written)["permissions"]} == {"^mqtt-subscription-.*qos[01]$"}
    assert names_of(written.unsaid, "no role is for 'other' in 'exporting'") == [""]
    assert names_of(written.denied_more, "'exp-*', written out for the 2 of the accounts given") == [
        "roles.sensor.members[0]"
    ]


def test_a_member_without_a_virtual_host_gets_what_is_known() -> None:
    text = "roles:\n  r: {members: [{user: a}], consume: [{queue: q}]}\n"
    assert [row["vhost"] for row in rows(exported(text))["permissions"]] == ["/"]
    more = text + "  s: {members: [{user: b, vhost: prod}], consume: [{queue: q}]}\n"
    written = export("rabbitmq", policy_of(more), accounts("c", vhost="dev"))
    assert [(row["user"], row["vhost"]) for row in rows(written)["permissions"]] == [
        ("a", "dev"),
        ("a", "prod"),
        ("b", "prod"),
    ]
    # An account given says where it is.
    written = export("rabbitmq", policy_of(more), accounts("a", vhost="dev"))
    assert [(row["user"], row["vhost"]) for row in rows(written)["permissions"]] == [("a", "dev"), ("b", "prod")]
    assert names_of(written.denied_more, "for the virtual hosts known: 'dev', 'prod'") == [""]


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("{user: exp-1, client: dev-1}", "cannot depend on the client id ('dev-1')"),
        ("{user: exp-1, address: 10.0.0.0/8}", "cannot depend on the address (10.0.0.0/8)"),
        ("{user: exp-1, tls_subject: 'CN=a'}", "cannot depend on the certificate's subject ('CN=a')"),
        ("{anonymous: true}", "RabbitMQ knows no clients without a user"),
        ("{user: exp-1, broker: plant}", "not all of the accounts given are of a broker called 'plant'"),
    ],
)
def test_who_depends_on_more_than_a_user_and_a_virtual_host_gets_nothing_and_that_is_said(
    member: str, words: str
) -> None:
    written = exported(f"roles:\n  r: {{members: [{member}], consume: [{{queue: q}}]}}\n", "exp-1")
    assert rows(written)["permissions"] == []
    assert names_of(written.denied_more, words) == ["roles.r.members[0]"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("publish: [{exchange: amq.default, key: jobs}]", "by the default exchange ('jobs')"),
        ("publish: [{exchange: amq.direct, key: jobs}]", "publishing to keys of 'amq.direct', a direct exchange"),
        ("subscribe: [{exchange: amq.fanout, key: jobs}]", "binding to keys of 'amq.fanout', a fanout exchange"),
        ("subscribe: [{exchange: amq.default, key: '#'}]", "nobody bind to the default exchange"),
        ("publish: [{topic: dev/%c/x}]", "client id safely"),
        ("consume: [{queue: dev.%c}]", "client id safely"),
    ],
)
def test_what_cannot_be_allowed_without_more_is_denied_and_said(rule: str, words: str) -> None:
    written = exported(f"{ROLE}    {rule}\n")
    row = rows(written)["permissions"][0]
    assert (row["configure"], row["write"], row["read"]) == ("", "", "")
    assert rows(written)["topic_permissions"] == []
    assert names_of(written.denied_more, words) == [f"roles.r.{rule.partition(':')[0]}[0]"]


def test_all_keys_of_an_exchange_of_any_type_can_be_allowed() -> None:
    rules = "publish: [{exchange: amq.default, key: '#'}, {exchange: amq.fanout, key: '#'}]"
    written = exported(f"{ROLE}    {rules}\n    subscribe: [{{exchange: amq.headers, key: '#'}}]\n")
    row = rows(written)["permissions"][0]
    assert row["write"] == r"^(amq\.default|amq\.fanout|amq\.gen-[^.]*)$"
    assert row["read"] == r"^(amq\.headers|amq\.gen-[^.]*)$"
    assert rows(written)["topic_permissions"] == []
    assert list(written.denied_more) == []


def test_limits_naming_and_payloads_are_said_with_their_place() -> None:
    text = f"""\
{ROLE}    publish: [{{exchange: x, key: a, rate: 10/s, max_size: 4KiB}}]
    rate: 20/s
naming: [{{within: {{queue: "q.#"}}, levels: [q], more: true}}]
payload: {{max_entropy: 7}}
"""
    written = exported(text)
    assert names_of(written.unsaid, "how much may be published is not limited") == ["roles.r", "roles.r.publish[0]"]
    assert names_of(written.unsaid, "names are built") == ["naming"]
    assert names_of(written.unsaid, "payloads look like") == ["payload"]
    assert names_of(written.unsaid, "if 'x' is of another type, every key is allowed") == ["roles.r.publish[0]"]
    assert names_of(written.unsaid, "CC and BCC") == [""]


def test_an_exchange_named_like_a_queue_is_closed_as_far_as_it_can_be_and_said() -> None:
    other = "  s: {members: [{user: x}], publish: [{exchange: jobs.in, key: a}]}\n"
    written = exported(f"{ROLE}    consume: [{{queue: 'jobs.#'}}]\n{other}")
    mine = [row for row in rows(written)["topic_permissions"] if row["user"] == "exp-1"]
    assert [(row["exchange"], row["write"], row["read"]) for row in mine] == [("jobs.in",) + (r"[^\x00-\xff]",) * 2]
    assert names_of(written.unsaid, "exchange 'jobs.in' is named like a queue") == ["roles.r.consume[0]"]


def test_what_only_several_patterns_allow_together_is_said_to_be_denied() -> None:
    rules = "subscribe: [{exchange: x, key: a}, {exchange: x, key: 'a.*.#'}]"
    assert names_of(exported(f"{ROLE}    {rules}\n").denied_more, "within one of the policy's patterns") == [""]
    alone = "subscribe: [{exchange: x, key: 'a.*.#'}, {exchange: y, key: a}]"
    assert names_of(exported(f"{ROLE}    {alone}\n").denied_more, "within one") == []


def test_a_user_whose_name_no_topic_can_hold_gets_nothing_of_his_own() -> None:
    rules = "publish: [{topic: dev/%u}], subscribe: [{exchange: x, key: dev.%u}]"
    text = f"roles:\n  r: {{members: [{{user: '*'}}], {rules}}}\n"
    hostile = ["a/b", "+", "#", "a.b", "*", "plain"]
    written = exported(text, *hostile)
    found = {(row["user"], row["exchange"]): row for row in rows(written)["topic_permissions"]}
    assert set(found) == {("#", "x"), ("*", "x"), ("+", "x"), ("a/b", "x"), ("plain", "x"), ("plain", "amq.topic"),
                          ("*", "amq.topic")}  # fmt: skip
    assert found["*", "amq.topic"]["write"] == r"^dev\.\*\z"
    assert found["+", "x"]["read"] == r"^dev\.\+\z"
    assert found["#", "x"]["read"] == found["*", "x"]["read"] == r"[^\x00-\xff]"
    assert names_of(written.denied_more, "a level of a topic cannot be 'a.b'") == ["roles.r.publish[0]"]
    assert names_of(written.denied_more, "is a wildcard") == ["roles.r.subscribe[0]"]


def test_names_that_nothing_can_carry_are_left_out_and_said() -> None:
    text = "roles:\n  r: {members: [{user: '*'}], consume: [{queue: q}]}\n"
    written = exported(text, "nul\0", "\udcff", "fine")
    assert [row["user"] for row in rows(written)["permissions"]] == ["fine"]
    assert len(names_of(written.denied_more, "is left out")) == 2


def test_another_target_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no form 'mosquitto-acl'"):
        export("mosquitto-acl", policy_of(""), [])


# On the node ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(rabbit: Node) -> Iterator[Node]:
    rabbit.add_vhost(VHOST)
    for user in USERS:
        rabbit.add_user(user, f"{user}-secret")
    with pika.BlockingConnection(pika.URLParameters(rabbit.url(vhost=VHOST))) as connection:
        channel = connection.channel()
        for exchange in ("xa", "xb"):
            channel.exchange_declare(exchange, "topic", durable=True)
        channel.exchange_declare("fan", "fanout", durable=True)
    yield rabbit
    for user in USERS:
        rabbit.api("DELETE", f"/users/{user}")
    rabbit.api("DELETE", f"/vhosts/{VHOST}")


@pytest.fixture
def probe(node: Node) -> Iterator[NodeProbe]:
    passwords = {user: f"{user}-secret" for user in USERS}
    opened = open_probe(f"amqp://127.0.0.1:{node.ports.amqp}", SourceOptions(), passwords, allow_publish=False)
    assert isinstance(opened, NodeProbe)
    yield opened
    opened.close()


def load(node: Node, written: Export) -> None:
    """Import an export into a node in which nobody has permissions."""
    for kind in ("permissions", "topic-permissions"):
        for user in {row["user"] for row in node.api("GET", f"/{kind}")} & set(USERS):
            node.api("DELETE", f"/{kind}/{VHOST}/{user}")
    node.api("POST", "/definitions", rows(written))


WORDS = ("a", "b", "*", "#", "%u")
NAME_WORDS = ("a", "b", "exp-1", "exp-2", "", "*")


def random_policy(dice: random.Random) -> str:
    """A policy in which queues begin with q and exchanges with x, so that neither is named like the other."""

    def key() -> str:
        while True:
            words = [dice.choice(WORDS) for _ in range(dice.randint(1, 3))]
            if words.count("#") < 2:
                return ".".join(words)

    def topic() -> str:
        levels = [dice.choice(("a", "b", "+", "%u")) for _ in range(dice.randint(1, 3))]
        return "/".join([*levels, *(["#"] if dice.random() < 0.3 else [])])

    roles: dict[str, Any] = {}
    for number in range(dice.randint(1, 3)):
        sections: dict[str, dict[str, Mapping[str, str]]] = {}
        for _ in range(dice.randint(2, 6)):
            section, rule = dice.choice(
                [
                    ("publish", {"exchange": dice.choice(("xa", "xb", "amq.topic")), "key": key()}),
                    ("subscribe", {"exchange": dice.choice(("xa", "xb", "amq.topic")), "key": key()}),
                    ("publish", {"topic": topic()}),
                    ("subscribe", {"topic": topic()}),
                    ("consume", {"queue": f"q.{key()}"}),
                    ("configure", {"queue": f"q.{key()}"}),
                    ("configure", {"exchange": f"x.{key()}"}),
                ]
            )
            sections.setdefault(section, {})[json.dumps(rule)] = rule
        member = dice.choice([{"user": "exp-*"}, {"user": "exp-1"}, {"user": "exp-2", "vhost": VHOST}])
        roles[f"r{number}"] = {"members": [member], **{name: list(one.values()) for name, one in sections.items()}}
    return "roles: " + json.dumps(roles) + "\n"


def allowed(policy: Policy, user: str, action: Action, resource: Resource) -> bool:
    """What the policy says, as plainly as can be: a binding must be within one of its patterns."""
    client = Client("fx", "amqp", "", user, vhost=VHOST)
    name = resource.name
    for role in policy.roles.values():
        if not role.has_member(client):
            continue
        for place in role.places(action):
            pattern = place.pattern.replace("%u", user)
            match place.space.family, resource.kind:
                case "topic", ResourceKind.KEY if resource.within == "amq.topic":
                    if matches(pattern, name.replace(".", "/")):
                        return True
                case "topic", ResourceKind.BINDING if resource.within == "amq.topic":
                    as_key = pattern.replace("/", ".").replace("+", "*")
                    if isinstance(KeyUnion([as_key]).uncovered(name), Covered):
                        return True
                case "key", ResourceKind.KEY if resource.within == place.space.within:
                    if key_matches(pattern, name):
                        return True
                case "key", ResourceKind.BINDING if resource.within == place.space.within:
                    if isinstance(KeyUnion([pattern]).uncovered(name), Covered):
                        return True
                case "queue", ResourceKind.QUEUE:
                    if key_matches(pattern, name):
                        return True
                case "exchange", ResourceKind.EXCHANGE:
                    if key_matches(pattern, name):
                        return True
    return False


def questions(dice: random.Random, count: int) -> Iterator[tuple[Action, Resource]]:
    for _ in range(count):
        words = [dice.choice(NAME_WORDS) for _ in range(dice.randint(1, 4))]
        name = ".".join(words)
        exchange = dice.choice(("xa", "xb", "amq.topic"))
        yield dice.choice(
            [
                (PUBLISH, Resource(ResourceKind.KEY, name, within=exchange)),
                (SUBSCRIBE, Resource(ResourceKind.BINDING, dice.choice((name, f"{name}.#")), within=exchange)),
                (SUBSCRIBE, Resource(ResourceKind.QUEUE, f"q.{name}")),
                (CONFIGURE, Resource(ResourceKind.QUEUE, f"q.{name}")),
                (CONFIGURE, Resource(ResourceKind.EXCHANGE, f"x.{name}")),
                (CONFIGURE, Resource(ResourceKind.QUEUE, "amq.gen-none")),
            ]
        )


def test_the_node_and_our_reader_allow_and_deny_what_random_policies_say(
    node: Node, probe: NodeProbe, tmp_path: Path
) -> None:
    dice = random.Random(20261128)
    asked = dict.fromkeys(Verdict, 0)
    for _ in range(15):
        text = random_policy(dice)
        policy = policy_of(text)
        written = export("rabbitmq", policy, accounts("exp-1", "exp-2"))
        load(node, written)
        (tmp_path / "definitions.json").write_text(written.files["definitions.json"])
        read_back = BROKER.grants(str(tmp_path / "definitions.json"), SourceOptions(broker="fx"))
        replay = Replay(policy, read_back, written.denied_more)
        probe._shut.clear()  # who had no permission at all before may have some now
        for user in ("exp-1", "exp-2"):
            client = accounts(user)[0]
            for action, resource in questions(dice, 30):
                verdict, why = probe.ask(client, action, resource)
                asked[verdict] += 1
                expected = allowed(policy, user, action, resource)
                ours = replay.outcome(client, action, resource)
                assert ours is (Outcome.ALLOWED if expected else Outcome.DENIED), (text, user, action, resource)
                if verdict is Verdict.NOT_TRIED:
                    assert not expected, (text, user, action, resource, why)
                else:
                    assert (verdict is Verdict.ALLOWED) == expected, (text, user, action, resource, why)
    assert asked[Verdict.ALLOWED] > 80
    assert asked[Verdict.DENIED] > 350
    assert asked[Verdict.NOT_TRIED] < 150


def test_keys_of_an_exchange_that_is_no_topic_exchange_are_not_limited_as_was_said(
    node: Node, probe: NodeProbe
) -> None:
    written = exported(f"{ROLE}    publish: [{{exchange: fan, key: a}}]\n")
    assert names_of(written.unsaid, "if 'fan' is of another type, every key is allowed") == ["roles.r.publish[0]"]
    load(node, written)
    resource = Resource(ResourceKind.KEY, "b", within="fan")
    assert probe.ask(accounts("exp-1")[0], PUBLISH, resource)[0] is Verdict.ALLOWED


def test_who_may_consume_may_purge_and_who_may_only_configure_may_not_as_was_said(node: Node) -> None:
    written = exported(f"{ROLE}    consume: [{{queue: q.read}}]\n    configure: [{{queue: q.own}}]\n")
    assert names_of(written.unsaid, "may purge it, too") == ["roles.r.consume[0]"]
    assert names_of(written.denied_more, "purge") == ["roles.r.configure[0]"]
    load(node, written)
    with pika.BlockingConnection(pika.URLParameters(node.url(vhost=VHOST))) as connection:
        admin = connection.channel()
        for queue in ("q.read", "q.own"):
            admin.queue_declare(queue)
        own = pika.BlockingConnection(pika.URLParameters(node.url("exp-1", VHOST, "exp-1-secret")))
        own.channel().queue_purge("q.read")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            own.channel().queue_purge("q.own")
        own.close()
        for queue in ("q.read", "q.own"):
            admin.queue_delete(queue)


def test_dead_lettering_goes_round_topic_permissions_as_was_said(node: Node) -> None:
    written = exported(f"{ROLE}    publish: [{{exchange: xa, key: ok}}]\n    subscribe: [{{exchange: xa, key: ok}}]\n")
    assert names_of(written.unsaid, "dead-lettered") == [""]
    load(node, written)
    with (
        pika.BlockingConnection(pika.URLParameters(node.url(vhost=VHOST))) as connection,
        pika.BlockingConnection(pika.URLParameters(node.url("exp-1", VHOST, "exp-1-secret"))) as own,
    ):
        admin, channel = connection.channel(), own.channel()
        seen = admin.queue_declare("", exclusive=True).method.queue
        admin.queue_bind(seen, "xa", "forbidden")
        arguments = {"x-message-ttl": 0, "x-dead-letter-exchange": "xa", "x-dead-letter-routing-key": "forbidden"}
        mine = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
        channel.queue_bind(mine, "xa", "ok")
        channel.basic_publish("xa", "ok", b"round")
        wait_for(lambda: admin.basic_get(seen, auto_ack=True)[2] == b"round", "the message")


def test_mqtt_clients_may_do_what_the_policy_says_and_nothing_else(node: Node) -> None:
    load(
        node,
        exported(
            "roles:\n  r:\n    members: [{user: 'exp-*'}]\n"
            "    publish: [{topic: dev/%u/out}]\n    subscribe: [{topic: dev/%u/#}]\n",
            "exp-3",
            "exp-4",
        ),
    )

    def attempt(user: str, subscribe: str | None, publish: str | None) -> list[str]:
        """Return what the broker acknowledged, and `refused` when it ended the connection."""
        came: list[str] = []
        client = MqttClient(CallbackAPIVersion.VERSION2, client_id=f"{user}-id")
        client.username_pw_set(f"{VHOST}:{user}", f"{user}-secret")
        client.on_connect = lambda *_: came.append("connected")
        client.on_subscribe = lambda *_: came.append("subscribed")
        client.on_publish = lambda *_: came.append("published")
        client.on_disconnect = lambda *_: came.append("refused")
        client.connect("127.0.0.1", node.ports.mqtt)
        client.loop_start()
        wait_for(lambda: came, "MQTT")
        if subscribe is not None:
            client.subscribe(subscribe, 1)
            wait_for(lambda: len(came) > 1, "an answer")
        if publish is not None:
            count = len(came)
            client.publish(publish, b"x", 1)
            wait_for(lambda: len(came) > count, "an answer")
        client.on_disconnect = None
        client.disconnect()
        client.loop_stop()
        return came

    assert attempt("exp-3", "dev/exp-3/#", "dev/exp-3/out") == ["connected", "subscribed", "published"]
    assert attempt("exp-3", "dev/exp-3/+/x", None) == ["connected", "subscribed"]
    assert attempt("exp-4", None, "dev/exp-4/out") == ["connected", "published"]
    assert attempt("exp-3", "dev/+/in", None) == ["connected", "refused"]
    assert attempt("exp-3", "#", None) == ["connected", "refused"]
    assert attempt("exp-3", None, "dev/exp-4/out") == ["connected", "refused"]
    assert attempt("exp-3", None, "dev/exp-3/out/more") == ["connected", "refused"]


def test_an_import_leaves_all_else_and_needs_the_users_to_be_there(node: Node) -> None:
    before = node.api("GET", "/definitions")
    load(node, exported(f"{ROLE}    consume: [{{queue: q}}]\n"))
    after = node.api("GET", "/definitions")
    for part in ("users", "vhosts", "exchanges", "queues", "bindings", "policies", "parameters"):
        assert after[part] == before[part]
    with pytest.raises(urllib.error.HTTPError) as refused:
        node.api("POST", "/definitions", rows(exported("roles: {r: {members: [{user: nobody-yet}]}}\n")))
    assert b"no_such_user" in refused.value.read()


HOSTILE = ["-p", "it's; rm -rf *", "a\nb", "$(reboot)", '"q"', "--", "é"]


def test_every_argument_of_the_commands_is_quoted(tmp_path: Path) -> None:
    text = "roles:\n  r: {members: [{user: '*'}], publish: [{exchange: \"x'; $(y)\", key: 'a.%u'}]}\n"
    written = exported(text, *HOSTILE)
    (tmp_path / "commands.sh").write_text(written.files["commands.sh"])
    (tmp_path / "rabbitmqctl").write_text(
        f'#!/bin/sh\nfor a in "$@"; do printf \'%s\\0\' "$a"; done >>{tmp_path}/said\n'
    )
    (tmp_path / "rabbitmqctl").chmod(0o700)
    subprocess.run(
        ["sh", tmp_path / "commands.sh"], check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, cwd=tmp_path
    )
    said = (tmp_path / "said").read_text().split("\0")[:-1]
    expected: list[str] = []
    for row in rows(written)["permissions"]:
        topics = [one for one in rows(written)["topic_permissions"] if one["user"] == row["user"]]
        for one in topics:
            expected += ["set_topic_permissions", "-p", VHOST, "--", one["user"], one["exchange"], one["write"],
                         one["read"]]  # fmt: skip
        expected += ["set_permissions", "-p", VHOST, "--", row["user"], row["configure"], row["write"], row["read"]]
    assert said == expected
    assert {row["user"] for row in rows(written)["permissions"]} == set(HOSTILE)


def test_the_commands_do_what_the_definitions_do(node: Node, tmp_path: Path) -> None:
    node.add_user("-p", "x")
    try:
        written = exported(
            "roles:\n  r: {members: [{user: '-p', vhost: exporting}], publish: [{exchange: xa, key: 'it''s.*'}]}\n"
        )
        (tmp_path / "commands.sh").write_text(written.files["commands.sh"])
        (tmp_path / "rabbitmqctl").write_text(
            f'#!/bin/sh\nexec {shlex.quote(str(SCRIPTS / "rabbitmqctl"))} -n {node.name} "$@"\n'
        )
        (tmp_path / "rabbitmqctl").chmod(stat.S_IRWXU)
        path = f"{tmp_path}:{os.environ['PATH']}"
        subprocess.run(
            ["sh", tmp_path / "commands.sh"], check=True, capture_output=True, env={**node.environment, "PATH": path}
        )
        found = node.api("GET", f"/permissions/{VHOST}/{quoted('-p')}")
        assert found == rows(written)["permissions"][0]
        topics = [row for row in node.api("GET", "/topic-permissions") if row["user"] == "-p"]
        assert topics == rows(written)["topic_permissions"]
    finally:
        node.api("DELETE", f"/users/{quoted('-p')}")
