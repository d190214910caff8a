"""The plugin's parts without a broker: hostile names, callbacks in any order, configuration files, payloads."""

from __future__ import annotations

import base64
import math
import random
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.mosquitto.plugin_build import build_plugin
from tests.mosquitto.plugin_events import read_events
from topicwarden.events import Shape

ENTROPY_SCALE = 8191


def harness(*arguments: str | Path, variant: str = "harness", text: str | None = None) -> str:
    done = subprocess.run(
        [build_plugin(variant), *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("seed", range(4))
def test_callbacks_in_any_order_with_any_names_leave_a_ring_that_reads(seed: int, tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    ports = {int(line) for line in harness("random", ring, str(seed), "20000", variant="harness-asan").split()}
    rows, counters = read_events(ring)
    # A port is told only where the socket's peer has the client's address.
    told = {row["client"].get("port") for row in rows if row["client"].get("address") == "127.0.0.1"}
    assert told <= {None, *ports}
    assert (len(told) > 1) == (seed != 3)  # with that one the option is off
    assert {row["client"].get("port") for row in rows if row["client"].get("address") != "127.0.0.1"} == {None}
    assert not counters.decode_errors
    assert not counters.lost
    assert len(rows) > 20
    assert oldest_reference(ring) <= 512


def test_a_client_that_comes_back_on_the_same_context_has_its_new_port(tmp_path: Path) -> None:
    """Where no login is seen, as with certificates, it is known at its first action only that it is back."""
    ports = [int(line) for line in harness("moved", tmp_path / "ring", variant="harness-asan").split()][:3]
    assert len(set(ports)) == 3
    rows, _ = read_events(tmp_path / "ring")
    for action in ("connect", "publish", "disconnect"):
        assert [row["client"]["port"] for row in rows if row["action"] == action] == ports


def oldest_reference(ring: Path) -> int:
    """Return how many slots before it the announcement of a name lies at most that an event refers to.

    The wire format promises half the ring. Looks at the later half of what is in the ring, and raises KeyError for an
    event whose names were not announced in the ring at all.
    """
    data = ring.read_bytes()
    count = (len(data) - 4096) // 32
    head = int.from_bytes(data[136:144], "little")
    announced = {0: head}
    furthest = 0
    for position in range(max(0, head - count), head):
        slot = data[4096 + position % count * 32 :][:32]
        if slot[0] in {2, 3}:
            announced[int.from_bytes(slot[4:8], "little")] = position
        elif slot[0] == 1 and position > head - count // 2:
            for name in (slot[4:8], slot[8:12]):
                furthest = max(furthest, position - announced[int.from_bytes(name, "little")])
    return furthest


def test_every_event_refers_to_names_announced_within_half_the_ring(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    furthest = 0
    for seed in range(10, 40):
        harness("random", ring, str(seed), "4000")
        furthest = max(furthest, oldest_reference(ring))
    assert 128 < furthest <= 512


def test_a_million_topics_leave_the_plugins_memory_bounded(tmp_path: Path) -> None:
    before, after = map(int, harness("topics", tmp_path / "ring", "1000000").split())
    assert after - before < 4096  # KiB: the cache itself is 1.5 MiB


def test_a_hundred_thousand_clients_cost_what_an_entry_costs(tmp_path: Path) -> None:
    before, after = map(int, harness("clients", tmp_path / "ring", "100000").split())
    # 128 bytes an entry, 4 MiB of index; the rest is the harness's own clients.
    assert after - before < 40 * 1024


def test_the_hash_is_siphash_1_3() -> None:
    """First vectors for key 00 01 … 0f and messages of 0, 1 and 15 bytes 00 01 …, computed by the plain algorithm."""
    messages = [bytes(range(length)) for length in (0, 1, 7, 8, 15, 63)]
    found = harness("hash", text="".join(message.hex() + "\n" for message in messages)).split()
    assert found == [f"{siphash_1_3(message):016x}" for message in messages]
    assert found[0] == "abac0158050fc4dc"  # as published with the reference implementation for 1-3


def siphash_1_3(message: bytes) -> int:
    low, high = (int.from_bytes(bytes(range(start, start + 8)), "little") for start in (0, 8))
    mask = (1 << 64) - 1
    v = [low ^ 0x736F6D6570736575, high ^ 0x646F72616E646F6D, low ^ 0x6C7967656E657261, high ^ 0x7465646279746573]

    def turn(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & mask

    def sip_round() -> None:
        v[0] = (v[0] + v[1]) & mask
        v[1] = turn(v[1], 13) ^ v[0]
        v[0] = turn(v[0], 32)
        v[2] = (v[2] + v[3]) & mask
        v[3] = turn(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & mask
        v[3] = turn(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & mask
        v[1] = turn(v[1], 17) ^ v[2]
        v[2] = turn(v[2], 32)

    whole = len(message) // 8 * 8
    words = [int.from_bytes(message[i : i + 8], "little") for i in range(0, whole, 8)]
    words.append(int.from_bytes(message[whole:], "little") | (len(message) & 0xFF) << 56)
    for word in words:
        v[3] ^= word
        sip_round()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        sip_round()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


# ---- payloads


def looks(payloads: Sequence[bytes]) -> list[tuple[float, Shape]]:
    lines = harness("payload", variant="harness-asan", text="".join(payload.hex() + "\n" for payload in payloads))
    return [
        (int(entropy) / ENTROPY_SCALE, Shape(int(shape)))
        for entropy, shape in (line.split() for line in lines.splitlines())
    ]


def entropy_of(payload: bytes) -> float:
    counts = Counter(payload[:1024]).values()
    total = sum(counts)
    return -sum(count / total * math.log2(count / total) for count in counts) if total else 0.0


def is_printable(payload: bytes) -> bool:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return False
    return not any((ord(c) < 32 and c not in "\t\n\r") or 0x7F <= ord(c) < 0xA0 for c in text)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(st.binary(max_size=2000), st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace"))),
        min_size=20,
        max_size=60,
    )
)
@example([bytes([i]) for i in range(256)] + [b"\xc2" + bytes([i]) for i in range(256)])
@example(
    [b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"a" * 1023 + b"\xc3"]
)
def test_entropy_and_text_are_those_of_a_plain_computation(payloads: list[bytes]) -> None:
    for payload, (entropy, shape) in zip(payloads, looks(payloads), strict=True):
        assert entropy == pytest.approx(entropy_of(payload), abs=0.0005)
        if not payload:
            assert shape is Shape.EMPTY
        elif len(payload) <= 1024:
            assert (shape is Shape.BINARY) == (not is_printable(payload))


BASE64 = [base64.b64encode(random.Random(i).randbytes(24 + i)).decode() for i in range(40)]
SHAPES = {
    Shape.EMPTY: [""],
    Shape.JSON: ['{"a": 1}', "[1,2]", ' {"a": [1]}\n', "[]", "{}", '{"ü": 1}'],
    Shape.HEX: ["0123456789abcdef", "DEADBEEF00112233", "a0" * 40, "ab" * 511 + "0a"],
    Shape.BASE64: [
        *BASE64,
        *(text.replace("+", "-").replace("/", "_") for text in BASE64),
        *(text + "\n" for text in BASE64[:3]),
        base64.b64encode(random.Random(1).randbytes(3000)).decode(),
        "SGVsbG8sIHdvcmxkISBIb3c=",
    ],
    Shape.TEXT: [
        "21.5",
        "on",
        "temperature",
        "temperaturesensor",
        "SensorTemperatureValue",
        "getTemperatureFromSensor01",
        "DeviceNumber1234567890",
        "1234567890123456",
        "12345678901234567890.5",
        "550e8400-e29b-41d4-a716-446655440000",
        "2024-01-01T00:00:00Z",
        "ON",
        "plant/hall-1/sensor-0001",
        "firmware_version_2_1_0_rc",
        "a b c d e f g h i j k l",
        "{not closed",
        "{]",
        "größer als 20 °C",
        "0123456789abcde",  # hexadecimal digits, but an odd number of them
        "abcdefabcdefabcdef",
        "line one\nline two\r\n\tline three",
    ],
    Shape.BINARY: ["\x00", "a\x1b[31m", "\x7f", "\u0085"],
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name.lower())
def test_a_payload_has_the_shape_a_person_would_give_it(shape: Shape) -> None:
    payloads = SHAPES[shape]
    found = {payload: got for payload, (_, got) in zip(payloads, looks([p.encode() for p in payloads]), strict=True)}
    assert found == dict.fromkeys(payloads, shape)


# ---- configuration files

KEYS = [
    "allow_anonymous",
    "per_listener_settings",
    "listener",
    "plugin",
    "auth_plugin",
    "include_dir",
    "password_file",
    "port",
    "plugin_opt_x",
    "log_type",
    "nonsense",
    "#allow_anonymous",
]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(
        st.one_of(
            st.tuples(
                st.sampled_from(KEYS),
                st.sampled_from(["true", "false", "1883", "1883 127.0.0.1", "0 /s", "", "maybe", "x" * 400, "/a/b.so"]),
            ).map(lambda pair: " ".join(pair).encode()),
            st.binary(max_size=200),
        ),
        max_size=30,
    )
)
def test_no_configuration_file_breaks_the_reader(lines: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "fuzz.conf"
    path.write_bytes(b"\n".join(lines))
    assert harness("config", path, variant="harness-asan").startswith("readable=")


def test_a_configuration_is_read_as_the_broker_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "b.conf").write_text("listener 2 ::1\nallow_anonymous 0\n")
    (folder / "A.conf").write_text("listener 1\nplugin   /x/mosquitto_dynamic_security.so  \n")
    (folder / "c.txt").write_text("listener 9\n")
    path = tmp_path / "mosquitto.conf"
    path.write_text(
        "per_listener_settings true\n"
        "plugin /first.so\n"
        f"include_dir {folder}\n"
        "allow_anonymous true\n"
        "\n"
        "listener 0 /run/socket\r\n"
        "  allow_anonymous   true # the rest does not matter\n"
        "auth_plugin /other.so\n"
    )
    assert harness("config", path).strip() == (
        "readable=1 per_listener=1 local_only=0 anonymous=-1 default_anonymous=1 doubt=''"
        " listener=1,,-1 listener=2,::1,0 listener=0,/run/socket,1"
        " plugin=-2,2,/first.so plugin=0,1,/x/mosquitto_dynamic_security.so plugin=2,2,/other.so"
    )


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("no_such_option 1\n", "unknown option 'no_such_option'"),
        ("\tallow_anonymous true\n", "unknown option '?allow_anonymous'"),
        ("allow_anonymous yes\n", "allow_anonymous has the value 'yes'"),
        ("allow_anonymous\n", "allow_anonymous has the value ''"),
        ("acl_file /a\nper_listener_settings true\n", "per_listener_settings after security settings"),
        ("listener\n", "a listener line without a port"),
        ("allow_anonymous true\n", ""),
    ],
)
def test_what_the_broker_may_refuse_a_file_for_raises_doubt(text: str, doubt: str, tmp_path: Path) -> None:
    path = tmp_path / "mosquitto.conf"
    path.write_text(text)
    assert f"doubt='{doubt}'" in harness("config", path)


def test_a_file_that_cannot_be_read_or_holds_too_much_is_not_readable(tmp_path: Path) -> None:
    many = tmp_path / "many.conf"
    many.write_text("listener 1\n" * 300)
    found = harness("config", tmp_path / "absent", tmp_path, many).splitlines()
    assert [line.split()[0] for line in found] == ["readable=0"] * 3
