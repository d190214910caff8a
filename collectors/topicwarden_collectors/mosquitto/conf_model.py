"""A mosquitto.conf as the broker understands it: settings with their places, listeners, plugins and bridges.

The scoping rules are those of Mosquitto 2.0 (`conf.c`); where 2.1 adds a directive it is understood too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from topicwarden.errors import Problem

DEFAULT_PORT = 1883
_NUMBER_DIGITS = 18
LOG_TYPES_BY_DEFAULT = frozenset({"error", "warning", "notice", "information"})
LOG_TYPES_OF_ALL = LOG_TYPES_BY_DEFAULT | {"debug", "subscribe", "unsubscribe"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of a configuration file."""

    key: str
    """The option as written."""
    value: str
    """What the broker takes as its value; bytes that are not UTF-8 are surrogate escapes."""
    file: str
    line: int
    """1-based."""

    @property
    def words(self) -> Sequence[str]:
        """The value cut at spaces, as the broker cuts it (tabs do not separate)."""
        return [word for word in self.value.split(" ") if word]

    @property
    def flag(self) -> bool:
        """The value of a true/false option."""
        return self.value in ("true", "1")

    @property
    def number(self) -> int:
        """The value of a numeric option, as atoi() reads it: leading digits count, anything else is 0."""
        return leading_number(self.value)


def leading_number(text: str) -> int:
    """Return the number `text` begins with, 0 when it begins with none: what C's atoi() does with sane lengths."""
    text = text.lstrip(" \t")
    sign = -1 if text.startswith("-") else 1
    text = text.removeprefix("-") if sign < 0 else text.removeprefix("+")
    digits = ""
    for character in text[:_NUMBER_DIGITS]:
        if character not in "0123456789":
            break
        digits += character
    return sign * int(digits or "0")


@dataclass(slots=True)
class Plugin:
    """One plugin that the broker loads, with its options in the order written."""

    path: str
    setting: Setting
    """The line that loads it (`plugin`, `auth_plugin`, `global_plugin` or, from 2.1, `plugin_load`)."""
    name: str | None = None
    """The name `plugin_load` gives it."""
    options: list[Setting] = field(default_factory=list)
    """Their keys without `plugin_opt_` or `auth_opt_`."""

    @property
    def file_name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def option(self, key: str) -> Setting | None:
        """Return the last option of that name."""
        return next((option for option in reversed(self.options) if option.key == key), None)


@dataclass(slots=True)
class Security:
    """Who may log in and do what: of one listener, or of the whole broker."""

    settings: dict[str, Setting] = field(default_factory=dict)
    """`acl_file`, `password_file`, `psk_file`, `allow_anonymous` … by option name."""
    plugins: list[Plugin] = field(default_factory=list)
    """In the order the broker asks them."""

    def get(self, key: str) -> Setting | None:
        """Return the setting of that name."""
        return self.settings.get(key)


class Origin(Enum):
    """Why a listener exists."""

    LISTENER_LINE = "listener"
    DEFAULT = "default"
    """From `port`, `bind_address` or another listener option above every `listener` line."""
    LOCAL_ONLY = "local-only"
    """No listener is configured: the broker listens on the loopback addresses alone."""


@dataclass(slots=True)
class Listener:
    """One place where clients connect."""

    origin: Origin
    setting: Setting | None
    """Its `listener` line; for the default listener the first line that makes it; None in local-only mode."""
    port: int = DEFAULT_PORT
    """0 for a Unix socket."""
    address: str | None = None
    """As written; None: every address of the machine."""
    unix_socket: str | None = None
    settings: dict[str, Setting] = field(default_factory=dict)
    security: Security = field(default_factory=Security)
    """Its own; counts only under `per_listener_settings true`."""
    plugins_used: list[Setting] = field(default_factory=list)
    """`plugin_use` lines (2.1)."""

    def get(self, key: str) -> Setting | None:
        """Return the listener's setting of that name."""
        return self.settings.get(key)

    def on(self, key: str) -> bool:
        """Whether the listener's true/false option is set and true."""
        setting = self.settings.get(key)
        return setting is not None and setting.flag

    @property
    def protocol(self) -> str:
        """`mqtt`, `websockets` or, from 2.1, `http_api`."""
        setting = self.settings.get("protocol")
        return setting.value if setting else "mqtt"

    @property
    def tls(self) -> bool:
        """Whether clients must speak TLS with a server certificate."""
        return "certfile" in self.settings or "keyfile" in self.settings

    @property
    def psk(self) -> bool:
        """Whether clients must speak TLS with a pre-shared key."""
        return "psk_hint" in self.settings

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it: a Unix socket or a loopback address."""
        if self.origin is Origin.LOCAL_ONLY or self.unix_socket is not None:
            return True
        if self.get("bind_interface") is not None and self.settings["bind_interface"].value == "lo":
            return True
        return self.address is not None and is_loopback(self.address)

    @property
    def title(self) -> str:
        """`listener 8883 on 10.0.0.1`, for messages."""
        if self.unix_socket is not None:
            return f"listener on Unix socket {self.unix_socket!r}"
        if self.origin is Origin.LOCAL_ONLY:
            return f"local-only listener {self.port}"
        kind = "listener" if self.origin is Origin.LISTENER_LINE else "default listener"
        where = "every address" if self.address is None else repr(self.address)
        return f"{kind} {self.port} on {where}"


def is_loopback(address: str) -> bool:
    """Whether an address or host name as written can only mean this machine; other names are not looked up."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class BridgeTopic:
    """One `topic` line of a bridge."""

    pattern: str
    direction: str
    """`in`, `out` or `both`."""
    qos: int
    local_prefix: str
    remote_prefix: str
    setting: Setting


@dataclass(slots=True)
class Bridge:
    """A connection this broker makes to another."""

    name: str
    setting: Setting
    addresses: list[tuple[str, int]] = field(default_factory=list)
    topics: list[BridgeTopic] = field(default_factory=list)
    settings: dict[str, Setting] = field(default_factory=dict)

    def get(self, key: str) -> Setting | None:
        """Return the bridge's setting of that name."""
        return self.settings.get(key)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return any(
            key in self.settings for key in ("bridge_cafile", "bridge_capath", "bridge_psk", "bridge_tls_use_os_certs")
        )


@dataclass(slots=True)
class Configuration:
    """A whole configuration, its included files among it."""

    path: str
    files: list[str] = field(default_factory=list)
    """In the order read; a file read twice is there twice."""
    settings: dict[str, Setting] = field(default_factory=dict)
    """Of the whole broker; where an option may stand more than once the last one, which is the one that counts."""
    security: Security = field(default_factory=Security)
    """Of the whole broker; under `per_listener_settings true` only 2.1's `global_plugin` lines are in it."""
    listeners: list[Listener] = field(default_factory=list)
    bridges: list[Bridge] = field(default_factory=list)
    loaded: dict[str, Plugin] = field(default_factory=dict)
    """Plugins loaded by `plugin_load` (2.1), by name."""
    log_destinations: list[Setting] = field(default_factory=list)
    log_types: list[Setting] = field(default_factory=list)
    every: list[Setting] = field(default_factory=list)
    """Every line, in the order read; a bridge's or plugin's options too."""
    misplaced: list[tuple[Setting, Listener]] = field(default_factory=list)
    """Security options written below a listener that count for the whole broker, `per_listener_settings` being off."""
    unknown: list[Setting] = field(default_factory=list)
    """Options no broker version we know has."""
    refused: list[Problem] = field(default_factory=list)
    """Why the broker does not start with it, as far as can be told without starting it."""
    doubts: list[Problem] = field(default_factory=list)
    """What the broker passes over in silence and its author may not have meant."""

    def get(self, key: str) -> Setting | None:
        """Return the whole broker's setting of that name."""
        return self.settings.get(key)

    @property
    def per_listener(self) -> bool:
        """Whether each listener has its own security settings and plugins."""
        setting = self.settings.get("per_listener_settings")
        return setting is not None and setting.flag

    @property
    def local_only(self) -> bool:
        """Whether neither `listener` nor `port` nor `bind_address` is set.

        The broker then allows anonymous clients, whatever `allow_anonymous` says (2.0.11, seen on the running broker).
        """
        return not any(setting.key in ("listener", "port", "bind_address") for setting in self.every)

    @property
    def user(self) -> str:
        """The system user the broker becomes when it is started as root."""
        setting = self.settings.get("user")
        return setting.value if setting else "mosquitto"

    def security_of(self, listener: Listener) -> Security:
        """Return the security settings that count for a listener."""
        return listener.security if self.per_listener else self.security

    def plugins_of(self, listener: Listener) -> Sequence[Plugin]:
        """Return the plugins that see a listener's clients, in the order the broker asks them."""
        own = listener.security.plugins if self.per_listener else []
        used = [self.loaded[use.value] for use in listener.plugins_used if use.value in self.loaded]
        return [*self.security.plugins, *own, *used]

    @property
    def plugins(self) -> Sequence[Plugin]:
        """Every plugin the configuration loads, each line once, in the order read."""
        found: dict[int, Plugin] = {}
        for plugin in _all_plugins(self.security, self.loaded, self.listeners):
            found.setdefault(id(plugin), plugin)
        order = {id(setting): index for index, setting in enumerate(self.every)}
        return sorted(found.values(), key=lambda plugin: order.get(id(plugin.setting), 0))

    def allows_anonymous(self, listener: Listener) -> tuple[bool, Setting | None]:
        """Return whether clients without a user name may connect, and the line that says so (None: the default)."""
        own = listener.get("listener_allow_anonymous")
        setting = own or self.security_of(listener).get("allow_anonymous")
        if listener.origin is Origin.LOCAL_ONLY:
            return True, None
        if self.local_only and not self.per_listener:
            return True, None
        if setting is None and self.per_listener and listener.origin is Origin.DEFAULT:
            # 2.0.11 makes the default listener after it has given every listener its default, so "not set" stays, and
            # lets clients in until the first reload. Seen on the running broker.
            return True, None
        return (setting.flag, setting) if setting else (False, None)

    @property
    def log_topics(self) -> frozenset[str]:
        """The types of messages logged: `error`, `debug` …; `all` is spelt out."""
        if not self.log_types:
            return LOG_TYPES_BY_DEFAULT
        types: frozenset[str] = frozenset()
        for setting in self.log_types:
            if setting.value == "none":
                types = frozenset()
            elif setting.value == "all":
                types = LOG_TYPES_OF_ALL
            else:
                types |= {setting.value}
        return types

    @property
    def log_targets(self) -> Mapping[str, Setting | None]:
        """Where messages are logged: `file`, `syslog`, `stdout`, `stderr`, `topic`, each with its line."""
        if not self.log_destinations:
            return {"stderr": None}
        targets: dict[str, Setting | None] = {}
        for setting in self.log_destinations:
            kind = setting.value.partition(" ")[0]
            if kind == "none":
                targets = {}
            else:
                targets[kind] = setting
        return targets

    @property
    def log_file(self) -> str | None:
        """The file of `log_dest file`."""
        setting = self.log_targets.get("file")
        return setting.value.partition(" ")[2].strip(" \t") if setting else None


def _all_plugins(security: Security, loaded: Mapping[str, Plugin], listeners: Iterable[Listener]) -> Iterable[Plugin]:
    yield from security.plugins
    yield from loaded.values()
    for listener in listeners:
        yield from listener.security.plugins
