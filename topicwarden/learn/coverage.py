"""How much of what accounts do has probably been seen: the estimate below which no policy is drafted.

Two factors, over incidences "this account used this template":

- *Sample coverage*: the probability that a further incidence is of a template already known. For n accounts with U
  incidences, of which Q1 are of templates that one account used and Q2 of templates that two used, it is
  1 - Q1/U * (n-1)*Q1 / ((n-1)*Q1 + 2*Q2): I. J. Good, Biometrika 40 (1953), in the form for incidences by A. Chao and
  L. Jost, Ecology 93 (2012), equation 4b, and A. Chao et al., Ecological Monographs 84 (2014).
- *Completeness*: of all (member, template) pairs of the drafted roles, the share that was observed. That is the moment
  estimate of the probability of detection p in a closed population in which each member does what its role does
  (D. L. Otis et al., Wildlife Monographs 62 (1978), model M0): what others of the same role showed, and this member did
  not, has probably just not happened yet.

Their product is the probability that what an account does next among the things it ever does has been seen of it. Where
members differ by nature, completeness is too low: the estimate errs on the side of refusing. It knows nothing of what
nobody has shown yet because it happens once a year; the period of the observation says that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Coverage:
    """The estimate and what it is made of; shares between 0 and 1."""

    sample: float
    completeness: float

    @property
    def estimate(self) -> float:
        """The share of the behaviour that seems to have been seen."""
        return self.sample * self.completeness


def sample_coverage(holders: Iterable[int], accounts: int) -> float:
    """Return the sample coverage from the number of accounts that used each template; 0 without any."""
    numbers = list(holders)
    total, once, twice = sum(numbers), numbers.count(1), numbers.count(2)
    if not total:
        return 0.0
    if not once:
        return 1.0
    unseen = (accounts - 1) * once
    # One account alone tells nothing of what others do.
    return 1 - once / total * (unseen / (unseen + 2 * twice) if unseen else 1.0)


def completeness(roles: Iterable[tuple[int, Iterable[int]]]) -> float:
    """Return the share of (member, rule) pairs observed, from each role's size and how many used each of its rules."""
    seen = possible = 0
    for members, used in roles:
        for number in used:
            seen += number
            possible += members
    return seen / possible if possible else 0.0
