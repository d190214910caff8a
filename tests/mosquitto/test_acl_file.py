"""acl_file as our reader takes it, held against the running broker."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.brokers import mosquitto, wait_for
from tests.mosquitto.broker_verdict import Client, acl_verdict
from topicwarden_collectors.mosquitto.acl_file import (
    Access,
    AclFile,
    parse_acl_file,
    read_acl_file,
    why_unreadable,
)


def parse(text: str) -> AclFile:
    return parse_acl_file("/acl", text.encode())


def test_entries_keep_their_user_access_and_line() -> None:
    acl = parse(
        "topic read a\n\n# x\nuser  bob \ntopic deny b/#\ntopic c d\npattern write %u/+\nuser al ice\ntopic e\n"
    )
    assert [(e.pattern, e.access, e.topic, e.user, e.line) for e in acl.entries] == [
        (False, Access.READ, "a", None, 1),
        (False, Access.NONE, "b/#", "bob", 5),
        (True, Access.WRITE, "%u/+", None, 7),
        (False, Access.READWRITE, "e", "al ice", 9),
    ]
    assert [(problem.line, problem.message) for problem in acl.refused] == [
        (6, "invalid access 'c': read, write, readwrite or deny")
    ]
    assert acl.users == {"bob": [4], "al ice": [8]}
    assert [entry.text for entry in acl.entries][:3] == ["topic read a", "topic deny b/#", "pattern write %u/+"]


def test_denials_come_first_and_the_latest_of_them_before_the_others() -> None:
    acl = parse("user a\ntopic x\ntopic deny y\nuser b\ntopic z\nuser a\ntopic deny w\ntopic v\n")
    assert [entry.topic for entry in acl.of_user("a")] == ["w", "y", "x", "v"]
    assert [entry.topic for entry in acl.of_user("b")] == ["z"]


_words = st.sampled_from(
    [
        "topic",
        "pattern",
        "user",
        "read",
        "write",
        "readwrite",
        "deny",
        "#",
        "+",
        "a",
        "a/#",
        "%u/+",
        "a+",
        "#/b",
        "$SYS/#",
    ]
)
_gap = st.sampled_from([" ", "  ", "\t", ""])
_line = st.lists(st.tuples(_words, _gap), max_size=5).map(lambda parts: "".join(word + gap for word, gap in parts))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_line, max_size=4))
def test_any_file_is_accepted_by_the_broker_and_by_us_alike(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "acl"
        path.write_text("\n".join(lines) + "\n")
        said = acl_verdict(path)
        assert said.accepted == (not read_acl_file(str(path)).refused), (lines, said.said)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("topic read\n", "takes 'read' as a topic"),
        ("user bob # the builder\n", "part of the user name"),
    ],
)
def test_lines_the_broker_takes_otherwise_than_meant_are_doubted(text: str, says: str) -> None:
    acl = parse(text)
    assert says in acl.doubts[0].message
    assert parse("user bob\ntopic read a\n").doubts == []


def test_deep_topics_are_refused_where_the_broker_refuses_them(tmp_path: Path) -> None:
    for slashes, accepted in ((200, True), (201, False)):
        path = tmp_path / "acl"
        path.write_text("topic read " + "/" * slashes + "\n")
        assert acl_verdict(path).accepted is accepted
        assert (not read_acl_file(str(path)).refused) is accepted


def test_the_scope_of_each_kind_of_line_is_what_the_reader_says(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text(
        "topic write anonymous/x\nuser bob\ntopic write bob/x\ntopic write literal/%u\npattern write every/%u\n"
        "pattern write all/x\ntopic readwrite end\n"
    )
    with mosquitto(tmp_path, ["user root", f"acl_file {tmp_path}/acl", "allow_anonymous true"]) as broker:
        with Client(broker.port) as nobody:
            answers = {topic: nobody.may_publish(topic) for topic in ("anonymous/x", "bob/x", "all/x", "every/bob")}
        assert answers == {"anonymous/x": True, "bob/x": False, "all/x": True, "every/bob": False}
        with Client(broker.port, "bob") as bob:
            answers = {
                topic: bob.may_publish(topic)
                for topic in ("anonymous/x", "bob/x", "literal/bob", "literal/%u", "every/bob", "every/al", "all/x")
            }
        assert answers == {
            "anonymous/x": False,
            "bob/x": True,
            "literal/bob": False,
            "literal/%u": True,
            "every/bob": True,
            "every/al": False,
            "all/x": True,
        }
        with Client(broker.port, "b+b") as dangerous:
            assert not dangerous.may_publish("all/x")


@pytest.mark.parametrize(
    ("line", "covered"),
    [
        ("topic read #", False),
        ("pattern read #", False),
        ("pattern read +/#", False),
        ("topic read $SYS/#", True),
        ("pattern read $SYS/#", True),
    ],
)
def test_a_filter_covers_sys_topics_only_when_it_begins_with_their_dollar(
    tmp_path: Path, line: str, covered: bool
) -> None:
    (tmp_path / "acl").write_text(
        f"topic readwrite end\n{line}\nuser watcher\ntopic readwrite end\ntopic read $SYS/#\n"
    )
    config = ["user root", "sys_interval 1", f"acl_file {tmp_path}/acl", "persistence false"]
    with mosquitto(tmp_path, config) as broker:

        def seen(user: str | None) -> set[str]:
            with Client(broker.port, user) as client:
                return client.retained("$SYS/broker/version", "end")

        wait_for(lambda: seen("watcher") == {"$SYS/broker/version"}, "a $SYS topic")
        assert seen(None) == ({"$SYS/broker/version"} if covered else set())


def test_a_missing_file_says_why(tmp_path: Path) -> None:
    assert why_unreadable(str(tmp_path / "none")) == "No such file or directory"
    assert why_unreadable(str(tmp_path)) == "Is a directory"
    (tmp_path / "acl").write_text("")
    assert why_unreadable(str(tmp_path / "acl")) is None


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "acl").write_bytes(b"\x7fELF\0")
    assert "NUL" in read_acl_file(str(tmp_path / "acl")).refused[0].message
