"""Runs the broker with the plugin built under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping


def sanitizer_environment() -> Mapping[str, str]:
    """Return what the broker's environment needs: the broker itself is not built with the sanitizers."""
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        "LD_PRELOAD": library,
        # Leaks are not looked for: the broker frees not everything at its end.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:handle_abort=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }
