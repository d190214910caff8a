"""Matching and inclusion over many filters; prints ratios, each taken by turns within one run.

Run: python -m bench.patterns
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

from topicwarden.patterns import FilterIndex, FilterUnion, Witness, matches, overlap


def timed(work: Callable[[], object]) -> float:
    """Return the seconds one run of `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def by_turns(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Run all works by turns and return the median seconds of each."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for series, work in zip(times, works, strict=True):
            series.append(timed(work))
    return [statistics.median(series) for series in times]


def policy_filters(source: random.Random, number: int) -> list[str]:
    """Return filters as policies hold them: places, lines, devices, kinds; some levels `+`, `%u`, a last `#`."""
    found: dict[str, None] = {}
    while len(found) < number:
        levels = [
            f"site{source.randrange(40)}",
            f"line{source.randrange(40)}",
            source.choice(["%u", "+", f"device{source.randrange(400)}"]),
            source.choice(["temperature", "humidity", "state", "command"]),
        ][: source.randint(2, 4)]
        levels = [levels[0]] + ["+" if source.random() < 0.1 else level for level in levels[1:]]
        if source.random() < 0.1:
            levels.append("#")
        found["/".join(levels)] = None
    return list(found)


def new_topics(source: random.Random, number: int) -> list[str]:
    """Return topics never seen before that walk deep into such filters."""
    kinds = ["temperature", "humidity", "state", "command", "other"]
    return [
        f"site{source.randrange(40)}/line{source.randrange(40)}/device{i}/{source.choice(kinds)}" for i in range(number)
    ]


def main() -> None:
    """Print the figures."""
    source = random.Random(1)
    filters = policy_filters(source, 10_000)
    topics = new_topics(source, 20_000)
    index = FilterIndex(filters)
    small = FilterIndex(filters[:100])
    hostile = ["/" * 65535, "x/" * 30000, "site1/line1/" + "a/" * 30000]

    def match_all(one: FilterIndex, names: list[str]) -> None:
        for name in names:
            one.match(name)

    def split_all() -> None:
        for name in topics:
            name.split("/")

    few = topics[:5]
    big, little, split, hostile_time, plain, few_time = by_turns(
        7,
        lambda: match_all(index, topics),
        lambda: match_all(small, topics),
        split_all,
        lambda: match_all(index, hostile),
        lambda: [matches(f, name, "u", "c") for name in few for f in filters],
        lambda: match_all(index, few),
    )
    print(f"one new topic against {len(filters)} filters: {big / len(topics) * 1e6:.2f} us here")
    print(f"  x {big / split:.1f} of splitting the topic; x {big / little:.2f} of the same against 100 filters")
    print(f"  plain matcher over all filters: x {plain / few_time:.0f}")
    print(f"  hostile topic of 60 kB: x {hostile_time / len(hostile) / (big / len(topics)):.1f} of an ordinary one")

    plain_filters = [f.replace("%u", "device7") for f in policy_filters(source, 2_000)]
    grants, policy = plain_filters[:1_000], plain_filters[1_000:]
    union = FilterUnion(policy)
    answers = [union.uncovered(f) for f in grants]
    excess = sum(isinstance(answer, Witness) for answer in answers)
    build, ask, check, pairs = by_turns(
        5,
        lambda: FilterUnion(policy),
        lambda: [union.uncovered(f) for f in grants],
        lambda: [matches(f, "site1/line1/device1/state") for f in grants],
        lambda: [overlap(a, b) for a in grants[:100] for b in policy[:100]],
    )
    print(f"{len(grants)} filters in a union of {len(policy)}: {(build + ask) * 1e3:.1f} ms here, {excess} exceed")
    print(f"  build : ask = {build / ask:.2f}; asking costs x {ask / check:.1f} of matching one topic by each filter")
    print(f"  overlap of one pair: x {pairs / 10_000 / (check / len(grants)):.1f} of matching one topic by one filter")


if __name__ == "__main__":
    main()
