"""What is usual, from what was observed: topics with what is sent there, rates, brokers and tools.

Nothing that one client did once becomes usual. A topic's names do when `SUPPORT` user names published them to whose
role that belongs (see `draft`: what a few members of a large role do may be an intruder's), or anybody on `DAYS`
different days (UTC); a broker when so many hosts connected to it, or fewer on so many days; a program on a host when it
ran there on so many days. All else is left out, and listed for review.

Of sizes, entropies, shapes and rates, too, what counts is how many users went so far, never how often one did: the
highest usual value is the largest one that `quorum(users)` users reached, so that no smaller group can stretch it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from topicwarden.events import Action, EventBatch, Shape
from topicwarden.learn.draft import SUPPORT, Bool, Tick, vouched
from topicwarden.learn.leftover import Cause, Leftover
from topicwarden.learn.observations import SECOND, Gatherer, Int64, Observations, Peaks
from topicwarden.learn.review import Reason, ReviewItem
from topicwarden.learn.rules import RuleSet
from topicwarden.learn.templates import Miner
from topicwarden.learn.usual_hosts import DAY_NS, HostGatherer, SeenTool, Span, longest
from topicwarden.learn.vocabulary import FIRST_WORD, ONE, Name
from topicwarden.policy import Place, level_shape
from topicwarden.policy.baseline import MAX_ENTRIES, MAX_LISTED, MAX_TOPICS

DAYS: Final = 3
"""Different days on which something must have been seen that few have shown."""
PEAK_NS: Final = 10 * SECOND
"""What a peak rate is measured over."""
SEEN_NS: Final = 10 * PEAK_NS
"""How long an account must have been seen for its peak to be one: in less the fullest ten seconds are any ten."""
MAX_SHAPES: Final = 32
"""Most shapes of an open level; with more, any will do."""

Float64 = npt.NDArray[np.float64]


class BaselineGatherer(Gatherer):
    """Gathers what payloads look like, and what hosts did, besides who did what: roles rest on subscriptions, too."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts = HostGatherer()
        self.smallest = np.zeros(0, np.int64)
        """Of each pair: the smallest payload in bytes; a very large number when none is known."""
        self.shapes = np.zeros(0, np.uint8)
        """Of each pair: bits of the shapes of its payloads."""
        self.low_bits: Float64 = np.zeros(0)
        """Of each pair: the lowest entropy; infinite when none is known."""
        self.high_bits: Float64 = np.zeros(0)
        self.days = np.zeros(0, np.uint64)
        """Of each pair: a bit for each day, 64 days round."""
        self.peaks = Peaks(PEAK_NS)
        """By account, over all its publishes."""

    def add(self, batch: EventBatch) -> None:
        """Take a batch."""
        self.hosts.add(batch.hosts)
        super().add(batch)

    def _published(self, batch: EventBatch, rows: Int64, pair: Int64, account: Int64) -> None:
        self._make_room(self.pairs)
        size = batch.size[rows]
        known = size >= 0
        np.minimum.at(self.smallest, pair[known], size[known])
        np.bitwise_or.at(self.shapes, pair, np.left_shift(np.uint8(1), batch.shape[rows]))
        bits = batch.entropy[rows].astype(np.float64)
        known = bits >= 0
        np.minimum.at(self.low_bits, pair[known], bits[known])
        np.maximum.at(self.high_bits, pair[known], bits[known])
        time = np.clip(batch.time_ns[rows], 0, 1 << 61)
        np.bitwise_or.at(self.days, pair, np.left_shift(np.uint64(1), (time // DAY_NS % 64).astype(np.uint64)))
        self.peaks.add(account, time, batch.count[rows].astype(np.int64))

    def _make_room(self, pairs: int) -> None:
        more = max(pairs - len(self.shapes), 0)
        if more:
            more = max(more, len(self.shapes), 1024)
            self.smallest = np.concatenate([self.smallest, np.full(more, np.iinfo(np.int64).max)])
            self.shapes = np.concatenate([self.shapes, np.zeros(more, np.uint8)])
            self.low_bits = np.concatenate([self.low_bits, np.full(more, np.inf)])
            self.high_bits = np.concatenate([self.high_bits, np.full(more, -1.0)])
            self.days = np.concatenate([self.days, np.zeros(more, np.uint64)])

    def finish(self) -> Observations:
        """Return what was gathered; the columns here stay."""
        self._make_room(self.pairs)
        return super().finish()


@dataclass(frozen=True, slots=True)
class LevelDraft:
    """How the words of an open level are built."""

    shapes: tuple[str, ...]
    shortest: int
    longest: int


@dataclass(frozen=True, slots=True)
class TopicDraft:
    """A usual topic, and what speaks for it."""

    place: Place
    levels: tuple[LevelDraft, ...]
    size: tuple[int, int] | None
    shapes: tuple[str, ...]
    entropy: tuple[float, float] | None
    typical: float
    peak: float
    """0: nobody was seen for long enough."""
    users: int
    events: int
    days: int
    last_ns: int
    largest: int
    """The largest payload of all; -1 when none is known."""
    fastest: float
    """The highest peak of all."""


@dataclass(frozen=True, slots=True)
class BrokerDraft:
    """A usual broker: one address with its ports."""

    address: str
    ports: tuple[int, ...]
    hosts: tuple[str, ...]
    all_hosts: int
    connections: int
    days: int


@dataclass(frozen=True, slots=True)
class ToolDraft:
    """A usual program of a host."""

    host: str
    process: str
    users: tuple[str, ...]
    parents: tuple[str, ...]
    does: tuple[str, ...]
    runs: int
    days: int


@dataclass(frozen=True, slots=True)
class HostItem:
    """A broker or tool that is left out."""

    kind: Literal["broker", "tool"]
    label: str
    """Hostile text."""
    hosts: int
    examples: tuple[str, ...]
    """Hosts, or users of the program."""
    span: Span
    support: int
    min_days: int

    @property
    def why(self) -> str:
        """Why it is here, in words."""
        days = len(self.span.days)
        seen = f"seen on {days} day{'' if days == 1 else 's'}"
        by = f" by {self.hosts} host{'' if self.hosts == 1 else 's'}" if self.kind == "broker" else ""
        enough = f"{self.min_days} days" + (f" or {self.support} hosts" if self.kind == "broker" else "")
        return f"{seen}{by}, and {enough} are needed"


@dataclass(frozen=True, slots=True)
class BaselineDraft:
    """What was learnt."""

    topics: tuple[TopicDraft, ...]
    brokers: tuple[BrokerDraft, ...]
    tools: tuple[ToolDraft, ...]
    review: tuple[ReviewItem, ...]
    left_out: tuple[HostItem, ...]
    events: int
    """Publishes that the broker did not refuse."""
    covered_events: int
    host_events: int
    first_ns: int
    last_ns: int
    accounts: int
    overflow: int
    support: int
    min_days: int

    @property
    def covered(self) -> float:
        """The share of the publishes whose names are usual, rounded down to whole per cent."""
        return self.covered_events * 100 // self.events / 100 if self.events else 0.0


def quorum(users: int, support: int) -> int:
    """Return how many of so many users must have reached a value for it to be usual.

    Half of them, so that in a small fleet one intruder does not decide, and never more than `support`.
    """
    return max(1, min(support, (users + 1) // 2))


def learn_baseline(
    gatherer: BaselineGatherer, tick: Tick = lambda _: None, *, support: int = SUPPORT, min_days: int = DAYS
) -> BaselineDraft:
    """Work out what is usual.

    `support`: users, or hosts, that make something usual at once; `min_days`: days on which fewer must be seen.
    """
    return _Learning(gatherer, tick, support, min_days).run()


@dataclass(slots=True)
class _Topic:
    """A usual topic while it is worked out."""

    place: Place
    templates: list[Name]
    pairs: list[int]


class _Learning:
    def __init__(self, gatherer: BaselineGatherer, tick: Tick, support: int, min_days: int) -> None:
        self.gatherer, self.tick, self.support, self.min_days = gatherer, tick, support, min_days
        self.seen = gatherer.finish()
        self.evidence, self.vouched = vouched(self.seen, tick, support=support)
        actions = [self.seen.vocabulary.root(name).action for name in self.evidence.names]
        self.published: Bool = np.array(actions, np.int64).take(self.evidence.name) == Action.PUBLISH
        """Which pairs are publishes."""
        self.peaks, self.typical = self._rates()

    def run(self) -> BaselineDraft:
        seen, evidence = self.seen, self.evidence
        self.tick("looking for topics")
        published = self.published
        pairs = np.flatnonzero(evidence.eligible & published)
        miner = Miner(seen.vocabulary, self.support, lambda: self.tick("looking for topics"))
        templates = miner.mine(evidence.holders(pairs))
        topics = self._topics(pairs, sorted(templates, key=evidence.order))
        self.tick("measuring topics")
        drafts = [self._measured(topic) for topic in topics]
        covered = np.zeros(len(evidence.name), bool)
        for topic in topics:
            covered[topic.pairs] = True
        leftover = Leftover(seen, evidence.names, evidence.name, evidence.account, evidence.user)
        few = Cause(Reason.FEW_USERS)
        leftover.add_pairs(np.flatnonzero(evidence.eligible & published & ~covered), lambda _: few, self.support)
        leftover.add_others(evidence.eligible, covered, set(evidence.without_vhost), only=Action.PUBLISH)
        brokers, tools, left_out = self._hosts()
        hosts = self.gatherer.hosts
        unfit = sum(one.count for one in seen.unfit if one.action is Action.PUBLISH)
        first = [seen.first_event_ns] * bool(seen.events) + [hosts.first_ns] * bool(hosts.events)
        return BaselineDraft(
            topics=tuple(drafts),
            brokers=brokers,
            tools=tools,
            review=leftover.items(),
            left_out=left_out,
            events=int(seen.count[published & ~seen.denied].sum()) + unfit + seen.overflow,
            covered_events=int(seen.count[covered].sum()),
            host_events=hosts.events,
            first_ns=min(first) if first else 0,
            last_ns=max(seen.last_event_ns, hosts.last_ns),
            accounts=len(seen.accounts),
            overflow=seen.overflow + hosts.overflow,
            support=self.support,
            min_days=self.min_days,
        )

    def _rates(self) -> tuple[Float64, Float64]:
        """Return each account's most publishes in ten seconds, and those over the time it was seen; per second.

        The first is 0 where an account was seen too shortly.
        """
        seen, accounts = self.seen, len(self.seen.accounts)
        peaks = np.zeros(accounts)
        most = self.gatherer.peaks.most[:accounts]
        peaks[: len(most)] = most * (SECOND / PEAK_NS)
        accepted = np.flatnonzero(self.published & ~seen.denied)
        of = self.evidence.account[accepted]
        first, last = np.full(accounts, np.iinfo(np.int64).max), np.zeros(accounts, np.int64)
        np.minimum.at(first, of, seen.first_ns[accepted])
        np.maximum.at(last, of, seen.last_ns[accepted])
        events = np.bincount(of, weights=seen.count[accepted], minlength=accounts)
        span = np.where(events > 0, last - np.minimum(first, last), 0)
        return np.where(span >= SEEN_NS, peaks, 0.0), events * SECOND / np.maximum(span, PEAK_NS)

    # -- topics ------------------------------------------------------------------------------------------------------

    def _topics(self, pairs: Int64, templates: Sequence[Name]) -> list[_Topic]:
        """Return the topics that enough users, or days, speak for, with the pairs that each is learnt from."""
        admitting = self._admitting(pairs, templates)
        by_template: dict[int, list[int]] = {}
        for pair, number in zip(pairs.tolist(), self.evidence.name[pairs].tolist(), strict=True):
            # What speaks for a literal name does not speak for an open one beside it.
            by_template.setdefault(admitting[number][0], []).append(pair)
        usual = [template for template, mine in by_template.items() if self._is_usual(np.array(mine, np.int64))]
        usual = sorted(usual, key=lambda number: (-len(by_template[number]), number))[:MAX_TOPICS]
        kept = set(usual)
        by_place: dict[Place, _Topic] = {}
        for pair, number in zip(pairs.tolist(), self.evidence.name[pairs].tolist(), strict=True):
            best = next((template for template in admitting[number] if template in kept), None)
            if best is None:
                continue
            place = self._place(templates[best])
            topic = by_place.setdefault(place, _Topic(place, [], []))
            if templates[best] not in topic.templates:
                topic.templates.append(templates[best])
            topic.pairs.append(pair)
        return sorted(by_place.values(), key=lambda topic: _by_place(topic.place))

    def _admitting(self, pairs: Int64, templates: Sequence[Name]) -> dict[int, list[int]]:
        """Return the templates that admit each name, the most literal first."""
        rules, names = RuleSet(templates), self.evidence.names
        openness = [sum(word < FIRST_WORD for word in template) for template in templates]
        return {
            number: sorted(rules.admitting(names[number]), key=lambda template: (openness[template], template))
            for number in np.unique(self.evidence.name[pairs]).tolist()
        }

    def _is_usual(self, pairs: Int64) -> bool:
        """Whether enough users whose role does this speak for it, or days."""
        users = self.evidence.users(np.unique(self.evidence.account[pairs[self.vouched[pairs]]]).tolist())
        return users >= self.support or self._days(pairs) >= self.min_days

    def _days(self, pairs: Int64) -> int:
        return int(np.bitwise_or.reduce(self.gatherer.days[pairs])).bit_count()

    def _place(self, template: Name) -> Place:
        """Return a template as a place; what stands for the client's own names is any word."""
        return self.seen.vocabulary.place(
            (template[0], *(word if word >= FIRST_WORD else ONE for word in template[1:]))
        )

    def _measured(self, topic: _Topic) -> TopicDraft:
        """Return a topic with what is usual there."""
        seen, gatherer = self.seen, self.gatherer
        pairs = np.array(topic.pairs, np.int64)
        accounts = self.evidence.account[pairs]
        user = self.evidence.user[accounts]
        users = len(np.unique(user))
        needed = quorum(users, self.support)
        sized = seen.max_size[pairs] >= 0
        measured = gatherer.high_bits[pairs] >= 0
        own = np.unique(accounts)
        paced = own[self.peaks[own] > 0]
        peaks = self.peaks[paced]
        size = entropy = None
        if sized.any():
            low = _reached(-gatherer.smallest[pairs[sized]], user[sized], needed)
            high = _reached(seen.max_size[pairs[sized]], user[sized], needed)
            size = (-int(low), int(high))
        if measured.any():
            low = _reached(-gatherer.low_bits[pairs[measured]], user[measured], needed)
            high = _reached(gatherer.high_bits[pairs[measured]], user[measured], needed)
            entropy = (_floor(-float(low)), _ceil(float(high)))
        return TopicDraft(
            place=topic.place,
            levels=self._levels(topic, needed),
            size=size,
            shapes=_shapes(gatherer.shapes[pairs], user, needed),
            entropy=entropy,
            typical=float(np.median(self.typical[own])),
            peak=_reached(peaks, self.evidence.user[paced], needed) if len(paced) else 0.0,
            users=users,
            events=int(seen.count[pairs].sum()),
            days=self._days(pairs),
            last_ns=int(seen.last_ns[pairs].max()),
            largest=int(seen.max_size[pairs].max()),
            fastest=float(peaks.max(initial=0.0)),
        )

    def _levels(self, topic: _Topic, needed: int) -> tuple[LevelDraft, ...]:
        """Return how the words of open levels are built."""
        places = [place for place, level in enumerate(topic.place.levels, 1) if level == topic.place.space.syntax.one]
        if not places:
            return ()
        shapes: dict[int, dict[str, set[int]]] = {place: {} for place in places}
        lengths: dict[int, tuple[list[int], list[int]]] = {place: ([], []) for place in places}
        seen = self.seen
        of_word: dict[int, tuple[str, int]] = {}
        for pair in topic.pairs:
            name, user = seen.names[int(seen.pair_name[pair])], int(self.evidence.user[self.evidence.account[pair]])
            for place in places:
                known = of_word.get(name[place])
                if known is None:
                    word = seen.vocabulary.word(name[place])
                    known = of_word[name[place]] = level_shape(word), len(word)
                shapes[place].setdefault(known[0], set()).add(user)
                lengths[place][0].append(known[1])
                lengths[place][1].append(user)
        drafts = []
        for place in places:
            usual = sorted(shape for shape, users in shapes[place].items() if len(users) >= needed)
            values, users = np.array(lengths[place][0]), np.array(lengths[place][1])
            drafts.append(
                LevelDraft(
                    tuple(usual) if len(usual) <= MAX_SHAPES and "" not in usual else (),
                    -int(_reached(-values, users, needed)),
                    int(_reached(values, users, needed)),
                )
            )
        return tuple(drafts)

    # -- hosts -------------------------------------------------------------------------------------------------------

    def _hosts(self) -> tuple[tuple[BrokerDraft, ...], tuple[ToolDraft, ...], tuple[HostItem, ...]]:
        hosts = self.gatherer.hosts
        left: list[HostItem] = []
        ports: dict[str, list[tuple[int, int]]] = {}
        for number, (end, seen) in enumerate(hosts.brokers.items()):
            if self._enough(seen.span, len(seen.hosts)):
                ports.setdefault(end.address, []).append((end.port, number))
            else:
                label = f"{end.address} port {end.port}"
                left.append(self._item("broker", label, len(seen.hosts), longest(seen.hosts), seen.span))
        ends = list(hosts.brokers.values())
        brokers = []
        for address, usual in sorted(ports.items()):
            of = [ends[number] for _, number in usual]
            names = sorted({host for one in of for host in one.hosts})
            brokers.append(
                BrokerDraft(
                    address,
                    tuple(sorted(port for port, _ in usual)),
                    tuple(names) if len(names) <= MAX_LISTED else (),
                    len(names),
                    sum(one.span.count for one in of),
                    len(set().union(*(one.span.days for one in of))),
                )
            )
        tools = []
        for (host, process), tool in sorted(hosts.tools.items()):
            if len(tool.span.days) >= self.min_days:
                tools.append(_tool(host, process, tool))
            else:
                left.append(self._item("tool", f"{process} on {host}", 1, longest(tool.users), tool.span))
        left.sort(key=lambda item: (item.kind, -item.span.count, item.label))
        return tuple(brokers[:MAX_ENTRIES]), tuple(tools[:MAX_ENTRIES]), tuple(left)

    def _enough(self, span: Span, hosts: int) -> bool:
        return hosts >= self.support or len(span.days) >= self.min_days

    def _item(
        self, kind: Literal["broker", "tool"], label: str, hosts: int, examples: tuple[str, ...], span: Span
    ) -> HostItem:
        return HostItem(kind, label, hosts, examples, span, self.support, self.min_days)


def _tool(host: str, process: str, seen: SeenTool) -> ToolDraft:
    return ToolDraft(
        host,
        process,
        tuple(sorted(seen.users)),
        tuple(sorted(seen.parents)),
        tuple(sorted(seen.does)),
        seen.span.count,
        len(seen.span.days),
    )


def _reached(values: npt.NDArray[np.generic], user: Int64, needed: int) -> float:
    """Return the largest value that so many users reached or passed; there are at least so many."""
    order = np.lexsort((values, user))
    last = np.append(np.flatnonzero(np.diff(user[order])), len(order) - 1)
    each = np.sort(values[order][last])
    return float(each[-min(needed, len(each))])


def _shapes(bits: npt.NDArray[np.uint8], user: Int64, needed: int) -> tuple[str, ...]:
    """Return the shapes that so many users showed."""
    return tuple(
        shape.name.lower()
        for shape in Shape
        if shape is not Shape.UNKNOWN and len(np.unique(user[(bits >> np.uint8(shape)) & 1 == 1])) >= needed
    )


def _floor(bits: float) -> float:
    return float(np.floor(bits * 100) / 100)


def _ceil(bits: float) -> float:
    return float(np.ceil(bits * 100) / 100)


def _by_place(place: Place) -> tuple[str, str, str]:
    return (place.space.family, place.space.within, place.pattern)
