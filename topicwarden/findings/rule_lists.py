"""The lists that rules about hosts name as `${name}`: ports and networks, as data in `rules/hosts/lists.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, RootModel, StrictInt, StrictStr, ValidationError

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings.catalogue import data_dir


class RuleList(BaseModel):
    """One list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    """What is in it, and why."""
    items: tuple[StrictInt | StrictStr, ...] = Field(min_length=1)


class _Lists(RootModel[dict[str, RuleList]]):
    pass


@cache
def load_rule_lists(file: Path | None = None) -> Mapping[str, Sequence[str | int]]:
    """Return the lists by name; raises ConfigurationError when they cannot be read."""
    path = file or data_dir("rules") / "hosts" / "lists.yaml"
    try:
        found = _Lists.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigurationError(Problem(f"no lists of rules: {error}", str(path))) from error
    return {name: listed.items for name, listed in found.root.items()}
