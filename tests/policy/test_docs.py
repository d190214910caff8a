"""What the reference says is true of the code, and leaves out nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from topicwarden.findings import load_catalogue
from topicwarden.policy import model, parse_policy
from topicwarden.policy.model import Policy, Thresholds
from topicwarden.policy.strict import Strict

TEXT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text("utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)


def models() -> list[type[Strict]]:
    found = [value for value in vars(model).values() if isinstance(value, type) and issubclass(value, Strict)]
    return [one for one in found if one.model_fields and not one.__name__.startswith("_")]


def used_keys(value: object) -> set[tuple[str, str]]:
    """Return (model, key) for every key that was written in a policy, as the models saw it."""
    if isinstance(value, BaseModel):
        here = {(type(value).__name__, key) for key in value.model_fields_set}
        return here.union(*(used_keys(getattr(value, key)) for key in value.model_fields_set))
    if isinstance(value, dict):
        return set().union(*map(used_keys, value.values()))
    return set().union(*map(used_keys, value)) if isinstance(value, tuple) else set()


KEYS = sorted({(one.__name__, key) for one in models() for key in one.model_fields})


def test_there_are_keys_and_examples_to_judge() -> None:
    assert len(KEYS) > 40
    assert len(EXAMPLES) >= 7


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_every_key_is_explained(name: str, key: str) -> None:
    assert f"`{key}`" in PROSE or f"## {key}\n" in PROSE, f"docs/policy.md does not explain {key} of {name}"


def test_every_key_has_an_example() -> None:
    shown = set().union(*(used_keys(parse_policy(example, "docs/policy.md")) for example in EXAMPLES))
    assert set(KEYS) - shown == set()


def test_every_finding_an_example_names_exists() -> None:
    catalogue = load_catalogue()
    named = {e.finding for example in EXAMPLES for e in parse_policy(example, "docs/policy.md").exceptions}
    assert all(catalogue.find(name) for name in named)


def test_the_defaults_in_the_reference_are_the_codes() -> None:
    for key, default in Thresholds().model_dump().items():
        assert re.search(rf"\| `{key}` \| `{re.escape(str(getattr(Thresholds(), key)))}` \|", TEXT), (key, default)


def test_the_smallest_policy_of_the_reference_allows_nothing() -> None:
    assert parse_policy(EXAMPLES[0], "docs/policy.md") == Policy(topicwarden=1)
