"""`attack`, as a user runs it: every atomic test is caught, with the process behind it; nobody else is accused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.brokers import wait_for
from tests.cli.program import PROGRAM, environment, run
from topicwarden.cli.attack_plan import read_plan

PLAN = read_plan()
PLAYED = [planned for planned in PLAN if not planned.expected.optional]


def running_in(folder: Path) -> list[str]:
    """Return the command lines of processes that have to do with a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in line:
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompletedProcess[str], Path]:
    assert os.geteuid() == 0, "processes and connections of a machine are seen by root only: run this test as root"
    folder = tmp_path_factory.mktemp("attack") / "run"
    return run("attack", "--folder", folder, timeout=150), folder


def rounds(output: str) -> dict[str, str]:
    """Return what is told of each round by its label."""
    body = output.split("\nWhich rule caught which\n")[0]
    found = {}
    for part in re.split(r"\n(?=(?:caught|MISSED|FAILED|quiet|ACCUSED|not played)  )", body):
        heading = part.strip().partition("\n")[0].split("  ")
        if len(heading) > 2:
            found[heading[1]] = part.strip()
    return found


def test_every_test_is_caught_and_the_automation_is_not_accused(played: tuple[CompletedProcess[str], Path]) -> None:
    done, _ = played
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert f"{len(PLAYED)} of {len(PLAYED)} attacks caught, 1 not played" in done.stdout
    assert "sanctioned automation was not accused" in done.stdout
    told = rounds(done.stdout)
    assert told["automation"].startswith("quiet")
    for planned in PLAYED:
        assert told[planned.label].startswith("caught"), told[planned.label]
        assert any(code in told[planned.label] for code in planned.expected.caught_by)


def test_the_process_behind_each_attack_is_named(played: tuple[CompletedProcess[str], Path]) -> None:
    done, _ = played
    told = rounds(done.stdout)
    # Those that live long enough to be seen whatever the machine is busy with, and one of many.
    behind = {
        "T1071.005-2": "run: nc -w 3 127.",
        "T1071.005-3": "run: mosquitto_sub -h 127.",
        "T1071.005-5": "run: mosquitto_pub -h 127.",
        "T1071.005-6": "import paho.mqtt.publish as publish",
        "T1071.005-8": "run: nc -w 3 127.",
    }
    for label, command in behind.items():
        assert command in told[label], told[label]
        assert "root" in told[label]


def test_a_test_that_needs_a_server_nobody_asked_for_is_told_as_not_played(
    played: tuple[CompletedProcess[str], Path],
) -> None:
    done, _ = played
    assert "--with rabbitmq" in rounds(done.stdout)["T1071.005-10"]


def test_nothing_is_left_running_and_all_that_was_seen_is_kept(played: tuple[CompletedProcess[str], Path]) -> None:
    _, folder = played
    assert running_in(folder) == []
    for planned in PLAYED:
        assert (folder / f"{planned.label}.arrow").stat().st_size
        assert (folder / f"{planned.label}.output").exists()


@contextmanager
def attack(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*PROGRAM, "attack", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            # Killed outright it would leave its servers behind.
            process.terminate()
        process.wait(30)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.parametrize(("number", "when"), [(signal.SIGTERM, "starting"), (signal.SIGINT, "playing T1071.005-1")])
def test_it_can_be_ended_at_any_time_and_leaves_nothing_running(
    number: signal.Signals, when: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("attack") / "run"
    with attack("--folder", folder) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        said = ""
        while when not in said.rpartition("\n")[0].rpartition("\n")[2]:
            line = process.stderr.readline()
            assert line, said
            said += line
        if when != "starting":
            wait_for(lambda: any("plant-status" in line for line in running_in(folder)), "the automation to run")
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1, out + err
    assert "interrupted" in err
    assert "Traceback" not in err
    # A compiler that was at work on the plugin ends by itself.
    wait_for(lambda: not running_in(folder), "everything to be gone")


def test_a_target_that_is_not_this_machine_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    for address in ("10.0.0.7", "broker.example"):
        done = run("attack", "--address", address, "--folder", tmp_path / "run")
        assert done.returncode == 2
        assert "not a loopback address" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_test_that_there_is_not_and_a_server_that_there_is_not_are_wrong_usage(tmp_path: Path) -> None:
    assert run("attack", "99").returncode == 2
    done = run("attack", "1", "--with", "activemq", "--folder", tmp_path / "run")
    assert done.returncode == 2
    assert "activemq" in done.stderr


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = run("attack", "--folder", tmp_path)
    assert done.returncode == 2
    assert "not empty" in done.stderr
