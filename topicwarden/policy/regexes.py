"""Which regular expressions a policy may use for levels: names are hostile, so none may take long to fail."""

from __future__ import annotations

import re
import warnings
from typing import Final

from topicwarden.policy.values import RefusedError

MAX_LENGTH: Final = 200


def regex_problem(pattern: str) -> RefusedError | None:
    """Say why this regular expression is refused, or None when it may be used with `re.fullmatch`."""
    if len(pattern) > MAX_LENGTH:
        return RefusedError(f"longer than {MAX_LENGTH} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(pattern)
    except (re.error, FutureWarning, DeprecationWarning, OverflowError, RecursionError) as error:
        return RefusedError(f"not a regular expression: {error}")
    return None
