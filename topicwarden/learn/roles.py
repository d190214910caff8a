"""From the templates each account used to roles: groups of accounts that do the same.

A mixture of independent uses: a role is a set of templates, each used by its members with some probability, and
anything else only by accident. Fitted in turns (G. Celeux and G. Govaert's classification EM, CSDA 14, 1992): each
account joins the role that explains it best, then each role is what its members do. Where it starts from decides much,
so each template proposes the templates that most often go with it.

What makes it hold against poisoned traffic: a template belongs to a role only when `SHARE` of the members used it, so
what a few of them did besides is left over; a small group that does what a larger role does, and more, is no role of
its own but members with something left over; and an account joins only a role of which it showed a good part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

SHARE: Final = 0.25
"""Share of a role's members that must have used a template for it to be the role's."""
SHOWN: Final = 1 / 3
"""Share of a role's templates that an account must have shown to be its member; at least two when it has two."""
SECOND: Final = 0.6
"""The same for a second role, of what the first one does not have."""
MARGIN: Final = 3.0
"""By how much the best role must explain an account better than the next: odds of 20 to 1, as a logarithm."""
STRAY: Final = 0.02
"""Probability of using a template that is not of one's role."""
ROUNDS: Final = 12
MAX_TEMPLATES: Final = 4096
"""Most templates that roles are made of: those that most accounts use."""
MAX_ROLES: Final = 1024
_MAX_TOGETHER: Final = 64
"""Templates of one account looked at for what goes together, the rarest first."""
_CELLS: Final = 1 << 22
_PAUSE: Final = 1024

Float = npt.NDArray[np.float64]
Set = tuple[int, ...]
"""Templates an account used, by number, sorted."""
Tick = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Roles:
    """Roles, and which accounts have them."""

    templates: list[frozenset[int]]
    """What each role does, by its number; larger roles first."""
    members: list[list[int]]
    """Its accounts, sorted."""
    undecided: dict[int, tuple[int, ...]]
    """Accounts that could have any of several roles, which are given."""


class _Mixture:
    """The roles while they are fitted, over the different sets of templates and how many accounts have each."""

    def __init__(self, sets: Sequence[Set], weights: npt.NDArray[np.int64], templates: int, support: int) -> None:
        self.sets, self.weights, self.width, self.support = sets, weights, templates, support
        self.rates: list[dict[int, float]] = []
        """For each role, the probability of each of its templates."""
        self.sizes: list[float] = []
        self._apart: set[frozenset[int]] = set()
        """Roles that are part of a larger one, and are shown not to be so by chance."""

    def start(self, tick: Tick) -> None:
        """Let each template propose what goes with it: all that `SHARE` of its holders use."""
        holders = np.zeros(self.width, np.int64)
        for one, weight in zip(self.sets, self.weights.tolist(), strict=True):
            holders[list(one)] += weight
        together: list[dict[int, int]] = [{} for _ in range(self.width)]
        for number, (one, weight) in enumerate(zip(self.sets, self.weights.tolist(), strict=True)):
            if number % _PAUSE == 0:
                tick()
            few = one if len(one) <= _MAX_TOGETHER else sorted(one, key=lambda t: (holders[t], t))[:_MAX_TOGETHER]
            for template in few:
                row = together[template]
                for other in few:
                    row[other] = row.get(other, 0) + weight
        proposed: dict[frozenset[int], tuple[int, dict[int, float]]] = {}
        for template, row in enumerate(together):
            number = int(holders[template])
            if number < self.support or not row:
                continue
            rates = {other: count / number for other, count in row.items() if count >= SHARE * number}
            key = frozenset(rates)
            if key not in proposed or proposed[key][0] < number:
                proposed[key] = (number, rates)
        best = sorted(proposed.items(), key=lambda item: (-item[1][0], sorted(item[0])))[:MAX_ROLES]
        self.rates = [rates for _, (_, rates) in best]
        self.sizes = [float(number) for _, (number, _) in best]

    def fit(self, tick: Tick) -> npt.NDArray[np.int64]:
        """Join and re-estimate until nothing changes; returns each set's role, -1 where there is none."""
        joined = np.full(len(self.sets), -1, np.int64)
        for _ in range(ROUNDS):
            tick()
            before, joined = joined, self._best()[0] if self.rates else joined
            self._estimate(joined)
            absorbed = self._absorb()
            if not absorbed and np.array_equal(before, joined):
                break
        return self._best()[0] if self.rates else joined

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of the sets that are scored at once, so that memory stays bounded."""
        start = incidences = 0
        for stop, one in enumerate(self.sets):
            incidences += len(one)
            if stop > start and incidences * len(self.rates) > _CELLS:
                yield start, stop
                start, incidences = stop, len(one)
        yield start, len(self.sets)

    def scores(self, start: int, stop: int) -> Float:
        """Return how well each role explains these sets: logarithms of probabilities, roles as columns."""
        weights = np.full((self.width, len(self.rates)), np.log(STRAY / (1 - STRAY)))
        base = np.full(len(self.rates), self.width * np.log(1 - STRAY))
        for role, rates in enumerate(self.rates):
            of = np.array(sorted(rates), np.int64)
            p = np.clip(np.array([rates[template] for template in of.tolist()]), 0.05, 0.95)
            weights[of, role] = np.log(p) - np.log(1 - p)
            base[role] += float(np.sum(np.log(1 - p))) - len(of) * np.log(1 - STRAY)
        base += np.log(np.array(self.sizes) / sum(self.sizes))
        block = self.sets[start:stop]
        starts = np.cumsum([0, *map(len, block)])[:-1]
        flat = np.array([template for one in block for template in one], np.int64)
        # Rounded, so that the order in which a sum was taken decides nothing.
        found: Float = np.round(np.add.reduceat(weights[flat], starts, axis=0) + base, 6)
        return found

    def _best(self) -> tuple[npt.NDArray[np.int64], Float]:
        """Return each set's best role, and by how much it is better than the next."""
        best, margin = [], []
        for start, stop in self.blocks():
            scores = self.scores(start, stop)
            chosen = scores.argmax(axis=1)
            best.append(chosen)
            top = scores[np.arange(len(scores)), chosen]
            scores[np.arange(len(scores)), chosen] = -np.inf
            margin.append(top - scores.max(axis=1))
        return np.concatenate(best), np.concatenate(margin)

    def _estimate(self, joined: npt.NDArray[np.int64]) -> None:
        """Make each role what its members do; roles with too few members go."""
        count: list[dict[int, int]] = [{} for _ in self.rates]
        size = [0] * len(self.rates)
        for one, role, weight in zip(self.sets, joined.tolist(), self.weights.tolist(), strict=True):
            if role >= 0:
                size[role] += weight
                row = count[role]
                for template in one:
                    row[template] = row.get(template, 0) + weight
        found = []
        for members, row in zip(size, count, strict=True):
            least = max(self.support, SHARE * members)
            rates = {template: used / members for template, used in row.items() if used >= least}
            if members >= self.support and rates:
                found.append((float(members), rates))
        found.sort(key=lambda role: (-role[0], sorted(role[1])))
        self.sizes, self.rates = [size for size, _ in found], [rates for _, rates in found]

    def _absorb(self) -> bool:
        """Let go of roles that are a small part of a larger one with something more; says whether there were any.

        Their members do, on average, half of what the larger role's do.
        """
        kept: list[int] = []
        for role, (size, rates) in enumerate(zip(self.sizes, self.rates, strict=True)):
            if frozenset(rates) in self._apart or not any(
                size < SHARE * self.sizes[other]
                and sum(rates.get(t, 0.0) for t in self.rates[other]) >= 0.5 * sum(self.rates[other].values())
                for other in kept
            ):
                kept.append(role)
        absorbed = len(kept) < len(self.rates)
        self.sizes, self.rates = [self.sizes[role] for role in kept], [self.rates[role] for role in kept]
        return absorbed

    def split(self, joined: npt.NDArray[np.int64]) -> bool:
        """Give sets of templates a role of their own that far too many accounts have for chance; says whether any.

        Those who only read must not become members of a role that also writes because they do half of the same.
        """
        added = False
        for role, rates in enumerate(list(self.rates)):
            rows = np.flatnonzero(joined == role)
            members = float(self.weights[rows].sum())
            of = frozenset(rates)
            inside: dict[frozenset[int], int] = {}
            for row in rows.tolist():
                part = of.intersection(self.sets[row])
                inside[part] = inside.get(part, 0) + int(self.weights[row])
            for part, number in sorted(inside.items(), key=lambda item: sorted(item[0])):
                if not part or part == of or number < self.support:
                    continue
                chance = members
                for template, rate in rates.items():
                    chance *= rate if template in part else 1 - rate
                if number > 2 * chance + 5 * chance**0.5 + self.support and len(self.rates) < MAX_ROLES:
                    self._apart.add(part)
                    self.rates.append(dict.fromkeys(part, 0.95))
                    self.sizes.append(float(number))
                    added = True
        return added


def find_roles(used: Mapping[int, Set], templates: int, support: int, tick: Tick) -> Roles:
    """Group accounts into roles.

    `used`: the templates (numbers below `templates`) of each account; `support`: fewest members of a role.
    """
    by_set: dict[Set, list[int]] = {}
    for account in sorted(used):
        by_set.setdefault(used[account], []).append(account)
    sets = sorted(one for one in by_set if one)
    weights = np.array([len(by_set[one]) for one in sets], np.int64)
    mixture = _Mixture(sets, weights, templates, support)
    if sets:
        mixture.start(tick)
        joined = mixture.fit(tick)
        if mixture.split(joined):
            mixture.fit(tick)
    members: list[list[int]] = [[] for _ in mixture.rates]
    undecided: dict[int, tuple[int, ...]] = {}
    anywhere = frozenset[int]().union(*mixture.rates)
    for start, stop in mixture.blocks() if mixture.rates else ():
        tick()
        scores = mixture.scores(start, stop)
        for row, one in enumerate(sets[start:stop]):
            best = int(scores[row].argmax())
            accounts = by_set[one]
            if not _shown(frozenset(one), frozenset(mixture.rates[best]), anywhere):
                continue
            close = np.flatnonzero(scores[row] > scores[row, best] - MARGIN).tolist()
            least = min(close, key=lambda role: (len(mixture.rates[role]), role))
            # Where one of the roles is part of all the others, it is what surely fits.
            if all(mixture.rates[least].keys() <= mixture.rates[role].keys() for role in close):
                members[least].extend(accounts)
            else:
                undecided.update(dict.fromkeys(accounts, tuple(close)))
    found = [frozenset(rates) for rates in mixture.rates]
    for role, accounts in _second_roles(used, found, members, support).items():
        members[role].extend(accounts)
    return Roles(found, [sorted(accounts) for accounts in members], undecided)


def _second_roles(
    used: Mapping[int, Set], roles: Sequence[frozenset[int]], members: Sequence[Sequence[int]], support: int
) -> dict[int, list[int]]:
    """Return who has a second role besides the first: they showed most of it, and `support` accounts share the two.

    A single account that also acts like another role is what an intruder with a stolen password looks like.
    """
    holding: dict[int, list[int]] = {}
    for role, of in enumerate(roles):
        for template in of:
            holding.setdefault(template, []).append(role)
    both: dict[tuple[int, int], list[int]] = {}
    for first, accounts in enumerate(members):
        for account in accounts:
            rest = [template for template in used[account] if template not in roles[first]]
            hits: dict[int, int] = {}
            for template in rest:
                for role in holding.get(template, ()):
                    hits[role] = hits.get(role, 0) + 1
            for role, number in hits.items():
                if number >= max(2, SECOND * len(roles[role] - roles[first])):
                    both.setdefault((first, role), []).append(account)
    found: dict[int, list[int]] = {}
    for (_, role), accounts in sorted(both.items()):
        if len(accounts) >= support:
            found.setdefault(role, []).extend(accounts)
    return found


def _shown(one: frozenset[int], of: frozenset[int], anywhere: frozenset[int]) -> bool:
    """Whether an account with these templates showed enough of a role; `anywhere`: the templates of all roles."""
    hits = len(one & of)
    # Who does things of several roles may be an intruder with one stolen account, so more must speak for this one.
    needed = max(2, SHOWN * len(of)) + min(len(one & anywhere) - hits, 2)
    return hits >= min(len(of), needed) and 2 * hits >= len(one)
