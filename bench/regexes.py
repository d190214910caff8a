"""Regular expressions against a policy's patterns: inclusion with a witness; prints ratios, taken by turns in one run.

Run: python -m bench.regexes
"""

from __future__ import annotations

import random
import time

from automata.fa.dfa import DFA
from automata.fa.nfa import NFA

from bench.patterns import by_turns, timed
from topicwarden.patterns import (
    Answer,
    Covered,
    KeyPattern,
    NameUnion,
    Regex,
    SpecialWord,
    Undecided,
    Witness,
    key_matches,
    literal_key,
    names_match,
    parse_binding,
)
from topicwarden.patterns.regex import forget_expressions

AIM_SECONDS = 2.0
KINDS = ("temperature", "humidity", "state", "command", "invoice", "order")


def policy_patterns(source: random.Random, number: int) -> list[KeyPattern]:
    """Return names and binding keys as policies hold them: half of them without wildcards."""
    found: dict[KeyPattern, None] = {}
    while len(found) < number:
        words = [f"site{source.randrange(40)}", f"line{source.randrange(40)}", f"device{source.randrange(400)}"]
        if source.random() < 0.5:
            found[literal_key(".".join([*words[: source.randint(1, 3)], source.choice(KINDS)]))] = None
            continue
        site, *inner = words[: source.randint(1, 3)]
        inner = ["*" if source.random() < 0.5 else word for word in inner]
        last = "#" if source.random() < 0.2 else source.choice(KINDS)
        found[parse_binding(".".join([site, *inner, last]))] = None
    return list(found)


def grant_expressions(source: random.Random, number: int) -> list[Regex]:
    """Return permissions as people write them, all different."""
    found: dict[Regex, None] = {}
    while len(found) < number:
        site, line, device = f"site{source.randrange(40)}", f"line{source.randrange(40)}", source.randrange(400)
        some = "|".join(source.sample(KINDS, source.randint(2, 4)))
        text = source.choice(
            [
                rf"^{site}\..*$",
                rf"^({some})$",
                ".*",
                rf"^{site}\.{line}\.({some})$",
                rf"{source.choice(KINDS)}\.{device}",
                rf"^{site}\.[a-z0-9]+\.({some})$",
                rf"^{site}\.line\d+\.device{device}(\..*)?$",
                rf"^dev-{device}\..*$",
                rf"^(amq\.gen.*|{site}\.{line}\..*)$",
                rf"^{site}\.{line}\.device{device}\.{source.choice(KINDS)}$",
                rf"{site}-{device}",
            ]
        )
        found[Regex(text)] = None
    return list(found)


def as_machine(names: Regex | KeyPattern, letters: set[str]) -> DFA:
    """Return a set of names as automata-lib has it."""
    if isinstance(names, Regex):
        text = names.text
        text = text[1:] if text.startswith("^") else f".*{text}"
        text = text[:-1] if text.endswith("$") else f"{text}.*"
        # automata-lib knows no escapes and no classes of these kinds.
        text = text.replace(r"\d", "[0-9]")
        return DFA.from_nfa(NFA.from_regex(text.replace(r"\.", "_"), input_symbols=letters))
    word = "[a-z0-9]*"
    parts = [word if each is SpecialWord.ONE else ".*" if each is SpecialWord.MANY else each for each in names.words]
    return DFA.from_nfa(NFA.from_regex("_".join(map(str, parts)), input_symbols=letters))


def main() -> None:
    """Print the figures."""
    source = random.Random(1)
    policy = policy_patterns(source, 200)
    grants = grant_expressions(source, 1000)

    def compare_all() -> list[Answer]:
        forget_expressions()
        union = NameUnion(policy)
        return [union.uncovered(grant, newlines=False) for grant in grants]

    answers = compare_all()
    for grant, answer in zip(grants, answers, strict=True):
        if isinstance(answer, Witness):
            assert names_match(grant, answer.topic)
            assert not any(key_matches(pattern, answer.topic) for pattern in policy)
    kinds = {kind.__name__: sum(isinstance(a, kind) for a in answers) for kind in (Covered, Witness, Undecided)}

    # Trying names instead: every grant matched on 200 of the witnesses.
    names = sorted({answer.topic for answer in answers if isinstance(answer, Witness)})[:200]

    def match_all() -> None:
        for grant in grants:
            for name in names:
                names_match(grant, name)

    cold, matched = by_turns(3, compare_all, match_all)
    start = time.process_time()
    compare_all()
    spent = time.process_time() - start
    print(f"{len(grants)} expressions in a union of {len(policy)} patterns, all built anew: {kinds}")
    print(f"  {spent:.2f} s of CPU; aim: under {AIM_SECONDS} s: {'met' if spent < AIM_SECONDS else 'MISSED'}")
    print(f"  x {cold / matched:.1f} of matching every expression with {len(names)} names")
    union = NameUnion(policy)
    (warm,) = by_turns(3, lambda: [union.uncovered(grant, newlines=False) for grant in grants])
    print(f"  asked again, expressions and union known: x {warm / cold:.2f}")

    few, some = grants[:12], policy[:12]
    letters = set("abcdefghijklmnopqrstuvwxyz0123456789-_")

    def by_library() -> list[bool]:
        covered = as_machine(some[0], letters)
        for pattern in some[1:]:
            covered = covered.union(as_machine(pattern, letters))
        return [as_machine(grant, letters) <= covered for grant in few]

    def by_us() -> list[Answer]:
        forget_expressions()
        small = NameUnion(some)
        return [small.uncovered(grant, newlines=False) for grant in few]

    library = timed(by_library)
    (ours,) = by_turns(3, by_us)
    print(f"  automata-lib on {len(few)} expressions and {len(some)} patterns: x {library / ours:.0f} of ours")


if __name__ == "__main__":
    main()
