"""Builds the broker-side plugin for tests and benchmarks, once per state of its sources.

To test with another Mosquitto, put its folder first in PATH, name the folder of its headers in MOSQUITTO_HEADERS and
that of its own plugins in MOSQUITTO_PLUGINS.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "brokers" / "mosquitto"
PLUGINS = Path(os.environ.get("MOSQUITTO_PLUGINS", "/usr/lib/x86_64-linux-gnu"))
"""Where the broker's own plugins lie (mosquitto_dynamic_security.so)."""
HEADERS_2_1 = Path(__file__).resolve().parent / "mosquitto_2_1_api"

TARGETS: Mapping[str, tuple[str, str]] = {
    "release": ("all", "topicwarden_mosquitto.so"),
    "asan": ("asan", "topicwarden_mosquitto_asan.so"),
    "harness": ("harness", "harness"),
    "harness-asan": ("harness-asan", "harness_asan"),
    "attribute": ("attribute", "topicwarden-attribute"),
    "attribute-asan": ("attribute-asan", "topicwarden-attribute_asan"),
}
"""What can be built: the Makefile's target and the file it makes."""


def build_plugin(variant: str = "release", *, compiler: str = "gcc", headers: Path | None = None) -> Path:
    """Build `variant` (a key of `TARGETS`) and return the file; what was built from the same sources is used again.

    `headers`: a folder with another broker's headers. Raises AssertionError with the compiler's words when it fails.
    """
    target, name = TARGETS[variant]
    if headers is None and "MOSQUITTO_HEADERS" in os.environ:
        headers = Path(os.environ["MOSQUITTO_HEADERS"])
    digest = hashlib.sha256(f"{variant} {compiler} {os.getuid()}".encode())
    for folder in (SOURCES, *([headers] if headers else ())):
        for path in sorted(p for p in folder.rglob("*") if p.suffix in {".c", ".h"} or p.name == "Makefile"):
            digest.update(path.read_bytes())
    out = Path(tempfile.gettempdir()) / f"topicwarden-plugin-{os.getuid()}-{digest.hexdigest()[:16]}"
    built = out / name
    if built.exists():
        return built
    with tempfile.TemporaryDirectory(prefix="topicwarden-build-") as scratch:
        command = ["make", "-C", str(SOURCES), target, f"OUT={scratch}", f"CC={compiler}"]
        if headers:
            command.append(f"MOSQUITTO={headers}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        out.mkdir(mode=0o755, exist_ok=True)
        partial = out / f".{name}.{os.getpid()}"
        shutil.copy2(Path(scratch) / name, partial)
        partial.replace(built)
    return built
