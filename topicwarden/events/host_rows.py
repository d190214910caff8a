"""Events of hosts as plain rows, for recordings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from enum import IntEnum
from typing import Any, Final

from topicwarden.events.batch import Certainty, Shape
from topicwarden.events.host_events import (
    MAX_ARGUMENT,
    MAX_ARGUMENTS,
    Dialled,
    Endpoint,
    Executed,
    Exited,
    HostEvent,
    Process,
    SeenPayload,
    Spoke,
    Spoken,
)

_KINDS: Final[Mapping[str, type[HostEvent]]] = {
    kind.__name__.lower(): kind for kind in (Executed, Exited, Dialled, Spoke)
}
_INTEGERS: Final = frozenset(
    {"time_ns", "pid", "parent_pid", "port", "sent", "duration_ns", "size"},
)
_FLAGS: Final = frozenset({"established", "cut"})


def host_row(event: HostEvent) -> dict[str, Any]:
    """Return an event as JSON values under `event` and its own fields' names; what is not known is left out."""
    return {"event": type(event).__name__.lower(), **_known(asdict(event))}


def host_from_row(row: Mapping[str, Any]) -> HostEvent:
    """Return the event a row of `host_row` describes; raises KeyError, ValueError or TypeError for another row."""
    kind = _KINDS[row["event"]]
    fields = {key: _value(key, value) for key, value in row.items() if key != "event"}
    return kind(**fields)


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _known(value) if isinstance(value, dict) else value.name.lower() if isinstance(value, IntEnum) else value
        for key, value in row.items()
        if value is not None
    }


def _value(key: str, value: Any) -> Any:
    """Return a field's value, checked: a recording is input like any other."""
    match key:
        case "process":
            return Process(**{name: _value(name, inner) for name, inner in value.items()})
        case "remote" | "local" | "client" | "server":
            return Endpoint(_value("address", value["address"]), _value("port", value["port"]))
        case "payload":
            size, entropy = _value("size", value["size"]), _value("entropy", value["entropy"])
            return SeenPayload(size, entropy, Shape[value["shape"].upper()])
        case "arguments":
            return _arguments(value)
        case "shape":
            return Shape[value.upper()]
        case "certainty":
            return Certainty[value.upper()]
        case "what":
            return Spoken(value)
        case "entropy":
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise TypeError("entropy is a number")
            return float(value)
    if key in _INTEGERS:
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise TypeError(f"{key} is a whole number of 64 bits")
        return value
    wanted = bool if key in _FLAGS else str
    if not isinstance(value, wanted):
        raise TypeError(f"{key} is {'true or false' if wanted is bool else 'text'}")
    return value


def _arguments(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_ARGUMENTS:
        raise ValueError(f"arguments are a list of at most {MAX_ARGUMENTS}")
    if any(not isinstance(one, str) or len(one) > MAX_ARGUMENT for one in value):
        raise ValueError(f"an argument is text of at most {MAX_ARGUMENT} characters")
    return tuple(value)
