"""The entropy threshold against simulation, and against data that must not be accused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import numpy as np
import pytest

from topicwarden.engine.payload import entropy_of_random, entropy_threshold


def entropy(data: bytes) -> float:
    share = np.unique(np.frombuffer(data[:1024], np.uint8), return_counts=True)[1] / min(len(data), 1024)
    return float(-(share * np.log2(share)).sum())


@pytest.mark.parametrize("size", [32, 64, 128, 256, 1024])
def test_mean_and_deviation_of_random_bytes_are_those_of_a_simulation(size: int) -> None:
    random = np.random.default_rng(size)
    seen = [entropy(random.bytes(size)) for _ in range(2000)]
    mean, deviation = entropy_of_random(size)
    assert abs(float(np.mean(seen)) - mean) < 5 * deviation / 2000**0.5
    assert 0.9 < float(np.std(seen)) / deviation < 1.1


def test_for_large_sizes_the_bias_is_that_of_miller_and_madow() -> None:
    mean, _ = entropy_of_random(8192)
    assert abs((8 - mean) - 255 / (2 * 8192 * np.log(2))) < 0.001


@pytest.mark.parametrize("size", [64, 100, 128, 200, 256, 512, 1024, 4096])
def test_nearly_all_random_payloads_are_above_the_threshold(size: int) -> None:
    random = np.random.default_rng(size)
    limit = float(entropy_threshold(np.array([size]), 7.2)[0])
    assert np.mean([entropy(random.bytes(size)) > limit for _ in range(500)]) > 0.97


def telemetry(random: np.random.Generator, size: int) -> bytes:
    fields = {f"sensor{n}": round(float(random.normal(20, 5)), 3) for n in range(size // 8)}
    return json.dumps(fields).encode()[:size]


def tagged(random: np.random.Generator, size: int) -> bytes:
    """Shaped like protobuf: a tag, a float with noise, a small counter."""
    return b"".join(
        bytes([13 + 8 * (n % 4)]) + np.float32(random.normal(20, 1)).tobytes() + bytes([16, n % 100])
        for n in range(size)
    )[:size]


@pytest.mark.parametrize("size", [64, 128, 256, 1024])
@pytest.mark.parametrize(
    "make",
    [telemetry, tagged, lambda random, size: base64.b64encode(random.bytes(size))[:size]],
    ids=["JSON", "tagged binary", "base64"],
)
def test_structured_payloads_stay_below_the_threshold(
    size: int, make: Callable[[np.random.Generator, int], bytes]
) -> None:
    random = np.random.default_rng(size)
    limit = float(entropy_threshold(np.array([size]), 7.2)[0])
    assert max(entropy(make(random, size)) for _ in range(300)) < limit


def test_nothing_is_said_of_sizes_that_are_unknown_or_tiny() -> None:
    assert np.isinf(entropy_threshold(np.array([-1, 0, 15]), 0.0)).all()
