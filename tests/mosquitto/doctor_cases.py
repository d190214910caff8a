"""For each check of the doctor configurations where it speaks and ones where it keeps quiet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.brokers import free_port
from tests.mosquitto.plugin_build import build_plugin
from topicwarden_collectors.mosquitto.doctor_examination import Machine, Mount

USER = 54321
"""A user that owns nothing here."""


class TestedMachine(Machine):
    """This machine, with chosen answers about users and mounts."""

    __test__ = False

    def __init__(self, user: int | None, mounts: Sequence[Mount] | None = None) -> None:
        self.user = user
        self.chosen = mounts

    def identity(self, user: str) -> tuple[int, frozenset[int]] | None:
        return None if self.user is None else (self.user, frozenset({self.user}))

    def group_of(self, user: str) -> str:
        return "root"

    def mounts(self) -> Sequence[Mount]:
        return [Mount("/", "tmpfs")] if self.chosen is None else self.chosen


@dataclass
class Place:
    """Where one case lives."""

    folder: Path
    plugin: str = ""
    port: int = field(default_factory=free_port)
    other: int = field(default_factory=free_port)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def file(self, name: str, text: str = "", mode: int = 0o640) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def acl(self, text: str, mode: int = 0o640) -> str:
        return f"acl_file {self.file('acl', text, mode)}"

    def ring(self) -> str:
        (self.folder / "ring").mkdir(exist_ok=True)
        (self.folder / "ring").chmod(0o755)
        return f"plugin_opt_ring {self.folder}/ring/mosquitto.ring"

    def ours(self) -> str:
        self.plugin = self.path("topicwarden_mosquitto.so")
        if not Path(self.plugin).exists():
            Path(self.plugin).write_bytes(build_plugin().read_bytes())
            Path(self.plugin).chmod(0o644)
        return f"plugin {self.plugin}\n{self.ring()}"

    def other_plugin(self) -> str:
        """The same file under another name: to the doctor an unknown plugin, to the broker one that loads."""
        self.ours()
        path = self.folder / "somebody.so"
        path.write_bytes(Path(self.plugin).read_bytes())
        return f"plugin {path}"

    @property
    def listener(self) -> str:
        return f"listener {self.port} 127.0.0.1"

    @property
    def wide(self) -> str:
        return f"listener {self.port}"

    @property
    def tls(self) -> str:
        return f"certfile {self.path('certs/server.crt')}\nkeyfile {self.path('certs/server.key')}"


Build = Callable[[Place], str]


@dataclass(frozen=True)
class Case:
    """One check with a configuration where it speaks and one where it does not."""

    check: str
    speaks: Build
    quiet: Build
    fix: bool = True
    """Whether the advice has lines to apply."""
    starts: bool = True
    """Whether the real broker must start once they are applied."""
    level: str | None = None
    user: int | None = 0
    mounts: tuple[Mount, ...] | None = None
    note: str = ""


def _folder(place: Place, name: str, mode: int) -> str:
    path = place.folder / name
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    return str(path)


_HASH = "$6$1a2b3c4d5e6f7a8b$" + "A" * 86 + "=="

CASES: Sequence[Case] = [
    Case("config.accepted", lambda p: f"{p.listener}\nallow_anonymous maybe\n", lambda p: p.listener, level="problem"),
    Case("config.unknown-option", lambda p: f"{p.listener}\nlog_tipe all\n", lambda p: p.listener, level="problem"),
    Case("config.newer-option", lambda p: f"{p.listener}\nglobal_max_clients 5\n", lambda p: p.listener, fix=False),
    Case(
        "config.passed-over",
        lambda p: f"include_dir {_included(p, f'include_dir {p.folder}')}\n{p.listener}",
        lambda p: f"include_dir {_included(p, 'sys_interval 10')}\n{p.listener}",
    ),
    Case(
        "config.scope",
        lambda p: f"{p.listener}\nallow_anonymous true\nlistener {p.other} 127.0.0.1\n",
        lambda p: f"allow_anonymous true\n{p.listener}\nlistener {p.other} 127.0.0.1\n",
    ),
    Case(
        "config.scope",
        lambda p: f"{p.listener}\nlistener {p.other} 127.0.0.1\n{p.acl('topic read a')}\n",
        lambda p: f"per_listener_settings true\n{p.listener}\nlistener {p.other} 127.0.0.1\n{p.acl('topic read a')}\n",
    ),
    Case("broker.user", lambda p: f"user root\n{p.listener}", lambda p: f"user mosquitto\n{p.listener}"),
    Case("plugin.loaded", lambda p: p.listener, lambda p: f"{p.ours()}\n{p.listener}", level="problem"),
    Case(
        "plugin.loaded",
        lambda p: f"{p.listener}\nlog_type all\nlog_dest file {p.path('log')}",
        lambda p: f"{p.ours()}\n{p.listener}",
        level="warning",
    ),
    Case(
        "plugin.loaded",
        lambda p: f"per_listener_settings true\n{p.listener}\nlistener {p.other} 127.0.0.1\n",
        lambda p: f"per_listener_settings true\n{p.listener}\n{p.ours()}\n",
    ),
    Case(
        "plugin.loaded",
        lambda p: "per_listener_settings true\n",
        lambda p: f"per_listener_settings true\n{p.listener}\n{p.ours()}\n",
    ),
    Case(
        "plugin.loaded",
        lambda p: f"{p.other_plugin()}\n{p.listener}\n",
        lambda p: f"{p.ours()}\n{p.listener}",
        note="the fix stands before the other plugin",
    ),
    Case(
        "plugin.every-listener",
        lambda p: f"per_listener_settings true\n{p.listener}\n{p.ours()}\nlistener {p.other} 127.0.0.1\n",
        lambda p: f"{p.ours()}\n{p.listener}\nlistener {p.other} 127.0.0.1\n",
        level="problem",
    ),
    Case(
        "plugin.every-listener",
        lambda p: f"per_listener_settings true\n{p.listener}\n{p.ours()}\nport {p.other}\nbind_address 127.0.0.1\n",
        lambda p: f"per_listener_settings true\n{p.ours()}\nport {p.other}\nbind_address 127.0.0.1\n",
    ),
    Case(
        "plugin.first",
        lambda p: f"{p.other_plugin()}\n{p.ours()}\nplugin_opt_entropy off\n{p.listener}\n",
        lambda p: f"{p.ours()}\nplugin_opt_other_plugins none\n{p.other_plugin()}\n{p.listener}\n",
        level="problem",
    ),
    Case(
        "plugin.first",
        lambda p: f"plugin {p.path('mosquitto_dynamic_security.so')}\n{p.ours()}\n{p.listener}\n",
        lambda p: f"{p.other_plugin()}\n{p.ours()}\nplugin_opt_other_plugins none\n{p.listener}\n",
        starts=False,
        note="no dynamic security file here; a plugin said to decide nothing may stand anywhere",
    ),
    Case(
        "plugin.other-plugins",
        lambda p: f"{p.ours()}\n{p.other_plugin()}\n{p.listener}\n",
        lambda p: f"{p.ours()}\nplugin {p.path('mosquitto_dynamic_security.so')}\n{p.listener}\n",
        level="problem",
    ),
    Case(
        "plugin.option",
        lambda p: f"{p.ours()}\nplugin_opt_colour blue\n{p.listener}",
        lambda p: f"{p.ours()}\nplugin_opt_slots 4096\nplugin_opt_mode 0640\nplugin_opt_entropy off\n{p.listener}",
    ),
    Case(
        "plugin.option",
        lambda p: f"{p.ours()}\nplugin_opt_slots 1000\n{p.listener}",
        lambda p: f"{p.ours()}\nplugin_opt_deliver all\nplugin_opt_other_plugins auth,acl\n{p.listener}",
    ),
    Case(
        "plugin.option",
        lambda p: f"{p.ours()}\nplugin_opt_config /etc/other.conf\n{p.listener}",
        lambda p: f"{p.ours()}\nplugin_opt_config {p.path('mosquitto.conf')}\n{p.listener}",
        level="problem",
    ),
    Case(
        "plugin.logins",
        lambda p: f"{p.ours()}\nallow_anonymous false\n",
        lambda p: f"{p.ours()}\nallow_anonymous false\n{p.listener}",
    ),
    Case(
        "plugin.logins",
        lambda p: f"per_listener_settings true\n{p.ours()}\nport {p.port}\nbind_address 127.0.0.1\n",
        lambda p: (
            f"per_listener_settings true\n{p.ours()}\nallow_anonymous true\nport {p.port}\nbind_address 127.0.0.1\n"
        ),
    ),
    Case(
        "plugin.configuration",
        lambda p: _unreadable_include(p, 0o600),
        lambda p: _unreadable_include(p, 0o644),
        user=USER,
        fix=False,
        level="problem",
        note="the lines are those of login.file, which root can only apply for a real user",
    ),
    Case(
        "plugin.file",
        lambda p: f"plugin {p.path('gone/topicwarden_mosquitto.so')}\n{p.ring()}\n{p.listener}",
        lambda p: f"{p.ours()}\n{p.listener}",
        fix=False,
        level="problem",
        note="its fix builds and installs: tried on its own",
    ),
    Case(
        "plugin.file-writable",
        lambda p: _writable_plugin(p),
        lambda p: f"{p.ours()}\n{p.listener}",
        level="problem",
    ),
    Case(
        "ring.folder",
        lambda p: f"{p.ours().split(chr(10))[0]}\nplugin_opt_ring {p.path('none/x.ring')}\n{p.listener}",
        lambda p: f"{p.ours()}\n{p.listener}",
        level="problem",
    ),
    Case(
        "ring.memory",
        lambda p: f"{p.ours()}\n{p.listener}",
        lambda p: p.listener,
        mounts=(Mount("/", "ext4"), Mount("/dev/shm", "tmpfs")),
        level="warning",
    ),
    Case(
        "ring.writable",
        lambda p: f"{p.ours()}\n{p.listener}",
        lambda p: f"{p.ours().split(chr(10))[0]}\nplugin_opt_ring {_folder(p, 'open', 0o1777)}/x\n{p.listener}",
        user=USER,
        fix=False,
        level="problem",
    ),
    Case(
        "ring.replaceable",
        lambda p: f"{p.ours().split(chr(10))[0]}\nplugin_opt_ring {_folder(p, 'open', 0o777)}/x\n{p.listener}",
        lambda p: f"{p.ours()}\n{p.listener}",
        level="problem",
    ),
    Case(
        "ring.replaceable",
        lambda p: f"{p.ours().split(chr(10))[0]}\nplugin_opt_ring {_folder(p, 'open', 0o1777)}/x\n{p.listener}",
        lambda p: f"{p.ours()}\n{p.listener}",
        level="warning",
    ),
    Case(
        "login.source",
        lambda p: f"allow_anonymous true\n{p.wide}",
        lambda p: f"password_file {p.file('pw')}\n{p.wide}",
        level="problem",
    ),
    Case(
        "login.source",
        lambda p: p.listener,
        lambda p: f"{p.listener}\n{p.tls}\ncafile {p.path('certs/ca.crt')}\nrequire_certificate true\n",
        level="problem",
        note="nobody can log in",
    ),
    Case(
        "login.source",
        lambda p: f"{p.other_plugin()}\n{p.listener}",
        lambda p: f"{p.ours()}\nplugin_opt_other_plugins auth\n{p.other_plugin()}\n{p.listener}",
        fix=False,
        level="note",
    ),
    Case(
        "login.anonymous",
        lambda p: f"password_file {p.file('pw')}\nallow_anonymous true\n{p.wide}",
        lambda p: f"password_file {p.file('pw')}\n{p.wide}",
        level="problem",
    ),
    Case("login.anonymous", lambda p: "", lambda p: p.listener, level="note"),
    Case(
        "login.file",
        lambda p: f"password_file {p.path('gone')}\n{p.listener}",
        lambda p: f"password_file {p.file('pw')}\n{p.listener}",
        level="problem",
    ),
    Case(
        "login.file-exposed",
        lambda p: f"password_file {p.file('pw', '', 0o644)}\n{p.listener}",
        lambda p: f"password_file {p.file('pw')}\n{p.listener}",
        level="warning",
    ),
    Case(
        "login.file-exposed",
        lambda p: f"psk_file {p.file('psk', 'bob:abcd', 0o644)}\n{p.listener}\npsk_hint x\n",
        lambda p: f"psk_file {p.file('psk', 'bob:abcd')}\n{p.listener}\npsk_hint x\n",
        level="problem",
    ),
    Case(
        "login.plain",
        lambda p: f"password_file {p.file('pw', 'bob:secret' + chr(10))}\n{p.listener}",
        lambda p: f"password_file {p.file('pw', '# bob:secret' + chr(10) + 'bob:' + _HASH + chr(10))}\n{p.listener}",
        level="problem",
    ),
    Case(
        "listener.default",
        lambda p: "max_connections 5\n",
        lambda p: f"{p.listener}\nmax_connections 5\n",
        level="problem",
    ),
    Case(
        "listener.default",
        lambda p: f"max_connections 5\n{p.listener}\n",
        lambda p: f"port {p.port}\nbind_address 127.0.0.1\nmax_connections 5\n",
        level="warning",
    ),
    Case("listener.local-only", lambda p: "", lambda p: p.listener, level="note"),
    Case("listener.plain-text", lambda p: p.wide, lambda p: p.listener, level="problem"),
    Case(
        "listener.plain-text",
        lambda p: f"listener {p.port} 0.0.0.0",
        lambda p: f"{p.wide}\n{p.tls}",
        level="problem",
    ),
    Case(
        "listener.client-certificate",
        lambda p: f"{p.listener}\n{p.tls}",
        lambda p: f"{p.listener}\n{p.tls}\ncafile {p.path('certs/ca.crt')}\nrequire_certificate true",
    ),
    Case(
        "listener.client-certificate",
        lambda p: f"{p.listener}\n{p.tls}\ncafile {p.path('certs/ca.crt')}\nrequire_certificate false",
        lambda p: p.listener,
    ),
    Case(
        "listener.certificate-identity",
        lambda p: f"{p.listener}\n{p.tls}\nuse_identity_as_username true",
        lambda p: f"{p.listener}\n{p.tls}\nuse_identity_as_username false",
        fix=False,
    ),
    Case("acl.present", lambda p: p.wide, lambda p: f"{p.acl('pattern readwrite %u/#')}\n{p.wide}", level="problem"),
    Case(
        "acl.present",
        lambda p: p.listener,
        lambda p: f"plugin {p.path('mosquitto_dynamic_security.so')}\n{p.listener}",
        level="warning",
    ),
    Case(
        "acl.present",
        lambda p: f"{p.other_plugin()}\n{p.listener}",
        lambda p: f"{p.ours()}\nplugin_opt_other_plugins acl\n{p.other_plugin()}\n{p.listener}",
        fix=False,
        level="note",
    ),
    Case(
        "acl.readable",
        lambda p: f"acl_file {p.path('gone')}\n{p.listener}",
        lambda p: f"{p.acl('topic read a')}\n{p.listener}",
        level="problem",
    ),
    Case(
        "acl.accepted",
        lambda p: f"{p.acl('topic a b' + chr(10) + 'topic read c' + chr(10))}\n{p.listener}",
        lambda p: f"{p.acl('topic read b' + chr(10))}\n{p.listener}",
        level="problem",
    ),
    Case(
        "acl.doubtful-line",
        lambda p: f"{p.acl('topic read a' + chr(10) + 'topic write' + chr(10))}\n{p.listener}",
        lambda p: f"{p.acl('topic write a' + chr(10))}\n{p.listener}",
    ),
    Case(
        "acl.writable",
        lambda p: f"{p.acl('topic read a', 0o666)}\n{p.listener}",
        lambda p: f"{p.acl('topic read a', 0o640)}\n{p.listener}",
        level="problem",
    ),
    Case(
        "acl.everything",
        lambda p: f"{p.acl('user admin' + chr(10) + 'topic readwrite #' + chr(10))}\n{p.listener}",
        lambda p: (
            f"{p.acl('user admin' + chr(10) + 'topic readwrite plant/#' + chr(10) + 'topic deny #')}\n{p.listener}"
        ),
        level="warning",
    ),
    Case(
        "acl.everything",
        lambda p: f"{p.acl('pattern write #' + chr(10))}\n{p.listener}",
        lambda p: f"{p.acl('pattern write %u/#' + chr(10))}\n{p.listener}",
        level="problem",
    ),
    Case(
        "acl.pattern-for-everybody",
        lambda p: f"{p.acl('pattern write plant/+/state' + chr(10))}\n{p.listener}",
        lambda p: (
            f"{p.acl('pattern write plant/%c/state' + chr(10) + 'pattern deny plant/+/x' + chr(10))}\n{p.listener}"
        ),
    ),
    Case(
        "acl.pattern-for-everybody",
        lambda p: f"{p.acl('pattern read news' + chr(10))}\n{p.listener}",
        lambda p: f"{p.acl('topic read plant/+/state' + chr(10))}\n{p.listener}",
    ),
    Case(
        "acl.plus-for-user",
        lambda p: f"{p.acl(_two_users('topic write plant/+/state'))}\n{p.listener}",
        lambda p: f"{p.acl(_two_users('topic read plant/+/state'))}\n{p.listener}",
        level="warning",
    ),
    Case(
        "acl.variable-not-replaced",
        lambda p: f"{p.acl('user bob' + chr(10) + 'topic write plant/%u/x' + chr(10))}\n{p.listener}",
        lambda p: f"{p.acl('user bob' + chr(10) + 'pattern write plant/%u/x' + chr(10))}\n{p.listener}",
    ),
    Case(
        "acl.sys-readable",
        lambda p: f"allow_anonymous true\n{p.acl('topic read $SYS/#' + chr(10))}\n{p.listener}",
        lambda p: f"{p.acl('topic read $SYS/#' + chr(10) + 'topic read #' + chr(10))}\n{p.listener}",
        note="lines above the first user line are for anonymous clients, who are refused in the second",
    ),
    Case(
        "acl.sys-readable",
        lambda p: f"{p.acl('pattern read $SYS/#' + chr(10))}\n{p.listener}",
        lambda p: f"allow_anonymous true\n{p.acl('topic read #' + chr(10))}\n{p.listener}",
        note="# does not cover $SYS",
    ),
    Case(
        "bridge.bypass",
        lambda p: f"{p.listener}\n{_bridge('127.0.0.1:1', 'a/# in')}",
        lambda p: f"{p.listener}\n{_bridge('127.0.0.1:1', 'a/# out')}",
        fix=False,
    ),
    Case(
        "bridge.everything",
        lambda p: f"{p.listener}\n{_bridge('127.0.0.1:1', '# both')}",
        lambda p: f"{p.listener}\n{_bridge('127.0.0.1:1', '# out 0 a/ b/')}",
        fix=False,
    ),
    Case(
        "bridge.plain-text",
        lambda p: f"{p.listener}\n{_bridge('192.0.2.1:1883', 'a out')}",
        lambda p: f"{p.listener}\n{_bridge('127.0.0.1:1883', 'a out')}",
    ),
    Case(
        "bridge.password-exposed",
        lambda p: f"{p.listener}\n{_bridge('127.0.0.1:1', 'a out')}\nremote_password secret",
        lambda p: f"{p.listener}\n{_bridge('127.0.0.1:1', 'a out')}",
        level="problem",
    ),
    Case("log.publishes", lambda p: p.listener, lambda p: f"log_type all\n{p.listener}", level="problem"),
    Case("log.publishes", lambda p: f"log_type debug\n{p.listener}", lambda p: f"{p.ours()}\n{p.listener}"),
    Case("log.target", lambda p: p.listener, lambda p: f"log_dest file {p.path('log')}\n{p.listener}"),
    Case(
        "log.target",
        lambda p: f"log_dest topic\n{p.listener}",
        lambda p: f"{p.ours()}\nlog_dest topic\n{p.listener}",
        level="warning",
    ),
    Case("log.timestamps", lambda p: f"log_timestamp false\n{p.listener}", lambda p: p.listener, level="problem"),
    Case(
        "log.timestamps",
        lambda p: f"log_timestamp_format %d/%m %H:%M\n{p.listener}",
        lambda p: f"log_timestamp_format %Y-%m-%dT%H:%M:%S\n{p.listener}",
    ),
    Case(
        "log.cost",
        lambda p: f"{p.ours()}\nlog_type debug\nlog_type all\n{p.listener}",
        lambda p: f"{p.ours()}\nlog_type notice\n{p.listener}",
    ),
    Case(
        "persistence.sessions",
        lambda p: f"persistence true\npersistence_location {p.folder}/\n{p.listener}",
        lambda p: p.listener,
        fix=False,
    ),
    Case("sys.interval", lambda p: f"sys_interval 0\n{p.listener}", lambda p: p.listener),
]


def _included(place: Place, text: str) -> str:
    return str(Path(place.file("conf.d/one.conf", text + "\n", 0o644)).parent)


def _two_users(line: str) -> str:
    return f"user a\n{line}\nuser b\n{line}\ntopic read x\n"


def _bridge(address: str, topic: str) -> str:
    return f"connection up\naddress {address}\ntopic {topic}"


def _unreadable_include(place: Place, mode: int) -> str:
    text = f"{place.ours()}\ninclude_dir {_included(place, 'sys_interval 10')}\n{place.listener}"
    (place.folder / "conf.d" / "one.conf").chmod(mode)
    return text


def _writable_plugin(place: Place) -> str:
    text = f"{place.ours()}\n{place.listener}"
    Path(place.plugin).chmod(0o666)
    return text
