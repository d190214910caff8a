"""Attacks that were played, on terminals of any width: what is told, and that nothing hostile gets out."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from tests.output.samples import HOSTILE, attributed, behind, finding
from topicwarden.output.rounds import Round, round_lines, verdict_lines


def attack(*codes: str, expected: tuple[str, ...] = ("TW201",), **more: object) -> Round:
    found = [attributed(finding(code), behind()) for code in codes]
    return Round("T1071.005-1", "Publish system data", expected, found, **more)  # type: ignore[arg-type]


ROUNDS = {
    "caught": attack("TW201", "TW203"),
    "MISSED": attack("TW203"),
    "not played": attack(skipped=["nothing here plays it"]),
    "FAILED": attack("TW201", failures=["it did not end in time"]),
    "quiet": Round("automation", "sanctioned automation"),
    "ACCUSED": Round("automation", "sanctioned automation", findings=[finding()]),
}


@pytest.mark.parametrize("verdict", ROUNDS)
def test_a_round_comes_out_as_what_was_found_says(verdict: str) -> None:
    played = ROUNDS[verdict]
    assert played.verdict == verdict
    assert played.as_it_should is (verdict in ("caught", "quiet"))
    assert round_lines(played, None)[1].plain.startswith(verdict)


def test_a_missed_attack_says_what_was_expected_and_one_that_was_not_played_says_why() -> None:
    assert "expected TW201" in [line.plain.strip() for line in round_lines(ROUNDS["MISSED"], None)]
    assert "nothing here plays it" in [line.plain.strip() for line in round_lines(ROUNDS["not played"], None)]
    assert "it did not end in time" in [line.plain.strip() for line in round_lines(ROUNDS["FAILED"], None)]


def test_the_process_behind_a_finding_is_shown_and_a_code_once() -> None:
    played = attack("TW201", "TW201", "TW201")
    text = "\n".join(line.plain for line in round_lines(played, None))
    assert text.count("run: ") == 1
    assert "and 2 more of TW201" in text


def test_the_table_counts_what_was_caught() -> None:
    text = "\n".join(line.plain for line in verdict_lines(list(ROUNDS.values()), None))
    assert "1 of 3 attacks caught, 1 not played; sanctioned automation was ACCUSED WRONGLY" in text
    only = "\n".join(line.plain for line in verdict_lines([ROUNDS["quiet"]], None))
    assert only.endswith("sanctioned automation was not accused")
    assert verdict_lines([], None)[-1].plain == "nothing was played"


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_lines_fit_the_terminal(width: int) -> None:
    lines = [line for played in ROUNDS.values() for line in round_lines(played, width)]
    lines += verdict_lines(list(ROUNDS.values()), width)
    assert max(cell_len(line.plain) for line in lines) <= width


def test_nothing_hostile_gets_out() -> None:
    played = Round(HOSTILE, HOSTILE, ("TW201",), [finding()], skipped=[HOSTILE], failures=[HOSTILE])
    text = "".join(line.plain for line in [*round_lines(played, 60), *verdict_lines([played], 60)])
    assert text.isprintable()
