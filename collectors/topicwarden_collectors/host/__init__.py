"""Decoders of what hosts and network sensors already record: auditd, Sysmon, ECS agents, Zeek and Suricata.

Each is a pure function from bytes of a log to events of hosts; `recognise` tells which one a file needs.
"""
