"""The baseline file is read strictly, with the line of each mistake; and what levels look like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from topicwarden.errors import ConfigurationError
from topicwarden.events import Shape
from topicwarden.policy import Baseline, baseline, level_shape, load_baseline, parse_baseline
from topicwarden.policy.strict import Strict

TEXT = (Path(__file__).parents[2] / "docs" / "baseline.md").read_text("utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
HEAD = """\
topicwarden_baseline: 1
learnt: {since: 2026-06-01T00:00:00Z, until: 2026-06-08T00:00:00Z, events: 5, covered: 0.9}
"""


def problems(text: str) -> list[tuple[int | None, str]]:
    with pytest.raises(ConfigurationError) as raised:
        parse_baseline(text, "b.yaml")
    return [(problem.line, problem.message) for problem in raised.value.problems]


def test_the_smallest_one_says_nothing() -> None:
    found = parse_baseline(HEAD, "b.yaml")
    assert (found.topics, found.rates, found.brokers, found.tools) == ((), (), (), ())
    assert found.learnt.since == datetime(2026, 6, 1, tzinfo=UTC)


def test_every_mistake_is_told_with_its_line() -> None:
    told = problems(
        HEAD.replace("0.9", "1.5")
        + """\
brokers: [{address: a, ports: [0]}]
tools:
  - {host: h, process: p, does: [fly]}
topics:
  - {topic: "a/+/b", levels: [{length: {low: 1, high: 2}}, {length: {low: 1, high: 2}}]}
  - {topic: "a/#"}
  - {topic: a, exchange: x, key: k}
  - {topic: c, size: {low: 9, high: 3}, shapes: [jpeg]}
  - {topic: d, entropy: {low: 1, high: 9}, sizes: 3}
rates:
  - {topic: e, typical: 0, peak: 1}
"""
    )
    assert [line for line, _ in told] == [2, 3, 5, 7, 8, 9, 10, 10, 11, 11, 13]
    words = " ".join(message for _, message in told)
    for expected in (
        "at most 1",
        "expected 'publish', 'subscribe'",
        "has 1 open levels, and 2 are described",
        "open-ended",
        "one kind of place",
        "high 3 is below low 9",
        "expected 'empty'",
        "unknown key 'sizes'",
        "more than 0",
    ):
        assert expected in words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the baseline is empty"),
        ("[]", "a baseline is a mapping"),
        ("topicwarden: 1", "unknown key 'topicwarden'"),
        (HEAD.replace(": 1\n", ": 2\n", 1), "reads version 1 of baselines, not 2"),
        (HEAD.replace("2026-06-08", "2026-05-08"), "until lies before since"),
        (HEAD.replace("2026-06-08", "2026-06-31"), "there is no time"),
        (HEAD.replace("2026-06-08T00:00:00Z", "yesterday"), "a time is written"),
        (HEAD + "topics: [{topic: a, size: {low: 1, high: 2}}, {topic: a}]", "topics has 'a' twice"),
        (HEAD + "rates: [{topic: a, typical: 1, peak: 1}]", "which is not among topics"),
        (HEAD + "topics: [{size: {low: 1, high: 2}}]", "does not say which names it is about"),
        (HEAD + "topics: [{exchange: x}]", "does not say which names it is about"),
    ],
)
def test_what_cannot_be_is_refused(text: str, said: str) -> None:
    assert any(said in message for _, message in problems(text))


def test_a_file_is_read_and_one_that_is_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(HEAD)
    assert load_baseline(path) == parse_baseline(HEAD, "b")
    with pytest.raises(ConfigurationError, match="cannot read the baseline"):
        load_baseline(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("level", "shape"),
    [
        ("telemetry", "a"),
        ("sensor-12", "a-9"),
        ("Hall3", "Aa9"),
        ("", ""),
        ("20260601", "9"),
        ("246f28aec410", "x"),
        ("0x00158d0001f2a3b4", "x"),
        ("deadbeef", "a"),
        ("24:6f:28:ae:c4:10", "9:9a:9:a:a9:9"),
        ("größe_1", "a_9"),
        ("温度", "a"),
        ("a\u202eb", "a?a"),
        ("--", "--"),
        ("-a" * 99, "-a" * 32),
    ],
)
def test_a_shape_keeps_what_levels_have_in_common(level: str, shape: str) -> None:
    assert level_shape(level) == shape


@given(st.text(max_size=100))
def test_a_shape_is_short_and_safe_to_print(level: str) -> None:
    shape = level_shape(level)
    assert len(shape) <= 64
    assert shape.isascii()
    assert shape.isprintable()
    assert bool(shape) == bool(level)


def test_every_shape_of_a_payload_can_be_written() -> None:
    names = [shape.name.lower() for shape in Shape if shape is not Shape.UNKNOWN]
    found = parse_baseline(HEAD + f"topics: [{{topic: a, shapes: [{', '.join(names)}]}}]", "b")
    assert found.topics[0].shown_shapes == set(Shape) - {Shape.UNKNOWN}


# -- docs/baseline.md -------------------------------------------------------------------------------------------------


def models() -> Iterator[type[Strict]]:
    for value in vars(baseline).values():
        if isinstance(value, type) and issubclass(value, Strict) and value.__module__ == baseline.__name__:
            yield value


def used_keys(value: object) -> set[tuple[str, str]]:
    if isinstance(value, BaseModel):
        here = {(type(value).__name__, key) for key in value.model_fields_set}
        return here.union(*(used_keys(getattr(value, key)) for key in value.model_fields_set))
    return set().union(*map(used_keys, value)) if isinstance(value, tuple) else set()


KEYS = sorted({(one.__name__, key) for one in models() for key in one.model_fields})


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_every_key_is_explained(name: str, key: str) -> None:
    assert f"`{key}`" in PROSE, f"docs/baseline.md does not explain {key} of {name}"


def test_every_key_has_an_example() -> None:
    found: list[Any] = [parse_baseline(example, "docs/baseline.md") for example in EXAMPLES]
    assert all(isinstance(one, Baseline) for one in found)
    assert set(KEYS) - set().union(*map(used_keys, found)) == set()
