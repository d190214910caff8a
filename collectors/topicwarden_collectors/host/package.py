"""What this package offers the core: the logs of hosts and sensors, and this machine as it runs.

`PACKAGE` is its entry point. The parts are imported when first used, so that naming it costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from topicwarden.events import EventBatch
    from topicwarden.sources import Collector, Counters, FileAbout, SourceOptions
    from topicwarden_collectors.host.blind_spots import Seen
    from topicwarden_collectors.host.kinds import Kind

_PEEK_BYTES: Final = 1 << 20
"""How much of a file is looked at to say what it shows."""


class Hosts:
    """Telemetry of hosts as `topicwarden.sources.HostPackage`.

    Sources: `host:` and `host:SOCKET` (this machine, with the attribution helper at that socket); `auditd:`,
    `sysmon:`, `ecs:`, `zeek:` and `suricata:` before the path of a log, `sysmon:journal`, `zeek:` before a folder; and
    the bare path of a log that shows what it is. To be read, a log may be gzipped, and `-` is standard input.
    """

    name = "host"

    def recognises(self, source: str, head: bytes) -> bool:
        """Whether the source has one of our prefixes, or the head is that of a log no broker writes."""
        from topicwarden_collectors.host.kinds import split_source
        from topicwarden_collectors.host.recognise import recognise

        return split_source(source)[0] is not None or recognise(head) is not None

    def live_source(self) -> str:
        """Return the name of this machine as it runs."""
        return "host:"

    def watch(self, source: str, options: SourceOptions) -> Collector:
        """Follow a log or the journal, or watch this machine."""
        from topicwarden_collectors.host.kinds import HOST, JOURNAL, current_logs, split_source

        prefix, rest = split_source(source)
        if prefix == HOST:
            import socket

            from topicwarden_collectors.host.live import LiveCollector
            from topicwarden_collectors.host.live_connections import PUBSUB_PORTS

            helper = Path(rest) if rest else None
            ports = PUBSUB_PORTS.union(options.ports)
            # `options.host` is for logs that name none: this machine has its own name.
            return LiveCollector(socket.gethostname(), options, attributor_socket=helper, ports=ports)
        kind, path = _kind_of(source)
        if kind.name == "sysmon" and rest == JOURNAL:
            from topicwarden_collectors.host.journal_follow import JournalCollector

            return JournalCollector(options)
        from topicwarden_collectors.host.log_follow import HostLogCollector

        _refuse_unfollowable(path)
        paths = current_logs(path) if kind.name == "zeek" and path.is_dir() else [path]
        return HostLogCollector(kind, paths, options, name=str(path), syslog=_is_syslog(kind, path))

    def read(self, source: str, options: SourceOptions, counters: Counters) -> Iterator[EventBatch]:
        """Read a log, the logs in a folder of Zeek's, or the journal as it is now."""
        from topicwarden.errors import ConfigurationError, Problem
        from topicwarden_collectors.host.kinds import HOST, JOURNAL, split_source
        from topicwarden_collectors.host.log_read import read_logs, zeek_logs

        prefix, rest = split_source(source)
        if prefix == HOST:
            raise ConfigurationError(
                Problem("this machine can only be watched", source, hint="topicwarden watch --host")
            )
        kind, path = _kind_of(source)
        if kind.name == "sysmon" and rest == JOURNAL:
            from topicwarden_collectors.host.journal_follow import read_journal

            return read_journal(options, counters)
        logs = zeek_logs(path) if kind.name == "zeek" and path.is_dir() else [[path]]
        return read_logs(kind, logs, options, counters)

    def about_file(self, source: str, options: SourceOptions) -> FileAbout:
        """Say what a log can and cannot show, by its kind and the first mebibyte of it."""
        from topicwarden.errors import TopicwardenError
        from topicwarden.sources import FileAbout
        from topicwarden_collectors.host.blind_spots import Seen, blind_spots
        from topicwarden_collectors.host.kinds import JOURNAL, split_source

        prefix, rest = split_source(source)
        host = options.host or ""
        try:
            kind, path = _kind_of(source)
        except TopicwardenError:
            return FileAbout(source, host, ())
        journal = prefix == "sysmon" and rest == JOURNAL
        seen = Seen(executed=True, exited=True, dialled=True, spoke=True)
        title = f"{kind.title} (journal)" if journal else f"{kind.title} {path}"
        if not journal and path.is_file():
            seen = _peek(kind, path, host)
        syslog = not journal and _is_syslog(kind, path)
        return FileAbout(title, host, blind_spots(kind.name, seen, syslog=syslog))


def _kind_of(source: str) -> tuple[Kind, Path]:
    """Return the kind and path of a log; raises ConfigurationError when it is not known, or plainly another."""
    from topicwarden.errors import ConfigurationError, Problem
    from topicwarden_collectors.host.kinds import KINDS, split_source
    from topicwarden_collectors.host.recognise import recognise

    prefix, rest = split_source(source)
    found = recognise(_head(Path(rest)))
    names = ", ".join(f"{name}:PATH" for name in KINDS)
    if prefix is None and found is None:
        raise ConfigurationError(Problem("cannot tell what log of a host's this is", source, hint=f"say it: {names}"))
    if prefix is not None and prefix not in KINDS:
        raise ConfigurationError(Problem("this is no log", source, hint=f"one of {names}"))
    if not rest:
        raise ConfigurationError(Problem("a path is missing", source, hint=KINDS[prefix or ""].hint))
    if prefix is not None and found not in (None, prefix):
        hint = f"say {found}:{rest}"
        raise ConfigurationError(
            Problem(f"this is no log of kind {prefix}: it looks like one of kind {found}", rest, hint=hint)
        )
    return KINDS[prefix or found or ""], Path(rest)


def _head(path: Path) -> bytes:
    from topicwarden_collectors.host.recognise import HEAD_BYTES

    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(file, HEAD_BYTES)
    except OSError:
        return b""
    finally:
        os.close(file)


def _refuse_unfollowable(path: Path) -> None:
    """Raise ConfigurationError for what is finished: nobody appends to it, or not so that it can be gone on with."""
    from topicwarden.errors import ConfigurationError, Problem
    from topicwarden_collectors.host.kinds import STANDARD_INPUT
    from topicwarden_collectors.host.recognise import GZIP_MAGIC

    if str(path) == STANDARD_INPUT:
        problem = Problem("standard input cannot be followed", hint="topicwarden check reads it")
    elif _head(path).startswith(GZIP_MAGIC):
        problem = Problem("a compressed log cannot be followed", str(path), hint="topicwarden check reads it")
    elif _is_journal_export(path):
        # Where an entry begins is known from all before it only.
        problem = Problem("an export of the journal cannot be followed", str(path), hint="follow sysmon:journal")
    else:
        return
    raise ConfigurationError(problem)


def _is_journal_export(path: Path) -> bool:
    return _head(path).startswith(b"__CURSOR=")


def _is_syslog(kind: Kind, path: Path) -> bool:
    """Whether any program's lines go to this log: it is no recording of the journal's."""
    return kind.name == "sysmon" and not _head(path).startswith((b"__CURSOR=", b"{"))


def _peek(kind: Kind, path: Path, host: str) -> Seen:
    """Return what the beginning of a log shows; everything when it cannot be read."""
    from topicwarden.errors import ObservationError
    from topicwarden.sources import Counters
    from topicwarden_collectors.host.blind_spots import Seen
    from topicwarden_collectors.log_following.log_file import DamagedFileError, chunks

    seen = Seen(where="in it")
    decoder = kind.decoder(Counters(), host=host)
    try:
        for data in chunks(path):
            for event in decoder.feed(data):
                seen.add(event)
            if decoder.fed >= _PEEK_BYTES:
                seen.where = "in its first MiB"
                break
    except (DamagedFileError, ObservationError):
        pass
    for event in decoder.finish():
        seen.add(event)
    return seen


PACKAGE: Final = Hosts()
