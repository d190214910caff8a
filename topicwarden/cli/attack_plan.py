"""What `attack` plays: each atomic test with the server it is played against, and what must come of it."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictStr, TypeAdapter, ValidationError

from topicwarden.cli.atomics import Atomic, CommandExecutor, problems_of, read_technique
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import data_dir
from topicwarden.sources import Staged

TECHNIQUE: Final = "T1071.005"
HOST: Final = "broker_host"
"""The input argument that every one of our tests has: whom it attacks."""
PORT: Final = "broker_port"
COPY: Final = "systemd-udevd-worker"
"""The name that the copy of a client goes by."""


class Expected(BaseModel):
    """An entry of expected.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    guid: UUID
    stage: StrictStr
    port: StrictStr
    caught_by: Annotated[tuple[Annotated[StrictStr, Field(pattern=r"^TW\d{3}$")], ...], Field(min_length=1)]
    values: Mapping[StrictStr, StrictStr] = {}
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """A test that is to be played."""

    number: int
    """Its place in the file, from 1."""
    atomic: Atomic
    expected: Expected

    @property
    def label(self) -> str:
        """What Invoke-AtomicTest calls it."""
        return f"{TECHNIQUE}-{self.number}"

    def values(self, address: str, staged: Staged, folder: Path) -> Mapping[str, str]:
        """Return its input arguments for playing it against a server at `address`.

        Raises ConfigurationError unless that is a loopback address and the test can be pointed at it.
        """
        if not {HOST, PORT} <= set(self.atomic.input_arguments):
            raise ConfigurationError(Problem(f"{self.label} does not say whom it attacks: it has no {HOST} and {PORT}"))
        values = {HOST: loopback(address), PORT: str(staged.ports[self.expected.port])}
        # Where a test needs them: an interpreter that has paho, a place of ours, the account that was stolen.
        values |= {"python": sys.executable, "copy": str(folder / COPY)}
        if staged.account is not None:
            values["username"], values["password"] = staged.account
        return {**self.expected.values, **values}


def read_plan(folder: Path | None = None) -> Sequence[Planned]:
    """Return all tests with what is expected of them; raises ConfigurationError when the two files do not agree."""
    folder = folder or data_dir("rules") / "atomics" / TECHNIQUE
    technique = read_technique(folder / f"{TECHNIQUE}.yaml")
    path = folder / "expected.yaml"
    try:
        entries = TypeAdapter(list[Expected]).validate_python(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigurationError(Problem(f"cannot be read: {error.strerror}", str(path))) from error
    except ValidationError as error:
        raise ConfigurationError(*problems_of(error, path)) from error
    by_guid = {entry.guid: entry for entry in entries}
    tests = {test.auto_generated_guid: test for test in technique.atomic_tests}
    if len(by_guid) != len(entries) or set(by_guid) != set(tests):
        differing = ", ".join(sorted(str(guid) for guid in set(by_guid) ^ set(tests))) or "one is there twice"
        raise ConfigurationError(Problem(f"not exactly one entry for each test: {differing}", str(path)))
    plan = []
    for number, test in enumerate(technique.atomic_tests, start=1):
        assert test.auto_generated_guid is not None
        if isinstance(test.executor, CommandExecutor):
            plan.append(Planned(number, test, by_guid[test.auto_generated_guid]))
    return plan


def loopback(address: str) -> str:
    """Return the address when it is an IPv4 loopback address; raises ConfigurationError for every other."""
    try:
        if ipaddress.IPv4Address(address).is_loopback:
            return address
    except ValueError:
        pass
    raise ConfigurationError(
        Problem(
            f"{address!r} is not a loopback address: attacks are played against this machine's own servers only",
            hint="such as 127.83.12.7; without --address one is chosen",
        )
    )
