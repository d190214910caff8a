"""Scans of how grants stand that are kept as evidence: what each looked at, and what newer ones did not find again.

A scan looks at a moment. What it found stands until a newer scan that looked at the same, for the same, does not find
it: then it is gone. Whether it was mended or cannot be judged any more, the newer scan says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from topicwarden.store.model import Entry

SCAN: Final = "scan"
OF_INTENT: Final = frozenset({"TW101", "TW103", "TW104", "TW109", "TW910"})
"""Looked for when there is a policy."""
OF_USE: Final = frozenset({"TW102", "TW108"})
"""Looked for when grants are compared with what was observed."""
DANGEROUS: Final = "TW112"
"""Looked for anyway; without a policy in more grants, since with one TW101 says more of them."""
ALWAYS: Final = ""
"""Stands for any code that is looked for anyway."""
KINDS: Final[Mapping[str, frozenset[str]]] = {
    "TW101": OF_INTENT,
    "TW102": OF_USE,
    DANGEROUS: frozenset({DANGEROUS}),
    ALWAYS: frozenset(),
}
"""Codes that are looked for alike, by one of them."""


@dataclass(frozen=True, slots=True)
class ScannedSource:
    """The grants of one listener or broker as a scan read them."""

    title: str
    broker: str
    configuration: str
    """What was named to be scanned: the same one again is the same source, whatever it says of itself."""
    grants: int = 0
    accounts: int = 0
    undecided: int = 0
    compared: bool = False
    """Whether they were compared with what was observed."""
    blind_spots: tuple[tuple[str, str | None], ...] = ()
    """What could not be read, and what would help."""


@dataclass(frozen=True, slots=True)
class KeptScan:
    """One scan."""

    number: int
    """Newer ones have higher ones: in a store that of the writer's run."""
    time_ns: int | None
    """When; None: not known."""
    sources: tuple[ScannedSource, ...] = ()
    policy: str | None = None
    """SHA-256 of the policy that grants were held against; None: none was given."""
    kept: int = 0
    """How many findings it kept."""
    whole: bool = True
    """Whether it had room for all that it found."""
    configurations: Mapping[str, frozenset[str]] = field(init=False)
    """What was scanned of each broker."""
    compared: frozenset[str] = field(init=False)
    """Brokers whose grants were all compared with what was observed."""

    def __post_init__(self) -> None:
        found: dict[str, set[str]] = {}
        for one in self.sources:
            found.setdefault(one.broker, set()).add(one.configuration)
        alone = {one.broker for one in self.sources if not one.compared}
        object.__setattr__(self, "configurations", {name: frozenset(those) for name, those in found.items()})
        object.__setattr__(self, "compared", frozenset(found.keys() - alone))

    def looked_again(self, older: KeptScan, broker: str, code: str) -> bool:
        """Whether it would have found what an older scan found of a broker, if that were still so."""
        if self.number <= older.number:
            return False
        before = older.configurations.get(broker)
        if not before or not before <= self.configurations.get(broker, frozenset()):
            return False
        if code in OF_INTENT:
            return self.policy is not None
        if code in OF_USE:
            return broker in self.compared
        return code != DANGEROUS or self.policy is None or older.policy is not None


def is_scan(opened: Entry) -> bool:
    """Whether a writer kept a scan: it watched nothing, so that the time it wrote is no time that was seen."""
    return _about(opened).get("command") == SCAN


def scan_time_ns(opened: Entry) -> int:
    """Return when a scan looked, which is somewhat before it was written."""
    facts = _about(opened).get("scan")
    time_ns = _number(facts.get("time_ns")) if isinstance(facts, Mapping) else None
    return opened.time_ns if time_ns is None or time_ns >= 1 << 63 else time_ns


def scans_of(opened: Sequence[Entry]) -> list[KeptScan]:
    """Return the scans among the writers of a store, which say what they are; input like any other."""
    return [_read(number, entry) for number, entry in enumerate(opened) if is_scan(entry)]


def complete(scans: Iterable[KeptScan], kept: Mapping[int, int]) -> list[KeptScan]:
    """Return those of which all that they found is there; `kept`: how many findings are, by the scan's number.

    A writer that died, a full disk or retention may have left less: nothing follows from what is not there.
    """
    return [scan for scan in scans if scan.whole and kept.get(scan.number, 0) >= scan.kept]


class Succession:
    """Says of what scans told whether a newer one did not find it again."""

    def __init__(self, scans: Iterable[KeptScan], complete: Iterable[KeptScan]) -> None:
        """`complete`: those of `scans` from which something follows; see `complete`."""
        self._scans = {scan.number: scan for scan in scans}
        self._complete = sorted(complete, key=lambda scan: scan.number)
        self._known: dict[tuple[int, str, str], KeptScan | None] = {}

    def after(self, number: int, broker: str, code: str) -> KeptScan | None:
        """Return the first scan that would have found again what this one found; None: there is none."""
        older, kind = self._scans.get(number), kind_of(code)
        if older is None:
            return None
        key = (number, broker, kind)
        if key not in self._known:
            found = (scan for scan in self._complete if scan.looked_again(older, broker, kind))
            self._known[key] = next(found, None)
        return self._known[key]

    def gone_at(self, told: Iterable[int], broker: str, code: str) -> KeptScan | None:
        """Return the first scan that did not find again what these told of, by their numbers; None: it stands."""
        newest: KeptScan | None = None
        for number in told:
            again = self.after(number, broker, code)
            if again is None:
                return None
            newest = again if newest is None or again.number > newest.number else newest
        return newest


def kind_of(code: str) -> str:
    """Return the key of `KINDS` of what is looked for like this code."""
    return next((kind for kind, codes in KINDS.items() if code in codes), ALWAYS)


def source_rows(sources: Iterable[ScannedSource]) -> list[dict[str, object]]:
    """Return what a writer says of each source besides what writers that watch say."""
    return [
        {
            "configuration": one.configuration,
            "grants": one.grants,
            "accounts": one.accounts,
            "undecided": one.undecided,
            "compared": one.compared,
        }
        for one in sources
    ]


def scan_facts(now_ns: int, kept: int, *, whole: bool) -> dict[str, object]:
    """Return what a writer says of the scan itself; `whole`: whether it had room for all that it found."""
    return {"time_ns": now_ns, "findings": kept, "whole": whole}


def _read(number: int, entry: Entry) -> KeptScan:
    about = _about(entry)
    rows, policy, facts = about.get("sources"), about.get("policy"), about.get("scan")
    digest = policy.get("sha256") if isinstance(policy, Mapping) else None
    facts = facts if isinstance(facts, Mapping) else {}
    kept = _number(facts.get("findings"))
    return KeptScan(
        number,
        scan_time_ns(entry),
        tuple(_source(row) for row in rows if isinstance(row, Mapping)) if isinstance(rows, list) else (),
        digest if isinstance(digest, str) else None,
        kept or 0,
        # What does not say how much it kept supersedes nothing.
        facts.get("whole") is True and kept is not None,
    )


def _source(row: Mapping[str, Any]) -> ScannedSource:
    spots = row.get("blind_spots")
    return ScannedSource(
        str(row.get("title", "")),
        str(row.get("broker", "")),
        str(row.get("configuration", "")),
        _number(row.get("grants")) or 0,
        _number(row.get("accounts")) or 0,
        _number(row.get("undecided")) or 0,
        row.get("compared") is True,
        tuple(
            (str(spot.get("what")), None if spot.get("fix") is None else str(spot["fix"]))
            for spot in (spots if isinstance(spots, list) else [])
            if isinstance(spot, Mapping)
        ),
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _about(opened: Entry) -> Mapping[str, Any]:
    about = (opened.facts or {}).get("about")
    return about if isinstance(about, Mapping) else {}
