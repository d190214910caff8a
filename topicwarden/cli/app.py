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
key_app = typer.Typer(help="Keys that sign a store's checkpoints (docs/store.md).", no_args_is_help=True)
app.add_typer(key_app, name="key")

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


StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store", metavar="DIR", help="Keep events and findings there as evidence (docs/store.md); made when missing."
    ),
]
StoreKeyOption = Annotated[
    Path | None,
    typer.Option("--store-key", metavar="FILE", help="The key that signs it. Default: one of this account's own."),
]
FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="Of a store, only from then on: 2026-11-28 or 2026-11-28T20:15, UTC."),
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="TIME", help="And until then; a date stands for its whole day.")
]
BaselineOption = Annotated[
    Path | None,
    typer.Option("--baseline", metavar="FILE", help="What is usual here, as `learn --baseline` wrote it."),
]
SkewOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=0, max=3600, help="How far clocks of hosts and brokers may differ when they are joined."
    ),
]


HostNameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The host whose log it is, where the log does not say.")
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
            "amqp[s]://USER@HOST:PORT[?mode=plugin|stock&firehose=VHOST]. Default: the Mosquitto plugin's ring here. "
            "Hosts: auditd:PATH, sysmon:PATH, ecs:PATH, zeek:PATH, suricata:PATH (docs/hosts.md).",
        ),
    ] = None,
    host: Annotated[
        bool, typer.Option("--host", help="Watch this machine too: who runs what against which broker. Needs root.")
    ] = False,
    policy: PolicyOption = None,
    baseline: BaselineOption = None,
    skew: SkewOption = 2.0,
    host_name: HostNameOption = None,
    output_format: FormatOption = "text",
    fail_on: FailOnOption = "medium",
    record: RecordOption = None,
    store: StoreOption = None,
    store_key: StoreKeyOption = None,
    retain: Annotated[
        list[str] | None,
        typer.Option(metavar="[CLASS=]TIME", help="Of the store, keep that long: 400d, or events=90d,findings=400d."),
    ] = None,
    retain_size: Annotated[
        list[str] | None,
        typer.Option(metavar="[CLASS=]SIZE", help="Of the store, keep that much: 50GB, or events=40GB."),
    ] = None,
    timestamp_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An RFC 3161 authority that vouches for the time of the store's checkpoints."),
    ] = None,
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
        options = RunOptions(
            policy,
            output_format,
            severity_named(fail_on),
            record,
            broker_kind=kind,
            baseline=baseline,
            skew=skew,
            store=store,
            store_key=store_key,
            retain=retain or (),
            retain_size=retain_size or (),
            timestamp_url=timestamp_url,
        )
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
            host=host_name,
        )
        return run(sources or [], options, source_options, host=host, metrics=metrics, seconds=seconds)

    exit_with(body)


@app.command()
def check(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Broker logs (.gz too), recordings of `watch --record`, logs of hosts (docs/hosts.md), "
            "stores of `watch --store`.",
        ),
    ],
    policy: PolicyOption = None,
    baseline: BaselineOption = None,
    skew: SkewOption = 2.0,
    host_name: HostNameOption = None,
    output_format: ReportFormatOption = "text",
    fail_on: FailOnOption = "medium",
    record: RecordOption = None,
    store: StoreOption = None,
    store_key: StoreKeyOption = None,
    first: FromOption = None,
    last: ToOption = None,
    broker: BrokerOption = None,
    kind: KindOption = None,
    timezone: TimezoneOption = None,
) -> None:
    """Judge recordings as if they happened now: the same findings as a live watch of the same events."""
    from topicwarden.cli.check import run
    from topicwarden.cli.options import RunOptions, severity_named
    from topicwarden.cli.period import period_named
    from topicwarden.sources import SourceOptions

    def body() -> int:
        options = RunOptions(
            policy,
            output_format,
            severity_named(fail_on),
            record,
            broker_kind=kind,
            baseline=baseline,
            skew=skew,
            store=store,
            store_key=store_key,
        )
        period = period_named(first, last)
        source_options = SourceOptions(
            broker=broker,
            from_start=True,
            timezone=timezone,
            host=host_name,
            first_ns=period.first_ns,
            last_ns=period.last_ns,
        )
        return run(files, options, source_options)

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
            help="What was observed: a recording, a log, a folder of them, or a store; may be repeated. "
            "Tells unused grants.",
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
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", metavar="DIR", help="Keep the findings there as evidence (docs/store.md); made when missing."
        ),
    ] = None,
    store_key: StoreKeyOption = None,
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
            store=store,
            store_key=store_key,
        )
        source_options = SourceOptions(
            broker=broker, username=username, password_file=password_file, cafile=cafile, certfile=cert, keyfile=key
        )
        return run(sources, options, source_options)

    exit_with(body)


@app.command()
def learn(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Recordings of `watch --record`, stores, and broker logs (.gz too)."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Where the draft or baseline goes; never overwritten."),
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
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Learn what is usual (docs/baseline.md) instead of drafting a policy."),
    ] = False,
    min_days: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="With --baseline: on how many days few users, or a program, must be seen to be usual.",
        ),
    ] = 3,
    broker: BrokerOption = None,
    kind: KindOption = None,
    timezone: TimezoneOption = None,
) -> None:
    """Draft a policy or a baseline from what was observed, with a list of what is left out and why."""
    from topicwarden.cli.learn import LearnOptions, run
    from topicwarden.sources import SourceOptions

    def body() -> int:
        options = LearnOptions(
            output=output,
            review=review,
            min_coverage=min_coverage,
            min_users=min_users,
            broker_kind=kind,
            baseline=baseline,
            min_days=min_days,
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
def query(
    store: Annotated[Path, typer.Argument(metavar="DIR", help="The store's folder.")],
    sql: Annotated[
        str | None,
        typer.Argument(
            metavar="SQL", help="One statement over the store's views (docs/query.md); - reads it from stdin."
        ),
    ] = None,
    output_format: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="text, csv or jsonl.")
    ] = "text",
    views: Annotated[bool, typer.Option("--views", help="List the views and their columns.")] = False,
    first: FromOption = None,
    last: ToOption = None,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory before work goes on on disk, such as 512MiB.")
    ] = "2GiB",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1024, help="Default: one for each core.")
    ] = None,
) -> None:
    """Ask a store with SQL: events, clients, topics, findings, grants over time, and what is missing."""
    from topicwarden.cli.period import period_named
    from topicwarden.cli.query import QueryOptions, list_views, memory_named, run
    from topicwarden.errors import ConfigurationError, Problem

    def body() -> int:
        if views:
            return list_views()
        if sql is None:
            raise ConfigurationError(
                Problem("no SQL", hint='such as "select * from findings"; --views lists the views')
            )
        options = QueryOptions(output_format, memory_named(memory), threads, period_named(first, last))
        return run(store, typer.get_text_stream("stdin").read() if sql == "-" else sql, options)

    exit_with(body)


@app.command()
def report(
    store: Annotated[Path, typer.Argument(metavar="DIR", help="The store's folder.")],
    first: FromOption = None,
    last: ToOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=".html, .pdf, .json, .oscal.json, .csv (a folder) or .zip. Default: HTML to stdout.",
        ),
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="FORMAT", help="html, pdf, json, oscal or csv, whatever the name."),
    ] = None,
    policy: PolicyOption = None,
    grants: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]CONFIGURATION",
            help="A broker's configuration, as for `scan`, and what the store calls the broker; may be repeated.",
        ),
    ] = None,
    previous: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The last report as .json: tells what changed since.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify the whole store first, and say so in the report.")
    ] = False,
    allow_gaps: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="A control may be satisfied though so long a time, all gaps together, was not seen; it says so.",
        ),
    ] = "0s",
) -> None:
    """Write the report on a period: what was observed and found, what could not be seen, and the proof."""
    from topicwarden.cli.period import length_named, period_named
    from topicwarden.cli.report import ReportOptions, run

    exit_with(
        lambda: run(
            store,
            ReportOptions(
                period_named(first, last),
                output,
                output_format,
                policy,
                previous,
                grants or [],
                verify,
                length_named("--allow-gaps", allow_gaps),
            ),
        )
    )


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
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The store, as `watch --store` writes it.")],
    public_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="The public key, or a file with it, that you kept elsewhere. Default: the store's own word.",
        ),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A copy of log/checkpoint that you kept elsewhere; may be repeated."),
    ] = None,
    segment: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Only prove that this segment is in the log as signed.")
    ] = None,
    row: Annotated[
        int | None, typer.Option(metavar="I", min=0, help="With --segment: show its event number I, from 0.")
    ] = None,
    timestamp_root: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificates (PEM) of authorities whose timestamps you trust."),
    ] = None,
    output_format: Annotated[str, typer.Option("--format", "-f", metavar="FORMAT", help="text or json.")] = "text",
) -> None:
    """Find and name whatever was changed, removed, added or moved in a store since it was written."""
    from topicwarden.cli.verify import VerifyOptions, run

    options = VerifyOptions(public_key, tuple(checkpoint or ()), segment, row, output_format, timestamp_root)
    exit_with(lambda: run(folder, options))


@key_app.command("new")
def key_new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the key goes; never overwritten.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the key is called, in every signature. Default: by host.")
    ] = None,
) -> None:
    """Make a key that signs a store's checkpoints, readable by this account only, and print its public half."""
    from topicwarden.cli.key import run_new

    exit_with(lambda: run_new(file, name))


@key_app.command("public")
def key_public(file: Annotated[Path, typer.Argument(metavar="FILE", help="The key.")]) -> None:
    """Print a key's public half, which `verify --public-key` takes."""
    from topicwarden.cli.key import run_public

    exit_with(lambda: run_public(file))


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


@app.command()
def attack(
    tests: Annotated[
        list[int] | None, typer.Argument(metavar="[TEST]...", min=1, help="Which tests, by number. Default: all.")
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="SERVER", help="Play what needs this server too: rabbitmq. May be repeated."),
    ] = None,
    innocent: Annotated[
        bool, typer.Option("--innocent", help="No attack: only sanctioned automation, which must not be accused.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="The loopback address of our own servers. Default: one is chosen."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where its files go. Default: a new folder in the temporary directory."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show everything that is seen, as it is.")] = False,
) -> None:
    """Play Atomic Red Team tests of T1071.005 against servers of our own, and show which rule catches which."""
    from topicwarden.cli.attack import AttackOptions, run

    exit_with(lambda: run(AttackOptions(tests or [], extra or [], address, folder, innocent, verbose)))


@app.command()
def rules(
    to: Annotated[str | None, typer.Option("--to", metavar="FORM", help="Write them as: elastic or sigma.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where the files go; those there are replaced.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", "-p", metavar="FILE", help="Its inventory says which brokers and tools are meant."),
    ] = None,
) -> None:
    """List the rules about hosts, or write them for other programs, and say what those cannot express."""
    from topicwarden.cli.rules import RulesOptions, run

    exit_with(lambda: run(RulesOptions(to, output, policy)))


@app.command()
def findings(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE", help="The store (docs/store.md), or what `scan --format jsonl` and others wrote."
        ),
    ],
    action: Annotated[
        str, typer.Argument(metavar="[ACTION]", help="list (the default), show, accept or reopen.")
    ] = "list",
    fingerprint: Annotated[
        str | None, typer.Argument(metavar="[FINGERPRINT]", help="Of one finding; its first digits are enough.")
    ] = None,
    code: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Only these codes or dotted names; may be repeated.")
    ] = None,
    severity: Annotated[str | None, typer.Option(metavar="SEVERITY", help="Only from this one up.")] = None,
    broker: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this broker; * and ? as usual.")] = None,
    host: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this host.")] = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this user, of a broker or of a process behind it.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Only what was seen then or later, UTC.")] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only what no exception accepted.")] = False,
    only_accepted: Annotated[bool, typer.Option("--accepted", help="Only what an exception accepted.")] = False,
    only_gone: Annotated[bool, typer.Option("--gone", help="Only what newer scans did not find any more.")] = False,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The gravest N. Default: 100 as text, all as jsonl.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy", "-p", metavar="FILE", help="accept and reopen change it; list and show say what it accepts."
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="accept: why; auditors will ask.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="accept: the last day, YYYY-MM-DD.")] = None,
    topic: Annotated[str | None, typer.Option(metavar="FILTER", help="accept: only for these topics.")] = None,
    exchange: Annotated[
        str | None, typer.Option(metavar="NAME", help="accept: only for keys of it, with --key.")
    ] = None,
    key: Annotated[str | None, typer.Option(metavar="PATTERN", help="accept: the keys.")] = None,
    queue: Annotated[str | None, typer.Option(metavar="PATTERN", help="accept: only for these queues.")] = None,
    wide: Annotated[
        bool,
        typer.Option(
            "--wide",
            help="accept: though the exception covers more than this finding; of a grant: for everybody who has it.",
        ),
    ] = False,
    line: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="reopen: which exception, by its line in the policy.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="accept, reopen: write without asking.")] = False,
    output_format: Annotated[str, typer.Option("--format", "-f", metavar="FORMAT", help="text or jsonl.")] = "text",
) -> None:
    """List what was found, explain a finding, accept it in the policy until a day, or take that back."""
    from topicwarden.cli.findings import FindingsOptions, run
    from topicwarden.errors import ConfigurationError, Problem

    def body() -> int:
        if only_open + only_accepted + only_gone > 1:
            raise ConfigurationError(Problem("--open, --accepted and --gone exclude each other"))
        places = {"topic": topic, "exchange": exchange, "key": key, "queue": queue}
        options = FindingsOptions(
            action=action,
            fingerprint=fingerprint,
            output_format=output_format,
            policy=policy,
            limit=limit,
            codes=code or [],
            severity=severity,
            broker=broker,
            host=host,
            user=user,
            since=since,
            state="open" if only_open else "accepted" if only_accepted else "gone" if only_gone else "all",
            reason=reason,
            until=until,
            place={name: value for name, value in places.items() if value is not None},
            wide=wide,
            line=line,
            yes=yes,
        )
        return run(place, options)

    exit_with(body)
