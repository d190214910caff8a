"""What is interrupted, or cannot be written, ends without a traceback and leaves nothing half written."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.cli.program import PROGRAM
from tests.report.samples import write_store
from topicwarden.cli import report
from topicwarden.errors import ConfigurationError
from topicwarden.store.reader import Store
from topicwarden.store.views import Views, failures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("interrupted") / "store")


def test_what_duckdb_makes_of_an_interruption_is_one() -> None:
    """Seen with duckdb 2.0.1 when a signal's handler raises before there is a first row."""
    with pytest.raises(duckdb.InterruptException), failures():
        raise RuntimeError("Query interrupted")
    with pytest.raises(RuntimeError, match="another"), failures():
        raise RuntimeError("another")


def test_views_that_are_interrupted_while_they_are_built_leave_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Views) -> None:
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr(Views, "_build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Views(Store(folder), spill=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_is_interrupted_writes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise duckdb.InterruptException

    monkeypatch.setattr(report, "build_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.run(folder, report.ReportOptions(output=tmp_path / "r.html"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["r.html", "r.csv", "r.zip", "r.json"])
def test_what_is_interrupted_or_fails_while_it_is_written_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def replace(path: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        report.run(folder, report.ReportOptions(output=tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_written_to_and_not_replaced(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="No space left on device"):
        report.run(folder, report.ReportOptions(output=Path("/dev/full"), output_format="html"))
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


@pytest.mark.parametrize("command", [("explain", "TW201"), ("findings", "STORE"), ("query", "STORE", "select 1")])
def test_output_that_cannot_be_written_is_an_error_and_no_traceback(folder: Path, command: tuple[str, ...]) -> None:
    words = [str(folder) if word == "STORE" else word for word in command]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "error: the output cannot be written: No space left on device\n")


SLOW = "select count(*) from range(400000) a, range(400000) b where hash(a.range, b.range) = 7"
"""Minutes of work for a database that does not look at signals meanwhile."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_statement_that_runs_is_ended_at_once_by_a_signal(folder: Path, number: int) -> None:
    code = (
        "import pathlib, sys\n"
        "from topicwarden.cli import query\n"
        "from topicwarden.store.views import Views\n"
        "reader = Views.reader\n"
        "def told(views, sql, rows):\n"
        "    print('begun', file=sys.stderr, flush=True)\n"
        "    return reader(views, sql, rows)\n"
        "Views.reader = told\n"
        f"sys.exit(query.run(pathlib.Path({str(folder)!r}), {SLOW!r}, query.QueryOptions()))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "begun\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (3, "interrupted\n")


def test_signals_are_told_while_the_main_thread_does_not_come_back() -> None:
    code = (
        "import os, signal, sys\n"
        "from topicwarden.cli.signals import ended_by_signals\n"
        "reading, writing = os.pipe()\n"
        "try:\n"
        "    with ended_by_signals() as interrupts:\n"
        "        interrupts.append(lambda: os.write(writing, b'x'))\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "except KeyboardInterrupt:\n"
        "    print(os.read(reading, 1), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("b'x' True\n", "")
