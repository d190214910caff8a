"""A detection as data: which events of hosts are suspicious, in EQL, and how they add up to a finding."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Path = Annotated[str, Field(pattern=r"^[a-z_]+(\.[a-z_0-9]+)*$")]
"""A field of an event by its dotted name: `destination.port`."""


class Regular(BaseModel):
    """Only what comes at regular intervals counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_least: int = Field(ge=4, le=64)
    """Events of one group that are needed to say so."""
    deviation: float = Field(gt=0, lt=1)
    """The greatest median absolute deviation of their intervals, as a share of the median interval."""
    shortest: float = Field(default=1.0, gt=0)
    """Seconds; a shorter median interval is a burst, not a beacon."""


class Detection(BaseModel):
    """How a finding about hosts comes about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    eql: str
    """An EQL query in Elasticsearch's spelling over the events of `topicwarden.hosts.ecs`; `${name}` stands for a list
    of `rules/hosts/lists.yaml`, or for one that the policy gives (`${approved_addresses}`)."""
    group: tuple[Path, ...]
    """What tells causes apart: fields of the last event that matched."""
    evidence: dict[str, Path] = {}
    """Evidence keys of the finding and the fields they are filled from."""
    witness: Path | None = None
    """The field that is shown as an example."""
    at_least: int = Field(default=1, ge=1, le=1000)
    """How many events of a group within `within` make a finding."""
    within: float = Field(default=600.0, gt=0)
    """Seconds."""
    regular: Regular | None = None
    needs: tuple[str, ...] = ()
    """What must be there for it to be asked at all: `inventory`, `tools`, `baseline`."""
    tuning: tuple[str, ...] = Field(min_length=1)
    """What an operator changes, and what that does."""
    false_positives: tuple[str, ...] = Field(min_length=1)
