"""Every option of mosquitto.conf: how the broker takes its value, and to what part of the configuration it belongs.

Read from the option tables of Mosquitto 2.0.11, 2.0.22 and 2.1.2 (`conf.c`) and held against the running broker by
the tests. An option missing here is one that these brokers refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Take(Enum):
    """How the broker takes the text after an option's name."""

    TEXT = "text"
    """The rest of the line, blanks at both ends removed; a second one in the same place is refused."""
    RAW = "raw"
    """The rest of the line as it stands, blanks included (`include_dir`)."""
    FLAG = "flag"
    """One word: `true`, `1`, `false` or `0`; what follows it is ignored; the last one counts."""
    NUMBER = "number"
    """One word, read by atoi(): `12abc` is 12 and `abc` is 0; the last one counts."""
    WORD = "word"
    """One word; what follows it is ignored; the last one counts."""
    WORDS = "words"
    """Words, read by the option itself."""


class Scope(Enum):
    """To what an option belongs."""

    BROKER = "broker"
    SECURITY = "security"
    """To the listener under `per_listener_settings true`, to the whole broker otherwise."""
    LISTENER = "listener"
    """To the listener above it in the same file, or to the default listener when there is none."""
    BRIDGE = "bridge"
    PLUGIN = "plugin"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the broker."""

    name: str
    take: Take
    scope: Scope
    since: tuple[int, int] = (2, 0)
    """The first broker version, major and minor, that knows it."""
    makes_default_listener: bool = False
    """Written above every listener it makes the broker open its default listener (2.0.11, `config__parse_args`)."""


_TABLE = """
broker  FLAG   allow_duplicate_messages autosave_on_changes check_retain_source connection_messages log_timestamp
broker  FLAG   per_listener_settings persistence queue_qos0_messages retain_available retained_persistence
broker  FLAG   set_tcp_nodelay upgrade_outgoing_qos
broker  NUMBER autosave_interval log_facility max_inflight_bytes max_inflight_messages max_keepalive max_packet_size
broker  NUMBER max_queued_bytes max_queued_messages memory_limit message_size_limit retain_expiry_interval sys_interval
broker  NUMBER websockets_headers_size websockets_log_level
broker  TEXT   clientid_prefixes log_timestamp_format persistence_file persistence_location pid_file user
broker  RAW    include_dir
broker  WORD   persistent_client_expiration retry_interval
broker  WORDS  log_dest log_type listener connection
broker  NUMBER port*
broker  TEXT   bind_address*
security FLAG  allow_anonymous allow_zero_length_clientid
security TEXT  acl_file auto_id_prefix password_file psk_file
security TEXT  plugin auth_plugin
plugin  FLAG   auth_plugin_deny_special_chars
listener TEXT  bind_interface* cafile* capath* certfile* ciphers* ciphers_tls1.3* crlfile* dhparamfile*
listener TEXT  http_dir keyfile* mount_point psk_hint* tls_engine* tls_engine_kpass_sha1* tls_version
listener FLAG  require_certificate* use_identity_as_username* use_subject_as_username* use_username_as_clientid*
listener NUMBER max_connections* max_qos* maximum_qos* max_topic_alias
listener WORD  protocol* socket_domain* tls_keyform
bridge  WORDS  address addresses restart_timeout topic
bridge  WORD   bridge_protocol_version start_type
bridge  FLAG   bridge_attempt_unsubscribe bridge_insecure bridge_outgoing_retain bridge_require_ocsp cleansession
bridge  FLAG   local_cleansession notifications notifications_local_only round_robin try_private
bridge  NUMBER bridge_max_packet_size idle_timeout keepalive_interval threshold
bridge  TEXT   bridge_alpn bridge_bind_address bridge_cafile bridge_capath bridge_certfile bridge_identity
bridge  TEXT   bridge_keyfile bridge_psk bridge_tls_version clientid local_clientid local_password local_username
bridge  TEXT   notification_topic password remote_clientid remote_password remote_username username
"""

_TABLE_2_1 = """
broker  FLAG   enable_control_api
broker  NUMBER global_max_clients global_max_connections packet_buffer_size
security TEXT  global_plugin
security WORDS plugin_load plugin_use
listener FLAG  disable_client_cert_date_checks listener_allow_anonymous proxy_protocol_v2_require_tls
listener NUMBER enable_proxy_protocol max_topic_alias_broker
listener TEXT  listener_auto_id_prefix websockets_origin
listener WORDS accept_protocol_versions
bridge  FLAG   bridge_tls_use_os_certs
bridge  NUMBER bridge_max_topic_alias bridge_receive_maximum bridge_session_expiry_interval bridge_tcp_user_timeout
bridge  WORD   bridge_reload_type
bridge  WORDS  bridge_tcp_keepalive
bridge  TEXT   bridge_ciphers bridge_ciphers_tls1.3
"""


def _read(table: str, since: tuple[int, int]) -> dict[str, Option]:
    options: dict[str, Option] = {}
    for row in table.split("\n"):
        if row:
            scope, take, *names = row.split()
            for written in names:
                name = written.rstrip("*")
                options[name] = Option(name, Take[take], Scope(scope), since, written.endswith("*"))
    return options


OPTIONS: Mapping[str, Option] = MappingProxyType({**_read(_TABLE, (2, 0)), **_read(_TABLE_2_1, (2, 1))})

SAME_PLACE: Mapping[str, str] = MappingProxyType(
    {
        "auth_plugin": "plugin",
        "addresses": "address",
        "clientid": "remote_clientid",
        "maximum_qos": "max_qos",
        "password": "remote_password",
        "retained_persistence": "persistence",
        "username": "remote_username",
    }
)
"""Older spellings, to the name under which their value is kept."""

PLUGIN_OPTION_PREFIXES = ("plugin_opt_", "auth_opt_")
