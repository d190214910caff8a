"""Who can reach a node and what proves who he is, as its files set it up: listeners, logins, backends."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topicwarden_collectors.rabbitmq.conf import Configuration, table
from topicwarden_collectors.rabbitmq.conf_lines import Setting
from topicwarden_collectors.rabbitmq.doctor_examination import Examination, add_lines, argument, commands, remove_line

_INTERNAL: Final = ("internal", "rabbit_auth_backend_internal")
_PROTOCOLS: Final = (
    # Prefix of the listeners' keys, the plugin (None: always there), port without configuration, TLS port.
    ("listeners", None, 5672, 5671, "AMQP"),
    ("mqtt.listeners", "rabbitmq_mqtt", 1883, 8883, "MQTT"),
    ("stomp.listeners", "rabbitmq_stomp", 61613, 61614, "STOMP"),
    ("stream.listeners", "rabbitmq_stream", 5552, 5551, "streams"),
)
_WEB: Final = (
    ("management", "rabbitmq_management", 15672),
    ("web_mqtt", "rabbitmq_web_mqtt", 15675),
    ("web_stomp", "rabbitmq_web_stomp", 15674),
)
_SECRETS: Final = ("pass", "secret", "token")


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener without encryption."""

    title: str
    address: str
    """'' = every address."""
    port: int
    key: str
    setting: Setting | None

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_local(self.address)


def is_local(address: str) -> bool:
    """Whether an address to listen on is reached from the same machine only; '' stands for every address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def check_access(examination: Examination, configuration: Configuration) -> None:
    """Judge what the files say about listeners and logins."""
    for problem in configuration.refused:
        examination.say("problem", "config.accepted", problem.message, problem.file, problem.line)
    for problem in configuration.unread:
        examination.say("note", "config.unread", problem.message, problem.file, problem.line)
        examination.blind(f"what {problem.file!r} says: {problem.message}")
    _exposed(examination, configuration)
    _listeners(examination, configuration)
    _anonymous(examination, configuration)
    _loopback(examination, configuration)
    _backends(examination, configuration)
    examination.ok("config.accepted", "config.exposed")
    if configuration.plugins is not None:
        examination.ok("listener.plain-text", "listener.management")
    examination.ok("login.anonymous", "guest.remote", "login.backends")
    if configuration.plugins is None:
        examination.blind("listeners of plugins (MQTT, STOMP, streams, management): which are enabled is not known")


def guest_is_remote(configuration: Configuration) -> Setting | None:
    """Return the setting that lets guest log in from other machines; None when there is none.

    Any `loopback_users.NAME` replaces the default list, which is guest alone (3.10.8).
    """
    none = configuration.get("loopback_users")
    if none is not None and none.value == "none":
        return none
    listed = configuration.below("loopback_users")
    if any(one.key == "loopback_users.guest" and one.value == "true" for one in listed):
        return None
    return next((one for one in listed if one.key != "loopback_users"), None)


def plain_listeners(configuration: Configuration) -> Iterator[Listener]:
    """Yield every listener without TLS, those too that RabbitMQ opens when none is configured."""
    for prefix, plugin, port, _tls, title in _PROTOCOLS:
        if plugin is not None and not configuration.has_plugin(plugin):
            continue
        configured = configuration.below(f"{prefix}.tcp")
        if not configured and configuration.term("rabbit" if plugin is None else plugin, "tcp_listeners") is None:
            yield Listener(title, "", port, f"{prefix}.tcp.default", None)
        for setting in configured:
            address, _, number = setting.value.rpartition(":")
            if number.isdigit():
                yield Listener(title, address, int(number), setting.key, setting)


def _listeners(examination: Examination, configuration: Configuration) -> None:
    for listener in plain_listeners(configuration):
        if listener.local:
            continue
        where = f"port {listener.port} of {listener.address or 'every address'}"
        examination.say(
            "warning",
            "listener.plain-text",
            f"{listener.title} is offered at {where} without encryption: passwords and messages can be read on the way",
            listener.setting.file if listener.setting else configuration.main,
            listener.setting.line if listener.setting else None,
            _local_only(configuration, listener),
        )
    for prefix, plugin, port in _WEB:
        if not configuration.has_plugin(plugin):
            continue
        tls = configuration.below(f"{prefix}.ssl")
        plain = configuration.below(f"{prefix}.tcp")
        if tls and not plain:
            continue
        address = next((one for one in plain if one.key.endswith(".ip")), None)
        if address is not None and is_local(address.value):
            continue
        check = "listener.management" if prefix == "management" else "listener.plain-text"
        what = "the management API" if prefix == "management" else plugin
        place = address or (plain[0] if plain else None)
        examination.say(
            "warning",
            check,
            f"{what} is offered at {'every address' if address is None else address.value!r} without encryption:"
            " passwords of users who may change grants can be read on the way",
            place.file if place else configuration.main,
            place.line if place else None,
            add_lines(configuration.main, f"{prefix}.tcp.port = {port}", f"{prefix}.tcp.ip = 127.0.0.1"),
        )


def _local_only(configuration: Configuration, listener: Listener) -> str:
    kind, _, name = listener.key.partition(".tcp.")
    escaped = name.replace(".", "\\.")
    return add_lines(configuration.main, f"{kind}.tcp.{escaped} = 127.0.0.1:{listener.port}")


def _anonymous(examination: Examination, configuration: Configuration) -> None:
    """MQTT and STOMP take clients without a login in under the name of a default user (3.10.8 and later)."""
    main = configuration.main
    if configuration.has_plugin("rabbitmq_mqtt"):
        allowed = configuration.get("mqtt.allow_anonymous")
        term = configuration.term("rabbitmq_mqtt", "allow_anonymous")
        if (allowed is None and term != "false") or (allowed is not None and allowed.value != "false"):
            user = configuration.get("mqtt.default_user")
            examination.say(
                "warning",
                "login.anonymous",
                f"MQTT clients without a login are let in as {user.value if user else 'guest'!r}, when that user exists"
                " with the configured password: then nothing tells who they are",
                allowed.file if allowed else main,
                allowed.line if allowed else None,
                add_lines(main, "mqtt.allow_anonymous = false"),
            )
    if configuration.has_plugin("rabbitmq_stomp"):
        user = configuration.get("stomp.default_user")
        # There is no switch: a CONNECT without login takes the default user's name and password (3.10.8).
        examination.say(
            "warning" if user is not None else "note",
            "login.anonymous",
            f"STOMP clients without a login are let in as {user.value if user else 'guest'!r}, when that user exists"
            " with the configured password: then nothing tells who they are",
            user.file if user else main,
            user.line if user else None,
            remove_line(user.file, user.line) if user else commands("rabbitmqctl delete_user guest"),
        )
    mechanisms = [one for one in configuration.below("auth_mechanisms") if one.value.upper() == "ANONYMOUS"]
    named = configuration.get("anonymous_login_user")
    if named is None and not mechanisms:
        examination.say(
            "note",
            "login.anonymous",
            "RabbitMQ 4.0 and newer let AMQP clients without a login in as 'guest' (from the broker's own machine,"
            " while loopback_users is left alone); older versions do not know the setting",
            main,
            fix=add_lines(main, "anonymous_login_user = none"),
        )
    if named is not None:
        mechanisms = [] if named.value == "none" else [*mechanisms, named]
    for setting in mechanisms:
        examination.say(
            "warning",
            "login.anonymous",
            "AMQP clients without a login are let in: nothing tells who they are",
            setting.file,
            setting.line,
            add_lines(main, "anonymous_login_user = none"),
        )


def _loopback(examination: Examination, configuration: Configuration) -> None:
    setting = guest_is_remote(configuration)
    if setting is not None:
        examination.say(
            "warning",
            "guest.remote",
            f"{setting.key} = {setting.value}: guest, whose password everybody knows unless it was changed, can log in"
            " from other machines",
            setting.file,
            setting.line,
            remove_line(setting.file, setting.line)
            if setting.key == "loopback_users"
            else add_lines(configuration.main, "loopback_users.guest = true"),
        )
    elif configuration.term("rabbit", "loopback_users") == []:
        examination.say(
            "warning",
            "guest.remote",
            "loopback_users is empty: guest, whose password everybody knows unless it was changed, can log in from"
            " other machines",
            configuration.advanced_file,
        )


def _backends(examination: Examination, configuration: Configuration) -> None:
    others: list[tuple[str, Setting | None]] = [
        (one.value, one) for one in configuration.below("auth_backends") if one.value not in _INTERNAL
    ]
    listed = configuration.term("rabbit", "auth_backends")
    for one in listed if isinstance(listed, list) else ():
        others += [(name, None) for name in _atoms(one) if name not in _INTERNAL]
    for name, setting in others:
        cached = "cache" in name
        examination.say(
            "note",
            "login.backends",
            f"{name!r} decides about logins or permissions too"
            + (": what it once allowed stays allowed until its cache forgets it" if cached else "")
            + "; what it grants is not in RabbitMQ's definitions",
            setting.file if setting else configuration.advanced_file,
            setting.line if setting else None,
        )
        examination.blind(f"what the authorisation backend {name!r} grants", "audit it where its rules are kept")
    if table(configuration.term("rabbit", "auth_mechanisms")):
        examination.blind("which login mechanisms advanced.config allows")


def _atoms(term: object) -> Sequence[str]:
    if isinstance(term, str):
        return [term]
    return [name for one in term for name in _atoms(one)] if isinstance(term, tuple | list) else []


def _exposed(examination: Examination, configuration: Configuration) -> None:
    holders = {one.file for key, one in configuration.settings.items() if any(word in key for word in _SECRETS)}
    holders |= {configuration.advanced_file} if any("pass" in key for _, key in configuration.terms) else set()
    for file in sorted(holders):
        try:
            mode = Path(file).stat().st_mode
        except (OSError, ValueError):
            continue
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            examination.say(
                "warning",
                "config.exposed",
                "everybody on this machine can read or change this file, which has a password in it"
                f" ({stat.S_IMODE(mode):04o})",
                file,
                fix=commands(f"chown root:rabbitmq {argument(file)}", f"chmod 0640 {argument(file)}"),
            )
