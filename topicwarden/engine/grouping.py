"""Sorting the rows of a batch into groups, the step every per-client computation starts with."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Int64: TypeAlias = npt.NDArray[np.int64]


def group_rows(key: npt.NDArray[np.integer]) -> tuple[Int64, Int64]:
    """Return the order that sorts rows by `key` with equal keys in row order, and where each group starts in it.

    `key`: n whole numbers, not negative. Key and row number are packed into one integer and sorted together, which
    NumPy does with vector instructions: about ten times faster than a stable `argsort`.
    """
    rows = len(key)
    if not rows:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    bits = max(1, (rows - 1).bit_length())
    if int(key.max()) >= 1 << (62 - bits):
        order = np.argsort(key, kind="stable")
        ordered = key[order].astype(np.int64)
    else:
        packed = (key.astype(np.int64) << bits) | np.arange(rows)
        packed.sort()
        order = packed & ((1 << bits) - 1)
        ordered = packed >> bits
    changes = np.empty(rows, bool)
    changes[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=changes[1:])
    return order, np.flatnonzero(changes)
