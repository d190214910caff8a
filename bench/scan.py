"""Scans of large configurations against a policy: 1 000 grants each, and what the classes of clients save.

Run: python -m bench.scan
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path

from topicwarden.compare.scan import Scan, Scanned
from topicwarden.findings import Ledger, load_catalogue
from topicwarden.grants import Grants
from topicwarden.policy import Policy, parse_policy
from topicwarden.sources import SourceOptions, load_brokers

CATALOGUE = load_catalogue()
GRANTS = 1_000
RULES = 200
HEAD = """topicwarden: 1
roles:
  everybody:
    members: [{user: "device-*"}, {user: "service-*"}]
"""


def scanned(grants: Grants, policy: Policy) -> tuple[float, Scanned, Ledger]:
    """Return the seconds one scan takes, and what it found."""
    ledger = Ledger(CATALOGUE)
    start = time.perf_counter()
    result = Scan(ledger, policy, 0).run(grants)
    return time.perf_counter() - start, result, ledger


def mosquitto(folder: Path, source: random.Random) -> tuple[Path, Policy]:
    """Write an acl_file of 1 000 lines for 250 users, and a policy of 200 rules."""
    lines = []
    for number in range(250):
        lines.append(f"user device-{number}")
        for _ in range(4):
            levels = [f"site{source.randrange(20)}", f"line{source.randrange(20)}", f"device-{number}"]
            levels[source.randrange(2)] = source.choice(["+", levels[0]])
            lines.append(f"topic {source.choice(['read', 'write', 'readwrite'])} {'/'.join(levels)}/#")
    path = folder / "acl"
    path.write_text("\n".join(lines) + "\n")
    rules = "".join(
        f'      - {{topic: "site{number % 20}/line{number // 20}/%u/{source.choice(["state", "#", "+"])}"}}\n'
        for number in range(RULES // 2)
    )
    return path, parse_policy(f"{HEAD}    publish:\n{rules}    subscribe:\n{rules}", "policy.yaml")


def rabbitmq(folder: Path, source: random.Random) -> tuple[Path, Policy]:
    """Write definitions with 1 002 permissions (of 334 users, three each), and a policy of 200 rules."""
    users, permissions = [], []
    for number in range(GRANTS // 3 + 1):
        users.append({"name": f"service-{number}", "tags": []})
        names = [f"ex-{source.randrange(300)}" for _ in range(3)]
        write = source.choice([f"^({'|'.join(names)})$", f"^{names[0]}", ".*", f"^ex-{number % 10}[0-9]*$", names[1]])
        read = source.choice([f"^q-{number}\\..*$", f"^(q-{number}|q-shared)\\.[a-z]+$", "^$", f"q-{number}"])
        permissions.append(
            {"user": f"service-{number}", "vhost": "/", "configure": f"^q-{number}\\..*$", "write": write, "read": read}
        )
    path = folder / "definitions.json"
    empty: dict[str, list[object]] = {
        key: [] for key in ("topic_permissions", "parameters", "policies", "queues", "exchanges", "bindings")
    }
    path.write_text(
        json.dumps(
            {"rabbit_version": "3.10.8", "users": users, "vhosts": [{"name": "/"}], "permissions": permissions, **empty}
        )
    )
    rules = "".join(f'      - {{exchange: ex-{number}, key: "a.*.b"}}\n' for number in range(RULES // 2))
    queues = "".join(f'      - {{queue: "q-{number}.#"}}\n' for number in range(RULES // 2))
    return path, parse_policy(f"{HEAD}    publish:\n{rules}    consume:\n{queues}", "policy.yaml")


def main() -> None:
    """Print the figures."""
    brokers = load_brokers()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, build, aim in (("mosquitto", mosquitto, 1.0), ("rabbitmq", rabbitmq, 2.0)):
            path, policy = build(folder, random.Random(1))
            start = time.perf_counter()
            (grants,) = brokers[kind].grants(str(path), SourceOptions(broker="bench"))
            read = time.perf_counter() - start
            seconds, result, ledger = scanned(grants, policy)
            codes: dict[str, int] = {}
            for finding in ledger.findings():
                codes[finding.type.code] = codes.get(finding.type.code, 0) + 1
            print(
                f"{kind}: {result.grants} grants of {result.accounts} accounts against {RULES} rules: {seconds:.2f} s "
                f"(aim {aim:.0f} s), read in {read:.2f} s; {result.undecided} undecided; {codes}"
            )
            again, *_ = scanned(grants, policy)
            print(f"  the same again, with what the reader keeps: {again / seconds:.2f} of it")


if __name__ == "__main__":
    main()
