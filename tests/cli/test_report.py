"""`topicwarden report` as a user meets it: a store that `watch` or `check` wrote, every format, wrong input."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import environment, run
from tests.report.samples import POLICY, write_store
from topicwarden.cli.period import period_named
from topicwarden.cli.report import ReportOptions
from topicwarden.cli.report import run as report
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.report import pdf

ACL = """\
user sensor-1
topic write plant/#
topic read secret/+

user gw
topic readwrite plant/#
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_store(folder / "store")
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "acl").write_text(ACL)
    return folder


def test_html_goes_to_stdout_and_says_on_stderr_only_what_is_wrong(folder: Path) -> None:
    done = run("report", folder / "store", "--policy", folder / "policy.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<!DOCTYPE html>")
    assert done.stdout.rstrip().endswith("</html>")


@pytest.mark.parametrize("name", ["r.html", "r.json", "r.oscal.json", "r.zip", "r.csv"])
def test_the_files_name_says_the_format(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    period = period_named("2026-11-23", "2026-11-27")
    assert report(folder / "store", ReportOptions(period, tmp_path / name)) == 0
    assert "12 findings" in capsys.readouterr().err
    path = tmp_path / name
    assert path.is_dir() == (name == "r.csv")
    if name.endswith(".json"):
        document = json.loads(path.read_text())
        assert ("assessment-results" in document) == ("oscal" in name)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_scan_for_the_report_tells_excess_and_unused_privilege_by_what_the_store_holds(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    done = run(
        "report", folder / "store", "-o", out, "--policy", folder / "policy.yaml", "--verify",
        "--grants", f"plant={folder / 'acl'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert document["grants_read"] is True
    assert document["sets"]["granted"]["value"] == 3
    fresh = [one for one in document["findings"] if str(folder / "acl") == one["evidence"].get("where_file")]
    assert {"TW101", "TW102"} <= {one["code"] for one in fresh}
    assert {one["broker"] for one in fresh} == {"plant"}
    unused = [one["evidence"]["grant"] for one in fresh if one["code"] == "TW102"]
    assert "topic read secret/+" in unused
    assert "topic write plant/#" not in unused
    assert document["integrity"]["verdict"].startswith("Verified for this report")


def test_a_printed_command_prints_the_rows_it_stands_below(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    assert run("report", folder / "store", "-o", out, "--from", "2026-11-24", "--to", "2026-11-24").returncode == 0
    rows = list(csv.reader((out / "figures.csv").read_text().splitlines()))
    _, value, printed = next(row for row in rows if row[0] == "clients")
    words = shlex.split(printed)
    assert words[:1] == ["topicwarden"]
    command = [sys.executable, "-m", "topicwarden", *words[1:], "--format", "csv"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.splitlines()[1].strip('"') == value


def test_what_changed_since_the_last_report_is_told(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    assert report(folder / "store", ReportOptions(period_named(None, "2026-11-23"), first)) == 0
    assert report(folder / "store", ReportOptions(output=second, previous=first)) == 0
    since = next(one for one in json.loads(second.read_text())["sections"] if one["id"] == "since")
    assert {figure["id"]: figure["value"] for figure in since["figures"]}["new"] == 6


def test_a_period_in_which_nothing_was_observed_is_reported_with_exit_code_3(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.html"
    assert report(folder / "store", ReportOptions(period_named("2031-01-01", "2031-01-31"), out)) == 3
    assert "nothing was observed in the period" in capsys.readouterr().err
    assert "Not one event of a broker" in out.read_text()
    assert report(folder / "store", ReportOptions(period_named("2031-01-01", None), out)) == 3
    assert report(folder / "store", ReportOptions(period_named(None, "2001-01-01"), out)) == 3


def test_wrong_input_is_named_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    store, full = folder / "store", tmp_path / "full.csv"
    full.mkdir()
    (full / "mine").touch()
    for options, said in (
        (ReportOptions(output=tmp_path / "r.docx"), "cannot be told from the name"),
        (ReportOptions(output=tmp_path / "r.html", output_format="word"), "'word' is not known"),
        (ReportOptions(output_format="pdf"), "pdf does not go to stdout"),
        (ReportOptions(output=full), "new or empty folder"),
        (ReportOptions(output=tmp_path / "no" / "r.html"), "cannot be written"),
        (ReportOptions(previous=folder / "policy.yaml"), "not an earlier report"),
        (ReportOptions(policy=folder / "none.yaml"), "none.yaml"),
        (ReportOptions(grants=[str(folder / "none")]), "no such file"),
    ):
        with pytest.raises(ConfigurationError, match=re.escape(said)):
            report(store, options)
    assert [one.name for one in tmp_path.iterdir()] == ["full.csv"]
    with pytest.raises(ObservationError, match="not a store"):
        report(tmp_path, ReportOptions())
    done = run("report", store, "--from", "2026-12-01", "--to", "2026-11-01")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is after --to" in done.stderr


def test_without_weasyprint_pdf_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(ConfigurationError, match="WeasyPrint") as caught:
        pdf.render("<p>")
    assert "topicwarden[pdf]" in (caught.value.problems[0].hint or "")
