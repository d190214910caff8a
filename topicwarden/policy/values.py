"""The small values of a policy file: rates, sizes, globs, addresses, dates. Each says what it wants when it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

NANOSECONDS: Final = 1_000_000_000
_PERIODS: Final = {"s": NANOSECONDS, "min": 60 * NANOSECONDS, "h": 3600 * NANOSECONDS}
_UNITS: Final = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_RATE: Final = re.compile(r"([0-9]{1,18})/([a-z]{1,8})", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,18}) ?([A-Za-z]{0,3})", re.ASCII)
_BYTE_RATE: Final = re.compile(r"([0-9]{1,18} ?[A-Za-z]{0,3})/([a-z]{1,8})", re.ASCII)


class RefusedError(ValueError):
    """A value a person wrote and we refuse; `hint` says what to write instead."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def shown(value: object, limit: int = 80) -> str:
    """Return a value for a message: quoted, control and bidi characters escaped, cut when long."""
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit + 2 else text[:limit] + "…"


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` events (or bytes) per `per_ns` nanoseconds, metered as GCRA (ITU-T I.371 annex A; ATM Forum TM 4.1).

    With emission interval T and tolerance tau, an event at time t conforms when TAT - t <= tau; only then
    TAT = max(t, TAT) + T. A burst of b events at one instant conforms exactly when tau = (b - 1) * T.
    """

    amount: int
    per_ns: int

    def __post_init__(self) -> None:
        if self.amount < 1 or self.per_ns < 1 or self.amount > self.per_ns:
            raise RefusedError(
                f"a rate must be between 1 in its period and {NANOSECONDS} per second", "to forbid, leave the rule out"
            )

    def __str__(self) -> str:
        unit = next((unit for unit, ns in _PERIODS.items() if ns == self.per_ns), f"{self.per_ns}ns")
        return f"{self.amount}/{unit}"

    @property
    def emission_interval_ns(self) -> int:
        """T in nanoseconds, at least 1; rounded down, so that whoever keeps exactly to the rate is never accused."""
        return self.per_ns // self.amount

    @property
    def default_burst(self) -> int:
        """The whole amount: who writes five a minute means any five, not one every twelve seconds to the jitter."""
        return self.amount

    def cost_ns(self, units: int) -> int:
        """Nanoseconds by which `units` events or bytes move TAT: units * T without T's rounding, rounded down."""
        return units * self.per_ns // self.amount

    def tolerance_ns(self, burst: int) -> int:
        """Tau for `burst` events at one instant: (burst - 1) * T.

        For bytes, where one message costs many units at once, the same condition reads
        max(TAT, t) + cost_ns(size) - t <= cost_ns(burst).
        """
        return (burst - 1) * self.emission_interval_ns


def parse_rate(value: object) -> Rate:
    """Read `10/s`, `5/min` or `100/h`; raises RefusedError."""
    if isinstance(value, Rate):
        return value
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _PERIODS:
        raise RefusedError(
            f"a rate is a whole number per s, min or h, not {shown(value)}", "write 10/s, 5/min or 100/h"
        )
    return Rate(int(match[1]), _PERIODS[match[2]])


def parse_byte_rate(value: object) -> Rate:
    """Read `10KiB/s`, `500/min` (bytes); raises RefusedError."""
    if isinstance(value, Rate):
        return value
    match = _BYTE_RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _PERIODS:
        raise RefusedError(f"a byte rate is a size per s, min or h, not {shown(value)}", "write 10KiB/s or 2MB/min")
    return Rate(parse_size(match[1]), _PERIODS[match[2]])


def parse_size(value: object) -> int:
    """Read `4KiB`, `1MB`, `512` as bytes; raises RefusedError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _UNITS:
        raise RefusedError(
            f"a size is a whole number of {', '.join(unit for unit in _UNITS if unit)}, not {shown(value)}",
            "write 4KiB for 4096 bytes, 4kB for 4000",
        )
    size = int(match[1]) * _UNITS[match[2]]
    if size > 1 << 62:
        raise RefusedError(f"a size cannot be larger than 2^62 bytes, not {shown(value)}")
    return size


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern over a whole name, case-sensitive: `*` is any text, `?` any one character, all else itself.

    Matching takes time proportional to name times pattern at worst: names are chosen by attackers.
    """

    text: str
    _parts: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = self.text.split("*")
        object.__setattr__(
            self, "_parts", tuple(re.compile(".".join(map(re.escape, p.split("?"))), re.DOTALL) for p in parts)
        )

    def __str__(self) -> str:
        return self.text

    def matches(self, name: str) -> bool:
        """Whether the whole of `name` matches."""
        first, *others = self._parts
        if not others:
            return first.fullmatch(name) is not None
        start = first.match(name)
        if start is None:
            return False
        position = start.end()
        # The leftmost place of each middle part leaves most room for those after it, so nothing is tried twice.
        for part in others[:-1]:
            found = part.search(name, position)
            if found is None:
                return False
            position = found.end()
        # A part has a fixed length: that of its text.
        tail = len(name) - len(self.text.rsplit("*", 1)[1])
        return tail >= position and others[-1].fullmatch(name, tail) is not None


def parse_glob(value: object) -> Glob:
    """Read a glob; raises RefusedError."""
    if isinstance(value, Glob):
        return value
    if not isinstance(value, str):
        raise RefusedError(f"a name pattern is text, not {shown(value)}")
    if not value or len(value) > 1024:
        raise RefusedError(
            f"a name pattern has 1 to 1024 characters, not {len(value)}",
            None if value else "for clients without a user name write anonymous: true",
        )
    return Glob(value)


def parse_network(value: object) -> IPv4Network | IPv6Network:
    """Read an IP address or a CIDR block; raises RefusedError."""
    if isinstance(value, (IPv4Network, IPv6Network)):
        return value
    if not isinstance(value, str):
        raise RefusedError(f"an address is text, not {shown(value)}")
    try:
        return ip_network(value)
    except ValueError:
        pass
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise RefusedError(
            f"{shown(value)} is neither an IP address nor a CIDR block", "write 10.0.0.7, 10.0.0.0/8 or 2001:db8::/32"
        ) from None
    raise RefusedError(f"{shown(value)} has bits set behind its prefix", f"write {network}")


def address_within(address: str | None, network: IPv4Network | IPv6Network) -> bool:
    """Whether a peer's address lies in the network; IPv4 written as IPv6 (`::ffff:10.0.0.1`) counts as IPv4."""
    if address is None:
        return False
    try:
        ip = ip_address(address)
    except ValueError:
        return False  # the path of a unix socket
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None and network.version == 4:
        ip = ip.ipv4_mapped
    return ip in network


def parse_day(value: object) -> date:
    """Read a day as YYYY-MM-DD; raises RefusedError."""
    if isinstance(value, date):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            day = date.fromisoformat(value)
        except ValueError:
            raise RefusedError(f"there is no day {value}", "a day is written YYYY-MM-DD") from None
        if not 1970 <= day.year <= 2200:
            raise RefusedError(f"a day lies between 1970 and 2200, not {value}")
        return day
    raise RefusedError(f"a day is written YYYY-MM-DD, not {shown(value)}")
