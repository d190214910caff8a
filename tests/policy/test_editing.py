"""An exception is added to a policy's text and taken out again, and nothing else is touched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.policy.examples import GOOD
from tests.policy.layouts import LAYOUTS
from topicwarden.errors import ConfigurationError
from topicwarden.policy import ExceptionRule, editing, parse_policy
from topicwarden.policy.editing import add_exception, entry_text, exception_lines, remove_exception

DOCS = (Path(__file__).parents[2] / "docs" / "policy.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```yaml\n(topicwarden: 1\n.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
KEYS = {"finding": "TW201", "client": "new-gw", "user": "gw: 1", "reason": 'says "so" # really', "until": "2031-01-31"}
ENTRY = '{finding: TW201, client: new-gw, user: "gw: 1", reason: "says \\"so\\" # really", until: 2031-01-31}'


def check(text: str) -> None:
    before = parse_policy(text, "p")
    added = add_exception(text, "p", KEYS)
    assert added.rule == ExceptionRule.model_validate(KEYS)
    assert added.policy.exceptions == (*before.exceptions, added.rule)
    assert ENTRY in added.text
    assert is_left_of(text, added.text)
    back = remove_exception(added.text, "p", len(before.exceptions))
    assert back.rule == added.rule
    assert back.text == text
    assert back.policy == before


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    "text", [*LAYOUTS.values(), GOOD, *EXAMPLES], ids=[*LAYOUTS, "good", *map(str, range(len(EXAMPLES)))]
)
@pytest.mark.parametrize("parser", ["CSafeLoader", "SafeLoader"])
def test_adding_and_taking_out_gives_the_file_back_byte_for_byte(
    text: str, newline: str, parser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(yaml, parser):
        pytest.skip("PyYAML was built without LibYAML")
    monkeypatch.setattr(editing, "_PARSER", getattr(yaml, parser))
    check(text.replace("\n", newline))


@pytest.mark.parametrize("text", [*LAYOUTS.values(), GOOD, *EXAMPLES])
def test_every_exception_can_be_taken_out_and_the_rest_stays(text: str) -> None:
    before = parse_policy(text, "p")
    for number in range(len(before.exceptions)):
        edited = remove_exception(text, "p", number)
        assert edited.policy.exceptions == (*before.exceptions[:number], *before.exceptions[number + 1 :])
        # Nothing is new, and what is left is in its order; of comments, only one on an entry's own line went.
        assert is_left_of(edited.text.replace(" []", ""), text)
        assert set(comments(text)) <= set(comments(edited.text))


def is_left_of(part: str, whole: str) -> bool:
    characters = iter(whole)
    return all(character in characters for character in part)


def comments(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("#")]


def test_comments_of_a_section_survive_its_last_exception() -> None:
    edited = remove_exception(LAYOUTS["a section with comments"], "p", 0)
    assert edited.left_empty
    assert edited.text == "topicwarden: 1 # v\nexceptions: [] # note - a\n  # - one\n  # - two\n\npayload: {} # p\n"


def test_a_policy_in_braces_keeps_an_empty_list() -> None:
    added = add_exception("{topicwarden: 1,}\n", "p", KEYS)
    assert added.text == f"{{topicwarden: 1, exceptions: [{ENTRY}],}}\n"
    back = remove_exception(added.text, "p", 0)
    assert back.text == "{topicwarden: 1, exceptions: [],}\n"
    assert back.left_empty


def test_what_cannot_be_extended_is_refused_with_the_entry_to_add_by_hand() -> None:
    alias = "topicwarden: 1\nnaming: &none []\nexceptions: *none\n"
    with pytest.raises(ConfigurationError, match="without touching the rest") as caught:
        add_exception(alias, "p", KEYS)
    assert ENTRY in str(caught.value)
    unended = "topicwarden: 1\nexceptions:\n- finding: TW102\n  client: a\n  until: 2030-01-01\n  reason: |\n    text"
    with pytest.raises(ConfigurationError, match="without touching the rest"):
        add_exception(unended, "p", KEYS)


def test_a_wrong_exception_is_to_blame_itself() -> None:
    with pytest.raises(ConfigurationError, match=r"the exception:3: .*2031-02-31"):
        add_exception(GOOD, "p", {**KEYS, "until": "2031-02-31"})
    with pytest.raises(ConfigurationError, match=r"no finding is called .TW999."):
        add_exception(GOOD, "p", {**KEYS, "finding": "TW999"}, ["TW201", "TW101", "grant.excess"])


def test_lines_of_exceptions_are_those_of_the_file() -> None:
    lines = [number for number, line in enumerate(GOOD.splitlines(), 1) if "finding: " in line]
    assert len(lines) == 3
    assert exception_lines(GOOD) == lines
    assert exception_lines(LAYOUTS["entries of several lines"]) == [4, 9]
    assert exception_lines("topicwarden: 1\n") == []


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)


@settings(max_examples=300, deadline=None)
@given(
    text=st.sampled_from([*LAYOUTS.values(), GOOD, *EXAMPLES]),
    newline=st.sampled_from(["\n", "\r\n"]),
    client=names,
    reason=names,
)
@example(text=GOOD, newline="\n", client="null", reason="}, {finding: TW201")
@example(text=GOOD, newline="\n", client="a\u2028b\x85\u202e", reason="\ud7ff\ufeff\x7f")
def test_whatever_the_names_hold_they_read_back_and_touch_nothing(
    text: str, newline: str, client: str, reason: str
) -> None:
    text = text.replace("\n", newline)
    keys = {**KEYS, "client": client, "reason": reason}
    added = add_exception(text, "p", keys)
    assert (str(added.rule.client), added.rule.reason) == (client, reason)
    assert "\n" not in entry_text(keys)
    assert remove_exception(added.text, "p", len(added.policy.exceptions) - 1).text == text


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_valid_policy_text_is_extended_rightly_or_refused(data: st.DataObject) -> None:
    pieces = st.sampled_from(
        ["\n", " ", "#", "- ", "{}", "[]", "'", '"', "|", ">", ":", "\r", "# x\n", "...\n", "---\n", "  ", ", "]
    )
    text = data.draw(st.sampled_from([*LAYOUTS.values(), *EXAMPLES]))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        text = text[:place] + data.draw(pieces) + text[place:]
    try:
        before = parse_policy(text, "p")
    except ConfigurationError:
        return
    try:
        added = add_exception(text, "p", KEYS)
    except ConfigurationError:
        return
    assert added.policy.exceptions[:-1] == before.exceptions
    back = remove_exception(added.text, "p", len(before.exceptions))
    assert back.text == text or (not before.exceptions and "exceptions" in text)
