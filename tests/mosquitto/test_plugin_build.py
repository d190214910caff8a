"""The plugin builds without a warning, for both generations of brokers, and shows the broker nothing but its door."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mosquitto.plugin_build import HEADERS_2_1, SOURCES, build_plugin

COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("headers", [None, HEADERS_2_1], ids=["installed broker", "2.1"])
def test_it_builds_with_warnings_as_errors(compiler: str, headers: Path | None) -> None:
    build_plugin(compiler=compiler, headers=headers)


@pytest.mark.parametrize("headers", [None, HEADERS_2_1], ids=["installed broker", "2.1"])
def test_it_exports_three_functions_and_is_hardened(headers: Path | None) -> None:
    built = build_plugin(headers=headers)
    symbols = subprocess.run(["nm", "-D", "--defined-only", built], capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in symbols.splitlines()} == {
        "mosquitto_plugin_cleanup",
        "mosquitto_plugin_init",
        "mosquitto_plugin_version",
    }
    dynamic = subprocess.run(["readelf", "-dlW", built], capture_output=True, text=True, check=True).stdout
    assert "BIND_NOW" in dynamic
    assert "GNU_RELRO" in dynamic
    assert "RWE" not in dynamic


def test_it_uses_of_the_broker_only_what_its_headers_name() -> None:
    built = build_plugin()
    needed = subprocess.run(["nm", "-D", "--undefined-only", built], capture_output=True, text=True, check=True).stdout
    used = {name for line in needed.splitlines() if (name := line.split()[-1]).startswith("mosquitto_")}
    header = Path("/usr/include/mosquitto_broker.h").read_text() + "mosquitto_client_port"  # 2.1's; weak, to tell it
    assert used
    assert {name for name in used if name not in header} == set()


def test_the_makefile_lists_every_source_and_header() -> None:
    makefile = (SOURCES / "Makefile").read_text()
    for path in SOURCES.iterdir():
        if path.suffix in {".c", ".h"}:
            assert path.name in makefile
