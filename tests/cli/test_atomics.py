"""Atomic tests as data: read as strictly as upstream does, filled in and handed to a shell as upstream does."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.cli.atomics import (
    Atomic,
    CommandExecutor,
    Technique,
    prerequisite_argument,
    read_technique,
    shell_argument,
)
from topicwarden.cli.attack_plan import HOST, PORT, Planned, loopback, read_plan
from topicwarden.errors import ConfigurationError
from topicwarden.findings import data_dir
from topicwarden.sources import Staged

FOLDER = data_dir("rules") / "atomics" / "T1071.005"
FILE = FOLDER / "T1071.005.yaml"
TESTS = read_technique(FILE).atomic_tests


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    return loaded


def set_at(path: tuple[str | int, ...], value: object) -> Callable[[Any], None]:
    def change(read: Any) -> None:
        for part in path[:-1]:
            read = read[part]
        read[path[-1]] = value

    return change


def drop(*path: str | int) -> Callable[[Any], None]:
    def change(read: Any) -> None:
        for part in path[:-1]:
            read = read[part]
        del read[path[-1]]

    return change


def argument(kind: str, default: object) -> dict[str, object]:
    return {"description": "x", "type": kind, "default": default}


FIRST = ("atomic_tests", 0)
REFUSED = [
    ("an unknown key", set_at((*FIRST, "author"), "me")),
    ("an unknown key of the executor", set_at((*FIRST, "executor", "timeout"), 3)),
    ("no tests", set_at(("atomic_tests",), [])),
    ("a technique that is none", set_at(("attack_technique",), "X1071")),
    ("a short display name", set_at(("display_name",), "Pub")),
    ("a missing display name", drop("display_name")),
    ("a nameless test", set_at((*FIRST, "name"), "")),
    ("no platform", set_at((*FIRST, "supported_platforms"), [])),
    ("an unknown platform", set_at((*FIRST, "supported_platforms"), ["beos"])),
    ("a shell that is none", set_at((*FIRST, "executor", "name"), "zsh")),
    ("no command", set_at((*FIRST, "executor", "command"), "")),
    ("no arguments under the key", set_at((*FIRST, "input_arguments"), None)),
    ("an argument that is not used", set_at((*FIRST, "input_arguments", "spare"), argument("string", "x"))),
    ("an argument that is not defined", drop(*FIRST, "input_arguments", "topic")),
    ("an argument with a short name", set_at((*FIRST, "input_arguments", "x"), argument("string", "x"))),
    ("an argument of no type", drop(*FIRST, "input_arguments", "topic", "type")),
    ("an argument of an unknown type", set_at((*FIRST, "input_arguments", "topic", "type"), "text")),
    ("a text that is a number", set_at((*FIRST, "input_arguments", "topic", "default"), 7)),
    ("a number that is a text", set_at((*FIRST, "input_arguments", "broker_port", "default"), "mqtt")),
    ("a fraction that is a number", set_at((*FIRST, "input_arguments", "broker_port"), argument("float", "7"))),
    ("a URL that is none", set_at((*FIRST, "input_arguments", "topic"), argument("url", "c2 beacon"))),
    ("a dependency without a way to get it", drop(*FIRST, "dependencies", 0, "get_prereq_command")),
    ("an empty dependency executor", set_at((*FIRST, "dependency_executor_name"), None)),
    ("a dependency executor that is none", set_at((*FIRST, "dependency_executor_name"), "zsh")),
    ("sudo without elevation", set_at((*FIRST, "executor", "cleanup_command"), "sudo rm x")),
    ("an identifier that is none", set_at((*FIRST, "auto_generated_guid"), "1")),
    ("an identifier used twice", set_at((*FIRST, "auto_generated_guid"), str(TESTS[1].auto_generated_guid))),
    ("steps that are too short", set_at((*FIRST, "executor"), {"name": "manual", "steps": "run it"})),
]  # fmt: skip


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in REFUSED])
def test_what_upstream_refuses_is_refused(change: Callable[[Any], None], tmp_path: Path) -> None:
    read = copy.deepcopy(document())
    change(read)
    path = tmp_path / "T1071.005.yaml"
    path.write_text(yaml.safe_dump(read))
    with pytest.raises(ConfigurationError) as refused:
        read_technique(path)
    assert all(problem.file == str(path) for problem in refused.value.problems)


def test_a_dependency_executor_without_dependencies_is_refused() -> None:
    read = document()
    del read["atomic_tests"][8]["dependencies"]
    with pytest.raises(ValueError, match="dependency_executor_name without dependencies"):
        Technique.model_validate(read)


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    read = document()
    read["display_name"] = "x"
    read["atomic_tests"][3]["name"] = ""
    path = tmp_path / "T1071.005.yaml"
    path.write_text(yaml.safe_dump(read))
    with pytest.raises(ConfigurationError) as refused:
        read_technique(path)
    assert len(refused.value.problems) == 2


def test_a_file_with_another_ending_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "T1071.005.yml"
    path.write_bytes(FILE.read_bytes())
    with pytest.raises(ConfigurationError, match=r"does not end in \.yaml"):
        read_technique(path)


def test_tests_only_write_where_their_arguments_say_and_name_no_address_of_their_own() -> None:
    for test in TESTS:
        assert isinstance(test.executor, CommandExecutor)
        commands = test.executor.command + (test.executor.cleanup_command or "")
        assert "#{broker_host}" in commands
        assert "://" not in commands.replace("http://etherx.jabber.org/streams", "").replace(
            "amqp://#{username}:#{password}@#{broker_host}:#{broker_port}", ""
        )
        assert test.input_arguments["broker_host"].default == "127.0.0.1"
        assert test.supported_platforms == ("linux",)


def test_a_command_is_filled_in_with_defaults_and_with_what_is_given_instead(tmp_path: Path) -> None:
    command = TESTS[0].filled(
        "#{broker_host}:#{broker_port} #{topic} pathtoatomicsfolder", {"topic": "x y", "no": "z"}, tmp_path
    )
    assert command == f"127.0.0.1:1883 x y {tmp_path}"


def test_a_value_that_is_a_placeholder_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="placeholder"):
        TESTS[0].filled("#{topic}", {"topic": "#{broker_host}"}, tmp_path)


@given(st.text(alphabet=st.characters(exclude_characters="\\\n", exclude_categories=["Cs"])))
def test_without_backslashes_one_line_reaches_the_shell_as_it_is(line: str) -> None:
    assert shell_argument(line) == line.strip()


@given(st.lists(st.text(alphabet="ab;\\\" '"), max_size=4))
def test_only_line_ends_and_backslashes_change_on_the_way_to_the_shell(lines: list[str]) -> None:
    got = shell_argument("\n".join(lines))
    as_it_was = "\n".join(lines).strip()
    assert got.replace("\\", "").replace("\n", "").replace("; ", "").replace(";", "").replace(
        " ", ""
    ) == as_it_was.replace("\\", "").replace("\n", "").replace("; ", "").replace(";", "").replace(" ", "")


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        ("a\nb\n", "a; b"),
        ("a;\nb", "a;\nb"),
        ("echo '\\x'", "echo '\\\\x'"),
        ('echo "\\x"', 'echo "\\\\x"'),
        ('echo \\"x\\"', 'echo \\"x\\"'),
        ("find . -exec ls {} \\;", "find . -exec ls {} \\;"),
        ("a \\", "a \\"),
    ],
)
def test_lines_are_joined_and_backslashes_doubled_as_upstream_does(command: str, argument: str) -> None:
    assert shell_argument(command) == argument


def test_every_line_of_a_prerequisite_must_succeed() -> None:
    assert prerequisite_argument("command -v a\ncommand -v b\n") == "command -v a && command -v b"


PROGRAMS = ("mosquitto_pub", "mosquitto_sub", "nc", "amqp-publish", "python3", "sleep", "tr", "head", "uname", "id")
BY_PROGRAMS = [test for test in TESTS if test.executor.name == "sh"]
"""Those that leave connecting to a program; bash itself does in the others, which are played elsewhere."""


@pytest.mark.parametrize("test", BY_PROGRAMS, ids=lambda test: test.name)
def test_a_command_is_the_same_to_a_shell_as_written_and_as_upstream_hands_it_over(
    test: Atomic, tmp_path: Path
) -> None:
    assert isinstance(test.executor, CommandExecutor)
    for name in PROGRAMS:
        said = f'printf "%s\\0" {name} "$@" >> "$SAID"'
        (tmp_path / name).write_text(f'#!/bin/sh\n{said}\n[ {name} != nc ] || cat >> "$SAID.input"\n')
        (tmp_path / name).chmod(0o755)
    written = test.filled(test.executor.command, {"copy": str(tmp_path / "copy")}, tmp_path)
    records = []
    for number, command in enumerate((written, shell_argument(written))):
        record = tmp_path / f"said-{number}"
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SAID": str(record)}
        subprocess.run(["sh", "-c", command], env=environment, cwd=tmp_path, timeout=20, capture_output=True)
        given = tmp_path / f"said-{number}.input"
        records.append([*sorted(record.read_bytes().split(b"\0")), given.read_bytes() if given.exists() else b""])
    assert records[0] == records[1]
    assert b"127.0.0.1" in b"".join(records[0])


NOT_OURS = ("10.0.0.7", "localhost", "192.168.1.1", "0.0.0.0", "::1", "127.0.0.1.example.com", "test.mosquitto.org")


@pytest.mark.parametrize("address", ["", *NOT_OURS])
def test_a_target_that_is_not_loopback_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a loopback address"):
        loopback(address)
    staged = Staged("", {"mqtt": 1883, "amqp": 5672, "xmpp": 5222, "unusual": 48101})
    for planned in read_plan():
        with pytest.raises(ConfigurationError, match="not a loopback address"):
            planned.values(address, staged, tmp_path)


def test_a_test_that_cannot_be_pointed_at_our_own_server_is_refused(tmp_path: Path) -> None:
    own = Atomic.model_validate(
        {
            "name": "phones home",
            "description": "has an address of its own",
            "supported_platforms": ["linux"],
            "executor": {"name": "sh", "command": "mosquitto_pub -h broker.example -t x -m y"},
        }
    )
    planned = read_plan()[0]
    with pytest.raises(ConfigurationError, match="does not say whom it attacks"):
        Planned(1, own, planned.expected).values("127.0.0.1", Staged("", {"mqtt": 1883}), tmp_path)


def test_each_test_is_pointed_at_our_own_server_whatever_is_expected_of_it(tmp_path: Path) -> None:
    staged = Staged("", {"mqtt": 1, "amqp": 2, "xmpp": 3, "unusual": 4}, account=("technician", "secret"))
    for planned in read_plan():
        values = planned.values("127.83.12.7", staged, tmp_path)
        assert values[HOST] == "127.83.12.7"
        assert values[PORT] == str(staged.ports[planned.expected.port])


def test_expectations_that_do_not_fit_the_tests_are_refused(tmp_path: Path) -> None:
    (tmp_path / "T1071.005.yaml").write_bytes(FILE.read_bytes())
    entries = yaml.safe_load((FOLDER / "expected.yaml").read_text("utf-8"))
    for wrong in (entries[1:], [*entries, entries[0]], [{**entries[0], "guid": "not one"}, *entries[1:]]):
        (tmp_path / "expected.yaml").write_text(yaml.safe_dump(wrong))
        with pytest.raises(ConfigurationError):
            read_plan(tmp_path)
