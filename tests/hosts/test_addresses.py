"""Addresses of both sides in one spelling, and how far they reach."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.events import Endpoint
from topicwarden.hosts.addresses import Scope, in_words, is_loopback, normalised, reached, scope

ADDRESSES = st.ip_addresses()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", Scope.LOOPBACK),
        ("127.83.1.2", Scope.LOOPBACK),
        ("::1", Scope.LOOPBACK),
        ("::ffff:127.0.0.1", Scope.LOOPBACK),
        ("[::1]", Scope.LOOPBACK),
        ("169.254.169.254", Scope.LINK_LOCAL),
        ("fe80::1%eth0", Scope.LINK_LOCAL),
        ("febf::1", Scope.LINK_LOCAL),
        ("10.255.255.255", Scope.PRIVATE),
        ("11.0.0.0", Scope.PUBLIC),
        ("172.15.255.255", Scope.PUBLIC),
        ("172.16.0.0", Scope.PRIVATE),
        ("172.31.255.255", Scope.PRIVATE),
        ("172.32.0.0", Scope.PUBLIC),
        ("192.168.1.1", Scope.PRIVATE),
        ("::ffff:10.0.0.7", Scope.PRIVATE),
        ("fec0::1", Scope.PRIVATE),
        ("100.63.255.255", Scope.PUBLIC),
        ("100.64.0.0", Scope.CGNAT),
        ("100.127.255.255", Scope.CGNAT),
        ("100.128.0.0", Scope.PUBLIC),
        ("fc00::1", Scope.ULA),
        ("fdff::1", Scope.ULA),
        ("224.0.0.1", Scope.MULTICAST),
        ("ff02::1", Scope.MULTICAST),
        ("192.0.2.1", Scope.DOCUMENTATION),
        ("198.51.100.1", Scope.DOCUMENTATION),
        ("203.0.113.255", Scope.DOCUMENTATION),
        ("2001:db8::1", Scope.DOCUMENTATION),
        ("3fff:fff::1", Scope.DOCUMENTATION),
        ("3fff:1000::1", Scope.PUBLIC),
        ("0.0.0.0", Scope.UNSPECIFIED),
        ("::", Scope.UNSPECIFIED),
        ("0.0.0.1", Scope.RESERVED),
        ("198.18.0.1", Scope.RESERVED),
        ("192.0.0.8", Scope.RESERVED),
        ("192.0.0.9", Scope.PUBLIC),
        ("240.0.0.1", Scope.RESERVED),
        ("255.255.255.255", Scope.RESERVED),
        ("100::1", Scope.RESERVED),
        ("::a00:7", Scope.RESERVED),
        ("2001:2::1", Scope.RESERVED),
        ("2001:20::1", Scope.PUBLIC),
        ("2001::1", Scope.PUBLIC),
        ("2606:4700::1111", Scope.PUBLIC),
        ("8.8.8.8", Scope.PUBLIC),
        ("64:ff9b::8.8.8.8", Scope.PUBLIC),
        ("64:ff9b::10.0.0.7", Scope.PRIVATE),
        ("64:ff9b:1::10.0.0.7", Scope.PRIVATE),
        ("64:ff9b:1::8.8.8.8", Scope.PUBLIC),
        ("::ffff:0:8.8.8.8", Scope.PUBLIC),
        ("2002:a00:7::1", Scope.PRIVATE),
        ("2002:808:808::1", Scope.PUBLIC),
    ],
)
def test_an_address_reaches_as_far_as_the_registries_say(address: str, expected: Scope) -> None:
    assert scope(address) is expected


@given(ADDRESSES)
def test_what_pythons_own_list_holds_for_global_is_public_here(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    # Its lists changed between its releases; these disagree with some of them on purpose.
    disputed = [
        *("64:ff9b:1::/48", "64:ff9b::/96", "::ffff:0:0:0/96", "::ffff:0:0/96", "::/96", "100::/32"),
        *("2001::/23", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10", "192.0.0.0/24"),
    ]
    if any(
        network.version == address.version and address in network for network in map(ipaddress.ip_network, disputed)
    ):
        return
    expected = address.is_global and not address.is_multicast
    assert (scope(str(address)) is Scope.PUBLIC) == expected


@given(ADDRESSES, st.sampled_from(["{}", "[{}]", "{}%eth0"]))
def test_all_spellings_of_an_address_become_one(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, spelling: str
) -> None:
    plain = normalised(str(address))
    assert plain is not None
    assert normalised(plain) == plain
    if address.version == 6:
        assert normalised(spelling.format(address.exploded.upper())) == plain
    else:
        assert normalised(f"[::FFFF:{address}]") == normalised(f"::ffff:{address}%3") == plain


@pytest.mark.parametrize("text", ["", "/run/mqtt.sock", "mqtt.example", "1.2.3", "1" * 200, "10.0.0.1:1883"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert normalised(text) is None
    assert not is_loopback(text)
    with pytest.raises(ValueError, match="address"):
        scope(text)


def test_what_is_reached_through_a_nat64_is_the_address_inside() -> None:
    assert reached("64:ff9b::a00:7") == "10.0.0.7"
    assert reached("10.0.0.7") == "10.0.0.7"
    assert reached("not an address") == "not an address"


def test_a_connection_to_the_unspecified_address_stays_on_its_host() -> None:
    assert is_loopback("0.0.0.0")
    assert is_loopback("::")
    assert not is_loopback("10.0.0.7")


def test_endpoints_are_written_as_people_write_them() -> None:
    assert in_words(Endpoint("10.0.0.7", 1883)) == "10.0.0.7:1883"
    assert in_words(Endpoint("fd00::7", 1883)) == "[fd00::7]:1883"
