"""What a store is told of findings that grow, while they grow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from topicwarden.cli import keeping
from topicwarden.cli.keeping import Keeper
from topicwarden.events import Client
from topicwarden.findings import Change, Finding, Ledger, load_catalogue
from topicwarden.output.live import Live
from topicwarden.output.origin import Origin
from topicwarden.output.sinks import TextSink
from topicwarden.store.model import Kind
from topicwarden.store.notes import Signer
from topicwarden.store.reader import Store
from topicwarden.store.writer import StoreWriter

ORIGIN = Origin(host="h")


class Kept:
    """A ledger whose findings a keeper keeps in a store."""

    def __init__(self, folder: Path, *, patient: bool) -> None:
        self.folder = folder
        self.ledger = Ledger(load_catalogue())
        stream = io.StringIO()
        self.live = Live(TextSink(stream), stream)
        self.keeper = Keeper(StoreWriter(folder, Signer.generate("s")), folder, self.live, ORIGIN, patient=patient)

    def record(self, user: str, count: int = 1) -> Finding:
        finding = self.ledger.record(
            "TW201", broker="b", client=Client("b", "mqtt", "", user), first_ns=1, last_ns=2, count=count
        )
        assert finding is not None
        for change, one in self.ledger.take_news():
            self.keeper.finding(change, one)
        return finding

    def told(self) -> list[tuple[str, str, int]]:
        """Close the store, and return the event, user and count of each document in it."""
        self.keeper.close()
        documents = Store(self.folder).documents(Kind.FINDINGS)
        return [(one["event"], one["client"]["user"], one["count"]) for one in documents]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path / "store", patient=False)
    yield made
    made.keeper.close()


def test_counts_that_grew_are_kept_once_in_a_while_so_that_a_crash_loses_no_more(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.record("a")
    kept.record("b")
    kept.record("a", 5)
    kept.keeper.tell(kept.ledger.findings)  # it is not time yet
    monkeypatch.setattr(keeping, "TELL_SECONDS", 0)
    kept.keeper.tell(kept.ledger.findings)
    kept.keeper.tell(kept.ledger.findings)  # nothing grew meanwhile
    assert kept.told() == [("opened", "a", 1), ("opened", "b", 1), ("updated", "a", 6)]


def test_of_too_many_those_that_grew_most_are_kept_first_and_the_others_next(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in "abc":
        kept.record(user)
    for user, count in (("a", 2), ("b", 7), ("c", 5)):
        kept.record(user, count)
    monkeypatch.setattr(keeping, "TELL_SECONDS", 0)
    monkeypatch.setattr(keeping, "MOST_TOLD", 1)
    for _ in range(4):
        kept.keeper.tell(kept.ledger.findings)
    assert kept.told()[3:] == [("updated", "b", 8), ("updated", "c", 6), ("updated", "a", 3)]


def test_at_the_end_only_what_grew_since_is_told_again(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.record("a")
    kept.record("b")
    kept.record("a", 3)
    kept.record("b", 3)
    monkeypatch.setattr(keeping, "TELL_SECONDS", 0)
    kept.keeper.tell(kept.ledger.findings)
    kept.record("b")
    kept.keeper.close(kept.ledger.findings())
    told = kept.told()[2:]
    assert sorted(told[:2]) == [("updated", "a", 4), ("updated", "b", 4)]
    assert told[2:] == [("final", "b", 5)]


def test_what_is_read_from_a_recording_does_not_depend_on_how_long_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "TELL_SECONDS", 0)
    made = Kept(tmp_path / "store", patient=True)
    made.record("a")
    made.record("a", 3)
    made.keeper.tell(made.ledger.findings)
    assert made.told() == [("opened", "a", 1)]


def test_a_change_is_kept_as_the_event_it_is(kept: Kept) -> None:
    finding = kept.record("a")
    kept.keeper.finding(Change.GREW, finding)
    assert [event for event, *_ in kept.told()] == ["opened", "updated"]
