"""The test class every collector passes; subclass it and say how to build the collector and make the broker act."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from topicwarden.errors import ObservationError
from topicwarden.events import COLUMNS, EventBatch
from topicwarden.events.rows import to_rows
from topicwarden.sources import Collector

PAYLOAD_MARK = "xyzzy-payload-mark"
"""`Stage.act` publishes this; it must never be seen again."""


@dataclass
class Stage:
    """A collector before a real source, and how to make that source speak."""

    collector: Collector
    act: Callable[[], None]
    """Have real clients do something the source shows; returns when the broker has dealt with it. May be repeated."""
    shows: Callable[[list[dict[str, Any]]], bool]
    """Whether rows (see `to_rows`) hold what `act` did."""
    garbage: Callable[[], None] | None = None
    """Put something undecodable into the source; None when there is no way to (a live protocol)."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    rows_of: Callable[[EventBatch], Iterable[dict[str, Any]]] = to_rows
    """A batch's events as rows; one that hosts told names its host where another names its client's broker."""


class CollectorContract:
    """Subclass as `TestSomething(CollectorContract)`; pytest then runs every test below for that collector."""

    @abstractmethod
    def stage(self, folder: Path) -> AbstractContextManager[Stage]:
        """Start the source and build the collector, following from now on."""

    @abstractmethod
    def build_on_nothing(self, folder: Path) -> Collector:
        """Build the collector on a source that is not there; may raise ObservationError itself."""

    @pytest.fixture
    def on_stage(self, tmp_path: Path) -> Iterator[Stage]:
        with self.stage(tmp_path) as stage:
            yield stage

    def test_it_shows_what_a_client_did_in_well_formed_batches(self, on_stage: Stage) -> None:
        asyncio.run(_watch(on_stage, on_stage.act))
        assert on_stage.shows(on_stage.rows)
        assert on_stage.collector.counters.events == len(on_stage.rows)

    def test_every_event_names_the_broker_and_no_payload_byte_comes_through(self, on_stage: Stage) -> None:
        asyncio.run(_watch(on_stage, on_stage.act))
        assert on_stage.rows
        assert {row["client"]["broker"] for row in on_stage.rows} == {on_stage.collector.broker}
        assert PAYLOAD_MARK not in repr(on_stage.rows)

    def test_it_says_which_mode_it_is_and_what_it_cannot_see(self, on_stage: Stage) -> None:
        asyncio.run(_watch(on_stage, on_stage.act))
        assert on_stage.collector.title.strip()
        assert "\n" not in on_stage.collector.title
        spots = on_stage.collector.blind_spots()
        assert spots
        assert all(spot.what and not spot.what.endswith(".") for spot in spots)

    def test_what_is_done_once_it_says_that_it_observes_is_seen(self, on_stage: Stage) -> None:
        async def run() -> None:
            shown = asyncio.Event()
            stage = on_stage

            async def collect() -> None:
                async for batch in stage.collector.batches():
                    stage.rows += stage.rows_of(batch)
                    if stage.shows(stage.rows):
                        shown.set()

            task = asyncio.ensure_future(collect())
            async with asyncio.timeout(20):
                while not stage.collector.observing:  # noqa: ASYNC110 - a property tells it, no event
                    await asyncio.sleep(0.001)
                await asyncio.to_thread(stage.act)  # once
                await shown.wait()
            await stage.collector.close()
            await asyncio.wait_for(task, 5)

        asyncio.run(run())

    def test_closing_ends_it_at_once_and_twice_is_no_error(self, on_stage: Stage) -> None:
        async def run() -> None:
            iterator = on_stage.collector.batches()
            task = asyncio.ensure_future(_drain(iterator))
            await asyncio.sleep(0.05)
            await on_stage.collector.close()
            await on_stage.collector.close()
            await asyncio.wait_for(task, 2)

        before = set(threading.enumerate())
        asyncio.run(run())
        assert set(threading.enumerate()) <= before

    def test_being_cancelled_leaves_nothing_behind(self, on_stage: Stage) -> None:
        async def run() -> None:
            task = asyncio.ensure_future(_drain(on_stage.collector.batches()))
            await asyncio.sleep(0.05)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await on_stage.collector.close()

        before = set(threading.enumerate())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            asyncio.run(run())
        assert set(threading.enumerate()) <= before

    def test_garbage_is_counted_and_reading_goes_on(self, on_stage: Stage) -> None:
        garbage = on_stage.garbage
        if garbage is None:
            return  # this source has no way to be handed garbage

        def garbage_then_act() -> None:
            garbage()
            on_stage.act()

        asyncio.run(_watch(on_stage, garbage_then_act))
        assert on_stage.shows(on_stage.rows)
        assert sum(on_stage.collector.counters.decode_errors.values()) > 0

    def test_a_source_that_is_not_there_is_one_clear_error_with_a_hint(self, tmp_path: Path) -> None:
        async def run() -> None:
            collector = self.build_on_nothing(tmp_path)
            try:
                await asyncio.wait_for(_drain(collector.batches()), 20)
            finally:
                await collector.close()

        with pytest.raises(ObservationError) as caught:
            asyncio.run(run())
        (problem,) = caught.value.problems
        assert problem.hint


async def _drain(batches: AsyncIterator[EventBatch]) -> None:
    async for _ in batches:
        pass


async def _watch(stage: Stage, act: Callable[[], None]) -> None:
    """Collect rows until they show what was done, for at most 20 seconds, then close."""
    stage.rows.clear()
    seen = asyncio.Event()

    async def collect() -> None:
        async for batch in stage.collector.batches():
            _check(batch)
            stage.rows += stage.rows_of(batch)
            if stage.shows(stage.rows):
                seen.set()

    task = asyncio.ensure_future(collect())
    for _ in range(20):
        # Again and again: what happened before a live source was subscribed to is not there to be seen.
        await asyncio.to_thread(act)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(seen.wait(), 1)
        if seen.is_set() or task.done():
            break
    await stage.collector.close()
    await asyncio.wait_for(task, 5)


def _check(batch: EventBatch) -> None:
    """Assert what holds for every batch."""
    for name, dtype in COLUMNS.items():
        column = getattr(batch, name)
        assert column.dtype == dtype, name
        assert column.shape == (len(batch),), name
    if not len(batch):
        return
    for numbers, table in ((batch.client, batch.tables.clients), (batch.resource, batch.tables.resources)):
        assert int(numbers.max()) < len(table.entries)
        assert all(table.entries[number] is not None for number in np.unique(numbers).tolist())
    assert (batch.count > 0).all()
    assert (batch.outcome <= 2).all()
    assert (batch.certainty <= 2).all()
    measured = batch.entropy[~np.isnan(batch.entropy)]
    assert ((measured >= 0) & (measured <= 8)).all()
