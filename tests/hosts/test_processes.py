"""The table of processes against a plain list of what was told."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.events import Executed, Exited, Process
from topicwarden.hosts.processes import KEEP_NS, MAX_EXITS, MAX_IMAGES, ProcessTable

SECOND = 1_000_000_000


def process(pid: int, executable: str, parent: int | None = None, host: str = "one", **more: object) -> Process:
    return Process(host, pid, executable, (executable,), parent_pid=parent, **more)  # type: ignore[arg-type]


def run(table: ProcessTable, time: int, pid: int, executable: str, parent: int | None = None) -> Process:
    return table.executed(Executed(time * SECOND, process(pid, executable, parent)))


def name_at(table: ProcessTable, pid: int, time: int) -> str | None:
    found = table.at("one", pid, time * SECOND)
    return None if found is None else found.executable


def test_a_program_replaces_the_one_before_from_then_on() -> None:
    table = ProcessTable()
    run(table, 10, 7, "sh")
    run(table, 20, 7, "mosquitto_pub")
    assert [name_at(table, 7, time) for time in (9, 10, 19, 20, 99)] == [
        None,
        "sh",
        "sh",
        "mosquitto_pub",
        "mosquitto_pub",
    ]
    assert table.reused == 0


def test_a_number_that_is_given_again_is_another_process() -> None:
    table = ProcessTable()
    run(table, 10, 7, "mosquitto_pub")
    table.exited(Exited(12 * SECOND, "one", 7))
    run(table, 14, 7, "nc")
    assert [name_at(table, 7, time) for time in (11, 12, 13, 14)] == ["mosquitto_pub", "mosquitto_pub", None, "nc"]
    assert table.reused == 1


def test_an_exit_told_for_the_very_time_of_the_exec_ends_that_process() -> None:
    table = ProcessTable()
    run(table, 10, 7, "true")
    table.exited(Exited(10 * SECOND, "one", 7))
    assert [name_at(table, 7, time) for time in (10, 11)] == ["true", None]


def test_equal_numbers_on_two_hosts_are_two_processes() -> None:
    table = ProcessTable()
    table.executed(Executed(0, process(7, "nc", host="one")))
    table.executed(Executed(0, process(7, "python", host="two")))
    assert [found and found.executable for found in (table.at("one", 7, 5), table.at("two", 7, 5))] == ["nc", "python"]
    assert table.at("three", 7, 5) is None


@given(
    st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=25),
    st.randoms(use_true_random=False),
    st.lists(st.tuples(st.integers(1, 3), st.integers(-1, 60)), max_size=20),
)
def test_whatever_order_things_are_told_in_the_answers_are_those_of_a_plain_list(
    told: list[tuple[int, bool]], source: random.Random, questions: list[tuple[int, int]]
) -> None:
    times = source.sample(range(60), len(told))
    events: list[Executed | Exited] = [
        Executed(time * SECOND, process(pid, f"program-{time}", source.choice([None, 1, 2, 3])))
        if starts
        else Exited(time * SECOND, "one", pid)
        for time, (pid, starts) in zip(times, told, strict=True)
    ]

    def plain(pid: int, time: int) -> tuple[str, str | None] | None:
        before = [
            event
            for event in events
            if (event.process.pid if isinstance(event, Executed) else event.pid) == pid and event.time_ns <= time
        ]
        latest = max(before, key=lambda event: event.time_ns, default=None)
        if isinstance(latest, Exited) and latest.time_ns == time:
            latest = max(before, key=lambda event: (event.time_ns < time, event.time_ns), default=None)
        if not isinstance(latest, Executed):
            return None
        parent = None
        if latest.process.parent_pid is not None and latest.process.parent_pid != pid:
            found = plain(latest.process.parent_pid, latest.time_ns)
            parent = None if found is None else found[0]
        elif latest.process.parent_pid == pid:
            parent = latest.process.executable
        return latest.process.executable, parent

    table = ProcessTable()
    for event in source.sample(events, len(events)):
        if isinstance(event, Executed):
            table.executed(event)
        else:
            table.exited(event)
    for pid, time in questions:
        found = table.at("one", pid, time * SECOND)
        # What is its own parent is no program's parent; such hosts are hostile, but must not loop.
        expected = plain(pid, time * SECOND)
        assert (found and found.executable) == (expected and expected[0])
        if found is not None and expected is not None and found.parent_pid != pid:
            assert found.parent_executable == expected[1]


def test_a_parent_is_what_it_was_when_it_started_the_child() -> None:
    table = ProcessTable()
    run(table, 1, 10, "bash")
    child = run(table, 5, 11, "mosquitto_pub", 10)
    run(table, 9, 10, "vim")
    assert child.parent_executable == "bash"
    found = table.at("one", 11, 20 * SECOND)
    assert found is not None
    assert found.parent_executable == "bash"


def test_who_is_told_only_later_to_have_ended_before_was_nobodys_parent() -> None:
    table = ProcessTable()
    run(table, 5, 10, "bash")
    child = run(table, 7, 11, "mosquitto_pub", 10)
    assert child.parent_executable == "bash"
    table.exited(Exited(6 * SECOND, "one", 10))
    found = table.at("one", 11, 20 * SECOND)
    assert found is not None
    assert found.parent_executable is None


def test_a_parent_that_is_told_after_its_child_is_filled_in() -> None:
    table = ProcessTable()
    assert run(table, 5, 11, "mosquitto_pub", 10).parent_executable is None
    run(table, 1, 10, "cron")
    found = table.at("one", 11, 6 * SECOND)
    assert found is not None
    assert found.parent_executable == "cron"


def test_what_the_source_says_of_a_parent_stands() -> None:
    table = ProcessTable()
    run(table, 1, 10, "bash")
    told = process(11, "nc", 10, parent_executable="/usr/sbin/cron")
    assert table.executed(Executed(2 * SECOND, told)) is told


def test_a_parent_that_was_forgotten_since_is_remembered_by_its_child() -> None:
    table = ProcessTable(capacity=2)
    run(table, 1, 10, "bash")
    run(table, 2, 11, "mosquitto_pub", 10)
    table.exited(Exited(3 * SECOND, "one", 10))
    run(table, 4, 12, "sleep")
    assert name_at(table, 10, 2) is None
    found = table.at("one", 11, 5 * SECOND)
    assert found is not None
    assert found.parent_executable == "bash"


def test_ancestors_are_told_from_the_nearest_on() -> None:
    table = ProcessTable()
    run(table, 1, 1, "systemd", 0)
    run(table, 2, 10, "sshd", 1)
    run(table, 3, 11, "bash", 10)
    pub = run(table, 4, 12, "mosquitto_pub", 11)
    assert table.ancestors(pub, 5 * SECOND) == ("bash", "sshd", "systemd")
    assert table.ancestors(pub, 5 * SECOND, 2) == ("bash", "sshd")
    assert table.ancestors(pub, 5 * SECOND, 0) == ()
    assert table.ancestors(process(99, "nc"), 5 * SECOND) == ()


def test_processes_that_are_each_others_parents_have_a_bounded_number_of_ancestors() -> None:
    table = ProcessTable()
    one = run(table, 1, 10, "a", 11)
    run(table, 1, 11, "b", 10)
    run(table, 1, 12, "c", 12)
    assert len(table.ancestors(one, 5 * SECOND, 1000)) <= 16
    found = table.at("one", 12, 5 * SECOND)
    assert found is not None
    assert len(table.ancestors(found, 5 * SECOND, 1000)) == 1


def test_what_ended_is_kept_for_a_while_by_its_hosts_own_time() -> None:
    table = ProcessTable(keep_ns=60 * SECOND)
    run(table, 0, 7, "mosquitto_pub")
    table.exited(Exited(1 * SECOND, "one", 7))
    table.executed(Executed(9999 * SECOND, process(1, "x", host="two")))
    run(table, 50, 8, "sleep")
    assert name_at(table, 7, 1) == "mosquitto_pub"
    run(table, 62, 9, "sleep")
    assert name_at(table, 7, 1) is None
    assert name_at(table, 8, 60) == "sleep"
    assert table.evicted == 0
    assert len(table) == 3


def test_one_time_from_far_away_does_not_make_everything_old() -> None:
    table = ProcessTable()
    run(table, 0, 7, "mosquitto_pub")
    table.exited(Exited(1 * SECOND, "one", 7))
    run(table, 10**9, 8, "sleep")
    run(table, 2, 9, "sleep")
    assert name_at(table, 7, 1) == "mosquitto_pub"
    run(table, 10**9, 10, "sleep")
    run(table, 10**9 + 1, 11, "sleep")
    assert name_at(table, 7, 1) is None


def test_the_dead_go_before_the_living_and_parents_stay_longest() -> None:
    table = ProcessTable(capacity=4)
    run(table, 1, 10, "shell")
    run(table, 2, 20, "idle")
    run(table, 3, 30, "dead")
    table.exited(Exited(4 * SECOND, "one", 30))
    run(table, 5, 40, "child", 10)
    run(table, 6, 50, "new")
    assert name_at(table, 30, 3) is None
    run(table, 7, 60, "new", 10)
    assert [name_at(table, pid, 9) for pid in (10, 20, 40, 50, 60)] == ["shell", None, "child", "new", "new"]
    assert table.evicted == 2
    assert len(table) == 4


def test_a_loop_of_execs_in_one_process_pushes_nobody_out() -> None:
    table = ProcessTable(capacity=MAX_IMAGES + 1)
    run(table, 0, 1, "daemon")
    for time in range(1000):
        run(table, time, 2, f"program-{time}")
    assert name_at(table, 1, 1000) == "daemon"
    assert name_at(table, 2, 999) == "program-999"
    assert len(table) == MAX_IMAGES + 1


def test_without_the_exit_that_no_longer_fits_no_program_seems_to_have_run_on() -> None:
    table = ProcessTable()
    run(table, 0, 7, "first")
    for time in range(1, MAX_EXITS + 5):
        table.exited(Exited(2 * time * SECOND, "one", 7))
    assert name_at(table, 7, 5) is None
    run(table, 1000, 7, "second")
    assert name_at(table, 7, 1001) == "second"


def test_long_command_lines_are_bounded_together() -> None:
    table = ProcessTable()
    long = tuple("x" * 1024 for _ in range(64))
    for pid in range(3000):
        table.executed(Executed(pid, Process("one", pid, "x", long)))
    assert len(table) < 1100
    assert table.evicted == 3000 - len(table)


def test_exits_of_processes_never_told_are_bounded_and_forgotten() -> None:
    table = ProcessTable(capacity=100)
    for pid in range(1000):
        table.exited(Exited(pid, "one", pid))
    assert len(table) == 100
    table.executed(Executed(KEEP_NS * 2, process(1, "x")))
    table.executed(Executed(KEEP_NS * 2, process(2, "x")))
    assert len(table) == 2


@given(
    st.lists(
        st.tuples(st.sampled_from(["one", "two", "three"]), st.integers(1, 5), st.integers(0, 10**12), st.booleans()),
        max_size=200,
    ),
    st.integers(1, 10),
)
@settings(max_examples=60)
def test_there_are_never_more_than_there_is_room_for(told: list[tuple[str, int, int, bool]], capacity: int) -> None:
    table = ProcessTable(capacity, keep_ns=10**11)
    for host, pid, time, starts in told:
        if starts:
            table.executed(Executed(time, process(pid, "x", pid - 1, host)))
        else:
            table.exited(Exited(time, host, pid))
        assert len(table) <= capacity
        slots = [slot for known in table._hosts.values() for slot in known.slots.values()]
        assert sum(slot.count for slot in slots) == len(table)
        assert len(slots) == len(table._alive) + len(table._dead)
        assert all(slot.dead == ((host.name, slot.pid) in table._dead) for slot in slots for host in [slot.host])


def test_running_tells_a_users_processes() -> None:
    table = ProcessTable()
    table.executed(Executed(1, process(7, "nc", user="ci")))
    table.executed(Executed(1, process(8, "nc", user="root")))
    table.executed(Executed(1, process(9, "python", user="ci")))
    table.exited(Exited(5, "one", 9))
    assert [found.pid for found in table.running("one", 3, "ci")] == [7, 9]
    assert [found.pid for found in table.running("one", 6, "ci")] == [7]
    assert table.running("two", 6, "ci") == []


def test_an_end_is_told_by_the_process_not_by_its_programs() -> None:
    table = ProcessTable()
    run(table, 1, 7, "sh")
    run(table, 2, 7, "nc")
    assert table.exit_ns("one", 7, 1 * SECOND) is None
    table.exited(Exited(9 * SECOND, "one", 7))
    assert table.exit_ns("one", 7, 1 * SECOND) == 9 * SECOND
    assert table.exit_ns("one", 8, 1 * SECOND) is None


def test_a_table_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="not 0"):
        ProcessTable(0)
