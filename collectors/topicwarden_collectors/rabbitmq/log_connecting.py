"""Connections and logins: what RabbitMQ 3.10.8 writes about them, made by a running node, and the later forms we read.

Who logged in as whom is between quotes, and behind a name the client gave its connection; so each message is held
against all that begin like it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from topicwarden_collectors.rabbitmq.log_facts import (
    WITNESS_LENGTH,
    ConnectionAccepted,
    ConnectionClosed,
    Fact,
    LoginRefused,
    Suspicious,
    UserAuthenticated,
)
from topicwarden_collectors.rabbitmq.log_grammar import (
    CONNECTION,
    NUMBER,
    PROCESS,
    Doubt,
    Form,
    Found,
    Gap,
    Reading,
    Word,
    read,
)
from topicwarden_collectors.rabbitmq.log_refusals import Written, connection_after
from topicwarden_collectors.rabbitmq.log_spelling import name_of, printed_string

_V, _U, _CLIENT, _REST = Gap("vhost"), Gap("user"), Gap("client"), Gap("rest")
_STATE: Final = Word("state", re.compile(r"[a-z_]+", re.ASCII))
_MECHANISM: Final = Word("mechanism", re.compile(r"[A-Z0-9_-]{1,40}", re.ASCII))


def _with_and_without_name(name: str, before: Form, after: Form) -> dict[str, Form]:
    """Return a form with nothing behind the connection, and with the client's own name for it."""
    return {name: (*before, CONNECTION, *after), f"{name}, named": (*before, CONNECTION, " - ", _CLIENT, *after)}


AMQP_ERROR: Final = "Error on AMQP connection "
_ERROR_FORMS: Final[Mapping[str, Form]] = {
    **_with_and_without_name("starting", (AMQP_ERROR, PROCESS, " ("), (", state: starting):\n", _REST)),
    **_with_and_without_name(
        "opening", (AMQP_ERROR, PROCESS, " ("), (", user: '", _U, "', state: ", _STATE, "):\n", _REST)
    ),
    **_with_and_without_name(
        "running",
        (AMQP_ERROR, PROCESS, " ("),
        (", vhost: '", _V, "', user: '", _U, "', state: ", _STATE, "), channel ", NUMBER, ":", _REST),
    ),
}
_LOGIN: Final[Mapping[str, Form]] = {
    "credentials": (_MECHANISM, " login refused: user '", _U, "' - invalid credentials"),
    "loopback": (_MECHANISM, " login refused: user '", _U, "' can only connect via localhost"),
}
_LIMIT: Final = Word("limit", re.compile(r"\d{1,10}", re.ASCII))
_OPENING: Final[Mapping[str, Form]] = {
    "vhost": ("access to vhost '", _V, "' refused for user '", _U, "'"),
    "vhost, error": (
        "access to vhost '", _V, "' refused for user '", _U, "', backend ", Gap("backend"), " returned an error: ",
        Gap("error"),
    ),
    "no such vhost": ("vhost ", _V, " not found"),
    "limit, vhost": (
        "access to vhost '", _V, "' refused for user '", _U, "': connection limit (", _LIMIT, ") is reached",
    ),
    "limit, user": ("connection refused for user '", _U, "': user connection limit (", _LIMIT, ") is reached"),
}  # fmt: skip


def amqp_error(written: Written, text: str) -> Fact | None:
    """Read `Error on AMQP connection …`: a refused login or virtual host; None for errors of other kinds."""
    found = read(_ERROR_FORMS, text)
    if found is None:
        return None
    if isinstance(found, Doubt):
        connection = connection_after(AMQP_ERROR, text)
        if any(form.startswith("running") for form in found.forms):
            return suspicious(written, connection, text)
        return LoginRefused(written.time_ns, written.pid, connection, "amqp", None, None, "unknown", ambiguous=True)
    form, header = found
    match form.partition(",")[0]:
        case "starting":
            explained = read(_LOGIN, header["rest"])
        case "opening":
            explained = read(_OPENING, header["rest"], {"user": header["user"]})
        case _:
            return None  # a client's mistake, or the broker's; not a refusal
    return _login(written, header["connection"], "amqp", explained, header)


def _login(
    written: Written,
    connection: str | None,
    protocol: str,
    explained: Found,
    header: Reading,
) -> LoginRefused:
    """Build the fact from what explains it; an explanation we do not know still is a refusal."""
    if isinstance(explained, Doubt):
        return LoginRefused(written.time_ns, written.pid, connection, protocol, None, None, "unknown", ambiguous=True)
    form, reading = explained or ("other", header)
    user, vhost = (_name(reading, gap, written) for gap in ("user", "vhost"))
    lost = any(gap in reading and name is None for gap, name in (("user", user), ("vhost", vhost)))
    return LoginRefused(
        written.time_ns, written.pid, connection, protocol, user, vhost, form.partition(",")[0], ambiguous=lost
    )


def suspicious(written: Written, connection: str | None, text: str) -> Suspicious:
    """Build the fact that a message was made to be read in more than one way, and that not even its kind is sure."""
    return Suspicious(written.time_ns, written.pid, connection, "forged", text[:WITNESS_LENGTH])


def _name(reading: Reading, gap: str, written: Written) -> str | None:
    return name_of(reading[gap], written.spelling) if gap in reading else None


CONNECTION_SAYS: Final = "connection "
_SAYS_FORMS: Final[Mapping[str, Form]] = {
    name: form
    # The process and the brackets are gone in RabbitMQ 4 (read, not run).
    for opening, closing, era in ((("connection ", PROCESS, " ("), ")", ""), (("connection ",), "", ", 4.x"))
    for name, form in {
        **_with_and_without_name(
            f"authenticated{era}",
            opening,
            (f"{closing}: user '", _U, "' authenticated and granted access to vhost '", _V, "'"),
        ),
        # The reason is the client's own words, at the end of the message.
        **_with_and_without_name(
            f"secret updated{era}", opening, (f"{closing}: user '", _U, "' updated secret, reason: ", _REST)
        ),
        **_with_and_without_name(
            f"secret asked{era}", opening, (f"{closing} of user '", _U, "': asked to update secret, reason: ", _REST)
        ),
        f"name{era}": (*opening, CONNECTION, f"{closing} has a client-provided name: ", _CLIENT),
    }.items()
}


def connection_says(written: Written, text: str) -> Fact | None:
    """Read `connection …`: who logged in, or the client's own name for it; None for what else begins so."""
    found = read(_SAYS_FORMS, text)
    if found is None:
        return None
    if isinstance(found, Doubt):
        connection = connection_after(CONNECTION_SAYS, text)
        if not all(form.startswith("authenticated") for form in found.forms):
            return suspicious(written, connection, text)
        return UserAuthenticated(written.time_ns, written.pid, connection, "amqp", None, None, ambiguous=True)
    form, reading = found
    match form.partition(",")[0]:
        case "authenticated":
            user, vhost = _name(reading, "user", written), _name(reading, "vhost", written)
            lost = user is None or vhost is None
            return UserAuthenticated(
                written.time_ns, written.pid, reading["connection"], "amqp", user, vhost, ambiguous=lost
            )
        case "name":
            name = _name(reading, "client", written)
            return ConnectionAccepted(written.time_ns, written.pid, reading["connection"], "amqp", name)
        case _:
            return None


_ACCEPTED: Final = re.compile(
    rf"(?:accepting|Accepted) (AMQP|MQTT|STOMP) connection (?:{PROCESS.shape.pattern} \()?({CONNECTION.shape.pattern})"
    r"(?:(?:, client id: (?P<old>.*))?\)| for client ID (?P<new>.*))?",
    re.DOTALL | re.ASCII,
)


def accepted(written: Written, text: str) -> Fact | None:
    """Read `accepting … connection …`; None when it is another message."""
    match = _ACCEPTED.fullmatch(text)
    if match is None:
        return None
    client_id = match["old"] if match["old"] is not None else match["new"]
    name = None if client_id is None else name_of(client_id, written.spelling)
    return ConnectionAccepted(written.time_ns, written.pid, match[2], match[1].lower(), None, name)


_CLOSING: Final = re.compile(
    rf"closing (AMQP|MQTT|STOMP) connection (?:{PROCESS.shape.pattern} \(|\"|\()?({CONNECTION.shape.pattern})", re.ASCII
)
_MQTT_CLOSING: Final = re.compile(
    rf"MQTT connection ({CONNECTION.shape.pattern}) is closing due to an (authentication|authorization) failure",
    re.ASCII,
)
_MQTT_GONE: Final = re.compile(
    rf"MQTT connection \"?({CONNECTION.shape.pattern})\"? will terminate because peer closed TCP connection"
    rf"|MQTT protocol error on connection ({CONNECTION.shape.pattern}): .*",
    re.ASCII | re.DOTALL,
)


def closing(written: Written, text: str) -> Fact | None:
    """Read `closing … connection …`, whose connection stands before anything a client wrote."""
    match = _CLOSING.match(text)
    return None if match is None else ConnectionClosed(written.time_ns, written.pid, match[2], match[1].lower())


def mqtt_closing(written: Written, text: str) -> Fact | None:
    """Read `MQTT connection … is closing …` and the like."""
    match = _MQTT_CLOSING.fullmatch(text)
    if match is not None:
        return ConnectionClosed(written.time_ns, written.pid, match[1], "mqtt", match[2])
    match = _MQTT_GONE.fullmatch(text)
    return None if match is None else ConnectionClosed(written.time_ns, written.pid, match[1] or match[2], "mqtt")


MQTT_LOGIN: Final = "MQTT login failed"
_MQTT_FORMS: Final[Mapping[str, Form]] = {
    "credentials": (MQTT_LOGIN, " for user '", _U, "', authentication failed: ", _REST),
    "vhost": (MQTT_LOGIN, " for user '", _U, "': virtual host access not allowed"),
    "no such vhost": (MQTT_LOGIN, " for user '", _U, "': virtual host '", _V, "' does not exist"),
    # Printed by `~p` inside the quotes (3.10.8).
    "credentials, none": (MQTT_LOGIN, " for user '", Gap("printed"), "': no password provided"),
    "loopback": (MQTT_LOGIN, " for user ", _U, ": this user's access is restricted to localhost"),
    "credentials, no user": (MQTT_LOGIN, ": no credentials provided"),
    "credentials, no name": (MQTT_LOGIN, ": no username is provided"),
}
STOMP_LOGIN: Final = "STOMP login failed for user '"
_STOMP_FORMS: Final[Mapping[str, Form]] = {
    "credentials": (STOMP_LOGIN, _U, "': authentication failed"),
    "vhost": (STOMP_LOGIN, _U, "': virtual host access not allowed"),
    "loopback": (STOMP_LOGIN, _U, "': this user's access is restricted to localhost"),
}
HTTP_DENIED: Final = "HTTP access denied: "
_HTTP_FORMS: Final[Mapping[str, Form]] = {
    "credentials": (HTTP_DENIED, "user '", _U, "' - invalid credentials"),
    "permission, tag": (HTTP_DENIED, "user '", _U, "' - Not management user"),
    "permission, administrator": (HTTP_DENIED, "user '", _U, "' - Not administrator user"),
    "permission, monitor": (HTTP_DENIED, "user '", _U, "' - Not monitor user"),
    "permission, policymaker": (HTTP_DENIED, "user '", _U, "' - Not policymaker"),
    "permission": (HTTP_DENIED, "user '", _U, "' - User not authorized"),
    "vhost": (HTTP_DENIED, "user '", _U, "' - User not authorised to access virtual host"),
    "loopback": (HTTP_DENIED, "user '", _U, "' - User can only log in via localhost"),
}


def mqtt_login(written: Written, text: str) -> Fact | None:
    """Read `MQTT login failed …`, which names no connection: that is in the same process's next message."""
    explained = read(_MQTT_FORMS, text)
    if isinstance(explained, tuple) and "printed" in explained[1]:
        user = printed_string(explained[1]["printed"])
        explained = None if user is None else (explained[0], {"user": user})
    return _login(written, None, "mqtt", explained, {})


def stomp_login(written: Written, text: str) -> Fact | None:
    """Read `STOMP login failed …`, which names no connection: that was in the same process's first message."""
    return _login(written, None, "stomp", read(_STOMP_FORMS, text), {})


def http_denied(written: Written, text: str) -> Fact | None:
    """Read `HTTP access denied: …`, which names no peer anywhere."""
    return _login(written, None, "http", read(_HTTP_FORMS, text), {})
