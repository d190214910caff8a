"""What each kind of telemetry cannot show, and what would: known before it is read, refined by what was seen in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.events import Dialled, Executed, Exited, HostEvent, Spoken
from topicwarden.sources import BlindSpot

AUDIT_EXECUTIONS: Final = (
    "auditctl -a always,exit -F arch=b64 -S execve -S execveat -F success=1 -k topicwarden\n"
    "auditctl -a always,exit -F arch=b32 -S execve -S execveat -F success=1 -k topicwarden"
)
AUDIT_CONNECTIONS: Final = (
    "auditctl -a always,exit -F arch=b64 -S connect -F saddr_fam=2 -k topicwarden\n"
    "auditctl -a always,exit -F arch=b64 -S connect -F saddr_fam=10 -k topicwarden\n"
    "auditctl -a always,exit -F arch=b32 -S connect -S socketcall -F saddr_fam=2 -k topicwarden\n"
    "auditctl -a always,exit -F arch=b32 -S connect -S socketcall -F saddr_fam=10 -k topicwarden"
)
AUDIT_EXITS: Final = (
    "auditctl -a always,exit -F arch=b64 -S exit_group -k topicwarden\n"
    "auditctl -a always,exit -F arch=b32 -S exit_group -k topicwarden"
)
"""One record a process, as many again as starts."""


@dataclass(slots=True)
class Seen:
    """What a log has shown as far as it was read."""

    executed: bool = False
    exited: bool = False
    dialled: bool = False
    spoke: bool = False
    """Whether it was told what was said on a connection."""
    numbered: bool = False
    """Whether users came as numbers."""
    unnamed: bool = False
    """Whether events came that name no host."""
    where: str = "so far"
    """In which part of the log, for people."""

    def add(self, event: HostEvent) -> None:
        """Take note of an event."""
        if isinstance(event, Executed):
            self.executed = True
            self.numbered |= event.process.user is not None and event.process.user.isdigit()
            self.unnamed |= not event.process.host
        elif isinstance(event, Dialled):
            self.dialled = True
            self.unnamed |= not event.host
        elif isinstance(event, Exited):
            self.exited = True
        else:
            # That a flow is of some protocol says nothing of what is said in it.
            self.spoke |= event.what is not Spoken.OTHER or event.name is not None


_CONTENT: Final = BlindSpot(
    "what is said on a connection: topics, payloads, credentials", "the broker's own plugin or log, or Zeek or Suricata"
)
_UNNAMED: Final = BlindSpot(
    "whose log it is: its events name no host, so they are joined with no other source's",
    "--host-name NAME; or name_format = HOSTNAME in /etc/audit/auditd.conf",
)
_PROCESSES: Final = BlindSpot(
    "which process and user made a connection: a sensor sees the network only",
    "watch --host on the machines themselves, or auditd, Sysmon or an agent there",
)
_TLS: Final = BlindSpot("what is said inside TLS", "the broker's own plugin or log")
_OTHER_PROTOCOLS: Final = BlindSpot(
    "what AMQP, STOMP and XMPP clients say, and MQTT inside WebSockets: only their connections are seen",
    "the broker's own plugin or log",
)
_LOCAL: Final = BlindSpot(
    "connections within one machine, and those that do not pass the sensor's tap", "watch --host on the machine"
)

_AUDITD: Final = (
    BlindSpot(
        "the local port of a connection, so that it is joined with a broker's session by host and time only",
        "watch --host on that machine, or Sysmon",
    ),
    BlindSpot("whether a connect was of TCP, and whether it came to stand where it was not refused", None),
    BlindSpot("programs started and connections made through io_uring: no rule of auditd's sees them", None),
    BlindSpot(
        "records that the kernel dropped because its backlog was full (`auditctl -s` counts them as lost)",
        "auditctl -b 16384",
    ),
    BlindSpot("in which container a program ran", "watch --host on that machine"),
    _CONTENT,
)
_SYSMON: Final = (
    BlindSpot("connections that were refused, and those Sysmon cannot attribute", None),
    BlindSpot("who logged in, and from which terminal a program was started", "auditd"),
    BlindSpot("in which container a program ran", "watch --host on that machine"),
    _CONTENT,
)
_SYSLOG: Final = (
    BlindSpot(
        "forged events: any user of the machine can write a line to syslog that looks like Sysmon's",
        "read sysmon:journal: the journal vouches for the sender",
    ),
    BlindSpot(
        "the end of long command lines: syslog cuts a line (rsyslog at 8 KiB)",
        'global(maxMessageSize="64k") at the beginning of /etc/rsyslog.conf; or read sysmon:journal',
    ),
)
_ECS: Final = (BlindSpot("what the agent does not collect, or drops when it is overrun", None), _CONTENT)
_ZEEK: Final = (
    _PROCESSES,
    _TLS,
    _OTHER_PROTOCOLS,
    _LOCAL,
    BlindSpot(
        "payloads beyond their first 100 bytes: entropy and shape are those of the beginning",
        "redef MQTT::max_payload_size = 1024;",
    ),
    BlindSpot("user names: Zeek logs none of MQTT's", "the broker's own plugin or log"),
)
_SURICATA: Final = (
    _PROCESSES,
    _TLS,
    _OTHER_PROTOCOLS,
    _LOCAL,
    BlindSpot(
        "messages longer than what Suricata reads: neither topic nor entropy",
        "max-msg-length under app-layer, protocols, mqtt in suricata.yaml",
    ),
    BlindSpot("a connection before it has ended: a flow is written when it is over", None),
)


def blind_spots(kind: str, seen: Seen, *, syslog: bool = False) -> Sequence[BlindSpot]:
    """Return what a log of this kind, in which so much was seen, does not show; the gravest first.

    `syslog`: it is a file that any program's lines go to.
    """
    where = seen.where
    unnamed = (_UNNAMED,) if seen.unnamed else ()
    match kind:
        case "auditd":
            spots = [
                *_unless(seen.executed, f"which programs are started: no record of execve {where}", AUDIT_EXECUTIONS),
                *_unless(seen.dialled, f"who connects to whom: no record of connect {where}", AUDIT_CONNECTIONS),
                *_unless(
                    seen.exited,
                    f"when processes end: no record of exit_group {where}; a process id may be another's by then",
                    AUDIT_EXITS,
                ),
            ]
            if seen.numbered:
                spots.append(
                    BlindSpot("names of users: the log has numbers", "log_format = ENRICHED in /etc/audit/auditd.conf")
                )
            return (*unnamed, *spots, *_AUDITD)
        case "sysmon":
            return (
                *unnamed,
                *_unless(seen.executed, f"which programs are started: no event 1 {where}", _sysmon("ProcessCreate")),
                *_unless(seen.dialled, f"who connects to whom: no event 3 {where}", _sysmon("NetworkConnect")),
                *_unless(seen.exited, f"when processes end: no event 5 {where}", _sysmon("ProcessTerminate")),
                *(_SYSLOG if syslog else ()),
                *_SYSMON,
            )
        case "ecs":
            agent = "Elastic Defend: Event Collection, {0}; Auditbeat: the {1} of its modules auditd or system"
            return (
                *unnamed,
                *_unless(
                    seen.executed,
                    f"which programs are started: no event of category process {where}",
                    agent.format("Process", "process events"),
                ),
                *_unless(
                    seen.dialled,
                    f"who connects to whom: no event of category network {where}",
                    agent.format("Network", "socket events"),
                ),
                *_ECS,
            )
        case "zeek":
            return (
                *_unless(
                    seen.spoke,
                    f"what MQTT clients say: no line of an mqtt_*.log {where}",
                    "name the folder that holds conn.log and mqtt_*.log; Zeek before 5: @load policy/protocols/mqtt",
                ),
                *_unless(
                    seen.dialled, f"who connects to whom: no line of conn.log {where}", "name the folder of Zeek's logs"
                ),
                *_ZEEK,
            )
        case _:
            return (
                *_unless(
                    seen.spoke,
                    f"what MQTT clients say: no event of type mqtt {where}",
                    "suricata.yaml: `mqtt: enabled: yes` under app-layer, protocols, and `- mqtt` under eve-log, types",
                ),
                *_unless(
                    seen.dialled,
                    f"who connects to whom: no event of type flow {where}",
                    "suricata.yaml: `- flow` under eve-log, types",
                ),
                *_SURICATA,
            )


def _unless(seen: bool, what: str, fix: str) -> Sequence[BlindSpot]:
    return () if seen else (BlindSpot(what, fix),)


def _sysmon(event: str) -> str:
    return f'<{event} onmatch="exclude"/> in an <EventFiltering> of its configuration, then sysmon -c CONFIGURATION'
