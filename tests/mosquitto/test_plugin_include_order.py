"""Files of an include_dir count in the broker's own order, in which case decides letter by letter."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.brokers import mosquitto
from tests.mosquitto.plugin_build import build_plugin


@pytest.mark.parametrize("with_plugin", [False, True])
@pytest.mark.parametrize(
    ("files", "accepted"),
    [
        ({"A2.conf": "false", "a1.conf": "true"}, True),  # A sorts before a, whatever follows
        ({"A2.conf": "true", "a1.conf": "false"}, False),
        ({"b.conf": "false", "B1.conf": "true"}, False),
    ],
)
def test_the_last_file_by_the_brokers_order_decides_who_may_connect(
    tmp_path: Path, files: dict[str, str], accepted: bool, with_plugin: bool
) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    for name, value in files.items():
        (folder / name).write_text(f"allow_anonymous {value}\n")
    plugin = [f"plugin {build_plugin()}", f"plugin_opt_ring {tmp_path / 'ring'}"] if with_plugin else []
    config = ["user root", *plugin, f"include_dir {folder}"]
    with mosquitto(tmp_path / "broker", config, allow_anonymous=False) as broker:
        client = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(broker.port), "-u", "somebody", "-q", "1"]
        done = subprocess.run([*client, "-t", "a", "-m", "x"], capture_output=True, timeout=20)
    assert (done.returncode == 0) is accepted
