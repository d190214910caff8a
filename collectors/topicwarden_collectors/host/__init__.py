"""What hosts and network sensors already record: auditd, Sysmon, ECS agents, Zeek and Suricata; and this machine live.

Each decoder is a pure function from bytes of a log to events of hosts; `recognise` tells which one a file needs.
`PACKAGE` is the package's entry point.
"""

from topicwarden_collectors.host.package import PACKAGE

__all__ = ["PACKAGE"]
