from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.policy.examples import GOOD
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import Client, Resource, ResourceKind
from topicwarden.findings import load_catalogue
from topicwarden.policy import Policy, load_policy, parse_policy
from topicwarden.policy.exceptions import CHANGES, ONLY_CHANGES

START = "topicwarden: 1\n"


def problems(text: str, known: list[str] | None = None) -> list[tuple[int | None, str]]:
    """Return the lines and messages of everything wrong with a policy."""
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(text, "policy.yaml", known)
    assert all(problem.file == "policy.yaml" for problem in caught.value.problems)
    return [(problem.line, problem.message) for problem in caught.value.problems]


def hint(text: str) -> str | None:
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(text, "policy.yaml")
    return caught.value.problems[0].hint


def role(body: str) -> str:
    """A policy whose role's content begins on line 4."""
    return f"{START}roles:\n  r:\n    {body}\n"


NO_REGEX = "not a regular expression: nothing to repeat at position 0"
EXPONENTIAL = "it can take exponential time on a hostile name"
MEMBERS = "members: [{user: a}]\n    "
KNOWN = [
    "TW201",
    "publish.outside-policy",
    "TW403",
    "TW103",
    "TW110",
    "TW111",
    "TW112",
    "grant.changed",
    "grant.unused",
]


def test_a_policy_that_uses_every_key_is_read() -> None:
    policy = parse_policy(GOOD, "policy.yaml", ["TW101", "grant.excess"])
    assert list(policy.roles) == ["sensor", "billing"]
    rule = policy.roles["sensor"].publish[0]
    assert (rule.topic, rule.burst, rule.max_size) == ("plant/+/%u/telemetry", 20, 4096)
    assert policy.exceptions[0].until.isoformat() == "2027-06-30"


def test_codes_and_names_of_findings_that_changes_make_are_those_of_the_catalogue() -> None:
    catalogue = load_catalogue()
    assert {f"TW{number}".lower() for number in (101, 103, 110, 111)} < CHANGES
    for names in (CHANGES, ONLY_CHANGES):
        codes = [catalogue.find(name) for name in names]
        assert names == {text for one in codes if one is not None for text in (one.code.lower(), one.name)}
    assert all(entry.name.startswith("grant.") == code.startswith("TW1") for code, entry in catalogue.items())


def test_the_smallest_policy_is_one_line() -> None:
    assert parse_policy("topicwarden: 1", "p") == Policy(topicwarden=1)


def test_names_stay_the_text_that_was_written() -> None:
    policy = parse_policy(
        role("members: [{user: no}, {user: 007}, {user: 1:30}, {user: 'null'}, {user: 2027-06-30}]"), "p"
    )
    assert [str(m.user) for m in policy.roles["r"].members] == ["no", "007", "1:30", "null", "2027-06-30"]


def test_an_anchor_saves_writing_a_value_twice() -> None:
    text = START + "roles:\n  a: {members: &m [{user: x}]}\n  b: {members: *m}\n"
    policy = parse_policy(text, "p")
    assert policy.roles["a"].members == policy.roles["b"].members


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [(None, "the policy is empty")]),
        ("# nothing\n", [(None, "the policy is empty")]),
        ("[]", [(1, "a policy is a mapping of keys to values")]),
        ("topicwarden", [(1, "a policy is a mapping of keys to values")]),
        ("{}", [(1, "the key 'topicwarden' is missing")]),
        ("topicwarden: 2", [(1, "topicwarden: this topicwarden reads version 1 of the policy language, not 2")]),
        ("topicwarden: one", [(1, "topicwarden: expected a whole number, not 'one'")]),
        (START + "---\ntopicwarden: 1\n", [(2, "a policy is one YAML document")]),
        (START + "roles: {", [(3, "not valid YAML: did not find expected node content")]),
        (START + "\n\nx: 'a\n", [(5, "not valid YAML: found unexpected end of stream")]),
        (START + "\na: \x07\n", [(3, "not valid YAML: a character that YAML does not allow (U+0007)")]),
        (START + "roles: {}\nroles: {}\n", [(3, "the key 'roles' stands twice")]),
        (START + "rols: {}\n", [(2, "unknown key 'rols'")]),
        (START + "roles:\n", [(2, "'roles' has no value")]),
        (START + "roles: {a: {members: [{user: ~}]}}\n", [(2, "'user' has no value")]),
        (START + "naming: [null]\n", [(2, "an entry of a list has no value")]),
        (START + "? [a]\n: b\n", [(2, "a key must be text")]),
        (START + "roles: !!python/name:os.system x\n", [
            (2, "roles: expected a mapping, not 'x'"),
            (2, "the tag 'tag:yaml.org,2002:python/name:os.system' is not allowed"),
        ]),
        (START + "roles: *nobody\n", [(2, "the alias '*nobody' refers to nothing")]),
        (START + "roles: &r\n  a: *r\n", [(3, "the alias '*r' refers to itself")]),
        (START + "roles:\n  a: &a {members: [{user: x}]}\n  b:\n    <<: *a\n", [
            (4, "roles.b: the key 'members' is missing"),
            (5, "the merge key << is not supported"),
        ]),
        (START + "#\n# \u202e", [(3, "holds the invisible character U+202E")]),
        (START + "roles: {'a\u2028b': {}}", [(2, "holds the invisible character U+2028")]),
        (START + "a: \ud800", [(2, "holds a lone surrogate: not UTF-8")]),
        (START + "a: " + "[" * 40 + "]" * 40, [(2, "nested deeper than 32 levels")]),
    ],
)  # fmt: skip
def test_what_is_wrong_as_yaml_is_said_with_its_line(text: str, expected: list[tuple[int | None, str]]) -> None:
    assert problems(text) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("publish: []", [(3, "roles.r: the key 'members' is missing")]),
        ("members: []", [(4, "roles.r.members: a role that nobody has")]),
        ("members: x", [(4, "roles.r.members: expected a list, not 'x'")]),
        ("members: [x]", [(4, "roles.r.members[0]: expected a mapping, not 'x'")]),
        ("members: [{}]", [(4, "roles.r.members[0]: a member selector is empty")]),
        ("members:\n    - user: a\n    - usr: b\n", [
            (6, "roles.r.members[1]: a member selector is empty"),
            (6, "roles.r.members[1]: unknown key 'usr'"),
        ]),
        ("members: [{user: ''}]", [(4, "roles.r.members[0].user: a name pattern has 1 to 1024 characters, not 0")]),
        ("members: [{user: [a]}]", [(4, "roles.r.members[0].user: a name pattern is text, not ['a']")]),
        ("members: [{user: a, anonymous: true}]", [
            (4, "roles.r.members[0]: a member cannot be anonymous and have a user name"),
        ]),
        ("members: [{anonymous: false}]", [(4, "roles.r.members[0].anonymous: anonymous can only be true")]),
        ("members: [{anonymous: maybe}]", [(4, "roles.r.members[0].anonymous: expected true or false, not 'maybe'")]),
        ("members: [{address: 10.0.0.1/8}]", [
            (4, "roles.r.members[0].address: '10.0.0.1/8' has bits set behind its prefix"),
        ]),
        ("members: [{address: host}]", [
            (4, "roles.r.members[0].address: 'host' is neither an IP address nor a CIDR block"),
        ]),
        ("members: [{user: a}, {user: b}, {user: a}]", [(4, "roles.r.members: 'user: a' stands twice")]),
        (MEMBERS + "publish: [{}]", [(5, "roles.r.publish[0]: a publish rule does not say which names it is about")]),
        (MEMBERS + "publish: [{exchange: e}]", [
            (5, "roles.r.publish[0]: a publish rule does not say which names it is about"),
        ]),
        (MEMBERS + "publish: [{topic: a, key: b}]", [
            (5, "roles.r.publish[0]: a publish rule names one kind of place, not topic, key together"),
        ]),
        (MEMBERS + "publish:\n    - topic: a#", [
            (6, "roles.r.publish[0].topic: 'a#' is no topic filter: '#' must be a whole level, not part of 'a#'"),
        ]),
        (MEMBERS + "publish: [{topic: a/+b}]", [
            (5, "roles.r.publish[0].topic: 'a/+b' is no topic filter: '+' must be a whole level, not part of '+b'"),
        ]),
        (MEMBERS + "subscribe: [{topic: '-%c'}]", [
            (5, "roles.r.subscribe[0].topic: '-%c' is no topic filter: '%c' must be a whole level, not part of '-%c'"),
        ]),
        (MEMBERS + "subscribe: [{topic: $share/g/a}]", [
            (5, "roles.r.subscribe[0].topic: '$share/g/a' names a shared subscription"),
        ]),
        (MEMBERS + "subscribe: [{topic: 'a\\nb'}, {topic: \"\"}]", [
            (5, "roles.r.subscribe[1].topic: '' is no topic filter: a topic filter cannot be empty"),
        ]),
        (MEMBERS + "publish: [{exchange: e, key: a.b*}]", [
            (5, "roles.r.publish[0].key: * and # must be whole words between dots, not part of 'b*'"),
        ]),
        (MEMBERS + "consume: [{queue: \"\"}]", [
            (5, "roles.r.consume[0].queue: a queue or exchange has a name of 1 to 255 bytes, not ''"),
        ]),
        (MEMBERS + "publish: [{topic: a, rate: 10}]", [
            (5, "roles.r.publish[0].rate: a rate is a whole number per s, min or h, not '10'"),
        ]),
        (MEMBERS + "rate: 0/s", [
            (5, "roles.r.rate: a rate must be between 1 in its period and 1000000000 per second"),
        ]),
        (MEMBERS + "rate: 1.5/s", [(5, "roles.r.rate: a rate is a whole number per s, min or h, not '1.5/s'")]),
        (MEMBERS + "rate: 1/day", [(5, "roles.r.rate: a rate is a whole number per s, min or h, not '1/day'")]),
        (MEMBERS + "byte_rate: 1KB/s", [
            (5, "roles.r.byte_rate: a size is a whole number of B, kB, MB, GB, KiB, MiB, GiB, not '1KB'"),
        ]),
        (MEMBERS + "byte_rate: 100", [(5, "roles.r.byte_rate: a byte rate is a size per s, min or h, not '100'")]),
        (MEMBERS + "rate: 1/s\n    burst: 0", [(6, "roles.r.burst: must be at least 1, not '0'")]),
        (MEMBERS + "burst: 5", [(3, "roles.r: burst without rate limits nothing")]),
        (MEMBERS + "byte_burst: 5", [(3, "roles.r: byte_burst without byte_rate limits nothing")]),
        (MEMBERS + "publish: [{topic: a, max_size: 4KiB, byte_rate: 1kB/s, byte_burst: 1KiB}]", [
            (5, "roles.r.publish[0]: byte_burst 1024 is smaller than max_size 4096: such a message never passes"),
        ]),
        (MEMBERS + "publish: [{topic: a, rate: 1/s}, {topic: a, rate: 2/s}]", [
            (5, "roles.r.publish: 'topic: a' stands twice"),
        ]),
        (MEMBERS + "publis: []", [(5, "roles.r: unknown key 'publis'")]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_role_is_said_with_its_line(body: str, expected: list[tuple[int, str]]) -> None:
    assert problems(role(body)) == expected


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("roles:\n  a b: {members: [{user: x}]}", [(3, "'a b' is no name for a role")]),
        ("naming: [{levels: [a]}]", [(2, "naming[0]: the key 'within' is missing")]),
        ("naming:\n- within: {topic: a}\n  levels: []", [(4, "naming[0].levels: must have at least one entry")]),
        ("naming:\n- within: {topic: a/#}\n  levels: [a,\n    '*']", [
            (5, "naming[0].levels[1]: '*' is no pattern for a level: " + NO_REGEX),
        ]),
        ("naming:\n- within: {topic: a/#}\n  levels: [a, '(x+)+']", [
            (4, "naming[0].levels[1]: '(x+)+' is no pattern for a level: " + EXPONENTIAL),
        ]),
        ("naming: [{within: {topic: a/#}, levels: [b]}]", [
            (2, "naming[0]: levels[0] 'b' never matches 'a', the level of every name within 'a/#'"),
        ]),
        ("naming: [{within: {topic: a/+}, levels: [a]}]", [
            (2, "naming[0]: names within 'a/+' have more levels than the 1 described"),
        ]),
        ("naming: [{within: {topic: a}, levels: [a, b]}]", [
            (2, "naming[0]: names within 'a' have 1 levels, never 2"),
        ]),
        ("naming: [{within: {topic: '%u/#'}, levels: [a]}]", [
            (2, "naming[0].within.topic: '%u/#' holds %u or %c, which stand for a role's member and mean nothing here"),
        ]),
        ("payload: {max_entropy: 9}", [(2, "payload.max_entropy: must be at most 8, not '9'")]),
        ("payload: {max_entropy: .nan}", [(2, "payload.max_entropy: expected a number, not '.nan'")]),
        ("payload: {max_entropy: nan}", [(2, "payload.max_entropy: expected a number, not 'nan'")]),
        ("payload: {text_only: [a, a]}", [(2, "payload.text_only: 'a' stands twice")]),
        ("thresholds: {denials: 10, max_levels: 0}", [
            (2, "thresholds.denials: a rate is a whole number per s, min or h, not '10'"),
            (2, "thresholds.max_levels: must be at least 1, not '0'"),
        ]),
        ("inventory: {brokers: [{address: a, ports: [0, x]}]}", [
            (2, "inventory.brokers[0].ports[0]: must be at least 1, not '0'"),
            (2, "inventory.brokers[0].ports[1]: expected a whole number, not 'x'"),
        ]),
        ("exceptions: [{finding: TW1, client: a, reason: r, until: 2027-01-01}]", [
            (2, "exceptions[0].finding: no finding is called 'TW1'"),
        ]),
        ("exceptions: [{finding: TW201, host: a, topic: x, reason: r, until: 2027-01-01}]", [
            (2, "exceptions[0]: an exception for a host or a process cannot have topic"),
        ]),
        ("exceptions: [{finding: TW201, client: a, reason: r, until: 2027-02-30}]", [
            (2, "exceptions[0].until: there is no day 2027-02-30"),
        ]),
        ("exceptions: [{finding: TW201, client: a, reason: r, until: 30.6.2027}]", [
            (2, "exceptions[0].until: a day is written YYYY-MM-DD, not '30.6.2027'"),
        ]),
        ("exceptions: [{finding: TW201, client: a, reason: r, until: 1750000000}]", [
            (2, "exceptions[0].until: a day is written YYYY-MM-DD, not '1750000000'"),
        ]),
        ("exceptions: [{finding: TW112, grant: g, topic: x, reason: r, until: 2027-01-01}]", [
            (2, "exceptions[0]: an exception for a grant cannot have topic"),
        ]),
        ("exceptions: [{finding: TW112, grant: g, client: c, reason: r, until: 2027-01-01}]", [
            (2, "exceptions[0]: an exception for a grant cannot have client"),
        ]),
        ("exceptions: [{finding: TW110, user: u, change: tags, grant: g, reason: r, until: 2027-01-01}]", [
            (2, "exceptions[0]: an exception for a grant cannot have change"),
        ]),
        ("exceptions: [{finding: TW110, user: u, change: tags, queue: q, reason: r, until: 2027-01-01}]", [
            (2, "exceptions[0]: an exception for a change of grants cannot have queue"),
        ]),
        ("exceptions: [{finding: TW403, host: h, broker: b, reason: r, until: 2027-01-01}]", [
            (2, "exceptions[0]: an exception for a host or a process cannot have broker"),
        ]),
        ("exceptions: [{finding: TW110, change: tags, broker: b, reason: r, until: 2027-01-01}]", [
            (2, "exceptions[0]: an exception does not say for whom"),
        ]),
        ("exceptions: [{finding: TW112, user: u, holder: h, reason: r, until: 2027-01-01}]", [
            (2, "exceptions[0]: holder says which grant is meant, and there is none"),
        ]),
        ("exceptions: [{finding: TW112, grant: '', reason: r, until: 2027-01-01}]", [
            (2, "exceptions[0].grant: expected text, not ''"),
        ]),
        *(
            (f"exceptions: [{{finding: {name}, grant: g, reason: r, until: 2027-01-01}}]", [
                (2, f"exceptions[0]: {name} is about no one grant"),
            ])
            for name in ("TW103", "grant.changed", "TW111", "TW201", "publish.outside-policy")
        ),
        *(
            (f"exceptions: [{{finding: {name}, user: u, change: c, reason: r, until: 2027-01-01}}]", [
                (2, f"exceptions[0]: {name} is about no change of grants"),
            ])
            for name in ("TW112", "grant.unused", "TW201")
        ),
        ("exceptions:\n- finding: publish.outside-policy\n", [
            (3, "exceptions[0]: an exception does not say for whom"),
            (3, "exceptions[0]: the key 'reason' is missing"),
            (3, "exceptions[0]: the key 'until' is missing"),
        ]),
    ],
)  # fmt: skip
def test_what_is_wrong_elsewhere_is_said_with_its_line(section: str, expected: list[tuple[int, str]]) -> None:
    assert problems(START + section, KNOWN) == expected


def test_everything_wrong_is_said_at_once_and_in_order() -> None:
    text = GOOD.replace("topicwarden: 1", "topicwarden: 7")
    text = text.replace("rate: 10/s", "rate: ten").replace("- within:", "- witin:").replace("8883", "99999")
    text = text.replace("2027-06-30", "soon").replace("TW101", "TW999").replace("max_entropy", "max_entrop")
    found = problems(text, ["TW101", "grant.excess"])
    assert [line for line, _ in found] == [1, 6, 20, 20, 24, 30, 33, 33]


ALL_KEYS = "the keys here are topicwarden, roles, naming, payload, thresholds, inventory, exceptions"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (START + "rols: {}", "did you mean roles"),
        (START + "roles: {}\nzzz: 1", ALL_KEYS),
        (role("members: []"), 'say who has the role: members: [{user: "sensor-*"}]'),
        (role("members: [{address: 10.0.0.1/8}]"), "write 10.0.0.0/8"),
        (role(MEMBERS + "rate: 10"), "write 10/s, 5/min or 100/h"),
        (role(MEMBERS + "subscribe: [{topic: $share/g/a/#}]"), "write the filter alone: a/#"),
        (START + "roles: {}\nroles: {}", "it stands on line 2 already: merge the two"),
        (START + "# \u202e", 'write it as an escape: "\\u202e"'),
        ("{}", "the policy language has a version: begin the file with topicwarden: 1"),
    ],
)  # fmt: skip
def test_problems_come_with_what_to_do(text: str, expected: str) -> None:
    assert hint(text) == expected


def test_the_shipped_catalogue_is_what_exceptions_may_name() -> None:
    catalogue = load_catalogue()
    known = [*catalogue, *(finding.name for finding in catalogue.values())]
    policy = START + "exceptions: [{finding: %s, client: a, reason: r, until: 2027-01-01}]"
    parse_policy(policy % "Publish.Outside-Policy", "p", known)
    assert hint(policy % "TW2O1") == "did you mean TW201" or "TW2O1" in str(problems(policy % "TW2O1", known))


def test_an_exception_for_a_host_is_for_no_client_and_one_for_a_client_for_no_host() -> None:
    policy = parse_policy(
        START
        + "exceptions:\n"
        + "- {finding: TW201, host: ci-*, process: nc, user: build, reason: r, until: 2027-01-01}\n"
        + "- {finding: TW201, user: build, reason: r, until: 2027-01-01}\n",
        "p",
    )
    for_host, for_client = policy.exceptions
    client = Client("b", "mqtt", "build", "build")
    topic = Resource(ResourceKind.TOPIC, "x")
    assert not for_host.covers("TW201", "publish.outside-policy", client, topic)
    assert for_client.covers("TW201", "publish.outside-policy", client, topic)
    assert for_host.covers_host("TW201", "publish.outside-policy", "ci-7", "nc", "build")
    assert not for_client.covers_host("TW201", "publish.outside-policy", "ci-7", "nc", "build")
    for host, process, user in (("db-1", "nc", "build"), ("ci-7", None, "build"), ("ci-7", "nc", None)):
        assert not for_host.covers_host("TW201", "publish.outside-policy", host, process, user)


def test_a_file_that_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot read the policy"):
            load_policy(path)


def test_a_file_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"topicwarden: 1\n# gr\xf6sse\n")
    with pytest.raises(ConfigurationError, match=r"policy.yaml:2: byte 0xf6 is not UTF-8"):
        load_policy(path)


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_policy(path) == parse_policy(GOOD, "p")


def test_a_file_larger_than_4_mib_is_refused_before_it_is_read_as_yaml(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"topicwarden: 1\n#" + b"\xff" * (5 << 20))
    with pytest.raises(ConfigurationError, match="cannot be larger than 4194304 bytes"):
        load_policy(path)


def test_aliases_cannot_make_a_small_file_huge() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    start = time.perf_counter()
    found = problems(START + "\n".join(lines))
    assert found[-1][1] == "holds more than 1000000 values once its aliases are written out"
    assert time.perf_counter() - start < 5


def test_a_file_of_mistakes_is_not_answered_by_a_list_without_end() -> None:
    found = problems(START + "".join(f"k{number}: 1\n" for number in range(1200)))
    assert len(found) == 1001
    assert found[-1] == (1201, "and 200 more problems")


def test_messages_show_no_raw_control_characters() -> None:
    text = START + 'roles: {"a\\e[31m": {members: [{user: "\\u202e", "\\x07": 1}]}}\n"\\e]0;": "\\r"'
    for _, message in problems(text):
        assert message.isprintable()


lines = GOOD.splitlines(keepends=True)
junk = st.sampled_from(
    [*"x~0[]{}:,'\"#\n\t+", "", "-1", "&a ", "*a", "!x ", "  ", "a#", "%u", "1/s", "- "],
)


def errors_of(text: str) -> Sequence[Problem]:
    """Return the problems of a policy, none when it is right; anything else that is raised fails the test."""
    try:
        parse_policy(text, "p", ["TW101"])
    except ConfigurationError as error:
        return error.problems or [Problem("an error that says nothing", line=-1)]
    return []


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), st.one_of(junk, st.text(max_size=3))), max_size=4)
)
def test_no_mutation_of_a_good_policy_raises_anything_but_our_error(edits: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for position, cut, inserted in edits:
        text = text[:position] + inserted + text[position + cut :]
    found = errors_of(text)
    for problem in found:
        assert problem.message.isprintable()
        assert problem.line is None or 1 <= problem.line <= text.count("\n") + 2
    assert [p.line or 0 for p in found] == sorted(p.line or 0 for p in found)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(st.one_of(junk, st.sampled_from(lines), st.text(max_size=4))).map("".join)))
@example("*a")
@example("&a [*a]")
@example("%YAML 9.9\n---\n{}")
@example("{? ? ? a}")
@example("topicwarden: 1\nroles: {a: {members: [{user: a}], burst: 1, rate: 999999999999999999/s}}")
def test_no_text_raises_anything_but_our_error(text: str) -> None:
    errors_of(text)
