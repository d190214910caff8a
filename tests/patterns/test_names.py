from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from topicwarden.patterns import skeleton, unsafe_characters


@pytest.mark.parametrize(
    ("genuine", "fake"),
    [
        ("plant/sensor-10", "plant/sensor-lo"),
        ("plant/sensor-10", "PLANT/Sensor-IO"),
        ("plant/sensor", "plаnt/sensоr"),  # Cyrillic а, о
        ("PLANT/SENSOR", "РLANT/SЕNSОR"),  # Cyrillic capitals
        ("NAME", "ΝAME"),  # Greek capital nu
        ("valve", "νalve"),  # Greek small nu
        ("plant/a", "plant/\u200ba"),
        ("plant/a", "plant/a\u202e"),
        ("plant/a", "plant/a\u200d\u2060\ufeff"),
        ("plant/a", "ｐlant/𝐚"),
        ("plant/a", "plant／a"),
        ("plant/a", "plant∕a"),
        ("plant/a", "plant /a"),
        ("plant/a", "plant/a\u00a0"),
        ("plant/a", "plant/a\u3164"),
        ("clock", "сⅼoсk"),
        ("a|b", "aIb"),
    ],
)
def test_names_that_look_alike_share_a_skeleton(genuine: str, fake: str) -> None:
    assert genuine != fake
    assert skeleton(genuine) == skeleton(fake)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("plant/a", "plant/b"),
        ("corner", "comer"),
        ("plant/a", "planta"),
        ("a//b", "a/b"),
        ("2", "z"),
        ("ä", "a"),
        ("日", "月"),
    ],
)
def test_names_that_people_tell_apart_do_not_share_one(a: str, b: str) -> None:
    assert skeleton(a) != skeleton(b)


names = st.text(st.one_of(st.sampled_from("aI1l0O/ \u200b\u0130\u0345ﬀßϲΝνиВ|"), st.characters()), max_size=12)


@given(names)
@example("I\u0307")
@example("\u1e9e\u0345")
def test_a_skeleton_is_its_own_skeleton(name: str) -> None:
    assert skeleton(skeleton(name)) == skeleton(name)


@given(st.text(st.characters(max_codepoint=127), max_size=12))
def test_the_fast_way_for_ascii_is_the_slow_way(name: str) -> None:
    # A mark that shows nothing sends the same name the slow way.
    assert skeleton(name) == skeleton("\u2060" + name)


@given(st.text("abcDEF-_/0123456789вкмнтВКМНТ", max_size=12))
def test_case_makes_no_difference(name: str) -> None:
    assert skeleton(name) == skeleton(name.upper()) == skeleton(name.lower())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plant/1/a b", []),
        ("größe/日本", []),
        ("a\u202eb\u202e", ["U+202E RIGHT-TO-LEFT OVERRIDE"]),
        ("a\u200b", ["U+200B ZERO WIDTH SPACE"]),
        ("a\nb\x07", ["U+000A LINE FEED", "U+0007 CONTROL CHARACTER"]),
        ("a\u2028\u2029", ["U+2028 LINE SEPARATOR", "U+2029 PARAGRAPH SEPARATOR"]),
        ("\ue000", ["U+E000 PRIVATE USE CHARACTER"]),
        ("\ud800", ["U+D800 LONE SURROGATE"]),
        ("\u3164", ["U+3164 HANGUL FILLER"]),
        ("a /b", ["U+0020 SPACE at the end of a level"]),
        (" ", ["U+0020 SPACE at the start of a level", "U+0020 SPACE at the end of a level"]),
        ("a/\u00a0b", ["U+00A0 NO-BREAK SPACE at the start of a level"]),
    ],
)
def test_characters_that_do_not_show_what_they_are_are_named(name: str, expected: list[str]) -> None:
    assert unsafe_characters(name) == expected


def test_an_unassigned_code_point_says_by_which_unicode() -> None:
    (text,) = unsafe_characters("\U000e0fff")
    assert text.startswith("U+E0FFF CHARACTER UNASSIGNED IN UNICODE ")


def test_a_name_full_of_them_does_not_make_a_long_list() -> None:
    found = unsafe_characters("".join(map(chr, range(0xE000, 0xE800))))
    assert len(found) == 17
    assert found[-1] == "and more"


@given(st.text())
def test_the_descriptions_themselves_are_safe_to_print(name: str) -> None:
    assert all(text.isascii() and text.isprintable() for text in unsafe_characters(name))
