"""The doctor on files: each check speaks where it should and only there, and its lines cure what it speaks of."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.rabbitmq.doctor_cases import CASES, PLUGINS, QUIET_CONF, Case, Files, definitions, files, granted
from topicwarden.errors import ConfigurationError
from topicwarden.sources import Advice, DoctorReport
from topicwarden_collectors.rabbitmq.doctor import CHECKS, diagnose
from topicwarden_collectors.rabbitmq.doctor_streams import narrowed
from topicwarden_collectors.rabbitmq.permissions import allows

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"
GOLDEN = Path(__file__).with_name("golden_definitions")
EXPORTS = sorted(path for path in GOLDEN.glob("*.json") if ".read" not in path.name and ".advice" not in path.name)


def spoken(report: DoctorReport, check: str) -> Sequence[Advice]:
    return [advice for advice in report.advice if advice.check == check and advice.level != "ok"]


def name_of(case: Case) -> str:
    return f"{case.check}-{CASES.index(case)}"


def examined(case: Case, folder: Path, chosen: Files) -> DoctorReport:
    case.write(folder, chosen)
    only = set(chosen) == {"definitions.json"}
    return diagnose(str(folder / "definitions.json" if only else folder))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_check_speaks_where_it_should(case: Case, tmp_path: Path) -> None:
    report = examined(case, tmp_path, case.speaks)
    said = spoken(report, case.check)
    assert said, [advice for advice in report.advice if advice.level != "ok"]
    assert case.level is None or said[0].level == case.level, said[0]
    assert said[0].file is not None
    assert bool(said[0].fix) is case.fix, said[0]
    assert not any(advice.check == case.check and advice.level == "ok" for advice in report.advice)
    _is_plain(report)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_check_keeps_quiet_where_it_should(case: Case, tmp_path: Path) -> None:
    report = examined(case, tmp_path, case.quiet)
    assert not spoken(report, case.check), spoken(report, case.check)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.fix and case.cured_here and "rabbitmq.conf" in case.speaks], ids=name_of
)
def test_the_lines_of_a_check_cure_it(case: Case, tmp_path: Path) -> None:
    report = examined(case, tmp_path, case.speaks)
    for _ in range(6):
        said = spoken(report, case.check)
        if not said or not said[0].fix:
            break
        follow(said[0].fix, tmp_path)
        report = examined(case, tmp_path, {})
    # What remains has no lines, such as that tracing, switched on as advised, has its price.
    assert not [advice for advice in spoken(report, case.check) if advice.fix], spoken(report, case.check)


def follow(fix: str, folder: Path) -> None:
    """Do what a fix of files says; commands are understood as far as they change files here."""
    first, *lines = fix.split("\n")
    where = re.match(r"# (/.*): (add at the end|remove line (\d+)|the whole file|add to the list of rabbit)", first)
    if where is not None:
        path = Path(where[1])
        text = path.read_text() if path.exists() else ""
        if where[3]:
            rows = text.split("\n")
            rows[int(where[3]) - 1] = ""
            path.write_text("\n".join(rows))
        elif where[2] == "the whole file":
            path.write_text("\n".join(lines))
        elif where[2].startswith("add to"):
            path.write_text(text.replace("{rabbit,[", "{rabbit,[" + lines[0] + ","))
        else:
            path.write_text(text + "\n".join(["", *lines, ""]))
        return
    assert first == "# on the broker's machine"
    for line in lines:
        words = shlex.split(line, comments=True)
        match words:
            case ["rabbitmq-plugins", "enable", name]:
                path = folder / "enabled_plugins"
                path.write_text(path.read_text().replace("[", f"[{name},").replace(",]", "]"))
            case ["chmod", mode, file]:
                Path(file).chmod(int(mode, 8))
            case ["chown", *_]:
                pass
            case _:
                raise AssertionError(f"no such command in a fix: {line}")


def test_every_check_has_a_case_and_every_case_a_check() -> None:
    assert {case.check for case in CASES} | {"account.minimal"} == set(CHECKS)


def test_every_check_is_documented() -> None:
    text = DOCUMENT.read_text().partition("\n# RabbitMQ\n")[2]
    assert set(re.findall(r"^#### `([a-z]+\.[a-z-]+)`$", text, re.MULTILINE)) == set(CHECKS)


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
def test_the_advice_for_an_export_is_its_golden_file(path: Path) -> None:
    report = diagnose(str(path))
    advice = [
        {name: value for name, value in asdict(one).items() if value is not None and name != "file"}
        for one in report.advice
        if one.level != "ok"
    ]
    blind = [spot.what for spot in report.blind_spots]
    assert {"advice": advice, "blind_spots": blind} == json.loads(path.with_suffix(".advice.json").read_text())


def test_a_well_set_up_node_gets_no_warning(tmp_path: Path) -> None:
    chosen = {**files(), **definitions()}
    report = examined(CASES[0], tmp_path, chosen)
    loud = [advice for advice in report.advice if advice.level != "ok"]
    assert [(advice.level, advice.check) for advice in loud] == [("note", "vhosts.seen")]
    assert {spot.what.partition(":")[0] for spot in report.blind_spots} == {
        "who receives which message",
        "what was granted since the definitions were loaded",
    }


def test_debians_folder_without_any_file_of_its_own_is_judged_by_defaults(tmp_path: Path) -> None:
    (tmp_path / "rabbitmq-env.conf").write_text("#NODENAME=rabbit\n")
    report = diagnose(str(tmp_path))
    loud = {(advice.check, advice.level) for advice in report.advice if advice.level in ("warning", "problem")}
    assert loud == {("log.exchange", "problem"), ("listener.plain-text", "warning")}
    # Nothing is said to be well that nobody looked at.
    assert "listener.management" not in {advice.check for advice in report.advice}


def test_names_from_hostile_files_are_never_printed_raw(tmp_path: Path) -> None:
    hostile = "a\x1b[31m\n\u202eb"
    stream = {"source": "amq.rabbitmq.trace", "routing_key": hostile, "destination": hostile}
    topic = {"user": hostile, "vhost": hostile, "exchange": hostile, "write": "{client_id}", "read": hostile}
    dead = {"x-dead-letter-exchange": "amq.rabbitmq." + hostile}
    chosen = definitions(
        users=[{"name": hostile, "tags": ["impersonator"]}],
        vhosts=[{"name": hostile}],
        permissions=[granted(hostile, ".*", ".*", ".*", hostile)],
        topic_permissions=[topic],
        queues=[{"name": hostile, "vhost": hostile, "arguments": dead}],
        bindings=[{**stream, "vhost": hostile, "destination_type": "queue"}],
    )
    report = examined(CASES[0], tmp_path, chosen)
    assert len([advice for advice in report.advice if advice.level != "ok"]) > 5
    _is_plain(report)


def test_many_findings_are_summed_up(tmp_path: Path) -> None:
    people = [f"u{number}" for number in range(500)]
    chosen = definitions(
        users=[{"name": name, "tags": []} for name in people],
        permissions=[granted(name, ".*", ".*", ".*") for name in people],
    )
    report = examined(CASES[0], tmp_path, chosen)
    assert len(report.advice) < 120
    assert any(advice.message.startswith("and 4") for advice in report.advice)


def _is_plain(report: DoctorReport) -> None:
    assert report.title.isprintable()
    order = list(CHECKS)
    assert [order.index(one.check) for one in report.advice] == sorted(order.index(one.check) for one in report.advice)
    for advice in report.advice:
        assert advice.level in {"ok", "note", "warning", "problem"}
        assert advice.message.isprintable(), advice
        assert not advice.message.endswith("."), advice
        assert advice.fix is None or all(letter.isprintable() or letter == "\n" for letter in advice.fix)
    for spot in report.blind_spots:
        assert not spot.what.endswith(".")


@pytest.mark.parametrize(
    "regex", ["", ".*", "^app", "app$", "a|b", "^(app\\.|amq\\.rabbitmq\\.)", "(?i)APP", "^amq\\.", "\n"]
)
@pytest.mark.parametrize(
    "name", ["", "app", "app.x", "b", "amq.topic", "amq.rabbitmq.trace", "amq.topicwarden.audit", "x\ny"]
)
def test_a_narrowed_permission_is_the_same_without_the_audit_streams(regex: str, name: str) -> None:
    stream = name.startswith(("amq.rabbitmq.", "amq.topicwarden."))
    assert allows(narrowed(regex), name) is (allows(regex, name) and not stream)


def test_a_target_that_is_not_there_or_nothing_of_rabbitmqs_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "x.json").write_text("[]")
    for name in ("none", "note.txt", "x.json", "."):
        with pytest.raises(ConfigurationError) as caught:
            diagnose(str(tmp_path / name))
        assert caught.value.problems[0].hint


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.binary(max_size=200),
    st.sampled_from(["rabbitmq.conf", "advanced.config", "enabled_plugins", "definitions.json"]),
)
def test_whatever_is_in_the_files_there_is_a_report(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / "rabbitmq.conf").write_text(QUIET_CONF)
    (tmp_path / "enabled_plugins").write_text(PLUGINS)
    (tmp_path / name).write_bytes(data)
    report = diagnose(str(tmp_path))
    (tmp_path / name).unlink()
    _is_plain(report)
