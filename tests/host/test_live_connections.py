"""Each connection that this machine makes is told once, with its process if that became known."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from topicwarden.events import Dialled, Endpoint
from topicwarden_collectors.host.live_connections import MAX_TOLD, SCANS, LiveConnections, Told
from topicwarden_collectors.host.sock_diag import State, TcpSocket

SECOND = 10**9
OWN = 77
BROKER = "10.0.0.9"


def sock(
    cookie: int = 1,
    *,
    port: int = 40_000,
    remote_port: int = 1883,
    local: str = "10.0.0.7",
    remote: str = BROKER,
    inode: int | None = None,
    state: State = State.ESTABLISHED,
) -> TcpSocket:
    inode = 1000 + cookie if inode is None else inode
    return TcpSocket(state, local, port, remote, remote_port, cookie, inode, 1000 if inode else None)


def ended(one: TcpSocket, *, sent: int = 10, acknowledged: int = 12) -> TcpSocket:
    return one._replace(state=State.CLOSED, inode=0, uid=None, sent=sent, acknowledged=acknowledged)


def table(*, ends_told: bool = True, capacity: int = 1000) -> LiveConnections:
    return LiveConnections("h", {1883, 8883}, own_pid=OWN, ends_told=ends_told, capacity=capacity)


def look(connections: LiveConnections, *sockets: TcpSocket, at: int = 0, owners: dict[int, int] | None = None) -> None:
    connections.looked(sockets, at)
    connections.owned(owners or {}, scanned=True)


def events(told: list[Told]) -> list[Dialled]:
    return [one.dialled for one in told]


def test_a_connection_is_told_with_its_process_as_soon_as_that_is_known() -> None:
    connections = table()
    connections.looked([sock()], 5)
    assert list(connections.ready(5)) == []
    assert connections.wanted() == {1001}
    connections.owned({1001: 42}, scanned=False)
    (told,) = connections.ready(6)
    assert told == Told(
        Dialled(5, "h", Endpoint(BROKER, 1883), Endpoint("10.0.0.7", 40_000), pid=42, established=True), 1000
    )
    look(connections, sock(), at=7)
    assert list(connections.ready(7)) == []
    assert list(connections.closed(ended(sock()), 8)) == []
    assert len(connections) == 0


def test_a_connection_whose_process_is_not_found_is_told_without() -> None:
    connections = table()
    for _ in range(SCANS - 1):
        look(connections, sock())
        assert list(connections.ready(1)) == []
    look(connections, sock())
    (event,) = events(list(connections.ready(1)))
    assert event.pid is None
    assert connections.wanted() == set()


def test_a_connection_that_was_never_seen_open_is_told_by_its_end_and_names_no_process() -> None:
    (told,) = table().closed(ended(sock(), sent=35), 9)
    assert told == Told(
        Dialled(9, "h", Endpoint(BROKER, 1883), Endpoint("10.0.0.7", 40_000), established=True, sent=35), None
    )


def test_a_connection_that_ends_before_its_process_was_looked_for_is_told_with_what_its_end_says() -> None:
    connections = table()
    connections.looked([sock()], 5)
    (event,) = events(list(connections.closed(ended(sock(), sent=35), 9)))
    assert (event.time_ns, event.sent, event.duration_ns, event.established) == (5, 35, 4, True)
    look(connections, at=10)
    assert list(connections.ready(10 * SECOND)) == []


def test_a_connection_being_made_is_told_when_it_stands_or_when_that_takes_long() -> None:
    connections = table()
    one = sock(state=State.SYN_SENT)
    look(connections, one, owners={1001: 42})
    assert list(connections.ready(SECOND)) == []
    look(connections, sock(), at=SECOND)
    (event,) = events(list(connections.ready(SECOND)))
    assert (event.time_ns, event.pid, event.established) == (0, 42, True)
    other = sock(2, state=State.SYN_SENT)
    look(connections, sock(), other, owners={1002: 43})
    (event,) = events(list(connections.ready(3 * SECOND)))
    assert (event.pid, event.established) == (43, None)


def test_a_connection_that_was_refused_is_told_so() -> None:
    connections = table()
    look(connections, sock(state=State.SYN_SENT), owners={1001: 42})
    look(connections, at=SECOND)
    assert list(connections.ready(SECOND)) == []
    (event,) = events(list(connections.ready(4 * SECOND)))
    assert (event.pid, event.established) == (42, False)


def test_where_ends_are_not_told_a_connection_that_is_gone_is_told_at_once() -> None:
    connections = table(ends_told=False)
    connections.looked([sock()], 0)
    connections.looked([], 1)
    (event,) = events(list(connections.ready(1)))
    assert event.established is True
    connections.looked([], 2)
    assert len(connections) == 0


def test_what_is_not_in_an_answer_that_was_cut_short_is_not_gone() -> None:
    connections = table(ends_told=False)
    connections.looked([sock()], 0)
    connections.looked([], 1, complete=False)
    assert list(connections.ready(1)) == []


def test_of_a_connection_within_this_machine_the_end_that_dialled_is_told() -> None:
    connections = table()
    connections.listening([sock(99, port=1883, local="127.0.0.1", remote_port=0, state=State.LISTEN)])
    client = sock(1, local="127.0.0.1", port=40_000, remote="127.0.0.1", remote_port=1883)
    server = sock(2, local="127.0.0.1", port=1883, remote="127.0.0.1", remote_port=40_000)
    look(connections, client, server, owners={1001: 42, 1002: 43})
    assert [one.pid for one in events(list(connections.ready(1)))] == [42]
    assert list(connections.closed(ended(server), 2)) == []


def test_a_dialler_whose_own_port_is_one_of_the_ports_is_told_from_the_broker() -> None:
    for address in ("127.0.0.1", "0.0.0.0", "::"):
        connections = table()
        connections.listening([sock(99, port=1883, local=address, remote_port=0, state=State.LISTEN)])
        client = sock(1, local="127.0.0.1", port=8883, remote="127.0.0.1", remote_port=1883)
        server = sock(2, local="127.0.0.1", port=1883, remote="127.0.0.1", remote_port=8883)
        look(connections, client, server, owners={1001: 42, 1002: 43})
        assert [one.pid for one in events(list(connections.ready(1)))] == [42]
        assert list(connections.closed(ended(server), 2)) == []


def test_a_source_port_on_another_address_than_the_broker_listens_on_hides_nobody() -> None:
    connections = table()
    connections.listening([sock(99, port=1883, local="127.0.0.1", remote_port=0, state=State.LISTEN)])
    look(connections, sock(1, local="10.0.0.7", port=1883), owners={1001: 42})
    assert [one.pid for one in events(list(connections.ready(1)))] == [42]


def test_what_we_connect_to_ourselves_is_left_out() -> None:
    connections = table()
    look(connections, sock(), owners={1001: OWN})
    assert list(connections.ready(1)) == []
    assert list(connections.closed(ended(sock()), 2)) == []


def test_what_has_no_process_any_more_is_left_to_its_end() -> None:
    """A socket in TIME_WAIT has another cookie than the connection had that it is left of."""
    connections = table()
    connections.looked([sock(5, inode=0, state=State.FIN_WAIT_2)], 0)
    assert list(connections.ready(9 * SECOND)) == []
    assert len(connections) == 0


def test_ports_that_nobody_asked_for_are_not_told() -> None:
    connections = table()
    look(connections, sock(remote_port=22))
    assert list(connections.ready(9 * SECOND)) == []
    assert list(connections.closed(ended(sock(remote_port=22)), 1)) == []


def test_what_another_source_has_told_is_not_told_again() -> None:
    connections = table()
    event = Dialled(0, "h", Endpoint(BROKER, 1883), Endpoint("10.0.0.7", 40_000), pid=42)
    assert connections.told_by_another(event)
    look(connections, sock(), at=1, owners={1001: 42})
    assert list(connections.ready(1)) == []
    assert list(connections.closed(ended(sock()), 2)) == []
    # Its port is another's from then on.
    look(connections, sock(2), at=3, owners={1002: 43})
    assert [one.pid for one in events(list(connections.ready(3)))] == [43]


def test_what_ended_before_it_was_seen_is_not_told_again_either() -> None:
    connections = table()
    connections.told_by_another(Dialled(0, "h", Endpoint(BROKER, 1883), Endpoint("10.0.0.7", 40_000), pid=42))
    assert list(connections.closed(ended(sock()), 1)) == []
    assert len(list(connections.closed(ended(sock(2)), 2))) == 1


def test_another_source_is_heard_if_it_knows_the_process_and_we_do_not() -> None:
    event = Dialled(0, "h", Endpoint(BROKER, 1883), Endpoint("10.0.0.7", 40_000), pid=42)
    known = table()
    look(known, sock(), owners={1001: 42})
    assert len(list(known.ready(1))) == 1
    assert not known.told_by_another(event)
    waiting = table()
    waiting.looked([sock()], 0)
    assert waiting.told_by_another(event)
    assert list(waiting.ready(9 * SECOND)) == []
    unknown = table()
    for _ in range(SCANS):
        look(unknown, sock())
    assert len(list(unknown.ready(1))) == 1
    assert unknown.told_by_another(event)


def test_an_end_without_a_process_waits_a_moment_for_a_source_that_may_know_it() -> None:
    event = Dialled(0, "h", Endpoint(BROKER, 1883), Endpoint("10.0.0.7", 40_000), pid=42)
    for claimed in (True, False):
        connections = LiveConnections("h", {1883}, own_pid=OWN, ends_told=True, others_tell=True)
        assert list(connections.closed(ended(sock()), 5)) == []
        assert list(connections.ready(6)) == []
        if claimed:
            assert connections.told_by_another(event)
            assert list(connections.ready(SECOND)) == []
        else:
            (late,) = events(list(connections.ready(SECOND)))
            assert (late.time_ns, late.pid) == (5, None)
    look(connections, sock(2), owners={1002: 43})
    assert len(list(connections.ready(1))) == 1


def test_a_source_that_comes_late_with_what_was_told_is_not_heard() -> None:
    """It may look at its clock only after the end was told: seen with a helper that had to wait for a processor."""
    for dated in (3, SECOND // 2):
        connections = LiveConnections("h", {1883}, own_pid=OWN, ends_told=True, others_tell=True)
        event = Dialled(dated, "h", Endpoint(BROKER, 1883), Endpoint("10.0.0.7", 40_000), pid=42)
        look(connections, sock(), owners={1001: 42})
        assert len(list(connections.ready(1))) == 1
        assert list(connections.closed(ended(sock()), 5)) == []
        assert not connections.told_by_another(event)
        # Another connection with the same ends.
        assert connections.told_by_another(Dialled(2 * SECOND, "h", event.remote, event.local, pid=43))


def test_another_source_that_does_not_know_the_process_is_heard_only_about_ports_that_we_do_not_look_at() -> None:
    ends = Endpoint("10.0.0.7", 40_000)
    assert not table().told_by_another(Dialled(0, "h", Endpoint(BROKER, 1883), ends))
    assert table().told_by_another(Dialled(0, "h", Endpoint(BROKER, 2883), ends))
    connections = table()
    connections.told_by_another(Dialled(0, "h", Endpoint(BROKER, 1883), ends))
    assert len(list(connections.closed(ended(sock()), 1))) == 1


def test_what_other_sources_tell_is_kept_bounded() -> None:
    connections = table()
    for port in range(1, MAX_TOLD + 100):
        connections.told_by_another(Dialled(0, "h", Endpoint(BROKER, 1883), Endpoint("10.0.0.7", port), pid=42))
    assert len(connections._elsewhere) == MAX_TOLD


def test_more_connections_than_are_kept_are_counted() -> None:
    connections = table(capacity=3)
    connections.looked([sock(number) for number in range(5)], 0)
    assert (len(connections), connections.overflowed) == (3, 2)


class EachIsToldOnce(RuleBasedStateMachine):
    """Connections begin, are looked at or not, found or not, and end, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = table()
        self.open: dict[int, TcpSocket] = {}
        self.owners: dict[int, int] = {}
        self.cookie = 0
        self.now = 0
        self.told: list[Dialled] = []

    def take(self, told: list[Told]) -> None:
        self.told += events(told)

    @rule(state=st.sampled_from([State.ESTABLISHED, State.SYN_SENT]))
    def begins(self, state: State) -> None:
        self.cookie += 1
        self.open[self.cookie] = sock(self.cookie, port=self.cookie, state=state)
        self.owners[1000 + self.cookie] = 5000 + self.cookie

    @rule(seconds=st.integers(0, 4))
    def time_goes_by(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(found=st.booleans())
    def is_looked_at(self, found: bool) -> None:
        self.connections.looked(list(self.open.values()), self.now)
        self.connections.owned(self.owners if found else {}, scanned=True)
        self.take(list(self.connections.ready(self.now)))

    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        if self.open:
            cookie = data.draw(st.sampled_from(sorted(self.open)))
            self.take(list(self.connections.closed(ended(self.open.pop(cookie)), self.now)))

    @invariant()
    def each_is_told_once_and_its_process_is_its_own(self) -> None:
        ports = [one.local.port for one in self.told if one.local is not None]
        assert len(ports) == len(set(ports))
        assert all(one.pid in (None, 5000 + port) for one, port in zip(self.told, ports, strict=True))

    def teardown(self) -> None:
        for cookie in sorted(self.open):
            self.take(list(self.connections.closed(ended(self.open.pop(cookie)), self.now)))
        self.is_looked_at(found=True)
        assert {one.local.port for one in self.told if one.local is not None} == set(range(1, self.cookie + 1))
        self.now += 10 * SECOND
        self.connections.looked([], self.now)
        self.connections.looked([], self.now + 10 * SECOND)
        assert len(self.connections) == 0


TestEachIsToldOnce = EachIsToldOnce.TestCase
TestEachIsToldOnce.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from(list(State))), max_size=30))
def test_whatever_the_kernel_says_raises_nothing_and_grows_nothing(said: list[tuple[int, int, State]]) -> None:
    connections = table(capacity=4)
    for kind, cookie, state in said:
        one = sock(cookie, port=cookie, state=state)
        if kind == 0:
            list(connections.closed(one, cookie))
        elif kind == 1:
            connections.looked([one], cookie)
        elif kind == 2:
            connections.listening([one])
        else:
            list(connections.ready(cookie))
    assert len(connections) <= 4
