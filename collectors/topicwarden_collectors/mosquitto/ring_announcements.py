"""Reads the announcements in a block of the ring's slots: what the identifiers in events stand for.

Names decode as UTF-8 with `surrogateescape`: it never fails, and encoding gives the bytes back, so two different names
never become one (`backslashreplace` would make the byte ff and the four characters `\\xff` the same).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from topicwarden.events import Client, Identity, Resource, ResourceKind
from topicwarden_collectors.mosquitto import ring_layout as layout

Indices = npt.NDArray[np.intp]

_IDENTITIES: Final = {
    layout.IDENTITY_UNKNOWN: Identity.UNKNOWN,
    layout.IDENTITY_VERIFIED: Identity.VERIFIED,
    layout.IDENTITY_CLAIMED: Identity.CLAIMED,
    layout.IDENTITY_ANONYMOUS: Identity.ANONYMOUS,
}


@dataclass(slots=True)
class Announcements:
    """What the slots of a block that are no events hold."""

    client_ids: npt.NDArray[np.uint32]
    clients: list[Client]
    topic_ids: npt.NDArray[np.uint32]
    topics: list[Resource]
    kept: int
    """Slots dealt with; an announcement that the block does not hold whole begins here."""
    excused_more: int
    """How many more TW_MORE slots may follow without a head."""
    malformed: list[tuple[str, Indices]]
    """Slots that make no sense, by kind; each slot once."""


@dataclass(slots=True)
class _Groups:
    """Announcements of one kind: heads, each with the TW_MORE slots it asks for."""

    heads: Indices
    """Well-formed and complete ones."""
    ranks: Indices
    """Where each one's TW_MORE slots begin among all those of the block."""
    needed: Indices
    """How many of them each one has."""
    broken: Indices
    """Heads with senseless fields or too few TW_MORE slots."""
    pending: int | None
    """A head whose group the block's end cuts off."""


def read_announcements(data: npt.NDArray[np.uint8], others: Indices, broker: str, excused_more: int) -> Announcements:
    """Read a block's announcements. `others`: index of every slot that is no event, ascending, at least one.

    `excused_more`: so many TW_MORE slots at the very beginning may be the rest of a group begun before the block.
    """
    types = data[others, 0]
    more = others[types == layout.TYPE_MORE]
    marks = others[types == layout.TYPE_MARK]
    known_mark = (data[marks, 1] >= layout.MARK_START) & (data[marks, 1] <= layout.MARK_MODE)
    clients = data.view(layout.CLIENT).reshape(-1)
    topics = data.view(layout.TOPIC).reshape(-1)
    of_clients = _client_groups(clients, others[types == layout.TYPE_CLIENT], more)
    of_topics = _topic_groups(topics, others[types == layout.TYPE_TOPIC], more)
    pending = of_clients.pending if of_clients.pending is not None else of_topics.pending
    kept = len(data) if pending is None else pending

    leading = int(np.count_nonzero(more == np.arange(len(more))))
    excused = min(leading, excused_more)
    body = data[more, 1:].tobytes()
    return Announcements(
        client_ids=clients["id"][of_clients.heads],
        clients=_read_clients(clients[of_clients.heads], of_clients.ranks, body, broker),
        topic_ids=topics["id"][of_topics.heads],
        topics=_read_topics(topics[of_topics.heads], of_topics.ranks, body),
        kept=kept,
        excused_more=excused_more - excused if leading == len(data) else 0,
        malformed=[
            ("unknown", others[(types == layout.TYPE_NONE) | (types > layout.TYPE_MARK)]),
            ("mark", marks[~known_mark]),
            ("client", of_clients.broken),
            ("topic", of_topics.broken),
            ("more", _headless(more, int(np.searchsorted(more, kept)), excused, of_clients, of_topics)),
        ],
    )


def _client_groups(clients: npt.NDArray[Any], heads: Indices, more: Indices) -> _Groups:
    records = clients[heads]
    sane = (records["id"] != 0) & (records["identity"] <= layout.IDENTITY_ANONYMOUS)
    total = np.zeros(len(heads), np.int64)
    for name, full in (
        ("client_id_length", "client_id_full"),
        ("user_length", "user_full"),
        ("address_length", None),
        ("subject_length", None),
    ):
        length = np.where(records[name] == layout.LENGTH_NONE, 0, records[name])
        sane &= length <= layout.NAME_MAX
        if full is not None:
            sane &= records[full] >= length
        total += length
    return _complete(heads, sane, total, more, len(clients))


def _topic_groups(topics: npt.NDArray[Any], heads: Indices, more: Indices) -> _Groups:
    records = topics[heads]
    stored = records["stored"].astype(np.int64)
    sane = (records["id"] != 0) & (stored <= layout.NAME_MAX) & (records["full"] >= stored)
    return _complete(heads, sane, stored, more, len(topics))


def _complete(
    heads: Indices, sane: npt.NDArray[np.bool_], size: npt.NDArray[np.int64], more: Indices, slots: int
) -> _Groups:
    """Tell which heads have all the TW_MORE slots they need, right after them."""
    needed = np.where(sane, -(-size // layout.MORE_BYTES), 0)
    ranks = np.searchsorted(more, heads)
    # The group's last slot is where it should be only if all between are TW_MORE too.
    last = np.minimum(ranks + needed - 1, len(more))
    whole = sane & ((needed == 0) | (np.append(more, -1)[last] == heads + needed))
    broken = heads[~whole]
    pending = None
    if len(heads) and sane[-1] and not whole[-1] and len(more) - ranks[-1] == slots - 1 - heads[-1]:
        pending, broken = int(heads[-1]), broken[:-1]
    return _Groups(heads[whole], ranks[whole], needed[whole], broken, pending)


def _headless(more: Indices, count: int, excused: int, *kinds: _Groups) -> Indices:
    """Return which of the first `count` TW_MORE slots belong to nothing, but for the first `excused`."""
    if excused + sum(int(groups.needed.sum()) for groups in kinds) == count:
        return more[:0]
    steps = np.zeros(len(more) + 1, np.int64)
    steps[0] += excused > 0
    steps[excused] -= excused > 0
    for groups in kinds:
        np.add.at(steps, groups.ranks, 1)
        np.add.at(steps, groups.ranks + groups.needed, -1)
    headless: Indices = more[:count][np.cumsum(steps[:count]) == 0]
    return headless


def _read_topics(records: npt.NDArray[Any], ranks: Indices, body: bytes) -> list[Resource]:
    columns = (ranks * layout.MORE_BYTES, records["stored"], records["full"])
    return [
        _topic(body[start : start + stored], full)
        for start, stored, full in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _topic(name: bytes, full: int) -> Resource:
    try:
        return Resource(ResourceKind.TOPIC, name.decode(), full)
    except UnicodeDecodeError:
        # A byte that is not UTF-8 counts as the three that its stand-in takes, or a cut name would look whole.
        text = _text(name)
        return Resource(ResourceKind.TOPIC, text, len(text.encode("utf-8", "surrogatepass")) + full - len(name))


def _read_clients(records: npt.NDArray[Any], ranks: Indices, body: bytes, broker: str) -> list[Client]:
    columns = (
        ranks * layout.MORE_BYTES,
        records["identity"],
        records["client_id_full"],
        records["user_full"],
        records["port"],
        *(records[name] for name in ("client_id_length", "user_length", "address_length", "subject_length")),
    )
    clients = []
    for start, identity, client_id_full, user_full, port, *lengths in zip(*(c.tolist() for c in columns), strict=True):
        names: list[bytes | None] = []
        for length in lengths:
            if length == layout.LENGTH_NONE:
                names.append(None)
            else:
                names.append(body[start : start + length])
                start += length
        client_id, user, address, subject = names
        clients.append(
            Client(
                broker,
                "mqtt",
                "" if client_id is None else _possibly_cut(client_id, client_id_full),
                user=None if user is None else _possibly_cut(user, user_full),
                address=None if address is None else _text(address),
                port=port or None,
                tls_subject=None if subject is None else _text(subject),
                identity=_IDENTITIES[identity],
            )
        )
    return clients


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _possibly_cut(name: bytes, full: int) -> str:
    """Return the name; one that was cut ends with its full length, which no whole name of that size can imitate.

    So a policy's exact name never matches a longer one that begins alike.
    """
    return _text(name) if full == len(name) else f"{_text(name)}… ({full} bytes)"
