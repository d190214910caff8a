"""How random a payload looks, judged against what that many random bytes can look like."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

MEASURED_BYTES: Final = 1024
"""Sources measure entropy over a payload's first 1024 bytes (`EventBatch.entropy`)."""
SMALLEST: Final = 16
_SYMBOLS: Final = 256
_DEVIATIONS: Final = 2.5


def entropy_of_random(size: int) -> tuple[float, float]:
    """Return mean and standard deviation of the plug-in entropy (bits per byte) of `size` uniform random bytes.

    The plug-in estimate `-sum p log2 p` over byte frequencies is biased low: 64 random bytes can show 6 bits at most,
    and 1024 show 7.81 on average. Miller (1955) and Madow give the bias as about (256 - 1) / (2 size ln 2) bits for
    large sizes; for the sizes here that is far off, so both moments are computed exactly: the counts of the 256 byte
    values are multinomial, the entropy is a sum of a function of each count, and mean and variance of such a sum need
    only the distributions of one count and of a pair.
    """
    top = min(size, int(size / _SYMBOLS + 12 * np.sqrt(size / _SYMBOLS) + 24))
    counts = np.arange(top + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size + 1)))])
    share = np.where(counts > 0, counts / size, 1.0)
    term = -share * np.log2(share)
    log_choose = log_factorial[size] - log_factorial[counts] - log_factorial[size - counts]
    one = np.exp(log_choose - counts * np.log(_SYMBOLS) + (size - counts) * np.log1p(-1 / _SYMBOLS))
    first = float(one @ term)
    rest = size - counts[:, None] - counts[None, :]
    possible = rest >= 0
    left = np.where(possible, rest, 0)
    log_pair = (
        log_factorial[size]
        - log_factorial[counts][:, None]
        - log_factorial[counts][None, :]
        - log_factorial[left]
        - (size - left) * np.log(_SYMBOLS)
        + left * np.log1p(-2 / _SYMBOLS)
    )
    pair = np.where(possible, np.exp(np.where(possible, log_pair, -np.inf)), 0.0)
    second = float(term @ pair @ term)
    variance = _SYMBOLS * (float(one @ term**2) - first**2) + _SYMBOLS * (_SYMBOLS - 1) * (second - first**2)
    return _SYMBOLS * first, float(np.sqrt(max(variance, 0.0)))


@cache
def _random_floor() -> npt.NDArray[np.float32]:
    """Return, by payload size up to 1024, the entropy that 99.4 % of random payloads of that size exceed."""
    sizes = np.unique(np.geomspace(SMALLEST, MEASURED_BYTES, 48).astype(int))
    moments = np.array([entropy_of_random(int(size)) for size in sizes])
    every = np.arange(MEASURED_BYTES + 1)
    floor = np.interp(every, sizes, moments[:, 0] - _DEVIATIONS * moments[:, 1]).astype(np.float32)
    floor[:SMALLEST] = np.inf
    return floor


def entropy_threshold(size: npt.NDArray[np.int64], max_entropy: float) -> npt.NDArray[np.float32]:
    """Return the entropy above which a payload of each size counts as random: encrypted or compressed.

    It is `max_entropy` where random bytes would exceed that for certain, and less for short payloads: two and a half
    standard deviations below the mean of that many random bytes. Structured data stays below: 64 characters of base64
    show 5.3 bits and eight noisy doubles 5.3, where 64 random bytes show 5.77. Infinite for sizes below 16 or unknown:
    nothing can be said.
    """
    floor = _random_floor()[np.clip(size, 0, MEASURED_BYTES)]
    return np.where(np.isinf(floor), floor, np.minimum(floor, np.float32(max_entropy)))
