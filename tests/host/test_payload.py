"""What a payload looks like: the same as the plugin in Mosquitto says, and for a beginning no more than it can tell."""

from __future__ import annotations

import base64
import random
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mosquitto.plugin_build import build_plugin
from topicwarden.events import Shape
from topicwarden_collectors.host.payload import measure

SCALE = 8191
"""The plugin's unit of entropy (topicwarden_wire.h)."""


def plugins_words(payloads: list[bytes]) -> list[tuple[float, Shape]]:
    text = "".join(payload.hex() + "\n" for payload in payloads)
    done = subprocess.run(
        [build_plugin("harness"), "payload"], input=text, capture_output=True, text=True, check=True, timeout=60
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return [(int(entropy) / SCALE, Shape(int(shape))) for entropy, shape in rows]


PAYLOADS = st.one_of(
    st.binary(max_size=1100),
    st.text(max_size=60).map(str.encode),
    st.binary(min_size=10, max_size=60).map(base64.b64encode),
    st.binary(min_size=10, max_size=60).map(base64.urlsafe_b64encode),
    st.binary(min_size=6, max_size=60).map(lambda data: data.hex().encode()),
    st.text('{}[]" \n,:az09', max_size=90).map(str.encode),
    st.text("ABCabc019+/-_=\n", max_size=40).map(str.encode),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(PAYLOADS, min_size=1, max_size=60))
def test_a_whole_payload_looks_as_the_plugin_says(payloads: list[bytes]) -> None:
    for payload, (entropy, shape) in zip(payloads, plugins_words(payloads), strict=True):
        looks = measure(payload)
        assert looks.shape is shape, payload
        assert looks.entropy == pytest.approx(entropy, abs=0.0005)


WHOLE: list[tuple[Shape, bytes]] = [
    (Shape.TEXT, b"uid=0(root) gid=0(root) groups=0(root) " * 6),
    (Shape.JSON, b'{"temperature": 21.5, "unit": "C", "list": [1, 2, 3]}' * 4),
    (Shape.BASE64, base64.b64encode(random.Random(1).randbytes(300))),
    (Shape.HEX, random.Random(2).randbytes(200).hex().encode()),
    (Shape.BINARY, random.Random(3).randbytes(300)),
    (Shape.TEXT, "größer als größte ".encode() * 20),
    (Shape.TEXT, b"[info] started, " * 20),
]


@pytest.mark.parametrize(("shape", "payload"), WHOLE)
@pytest.mark.parametrize("length", [97, 98, 99, 100])
def test_the_beginning_of_a_payload_has_the_shape_of_the_whole(shape: Shape, payload: bytes, length: int) -> None:
    assert measure(payload[:length], cut=True).shape is shape


def test_of_nothing_of_a_payload_nothing_is_said() -> None:
    assert measure(b"", cut=True).shape is Shape.UNKNOWN
    assert measure(b"").shape is Shape.EMPTY
