"""RabbitMQ 3.10.8's own format strings, filled in: written from its source, apart from what reads them.

`~s` writes a name byte by byte, each as a character, which is what `spelled` is for. `Written` is what happened.
"""

from __future__ import annotations

from dataclasses import dataclass

PID = "<0.784.0>"
CONNECTION = "127.0.0.1:49242 -> 127.0.0.1:5672"


def spelled(name: str) -> str:
    """Return a name as `~s` writes it."""
    return name.encode("utf-8", "surrogateescape").decode("latin-1")


def printed(text: str) -> str:
    """Return a string as `~p` does, of characters up to 255."""
    # io_lib:printable_list/1 of OTP 25 without +pc unicode: Latin-1 ones, and seven control characters.
    if all(" " <= c <= "~" or "\xa0" <= c <= "\xff" or c in "\n\r\t\v\b\f\x1b" for c in text):
        for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
            text = text.replace(plain, escaped)
        for plain, escaped in (("\v", "\\v"), ("\b", "\\b"), ("\f", "\\f"), ("\x1b", "\\e")):
            text = text.replace(plain, escaped)
        return f'"{text}"'
    return "[" + ",\n   ".join(",".join(str(ord(c)) for c in text[i : i + 8]) for i in range(0, len(text), 8)) + "]"


@dataclass(frozen=True)
class Names:
    """What clients and operators chose."""

    user: str
    vhost: str
    name: str
    within: str
    client: str


def channel_error(names: Names, method: str, code: str, explanation: str, channel: int = 1) -> str:
    """rabbit_channel:handle_exception/2."""
    return (
        f"Channel error on connection {PID} ({CONNECTION}, vhost: '{spelled(names.vhost)}', user:"
        f" '{spelled(names.user)}'), channel {channel}:\noperation {method}"
        f" caused a channel exception {code}: {explanation}"
    )


def access(names: Names, kind: str) -> str:
    """rabbit_access_control:check_resource_access/4 with rabbit_misc:rs/1."""
    return (
        f"access to {kind} '{spelled(names.name)}' in vhost '{spelled(names.vhost)}'"
        f" refused for user '{spelled(names.user)}'"
    )


def topic_access(names: Names) -> str:
    """rabbit_access_control:check_topic_access/4."""
    return (
        f"access to topic '{spelled(names.name)}' in exchange '{spelled(names.within)}' in vhost"
        f" '{spelled(names.vhost)}' refused for user '{spelled(names.user)}'"
    )


def mqtt_topic(names: Names) -> str:
    """rabbit_mqtt_processor:check_topic_access/3."""
    return f"operation resulted in an error (access_refused): {printed(topic_access(names))}"


def named(names: Names) -> str:
    """rabbit_reader:augment_connection_log_name/1."""
    return f"{CONNECTION} - {spelled(names.client)}" if names.client else CONNECTION


def authenticated(names: Names) -> str:
    """rabbit_reader:handle_method0/2, connection.open."""
    return (
        f"connection {PID} ({named(names)}): user '{spelled(names.user)}' authenticated and granted access to vhost"
        f" '{spelled(names.vhost)}'"
    )


def secret_updated(names: Names) -> str:
    """rabbit_reader:handle_method0/2, connection.update_secret; the reason is the client's."""
    return (
        f"connection {PID} ({named(names)}): user '{spelled(names.user)}' updated secret, reason: {spelled(names.name)}"
    )


def login_refused(names: Names) -> str:
    """rabbit_reader:handle_exception/3 in the state starting; with the client's name, which 3.10.8 leaves out."""
    return (
        f"Error on AMQP connection {PID} ({named(names)}, state: starting):\nPLAIN login refused: user"
        f" '{spelled(names.user)}' - invalid credentials"
    )


def vhost_refused(names: Names) -> str:
    """rabbit_reader:handle_exception/3 in the state opening."""
    return (
        f"Error on AMQP connection {PID} ({named(names)}, user: '{spelled(names.user)}', state: opening):\n"
        f"access to vhost '{spelled(names.vhost)}' refused for user '{spelled(names.user)}'"
    )


def vhost_missing(names: Names) -> str:
    """rabbit_reader:is_over_vhost_connection_limit/2."""
    return (
        f"Error on AMQP connection {PID} ({named(names)}, user: '{spelled(names.user)}', state: opening):\nvhost"
        f" {spelled(names.vhost)} not found"
    )


def hard_error(names: Names) -> str:
    """rabbit_reader:log_hard_error/3."""
    return (
        f"Error on AMQP connection {PID} ({named(names)}, vhost: '{spelled(names.vhost)}',"
        f" user: '{spelled(names.user)}', state: running), channel 2:\n"
        f" operation exchange.declare caused a connection exception command_invalid:"
        f" {printed(f'unknown exchange type {spelled(names.name)}')}"
    )


def mqtt_login(names: Names, why: str) -> str:
    """rabbit_mqtt_processor:process_login/4."""
    user = spelled(names.user)
    return {
        "credentials": f"MQTT login failed for user '{user}', authentication failed: Refused",
        "vhost": f"MQTT login failed for user '{user}': virtual host access not allowed",
        "no such vhost": f"MQTT login failed for user '{user}': virtual host '{spelled(names.vhost)}' does not exist",
        "loopback": f"MQTT login failed for user {user}: this user's access is restricted to localhost",
    }[why]


def stomp_login(names: Names) -> str:
    """rabbit_stomp_processor:do_login/7."""
    return f"STOMP login failed for user '{spelled(names.user)}': authentication failed"


def http_denied(names: Names) -> str:
    """rabbit_mgmt_util:is_authorized/6."""
    return f"HTTP access denied: user '{spelled(names.user)}' - invalid credentials"


def mqtt_accepted(names: Names) -> str:
    """rabbit_mqtt_reader:log_new_connection/1."""
    return f"accepting MQTT connection {PID} ({CONNECTION}, client id: {spelled(names.client)})"
