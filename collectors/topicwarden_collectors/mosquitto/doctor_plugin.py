"""Whether the topicwarden plugin sees every client, and whether its ring can be made and trusted."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from topicwarden_collectors.mosquitto.conf_model import Listener, Origin, Plugin
from topicwarden_collectors.mosquitto.doctor_examination import (
    DEFAULT_RING,
    DYNAMIC_SECURITY,
    PLUGIN_FILE,
    Examination,
    append,
    insert,
    mode_text,
    remove,
    replace,
    run_as_root,
    together,
)

_SLOTS = {1 << power for power in range(10, 25)}


def _is_mode(value: str) -> bool:
    return re.fullmatch(r"[0-7]+", value) is not None and int(value, 8) <= 0o777 and int(value, 8) & 0o600 == 0o600


def _is_slots(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", value) is not None and int(value) in _SLOTS


def _is_socket_path(value: str) -> bool:
    return value.startswith("/") and len(os.fsencode(value)) < 108


def _is_wait(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,3}", value) is not None and 1 <= int(value) <= 100


_OPTIONS: Mapping[str, tuple[Callable[[str], bool], str]] = MappingProxyType(
    {
        "ring": (lambda value: value.startswith("/"), "an absolute path"),
        "config": (lambda value: value.startswith("/"), "an absolute path"),
        "slots": (_is_slots, "a power of two from 1024 to 16777216"),
        "mode": (_is_mode, "an octal file mode that lets the owner read and write, such as 0640"),
        "entropy": (lambda value: value in ("on", "off"), "on or off"),
        "deliver": (lambda value: value in ("off", "all"), "off or all"),
        "other_plugins": (
            lambda value: value in ("none", "acl", "auth", "acl,auth", "auth,acl"),
            "none, acl, auth or acl,auth",
        ),
        "peer_port": (lambda value: value in ("on", "off"), "on or off"),
        "attribute": (_is_socket_path, "an absolute path of at most 107 bytes"),
        "attribute_wait": (_is_wait, "a number of milliseconds from 1 to 100"),
    }
)
"""The plugin's options (brokers/mosquitto/options.c): what it takes, and how to say so."""


def plugin_lines(ring: str = DEFAULT_RING) -> Sequence[str]:
    """Return the lines that load the plugin."""
    return [f"plugin {PLUGIN_FILE}", f"plugin_opt_ring {ring}"]


def check_plugin(examination: Examination) -> None:
    """Is our plugin loaded, first, for every listener, with good options and a file only root can change."""
    configuration = examination.configuration
    ours = examination.our_plugins
    listeners = configuration.listeners
    without = [listener for listener in listeners if examination.ours(listener) is None]
    if not ours or (len(without) == len(listeners) and configuration.per_listener):
        _not_loaded(examination)
        return
    examination.ok("plugin.loaded")
    for listener in without:
        examination.say(
            "problem",
            "plugin.every-listener",
            f"{listener.title} does not load the plugin: nothing its clients do is seen",
            listener.setting,
            _load_for(examination, listener),
        )
    examination.ok("plugin.every-listener")
    for listener in listeners:
        _order(examination, listener)
    examination.ok("plugin.first")
    examination.ok("plugin.other-plugins")
    for plugin in ours:
        _options(examination, plugin)
        _file(examination, plugin)
        _configuration(examination, plugin)
    for listener in listeners:
        if examination.ours(listener) is not None:
            _logins(examination, listener)
    examination.ok("plugin.logins")
    examination.ok("plugin.configuration")
    examination.ok("plugin.option")
    examination.ok("plugin.file")
    examination.ok("plugin.file-writable")


def _not_loaded(examination: Examination) -> None:
    configuration = examination.configuration
    logged = "debug" in configuration.log_topics and "file" in configuration.log_targets
    message = "the topicwarden plugin is not loaded; "
    if logged:
        message += "only the log can be watched, which names no rejected login's user and costs the broker more"
    else:
        message += "nothing else shows who publishes what"
    place = (configuration.path, None)
    if not configuration.per_listener:
        fix = insert(configuration.path, _first_line(examination), *plugin_lines())
    elif configuration.local_only and all(listener.origin is Origin.LOCAL_ONLY for listener in configuration.listeners):
        message += "; under per_listener_settings it is loaded for a listener, and there is none"
        fix = append(configuration.path, "listener 1883 127.0.0.1", "allow_anonymous true", *plugin_lines())
    else:
        fixes = [
            _load_for(examination, listener) for listener in configuration.listeners if listener.setting is not None
        ]
        fix = together(*reversed(fixes))
    examination.say("warning" if logged else "problem", "plugin.loaded", message, place, fix)


def _first_line(examination: Examination) -> int:
    """Return the line of the main file above which the plugin stands before every other.

    That is the first line: an earlier plugin may come from an included file, and an option of another plugin must
    not follow ours.
    """
    first = examination.configuration.path
    plugins = [plugin for plugin in examination.configuration.plugins if plugin.setting.file == first]
    includes = [setting for setting in examination.configuration.every if setting.key == "include_dir"]
    if plugins and not includes:
        return plugins[0].setting.line
    return 1


def _load_for(examination: Examination, listener: Listener) -> str:
    """Return the fix that loads the plugin for one listener under per_listener_settings, before its other plugins."""
    configuration = examination.configuration
    first = next(iter(listener.security.plugins), None)
    if first is not None:
        return insert(first.setting.file, first.setting.line, *plugin_lines())
    switch = configuration.get("per_listener_settings")
    if listener.origin is Origin.LISTENER_LINE and listener.setting is not None:
        return insert(listener.setting.file, listener.setting.line + 1, *plugin_lines())
    if switch is not None:
        return insert(switch.file, switch.line + 1, *plugin_lines())
    return ""


def _order(examination: Examination, listener: Listener) -> None:
    plugins = examination.configuration.plugins_of(listener)
    ours = examination.ours(listener)
    if ours is None:
        return
    told = ours.option("other_plugins")
    before = [
        plugin
        for plugin in plugins[: plugins.index(ours)]
        if plugin.file_name == DYNAMIC_SECURITY or told is None or told.value != "none"
    ]
    if before and not _said(examination, "plugin.first", ours):
        names = ", ".join(repr(plugin.file_name) for plugin in before)
        examination.say(
            "problem",
            "plugin.first",
            f"{names} stands before the topicwarden plugin: what it decides is not seen",
            ours.setting,
            _move_first(ours, before[0]),
        )
    if told is not None:
        return
    for plugin in plugins:
        if examination.is_ours(plugin) or plugin.file_name == DYNAMIC_SECURITY:
            continue
        if not _said(examination, "plugin.other-plugins", ours):
            examination.say(
                "problem",
                "plugin.other-plugins",
                f"what the plugin {plugin.file_name!r} decides is not known, so decisions are not observed: say"
                " whether it decides access (acl), logins (auth), both (acl,auth) or nothing (none)",
                ours.setting,
                insert(ours.setting.file, ours.setting.line + 1, "plugin_opt_other_plugins acl,auth"),
            )


def _logins(examination: Examination, listener: Listener) -> None:
    """Say where the plugin leaves logins alone because Mosquitto's versions differ in what allow_anonymous means."""
    configuration = examination.configuration
    security = configuration.security_of(listener)
    setting = security.get("allow_anonymous")
    others = any(not examination.is_ours(plugin) for plugin in configuration.plugins_of(listener))
    if others:
        return
    message = "so the plugin does not observe logins there: Mosquitto's versions differ in what it means"
    if configuration.per_listener:
        switch = configuration.get("per_listener_settings")
        if listener.origin is Origin.DEFAULT and setting is None and switch is not None:
            examination.say(
                "warning",
                "plugin.logins",
                f"allow_anonymous is not set for {listener.title}, {message}",
                listener.setting,
                insert(switch.file, switch.line + 1, "allow_anonymous false"),
            )
    elif configuration.local_only and setting is not None and not setting.flag:
        examination.say(
            "warning",
            "plugin.logins",
            f"allow_anonymous is false and there is no listener line, {message}",
            setting,
            append(configuration.path, "listener 1883 127.0.0.1"),
        )


def _configuration(examination: Examination, plugin: Plugin) -> None:
    """Say which configuration files root reads at the broker's start and the plugin cannot, after it left root."""
    group = examination.machine.group_of(examination.configuration.user)
    for path in dict.fromkeys(examination.configuration.files):
        readable = examination.broker_may(path, 4)
        if readable is None:
            examination.cannot_tell("plugin.configuration", path, plugin.setting)
        elif not readable:
            quoted = shlex.quote(path)
            examination.say(
                "problem",
                "plugin.configuration",
                f"the broker reads {path!r} as root, the plugin as user {examination.configuration.user!r}, who cannot:"
                " it then observes accepted publishes only",
                (path, None),
                run_as_root(f"chown root:{group} {quoted}", f"chmod 0640 {quoted}"),
            )


def _said(examination: Examination, check: str, plugin: Plugin) -> bool:
    return any(
        advice.check == check and (advice.file, advice.line) == (plugin.setting.file, plugin.setting.line)
        for advice in examination.advice
    )


def _move_first(ours: Plugin, other: Plugin) -> str:
    """Return the fix that moves our lines above another plugin's; "" when they stand in different files."""
    if ours.setting.file != other.setting.file:
        return ""
    lines = [f"{ours.setting.key} {ours.setting.value}"]
    lines += [f"plugin_opt_{option.key} {option.value}" for option in ours.options]
    file = ours.setting.file
    taken = sorted([ours.setting.line, *[option.line for option in ours.options]], reverse=True)
    return together(*[remove(file, line) for line in taken], insert(file, other.setting.line, *lines))


def _options(examination: Examination, plugin: Plugin) -> None:
    for option in plugin.options:
        known = _OPTIONS.get(option.key)
        if known is None:
            examination.say(
                "warning",
                "plugin.option",
                f"the plugin has no option {option.key!r} and passes it over",
                option,
                remove(option.file, option.line),
            )
        elif not known[0](option.value):
            examination.say(
                "warning",
                "plugin.option",
                f"plugin_opt_{option.key} {option.value!r} is not {known[1]}; the plugin uses its default",
                option,
                remove(option.file, option.line),
            )
    config = plugin.option("config")
    main = examination.configuration.path
    if config is not None and config.value.startswith("/") and not _same_file(config.value, main):
        examination.say(
            "problem",
            "plugin.option",
            f"plugin_opt_config names {config.value!r}, which is not this configuration: the plugin would judge by"
            " the wrong one",
            config,
            replace(config.file, config.line, f"plugin_opt_config {os.path.realpath(main)}"),
        )


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _file(examination: Examination, plugin: Plugin) -> None:
    path, place = plugin.path, plugin.setting
    status = examination.machine.status(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        examination.say(
            "problem",
            "plugin.file",
            f"{path!r} is not there: the broker does not start",
            place,
            run_as_root(f"make -C brokers/mosquitto && install -D -m 0644 brokers/mosquitto/{plugin.file_name} {path}"),
        )
        return
    readable = examination.broker_may(path, 4)
    if readable is None:
        examination.cannot_tell("plugin.file", path, place)
    elif not readable:
        examination.say(
            "problem",
            "plugin.file",
            f"{path!r} (mode {mode_text(status)}) cannot be read by the broker's user"
            f" {examination.configuration.user!r}",
            place,
            run_as_root(f"chmod a+r {shlex.quote(path)}"),
        )
    if status.st_mode & 0o022 or status.st_uid != 0:
        examination.say(
            "problem",
            "plugin.file-writable",
            f"{path!r} (mode {mode_text(status)}, owner {status.st_uid}) can be changed by others than root: what is"
            " in it runs inside the broker",
            place,
            run_as_root(f"chown root {shlex.quote(path)}", f"chmod go-w {shlex.quote(path)}"),
        )
