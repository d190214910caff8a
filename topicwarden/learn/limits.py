"""From the peaks that were observed to the limits of a publish rule.

If no period of length T holds more than n events, counted from the epoch, any stretch of length t holds at most
`n * (t / T + 2)`. A token bucket of depth 2n that fills at n per T therefore lets all of it through, whatever the order
within the periods. So `HEADROOM * n` per T, with as many at once, never accuses what was learnt from (while the clock
was not set back), and is the tightest such limit but for a factor of two in the steady rate.
"""

from __future__ import annotations

from typing import Final

HEADROOM: Final = 2
SMALLEST: Final = 64
"""Smallest `max_size` that is drafted, in bytes."""


def rate_for(per_second: int, per_minute: int) -> tuple[str, int]:
    """Return `rate` and `burst` from the most events in one second and in one minute.

    Per minute where that allows hardly more at once, or where there was less than one event a second: the steady rate
    is then much closer to what was seen.
    """
    by_minute = per_minute <= max(4 * per_second, 60)
    amount = HEADROOM * max(1, per_minute if by_minute else per_second)
    return f"{amount}/{'min' if by_minute else 's'}", amount


def size_for(largest: int) -> str | None:
    """Return `max_size`: the next power of two from twice the largest payload; None when sizes are not known."""
    if largest < 0:
        return None
    size = max(SMALLEST, 1 << (2 * largest - 1).bit_length()) if largest else SMALLEST
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size // factor}{unit}"
    return str(size)
