"""What is shipped: the wheel holds the data the program needs, and the structure stays as designed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from topicwarden.sources import load_brokers

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_rules_and_plugin_sources_and_no_build_products(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "topicwarden/data/rules/TW201-publish.outside-policy.yaml" in names
    assert "topicwarden/data/brokers/mosquitto/topicwarden_wire.h" in names
    assert "topicwarden/data/brokers/mosquitto/Makefile" in names
    assert "topicwarden/data/brokers/rabbitmq/build" in names
    assert "topicwarden/py.typed" in names
    for name in ("report.html", "parts.html", "sets.html", "findings.html", "integrity.html", "style.css", "tables.js"):
        assert f"topicwarden/report/templates/{name}" in names
    assert "topicwarden_collectors/mosquitto/__init__.py" in names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc", ".beam", ".ez"))]
    assert not [name for name in names if name.startswith("tests/")]


def test_an_installed_wheel_finds_its_catalogue_and_its_brokers(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import topicwarden, topicwarden.findings as f, topicwarden.sources as s;"
        "print(topicwarden.__file__, len(f.load_catalogue()), sorted(s.load_brokers()), f.data_dir('brokers'))"
    )
    # -I keeps the checkout off the path; the wheel's own files come first, dependencies from this environment.
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"
    run = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert str(tmp_path / "topicwarden" / "__init__.py") in run.stdout
    assert "['mosquitto', 'rabbitmq']" in run.stdout
    assert str(tmp_path / "topicwarden" / "data" / "brokers") in run.stdout


def test_the_brokers_come_in_by_their_entry_points() -> None:
    assert list(load_brokers()) == ["mosquitto", "rabbitmq"]
