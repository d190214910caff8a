"""Builds the broker-side plugin from its sources, for the demo, the tests and the benchmarks."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError, Problem

PLUGIN: Final = "topicwarden_audit"
"""The plugin's name in `enabled_plugins`."""
BUILD_SECONDS: Final = 180.0
"""How long a build may take on a busy machine; 4 s are usual."""


def build_plugin(folder: Path) -> Path:
    """Build the plugin into `folder` and return the .ez file, to be found through a folder of plugins.

    Raises ObservationError with the compiler's words when it cannot be built.
    """
    script = sources() / "build"
    try:
        done = subprocess.run(  # noqa: S603 - our own script
            ["/bin/sh", str(script), str(folder)],
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ObservationError(Problem(f"the RabbitMQ plugin could not be built: {error}", str(script))) from error
    if done.returncode != 0:
        raise ObservationError(
            Problem(
                f"the RabbitMQ plugin could not be built: {(done.stdout + done.stderr)[-2000:].strip()}",
                str(script),
                hint="apt-get install rabbitmq-server, which brings the compiler and the headers",
            )
        )
    return next(iter(folder.glob(f"{PLUGIN}-*.ez")))


def sources() -> Path:
    """Return the folder of the plugin's sources: in a checkout, or as data of the installed package."""
    checkout = Path(__file__).resolve().parents[3] / "brokers" / "rabbitmq"
    if checkout.is_dir():
        return checkout
    import topicwarden

    return Path(topicwarden.__file__).parent / "data" / "brokers" / "rabbitmq"
