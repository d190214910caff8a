"""What two sources tell is told once; what happens twice is told twice."""

from __future__ import annotations

from topicwarden.engine.duplicates import MAX_KNOWN, Duplicates
from topicwarden.events import Dialled, Endpoint, Executed, Exited, Process

REMOTE = Endpoint("10.0.0.9", 1883)
SECOND = 1_000_000_000


def dialled(time_ns: int, port: int | None, pid: int | None = 7, host: str = "h") -> Dialled:
    return Dialled(time_ns, host, REMOTE, None if port is None else Endpoint("10.0.0.1", port), pid)


def executed(time_ns: int, *arguments: str, pid: int = 7) -> Executed:
    return Executed(time_ns, Process("h", pid, "/bin/x", arguments))


def test_a_connection_told_by_two_sources_counts_once_in_either_order() -> None:
    for first, second in (
        (dialled(0, 5000), dialled(SECOND, 5000, None)),
        (dialled(0, None), dialled(SECOND, 5000)),
        (dialled(0, 5000), dialled(SECOND, None)),
    ):
        duplicates = Duplicates(2 * SECOND)
        assert [duplicates.has(first), duplicates.has(second)] == [False, True]
        assert duplicates.seen == 1


def test_other_connections_are_others() -> None:
    duplicates = Duplicates(2 * SECOND)
    assert not any(
        duplicates.has(event)
        for event in (
            dialled(0, 5000),
            dialled(0, 5001),
            dialled(0, 5000, host="other"),
            dialled(0, None, 8),
            dialled(0, None, 8),
            dialled(3 * SECOND, 5000),
        )
    )


def test_one_that_tells_no_port_stands_for_one_connection_only() -> None:
    duplicates = Duplicates(2 * SECOND)
    assert not duplicates.has(dialled(0, None))
    assert duplicates.has(dialled(1, 5000))
    assert not duplicates.has(dialled(2, 5001))


def test_a_program_told_twice_counts_once_and_one_started_anew_twice() -> None:
    duplicates = Duplicates(2 * SECOND)
    assert not duplicates.has(executed(0, "x", "-t", "a"))
    assert duplicates.has(executed(SECOND, "x", "-t", "a"))
    assert not duplicates.has(executed(SECOND, "x", "-t", "b"))
    assert not duplicates.has(executed(SECOND, "x", "-t", "a", pid=8))
    assert not duplicates.has(executed(9 * SECOND, "x", "-t", "a"))
    assert not duplicates.has(Exited(0, "h", 7))
    assert not duplicates.has(Exited(0, "h", 7))


def test_what_is_remembered_is_bounded() -> None:
    duplicates = Duplicates(2 * SECOND)
    for number in range(MAX_KNOWN + 10):
        duplicates.has(executed(0, str(number)))
    assert not duplicates.has(executed(0, "0"))
    assert duplicates.has(executed(0, str(MAX_KNOWN + 9)))
