"""What recordings and stores say of the sources that were watched when they were written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from topicwarden.output.summary import SourceSummary
from topicwarden.sources import BlindSpot, Counters


def is_store(path: str) -> bool:
    """Whether the path is a store's folder."""
    return (Path(path) / "store.json").is_file()


def recorded_sources(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the well-formed rows of what a recording or a store says of its sources: input like any other."""
    rows = about.get("sources")
    wanted = {"title", "broker", "kind"}
    return [row for row in rows if isinstance(row, dict) and wanted <= row.keys()] if isinstance(rows, list) else []


def sources_of(title: str, rows: Iterable[Mapping[str, Any]]) -> list[SourceSummary]:
    """Return each different source once, with all that it could not see at one time or another."""
    found: dict[tuple[str, str, bool], dict[tuple[str, str | None], BlindSpot]] = {}
    for row in rows:
        key = (str(row["title"]), str(row["broker"]), of_host(row))
        found.setdefault(key, {}).update(((spot.what, spot.fix), spot) for spot in blind_spots(row))
    return [
        SourceSummary(f"{title} {name}", broker, list(spots.values()), Counters(), host=host)
        for (name, broker, host), spots in found.items()
    ]


def blind_spots(row: Mapping[str, Any]) -> list[BlindSpot]:
    """Return what a source said it cannot see."""
    spots = row.get("blind_spots")
    if not isinstance(spots, list):
        return []
    return [
        BlindSpot(str(spot.get("what")), None if spot.get("fix") is None else str(spot["fix"]))
        for spot in spots
        if isinstance(spot, dict)
    ]


def runs_on(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the host of each broker of which it was known."""
    return {str(row["broker"]): str(row["runs_on"]) for row in rows if row.get("runs_on")}


def of_host(row: Mapping[str, Any]) -> bool:
    """Whether a source told of a host."""
    return row.get("host") is True
