"""Run the benchmarks, all or the named ones: `python -m bench [NAME ...]`; `rabbitmq` names all of `rabbitmq_...`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main(names: list[str]) -> int:
    """Run each module's `main()`; returns 2 for a name there is not."""
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    chosen = {name: [one for one in known if one == name or one.startswith(f"{name}_")] for name in names}
    unknown = sorted(name for name, found in chosen.items() if not found)
    if unknown:
        sys.stderr.write(f"error: no benchmark {', '.join(unknown)}\n\nhint: one of {', '.join(known)}\n")
        return 2
    for name in [one for found in chosen.values() for one in found] or known:
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        importlib.import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.argv, arguments = sys.argv[:1], sys.argv[1:]
    sys.exit(main(arguments))
