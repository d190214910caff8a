"""Who may connect to the broker and what proves it: listeners, logins, certificates, bridges."""

from __future__ import annotations

import re
import shlex
import stat

from topicwarden_collectors.mosquitto.acl_file import why_unreadable
from topicwarden_collectors.mosquitto.conf_files import MAX_FILE_BYTES, Disk, lines_of
from topicwarden_collectors.mosquitto.conf_model import Bridge, Listener, Origin, Setting, is_loopback
from topicwarden_collectors.mosquitto.doctor_examination import (
    DYNAMIC_SECURITY,
    Examination,
    append,
    insert,
    mode_text,
    remove,
    replace,
    run_as_root,
    together,
)

PASSWORD_FILE = "/etc/mosquitto/passwords"  # noqa: S105 - a path
_HASHED = re.compile(r"\$[67]\$")


def security_line(examination: Examination, listener: Listener, *lines: str) -> str:
    """Return the fix that adds security settings where they count for a listener."""
    configuration = examination.configuration
    if not configuration.per_listener:
        return insert(configuration.path, 1, *lines)
    return listener_line(examination, listener, *lines)


def listener_line(examination: Examination, listener: Listener, *lines: str) -> str:
    """Return the fix that adds options to a listener."""
    configuration = examination.configuration
    if listener.setting is None:
        return ""
    if listener.origin is Origin.LISTENER_LINE:
        return insert(listener.setting.file, listener.setting.line + 1, *lines)
    switch = configuration.get("per_listener_settings")
    if switch is not None and switch.file == configuration.path:
        return insert(switch.file, switch.line + 1, *lines)
    return insert(configuration.path, 1, *lines)


def check_listeners(examination: Examination) -> None:
    """Which listeners exist, by accident too, and what protects them."""
    configuration = examination.configuration
    for listener in configuration.listeners:
        if listener.origin is Origin.LOCAL_ONLY:
            examination.say(
                "note",
                "listener.local-only",
                "no listener is configured: the broker listens on port 1883 of the loopback addresses and lets"
                " everybody on this machine in, whatever allow_anonymous says",
                (configuration.path, None),
                append(configuration.path, "listener 1883 127.0.0.1"),
            )
        elif listener.origin is Origin.DEFAULT and configuration.local_only and listener.setting is not None:
            examination.say(
                "problem",
                "listener.default",
                f"{listener.setting.key} stands above every listener line: for it alone the broker opens port"
                f" {listener.port} on every address, and lets everybody in whatever allow_anonymous says",
                listener.setting,
                insert(listener.setting.file, listener.setting.line, "listener 1883 127.0.0.1"),
            )
        elif listener.origin is Origin.DEFAULT and listener.get("port") is None and listener.setting is not None:
            examination.say(
                "warning",
                "listener.default",
                f"{listener.setting.key} stands above every listener line of its file, so it belongs to a listener of"
                f" its own, which it opens on port {listener.port}",
                listener.setting,
                remove(listener.setting.file, listener.setting.line),
            )
        _encryption(examination, listener)
        if listener.on("use_identity_as_username") or listener.on("use_subject_as_username"):
            key = "use_identity_as_username" if listener.on("use_identity_as_username") else "use_subject_as_username"
            examination.say(
                "note",
                "listener.certificate-identity",
                f"{listener.title} takes user names from certificates: the broker tells plugins of no login there, so"
                " a client is first seen when it publishes, subscribes or leaves",
                listener.get(key),
            )
            examination.blind(
                f"logins on {listener.title}: user names come from certificates, and no plugin is told of them"
            )
    for check in ("listener.local-only", "listener.default", "listener.plain-text", "listener.client-certificate"):
        examination.ok(check)
    examination.ok("listener.certificate-identity")


def _encryption(examination: Examination, listener: Listener) -> None:
    if not (listener.tls or listener.psk or listener.local):
        examination.say(
            "problem",
            "listener.plain-text",
            f"{listener.title} is not encrypted: passwords and messages can be read and changed on the way",
            listener.setting,
            listener_line(
                examination,
                listener,
                "certfile /etc/mosquitto/certs/server.crt",
                "keyfile /etc/mosquitto/certs/server.key",
            ),
        )
    if listener.tls and not listener.on("require_certificate"):
        lines = ["require_certificate true"]
        if listener.get("cafile") is None and listener.get("capath") is None:
            lines.append("cafile /etc/mosquitto/ca_certificates/ca.crt")
        given = listener.get("require_certificate")
        fix = replace(given.file, given.line, *lines) if given else listener_line(examination, listener, *lines)
        examination.say(
            "note",
            "listener.client-certificate",
            f"{listener.title} takes clients without a certificate: only passwords tell who they are",
            given or listener.setting,
            fix,
        )


def _verified(examination: Examination, listener: Listener) -> bool | None:
    """Whether something verifies the identity of a listener's clients; None: perhaps a plugin."""
    security = examination.configuration.security_of(listener)
    certain = security.get("password_file") or (listener.psk and security.get("psk_file"))
    if certain or (listener.tls and listener.on("require_certificate")):
        return True
    return plugin_decides(examination, listener, "auth")


def plugin_decides(examination: Examination, listener: Listener, what: str) -> bool | None:
    """Whether a plugin beside ours decides logins (`auth`) or access (`acl`) of a listener's clients; None: perhaps."""
    others = [p for p in examination.configuration.plugins_of(listener) if not examination.is_ours(p)]
    if any(plugin.file_name == DYNAMIC_SECURITY for plugin in others):
        return True
    if not others:
        return False
    ours = examination.ours(listener)
    told = ours.option("other_plugins") if ours else None
    return None if told is None else what in told.value.split(",")


def check_logins(examination: Examination) -> None:
    """What proves who a client is, and whether one without a user name gets in."""
    configuration = examination.configuration
    for listener in configuration.listeners:
        anonymous, setting = configuration.allows_anonymous(listener)
        verified = _verified(examination, listener)
        reach = "warning" if listener.local else "problem"
        add = together(
            run_as_root(
                f"touch {PASSWORD_FILE}",
                f"chown root:{examination.machine.group_of(configuration.user)} {PASSWORD_FILE}",
                f"chmod 0640 {PASSWORD_FILE}",
                f"# mosquitto_passwd {PASSWORD_FILE} USER    for each user",
            ),
            security_line(examination, listener, f"password_file {PASSWORD_FILE}"),
        )
        if verified is False and anonymous:
            # Seen on 2.0.11: without any source CONNECT with a user name and no password is accepted.
            examination.say(
                reach,
                "login.source",
                f"nothing verifies who the clients of {listener.title} are: any user name is accepted, and every grant"
                " and every finding rests on what a client claims",
                setting or listener.setting or (configuration.path, None),
                add,
            )
        elif verified is None:
            examination.say(
                "note",
                "login.source",
                f"only a plugin could verify who the clients of {listener.title} are, and it is not known whether it"
                " does",
                listener.setting or (configuration.path, None),
            )
        elif not verified:
            examination.say(
                "problem",
                "login.source",
                f"nobody can log in on {listener.title}: anonymous clients are refused, and there is no password_file,"
                " psk_file, plugin or required certificate",
                listener.setting,
                add,
            )
        if anonymous:
            _anonymous(examination, listener, setting)
    for check in ("login.source", "login.anonymous"):
        examination.ok(check)
    _password_files(examination)


def _anonymous(examination: Examination, listener: Listener, setting: Setting | None) -> None:
    configuration = examination.configuration
    limited = configuration.security_of(listener).get("acl_file") is not None
    what = "with the rights the acl_file gives them" if limited else "and may do what anybody may"
    fix = ""
    if setting is not None:
        fix = replace(setting.file, setting.line, f"{setting.key} false")
    elif listener.origin is Origin.LOCAL_ONLY:
        fix = append(configuration.path, "listener 1883 127.0.0.1")
    examination.say(
        "note" if listener.origin is Origin.LOCAL_ONLY else "warning" if limited or listener.local else "problem",
        "login.anonymous",
        f"clients without a user name may connect to {listener.title}, {what}",
        setting or listener.setting or (configuration.path, None),
        fix,
    )


def _password_files(examination: Examination) -> None:
    configuration = examination.configuration
    securities = [configuration.security, *[listener.security for listener in configuration.listeners]]
    seen: set[str] = set()
    for security in securities:
        for key in ("password_file", "psk_file"):
            setting = security.get(key)
            if setting is not None and setting.value not in seen:
                seen.add(setting.value)
                _password_file(examination, setting)
    if seen:
        for check in ("login.file", "login.file-exposed", "login.plain"):
            examination.ok(check)


def _password_file(examination: Examination, setting: Setting) -> None:
    path = setting.value
    quoted = shlex.quote(path)
    group = examination.machine.group_of(examination.configuration.user)
    own = [f"chown root:{group} {quoted}", f"chmod 0640 {quoted}"]
    status = examination.machine.status(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        examination.say(
            "problem",
            "login.file",
            f"{setting.key} {path!r} is not there: the broker does not start",
            setting,
            run_as_root(f"touch {quoted}", *own),
        )
        return
    readable = examination.broker_may(path, 4)
    if readable is None:
        examination.cannot_tell("login.file", path, setting)
    elif not readable:
        examination.say(
            "problem",
            "login.file",
            f"{setting.key} {path!r} (mode {mode_text(status)}) cannot be read by the broker's user"
            f" {examination.configuration.user!r}: the broker does not start",
            setting,
            run_as_root(*own),
        )
    if status.st_mode & 0o007:
        examination.say(
            "problem" if status.st_mode & 0o002 or setting.key == "psk_file" else "warning",
            "login.file-exposed",
            f"everybody on this machine can {'change' if status.st_mode & 0o002 else 'read'} {setting.key} {path!r}"
            f" (mode {mode_text(status)})",
            setting,
            run_as_root(*own),
        )
    if setting.key == "password_file" and why_unreadable(path) is None:
        _hashes(examination, setting)


def _hashes(examination: Examination, setting: Setting) -> None:
    data = Disk().read(setting.value)[:MAX_FILE_BYTES]
    plain = [
        number
        for number, line in enumerate(lines_of(data), 1)
        if not line.startswith("#") and ":" in line and not _HASHED.match(line.partition(":")[2].strip())
    ]
    if plain:
        examination.say(
            "problem",
            "login.plain",
            f"{len(plain)} of the passwords in {setting.value!r} are not hashed: the broker refuses these users, and"
            " whoever reads the file has their passwords",
            (setting.value, plain[0]),
            run_as_root(f"mosquitto_passwd -U {shlex.quote(setting.value)}"),
        )


def check_bridges(examination: Examination) -> None:
    """What bridges bring in past every access check."""
    configuration = examination.configuration
    for bridge in configuration.bridges:
        incoming = [topic for topic in bridge.topics if topic.direction in ("in", "both")]
        if incoming:
            names = ", ".join(repr(topic.local_prefix + topic.pattern) for topic in incoming[:5])
            examination.say(
                "note",
                "bridge.bypass",
                f"bridge {bridge.name!r} brings in {names}{' …' if len(incoming) > 5 else ''} past the acl_file and"
                " every plugin's access check",
                incoming[0].setting,
            )
        if configuration.per_listener:
            examination.blind(
                f"everything bridge {bridge.name!r} brings in: under per_listener_settings no plugin is told of it",
                "set per_listener_settings false and load the plugin once",
            )
        elif incoming:
            examination.blind(
                f"who sent what bridge {bridge.name!r} brings in: it appears as the bridge, already accepted",
                "run topicwarden beside the remote broker too",
            )
        for topic in bridge.topics:
            if topic.pattern == "#" and not (topic.local_prefix or topic.remote_prefix):
                examination.say(
                    "warning",
                    "bridge.everything",
                    f"bridge {bridge.name!r} carries every topic ({topic.direction})",
                    topic.setting,
                )
        _bridge_secrets(examination, bridge)
    for check in ("bridge.bypass", "bridge.everything", "bridge.plain-text", "bridge.password-exposed"):
        if configuration.bridges:
            examination.ok(check)


def _bridge_secrets(examination: Examination, bridge: Bridge) -> None:
    remote = [host for host, _ in bridge.addresses if not is_loopback(host)]
    if remote and not bridge.tls:
        place = bridge.setting
        examination.say(
            "warning",
            "bridge.plain-text",
            f"bridge {bridge.name!r} to {remote[0]!r} is not encrypted",
            place,
            insert(place.file, place.line + 1, "bridge_cafile /etc/mosquitto/ca_certificates/ca.crt"),
        )
    for key in ("remote_password", "local_password", "bridge_psk"):
        setting = bridge.get(key)
        status = examination.machine.status(setting.file) if setting else None
        if setting is not None and status is not None and status.st_mode & 0o004:
            group = examination.machine.group_of(examination.configuration.user)
            quoted = shlex.quote(setting.file)
            examination.say(
                "problem",
                "bridge.password-exposed",
                f"{setting.key} of bridge {bridge.name!r} stands in a file that everybody on this machine can read"
                f" (mode {mode_text(status)})",
                setting,
                run_as_root(f"chown root:{group} {quoted}", f"chmod 0640 {quoted}"),
            )
