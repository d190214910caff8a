"""What watching this machine live cannot show, by what it is allowed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError
from topicwarden.sources import BlindSpot

_ROOT: Final = "run it as root, or give it CAP_NET_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
_ALWAYS: Final = (
    BlindSpot(
        "what containers with a network of their own connect to is not seen, though their processes are",
        "collect inside of them too, or record connections where their traffic passes (Zeek, Suricata)",
    ),
    BlindSpot(
        "a connection refused at once is not told: of a socket that never was connected the kernel tells no port",
        "audit connect (`auditctl -a always,exit -F arch=b64 -S connect`) and watch auditd's log too",
    ),
    BlindSpot("connections over UDP (MQTT over QUIC) and through a proxy on this machine are not told from others"),
)
_RACE: Final = BlindSpot(
    "of a process that ends within about a millisecond the program and its arguments may be gone before they are read",
    "audit execve (`auditctl -a always,exit -F arch=b64 -S execve`) and watch auditd's log too",
)
_NO_PROCESSES_TOLD: Final = "processes that live shorter than some 100 ms are not seen: {why}"
_NO_ENDS: Final = BlindSpot(
    "connections that begin and end between two looks, some 100 ms, are not seen, nor how much was sent", _ROOT
)
_NO_OTHERS: Final = BlindSpot(
    "of other users' processes the path of the program is not seen, only its name, nor which of them made a connection",
    _ROOT,
)
_HIDDEN: Final = BlindSpot("/proc is mounted with hidepid: other users' processes are not seen", _ROOT)


@dataclass(frozen=True, slots=True)
class Means:
    """What the collector has to see with."""

    events: bool
    """The kernel tells of processes."""
    events_refused: ObservationError | None
    ends: bool
    """The kernel tells of connections that end."""
    sockets: bool
    """The kernel can be asked for sockets, or /proc shows them."""
    privileged: bool
    """We may look into other users' processes."""
    attributed: bool
    """A helper at the broker's side names processes at connect time."""
    ports: Collection[int]


def live_blind_spots(means: Means) -> Sequence[BlindSpot]:
    """Return what cannot be seen with these means."""
    spots = []
    if means.events:
        spots.append(_RACE)
    else:
        refused = means.events_refused
        problem = refused.problems[0] if refused is not None else None
        why = problem.message if problem is not None else "the kernel does not tell us of processes"
        spots.append(BlindSpot(_NO_PROCESSES_TOLD.format(why=why), problem.hint if problem is not None else _ROOT))
    if not means.sockets:
        spots.append(BlindSpot("no connection is seen: neither SOCK_DIAG nor /proc/net/tcp can be read", _ROOT))
    elif not means.ends:
        spots.append(_NO_ENDS)
    elif not means.attributed:
        spots.append(
            BlindSpot(
                "a connection that ends within a few milliseconds may be told without its process",
                "for a Mosquitto on this machine, the plugin's helper topicwarden-attribute",
            )
        )
    if not means.privileged:
        spots.append(_NO_OTHERS)
        if not Path("/proc/1").exists():
            spots.append(_HIDDEN)
    ports = ", ".join(str(port) for port in sorted(means.ports))
    spots.append(BlindSpot(f"connections to other ports than {ports} are not told", "name the ports of your brokers"))
    return (*spots, *_ALWAYS)
