from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.events import NO_RESOURCE, Client, Resource, ResourceKind
from topicwarden.policy import ExceptionRule, MemberSelector, Policy, PublishRule, Rate, RefusedError, Role
from topicwarden.policy.values import Glob, parse_byte_rate, parse_rate, parse_size

SECOND = 1_000_000_000


def client(**known: str | None) -> Client:
    values: dict[str, str | None] = {"broker": "b", "protocol": "mqtt", "client_id": "c", **known}
    return Client(**values)  # type: ignore[arg-type] # one dict for required and optional fields


@pytest.mark.parametrize(
    ("text", "interval", "burst"),
    [
        ("10/s", SECOND // 10, 10),
        ("1/s", SECOND, 1),
        ("5/min", 12 * SECOND, 5),
        ("90/min", 666_666_666, 90),
        ("100/h", 36 * SECOND, 100),
        ("1000000000/s", 1, SECOND),
    ],
)
def test_a_rate_has_its_interval_and_its_whole_amount_as_burst(text: str, interval: int, burst: int) -> None:
    rate = parse_rate(text)
    assert (rate.emission_interval_ns, rate.default_burst, str(rate)) == (interval, burst, text)


def conforming(times: list[int], interval: int, tolerance: int) -> list[bool]:
    """The virtual scheduling algorithm of ITU-T I.371, figure A.1: a violating event does not consume."""
    arrival, verdicts = 0, []
    for time_ns in times:
        verdicts.append(arrival - time_ns <= tolerance)
        if verdicts[-1]:
            arrival = max(arrival, time_ns) + interval
    return verdicts


@given(st.integers(1, 1000), st.sampled_from(["s", "min", "h"]), st.integers(1, 50))
def test_exactly_the_burst_passes_at_one_instant(amount: int, unit: str, burst: int) -> None:
    rate = parse_rate(f"{amount}/{unit}")
    verdicts = conforming([0] * (burst + 3), rate.emission_interval_ns, rate.tolerance_ns(burst))
    assert verdicts == [True] * burst + [False] * 3


@given(st.integers(1, 10_000), st.sampled_from([("s", SECOND), ("min", 60 * SECOND), ("h", 3600 * SECOND)]))
def test_whoever_keeps_exactly_to_the_rate_is_never_accused(amount: int, unit: tuple[str, int]) -> None:
    rate = parse_rate(f"{amount}/{unit[0]}")
    times = [-(-i * unit[1] // amount) for i in range(200)]
    assert all(conforming(times, rate.emission_interval_ns, rate.tolerance_ns(1)))


def test_bytes_cost_what_the_rate_says_without_rounding_each_one() -> None:
    rate = parse_byte_rate("900MB/s")
    assert rate.emission_interval_ns == 1
    assert rate.cost_ns(900_000_000) == SECOND
    assert parse_byte_rate("10KiB/s").cost_ns(10240) == SECOND


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("512B", 512), ("4KiB", 4096), ("4 kB", 4000), ("2MB", 2_000_000), ("1MiB", 1 << 20)],
)
def test_sizes_tell_1000_from_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5KiB", "1KB", "1kib", "4 KiB ", "١B", "99999999999999999GB", True, None])
def test_other_sizes_are_refused(text: object) -> None:
    with pytest.raises(RefusedError):
        parse_size(text)


@pytest.mark.parametrize("amount", [0, -1, SECOND + 1])
def test_a_rate_outside_what_can_be_metered_is_refused(amount: int) -> None:
    with pytest.raises(RefusedError, match="must be between"):
        Rate(amount, SECOND)


texts = st.text("ab*?[.\n", max_size=8)


@given(texts, texts)
def test_a_glob_is_the_regular_expression_it_stands_for(pattern: str, name: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
    assert Glob(pattern).matches(name) == (re.fullmatch(expression, name, re.DOTALL) is not None)


def test_a_glob_is_not_slowed_by_a_hostile_name() -> None:
    glob, times = Glob("*a" * 20 + "*b?"), []
    for length in (8_000, 64_000):
        start = time.perf_counter()
        for _ in range(20):
            assert not glob.matches("a" * length)
        times.append(time.perf_counter() - start)
    # Eight times the length; backtracking would take more than 8 ** 20 times as long.
    assert times[1] < 100 * times[0] + 1


def test_equal_globs_are_equal() -> None:
    assert Glob("a*") == Glob("a*")
    assert len({Glob("a*"), Glob("a*"), Glob("b")}) == 2


@pytest.mark.parametrize(
    ("selector", "who", "expected"),
    [
        ({"user": "sensor-*"}, {"user": "sensor-1"}, True),
        ({"user": "sensor-*"}, {"user": "Sensor-1"}, False),
        ({"user": "sensor-*"}, {"user": "xsensor-1"}, False),
        ({"user": "*"}, {"user": None}, False),
        ({"user": "a[bc]"}, {"user": "ab"}, False),
        ({"client": "gw-?"}, {"client_id": "gw-1"}, True),
        ({"client": "gw-?"}, {"client_id": "gw-10"}, False),
        ({"user": "a", "client": "b"}, {"user": "a", "client_id": "c"}, False),
        ({"user": "a", "client": "b"}, {"user": "a", "client_id": "b"}, True),
        ({"vhost": "prod"}, {"vhost": "prod"}, True),
        ({"vhost": "*"}, {}, False),
        ({"broker": "b"}, {}, True),
        ({"broker": "x"}, {}, False),
        ({"tls_subject": "CN=a,*"}, {"tls_subject": "CN=a,O=b"}, True),
        ({"tls_subject": "*"}, {}, False),
        ({"anonymous": True}, {}, True),
        ({"anonymous": True}, {"user": "a"}, False),
        ({"address": "10.0.0.0/8"}, {"address": "10.1.2.3"}, True),
        ({"address": "10.0.0.0/8"}, {"address": "11.1.2.3"}, False),
        ({"address": "10.0.0.7"}, {"address": "10.0.0.7"}, True),
        ({"address": "10.0.0.0/8"}, {"address": "::ffff:10.1.2.3"}, True),
        ({"address": "0.0.0.0/0"}, {"address": "2001:db8::1"}, False),
        ({"address": "2001:db8::/32"}, {"address": "2001:db8::1"}, True),
        ({"address": "fe80::/10"}, {"address": "fe80::1%eth0"}, True),
        ({"address": "0.0.0.0/0"}, {"address": "/run/mosquitto.sock"}, False),
        ({"address": "0.0.0.0/0"}, {}, False),
    ],
)
def test_a_member_is_who_matches_every_key(selector: dict[str, object], who: dict[str, str], expected: bool) -> None:
    assert MemberSelector.model_validate(selector).matches(client(**who)) is expected


def test_a_client_has_every_role_one_of_whose_selectors_matches() -> None:
    roles = {
        "a": {"members": [{"user": "x"}, {"user": "y"}]},
        "b": {"members": [{"user": "z"}]},
        "c": {"members": [{"client": "*"}]},
    }
    policy = Policy.model_validate({"topicwarden": 1, "roles": roles})
    assert policy.roles_of(client(user="y")) == ["a", "c"]


def test_default_bursts_are_the_amount_and_room_for_the_largest_message() -> None:
    rule = PublishRule.model_validate({"topic": "a", "rate": "90/min", "byte_rate": "1KiB/s", "max_size": "4KiB"})
    assert (rule.effective_burst, rule.effective_byte_burst) == (90, 4096)
    role = Role.model_validate({"members": [{"user": "a"}], "byte_rate": "1KiB/s", "publish": [rule]})
    assert (role.effective_burst, role.effective_byte_burst) == (None, 4096)
    plain = PublishRule.model_validate({"topic": "a", "rate": "1/s", "burst": 7, "byte_rate": "1B/s", "byte_burst": 9})
    assert (plain.effective_burst, plain.effective_byte_burst) == (7, 9)
    assert PublishRule.model_validate({"topic": "a"}).effective_burst is None


def exception(**keys: str) -> ExceptionRule:
    return ExceptionRule.model_validate(
        {"finding": "TW201", "client": "gw-*", "reason": "r", "until": "2027-06-30", **keys}
    )


@pytest.mark.parametrize(
    ("keys", "who", "topic", "expected"),
    [
        ({}, {"client_id": "gw-1"}, None, True),
        ({}, {"client_id": "other", "user": "gw-1"}, None, False),
        ({"finding": "publish.Outside-policy"}, {"client_id": "gw-1"}, "a", True),
        ({"finding": "TW202"}, {"client_id": "gw-1"}, "a", False),
        ({"user": "u"}, {"client_id": "gw-1", "user": "u"}, "a", True),
        ({"user": "*"}, {"client_id": "gw-1"}, "a", False),
        ({"vhost": "prod"}, {"client_id": "gw-1", "vhost": "prod"}, "a", True),
        ({"vhost": "*"}, {"client_id": "gw-1"}, "a", False),
        ({"broker": "b*"}, {"client_id": "gw-1", "broker": "b-1"}, "a", True),
        ({"broker": "b*"}, {"client_id": "gw-1", "broker": "c"}, "a", False),
        ({"topic": "a/#"}, {"client_id": "gw-1"}, "a/b", True),
        ({"topic": "a/#"}, {"client_id": "gw-1"}, "b", False),
        ({"topic": "a/#"}, {"client_id": "gw-1"}, None, False),
        ({"topic": "a/#"}, {"client_id": "gw-1"}, "a/+/#", True),
        ({"topic": "a/#"}, {"client_id": "gw-1"}, "$share/g/a/+", True),
        ({"topic": "a/+"}, {"client_id": "gw-1"}, "a/#", False),
        ({"topic": "a/#"}, {"client_id": "gw-1"}, "a/b#", False),
    ],
)
def test_an_exception_covers_what_it_names_and_no_more(
    keys: dict[str, str], who: dict[str, str], topic: str | None, expected: bool
) -> None:
    resource = NO_RESOURCE if topic is None else Resource(ResourceKind.TOPIC, topic)
    assert exception(**keys).covers("TW201", "publish.outside-policy", client(**who), resource) is expected


def test_an_exception_never_covers_a_finding_without_a_client() -> None:
    assert not exception(client="*").covers("TW201", "publish.outside-policy", None, NO_RESOURCE)


def test_an_exception_holds_to_the_end_of_its_last_day() -> None:
    assert exception(until="2027-06-30").until_ns == 1_814_400_000 * SECOND
    days = [exception(until=day).until_ns for day in ("1970-01-01", "2024-02-28", "2024-02-29", "2200-12-31")]
    assert days[0] == 86400 * SECOND
    assert all(one < other < 1 << 63 for one, other in pairwise(days))
