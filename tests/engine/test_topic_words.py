"""What words of topics say by themselves, and which levels nobody would write."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.errors import ConfigurationError
from topicwarden.findings import load_topic_words

WORDS = load_topic_words()
REAL = """
telemetry sensor-12 u0000123 zigbee2mqtt mqttbridge httpsproxy s7-1200 DB10_ToolChange wechselrichter homeassistant
plant1line2cell3 CurrentTemperatureSetpoint temperature_2m n83746 R2D2 keyboard schaltschrank druckluft spBv1.0
werkzeugwechsler waschmaschine lichtstaerke psychrometer sparkplug shellyplug-s fluxcapacitor overflow backgroundjobs
kwhtotal modbustcp opcuaserver Größe 温度 température niederspannungshauptverteilung
"""


@pytest.mark.parametrize(
    ("level", "found"),
    [
        ("c2", {"c2"}),
        ("C2-out", {"c2"}),
        ("c2Beacon", {"c2", "beacon"}),
        ("cmdQueue_7", {"cmd"}),
        ("exfil_data", {"exfil"}),
        ("bot12", {"bot"}),
        ("keyLog", {"keylog"}),
        ("с2", {"c2"}),  # Cyrillic
        ("Ｃ２", {"c2"}),
        ("c0mmands", {"commands"}),
        ("robot", set()),
        ("bottle", set()),
        ("rate", set()),
        ("crate7", set()),
        ("taskbar", set()),
        ("c21", set()),
    ],
)
def test_listed_words_are_found_as_words_and_not_inside_others(level: str, found: set[str]) -> None:
    assert set(WORDS.suspicious(level)) == found


@pytest.mark.parametrize(
    "level",
    [
        "0x00158d0001f2a3b4",
        "246f28aec410",
        "550e8400-e29b-41d4-a716-446655440000",
        "d41d8cd98f00b204e9800998ecf8427e",
        "x7f3kq9zv2",
        "kqzvxwptjf",
        "aGVsbG8gd29ybGQ8",
    ],
)
def test_random_levels_are_random(level: str) -> None:
    assert WORDS.random(level)
    assert not WORDS.readable(level)


@pytest.mark.parametrize("level", REAL.split())
def test_words_of_real_fleets_are_readable(level: str) -> None:
    assert not WORDS.random(level)
    assert WORDS.readable(level)


def test_most_random_names_are_told_and_numbers_are_neither() -> None:
    source = random.Random(1)
    for letters, share in ((string.ascii_lowercase, 0.6), (string.ascii_lowercase + string.digits, 0.8)):
        made = ["".join(source.choices(letters, k=12)) for _ in range(500)]
        assert sum(map(WORDS.random, made)) >= share * len(made)
    assert not WORDS.random("20261128201303")
    assert not WORDS.readable("20261128201303")


@given(st.text(max_size=300))
def test_any_text_is_judged_and_hints_miss_no_word(level: str) -> None:
    WORDS.random(level)
    if not WORDS.hints(level[:256]):
        assert WORDS.suspicious(level) == {}


def test_a_list_that_is_missing_or_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no list of words"):
        load_topic_words(tmp_path)
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts" / "topic_words.yaml").write_text("words: [{word: c2, weight: 2, reason: none}]\n")
    with pytest.raises(ConfigurationError, match="no list of words"):
        load_topic_words(tmp_path)
