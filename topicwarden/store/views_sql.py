"""The views' SQL, and what each column means. `docs/query.md` has the same columns; a test holds them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from topicwarden.events import Action, Certainty, Outcome, Shape


@dataclass(frozen=True, slots=True)
class View:
    """A documented view."""

    about: str
    """What one row is, in a sentence."""
    columns: Mapping[str, str]
    """What each column means, in order."""
    sql: str


def _words(name: str, enum: type[IntEnum]) -> str:
    cases = " ".join(f"WHEN {one.value} THEN '{one.name.lower()}'" for one in enum)
    return f"CREATE MACRO {name}_word(n) AS CASE n {cases} END"


MACROS: Final = (
    # The two ends of int64 are DuckDB's infinities, and are refused.
    (
        "CREATE MACRO moment(ns) AS CASE WHEN ns BETWEEN -9223372036854775806 AND 9223372036854775806 "
        "THEN make_timestamp_ns(ns) END"
    ),
    # What stands in the documents for half of a character, which JSON parsers refuse, becomes U+FFFD three times, as
    # `rows.shown` has it. First what only looks like it is set aside: escaped backslashes, and halves that are a pair.
    r"""CREATE MACRO mended(d) AS CASE WHEN NOT contains(d, '\ud') AND NOT contains(d, '\uD') THEN d ELSE
        replace(regexp_replace(regexp_replace(regexp_replace(replace(d, '\\', chr(57344)),
            '\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})', chr(57345) || '\1,\2;', 'g'),
            '\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\ufffd\\ufffd\\ufffd', 'g'),
            chr(57345) || '(....),(....);', '\\u\1\\u\2', 'g'),
            chr(57344), '\\') END""",
    _words("action", Action),
    _words("outcome", Outcome),
    _words("certainty", Certainty),
    _words("shape", Shape),
    """CREATE MACRO rights(d, path) AS list_transform(json_extract(d, path || '[*]'), lambda one:
        concat_ws(' ', one->>'$.action', nullif(one->>'$.resource.kind', 'topic'), one->>'$.resource.name',
            'in ' || nullif(one->>'$.resource.within', '')))""",
    (
        "CREATE MACRO identity_rank(word) AS CASE word WHEN 'verified' THEN 3 WHEN 'anonymous' THEN 2 "
        "WHEN 'claimed' THEN 1 ELSE 0 END"
    ),
    (
        "CREATE MACRO severity_rank(word) AS CASE word WHEN 'critical' THEN 5 WHEN 'high' THEN 4 WHEN 'medium' THEN 3 "
        "WHEN 'low' THEN 2 ELSE 1 END"
    ),
)

TABLES: Final[Mapping[str, str]] = {
    "opened": "run INTEGER, time_ns BIGINT, first_segment BIGINT, version VARCHAR, command VARCHAR, title VARCHAR, "
    "broker VARCHAR, kind VARCHAR, host VARCHAR, runs_on VARCHAR, blind_spots VARCHAR[]",
    "runs": "run INTEGER, first_segment BIGINT",
    "gaps": "from_ns BIGINT, until_ns BIGINT, noted_ns BIGINT, lost BIGINT, reason VARCHAR",
}
"""What is read of the log at once: little."""

INNER: Final[Mapping[str, str]] = {
    # A join with these that nothing is asked of is left out by DuckDB, since a number occurs once.
    "stored.clients_by_id": """
        SELECT id, any_value(broker) AS broker, any_value(protocol) AS protocol, any_value(vhost) AS vhost,
            any_value("user") AS "user", any_value(client_id) AS client_id, any_value(identity) AS identity,
            any_value(address) AS address, any_value(port) AS port, any_value(tls_subject) AS tls_subject,
            any_value(raw) AS raw
        FROM stored.clients GROUP BY id""",
    # The first number of each client, wherever it comes from. Names that are no valid UTF-8 are not compared, since two
    # of them may look the same here: such a client counts as another one whenever it connects.
    "stored.principals": """
        SELECT *, min(id) OVER (
            PARTITION BY broker, vhost, protocol, "user", client_id, CASE WHEN raw IS NOT NULL THEN id END) AS principal
        FROM stored.clients_by_id""",
    "stored.resources_by_id": """
        SELECT id, any_value(kind) AS kind, any_value(name) AS name, any_value(within) AS within,
            any_value(length) AS length, any_value(raw) AS raw
        FROM stored.resources GROUP BY id""",
    "stored.uses": """
        SELECT client, resource, action, sum(count)::BIGINT AS events,
            coalesce(sum(count) FILTER (outcome = 2), 0)::BIGINT AS denied,
            coalesce(sum(size * count) FILTER (size >= 0), 0)::BIGINT AS bytes,
            min(time_ns) AS first_ns, max(time_ns) AS last_ns
        FROM stored.events GROUP BY client, resource, action""",
    "stored.tellings": """
        SELECT f.segment, f.time_ns, f.row, f.about, f.what, f.document, coalesce(r.run, 0) AS run,
            f.document->>'$.fingerprint' AS fingerprint, (f.document->>'$.count')::BIGINT AS count
        FROM stored.findings f ASOF LEFT JOIN stored.runs r ON f.segment >= r.first_segment""",
    "stored.last_tellings": """
        SELECT fingerprint, run, max(count) AS count, arg_max(document, (segment, time_ns, row)) AS document,
            max((segment, time_ns, row)) AS place
        FROM stored.tellings GROUP BY fingerprint, run""",
}
"""What the views share; not documented, and may change."""

_CLIENT: Final = {
    "broker": "the operator's name for the broker",
    "vhost": "virtual host, or null",
    "protocol": "`mqtt`, `amqp` …",
    "user": "user name, or null: anonymous or not known",
    "client_id": "client id; empty when there is none",
    "identity": "how far the broker vouches for the user name: `verified`, `claimed`, `anonymous`, `unknown`",
}
_NAME: Final = {
    "kind": "`topic`, `key`, `binding`, `queue`, `exchange`, `grant`; null: the event has no name",
    "name": "topic, topic filter, routing key, queue …, as the broker spells it; what is no UTF-8 in it is U+FFFD",
    "within": "the exchange of a key; else empty",
}

VIEWS: Final[Mapping[str, View]] = {
    "events": View(
        "What a client did or tried, as often as `count` says.",
        {
            "time": "when, UTC, by the broker's clock; null where it is out of a timestamp's range",
            **_CLIENT,
            "address": "peer IP address, or a unix socket's path",
            "port": "peer TCP port",
            "tls_subject": "subject of the client's certificate",
            "action": "`authenticate`, `connect`, `disconnect`, `publish`, `subscribe`, `unsubscribe`, `deliver`, "
            "`configure`, `grant_change`",
            "outcome": "`allowed`, `denied`, `unknown`",
            "certainty": "how the outcome is known: `exact`, `inferred`, `unknown`",
            **_NAME,
            "name_bytes": "the name's full length in bytes",
            "name_cut": "whether the source gave only the name's beginning",
            "size": "payload bytes; null: not known",
            "entropy": "bits per byte of the payload, 0 to 8; null: not measured",
            "shape": "what the payload looks like: `empty`, `text`, `json`, `base64`, `hex`, `binary`, `unknown`",
            "qos": "0 to 2, or null",
            "retain": "0, 1, or null",
            "count": "how many equal events the row stands for",
            "time_ns": "the time in nanoseconds since 1970; a condition on it skips files that cannot match",
            "client": "the client's number: the same for all its columns",
            "resource": "the name's number, also where `name` is damaged; 0: none",
            "segment": "the segment it was sealed in",
        },
        # What is not known: COLUMNS' -1, NaN, 255 and 255.
        """
        SELECT moment(e.time_ns) AS time, c.broker, c.vhost, c.protocol, c."user", c.client_id, c.identity, c.address,
            c.port, c.tls_subject, action_word(e.action) AS action, outcome_word(e.outcome) AS outcome,
            certainty_word(e.certainty) AS certainty, r.kind, r.name, r.within, r.length AS name_bytes,
            CASE WHEN r.raw IS NULL THEN r.length > strlen(r.name) ELSE contains(r.raw, '"length":') END AS name_cut,
            nullif(e.size, -1) AS size,
            CASE WHEN NOT isnan(e.entropy) THEN e.entropy END AS entropy, shape_word(e.shape) AS shape,
            nullif(e.qos, 255) AS qos, nullif(e.retain, 255) AS retain, e.count, e.time_ns,
            e.client, e.resource, e.segment
        FROM stored.events e LEFT JOIN stored.clients_by_id c ON c.id = e.client
            LEFT JOIN stored.resources_by_id r ON r.id = e.resource""",
    ),
    "clients": View(
        "A client: all seen under one broker, virtual host, protocol, user and client id. One whose names are no valid "
        "UTF-8 has a row for each address and port.",
        {
            **_CLIENT,
            "identity": "the weakest seen: `verified`, `anonymous`, `claimed`, `unknown`",
            "addresses": "different addresses it came from",
            "last_address": "the one it came from last",
            "events": "what it did or tried, in all",
            "publishes": "publishes, refused ones too",
            "subscribes": "subscriptions",
            "denied": "what the broker refused",
            "names": "different names it acted on",
            "bytes": "payload bytes, as far as known",
            "first_seen": "first event",
            "last_seen": "last event",
        },
        """
        SELECT c.broker, c.vhost, c.protocol, c."user", c.client_id,
            arg_min(c.identity, identity_rank(c.identity)) AS identity, count(DISTINCT c.address) AS addresses,
            arg_max(c.address, u.last_ns) AS last_address, sum(u.events)::BIGINT AS events,
            coalesce(sum(u.events) FILTER (u.action = 4), 0)::BIGINT AS publishes,
            coalesce(sum(u.events) FILTER (u.action = 5), 0)::BIGINT AS subscribes, sum(u.denied)::BIGINT AS denied,
            count(DISTINCT u.resource) FILTER (u.resource <> 0) AS names, sum(u.bytes)::BIGINT AS bytes,
            moment(min(u.first_ns)) AS first_seen, moment(max(u.last_ns)) AS last_seen
        FROM stored.uses u LEFT JOIN stored.principals c ON c.id = u.client
        GROUP BY c.principal, c.broker, c.vhost, c.protocol, c."user", c.client_id""",
    ),
    "topics": View(
        "A name that was acted on at a broker: topic, topic filter, key, queue.",
        {
            "broker": _CLIENT["broker"],
            **_NAME,
            "publishes": "publishes to it, refused ones too",
            "publishers": "different clients that published",
            "subscribes": "subscriptions to exactly this name; filters that cover it have rows of their own",
            "subscribers": "different clients that subscribed",
            "denied": "what the broker refused",
            "bytes": "payload bytes, as far as known",
            "first_seen": "first event",
            "last_seen": "last event",
        },
        """
        SELECT c.broker, r.kind, r.name, r.within,
            coalesce(sum(u.events) FILTER (u.action = 4), 0)::BIGINT AS publishes,
            count(DISTINCT c.principal) FILTER (u.action = 4) AS publishers,
            coalesce(sum(u.events) FILTER (u.action = 5), 0)::BIGINT AS subscribes,
            count(DISTINCT c.principal) FILTER (u.action = 5) AS subscribers, sum(u.denied)::BIGINT AS denied,
            sum(u.bytes)::BIGINT AS bytes, moment(min(u.first_ns)) AS first_seen, moment(max(u.last_ns)) AS last_seen
        FROM stored.uses u LEFT JOIN stored.principals c ON c.id = u.client
            LEFT JOIN stored.resources_by_id r ON r.id = u.resource
        WHERE u.resource <> 0 AND r.kind IS DISTINCT FROM 'grant'
        GROUP BY c.broker, u.resource, r.kind, r.name, r.within""",
    ),
    "findings": View(
        "A finding, as it was last told of: one row a fingerprint. What newer scans did not find any more is still "
        "here; `topicwarden findings` and the report tell it apart.",
        {
            "code": "the finding's code: `topicwarden explain TW201` says more",
            "name": "its dotted name",
            "severity": "`critical` … `info`, and `info` when accepted",
            "title": "one line for people",
            "broker": "the broker; empty when it is about a host",
            "host": "the host a finding is about, or null",
            "vhost": "the client's virtual host, or null",
            "user": "the client's user name, or null",
            "client_id": "the client's id; null when it is about no client",
            "count": "occurrences, over all runs of a writer; what was watched twice counts twice",
            "first_seen": "first occurrence",
            "last_seen": "last one",
            "certainty": "`exact`, `inferred`, `unknown`",
            "accepted": "reason and end date of the exception that accepts it, or null",
            "difference": "the two sets that differ",
            "fingerprint": "the cause's fingerprint",
            "runs": "runs of a writer in which it was found",
            "document": "all of it as JSON: the keys of JSON lines output",
        },
        """
        SELECT document->>'$.code' AS code, document->>'$.name' AS name, document->>'$.severity' AS severity,
            document->>'$.title' AS title, document->>'$.broker' AS broker, document->>'$.host' AS host,
            document->>'$.client.vhost' AS vhost, document->>'$.client.user' AS "user",
            document->>'$.client.client_id' AS client_id, count, first_seen, last_seen,
            document->>'$.certainty' AS certainty, document->>'$.accepted' AS accepted,
            document->>'$.difference' AS difference, fingerprint, runs, document
        FROM (
            SELECT fingerprint, sum(count)::BIGINT AS count, count(*) AS runs, arg_max(document, place) AS document,
                min(try_cast(document->>'$.first_seen' AS TIMESTAMP_NS)) AS first_seen,
                max(try_cast(document->>'$.last_seen' AS TIMESTAMP_NS)) AS last_seen
            FROM stored.last_tellings GROUP BY fingerprint)""",
    ),
    "finding_history": View(
        "What was said of a finding when it opened, grew or ended.",
        {
            "time": "its last occurrence then",
            "first_seen": "its first occurrence in this run of the writer",
            "event": "`opened`, `updated`, `final`",
            "code": "the finding's code",
            "severity": "its severity then",
            "broker": "the broker; empty when it is about a host",
            "host": "the host, or null",
            "fingerprint": "the cause's fingerprint",
            "count": "occurrences in this run of the writer, by then",
            "run": "the run, from 0",
        },
        """
        SELECT moment(time_ns) AS time, try_cast(document->>'$.first_seen' AS TIMESTAMP_NS) AS first_seen,
            document->>'$.event' AS event, document->>'$.code' AS code,
            document->>'$.severity' AS severity, document->>'$.broker' AS broker, document->>'$.host' AS host,
            fingerprint, count, run
        FROM stored.tellings""",
    ),
    "grants": View(
        "A change of what a broker grants.",
        {
            "time": "when",
            "broker": _CLIENT["broker"],
            "vhost": "virtual host, or null",
            "user": "whose grants changed; null: everybody's",
            "what": "kind of change: `permission`, `user`, `password` …",
            "by_user": "who changed it; null: the broker does not say",
            "by_client_id": "by which client",
            "by_address": "from where",
            "before": "the grant before, in the broker's words; empty: none, null: not known",
            "after": "the grant after; empty: none",
            "gained": "rights gained: `publish plant/a`",
            "lost": "rights lost",
            "unlisted": "rights that did not fit into these lists",
            "powers": "powers over the broker itself that were gained",
            "certainty": "how well gained and lost rights are known",
            "document": "all of it as JSON",
        },
        """
        SELECT moment(time_ns) AS time, d->>'$.grantee.broker' AS broker, d->>'$.grantee.vhost' AS vhost,
            d->>'$.grantee.user' AS "user", d->>'$.what' AS what, d->>'$.by.user' AS by_user,
            d->>'$.by.client_id' AS by_client_id, d->>'$.by.address' AS by_address, d->>'$.before' AS before,
            d->>'$.after' AS after, rights(d, '$.gained') AS gained, rights(d, '$.lost') AS lost,
            coalesce((d->>'$.unlisted')::BIGINT, 0) AS unlisted, d->>'$.powers[*]' AS powers,
            d->>'$.certainty' AS certainty, document
        FROM (SELECT time_ns, mended(document) AS d, document FROM stored.changes)""",
    ),
    "hosts": View(
        "What a host was seen to do: a program started or ended, a connection, a protocol on the wire.",
        {
            "time": "when",
            "host": "the host, or the sensor that saw it",
            "what": "`executed`, `exited`, `dialled`, `spoke`",
            "pid": "process id, or null",
            "executable": "path of the program",
            "command": "command line, joined by spaces: secrets are `***`, a message is `<payload>`",
            "user": "the user it runs as; of `spoke`, the user name on the wire",
            "login_user": "who logged in, where that is known",
            "parent_pid": "who started it",
            "parent_executable": "that one's program",
            "terminal": "the terminal it was started from",
            "container": "the container it runs in",
            "remote_address": "the other end of a connection; of `spoke`, the server",
            "remote_port": "the same",
            "local_address": "its own end; of `spoke`, the client",
            "local_port": "the same",
            "protocol": "of `spoke`: `mqtt` …",
            "name": "of `spoke`: the topic or filter",
            "document": "all of it as JSON",
        },
        """
        SELECT moment(time_ns) AS time, about AS host, what,
            coalesce(d->>'$.process.pid', d->>'$.pid')::BIGINT AS pid,
            coalesce(d->>'$.process.executable', d->>'$.executable') AS executable,
            array_to_string(d->>'$.process.arguments[*]', ' ') AS command,
            coalesce(d->>'$.process.user', d->>'$.user') AS "user", d->>'$.process.login_user' AS login_user,
            (d->>'$.process.parent_pid')::BIGINT AS parent_pid, d->>'$.process.parent_executable' AS parent_executable,
            d->>'$.process.terminal' AS terminal, d->>'$.process.container' AS container,
            coalesce(d->>'$.remote.address', d->>'$.server.address') AS remote_address,
            coalesce(d->>'$.remote.port', d->>'$.server.port')::INTEGER AS remote_port,
            coalesce(d->>'$.local.address', d->>'$.client.address') AS local_address,
            coalesce(d->>'$.local.port', d->>'$.client.port')::INTEGER AS local_port,
            d->>'$.protocol' AS protocol, d->>'$.name' AS name, document
        FROM (SELECT time_ns, about, what, mended(document) AS d, document FROM stored.hosts)""",
    ),
    "notices": View(
        "What a source said of its own observing: a loss, a forged line, a restart.",
        {
            "time": "when",
            "code": "the finding's code it led to",
            "broker": "the broker; null when it is about a host",
            "host": "the host, or null",
            "scope": "tells causes with the same code apart",
            "count": "how many",
            "witness": "an example, or null",
            "user": "the client's user name, or null",
            "client_id": "the client's id, or null",
            "evidence": "measured facts as JSON, or null",
            "document": "all of it as JSON",
        },
        """
        SELECT moment(time_ns) AS time, what AS code, CASE WHEN NOT of_host THEN d->>'$.broker' END AS broker,
            CASE WHEN of_host THEN d->>'$.broker' END AS host, coalesce(d->>'$.scope', '') AS scope,
            coalesce((d->>'$.count')::BIGINT, 1) AS count, d->>'$.witness' AS witness, d->>'$.client.user' AS "user",
            d->>'$.client.client_id' AS client_id, (d->'$.evidence')::VARCHAR AS evidence, document
        FROM (SELECT *, coalesce((d->>'$.of_host')::BOOLEAN, false) AS of_host
            FROM (SELECT time_ns, what, mended(document) AS d, document FROM stored.notices))""",
    ),
    "gaps": View(
        "A time for which the store itself may miss rows.",
        {
            "from_time": "since when",
            "until_time": "until when",
            "lost": "rows known to be missing; null: not known",
            "reason": "why",
            "noted": "when it was written down",
        },
        "SELECT moment(from_ns) AS from_time, moment(until_ns) AS until_time, lost, reason, moment(noted_ns) AS noted "
        "FROM stored.gaps",
    ),
    "segments": View(
        "Rows of one kind, broker and hour that were sealed at once.",
        {
            "segment": "its number",
            "sealed": "when, by the writer's clock",
            "kind": "`events`, `clients`, `resources`, `notices`, `changes`, `hosts`, `findings`",
            "broker": "the broker of events; else empty",
            "hour": "the hour of its rows",
            "rows": "how many",
            "first_seen": "the first row's time",
            "last_seen": "the last row's time",
            "sha256": "digest of the rows' content",
        },
        """
        SELECT segment, moment(time_ns) AS sealed, part.kind AS kind, part.broker AS broker,
            CASE WHEN part.hour BETWEEN -2562047 AND 2562046 THEN moment(part.hour * 3600000000000) END AS hour,
            part.rows AS rows, CASE WHEN part.kind NOT IN ('clients', 'resources') THEN moment(part.first_ns) END
            AS first_seen, CASE WHEN part.kind NOT IN ('clients', 'resources') THEN moment(part.last_ns) END
            AS last_seen, part.sha256 AS sha256
        FROM (SELECT segment, time_ns, unnest(parts) AS part FROM stored.log WHERE kind = 'segment')""",
    ),
    "opened": View(
        "A source that was watched, each time a writer began.",
        {
            "time": "when the writer began",
            "run": "its number, from 0",
            "version": "topicwarden's version",
            "command": "`watch` or `check`",
            "title": "the source's mode",
            "broker": "the broker it watched; null for a host",
            "kind": "the broker's kind: `mosquitto`, `rabbitmq`",
            "host": "the host it watched, or null",
            "runs_on": "the host the broker runs on, where that was known",
            "blind_spots": "what this source could not see",
            "first_segment": "the first segment it may have written",
        },
        """
        SELECT moment(time_ns) AS time, run, version, command, title, broker, kind, host, runs_on, blind_spots,
            first_segment
        FROM stored.opened""",
    ),
}

LOG_PART: Final = (
    '{"segment": "BIGINT", "kind": "VARCHAR", "time_ns": "BIGINT", "parts": [{"kind": "VARCHAR", "broker": "VARCHAR", '
    '"hour": "BIGINT", "rows": "BIGINT", "sha256": "VARCHAR", "first_ns": "BIGINT", "last_ns": "BIGINT"}]}'
)
"""What the views need of the log's lines, as DuckDB wants it told."""
