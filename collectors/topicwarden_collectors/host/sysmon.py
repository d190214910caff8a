"""Decodes Sysmon for Linux: events 1 (process created), 3 (connection) and 5 (process ended).

Sysmon hands one line of XML an event to syslog. It is read from syslog files (RFC 3164 and 5424 headers) and from
`journalctl -o json` or `-o export`. The XML is always of one shape, written by one function (outputxml.c of version
1.3), and read as such instead of by an XML parser: Sysmon writes control characters and bytes that are no UTF-8 as
they are, which no XML parser takes, so a program could hide by having one in its arguments.

Any user can write a line to syslog that looks like Sysmon's. A line of another program is not taken for one of
Sysmon's, and in the journal the sender must be root, which the journal vouches for; in a file the tag is all there is.

Times are those of writing (`TimeCreated`): `UtcTime` is reckoned from boot and was seen to lag by days. Syslog may cut
a line (rsyslog at 8 KiB): what is before the cut is used, and the process is marked `cut`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from topicwarden.events import Dialled, Executed, Exited, HostEvent, Process
from topicwarden.sources import Counters
from topicwarden_collectors.host.addresses import endpoint
from topicwarden_collectors.host.journal import CURSOR, JournalExport
from topicwarden_collectors.host.lines import LineDecoder, json_object
from topicwarden_collectors.host.redaction import seen_joined_command
from topicwarden_collectors.host.times import iso_time

HEADER: Final = re.compile(
    rb"(?:<\d{1,3}>)?(?:1 )?(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S{8,32}) (\S{1,255}) "
    rb"sysmon(?:\[\d{1,10}\]|(?: \S{1,128}){2} (?:-|\[.{0,1024}?\]))?:? (?=<Event>)"
)
"""What stands before an event in a syslog file; the group is the machine."""
_SYSTEM: Final = re.compile(
    rb'<Event><System><Provider Name="Linux-Sysmon"[^>]*/?>.*?<EventID>(\d{1,5})</EventID>.*?'
    rb'<TimeCreated SystemTime="([^"]{10,40})"/>.*?<Computer>([^<]{0,255})</Computer>',
    re.DOTALL,
)
_DATA: Final = re.compile(rb'<Data Name="(\w{1,64})">([^<]*)(</Data>)?')
_ENTITY: Final = re.compile(r"&(?:#x([0-9A-Fa-f]{1,6})|#(\d{1,7})|(lt|gt|amp|quot|apos));")
_NAMED: Final = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_RSYSLOG: Final = re.compile(r"#(0[0-3][0-7]|177)")
_UNKNOWN: Final = frozenset({"", "-", "(null)", "<unknown process>", "no level"})
FORGED: Final = "forged"
"""The stage that counts entries of the journal that call themselves Sysmon's and are not root's."""
_CREATED, _CONNECTED, _ENDED = 1, 3, 5
_BEGIN: Final = b"<Event>"
_END: Final = b"</Event>"


class SysmonDecoder(LineDecoder):
    """Feed it bytes of a syslog file or an export of the journal; see `LineDecoder`."""

    def __init__(self, counters: Counters, *, host: str | None = None) -> None:
        """`host` names the machine where an event does not."""
        super().__init__(counters, host=host)
        self.cursor: bytes | None = None
        """The journal's word for the place of the last entry of its export."""
        self.passed: bytes | None = None
        """The place of an entry that is not to be read again."""
        self._journal: JournalExport | None = None
        self._begun = False

    def _line(self, line: bytes) -> Iterable[HostEvent]:
        if not self._begun and line:
            self._begun = True
            if line.startswith(b"__CURSOR="):
                self._journal = JournalExport()
        if self._journal is not None:
            if self._splitter.too_long:
                self._journal.lose()
            entry = self._journal.line(line)
            return () if entry is None else self._entry(entry)
        if line.startswith(b"{"):
            return self._journal_json(line)
        match = HEADER.match(line)
        return () if match is None else self._event(line[match.end() :], escaped=True)

    def _rest(self) -> Iterable[HostEvent]:
        if self._journal is None:
            return ()
        entry, cut = self._journal.finish()
        if cut:
            self.counters.error("cut")
        return self._entry(entry)

    # The journal

    def _journal_json(self, line: bytes) -> Iterable[HostEvent]:
        entry = json_object(line)
        if entry is None:
            self.counters.error("json")
            return ()
        if entry.get("SYSLOG_IDENTIFIER") != "sysmon":
            return ()
        message = entry.get("MESSAGE")
        if isinstance(message, list):
            # So the journal writes what is not UTF-8.
            try:
                message = bytes(message).decode("utf-8", "surrogateescape")
            except (TypeError, ValueError):
                message = None
        if not isinstance(message, str):
            self.counters.error("message")
            return ()
        if str(entry.get("_UID", "0")) != "0":
            self.counters.error(FORGED)
            return ()
        return self._event(message.encode("utf-8", "surrogateescape"))

    def _entry(self, entry: Mapping[bytes, bytes]) -> Iterable[HostEvent]:
        self.cursor = entry.get(CURSOR, self.cursor)
        if self.cursor is not None and self.cursor == self.passed:
            return ()
        if entry.get(b"SYSLOG_IDENTIFIER") != b"sysmon" or b"MESSAGE" not in entry:
            return ()
        if entry.get(b"_UID", b"0") != b"0":
            self.counters.error(FORGED)
            return ()
        return self._event(entry[b"MESSAGE"])

    # One event

    def _event(self, text: bytes, *, escaped: bool = False) -> Iterator[HostEvent]:
        """Yield what an event tells; `escaped`: rsyslog wrote control characters as `#012`."""
        match = _SYSTEM.match(text)
        if match is None:
            if text.startswith(_BEGIN):
                self.counters.error("event")
            return
        number = int(match[1])
        if number not in (_CREATED, _CONNECTED, _ENDED):
            return
        time_ns = iso_time(match[2].decode("ascii", "replace"))
        if time_ns is None:
            self.counters.error("time")
            return
        cut = _END not in text[-64:]
        data: dict[str, str] = {}
        for name, value, closed in _DATA.findall(text, match.end()):
            key = name.decode()
            if closed or key == "CommandLine":
                data.setdefault(key, _text(value, escaped=escaped))
        host = _text(match[3], escaped=escaped) or self.host
        pid = data.get("ProcessId", "")
        if not pid.isascii() or not pid.isdigit() or len(pid) > 10:
            self.counters.error("cut" if cut else "event")
            return
        if number == _ENDED:
            yield Exited(time_ns, host, int(pid))
        elif number == _CREATED:
            yield Executed(time_ns, self._process(host, int(pid), data, cut=cut))
        else:
            dialled = self._dialled(time_ns, host, int(pid), data)
            if dialled is not None:
                yield dialled

    @staticmethod
    def _process(host: str, pid: int, data: dict[str, str], *, cut: bool) -> Process:
        line = data.get("CommandLine", "")
        known = line not in _UNKNOWN
        executable = _known(data, "Image") or ""
        seen = seen_joined_command(line if known else "", cut=cut or not known, executable=executable)
        parent = data.get("ParentProcessId", "")
        return Process(
            host,
            pid,
            executable,
            seen.arguments,
            seen.cut,
            parent_pid=int(parent) if parent.isascii() and parent.isdigit() and 0 < len(parent) <= 10 else None,
            parent_executable=_known(data, "ParentImage"),
            user=_known(data, "User"),
            payload=seen.payload,
        )

    def _dialled(self, time_ns: int, host: str, pid: int, data: dict[str, str]) -> Dialled | None:
        if data.get("Initiated") == "false":
            return None
        remote = endpoint(data.get("DestinationIp"), data.get("DestinationPort"))
        if remote is None:
            self.counters.error("address")
            return None
        transport = data.get("Protocol", "tcp").lower()
        return Dialled(
            time_ns,
            host,
            remote,
            local=endpoint(data.get("SourceIp"), data.get("SourcePort")),
            pid=pid,
            executable=_known(data, "Image"),
            user=_known(data, "User"),
            transport=transport if transport in ("tcp", "udp") else "tcp",
            # Sysmon tells of a TCP connection when it has come to stand (networkTracker.cpp).
            established=True if transport == "tcp" else None,
        )


def _known(data: dict[str, str], name: str) -> str | None:
    value = data.get(name, "")
    return None if value in _UNKNOWN else value.removesuffix(" (deleted)")


def _text(value: bytes, *, escaped: bool) -> str:
    text = value.decode("utf-8", "surrogateescape")
    if "&" in text:
        text = _ENTITY.sub(_character, text)
    if escaped and "#" in text:
        text = _RSYSLOG.sub(lambda match: chr(int(match[1], 8)), text)
    return text


def _character(match: re.Match[str]) -> str:
    if match[3] is not None:
        return _NAMED[match[3]]
    number = int(match[1], 16) if match[1] is not None else int(match[2])
    return chr(number) if 0 < number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
