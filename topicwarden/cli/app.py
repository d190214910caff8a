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
ReportFormatOption = Annotated[
    str, typer.Option("--format", "-f", metavar="FORMAT", help="text, jsonl, ecs, ocsf or sarif (docs/output.md).")
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
    output_format: ReportFormatOption = "text",
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
def scan(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIGURATION...",
            help="mosquitto.conf, an acl_file, dynamic-security.json, RabbitMQ's definitions.json, or "
            "amqp[s]://USER@HOST:PORT?management=URL (live, through the management API).",
        ),
    ],
    policy: PolicyOption = None,
    output_format: ReportFormatOption = "text",
    fail_on: FailOnOption = "medium",
    observed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="What was observed: a recording, a log, or a folder of them; may be repeated. Tells unused grants.",
        ),
    ] = None,
    broker: BrokerOption = None,
    kind: KindOption = None,
    witness_check: Annotated[
        str | None,
        typer.Option(
            "--witness-check",
            metavar="ADDRESS",
            help="Try every witness on this running broker, mqtt[s]:// or amqp[s]://, and say whether it agrees.",
        ),
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For --witness-check: a line USER:PASSWORD for each user to ask as."),
    ] = None,
    allow_publish: Annotated[
        bool,
        typer.Option(
            "--allow-publish", help="Let --witness-check publish empty messages that subscribers may receive."
        ),
    ] = False,
    username: UsernameOption = None,
    password_file: PasswordFileOption = None,
    cafile: CafileOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Compare what a broker would allow with the policy and, if given, with what was observed."""
    from topicwarden.cli.options import severity_named
    from topicwarden.cli.scan import ScanOptions, WitnessCheck, run
    from topicwarden.sources import SourceOptions

    def body() -> int:
        check_options = None if witness_check is None else WitnessCheck(witness_check, credentials, allow_publish)
        options = ScanOptions(
            policy=policy,
            output_format=output_format,
            fail_on=severity_named(fail_on),
            observed=observed or [],
            broker_kind=kind,
            witness_check=check_options,
        )
        source_options = SourceOptions(
            broker=broker, username=username, password_file=password_file, cafile=cafile, certfile=cert, keyfile=key
        )
        return run(sources, options, source_options)

    exit_with(body)


@app.command()
def learn(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Recordings of `watch --record`, and broker logs (.gz too).")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Where the draft of the policy goes; never overwritten."),
    ],
    review: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the review list goes. Default: beside the draft, .review.jsonl."),
    ] = None,
    min_coverage: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Refuse to draft when less of the behaviour seems to have been seen."
        ),
    ] = 0.7,
    min_users: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="How many users must have done something for it to be granted. Fewer trust what one of them did.",
        ),
    ] = 5,
    broker: BrokerOption = None,
    kind: KindOption = None,
    timezone: TimezoneOption = None,
) -> None:
    """Draft a policy from what was observed, with a list of what it would not grant and why."""
    from topicwarden.cli.learn import LearnOptions, run
    from topicwarden.sources import SourceOptions

    def body() -> int:
        options = LearnOptions(
            output=output, review=review, min_coverage=min_coverage, min_users=min_users, broker_kind=kind
        )
        return run(files, options, SourceOptions(broker=broker, from_start=True, timezone=timezone))

    exit_with(body)


@app.command()
def export(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="The policy file.")],
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="mosquitto-acl, mosquitto-dynsec or rabbitmq.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where the files go. Default: the main one to stdout."),
    ] = None,
    accounts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONFIGURATION",
            help="A broker's configuration whose users the policy's patterns are expanded for; may be repeated.",
        ),
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A user to expand patterns for; may be repeated.")
    ] = None,
    observed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Recordings or logs to replay: how many of these events would the export deny?"
        ),
    ] = None,
    kind: KindOption = None,
) -> None:
    """Write a policy in a broker's own syntax, say what that cannot express, and prove it on observed events."""
    from topicwarden.cli.export import ExportOptions, run
    from topicwarden.sources import SourceOptions

    def body() -> int:
        options = ExportOptions(
            target=to,
            output=output,
            accounts=accounts or [],
            users=user or [],
            observed=observed or [],
            broker_kind=kind,
        )
        return run(policy, options, SourceOptions(from_start=True))

    exit_with(body)


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The policy before.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The policy after.")],
    output_format: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="text, json or markdown.")
    ] = "text",
) -> None:
    """Say what a change of the policy newly allows and newly denies, each with a name that shows it."""
    from topicwarden.cli.diff import run

    exit_with(lambda: run(old, new, output_format))


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
