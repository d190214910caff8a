"""Where a RabbitMQ node listens for AMQP, and as whom we go there: `amqp://[user@]host[:port][/vhost][?parameters]`."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.sources import SourceOptions
from topicwarden_collectors.account import read_password, tls_context

MODES: Final = ("auto", "stock", "plugin")
PARAMETERS: Final = ("mode", "firehose", "definitions", "management")
_HINT: Final = "write it as amqp://[user@]host:5672[/vhost] or amqps://[user@]host:5671[/vhost]"


@dataclass(frozen=True, slots=True)
class Address:
    """A node's AMQP listener, our account there, and what to observe."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    vhost: str = "/"
    """The virtual host named in the address: where the plugin's exchange is, and where we log in first."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    client_certificate: bool = False
    """Whether we show a certificate, which may be what logs us in."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What follows the `?`, decoded; keys of `PARAMETERS`."""
    mode: str = "auto"
    """One of `MODES`."""
    firehose: tuple[str, ...] = ()
    """The virtual hosts whose firehose is asked for."""
    definitions: Path | None = None
    """An export of the node's definitions: users, permissions, exchanges."""
    management: str | None = None
    """The management API's http or https URL, without user or password."""

    @property
    def text(self) -> str:
        """The address as a URL, without user, password or parameters."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = "" if self.vhost == "/" else f"/{quote(self.vhost, safe='')}"
        return f"{'amqp' if self.tls is None else 'amqps'}://{host}:{self.port}{vhost}"


def parse_address(source: str, options: SourceOptions) -> Address:
    """Read an address and the files that `options` names; raises ConfigurationError, never with a secret in it."""
    shown = _without_secrets(source)
    try:
        parts = urlsplit(source)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(Problem(f"{shown!r} is no address: {error}", hint=_HINT)) from error
    if parts.scheme not in ("amqp", "amqps") or not host or parts.path.count("/") > 1 or parts.fragment:
        raise ConfigurationError(Problem(f"{shown!r} is no address of a RabbitMQ node", hint=_HINT))
    if parts.password is not None:
        raise ConfigurationError(
            Problem(
                f"a password in an address ({shown}) can be read by everybody on this host",
                hint="put it into a file, and give --password-file",
            )
        )
    parameters = _parameters(parts.query, shown)
    mode = parameters.get("mode", "auto")
    if mode not in MODES:
        raise ConfigurationError(Problem(f"mode={mode!r} is no mode ({shown})", hint=f"one of {', '.join(MODES)}"))
    username = unquote(parts.username) if parts.username else options.username
    password = read_password(options.password_file)
    if password is not None and username is None:
        raise ConfigurationError(Problem("a password file without a user name", hint="write amqp://user@host"))
    if password is None and username is not None and options.certfile is None:
        raise ConfigurationError(
            Problem(f"no password for {username!r} at {shown}", hint="put it into a file, and give --password-file")
        )
    tls = tls_context(options) if parts.scheme == "amqps" else None
    return Address(
        host=host,
        port=port or (5672 if tls is None else 5671),
        tls=tls,
        # An empty path is the default virtual host, as in pika: nobody means the one whose name is empty.
        vhost=unquote(parts.path[1:]) or "/",
        username=username,
        password=password,
        client_certificate=tls is not None and options.certfile is not None,
        parameters=parameters,
        mode=mode,
        firehose=_firehose(parts.query),
        definitions=Path(parameters["definitions"]) if "definitions" in parameters else None,
        management=_management(parameters["management"]) if "management" in parameters else None,
    )


def _parameters(query: str, shown: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise ConfigurationError(
                Problem(f"{name!r} is no parameter of an address ({shown})", hint=f"known are {known}")
            )
        if name in found or not value:
            what = "is given twice" if name in found else "has no value"
            raise ConfigurationError(Problem(f"the parameter {name!r} {what} ({shown})", hint=f"write {name}=… once"))
        found[name] = value
    return found


def _firehose(query: str) -> tuple[str, ...]:
    """Return the names between the commas; a comma within a name is written %2C."""
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "firehose":
            return tuple(dict.fromkeys(unquote(vhost.replace("+", " ")) for vhost in value.split(",") if vhost))
    return ()


def _management(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            Problem(
                f"management={_without_secrets(url)!r} is no URL of a management API",
                hint="write it as management=http://host:15672, without user or password: the address has ours",
            )
        )
    return url.rstrip("/")


def _without_secrets(source: str) -> str:
    """Return a URL without its user and password, whatever else is wrong with it."""
    scheme, separator, rest = source.partition("://")
    rest = rest if separator else scheme
    # Whatever stands before an @ might be a password, and so might a parameter's.
    shown = rest.partition("?")[0].rpartition("@")[2]
    return f"{scheme}://{shown}" if separator else shown
