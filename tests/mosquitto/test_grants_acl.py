"""The grants of an acl_file: rules in order, where each stands, what is wrong with it, and what could stand instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.mosquitto.acl_asking import allows
from topicwarden.events import Action, Client
from topicwarden.grants import Grants, Kept, Rules
from topicwarden.patterns import matches
from topicwarden.policy import Place, Space
from topicwarden_collectors.mosquitto.acl_file import parse_acl_file
from topicwarden_collectors.mosquitto.grants_acl import AclGrants
from topicwarden_collectors.mosquitto.grants_logins import Logins, unknown_logins

TOPICS = Space("topic")


def grants(text: str, logins: Logins | None = None) -> AclGrants:
    acl = parse_acl_file("/acl", text.encode("utf-8", "surrogatepass"))
    return AclGrants("b", "acl_file /acl", acl, logins or unknown_logins())


def client(user: str | None, client_id: str = "id") -> Client:
    return Client("b", "mqtt", client_id, user)


def rules(found: Grants, user: str | None, action: Action, client_id: str = "id") -> list[str]:
    rights = found.rights(client(user, client_id))
    assert rights is not None
    decided: Rules = rights.rules(action, TOPICS)
    return [f"{'allow' if rule.allow else 'deny'} {rule.names} @{rule.origin.line}" for rule in decided.rules]


def faults(text: str, logins: Logins | None = None) -> list[tuple[str, int | None, str]]:
    found = grants(text, logins)
    return [(fault.code, fault.origin.line, str(fault.evidence["reason"])) for fault in found.faults]


EXAMPLE = """\
topic read lobby
pattern readwrite dev/%u/%c
pattern deny dev/%u/secret
user bob
topic write a/#
topic deny a/x
topic deny a/y
topic read b
pattern read news
"""


def test_rules_come_in_the_order_in_which_the_broker_decides() -> None:
    found = grants(EXAMPLE)
    assert rules(found, "bob", Action.PUBLISH) == [
        "deny a/y @7",
        "deny a/x @6",
        "allow a/# @5",
        "deny dev/bob/secret @3",
        "allow dev/bob/id @2",
    ]
    assert rules(found, "bob", Action.SUBSCRIBE) == [
        "deny a/y @7",
        "deny a/x @6",
        "allow b @8",
        "deny dev/bob/secret @3",
        "allow dev/bob/id @2",
        "allow news @9",
    ]
    assert rules(found, "al", Action.PUBLISH) == ["deny dev/al/secret @3", "allow dev/al/id @2"]
    assert rules(found, None, Action.SUBSCRIBE) == ["allow lobby @1", "allow news @9"]
    assert rules(found, "", Action.SUBSCRIBE) == rules(found, None, Action.SUBSCRIBE)


def test_every_entry_is_told_with_its_place_and_its_holder() -> None:
    found = grants(EXAMPLE)
    assert [(origin.where, origin.text, origin.holder) for origin in found.origins][:4] == [
        ("/acl:1", "topic read lobby", "clients without a user name"),
        ("/acl:2", "pattern readwrite dev/%u/%c", "every client"),
        ("/acl:3", "pattern deny dev/%u/secret", "every client"),
        ("/acl:5", "topic write a/#", "user 'bob'"),
    ]
    assert len(found.origins) == 8


@pytest.mark.parametrize(
    ("text", "users"),
    [("pattern read a\n", []), ("topic read a\n", [None]), ("user x\nuser y\ntopic a\nuser x\n", ["x", "y"])],
)
def test_an_acl_file_alone_names_the_users_of_its_lines_and_others_can_come(text: str, users: list[str | None]) -> None:
    found = grants(text)
    assert [account.user for account in found.accounts] == users
    assert not found.closed
    assert found.blind_spots == ("who can log in stands in the mosquitto.conf, which was not read",)


def test_names_with_wildcards_or_slashes_are_put_in_as_the_broker_does() -> None:
    found = grants("user a+b\ntopic read own\npattern read x/%u/%c\npattern read %%u/%uc\n")
    assert rules(found, "a+b", Action.SUBSCRIBE) == ["allow own @2"]
    assert rules(found, "x", Action.SUBSCRIBE, "#") == []
    assert rules(found, "x/y", Action.SUBSCRIBE, "%u") == ["allow x/x/y/%u @3", "allow %x/y/x/yc @4"]


def test_what_the_broker_itself_refuses_stands_before_the_entries_it_is_about() -> None:
    found = grants("user bob\ntopic readwrite $SYS/#\ntopic write $share/x\ntopic deny $SYS/broker/#\ntopic write a\n")
    rights = found.rights(client("bob"))
    assert rights is not None
    told = [(rule.allow, str(rule.names), rule.origin.line) for rule in rights.rules(Action.PUBLISH, TOPICS).rules]
    assert told == [
        (False, "$SYS/broker/connection/+/state", 4),
        (True, "$SYS/broker/connection/+/state", 2),
        (False, "$SYS/#", None),
        (False, "$share/#", None),
        (False, "$SYS/broker/#", 4),
        (True, "$SYS/#", 2),
        (True, "$share/x", 3),
        (True, "a", 5),
    ]
    own = rights.rules(Action.PUBLISH, TOPICS).rules[2].origin
    assert own.text == "(the broker itself) refuses publishing to names that begin with $SYS"
    assert own not in found.origins


def test_clients_that_cannot_connect_have_no_rights() -> None:
    found = grants("user bob\ntopic a\n", Logins(names={"bob": None}))
    assert found.rights(client("bob")) is not None
    assert found.rights(client("al")) is None
    assert found.rights(client(None)) is None
    assert found.rights(client("bob", "a\tb")) is None
    assert grants("topic a\n").rights(client("\ud800")) is None


def test_client_ids_are_said_to_be_chosen_by_clients() -> None:
    (fault,) = faults("pattern write a/%c\npattern deny b/%c\npattern read c/%u\n")
    assert fault[:2] == ("TW115", 1)
    assert "%c is whatever id a client chooses" in fault[2]
    known = Logins(names={"bob": None})
    assert [fault[:2] for fault in faults("pattern write a/%c\n", known)] == [("TW115", 1)]
    known.ids_are_names = True
    assert faults("pattern write a/%c\n", known) == []


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (
            "user bob\ntopic write a/%u\n",
            2,
            "%u and %c are replaced in pattern lines only, here they are those letters",
        ),
        ("user bob\ntopic write a\x01b\n", 2, "it holds characters that the broker takes in no topic"),
        ("user bob\ntopic read\n", 2, "the broker takes 'read' as a topic and grants reading and writing it"),
        ("topic a\nuser bob # him\ntopic a\n", 2, "the broker takes what follows as part of the user name 'bob # him'"),
        (
            "pattern read a/%u\nuser a#b\ntopic a\n",
            1,
            "patterns are not looked at for user 'a#b': the name holds + or #",
        ),
    ],
)
def test_entries_that_do_not_do_what_they_say_are_told(text: str, line: int, reason: str) -> None:
    found = [fault for fault in faults(text) if fault[0] == "TW105"]
    assert len(found) >= 1
    assert found[0][1] == line
    assert reason in found[0][2]


def test_a_topic_that_no_client_can_send_makes_no_rule() -> None:
    assert rules(grants("user bob\ntopic write a\x7f\ntopic write \udcff\n"), "bob", Action.PUBLISH) == []


def test_topics_are_carried_as_they_are() -> None:
    found = grants(EXAMPLE)
    place = Place(TOPICS, "a/%u")
    assert found.carried(place) == place
    assert found.paths(client("bob")) == ()


def kept(*parts: str) -> list[Kept]:
    actions = {"read": Action.SUBSCRIBE, "write": Action.PUBLISH}
    return [Kept(actions[part.split(" ")[0]], TOPICS, part.split(" ", 1)[1]) for part in parts]


@pytest.mark.parametrize(
    ("line", "user", "parts", "expected"),
    [
        (5, "bob", [], "# remove line 5: topic write a/#"),
        (5, "bob", ["write a/b"], "user bob\ntopic write a/b"),
        (5, "bob", ["write a/b", "read c", "read a/b"], "user bob\ntopic readwrite a/b\ntopic read c"),
        (5, "bob", ["write a/%u/x"], "user bob\ntopic write a/bob/x"),
        (
            5,
            "bob",
            ["write a/%c"],
            "# no line for one client alone says this: 'a/%c'\n# remove line 5: topic write a/#",
        ),
        (2, "bob", ["write dev/%u/x"], "pattern write dev/%u/x"),
        (2, "bob", ["write dev/%u/x", "read n"], "pattern write dev/%u/x\nuser bob\ntopic read n"),
        (2, "bob", ["read dev/+/%c"], "pattern read dev/+/%c"),
        (1, None, ["read lobby/a"], "# above the first user line:\ntopic read lobby/a"),
        (
            1,
            None,
            ["read lobby/%u"],
            "# no line for one client alone says this: 'lobby/%u'\n# remove line 1: topic read lobby",
        ),
        (
            5,
            "a/b",
            ["write %u/x"],
            "# no line for one client alone says this: '%u/x'\n# remove line 5: topic write a/#",
        ),
        (5, " bob", ["write x"], "# no line names the user ' bob'\n# remove line 5: topic write a/#"),
        (
            5,
            "bob",
            ["write ends "],
            "# no line for one client alone says this: 'ends '\n# remove line 5: topic write a/#",
        ),
    ],
)
def test_what_stands_instead_of_an_entry(line: int, user: str | None, parts: list[str], expected: str) -> None:
    found = grants(EXAMPLE)
    origin = next(origin for origin in found.origins if origin.line == line)
    assert found.instead(origin, client(user), kept(*parts)) == expected


def test_where_ids_are_names_a_line_for_one_client_can_hold_its_id() -> None:
    found = grants(EXAMPLE, Logins(names={"bob": None}, ids_are_names=True))
    origin = next(origin for origin in found.origins if origin.line == 5)
    assert found.instead(origin, client("bob"), kept("write a/%c")) == "user bob\ntopic write a/bob"


_levels = st.sampled_from(["a", "b", "+", "", "%u", "bob", " x", "ü"])
_filters = st.lists(_levels, min_size=1, max_size=3).map("/".join).filter(bool)
_topics = st.lists(st.sampled_from(["a", "b", "", "bob", " x", "ü"]), min_size=1, max_size=3).map("/".join).filter(bool)


@given(
    st.lists(st.tuples(st.sampled_from(["read", "write"]), _filters), min_size=1, max_size=4),
    st.sampled_from([None, "bob", "a/b", "x y"]),
    st.sampled_from([1, 2, 5]),
    st.lists(_topics, min_size=1, max_size=8),
)
def test_what_stands_instead_allows_what_is_kept_and_no_more(
    parts: list[tuple[str, str]], user: str | None, line: int, topics: list[str]
) -> None:
    found = grants(EXAMPLE)
    origin = next(origin for origin in found.origins if origin.line == line)
    wanted = kept(*(" ".join(part) for part in parts))
    text = found.instead(origin, client(user), wanted)
    replaced = grants(text.replace("# above", "#") + "\n")
    unsaid = [row for row in text.split("\n") if row.startswith("# no line")]
    rights = replaced.rights(client(user))
    for topic in topics:
        for action in (Action.PUBLISH, Action.SUBSCRIBE):
            meant = any(part.action is action and matches(part.pattern, topic, user, "id") for part in wanted)
            # As text, a name with `/` in it is several levels: that is TW115's to say.
            if user is None or "/" not in user:
                assert allows(rights, action, topic) <= meant, (text, topic)
            if not unsaid:
                assert allows(rights, action, topic) >= meant, (text, topic)


def test_rules_that_do_not_depend_on_the_client_are_worked_out_once() -> None:
    found = grants("pattern read news\nuser bob\ntopic write a\n")
    assert found.rights(client("x", "1")) is found.rights(client("y", "2"))
    assert found.rights(client("bob", "1")) is found.rights(client("bob", "2"))
    assert found.rights(client("bob")) is not found.rights(client("x"))
    assert found.rights(client("x", "+")) is not found.rights(client("x", "1"))


GOLDEN = Path(__file__).parent / "acl_grants"


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.acl")))
def test_known_files_are_read_as_they_once_were(name: str) -> None:
    assert described((GOLDEN / f"{name}.acl").read_text()) == (GOLDEN / f"{name}.grants").read_text()


def described(text: str) -> str:
    """Return all that grants say, as text."""
    found = grants(text)
    lines = [f"grant\t{origin.where}\t{origin.holder}\t{origin.text}" for origin in found.origins]
    for account in [*found.accounts, client("stranger")]:
        for action in (Action.PUBLISH, Action.SUBSCRIBE):
            told = rules(found, account.user, action)
            lines += [f"{action.name}\t{account.user or '(anonymous)'}\t{rule}" for rule in told]
    lines += [f"{fault.code}\t{fault.origin.where}\t{fault.evidence['reason']}" for fault in found.faults]
    return "\n".join([*lines, ""])
