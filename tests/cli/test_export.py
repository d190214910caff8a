"""`topicwarden export` as a user meets it: files, what they lack, the replay, wrong input, and real brokers."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from tests.brokers import mosquitto
from tests.cli.program import PROGRAM, environment, run
from tests.cli.traffic import publish, subscribe
from tests.engine.scenario import batches
from topicwarden.events.recording import open_recorder
from topicwarden_collectors.rabbitmq.node import Node

POLICY = """\
topicwarden: 1
roles:
  sensor:
    members: [{user: "sensor-*"}]
    publish: [{topic: "plant/%u/telemetry", rate: 10/s}, {topic: "own/%c"}]
    subscribe: [{topic: "plant/%u/command"}]
"""
KEYS = """\
topicwarden: 1
roles:
  billing:
    members: [{user: billing, vhost: prod}]
    publish: [{exchange: invoices, key: "invoice.*"}, {exchange: amq.default, key: jobs}]
    subscribe: [{exchange: orders, key: "order.*.paid"}]
    consume: [{queue: "billing.#"}]
    configure: [{queue: "billing.#"}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "keys.yaml").write_text(KEYS)
    return tmp_path


def record(path: Path, *events: Mapping[str, Any]) -> Path:
    """Write what was observed to a recording."""
    path.parent.mkdir(exist_ok=True)
    with open_recorder(path, {"sources": []}) as recorder:
        for batch in batches(list(events)):
            recorder.write(batch)
    return path


def test_the_main_file_goes_to_stdout_and_all_that_is_not_in_it_to_stderr(folder: Path) -> None:
    done = run("export", folder / "policy.yaml", "--to", "mosquitto-acl", "--user", "sensor-1")
    assert done.returncode == 0, done.stderr
    assert "topic write plant/sensor-1/telemetry\n" in done.stdout
    assert "user sensor-1\n" in done.stdout
    lines = done.stderr.splitlines()
    assert any(line.startswith("not expressed: roles.sensor.publish[0]: ") and "10/s" in line for line in lines)
    assert all(line.startswith(("not expressed: ", "denied more: ")) for line in lines)


def test_rabbitmqs_second_file_is_said_to_be_there(folder: Path) -> None:
    done = run("export", folder / "keys.yaml", "--to", "rabbitmq")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"permissions", "topic_permissions"}
    assert done.stderr.startswith("not printed: commands.sh (-o DIR writes it beside definitions.json)\n")
    assert "denied more: roles.billing.publish[1]: " in done.stderr


def test_files_are_written_for_their_owner_and_group_and_never_over_others(folder: Path) -> None:
    command = ("export", folder / "keys.yaml", "--to", "rabbitmq", "-o", folder / "out" / "new")
    done = run(*command)
    assert (done.returncode, done.stdout) == (0, "")
    written = {path.name: path for path in (folder / "out" / "new").iterdir()}
    assert set(written) == {"definitions.json", "commands.sh"}
    assert all(path.stat().st_mode & 0o137 == 0 for path in written.values())
    before = {name: (path.read_bytes(), path.stat().st_mtime_ns) for name, path in written.items()}
    written["definitions.json"].unlink()
    again = run(*command)
    assert again.returncode == 2
    assert "commands.sh: the file is there already, and nothing is overwritten" in again.stderr
    assert "hint: name another folder" in again.stderr
    # All or none: the other one is not there either.
    assert [path.name for path in (folder / "out" / "new").iterdir()] == ["commands.sh"]
    assert (written["commands.sh"].read_bytes(), written["commands.sh"].stat().st_mtime_ns) == before["commands.sh"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["policy.yaml", "--to", "nothing"], 2, "one of: mosquitto-acl, mosquitto-dynsec, rabbitmq"),
        (["nowhere.yaml", "--to", "rabbitmq"], 2, "nowhere.yaml"),
        (["policy.yaml", "--to", "rabbitmq", "--accounts", "nowhere.json"], 2, "no such file"),
        (["policy.yaml", "--to", "rabbitmq", "--observed", "nowhere.arrow"], 3, "nowhere.arrow"),
        (["policy.yaml", "--to", "rabbitmq", "-o", "policy.yaml"], 2, "this is no folder"),
        (["policy.yaml", "--to", "rabbitmq", "-o", "/proc/nowhere"], 2, "cannot be written"),
        (["policy.yaml"], 2, "--to"),
    ],
)
def test_wrong_input_is_told_with_what_to_do(folder: Path, arguments: list[str], code: int, words: str) -> None:
    places = [str(folder / text) if text.endswith((".yaml", ".json", ".arrow")) else text for text in arguments]
    done = run("export", *places)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr.replace("│", "")


def test_users_come_from_the_options_from_configurations_and_from_what_was_observed(folder: Path) -> None:
    (folder / "acl").write_text("user sensor-2\ntopic read x\n")
    seen = record(
        folder / "seen.jsonl",
        {"publish": "plant/sensor-3/telemetry", "user": "sensor-3"},
        {"publish": "plant/sensor-4/telemetry", "user": "sensor-4", "outcome": "denied"},
    )
    sources: list[str | Path] = ["--user", "sensor-1", "--accounts", folder / "acl", "--observed", seen]
    done = run("export", folder / "policy.yaml", "--to", "mosquitto-acl", *sources)
    users = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("user ")}
    # A name that was only tried is nobody's.
    assert users == {"sensor-1", "sensor-2", "sensor-3"}


def test_a_replay_in_which_nothing_would_be_denied_says_so_and_ends_well(folder: Path) -> None:
    record(folder / "seen" / "a.jsonl", {"publish": "plant/sensor-1/telemetry", "user": "sensor-1", "repeat": 5})
    record(folder / "seen" / "b.arrow", {"subscribe": "plant/sensor-2/command", "user": "sensor-2"})
    done = run("export", folder / "policy.yaml", "--to", "mosquitto-acl", "--observed", folder / "seen")
    assert "replayed: 0 of 6 observed events would be denied\n" in done.stderr
    assert done.returncode == 0


def test_what_would_be_denied_is_listed_and_what_the_policy_denies_itself_told_apart(folder: Path) -> None:
    seen = record(
        folder / "seen.jsonl",
        {"publish": "plant/sensor-1/telemetry", "user": "sensor-1"},
        {"publish": "plant/sensor-9/telemetry", "user": "sensor-1", "repeat": 3},
        {"publish": "other/\x1b[31m", "user": "sensor-1", "outcome": "denied", "repeat": 2},
    )
    command = ("export", folder / "policy.yaml", "--to", "mosquitto-acl", "--observed")
    done = run(*command, seen)
    assert "replayed: 3 of 4 observed events would be denied: 3 by the policy itself, 0 only by the export" in (
        done.stderr
    )
    assert "\n  sensor-1: publish to plant/sensor-9/telemetry, 3 times, 2026-06-01T00:00:01.000Z to " in done.stderr
    assert "; the policy denies it, too\n" in done.stderr
    assert "not replayed: 2 events, the broker had refused them" in done.stderr
    assert done.returncode == 0
    # The export cannot say this one, and says that it does not.
    more = record(folder / "more.jsonl", {"publish": "own/\u202e", "user": "anybody", "client": "x"})
    only = record(folder / "only.jsonl", {"publish": "own/gw-1", "user": "sensor-1", "client": "gw-1"})
    (folder / "gw.yaml").write_text(POLICY.replace('{user: "sensor-*"}', '{client: "gw-*"}'))
    done = run("export", folder / "gw.yaml", "--to", "mosquitto-acl", "--observed", only, "--observed", more)
    assert "replayed: 2 of 2 observed events would be denied: 1 by the policy itself, 1 only by the export" in (
        done.stderr
    )
    assert "  sensor-1 (client gw-1): publish to own/gw-1, 1 time, 2026-06-01T" in done.stderr
    assert "; the policy allows it\n" in done.stderr
    assert "\\u{202e}" in done.stderr
    assert "\u202e" not in done.stderr
    assert "report this as a defect" not in done.stderr
    assert done.returncode == 1


def test_when_nothing_was_observed_that_is_not_success(folder: Path) -> None:
    seen = record(folder / "seen.jsonl", {"connect": "", "user": "sensor-1"})
    done = run("export", folder / "policy.yaml", "--to", "mosquitto-acl", "--observed", seen)
    assert "nothing was observed that a permission is about" in done.stderr
    assert done.returncode == 3


def test_hostile_names_of_users_reach_the_terminal_escaped(folder: Path) -> None:
    (folder / "p.yaml").write_text("topicwarden: 1\nroles:\n  r: {members: [{user: '*'}], consume: [{queue: q}]}\n")
    main, follower = pty.openpty()
    program = [*PROGRAM, "export", str(folder / "p.yaml"), "--to", "rabbitmq"]
    done = subprocess.run(
        [*program, "--user", "\x1b[2Jx\r", "--user", "a\nnot expressed: b"],
        stdout=subprocess.PIPE,
        stderr=follower,
        env=environment(),
        check=False,
        timeout=60,
    )
    os.close(follower)
    said = os.read(main, 1 << 16).decode()
    os.close(main)
    assert done.returncode == 0
    assert {row["user"] for row in json.loads(done.stdout)["permissions"]} == {"\x1b[2Jx\r", "a\nnot expressed: b"}
    assert "\x1b" not in said


def test_a_real_mosquitto_lets_pass_what_was_seen_once_the_export_is_its_acl_file(folder: Path) -> None:
    passwords = folder / "passwords"
    passwords.touch()
    subprocess.run(["mosquitto_passwd", "-b", passwords, "sensor-1", "p"], check=True, capture_output=True)
    passwords.chmod(0o644)
    done = run("export", folder / "policy.yaml", "--to", "mosquitto-acl", "--user", "sensor-1", "-o", folder / "out")
    assert done.returncode == 0
    acl = next(path for path in (folder / "out").iterdir())
    seen = folder / "mosquitto.log"
    config = [f"password_file {passwords}", f"acl_file {acl}", "user root", f"log_dest file {seen}", "log_type all"]
    with mosquitto(folder / "broker", config, allow_anonymous=False) as broker:
        login = ["-u", "sensor-1", "-P", "p"]
        for topic in ("plant/sensor-1/telemetry", "plant/sensor-2/telemetry"):
            subprocess.run(
                ["mosquitto_pub", "-p", str(broker.port), "-i", "c1", "-t", topic, "-m", "x", "-q", "1", *login],
                check=True,
                timeout=30,
            )
    done = run("export", folder / "policy.yaml", "--to", "mosquitto-acl", "--observed", seen)
    assert "replayed: 0 of 1 observed event would be denied\n" in done.stderr
    assert "not replayed: 1 event, the broker had refused them" in done.stderr
    assert done.returncode == 0


def test_a_recording_of_a_real_broker_without_rules_is_replayed(folder: Path) -> None:
    seen = folder / "mosquitto.log"
    with mosquitto(folder / "broker", ["user root", f"log_dest file {seen}", "log_type all"]) as broker:
        publish(broker.port, "c1", "plant/x/telemetry")
        subscribe(broker.port, "c1", "plant/+/command")
    done = run("export", folder / "policy.yaml", "--to", "mosquitto-acl", "--observed", seen)
    assert "replayed: 2 of 2 observed events would be denied: 2 by the policy itself, 0 only by the export" in (
        done.stderr
    )
    assert done.returncode == 0


def test_rabbitmqs_export_read_back_allows_and_denies_what_the_node_does(rabbit: Node, folder: Path) -> None:
    events = [
        ({"publish": "invoice.1", "exchange": "invoices"}, True),
        ({"publish": "invoice.1.2", "exchange": "invoices"}, False),
        ({"publish": "jobs", "exchange": "amq.default"}, False),
        ({"subscribe": "order.7.paid", "exchange": "orders"}, True),
        ({"subscribe": "order.*.paid", "exchange": "orders"}, True),
        ({"subscribe": "order.#", "exchange": "orders"}, False),
        ({"consume": "billing.in"}, True),
        ({"consume": "other"}, False),
        ({"configure": "billing.new"}, True),
        ({"configure": "other"}, False),
    ]
    who = {"user": "billing", "vhost": "prod"}
    seen = record(folder / "seen.jsonl", *({**event, **who} for event, _ in events))
    done = run("export", folder / "keys.yaml", "--to", "rabbitmq", "--observed", seen, "-o", folder / "out")
    denied = sum(not allowed for _, allowed in events)
    assert f"replayed: {denied} of {len(events)} observed events would be denied: {denied - 1} by the" in done.stderr
    assert "by the policy itself, 1 only by the export\n" in done.stderr
    assert "report this as a defect" not in done.stderr
    assert done.returncode == 1

    # What was written is known for what it is.
    scanned = run("scan", "--policy", folder / "keys.yaml", folder / "out" / "definitions.json")
    assert 'billing cannot "publish to exchange amq.default"' in scanned.stdout, scanned.stderr

    rabbit.add_vhost("prod")
    rabbit.add_user("billing", "p")
    try:
        with pika.BlockingConnection(pika.URLParameters(rabbit.url(vhost="prod"))) as connection:
            for exchange in ("invoices", "orders"):
                connection.channel().exchange_declare(exchange, "topic")
        rabbit.api("POST", "/definitions", json.loads((folder / "out" / "definitions.json").read_text()))
        with pika.BlockingConnection(pika.URLParameters(rabbit.url("billing", "prod", "p"))) as connection:
            for event, allowed in events:
                assert tried(connection, event) == allowed, event
    finally:
        rabbit.api("DELETE", "/vhosts/prod")
        rabbit.api("DELETE", "/users/billing")


def tried(connection: pika.BlockingConnection, event: Mapping[str, str]) -> bool:
    """Do it on the node, for real; returns whether it was allowed."""
    channel = connection.channel()
    try:
        exchange = event.get("exchange", "").replace("amq.default", "")
        if "publish" in event:
            channel.confirm_delivery()
            channel.basic_publish(exchange, event["publish"], b"x")
        elif "subscribe" in event:
            channel.queue_bind(channel.queue_declare("", exclusive=True).method.queue, exchange, event["subscribe"])
        elif "consume" in event:
            channel.basic_get(event["consume"])
        else:
            channel.queue_declare(event["configure"])
    except ChannelClosedByBroker as error:
        return int(error.reply_code) != 403
    return True
