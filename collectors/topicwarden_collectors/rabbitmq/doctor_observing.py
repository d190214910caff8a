"""Can we see what happens at a node: events, log, tracing, our plugin, as its files set them up."""

from __future__ import annotations

from typing import Final

from topicwarden_collectors.rabbitmq.conf import Configuration
from topicwarden_collectors.rabbitmq.doctor_examination import PLUGIN, Examination, add_lines, commands

EVENT_PLUGIN: Final = "rabbitmq_event_exchange"
ENABLE_EVENTS: Final = f"rabbitmq-plugins enable {EVENT_PLUGIN}"
ENABLE_PLUGIN: Final = f"rabbitmq-plugins enable {PLUGIN}"
TRACE_COST: Final = "drained, it cost a 3.10.8 node three to seven times its CPU per message"
_SEEN_LEVELS: Final = ("debug", "info")


def check_observing(examination: Examination, configuration: Configuration) -> None:
    """Judge what the files say about events, log, tracing and our plugin."""
    plugin = configuration.has_plugin(PLUGIN)
    _plugins(examination, configuration)
    _log(examination, configuration, sees_refusals=bool(plugin))
    _trace(examination, configuration, sees_publishes=bool(plugin))
    examination.ok("plugin.enabled", "events.exchange", "log.exchange", "trace.on")
    if configuration.get("log.exchange") is not None:
        examination.ok("log.exchange-level", "log.exchange-format")
    say_blind_spots(examination, plugin=bool(plugin), events=bool(configuration.has_plugin(EVENT_PLUGIN)))


def say_blind_spots(examination: Examination, *, plugin: bool, events: bool) -> None:
    """Add what cannot be seen with or without the plugin and the events."""
    if not plugin:
        examination.blind(
            "refused operations, except for what the log says of them, and what connections did before we came",
            "enable the topicwarden plugin: check plugin.enabled has the line",
        )
        examination.blind(
            "publishes, where tracing is off; retained MQTT messages as they are delivered; publishes and reads by the"
            " stream protocol",
            "enable the topicwarden plugin, or tracing: check trace.on has the lines",
        )
    else:
        examination.blind("who receives which message: the plugin records no deliveries")
    if not events:
        examination.blind("who changes which grant", f"enable the event exchange: {ENABLE_EVENTS}")


def _plugins(examination: Examination, configuration: Configuration) -> None:
    if configuration.plugins is None:
        for check, what in (("plugin.enabled", PLUGIN), ("events.exchange", EVENT_PLUGIN)):
            examination.say(
                "note",
                check,
                f"it cannot be told whether {what} is enabled: there is no file enabled_plugins here",
                configuration.plugins_file,
            )
        return
    if PLUGIN not in configuration.plugins:
        examination.say(
            "note",
            "plugin.enabled",
            "the topicwarden plugin is not enabled: without it refusals come from the log only, and publishes from"
            " tracing only",
            configuration.plugins_file,
            fix=commands(ENABLE_PLUGIN),
        )
    if EVENT_PLUGIN not in configuration.plugins:
        # The plugin tells of changes by itself.
        level = "note" if PLUGIN in configuration.plugins else "problem"
        examination.say(
            level,
            "events.exchange",
            "rabbitmq_event_exchange is not enabled: nothing says who connects and who changes which grant",
            configuration.plugins_file,
            fix=commands(ENABLE_EVENTS),
        )


def _log(examination: Examination, configuration: Configuration, *, sees_refusals: bool) -> None:
    exchange = configuration.get("log.exchange")
    main = configuration.main
    if exchange is None or exchange.value != "true":
        examination.say(
            "note" if sees_refusals else "problem",
            "log.exchange",
            "the log is not published: refusals can be seen in the log file only",
            exchange.file if exchange else main,
            exchange.line if exchange else None,
            add_lines(main, "log.exchange = true", "log.exchange.level = info", "log.exchange.formatter = json"),
        )
        return
    level, form = configuration.get("log.exchange.level"), configuration.get("log.exchange.formatter")
    if level is not None and level.value not in _SEEN_LEVELS:
        examination.say(
            "warning",
            "log.exchange-level",
            f"the published log begins at level {level.value!r}: logins of MQTT and STOMP clients are said at level"
            " info, and cannot be told from one another without",
            level.file,
            level.line,
            add_lines(main, "log.exchange.level = info"),
        )
    if form is None or form.value != "json":
        place = form or exchange
        examination.say(
            "problem",
            "log.exchange-format",
            "the published log is plain text: user, queue and client names stand in it as clients wrote them, and can"
            " pass for other messages",
            place.file,
            place.line,
            add_lines(main, "log.exchange.formatter = json"),
        )
    for setting in configuration.below("log"):
        parts = setting.key.split(".")
        if parts[-1] == "level" and parts[1] in ("connection", "channel", "default") and setting.value == "none":
            examination.say(
                "warning",
                "log.exchange-level",
                f"{setting.key} = none: what the node says about {parts[1]}s is neither written nor published",
                setting.file,
                setting.line,
                add_lines(main, f"{setting.key} = info"),
            )


def _trace(examination: Examination, configuration: Configuration, *, sees_publishes: bool) -> None:
    vhosts = configuration.term("rabbit", "trace_vhosts")
    listed = [str(one) for one in vhosts if isinstance(one, str)] if isinstance(vhosts, list) else []
    if listed and sees_publishes:
        examination.say(
            "note",
            "trace.on",
            f"tracing is on in {len(listed)} virtual hosts although the plugin sees every publish: {TRACE_COST}",
            configuration.advanced_file,
        )
    elif listed:
        examination.say(
            "note",
            "trace.on",
            f"tracing is on in {', '.join(map(repr, listed[:5]))}, after each start too: {TRACE_COST}",
            configuration.advanced_file,
        )
    elif not sees_publishes:
        examination.say(
            "note",
            "trace.on",
            "no virtual host is traced after a start, so publishes are not seen; what rabbitmqctl trace_on switches"
            f" on is off after a restart. It has its price: {TRACE_COST}",
            configuration.advanced_file,
            fix=_trace_lines(configuration),
        )


def _trace_lines(configuration: Configuration) -> str:
    setting = '{trace_vhosts, [<<"/">>]}'
    if configuration.terms:
        return f"# {configuration.advanced_file}: add to the list of rabbit, then restart the node\n{setting}"
    return f"# {configuration.advanced_file}: the whole file, then restart the node\n[{{rabbit, [{setting}]}}]."
