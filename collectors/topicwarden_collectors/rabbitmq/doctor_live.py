"""Judges what a running node answers (`doctor_asking`): what can be seen at it, and who may do what."""

from __future__ import annotations

from typing import Final

from topicwarden.sources import SourceOptions
from topicwarden_collectors.rabbitmq.address import Address, parse_address
from topicwarden_collectors.rabbitmq.definitions import read_definitions
from topicwarden_collectors.rabbitmq.doctor_access import is_local
from topicwarden_collectors.rabbitmq.doctor_account import check_account
from topicwarden_collectors.rabbitmq.doctor_asking import Answers, ask_amqp, ask_management
from topicwarden_collectors.rabbitmq.doctor_examination import EVENTS, LOG, PLUGIN_EXCHANGE, Examination, commands
from topicwarden_collectors.rabbitmq.doctor_grants import check_grants, check_version
from topicwarden_collectors.rabbitmq.doctor_observing import (
    ENABLE_EVENTS,
    ENABLE_PLUGIN,
    TRACE_COST,
    say_blind_spots,
)
from topicwarden_collectors.rabbitmq.doctor_streams import check_streams

_PLAIN_PROTOCOLS: Final = ("amqp", "mqtt", "stomp", "stream", "http", "http/web-mqtt", "http/web-stomp")


def examine_node(target: str, options: SourceOptions) -> tuple[Examination, str]:
    """Ask a node and judge its answers; returns the examination and its title."""
    address = parse_address(target, options)
    answers = ask_amqp(address)
    if address.management is not None:
        ask_management(address, answers)
    if address.definitions is not None:
        answers.definitions = read_definitions(address.definitions, vhost=address.vhost)
    examination = Examination()
    judge(examination, address, answers)
    version = f" {answers.version}" if answers.version else ""
    return examination, f"rabbitmq: {address.text} (RabbitMQ{version})"


def judge(examination: Examination, address: Address, answers: Answers) -> None:
    """Turn a node's answers into advice. Pure."""
    plugin = answers.exchanges.get(PLUGIN_EXCHANGE, False)
    _streams_there(examination, answers, plugin=plugin)
    _tracing(examination, answers, plugin=plugin)
    _listeners(examination, answers)
    who = address.username or "guest"
    check_account(examination, who, answers.tags, answers.definitions)
    definitions = answers.definitions
    if definitions is not None:
        check_grants(examination, definitions)
        there = [name for name in (EVENTS, LOG, PLUGIN_EXCHANGE) if answers.exchanges.get(name)]
        check_streams(examination, definitions, ours=who, there=there)
    else:
        check_version(examination, answers.version)
        if answers.topology is not None:
            check_streams(examination, answers.topology)
        examination.blind(
            f"users and permissions{'' if answers.topology else ', bindings'}"
            + (f": {answers.refused}" if answers.refused else ": the management API was not asked"),
            "rabbitmqctl export_definitions FILE, then add ?definitions=FILE to the address",
        )
    examination.blind(
        "rabbitmq.conf and advanced.config: formats of the log, default users, files that everybody can read",
        "run doctor on the broker's machine: topicwarden doctor /etc/rabbitmq",
    )
    say_blind_spots(examination, plugin=plugin, events=answers.exchanges.get(EVENTS, False))


def _streams_there(examination: Examination, answers: Answers, *, plugin: bool) -> None:
    if not plugin:
        examination.say(
            "note",
            "plugin.enabled",
            f"the exchange {PLUGIN_EXCHANGE} is not there, so the topicwarden plugin is not enabled or writes to"
            " another virtual host: without it refusals come from the log only, and publishes from tracing only",
            fix=commands(ENABLE_PLUGIN),
        )
    if answers.unreached is not None:
        for check in ("events.exchange", "log.exchange"):
            examination.say("note", check, f"it cannot be told: {answers.unreached}")
        return
    level = "note" if plugin else "problem"
    if not answers.exchanges.get(EVENTS):
        examination.say(
            level,
            "events.exchange",
            f"the exchange {EVENTS} is not there: nothing says who connects and who changes which grant",
            fix=commands(ENABLE_EVENTS),
        )
    if not answers.exchanges.get(LOG):
        examination.say(
            level,
            "log.exchange",
            f"the exchange {LOG} is not there: refusals can be seen in the log file only",
            fix="# rabbitmq.conf: add at the end, then restart the node\n"
            "log.exchange = true\nlog.exchange.level = info\nlog.exchange.formatter = json",
        )
    examination.ok("plugin.enabled", "events.exchange", "log.exchange")


def _tracing(examination: Examination, answers: Answers, *, plugin: bool) -> None:
    if answers.vhosts is None:
        examination.say(
            "note",
            "vhosts.seen",
            "which virtual hosts there are is told by the management API to the tag monitoring only",
        )
        examination.blind("whether tracing is on", "add ?management=http://HOST:15672 to the address")
        return
    listed = ", ".join(repr(name) for name in sorted(answers.vhosts)[:20])
    examination.say("note", "vhosts.seen", f"virtual hosts: {listed}")
    traced = sorted(name for name, on in answers.vhosts.items() if on)
    untraced = sorted(name for name, on in answers.vhosts.items() if on is False)
    if traced:
        examination.say(
            "note",
            "trace.on",
            f"tracing is on in {', '.join(map(repr, traced[:5]))}"
            + (" although the plugin sees every publish" if plugin else "")
            + f": {TRACE_COST}; unless trace_vhosts in advanced.config names it, it is off after a restart",
        )
    elif untraced and not plugin:
        examination.say(
            "note",
            "trace.on",
            f"tracing is off, so publishes are not seen; it has its price: {TRACE_COST}",
            fix=commands("rabbitmqctl trace_on -p VHOST  # until the node restarts"),
        )
    examination.ok("trace.on")


def _listeners(examination: Examination, answers: Answers) -> None:
    for protocol, address, port in answers.listeners:
        if protocol not in _PLAIN_PROTOCOLS or is_local(address):
            continue
        everywhere = address in ("::", "0.0.0.0")  # noqa: S104 - compared, not listened on
        check = "listener.management" if protocol == "http" else "listener.plain-text"
        examination.say(
            "warning",
            check,
            f"{protocol} is offered at port {port} of {'every address' if everywhere else repr(address)} without"
            " encryption: passwords and messages can be read on the way",
        )
    if answers.listeners:
        examination.ok("listener.plain-text", "listener.management")
