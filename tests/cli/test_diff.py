"""`topicwarden diff` as people and jobs run it, and what it writes."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.cells import cell_len

from tests.cli.program import run
from topicwarden.compare.policies import compare_policies
from topicwarden.compare.policies_model import PolicyDiff, Side
from topicwarden.errors import ConfigurationError
from topicwarden.output.escape import visible
from topicwarden.output.policy_diff import MARKDOWN_MAX, document, markdown, text_lines
from topicwarden.policy import parse_policy

OLD = """\
topicwarden: 1
roles:
  sensor:
    members: [{user: "sensor-*"}]
    publish:
      - {topic: "plant/+/%u/telemetry", rate: 10/s}
"""
NEW = OLD.replace("/telemetry", "/#").replace("10/s", "20/s")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(OLD)
    new.write_text(NEW)
    return old, new


def test_what_is_newly_allowed_is_printed_with_an_example_and_its_line(files: tuple[Path, Path]) -> None:
    old, new = files
    result = run("diff", old, new)
    assert result.stdout == (
        f"{old} to {new}: 1 newly allowed, nothing newly denied\n"
        "\nNewly allowed (1)\n"
        "  role sensor (user sensor-*): publish to plant/+/%u/#\n"
        "    for example user sensor-x may publish to plant/x/sensor-x\n"
        f"    {new}:6\n"
    )
    assert (result.returncode, result.stderr) == (1, "")


def test_what_is_only_denied_does_not_fail(files: tuple[Path, Path]) -> None:
    old, new = files
    new.write_text(NEW.replace("20/s", "10/s"))
    result = run("diff", new, old)
    assert "may no longer publish to plant/x/sensor-x" in result.stdout
    assert result.returncode == 0


def test_no_change_says_so(files: tuple[Path, Path]) -> None:
    old, new = files
    new.write_text("# the same\n" + OLD)
    result = run("diff", old, new)
    assert result.stdout == f"{old} to {new}: no change of what is allowed, limited or judged\n"
    assert result.returncode == 0


def test_a_looser_limit_alone_fails(files: tuple[Path, Path]) -> None:
    old, new = files
    new.write_text(OLD.replace("10/s", "20/s"))
    result = run("diff", old, new, "--format", "markdown")
    assert "looser: role `sensor`: publish to `plant/+/%u/telemetry`: rate from 10/s, 10 at once" in result.stdout
    assert result.returncode == 1


def test_the_mistakes_of_both_files_are_told_at_once(files: tuple[Path, Path]) -> None:
    old, new = files
    old.write_text(OLD + "wrong: 1\n")
    new.write_text(NEW.replace("sensor-*", ""))
    result = run("diff", old, new)
    assert result.returncode == 2
    assert result.stdout == ""
    assert f"{old}:7: " in result.stderr
    assert f"{new}:4: " in result.stderr


def test_an_unknown_format_and_a_missing_file_are_wrong_usage(files: tuple[Path, Path]) -> None:
    old, new = files
    assert run("diff", old, new, "--format", "sarif").returncode == 2
    missing = run("diff", old, new.with_name("none"))
    assert missing.returncode == 2
    assert "cannot read the policy" in missing.stderr


# -- documents -------------------------------------------------------------------------------------------------------

DOCUMENT = (Path(__file__).parents[2] / "docs" / "diff.md").read_text("utf-8")
EVERYTHING = (
    {
        "roles": {
            "a": {
                "members": [{"user": "*ab*"}],
                "publish": [{"topic": "t/%c", "rate": "1/s"}, {"exchange": "x", "key": "k.*"}],
                "rate": "5/s",
            },
            "b": {"members": [{"user": "b"}], "publish": [{"topic": "t/#"}]},
            "c": {"members": [{"client": "c-*", "address": "10.0.0.0/8"}], "consume": [{"queue": "q"}]},
            "gone": {"members": [{"anonymous": True}], "configure": [{"exchange": "e"}]},
        },
        "exceptions": [{"finding": "TW201", "client": "c", "reason": "r", "until": "2027-01-01"}],
    },
    {
        "roles": {
            "a": {
                "members": [{"user": f"*{x}{y}*"} for x in "abcde" for y in "fghij"],
                "publish": [{"topic": "t/%c", "rate": "2/s"}, {"exchange": "x", "key": "k.#"}],
                "subscribe": [{"exchange": "x", "key": "#"}],
                "rate": "6/s",
            },
            "b": {"members": [{"user": "b"}, {"vhost": "v", "broker": "p"}], "publish": [{"topic": "t/#"}]},
            "c": {"members": [{"client": "c-*", "tls_subject": "CN=*"}], "consume": [{"queue": "#"}]},
            "new": {"members": [{"user": "b"}], "publish": [{"topic": "t/b", "max_size": "4KiB"}]},
        },
        "thresholds": {"denials": "20/min"},
        "payload": {"max_entropy": "6", "text_only": ["t/#"]},
    },
)


def diff(old: dict[str, Any], new: dict[str, Any], names: tuple[str, str] = ("old.yaml", "new.yaml")) -> PolicyDiff:
    sides = []
    for name, content in zip(names, (old, new), strict=True):
        sides.append(Side(parse_policy(yaml.safe_dump({"topicwarden": "1", **content}), name), name))
    return compare_policies(*sides)


@cache
def everything() -> PolicyDiff:
    return diff(*EVERYTHING)


def keys(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {path, *(key for name, item in value.items() for key in keys(item, f"{path}.{name}".lstrip(".")))}
    if isinstance(value, list):
        return {f"{path}[]", *(key for item in value for key in keys(item, f"{path}[]"))}
    return {path}


def test_the_keys_that_are_written_are_the_ones_that_are_documented() -> None:
    written = json.loads(document(everything()))
    assert all(written[name] for name in ("newly_allows", "newly_denies", "limits", "other", "undecided"))
    documented = set(re.findall(r"^\| `([^`]+)` \|", DOCUMENT, re.MULTILINE)) - {"0", "1", "2"}
    found = keys(written) - {""}
    # Places and examples are built alike wherever they stand; selectors have the policy's own keys.
    found = {re.sub(r"^newly_denies\[\].+", "", key) for key in found}
    found = {re.sub(r"^(limits|other|undecided)\[\]\.(file|line|path)$", "", key) for key in found}
    found = {re.sub(r"^((limits|undecided)\[\]\.(example|space)|other\[\]\.client)\..+", r"\1", key) for key in found}
    found = {re.sub(r"^limits\[\]\.example\..+|(\.members\[\])\..+", r"\1", key) for key in found}
    found = {re.sub(r"^newly_allows(\.members\[\])", r"newly_allows[]\1", key) for key in found} - {""}
    leaves = {key for key in found if not any(other.startswith(f"{key}.") for other in found)}
    assert {key for key in leaves if not key.startswith(".")} <= documented
    assert documented <= found


@pytest.mark.parametrize("width", [40, 60, 100, None])
def test_text_fits_its_width(width: int | None) -> None:
    lines = [line.plain for line in text_lines(everything(), width)]
    assert "Not decided (" in "\n".join(lines)
    if width is not None:
        assert max(map(cell_len, lines)) <= width


def test_a_long_comment_says_what_it_leaves_out() -> None:
    many = {
        "roles": {
            f"r{n}": {"members": [{"user": "u"}], "publish": [{"topic": "t" * 150 + f"/{n}"}]} for n in range(300)
        }
    }
    text = markdown(diff({}, many))
    assert len(text) <= MARKDOWN_MAX + 500
    assert re.search(r"^- and \d+ more, for which there is no room", text, re.MULTILINE)
    assert "300 newly allowed" in text


# -- hostile names -----------------------------------------------------------------------------------------------------

NASTY = [
    "`",
    "``",
    "```\n",
    "[x](http://e)",
    "<img src=x>",
    "|",
    "*a*",
    "\\",
    "@me",
    "#1",
    "\x1b[2J",
    "\u202e",
    "&lt;",
    "~",
    "\n- ",
]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.lists(
    st.sampled_from([*NASTY, "a", " "])
).map("".join)
HARMLESS = {
    *("heading_open", "heading_close", "paragraph_open", "paragraph_close", "bullet_list_open", "bullet_list_close"),
    *("list_item_open", "list_item_close", "inline", "text", "code_inline", "softbreak", "strong_open", "strong_close"),
}


def tokens(text: str) -> list[Token]:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return [inner for token in parser.parse(text) for inner in (token, *(token.children or ()))]


@settings(max_examples=80, deadline=None)
@given(who=NAMES, level=NAMES, reason=NAMES, file=NAMES)
def test_no_name_is_more_than_a_name(who: str, level: str, reason: str, file: str) -> None:
    topic = re.sub(r"[+#\0/]|^\$share$|%[uc]", "", level) + "/t"
    exception = {"finding": "TW201", "client": who or "c", "reason": reason or "r", "until": "2027-01-01"}
    content = {
        "roles": {"r": {"members": [{"user": who or "u"}], "publish": [{"topic": topic}]}},
        "exceptions": [exception],
    }
    try:
        found = diff({}, content, (file, file))
    except ConfigurationError:
        return  # a name that no policy takes
    parsed = tokens(markdown(found))
    assert {token.type for token in parsed} <= HARMLESS
    spans = [token.content for token in parsed if token.type == "code_inline"]
    for name in (who or "u", topic):
        # Code spans show line endings as spaces; there are none left in a name.
        if len(visible(name)) < 100:
            assert visible(name).strip(" ") in [span.strip(" ") for span in spans]
    prose = "".join(token.content for token in parsed if token.type == "text")
    assert re.fullmatch(r"[A-Za-z0-9 :;,.()?_-]*", prose), prose
    for width in (40, None):
        for line in text_lines(found, width):
            assert line.plain.isprintable()
            assert width is None or cell_len(line.plain) <= width
    assert document(found).isascii()
    assert json.loads(document(found))["newly_allows"] or not found.allows
