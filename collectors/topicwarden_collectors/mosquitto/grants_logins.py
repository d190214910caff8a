"""Who can log in at a Mosquitto, as far as its configuration says: names and where they come from, never a secret.

From `security_default.c` and `handle_connect.c` (2.0.11), each point tried out on the running broker:

- an empty user name is no user name;
- where a password_file stands, other names than those in it are refused; where none does, any name is taken, without
  password, when clients without a name may connect, and nobody gets in when they may not;
- a line of the password_file without a hash the broker can read counts as none;
- with `use_identity_as_username` names come from certificates, or from the psk_file; nothing else is asked then;
- with `use_username_as_clientid` the client id is the user name, whatever the client sent, and clients without a name
  are refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from topicwarden.errors import Problem
from topicwarden_collectors.mosquitto.conf_files import Files, lines_of, reason, unfit
from topicwarden_collectors.mosquitto.conf_model import Configuration, Listener, Plugin, Security, Setting
from topicwarden_collectors.mosquitto.doctor_examination import DYNAMIC_SECURITY, PLUGIN_NAME

MAX_NAME_BYTES: Final = 65535
SALT_BYTES: Final = 12
HASH_BYTES: Final = 64
AUTO_ID_PREFIX: Final = "auto-"
MADE_UP_ID: Final = "00000000-0000-0000-0000-000000000000"
"""Stands for the UUID that the broker gives a client without an id."""
_BLANKS: Final = " \t\n\v\f\r"
_NON_CHARACTERS: Final = "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
_UNSENDABLE: Final = re.compile(f"[\0-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NON_CHARACTERS}]")


def sendable(text: str) -> bool:
    """Whether the broker takes a packet with this user name, client id or topic in it (2.0.11 closes otherwise)."""
    return _UNSENDABLE.search(text) is None and len(text.encode("utf-8", "surrogateescape")) <= MAX_NAME_BYTES


@dataclass(frozen=True, slots=True)
class Names:
    """The user names of a password_file or psk_file."""

    usable: Sequence[str] = ()
    """Those who can log in."""
    unusable: frozenset[str] = frozenset()
    """Those whose every line the broker passes over."""


def read_names(setting: Setting, files: Files, problems: list[Problem]) -> Names:
    """Read the names in the file a `password_file` or `psk_file` line names; what is wrong goes to `problems`."""
    try:
        data = files.read(setting.value)
    except (OSError, ValueError) as error:
        problems.append(
            Problem(
                f"{setting.key} {setting.value!r} cannot be read: {reason(error)}",
                setting.file,
                setting.line,
                "run this where the broker runs, as root or as the broker's own user",
            )
        )
        return Names()
    why = unfit(data)
    if why:
        problems.append(Problem(f"{setting.key} {why}", setting.value))
        return Names()
    return parse_names(data, hashed=setting.key == "password_file")


def parse_names(data: bytes, *, hashed: bool) -> Names:
    """Return the names in the contents of a password_file (`hashed`) or psk_file."""
    found: dict[str, bool] = {}
    for line in lines_of(data):
        if line.startswith("#") or ":" not in line:
            continue
        # strtok(): separators in a row count once.
        parts = [part for part in line.split(":") if part]
        if len(parts) > 1:
            name = parts[0].strip(_BLANKS)
            fits = _decodable(parts[1].strip(_BLANKS)) if hashed else bool(parts[1].strip(_BLANKS))
            found[name] = found.get(name, False) or (fits and bool(name) and sendable(name))
        elif parts:
            found.setdefault(parts[0].strip(_BLANKS), False)
    return Names(
        tuple(name for name, usable in found.items() if usable),
        frozenset(name for name, usable in found.items() if not usable),
    )


def _decodable(password: str) -> bool:
    """Whether the broker can read a hash: `$6$salt$hash` or `$7$rounds$salt$hash`, in base64 of fixed lengths."""
    parts = [part for part in password.split("$") if part]
    if parts[:1] == ["7"]:
        if len(parts) < 2 or not re.match(r"[ \t]*\+?0*[1-9]", parts[1], re.ASCII):
            return False
        del parts[1]
    elif parts[:1] != ["6"]:
        return False
    if len(parts) < 3:
        return False
    return _size(parts[1]) == SALT_BYTES and _size(parts[2]) == HASH_BYTES


def _size(text: str) -> int | None:
    try:
        return len(base64.b64decode(text.encode("ascii"), validate=True))
    except (binascii.Error, ValueError):
        return None


@dataclass(slots=True)
class Logins:
    """Who can log in on some listeners together."""

    names: dict[str, None] = field(default_factory=dict)
    """Users that the configuration names and the broker verifies."""
    unusable: set[str] = field(default_factory=set)
    """Users in a password_file that cannot log in for want of a hash."""
    anonymous: bool = False
    """Whether clients without a user name get in."""
    unverified: bool = False
    """Whether any user name is taken without proof."""
    others: list[str] = field(default_factory=list)
    """Why users that are not named here may get in; without full stop."""
    ids_are_names: bool = False
    """Whether every client's id is its user name."""
    known: bool = True
    """Whether the mosquitto.conf was read."""
    auto_id_prefix: str = AUTO_ID_PREFIX

    @property
    def closed(self) -> bool:
        """Whether nobody but `names` (and, when `anonymous`, clients without a name) can connect."""
        return not self.others and not self.unverified

    def admit(self, user: str | None) -> bool:
        """Whether a client with this user name could connect."""
        if user is None:
            return self.anonymous
        return user in self.names or (not self.closed and sendable(user))

    def id_of(self, user: str | None, client_id: str) -> str:
        """Return the client id that the broker goes by."""
        if self.ids_are_names and user is not None:
            return user
        return client_id or self.auto_id_prefix + MADE_UP_ID


def unknown_logins() -> Logins:
    """Return what is known when only an acl_file was read: nothing."""
    return Logins(
        anonymous=True, known=False, others=["who can log in stands in the mosquitto.conf, which was not read"]
    )


def logins_on(
    configuration: Configuration, listeners: Sequence[Listener], names: Mapping[tuple[str, str], Names]
) -> Logins:
    """Return who can log in on these listeners; `names` by option and path."""
    logins = Logins(ids_are_names=all(listener.on("use_username_as_clientid") for listener in listeners))
    for listener in listeners:
        _add(logins, configuration, listener, names)
    logins.others = list(dict.fromkeys(logins.others))
    return logins


def _add(
    logins: Logins, configuration: Configuration, listener: Listener, names: Mapping[tuple[str, str], Names]
) -> None:
    security = configuration.security_of(listener)
    prefix = security.get("auto_id_prefix")
    if prefix is not None:
        logins.auto_id_prefix = prefix.value
    others = deciding_plugins(configuration, listener, "auth")
    if listener.psk and (listener.on("use_identity_as_username") or listener.on("use_subject_as_username")):
        if listener.on("use_identity_as_username"):
            _take(logins, security, "psk_file", names)
            logins.others += [f"plugin {plugin.file_name} may know more keys than the psk_file" for plugin in others]
        return
    if listener.tls and (listener.on("use_identity_as_username") or listener.on("use_subject_as_username")):
        logins.others.append(
            f"user names on {listener.title} come from certificates: whom the certificate authority names can log in"
        )
        return
    for plugin in others:
        logins.others.append(f"plugin {plugin.file_name} decides, or may decide, who can log in on {listener.title}")
    anonymous, _ = configuration.allows_anonymous(listener)
    logins.anonymous |= anonymous and not listener.on("use_username_as_clientid")
    if security.get("password_file") is not None:
        _take(logins, security, "password_file", names)
    elif anonymous and not others:
        logins.unverified = True


def _take(logins: Logins, security: Security, key: str, names: Mapping[tuple[str, str], Names]) -> None:
    setting = security.get(key)
    found = names.get((key, setting.value)) if setting is not None else None
    if found is not None:
        logins.names.update(dict.fromkeys(found.usable))
        logins.unusable |= found.unusable


def deciding_plugins(configuration: Configuration, listener: Listener, what: str) -> Sequence[Plugin]:
    """Return the plugins that decide, or may decide, logins (`auth`) or access (`acl`) of a listener's clients.

    Ours decides nothing, and its option `other_plugins` says what those beside it do.
    """
    plugins = configuration.plugins_of(listener)
    ours = next((plugin for plugin in plugins if plugin.file_name == PLUGIN_NAME), None)
    told = ours.option("other_plugins") if ours else None
    harmless = told is not None and what not in told.value.split(",")
    return [
        plugin
        for plugin in plugins
        if plugin.file_name != PLUGIN_NAME
        and (is_dynsec(plugin) or (plugin.file_name != DYNAMIC_SECURITY and not harmless))
    ]


def is_dynsec(plugin: Plugin) -> bool:
    """Whether a plugin is the dynamic security plugin, and at work: without its file it does nothing (2.0.11)."""
    return plugin.file_name == DYNAMIC_SECURITY and plugin.option("config_file") is not None


def name_settings(configuration: Configuration, listeners: Iterable[Listener]) -> Sequence[Setting]:
    """Return the lines that name files of user names for these listeners, each file once."""
    found: dict[tuple[str, str], Setting] = {}
    for listener in listeners:
        security = configuration.security_of(listener)
        for key in ("password_file", "psk_file"):
            setting = security.get(key)
            if setting is not None:
                found.setdefault((key, setting.value), setting)
    return list(found.values())
