"""Hostile names become readable, harmless, and distinct."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from topicwarden.output.escape import MIN_COLUMNS, encodable, quoted, shorten, visible, well_formed

NASTY = st.sampled_from(
    [
        *"\x00\x07\x1b\x7f\x85\x9b\r\n\t",
        *"\u202a\u202e\u2066\u2069\u200e\u061c",  # turn the line around
        *"\u200b\u200d\u2060\ufeff\u034f\u3164\u2800\ufe0f",  # seen by nobody
        *"\u2028\u2029\u00a0\u3000",
        *"\ud800\udcff\udfff",
        *"\ue000\U000f0000\u0378",
        *"e\u0301é\u212bÅ\u0300\u0307",  # NFC and not
        *'…"\\u{}1f',
        "\\u{",
        "\\u{202e}",
        *"אב1ai\u0661",
    ]
)
TEXTS = st.lists(st.one_of(NASTY, st.characters(), st.sampled_from("abc/+#")), max_size=40).map("".join)


def decode(rendered: str) -> str:
    """Undo `visible`: the proof that no two names render the same."""
    if "\\u{" not in rendered:
        return rendered
    return re.sub(r"\\(\\|u\{([0-9a-f]+)\})", lambda m: chr(int(m[2], 16)) if m[2] else "\\", rendered)


@given(TEXTS)
def test_whatever_comes_in_only_printable_characters_go_out(text: str) -> None:
    for rendered in (visible(text), quoted(text), quoted(text, 24), shorten(text, MIN_COLUMNS)):
        assert rendered.isprintable()
        assert unicodedata.is_normalized("NFC", rendered)
        assert not re.search("[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\u3164\u2800\u115f]", rendered)
        kinds = {unicodedata.bidirectional(letter) for letter in rendered}
        assert not (kinds & {"R", "AL", "AN"} and kinds & {"L", "EN"}), "a terminal may reorder it"


@given(TEXTS)
def test_the_name_can_be_read_back_so_no_two_names_render_the_same(text: str) -> None:
    assert decode(visible(text)) == text
    rendered = quoted(text)
    assert decode(rendered[1:-1] if rendered.startswith('"') else rendered) == text


@given(TEXTS, st.integers(MIN_COLUMNS, 90))
def test_a_shortened_name_fits_and_says_its_length_and_hash(text: str, columns: int) -> None:
    for long in (text, text * 7):
        rendered = shorten(long, columns)
        assert cell_len(rendered) <= columns
        if rendered != visible(long):
            assert re.search(rf"…\[?{len(long)}( chars )?#[0-9a-f]{{8}}\]?…", rendered)
        assert cell_len(quoted(long, columns)) <= columns


@given(TEXTS)
def test_only_our_own_mark_of_shortening_holds_an_ellipsis(text: str) -> None:
    assert "…" not in visible(text)


def test_two_long_names_that_differ_in_the_middle_are_told_apart() -> None:
    first, second = ("a" * 500 + letter + "b" * 500 for letter in "xy")
    assert shorten(first, 60) != shorten(second, 60)
    assert shorten(first, MIN_COLUMNS) != shorten(second, MIN_COLUMNS)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plant/a/sensor-1", "plant/a/sensor-1"),
        ("$share/g/plant/+/#", "$share/g/plant/+/#"),
        ("DOMAIN\\user", "DOMAIN\\user"),
        ("usine/été/温度", "usine/été/温度"),
        ("завод/датчик", "завод/датчик"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "hi", he said', '"say \\u{22}hi\\u{22}, he said"'),
        ("a\u202eb", "a\\u{202e}b"),
        ("a\\u{202e}b", "a\\\\u{202e}b"),
        ("\x1b[31mred\x1b[0m", "\\u{1b}[31mred\\u{1b}[0m"),
        ("e\u0301te\u0301", "e\\u{301}te\\u{301}"),
        ("z\u0335\u0336\u0337\u0338", '"z\u0335\u0336\\u{337}\\u{338}"'),
        ("\u0301x", "\\u{301}x"),
    ],
)
def test_names_are_shown_as_a_reader_expects(name: str, shown: str) -> None:
    assert quoted(name) == shown


@given(TEXTS)
def test_a_well_formed_string_is_utf8_and_reads_back(text: str) -> None:
    encoded = well_formed(text)
    encoded.encode()
    if "\\u{" not in encoded:
        assert encoded == text
    else:
        assert re.sub(r"\\(\\|u\{([0-9a-f]+)\})", lambda m: chr(int(m[2], 16)) if m[2] else "\\", encoded) == text
    assert json.loads(json.dumps(encoded)) == encoded


@given(TEXTS, st.sampled_from(["ascii", "latin-1", "utf-8", None]))
def test_finished_text_never_breaks_a_stream_of_another_encoding(text: str, encoding: str | None) -> None:
    encodable(visible(text) + " … ", encoding).encode(encoding or "utf-8")
