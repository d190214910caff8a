"""Reads mosquitto.conf and the files it includes the way the broker does, keeping each value's file and line.

What the broker would refuse is kept and reported instead, so that one pass shows everything there is to say. The
rules are those of Mosquitto 2.0.11's `conf.c`; the tests put the same files before the running broker. Its quirks:

- a comment is a line whose first byte is `#`; a blank before it, or one after a value, makes it part of the text;
- only spaces separate an option from its value, tabs do not;
- each file starts anew: an option in an included file never belongs to the listener, bridge or plugin of another;
- only the main file's `include_dir` counts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from topicwarden.errors import Problem
from topicwarden_collectors.mosquitto.conf_files import Disk, Files, include_order, lines_of, main_file, reason, unfit
from topicwarden_collectors.mosquitto.conf_model import (
    LOG_TYPES_OF_ALL,
    Bridge,
    BridgeTopic,
    Configuration,
    Listener,
    Origin,
    Plugin,
    Security,
    Setting,
    leading_number,
)
from topicwarden_collectors.mosquitto.conf_options import (
    OPTIONS,
    PLUGIN_OPTION_PREFIXES,
    SAME_PLACE,
    Option,
    Scope,
    Take,
)

__all__ = [
    "Bridge",
    "BridgeTopic",
    "Configuration",
    "Listener",
    "Origin",
    "Plugin",
    "Security",
    "Setting",
    "read_configuration",
]

MAX_INCLUDED_FILES = 4096
MAX_PORT = 65535
MAX_QOS = 2
SHORTEST_PLUGIN_OPTION = 3
_BLANKS = " \t\n\v\f\r"
_LOG_DESTINATIONS = {"none", "syslog", "stdout", "stderr", "topic", "dlt", "file", "android"}
_LOG_TYPES = LOG_TYPES_OF_ALL | {"none", "all", "internal", "websockets"}
# 2.0.11 logs an error for these without a value, and starts all the same.
_MAY_BE_EMPTY = {"log_type", "max_connections", "persistent_client_expiration", "protocol", "retry_interval"}
_FLAGS = {"true", "false", "1", "0"}
# Set to these values an option above every listener does not make the broker open its default listener.
_DEFAULTS = {"max_connections": "-1", "max_qos": "2", "protocol": "mqtt"}


def read_configuration(path: str, files: Files | None = None) -> Configuration:
    """Read the configuration at `path`.

    Raises ConfigurationError when `path` itself is missing, unreadable, a folder or no text; everything else that is
    wrong is in the result's `refused`, `unknown` and `doubts`.
    """
    files = files or Disk()
    text = main_file(path, files)
    reader = _Reader(Configuration(path), files)
    reader.read_file(path, text, level=0)
    reader.finish()
    return reader.configuration


@dataclass(slots=True)
class _Place:
    """What the options that follow belong to; each file starts with an empty one."""

    listener: Listener | None = None
    bridge: Bridge | None = None
    plugin: Plugin | None = None


@dataclass(slots=True)
class _Reader:
    configuration: Configuration
    files: Files
    default: Listener = field(default_factory=lambda: Listener(Origin.DEFAULT, None))
    security_seen: bool = False

    def refuse(self, setting: Setting, message: str, hint: str | None = None) -> None:
        self.configuration.refused.append(Problem(message, setting.file, setting.line, hint))

    def doubt(self, setting: Setting, message: str, hint: str | None = None) -> None:
        self.configuration.doubts.append(Problem(message, setting.file, setting.line, hint))

    def read_file(self, path: str, lines: list[str], level: int) -> None:
        self.configuration.files.append(path)
        place = _Place()
        for number, line in enumerate(lines, 1):
            key, rest = _split(line)
            if key and not line.startswith("#"):
                self.take(Setting(key, rest, path, number), place, level)

    def take(self, written: Setting, place: _Place, level: int) -> None:
        if written.key.startswith(PLUGIN_OPTION_PREFIXES):
            self.configuration.every.append(written)
            self.plugin_option(written, place)
            return
        option = OPTIONS.get(written.key)
        if option is None:
            self.configuration.every.append(written)
            self.configuration.unknown.append(written)
            return
        setting = self.valued(written, option)
        self.configuration.every.append(setting)
        if option.name == "include_dir":
            self.include(setting, level)
        elif option.name == "listener":
            self.listener(setting, place)
        elif option.name == "connection":
            self.connection(setting, place)
        elif option.name in ("plugin", "auth_plugin", "global_plugin", "plugin_load", "plugin_use"):
            self.plugin(setting, place)
        elif option.scope is Scope.BRIDGE:
            self.bridge_option(setting, option, place)
        elif option.scope is Scope.SECURITY:
            self.keep(self.security(setting, place).settings, setting, option)
        elif option.scope is Scope.LISTENER:
            self.listener_option(setting, option, place)
        elif option.scope is Scope.PLUGIN:
            if place.plugin is None:
                self.refuse(setting, f"{option.name} belongs to a plugin, and no plugin line precedes it in this file")
        else:
            self.broker_option(setting, option)

    def valued(self, written: Setting, option: Option) -> Setting:
        """Return the setting with the value the broker takes from the rest of the line."""
        rest = written.value
        if option.take is Take.RAW:
            value = rest
        elif option.take is Take.TEXT:
            value = rest.strip(_BLANKS)
            if any("\udc80" <= character <= "\udcff" or not _plain(character) for character in value):
                self.refuse(written, f"value of {option.name} is not plain UTF-8 text: {value!r}")
        elif option.name == "log_dest":
            kind, _, target = rest.lstrip(" ").partition(" ")
            value = f"{kind} {target.lstrip(_BLANKS)}" if kind == "file" else kind
        elif option.take is Take.WORDS:
            value = " ".join(word for word in rest.split(" ") if word)
        else:
            value = next((word for word in rest.split(" ") if word), "")
        if not value and option.name in _MAY_BE_EMPTY:
            self.doubt(written, f"the broker complains of {option.name} without a value and goes on without it")
        elif not value:
            self.refuse(written, f"{option.name} has no value")
        elif option.take is Take.FLAG and value not in _FLAGS:
            self.refuse(written, f"{option.name} must be true or false, not {value!r}")
        return Setting(written.key, value, written.file, written.line)

    def keep(self, settings: dict[str, Setting], setting: Setting, option: Option) -> None:
        name = SAME_PLACE.get(option.name, option.name)
        earlier = settings.get(name)
        if earlier is not None and option.take is Take.TEXT:
            self.refuse(setting, f"{option.name} is set twice, first at {earlier.file}:{earlier.line}")
            return
        if setting.value:
            settings[name] = setting

    def security(self, setting: Setting, place: _Place) -> Security:
        """Return the security settings that an option written here changes."""
        self.security_seen = True
        if self.configuration.per_listener:
            return (place.listener or self.default).security
        if place.listener is not None:
            self.configuration.misplaced.append((setting, place.listener))
        return self.configuration.security

    def broker_option(self, setting: Setting, option: Option) -> None:
        name = option.name
        if name == "check_retain_source":
            self.security_seen = True  # Mosquitto 2.0.11 counts it as one although it holds for the whole broker
        if name == "per_listener_settings" and setting.flag and self.security_seen:
            self.refuse(
                setting,
                "per_listener_settings stands below a security setting",
                "move it above every other setting, included files counted",
            )
        if name in ("port", "bind_address"):
            self.default.setting = self.default.setting or setting
            if name == "port" and not 1 <= setting.number <= MAX_PORT:
                self.refuse(setting, f"invalid port {setting.value!r}")
            self.keep(self.default.settings, setting, option)
        elif name == "log_dest":
            kind, _, target = setting.value.partition(" ")
            if kind not in _LOG_DESTINATIONS or (kind == "file" and not target):
                self.refuse(setting, f"invalid log_dest {setting.value!r}")
            elif kind == "file" and any(s.words[0] == "file" for s in self.configuration.log_destinations):
                self.refuse(setting, "log_dest file is set twice")
            else:
                self.configuration.log_destinations.append(setting)
        elif name == "log_type":
            first = setting.value.partition(" ")[0]
            if not first:
                return
            if first not in _LOG_TYPES:
                self.refuse(setting, f"invalid log_type {setting.value!r}")
            else:
                self.configuration.log_types.append(Setting(setting.key, first, setting.file, setting.line))
        else:
            self.keep(self.configuration.settings, setting, option)

    def listener_option(self, setting: Setting, option: Option, place: _Place) -> None:
        if option.name == "mount_point" and not self.configuration.listeners:
            self.refuse(setting, "mount_point stands above every listener")
        listener = place.listener or self.default
        if (
            setting.value
            and listener is self.default
            and option.makes_default_listener
            and self.default.setting is None
        ):
            name = SAME_PLACE.get(option.name, option.name)
            unchanged = not setting.flag if option.take is Take.FLAG else setting.value == _DEFAULTS.get(name)
            if not unchanged:
                self.default.setting = setting
        self.keep(listener.settings, setting, option)

    def listener(self, setting: Setting, place: _Place) -> None:
        words = setting.words
        port = leading_number(words[0]) if words else -1
        where = words[1] if len(words) > 1 and not words[1].startswith("#") else None
        if not words:
            return
        if not 0 <= port <= MAX_PORT:
            self.refuse(setting, f"invalid port {words[0]!r}")
        if port == 0 and where is None:
            self.refuse(setting, "a listener with port 0 needs the path of its Unix socket")
        place.listener = Listener(
            Origin.LISTENER_LINE,
            setting,
            port,
            address=where if port else None,
            unix_socket=None if port else where,
        )
        self.configuration.listeners.append(place.listener)

    def connection(self, setting: Setting, place: _Place) -> None:
        words = setting.words
        if not words:
            return
        if any(bridge.name == words[0] for bridge in self.configuration.bridges):
            self.refuse(setting, f"there are two bridges named {words[0]!r}")
        place.bridge = Bridge(words[0], setting)
        self.configuration.bridges.append(place.bridge)

    def bridge_option(self, setting: Setting, option: Option, place: _Place) -> None:
        bridge = place.bridge
        if bridge is None:
            self.refuse(setting, f"{option.name} belongs to a bridge, and no connection line precedes it in this file")
        elif option.name in ("address", "addresses"):
            if bridge.addresses:
                self.refuse(setting, f"bridge {bridge.name!r} has two address lines")
            for word in setting.words:
                if word.startswith("#"):
                    break
                host, colon, port = word.rpartition(":")
                bridge.addresses.append((host, leading_number(port)) if colon else (word, 1883))
        elif option.name == "topic":
            self.bridge_topic(setting, bridge)
        else:
            self.keep(bridge.settings, setting, option)

    def bridge_topic(self, setting: Setting, bridge: Bridge) -> None:
        words = setting.words
        if not words:
            return
        direction = words[1].lower() if len(words) > 1 else "out"
        if direction not in ("in", "out", "both"):
            self.refuse(setting, f"invalid direction {words[1]!r} of a bridge's topic")
        qos = leading_number(words[2]) if len(words) > 2 else 0
        if not 0 <= qos <= MAX_QOS:
            self.refuse(setting, f"invalid QoS {words[2]!r} of a bridge's topic")
        prefixes = ["" if word == '""' or word.startswith("#") else word for word in [*words[3:5], '""', '""'][:2]]
        bridge.topics.append(BridgeTopic(words[0], direction, qos, prefixes[0], prefixes[1], setting))

    def plugin(self, setting: Setting, place: _Place) -> None:
        configuration = self.configuration
        if setting.key == "plugin_use":
            if place.listener is None:
                self.refuse(setting, "plugin_use stands above every listener")
            else:
                place.listener.plugins_used.append(setting)
            return
        if setting.key == "plugin_load":
            name, _, path = setting.value.partition(" ")
            place.plugin = configuration.loaded[name] = Plugin(path.strip(_BLANKS), setting, name)
            return
        place.plugin = Plugin(setting.value, setting)
        if setting.key == "global_plugin":
            self.security_seen = True
            configuration.security.plugins.append(place.plugin)
        else:
            self.security(setting, place).plugins.append(place.plugin)

    def plugin_option(self, written: Setting, place: _Place) -> None:
        prefix = next(prefix for prefix in PLUGIN_OPTION_PREFIXES if written.key.startswith(prefix))
        key = written.key.removeprefix(prefix)
        value = written.value.lstrip(" \t")
        if place.plugin is None:
            self.refuse(written, f"{written.key} belongs to a plugin, and no plugin line precedes it in this file")
        elif len(key) < SHORTEST_PLUGIN_OPTION:
            self.refuse(written, f"{written.key} is too short: the broker wants {SHORTEST_PLUGIN_OPTION} letters")
        elif not value:
            self.refuse(written, f"{written.key} has no value")
        else:
            place.plugin.options.append(Setting(key, value, written.file, written.line))

    def include(self, setting: Setting, level: int) -> None:
        if level > 0:
            self.doubt(setting, "the broker passes over include_dir in an included file")
            return
        folder = setting.value
        try:
            names = [name for name in self.files.names(folder) if name.endswith(".conf") and len(name) > len(".conf")]
        except (OSError, ValueError) as error:
            blanks = "; the broker takes the blanks around the path as part of it" if folder.strip() != folder else ""
            self.refuse(setting, f"include_dir {folder!r} cannot be read: {reason(error)}{blanks}")
            return
        names.sort(key=include_order)
        if len(names) > MAX_INCLUDED_FILES:
            self.doubt(setting, f"include_dir holds {len(names)} files; those after {MAX_INCLUDED_FILES} were not read")
        for name in names[:MAX_INCLUDED_FILES]:
            self.include_file(setting, f"{folder}/{name}")

    def include_file(self, setting: Setting, path: str) -> None:
        if os.path.realpath(path) == os.path.realpath(self.configuration.path):
            self.doubt(
                setting,
                f"the main file {path!r} lies in its own include_dir, so the broker reads it twice",
                "give include_dir a folder of its own",
            )
        try:
            data = self.files.read(path)
        except OSError as error:
            self.refuse(setting, f"included file {path!r} cannot be read: {reason(error)}")
            return
        why = unfit(data)
        if why:
            self.refuse(setting, f"included file {path!r} {why}")
            return
        self.read_file(path, lines_of(data), level=1)

    def finish(self) -> None:
        """Add the listeners that no line names, and what only the whole can show."""
        configuration, default = self.configuration, self.default
        own = default.security
        makers = [own.get("password_file"), own.get("psk_file"), *[plugin.setting for plugin in own.plugins]]
        zero = own.get("allow_zero_length_clientid")
        if zero is not None and not zero.flag:
            makers.append(zero)
        default.setting = default.setting or next((maker for maker in makers if maker), None)
        if default.setting is not None:
            port, address = default.get("port"), default.get("bind_address")
            default.port = port.number if port else default.port
            default.address = address.value if address else None
            configuration.listeners.append(default)
        elif not configuration.listeners:
            # Made anew: what stands above it as listener options or, per listener, as security is lost (2.0.11).
            configuration.listeners.append(Listener(Origin.LOCAL_ONLY, None))
        for bridge in configuration.bridges:
            if not bridge.addresses or not bridge.topics:
                missing = "address" if not bridge.addresses else "topic"
                self.refuse(bridge.setting, f"bridge {bridge.name!r} has no {missing} line")


def _split(line: str) -> tuple[str, str]:
    """Cut a line as strtok() does: the option, and what follows the one space behind it."""
    line = line.lstrip(" ")
    key, _, rest = line.partition(" ")
    return key, rest


def _plain(character: str) -> bool:
    """Whether the broker's UTF-8 check lets a character pass (C0, C1 and DEL do not)."""
    return not (character < " " or "\x7f" <= character <= "\x9f")
