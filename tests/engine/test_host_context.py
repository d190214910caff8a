"""Which brokers are approved and which tools sanctioned; and that nobody is accused for what is not known."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.engine.host_context import Approval, application_host, approved, policy_lists, sanctioned
from topicwarden.events import Endpoint, Process
from topicwarden.hosts.commands import Command, Does
from topicwarden.policy import Glob, Inventory, InventoryBroker, InventoryTool
from topicwarden.policy.baseline import parse_baseline

INVENTORY = Inventory.model_validate(
    {
        "brokers": [
            {"address": "mqtt.plant.example", "ports": [8883], "host": "mqtt-1"},
            {"address": "10.2.0.0/16", "ports": [1883, 8883], "host": "net"},
            {"address": "2001:db8::5", "ports": [5671], "host": "six"},
        ]
    }
)
RESOLVED = {"mqtt.plant.example": ["10.9.0.1", "2001:db8::9"]}


def command(host: str | None, port: int | None) -> Command:
    return Command("mosquitto_pub", Does.PUBLISH, "mqtt", host, port)


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        ("10.9.0.1", 8883, True),
        ("10.9.0.1", 1883, False),
        ("2001:db8::9", 8883, True),
        ("10.2.255.255", 1883, True),
        ("10.3.0.0", 1883, False),
        ("2001:db8::5", 5671, True),
        ("203.0.113.9", 8883, False),
        ("127.0.0.1", 8883, False),
    ],
)
def test_a_connection_is_approved_by_address_network_or_resolved_name_and_port(
    address: str, port: int, expected: bool
) -> None:
    assert approved(INVENTORY, None, RESOLVED, address, port, "h") is expected


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("mqtt.plant.example", 8883, True),
        ("MQTT.Plant.Example.", 8883, True),
        ("mqtt.plant.example", 1883, None),  # it may lie in the network
        ("mqtt", 8883, None),
        ("evil.example", 5671, None),  # it may be that address
        ("evil.example", 61613, False),
        ("evil.example", 8883, None),
        ("evil.example", None, None),
        ("10.2.0.9", 1883, True),
        ("10.2.0.9", None, None),
        ("10.3.0.9", None, None),  # it may be the name
        ("[2001:db8::5]", 5671, True),
        (None, 1883, None),
    ],
)
def test_a_command_line_is_approved_by_what_it_names(host: str | None, port: int | None, expected: bool | None) -> None:
    assert Approval(INVENTORY, None, {}).of(None, command(host, port), None, "h") is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("mqtt-1", True), ("web-1", False), (None, None)],
)
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "0.0.0.0", "broker.localhost"])
def test_loopback_is_a_broker_where_it_runs(name: str, host: str | None, expected: bool | None) -> None:
    inventory = Inventory(brokers=(InventoryBroker(address="mqtt.plant.example", ports=(1883,), host="mqtt-1"),))
    assert approved(inventory, None, {}, name, 1883, host) is expected
    unplaced = Inventory(brokers=(InventoryBroker(address="mqtt.plant.example", ports=(1883,)),))
    assert approved(unplaced, None, {}, name, 1883, host) is None
    assert approved(unplaced, None, {}, name, 8883, host) is False


def test_a_loopback_address_may_be_approved_itself() -> None:
    inventory = Inventory(brokers=(InventoryBroker(address="127.83.0.1", ports=(1883,), host="h"),))
    assert approved(inventory, None, {}, "127.83.0.1", 1883, "h") is True
    assert approved(inventory, None, {}, "127.0.0.1", 1883, "h") is False
    assert approved(inventory, None, {}, "127.83.0.1", 1883, "other") is False


NAMES = ("a.example", "b.example")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.1.0.1")


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.sampled_from([*NAMES, *ADDRESSES, "10.0.0.0/24"]), st.sampled_from([1883, 8883])),
        min_size=1,
        max_size=4,
    ),
    st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=2)),
    st.sampled_from(ADDRESSES),
    st.sampled_from([1883, 8883]),
)
def test_yes_and_no_hold_whatever_the_names_stand_for_that_were_not_looked_up(
    entries: list[tuple[str, int]], resolved: dict[str, list[str]], address: str, port: int
) -> None:
    inventory = Inventory(brokers=tuple(InventoryBroker(address=name, ports=(p,)) for name, p in entries))
    answer = approved(inventory, None, resolved, address, port, "h")
    open_names = [name for name in NAMES if name not in resolved]
    worlds = []
    for chosen in product(ADDRESSES, repeat=len(open_names)):
        known = {**resolved, **{name: [found] for name, found in zip(open_names, chosen, strict=True)}}
        worlds.append(
            any(
                p == port
                and (address in known.get(name, [name]) or (name == "10.0.0.0/24" and address.startswith("10.0.0.")))
                for name, p in entries
            )
        )
    assert answer is (None if len(set(worlds)) == 2 else worlds[0])


BASELINE = """\
topicwarden_baseline: 1
learnt: {since: 2026-05-01T00:00:00Z, until: 2026-05-15T00:00:00Z, events: 9000, covered: 1}
brokers: [{address: 10.5.0.1, ports: [1883], hosts: [h]}, {address: cloud.example, ports: [8883]}]
tools:
  - {host: shop, process: shopd, does: [publish]}
  - {host: reader, process: readd, does: [subscribe]}
  - {host: ci, process: mosquitto_pub, does: [publish]}
"""


def test_a_baseline_excuses_where_there_is_no_inventory_and_never_accuses() -> None:
    baseline = parse_baseline(BASELINE, "b")
    none = Inventory()
    assert approved(none, baseline, {}, "10.5.0.1", 1883, "h") is True
    assert approved(none, baseline, {}, "10.5.0.1", 1883, "other") is None
    assert approved(none, baseline, {}, "cloud.example", 8883, "any") is True
    assert approved(none, baseline, {}, "203.0.113.9", 1883, "h") is None
    assert approved(none, None, {}, "203.0.113.9", 1883, "h") is None
    assert approved(INVENTORY, baseline, RESOLVED, "10.5.0.1", 1883, "h") is False


def test_an_applications_host_is_one_where_applications_publish_and_nobody_types() -> None:
    baseline = parse_baseline(BASELINE, "b")
    tools = {"mosquitto_pub"}
    found = {host: application_host(baseline, host, tools) for host in ("shop", "reader", "ci", "new")}
    assert found == {"shop": True, "reader": False, "ci": False, "new": None}
    assert application_host(None, "shop", tools) is None


def process(executable: str = "/usr/bin/mosquitto_pub", **known: object) -> Process:
    fields = {"host": "ci-1", "pid": 1, "user": "ci", "parent_executable": "/opt/gitlab-runner", **known}
    return Process(executable=executable, **fields)  # type: ignore[arg-type]


TOOL = InventoryTool(
    process=Glob("mosquitto_*"), hosts=(Glob("ci-*"),), users=(Glob("ci"),), parents=(Glob("gitlab-runner"),)
)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (process(), True),
        (process("/tmp/other"), False),
        (process(host="web-1"), False),
        (process(user="root"), False),
        (process(parent_executable="/bin/bash"), False),
        (process(user=None), None),
        (process(parent_executable=None), None),
        (process(parent_executable=None, user="root"), False),
        (process("", arguments=("mosquitto_pub",)), True),
        (process(""), None),
        (process("/tmp/x", arguments=("mosquitto_pub",)), False),
    ],
)
def test_a_tool_is_sanctioned_by_all_its_entry_says(seen: Process, expected: bool | None) -> None:
    assert sanctioned([TOOL], seen) is expected
    other = InventoryTool(process=Glob("nothing"))
    assert sanctioned([other, TOOL], seen) is expected
    assert sanctioned([], seen) is None


def test_the_policy_gives_lists_of_networks_and_ports() -> None:
    lists = policy_lists(INVENTORY, RESOLVED)
    assert lists == {
        "approved_addresses": ["10.9.0.1/32", "2001:db8::9/128", "10.2.0.0/16", "2001:db8::5/128"],
        "approved_ports": [1883, 5671, 8883],
    }


def test_a_name_that_is_approved_passes_wherever_it_leads_unless_the_command_line_is_cut() -> None:
    approval = Approval(INVENTORY, None, RESOLVED)
    to, rotated = command("mqtt.plant.example", 8883), Endpoint("203.0.113.9", 8883)
    assert approval.of(rotated, to, process()) is True
    assert approval.of(rotated, to, process(cut=True)) is False
    assert approval.of(None, to, process(cut=True)) is None
    assert approval.of(Endpoint("203.0.113.9", 1883), to, process()) is False
    assert approval.of(rotated, None, None, "h") is False
    assert approval.of(None, None) is None


def test_what_is_missing_is_named() -> None:
    assert Approval(None, None, {}).missing() == {"inventory", "tools", "baseline"}
    assert Approval(INVENTORY, parse_baseline(BASELINE, "b"), {}).missing() == {"tools"}
    assert "pubsub_ports" in Approval(INVENTORY, None, {}).lists()
