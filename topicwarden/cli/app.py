"""The commands and their options. What they do stands in a module each; here is only what people type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topicwarden import __version__
from topicwarden.cli import exit_with

app = typer.Typer(
    name="topicwarden",
    help="Who may, who does and who should publish and subscribe on your brokers, and every difference with proof.",
    epilog="Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 wrong usage or configuration, 3 not observed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        "-p",
        metavar="FILE",
        help="The intended policy (docs/policy.md). Without it: an inventory, and what needs no policy.",
    ),
]
FormatOption = Annotated[
    str, typer.Option("--format", "-f", metavar="FORMAT", help="text, jsonl, ecs or ocsf (docs/output.md).")
]
FailOnOption = Annotated[
    str,
    typer.Option(metavar="SEVERITY", help="Exit 1 from this severity up: info, low, medium, high, critical, never."),
]
RecordOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Keep the events too: .arrow or .jsonl; `check` reads them again.")
]
BrokerOption = Annotated[
    str | None, typer.Option("--broker", metavar="NAME", help="What you call the broker, in every event and finding.")
]
KindOption = Annotated[
    str | None,
    typer.Option("--kind", metavar="KIND", help="The kind of broker, when it cannot be told: mosquitto or rabbitmq."),
]
UsernameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Our own user name for mqtt:// and amqp:// sources.")
]
PasswordFileOption = Annotated[Path | None, typer.Option(metavar="FILE", help="File whose first line is our password.")]
CafileOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Certificates of authorities for mqtts:// and amqps://.")
]
CertOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Our own certificate.")]
KeyOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key.")]
TimezoneOption = Annotated[
    str | None,
    typer.Option(
        metavar="ZONE", help="Zone of timestamps that carry none, such as Europe/Berlin. Default: this machine's."
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"topicwarden {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Audits publish/subscribe brokers."""


@app.command()
def watch(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="Mosquitto: ring:PATH (the plugin's), log:PATH, mqtt[s]://HOST:PORT ($SYS). RabbitMQ: "
            "amqp[s]://USER@HOST:PORT[?mode=plugin|stock&firehose=VHOST]. Default: the Mosquitto plugin's ring here.",
        ),
    ] = None,
    policy: PolicyOption = None,
    output_format: FormatOption = "text",
    fail_on: FailOnOption = "medium",
    record: RecordOption = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="[HOST:]PORT", help="Serve Prometheus counters there; HOST defaults to 127.0.0.1."),
    ] = None,
    broker: BrokerOption = None,
    kind: KindOption = None,
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", min=0, help="Stop by itself after this long.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the reading position there, so that a restart repeats nothing and counts what it missed.",
        ),
    ] = None,
    no_state: Annotated[bool, typer.Option("--no-state", help="Keep no reading position.")] = False,
    from_start: Annotated[bool, typer.Option("--from-start", help="First read what is already there.")] = False,
    username: UsernameOption = None,
    password_file: PasswordFileOption = None,
    cafile: CafileOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    timezone: TimezoneOption = None,
) -> None:
    """Watch running brokers and print findings as they happen; Ctrl-C ends with a summary."""
    from topicwarden.cli.options import RunOptions, severity_named
    from topicwarden.cli.sources import default_state_dir
    from topicwarden.cli.watch import run
    from topicwarden.sources import SourceOptions

    def body() -> int:
        options = RunOptions(policy, output_format, severity_named(fail_on), record, broker_kind=kind)
        source_options = SourceOptions(
            broker=broker,
            state_dir=None if no_state else state or default_state_dir(),
            username=username,
            password_file=password_file,
            cafile=cafile,
            certfile=cert,
            keyfile=key,
            from_start=from_start,
            timezone=timezone,
        )
        return run(sources or [], options, source_options, metrics=metrics, seconds=seconds)

    exit_with(body)


@app.command()
def check(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Broker logs (.gz too) and recordings of `watch --record`.")
    ],
    policy: PolicyOption = None,
    output_format: FormatOption = "text",
    fail_on: FailOnOption = "medium",
    record: RecordOption = None,
    broker: BrokerOption = None,
    kind: KindOption = None,
    timezone: TimezoneOption = None,
) -> None:
    """Judge recordings as if they happened now: the same findings as a live watch of the same events."""
    from topicwarden.cli.check import run
    from topicwarden.cli.options import RunOptions, severity_named
    from topicwarden.sources import SourceOptions

    def body() -> int:
        options = RunOptions(policy, output_format, severity_named(fail_on), record, broker_kind=kind)
        return run(files, options, SourceOptions(broker=broker, from_start=True, timezone=timezone))

    exit_with(body)


@app.command()
def doctor(
    target: Annotated[
        str,
        typer.Argument(
            metavar="CONFIGURATION",
            help="/etc/mosquitto/mosquitto.conf, /etc/rabbitmq, definitions.json, or amqp[s]://USER@HOST:PORT (live).",
        ),
    ],
    kind: KindOption = None,
    output_format: Annotated[str, typer.Option("--format", "-f", metavar="FORMAT", help="text or json.")] = "text",
    username: UsernameOption = None,
    password_file: PasswordFileOption = None,
    cafile: CafileOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Say whether a broker is set up so that we can see, and what to change. Never edits anything."""
    from topicwarden.cli.doctor import run
    from topicwarden.cli.options import one_of
    from topicwarden.sources import SourceOptions, load_brokers

    def body() -> int:
        options = SourceOptions(
            username=username, password_file=password_file, cafile=cafile, certfile=cert, keyfile=key
        )
        return run(load_brokers(), target, options, kind, one_of("--format", output_format, ("text", "json")))

    exit_with(body)


@app.command()
def explain(
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="TW201, or its dotted name; without it, the list.")
    ] = None,
) -> None:
    """Explain a finding code: what it means, why it matters, what to do, what it cannot see."""
    from topicwarden.cli.explain import run

    exit_with(lambda: run(code))


@app.command()
def demo(
    broker: Annotated[str, typer.Argument(metavar="[BROKER]", help="Which broker to show.")] = "mosquitto",
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where its files go. Default: a new folder in the temporary directory."),
    ] = None,
) -> None:
    """Start a real broker, real clients and planted deviations, and find them."""
    from topicwarden.cli.demo import run

    exit_with(lambda: run(broker, folder))
