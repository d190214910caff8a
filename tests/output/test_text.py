"""What a person reads about a finding."""

from __future__ import annotations

import io
import re
from string import Formatter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from topicwarden.events import Identity
from topicwarden.findings import Finding, load_catalogue
from topicwarden.output import TextSink, brief, explain, full, grew, wording
from topicwarden.output.layout import wrap
from topicwarden.output.text import title

from .samples import CATALOGUE, START, client, finding, finding_type, many

WIDTHS = (40, 59, 60, 80, 200)


def plain(lines: list[Text]) -> str:
    return "\n".join(line.plain for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("item", many(), ids=lambda f: f"{f.type.code}-{f.count}")
def test_no_line_is_wider_than_the_terminal_and_none_holds_control_characters(item: Finding, width: int) -> None:
    for lines in (brief(item, width), full(item, width), [grew(item, width)], explain(item.type, width)):
        for line in lines:
            assert cell_len(line.plain) <= width, line.plain
            assert line.plain.isprintable()


@pytest.mark.parametrize("item", many(), ids=lambda f: f"{f.type.code}-{f.count}")
def test_without_a_terminal_nothing_is_wrapped(item: Finding) -> None:
    assert len(brief(item)) == (5 if item.behind else 3)
    assert all(line.plain.isprintable() for line in [*brief(item), *full(item), grew(item)])


def test_a_brief_says_what_who_where_how_often_and_how_sure() -> None:
    assert plain(brief(finding())) == (
        "HIGH      TW201 publish.outside-policy  2026-11-23T09:58:09.123Z\n"
        "          sensor-1 published to plant/a/sensor-1/command, which no role of its allows\n"
        "          user sensor-1 (verified), client id s-17, from 10.0.0.5 port 51234, "
        "broker plant-a, virtual host /, 1 234 times, exact"
    )


def test_a_finding_that_grew_is_one_line_with_its_count() -> None:
    item = finding(count=1000, witnesses={"plant/b": 1})
    assert grew(item, 200).plain == (
        "HIGH      TW201 sensor-1 published to plant/b, which no role of its allows, again: 1 000 times by now"
    )
    assert grew(item, 80).plain.endswith(", again: 1 000 times by now")
    assert grew(item, 40).plain.endswith(" again: 1 000 times")
    assert grew(finding(), 200).plain.endswith("again: 1 234 times by now, on 2 names")


def test_full_says_everything() -> None:
    item = finding(
        witnesses={f"plant/{n}": n for n in range(1, 11)},
        evidence={"max_rate": 1234.5678, "tool": "nc", "limit": np.int64(10)},
    )
    text = plain(full(item, 200))
    for expected in (
        "user sensor-1 (verified by the broker), client id s-17, from 10.0.0.5 port 51234",
        'broker plant-a, protocol mqtt, virtual host /, TLS subject "CN=sensor-1,O=Plant"',
        "  1 time  plant/1\n",
        "8 times  plant/8\n",
        "and 19 times on other names, which were not kept",
        "max rate: 1 235",
        "tool: nc",
        "limit: 10",
        "1 234 times, first 2026-11-23T09:58:00.123Z, last 2026-11-23T09:58:09.123Z",
        "exact: the source reported it directly",
        "Whoever controls this client can inject data.",
        "Narrow the broker's grant.",
        "Bridges are judged under their own client id.",
        "T1071.005 Application Layer Protocol: Publish/Subscribe Protocols",
        "NIST SP 800-53r5: AC-3, SI-4",
        item.fingerprint,
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("changes", "who"),
    [
        ({}, "sensor-1"),
        ({"identity": Identity.CLAIMED}, "sensor-1 (only claimed)"),
        ({"identity": Identity.UNKNOWN}, "sensor-1"),
        ({"user": None, "identity": Identity.ANONYMOUS}, "anonymous client s-17"),
        ({"user": None, "identity": Identity.UNKNOWN}, "client s-17"),
        ({"user": None, "client_id": ""}, "client without an id"),
        ({"user": "admin published to x, which is fine"}, '"admin published to x, which is fine"'),
    ],
)
def test_a_name_is_never_given_as_known_when_it_was_only_claimed(changes: dict[str, object], who: str) -> None:
    assert title(finding(client=client(**changes))).plain.startswith(f"{who} published to ")


def test_a_title_field_without_a_value_says_so_and_a_name_with_braces_is_not_a_field() -> None:
    item = finding(witnesses={}, client=client(user="{witness}{0.__class__}"))
    assert title(item).plain == "{witness}{0.__class__} published to (not recorded), which no role of its allows"


def test_an_accepted_finding_is_shown_as_info_with_its_reason() -> None:
    text = plain(brief(finding(accepted="replaced by Q2, until 2027-06-30")))
    assert text.startswith("INFO ")
    assert text.endswith("accepted: replaced by Q2, until 2027-06-30")


def test_a_fix_in_the_brokers_syntax_keeps_its_lines() -> None:
    item = finding_type(fix="Add to mosquitto.conf:\n  acl_file /etc/acl\n  allow_anonymous false\n")
    assert "Add to mosquitto.conf:\n               acl_file /etc/acl\n               allow_anonymous" in plain(
        explain(item, 80)
    )


def test_explain_shows_the_title_with_its_fields_open() -> None:
    assert "{client} published to {witness}" in plain(explain(CATALOGUE["TW201"], 80))


def test_colour_appears_only_when_asked_for_and_changes_no_text() -> None:
    bare, coloured = io.StringIO(), io.StringIO()
    TextSink(bare).opened(finding())
    TextSink(coloured, color=True).opened(finding())
    assert "\x1b" not in bare.getvalue()
    assert "\x1b[" in coloured.getvalue()
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured.getvalue()) == bare.getvalue()


def test_a_stream_that_cannot_take_a_letter_gets_an_escape() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    TextSink(stream).opened(finding(witnesses={"usine/été" + "x" * 300: 1}))
    assert b"usine/\\u{e9}t\\u{e9}" in raw.getvalue()


@given(st.text(st.sampled_from("ab 温1\u0301"), max_size=60), st.integers(8, 30))
def test_wrapping_loses_nothing_but_spaces_at_the_breaks(text: str, width: int) -> None:
    lines = wrap(Text(text), width, "> ", "  ")
    assert all(cell_len(line.plain) <= width for line in lines)
    assert "".join(line.plain[2:] for line in lines).replace(" ", "") == text.replace(" ", "")


def test_a_grouped_number_is_never_broken_apart() -> None:
    for width in range(14, 40):
        assert "1 234 567 times" in plain(wrap(Text("it happened 1 234 567 times by now"), width + 2))


@pytest.mark.parametrize(
    ("ns", "said"),
    [
        (0, "0 ms"),
        (1_500_000, "1 ms"),
        (3_200_000_000, "3.2 s"),
        (65_000_000_000, "1 min 5 s"),
        (3_723_000_000_000, "1 h 2 min"),
        (90_000_000_000_000, "1 d 1 h"),
        (-1_500_000, "-1 ms"),
    ],
)
def test_durations_read_naturally(ns: int, said: str) -> None:
    assert wording.duration(ns) == said


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_int64_is_a_time_that_sorts_as_text(time_ns: int) -> None:
    earlier, later = wording.timestamp(time_ns - 1, 9), wording.timestamp(time_ns, 9)
    assert earlier < later
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", later)


def test_times_are_utc_and_cut_to_the_digits_asked_for() -> None:
    assert wording.timestamp(START, 9) == "2026-11-23T09:58:00.123456789Z"
    assert wording.timestamp(START) == "2026-11-23T09:58:00.123Z"


@pytest.mark.parametrize(
    ("address", "ip"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", None),
        ("/run/mosquitto.sock", None),
        ("", None),
        (None, None),
        ("10.0.0.5\n", None),
    ],
)
def test_only_an_ip_address_is_one(address: str | None, ip: str | None) -> None:
    assert wording.ip_address(address) == ip


@pytest.mark.parametrize(("count", "said"), [(1, "failed 1 time"), (12_345, "failed 12 345 times")])
def test_a_title_takes_the_clients_own_fields_and_counts_properly(count: int, said: str) -> None:
    item = finding("TW302", count=count)
    assert title(item).plain == f"Logins as sensor-1 from 10.0.0.5 {said}"


@pytest.mark.parametrize("code", list(load_catalogue()))
def test_every_title_of_the_catalogue_can_be_filled(code: str) -> None:
    catalogue = load_catalogue()
    fields = {field for _, field, _, _ in Formatter().parse(catalogue[code].title) if field is not None}
    assert all(field.isidentifier() for field in fields)
    shown = title(finding(code, catalogue=catalogue, evidence=dict.fromkeys(fields, 7))).plain
    assert not re.search(r"[{}]|not recorded", shown)
