"""Judges a mosquitto.conf: can topicwarden see what happens at this broker, and who may do what.

Nothing is changed and no broker is asked; every claim about what the broker does with a line is one that the tests
put before a running Mosquitto 2.0.11. `docs/doctor.md` explains each check.
"""

from __future__ import annotations

from topicwarden.sources import DoctorReport
from topicwarden_collectors.mosquitto.conf import read_configuration
from topicwarden_collectors.mosquitto.conf_model import Origin
from topicwarden_collectors.mosquitto.conf_options import OPTIONS
from topicwarden_collectors.mosquitto.doctor_access import check_bridges, check_listeners, check_logins
from topicwarden_collectors.mosquitto.doctor_acl import check_acl
from topicwarden_collectors.mosquitto.doctor_examination import (
    CHECKS,
    Examination,
    Machine,
    append,
    insert,
    remove,
    replace,
    together,
)
from topicwarden_collectors.mosquitto.doctor_plugin import check_plugin
from topicwarden_collectors.mosquitto.doctor_ring import check_ring

__all__ = ["CHECKS", "diagnose"]

_LOG_TYPES_BESIDE_PLUGIN = tuple(
    f"log_type {kind}" for kind in ("error", "warning", "notice", "information", "subscribe", "unsubscribe")
)
_ISO_FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z")


def diagnose(path: str, machine: Machine | None = None) -> DoctorReport:
    """Judge the configuration at `path`.

    `machine` answers about files, users and mounts; None: this one. Raises ConfigurationError when `path` is missing,
    unreadable, a folder or no text.
    """
    examination = Examination(read_configuration(path), machine or Machine())
    _check_configuration(examination)
    check_plugin(examination)
    check_ring(examination)
    check_logins(examination)
    check_acl(examination)
    check_listeners(examination)
    check_bridges(examination)
    _check_log(examination)
    _check_rest(examination)
    _blind_spots(examination)
    order = {check: number for number, check in enumerate(CHECKS)}
    advice = sorted(examination.advice, key=lambda one: order[one.check])
    return DoctorReport(_title(examination), advice, examination.blind_spots)


def _title(examination: Examination) -> str:
    configuration = examination.configuration
    count = len(configuration.listeners)
    plugin = "plugin loaded" if any(examination.ours(one) for one in configuration.listeners) else "no plugin"
    name = configuration.path if configuration.path.isprintable() else repr(configuration.path)
    return f"mosquitto: {name} ({count} listener{'s' if count != 1 else ''}, {plugin})"


def _check_configuration(examination: Examination) -> None:
    configuration = examination.configuration
    for problem in configuration.refused:
        hint = f"; {problem.hint}" if problem.hint else ""
        place = (problem.file, problem.line) if problem.file else None
        examination.say(
            "problem",
            "config.accepted",
            f"the broker refuses this and does not start: {problem.message}{hint}",
            place,
            remove(problem.file, problem.line) if problem.file and problem.line else "",
        )
    for setting in configuration.unknown:
        examination.say(
            "problem",
            "config.unknown-option",
            f"no Mosquitto since 2.0 knows the option {setting.key!r}: the broker does not start",
            setting,
            remove(setting.file, setting.line),
        )
    for setting in configuration.every:
        option = OPTIONS.get(setting.key)
        if option is not None and option.since > (2, 0):
            needed = ".".join(str(part) for part in option.since)
            examination.say(
                "note",
                "config.newer-option",
                f"{setting.key} needs Mosquitto {needed} or newer: an older broker does not start",
                setting,
            )
    for problem in configuration.doubts:
        examination.say(
            "warning",
            "config.passed-over",
            problem.message + (f"; {problem.hint}" if problem.hint else ""),
            (problem.file or configuration.path, problem.line),
            remove(problem.file, problem.line) if problem.file and problem.line else "",
        )
    if len(configuration.listeners) > 1:
        for setting, listener in configuration.misplaced:
            examination.say(
                "warning",
                "config.scope",
                f"{setting.key} stands below {listener.title} but counts for every listener: per_listener_settings is"
                " off",
                setting,
                together(
                    remove(setting.file, setting.line),
                    insert(configuration.path, 1, f"{setting.key} {setting.value}"),
                )
                if not setting.key.endswith("plugin")
                else "",
            )
    user = configuration.get("user")
    if user is not None and user.value == "root":
        examination.say(
            "warning",
            "broker.user",
            "the broker keeps root's rights: whoever takes it over has the machine",
            user,
            replace(user.file, user.line, "user mosquitto"),
        )
    for check in CHECKS:
        if check.startswith("config.") or check == "broker.user":
            examination.ok(check)


def _check_log(examination: Examination) -> None:
    configuration = examination.configuration
    types, targets = configuration.log_topics, configuration.log_targets
    covered = all(examination.ours(listener) is not None for listener in configuration.listeners)
    if covered:
        costly = [setting for setting in configuration.log_types if setting.value in ("debug", "all")]
        if "debug" in types and costly:
            # Measured on 2.0.11: 1.4 to 1.8 times the broker's CPU per message.
            fixes = [
                replace(one.file, one.line, *_LOG_TYPES_BESIDE_PLUGIN)
                if one.value == "all"
                else remove(one.file, one.line)
                for one in reversed(costly)
            ]
            examination.say(
                "note",
                "log.cost",
                "the broker logs every publish although the plugin reports them: that costs it about half of its CPU"
                " again",
                costly[-1],
                together(*fixes),
            )
        examination.ok("log.cost")
        return
    place = configuration.log_types[-1] if configuration.log_types else (configuration.path, None)
    if "debug" not in types:
        examination.say(
            "problem",
            "log.publishes",
            "the log does not name publishes: they are messages of type debug",
            place,
            append(configuration.path, "log_type all"),
        )
    elif "subscribe" not in types:
        examination.say(
            "warning",
            "log.publishes",
            "the log does not say which subscriptions were granted: they are messages of type subscribe",
            place,
            append(configuration.path, "log_type subscribe"),
        )
    if "file" not in targets:
        only_topic = set(targets) == {"topic"}
        examination.say(
            "warning",
            "log.target",
            "the log goes to topics only, and the broker leaves publishes out of those"
            if only_topic
            else "the log goes to no file that could be followed",
            next((setting for setting in targets.values() if setting), None) or (configuration.path, None),
            append(configuration.path, "log_dest file /var/log/mosquitto/mosquitto.log"),
        )
    _timestamps(examination)
    for check in ("log.publishes", "log.target", "log.timestamps"):
        examination.ok(check)


def _timestamps(examination: Examination) -> None:
    configuration = examination.configuration
    switch, written = configuration.get("log_timestamp"), configuration.get("log_timestamp_format")
    if switch is not None and not switch.flag:
        examination.say(
            "problem",
            "log.timestamps",
            "log lines carry no time",
            switch,
            replace(switch.file, switch.line, "log_timestamp true"),
        )
    if written is not None and written.value not in _ISO_FORMATS:
        examination.say(
            "warning",
            "log.timestamps",
            f"log_timestamp_format {written.value!r} is not one that is surely understood; without a zone the reader"
            " must be told it",
            written,
            replace(written.file, written.line, f"log_timestamp_format {_ISO_FORMATS[1]}"),
        )


def _check_rest(examination: Examination) -> None:
    configuration = examination.configuration
    persistence, interval = configuration.get("persistence"), configuration.get("sys_interval")
    if persistence is not None and persistence.flag:
        examination.say(
            "note",
            "persistence.sessions",
            "sessions outlive the broker: messages are delivered for clients that are away, whose address and login"
            " nothing has seen since the broker started",
            persistence,
        )
        examination.blind("address and login of sessions restored from disk, until the client connects again")
    if interval is not None and interval.number == 0:
        examination.say(
            "note",
            "sys.interval",
            "the broker publishes no counters under $SYS: what topicwarden counts cannot be held against them",
            interval,
            replace(interval.file, interval.line, "sys_interval 10"),
        )
    examination.ok("persistence.sessions")
    examination.ok("sys.interval")


def _blind_spots(examination: Examination) -> None:
    configuration = examination.configuration
    covered = [listener for listener in configuration.listeners if examination.ours(listener)]
    for listener in configuration.listeners:
        if listener in covered:
            continue
        examination.blind(
            f"what clients of {listener.title} do, except for what the log says",
            "load the topicwarden plugin for it: check plugin.loaded or plugin.every-listener has the lines",
        )
    if not covered:
        if "debug" in configuration.log_topics:
            examination.blind(
                "payloads, MQTT 5 properties, the user of a refused login, wills when they are published, and times"
                " finer than a second: the log has none of them",
                "load the topicwarden plugin",
            )
        return
    examination.blind("denied publishes to $SYS and $share: the broker refuses them before it asks any plugin")
    examination.blind("the port a client connects from: Mosquitto 2.0 does not tell plugins")
    deliver = [plugin for plugin in examination.our_plugins if (o := plugin.option("deliver")) and o.value == "all"]
    if not deliver:
        examination.blind("who receives which message: deliveries are not recorded", "plugin_opt_deliver all")
    for plugin in examination.our_plugins:
        entropy = plugin.option("entropy")
        if entropy is not None and entropy.value == "off":
            examination.blind("the entropy of payloads: plugin_opt_entropy is off", "plugin_opt_entropy on")
    if configuration.per_listener:
        examination.blind(
            "whether the broker still runs while nothing happens: under per_listener_settings it never calls a plugin"
            " by the clock",
            "set per_listener_settings false and load the plugin once",
        )
    if any(listener.unix_socket is not None for listener in configuration.listeners):
        examination.blind("which process uses a Unix socket: the broker gives plugins the socket's path as address")
    if any(listener.origin is Origin.LOCAL_ONLY for listener in covered):
        examination.blind("clients told apart by address: on a local-only listener all have this machine's")
