"""Judges a RabbitMQ: can topicwarden see what happens at it, and who may do what.

What it is pointed at: `/etc/rabbitmq` or a file in it, an export of definitions, or a running node (`amqp://…`, see
`doctor_live`). Nothing is changed. `docs/doctor.md` explains each check.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.sources import Advice, DoctorReport, SourceOptions
from topicwarden_collectors.rabbitmq.conf import Configuration, read_configuration
from topicwarden_collectors.rabbitmq.definitions import Definitions, read_definitions
from topicwarden_collectors.rabbitmq.doctor_access import check_access, guest_is_remote
from topicwarden_collectors.rabbitmq.doctor_examination import CHECKS, EVENTS, LOG, PLUGIN, PLUGIN_EXCHANGE, Examination
from topicwarden_collectors.rabbitmq.doctor_grants import check_grants
from topicwarden_collectors.rabbitmq.doctor_observing import check_observing
from topicwarden_collectors.rabbitmq.doctor_streams import check_streams

__all__ = ["CHECKS", "diagnose"]

_DEFINITIONS_KEYS: Final = ("load_definitions", "definitions.local.path", "management.load_definitions")


def diagnose(target: str, options: SourceOptions | None = None) -> DoctorReport:
    """Judge a configuration, an export of definitions, or a running node.

    Raises ConfigurationError when there is nothing of RabbitMQ at `target`, ObservationError when a node cannot be
    reached with the account in `options`.
    """
    if target.startswith(("amqp://", "amqps://")):
        from topicwarden_collectors.rabbitmq.doctor_live import examine_node

        examination, title = examine_node(target, options or SourceOptions())
    elif Path(target).is_file() and _is_definitions(Path(target)):
        examination = Examination()
        title = f"rabbitmq: definitions {_shown(target)}"
        _definitions(examination, read_definitions(Path(target)))
        examination.blind(
            "events, log, tracing, listeners and logins: they stand in the configuration",
            "point doctor at RabbitMQ's folder too, usually /etc/rabbitmq",
        )
    else:
        examination, title = _files(target)
    return DoctorReport(title, ordered(examination), examination.blind_spots)


def ordered(examination: Examination) -> list[Advice]:
    """Return the advice in the catalogue's order."""
    order = {check: number for number, check in enumerate(CHECKS)}
    return sorted(examination.advice, key=lambda one: order[one.check])


def _files(target: str) -> tuple[Examination, str]:
    configuration = read_configuration(target)
    examination = Examination()
    check_access(examination, configuration)
    check_observing(examination, configuration)
    found = 0
    for path in _definition_files(configuration, examination):
        try:
            definitions = read_definitions(path)
        except ConfigurationError as error:
            for problem in error.problems:
                examination.say("note", "config.unread", problem.message, problem.file, problem.line)
            continue
        found += 1
        _definitions(examination, definitions, configuration)
    examination.ok("config.unread")
    if not found:
        examination.blind(
            "users, permissions and bindings: there are no definitions here",
            "rabbitmqctl export_definitions FILE, then doctor FILE",
        )
    else:
        examination.blind("what was granted since the definitions were loaded", "doctor amqp://… asks the running node")
    count = len(configuration.files)
    return examination, f"rabbitmq: {_shown(target)} ({count} file{'s' if count != 1 else ''})"


def _definitions(
    examination: Examination, definitions: Definitions, configuration: Configuration | None = None
) -> None:
    remote = None if configuration is None else guest_is_remote(configuration) is not None
    check_grants(examination, definitions, guest_remote=remote)
    default = configuration.get("default_vhost") if configuration else None
    plugin = configuration is not None and configuration.has_plugin(PLUGIN)
    check_streams(
        examination,
        definitions,
        default_vhost=default.value if default else "/",
        there=(EVENTS, LOG, *([PLUGIN_EXCHANGE] if plugin else ())),
    )
    examination.say(
        "note",
        "vhosts.seen",
        f"virtual hosts: {', '.join(repr(vhost.name) for vhost in definitions.vhosts[:20])}",
        definitions.source,
    )


def _definition_files(configuration: Configuration, examination: Examination) -> list[Path]:
    """Return the files of definitions a configuration loads, and those beside it."""
    found: dict[Path, None] = {}
    for key in _DEFINITIONS_KEYS:
        setting = configuration.get(key)
        if setting is None:
            continue
        path = Path(setting.value)
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside or not all(one.exists() for one in inside):
            examination.say(
                "note", "config.unread", f"the definitions {setting.value!r} are not here", setting.file, setting.line
            )
            examination.blind(f"what the definitions {setting.value!r} say", "run this where they can be read")
            continue
        found.update(dict.fromkeys(inside))
    beside = Path(configuration.main).parent / "definitions.json"
    if beside.is_file():
        found[beside] = None
    return list(found)[:16]


def _is_definitions(path: Path) -> bool:
    if path.suffix == ".json":
        return True
    if path.suffix in (".conf", ".config") or path.name == "enabled_plugins":
        return False
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise ConfigurationError(
            Problem(f"it cannot be read: {error.strerror}", str(path), hint="check its mode")
        ) from error
    return head.lstrip().startswith(b"{")


def _shown(path: str) -> str:
    return path if path.isprintable() else repr(path)
