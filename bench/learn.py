"""What learning finds of a plant whose true policy is known, and what a million observed pairs cost.

Run `python -m bench learn`. The first table: 8 000 clients, 31 templates, 7 roles; each client shows each template of
its role with probability 0.8, or 0.5 in the last row, which must be refused. Then `topicwarden learn`, as its own
process, on a recording of a million different (client, topic) pairs: seconds, peak memory, and how many times that is
of merely reading the recording. Aims: 60 s, 2 GiB.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.learn.planted import ROLES, TEMPLATES, Judge, Workload, plant, roles_of, templates_of
from topicwarden.events.recording import Recording, open_recorder
from topicwarden.learn.draft import draft
from topicwarden.learn.observations import Gatherer
from topicwarden.learn.yaml_text import Provenance, policy_text
from topicwarden.policy import parse_policy

CLIENTS, MANY = 8000, 43_500
_MEASURED = """
import resource, sys
sys.argv = ["topicwarden", *sys.argv[1:]]
from topicwarden.cli import main
try:
    main()
finally:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(usage.ru_maxrss, usage.ru_utime + usage.ru_stime)
"""
"""ru_maxrss survives exec on Linux, so the child itself says what it used, not the one who waits for it."""


def row(workload: Workload, title: str) -> None:
    gatherer = Gatherer()
    for batch in workload.batches():
        gatherer.add(batch)
    found = draft(gatherer.finish())
    policy = parse_policy(policy_text(found, Provenance("bench", [], "0", "review")), "draft")
    judge, templates, roles = Judge(policy), templates_of(policy), roles_of(policy)
    right = sum(frozenset(wanted) in roles for wanted in ROLES.values())
    cells = [
        f"{title:<22}",
        f"{workload.observed:>9}",
        f"{len(templates & set(TEMPLATES)):>3} of {len(TEMPLATES)}",
        f"{len(templates - set(TEMPLATES)):>5}",
        f"{right:>2} of {len(ROLES)}",
        f"{len(roles) - right:>5}",
        f"{judge.share(workload, workload.held_out):>8.4f}",
        f"{judge.share(workload, workload.illegitimate):>8.4f}",
        f"{judge.share(workload, workload.poison):>8.4f}",
        f"{found.coverage.estimate:>8.3f}",
    ]
    print(" ".join(cells), flush=True)


def million() -> None:
    workload = plant(MANY, poison=0.01, tests=60_000)
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "events.arrow"
        with open_recorder(recording, {}) as recorder:
            for batch in workload.batches():
                recorder.write(batch)
        start = time.perf_counter()
        for _ in Recording(recording):
            pass
        reading = time.perf_counter() - start
        command = [sys.executable, "-c", _MEASURED, "learn", str(recording), "-o", str(Path(folder) / "p.yaml")]
        # Through a shell, so that the child does not begin with the memory of this process.
        start = time.perf_counter()
        done = subprocess.run(
            ["sh", "-c", '"$@"', "sh", *command],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        seconds = time.perf_counter() - start
        peak, cpu = map(float, done.stdout.split())
    print(f"{workload.observed} pairs of {MANY} clients: {seconds:.1f} s, {cpu:.1f} s CPU, {peak / 1024:.0f} MiB")
    print(f"  x {seconds / reading:.1f} of reading the recording and doing nothing with it")


def main() -> None:
    """Print the figures."""
    print("traffic                    pairs templates extra  roles extra   recall      FPR   poison coverage")
    for title, shown, poison in (
        ("no poison", 0.8, 0.0),
        ("0.1 % poison", 0.8, 0.001),
        ("1 % poison", 0.8, 0.01),
        ("half, to be refused", 0.5, 0.0),
    ):
        row(plant(CLIENTS, shown=shown, poison=poison), title)
    million()


if __name__ == "__main__":
    main()
