"""The rules of joining, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from topicwarden.events import Client, Dialled, Endpoint, Executed, Exited, Process
from topicwarden.hosts.join import Attribution, BrokerPlace, Joiner, SessionJoin, Sureness
from topicwarden.hosts.join_places import same_host
from topicwarden.hosts.processes import ProcessTable

SECOND = 1_000_000_000
SKEW = 2 * SECOND
BROKER = Endpoint("10.0.0.1", 1883)
PEER = Endpoint("10.0.0.7", 51432)
PLACE = BrokerPlace("gateway", ["10.0.0.1"], [1883])


class Scene:
    """A joiner, with short words for what it is told; times are in seconds."""

    def __init__(self, **options: Any) -> None:
        self.table = ProcessTable()
        options.setdefault("brokers", {"plant": PLACE})
        self.joiner = Joiner(self.table, skew_ns=SKEW, **options)

    def run(self, pid: int, *arguments: str, at: float = 0, host: str = "ci-1", user: str = "ci") -> None:
        process = Process(host, pid, f"/usr/bin/{arguments[0]}", arguments, user=user)
        self.table.executed(Executed(int(at * SECOND), process))

    def exit(self, pid: int, at: float, host: str = "ci-1") -> None:
        self.table.exited(Exited(int(at * SECOND), host, pid))

    def dial(
        self,
        at: float,
        pid: int | None = 7,
        local: Endpoint | None = PEER,
        remote: Endpoint = BROKER,
        host: str = "ci-1",
        lasts: float | None = None,
        **more: Any,
    ) -> Dialled:
        duration = None if lasts is None else int(lasts * SECOND)
        event = Dialled(int(at * SECOND), host, remote, local, pid, duration_ns=duration, **more)
        self.joiner.dialled(event)
        return event

    def session(self, at: float, client: Client | None = None, *, began: bool = True) -> None:
        self.joiner.session(client or CLIENT, int(at * SECOND), int(at * SECOND), began=began)

    def ask(self, at: float, client: Client | None = None, *words: str) -> Attribution | None:
        return self.joiner.process_of(client or CLIENT, int(at * SECOND), words=words)

    def exact(self, at: float, client: Client | None = None) -> int | None:
        """Return the process number that is surely behind it."""
        found = self.ask(at, client)
        return found.process.pid if found is not None and found.sureness is Sureness.EXACT else None

    def likeliest(self, at: float, client: Client | None = None, *words: str) -> tuple[int, int] | None:
        """Return the likeliest process number and the number of candidates of a weak join."""
        found = self.weak(at, client, *words)
        return None if found is None else found[:2]

    def weak(self, at: float, client: Client | None = None, *words: str) -> tuple[int, int, str] | None:
        """Return the likeliest process number, the number of candidates and the reason."""
        found = self.ask(at, client, *words)
        if found is None:
            return None
        assert found.sureness is Sureness.WEAK, found
        return found.process.pid, found.candidates, found.reason


def client(address: str = PEER.address, port: int | None = PEER.port, **more: Any) -> Client:
    return Client(**{"broker": "plant", "protocol": "mqtt", "client_id": "probe"} | more, address=address, port=port)


CLIENT = client()


def test_the_same_address_and_port_at_the_same_time_is_exact() -> None:
    scene = Scene()
    scene.run(7, "mosquitto_pub", "-t", "c2/beacon", at=9.9)
    event = scene.dial(10)
    scene.session(10.003)
    assert scene.ask(30) == Attribution(
        Process("ci-1", 7, "/usr/bin/mosquitto_pub", ("mosquitto_pub", "-t", "c2/beacon"), user="ci"),
        Sureness.EXACT,
        "same connection 10.0.0.7:51432, 3 ms apart",
        event.time_ns,
        BROKER,
        PEER,
    )
    join = scene.joiner.session_of(event)
    assert isinstance(join, SessionJoin)
    assert (join.session.client, join.sureness) == (CLIENT, Sureness.EXACT)
    assert join.reason == "same connection 10.0.0.7:51432, 3 ms apart"


def test_nothing_is_joined_before_both_sides_told() -> None:
    scene = Scene()
    assert scene.ask(10) is None
    scene.session(10)
    assert scene.ask(10) is None
    event = Dialled(10 * SECOND, "ci-1", BROKER, PEER, 7)
    assert scene.joiner.session_of(event) is None
    scene.joiner.dialled(event)
    assert scene.exact(10) == 7
    assert scene.joiner.session_of(event) is not None


def test_spellings_of_addresses_do_not_matter() -> None:
    scene = Scene(brokers={"plant": BrokerPlace(addresses=["::ffff:10.0.0.1"], ports=[1883])})
    scene.dial(10, local=Endpoint("::ffff:10.0.0.7", 51432), remote=Endpoint("64:ff9b::a00:1", 1883))
    assert scene.exact(10, client("[::FFFF:10.0.0.7]")) == 7


@pytest.mark.parametrize("off", [-2.0, -1.0, 0.0, 2.0, 7.0])
def test_a_session_that_began_within_skew_and_set_up_is_exact(off: float) -> None:
    scene = Scene()
    scene.dial(100)
    scene.session(100 + off)
    assert scene.exact(100 + off) == 7
    assert scene.exact(5000) == 7


def test_a_session_before_its_connection_is_none() -> None:
    scene = Scene()
    scene.dial(100)
    scene.session(97.9)
    assert scene.ask(97.9) is None


def test_a_session_long_after_a_connection_whose_end_is_not_known_is_weak() -> None:
    scene = Scene()
    scene.dial(100)
    scene.session(110)
    found = scene.weak(110)
    assert found is not None
    assert "not seen to begin with the connection" in found[2]


def test_a_session_while_a_connection_is_known_to_be_held_is_exact() -> None:
    scene = Scene()
    scene.dial(100, lasts=3600)
    scene.session(1000, began=False)
    assert scene.exact(1000) == 7


def test_a_session_after_the_end_of_a_connection_is_none() -> None:
    scene = Scene()
    scene.dial(100, lasts=0.02)
    scene.session(103)
    assert scene.ask(103) is None


def test_a_session_after_the_end_of_the_connections_process_is_none() -> None:
    scene = Scene()
    scene.run(7, "mosquitto_pub", at=99)
    scene.dial(100)
    scene.session(120)
    assert scene.weak(120) is not None
    scene.exit(7, 101)
    assert scene.ask(120) is None


def test_a_process_that_has_ended_is_still_behind_what_it_did() -> None:
    scene = Scene()
    scene.run(7, "mosquitto_pub", at=99)
    scene.dial(100)
    scene.exit(7, 100.02)
    scene.run(7, "sleep", at=100.1)
    scene.session(100.01)
    found = scene.ask(100.01)
    assert found is not None
    assert (found.sureness, found.process.executable) == (Sureness.EXACT, "/usr/bin/mosquitto_pub")


def test_a_port_that_is_used_again_belongs_to_the_later_process_from_then_on() -> None:
    scene = Scene()
    scene.dial(100, 7)
    scene.session(100)
    scene.dial(200, 8)
    scene.session(200)
    assert [scene.exact(time) for time in (100, 150, 197, 200, 300)] == [7, 7, 7, 8, 8]
    # Clocks may be apart: so near to the change it could be either.
    assert scene.likeliest(199) == (8, 2)


def test_a_later_session_whose_beginning_was_lost_is_not_taken_for_the_one_before() -> None:
    scene = Scene()
    scene.dial(100, 7)
    scene.session(100)
    scene.dial(200, 8)
    assert scene.likeliest(201) == (8, 2)
    assert scene.exact(203) == 8
    assert scene.likeliest(300) == (8, 1)


def test_another_client_from_the_same_port_is_another_session() -> None:
    scene = Scene()
    scene.dial(100, 7)
    scene.session(100)
    found = scene.weak(500, client(client_id="other"))
    assert found is not None


def test_two_processes_from_the_same_end_within_the_skew_are_weak() -> None:
    scene = Scene()
    one = scene.dial(100, 7)
    scene.dial(101, 8)
    scene.session(100.1)
    found = scene.weak(100.1)
    assert found is not None
    assert found[:2] == (7, 2)
    assert "2 processes connected from there" in found[2]
    join = scene.joiner.session_of(one)
    assert join is not None
    assert join.sureness is Sureness.WEAK


def test_the_same_connection_told_by_two_sources_is_one() -> None:
    scene = Scene()
    told = [scene.dial(100, 7), scene.dial(100.05, 7, established=True), scene.dial(101, None, host=PEER.address)]
    scene.session(100.1)
    assert scene.exact(100.1) == 7
    for event in told:
        join = scene.joiner.session_of(event)
        assert join is not None
        assert join.sureness is Sureness.EXACT


def test_a_connection_of_which_no_process_is_told_has_a_session_and_no_process() -> None:
    scene = Scene()
    event = scene.dial(100, None, host=PEER.address)
    scene.session(100)
    assert scene.ask(100) is None
    join = scene.joiner.session_of(event)
    assert join is not None
    assert join.sureness is Sureness.EXACT


def test_a_connection_nobody_knows_the_process_of_casts_doubt_on_another() -> None:
    scene = Scene(brokers={})
    scene.dial(100, 7)
    scene.dial(100, None, host=PEER.address, remote=Endpoint("10.0.0.9", 8883))
    scene.session(100)
    found = scene.weak(100)
    assert found is not None
    assert "another connection from there, of a process not known" in found[2]


@pytest.mark.parametrize(
    "against",
    [
        {"established": False},
        {"transport": "udp"},
        {"remote": Endpoint("10.0.0.1", 8883)},
        {"remote": Endpoint("10.0.0.2", 1883)},
        {"remote": Endpoint("127.0.0.1", 1883)},
        {"local": Endpoint("10.0.0.7", 51433)},
        {"local": Endpoint("127.0.0.1", 51432)},
    ],
)
def test_nothing_is_joined_against_the_evidence(against: dict[str, Any]) -> None:
    scene = Scene()
    event = scene.dial(100, **against)
    scene.session(100)
    assert scene.ask(100) is None
    assert scene.joiner.session_of(event) is None


def test_of_two_connections_from_one_port_the_one_to_the_broker_counts() -> None:
    scene = Scene()
    scene.dial(100, 7)
    scene.dial(100, 8, remote=Endpoint("10.0.0.2", 1883))
    scene.session(100)
    assert scene.exact(100) == 7


def test_a_broker_by_name_may_have_any_address() -> None:
    scene = Scene(brokers={"plant": BrokerPlace(addresses=["mqtt.plant.example", "10.0.0.1"], ports=[1883])})
    scene.dial(100, remote=Endpoint("10.9.9.9", 1883))
    scene.session(100)
    assert scene.exact(100) == 7


def test_a_broker_may_be_known_by_its_network() -> None:
    scene = Scene(brokers={"plant": BrokerPlace(addresses=["10.2.0.0/16"], ports=[1883])})
    scene.dial(100, 7, remote=Endpoint("10.2.3.4", 1883))
    scene.dial(100, 8, remote=Endpoint("10.3.3.4", 1883))
    scene.session(100)
    assert scene.exact(100) == 7


LOOPED = Endpoint("127.0.0.1", 51432)


@pytest.mark.parametrize(
    ("host", "remote", "sureness"),
    [
        ("gateway", "127.0.0.1", Sureness.EXACT),
        ("gateway.plant.example", "127.0.0.1", Sureness.EXACT),
        ("gateway", "0.0.0.0", Sureness.EXACT),
        ("elsewhere", "127.0.0.1", None),
        (None, "127.0.0.1", Sureness.WEAK),
    ],
)
def test_loopback_is_exact_only_on_the_brokers_own_host(
    host: str | None, remote: str, sureness: Sureness | None
) -> None:
    scene = Scene(brokers={}, broker_hosts={} if host is None else {"plant": host})
    scene.dial(100, host="gateway", local=LOOPED, remote=Endpoint(remote, 1883))
    scene.session(100, client("127.0.0.1"))
    found = scene.ask(100, client("127.0.0.1"))
    assert (found and found.sureness) == sureness
    if sureness is Sureness.WEAK and found is not None:
        assert "on which host the broker runs is not known" in found.reason


@pytest.mark.parametrize(("host", "sureness"), [("gateway", Sureness.EXACT), (None, Sureness.WEAK)])
def test_a_hosts_own_address_to_itself_is_exact_only_on_the_brokers_own_host(
    host: str | None, sureness: Sureness
) -> None:
    scene = Scene(brokers={"plant": BrokerPlace(host, ["10.0.0.1"], [1883])})
    scene.dial(100, host="gateway", local=Endpoint("10.0.0.1", 51432))
    scene.session(100, client("10.0.0.1"))
    found = scene.ask(100, client("10.0.0.1"))
    assert found is not None
    assert found.sureness is sureness


def test_an_address_that_several_hosts_have_is_not_exact() -> None:
    scene = Scene()
    scene.dial(100, 7, local=Endpoint("172.17.0.2", 51432))
    scene.session(100, client("172.17.0.2"))
    assert scene.exact(100, client("172.17.0.2")) == 7
    scene.dial(500, 9, host="ci-2", local=Endpoint("172.17.0.2", 33333), remote=Endpoint("10.0.0.1", 443))
    found = scene.weak(100, client("172.17.0.2"))
    assert found is not None
    assert "several hosts have this address" in found[2]


def test_an_address_that_moves_to_another_host_is_one_hosts_at_a_time() -> None:
    scene = Scene()
    scene.dial(100, 7)
    scene.session(100)
    scene.dial(100 + 3 * 3600, 9, host="ci-2")
    assert scene.exact(100) == 7


def test_a_connection_whose_source_tells_no_port_is_weak() -> None:
    scene = Scene(addresses={"ci-1": ["10.0.0.7"]})
    event = scene.dial(100, local=None)
    scene.session(101)
    found = scene.weak(101)
    assert found is not None
    assert found[:2] == (7, 1)
    assert found[2].startswith("connected to 10.0.0.1:1883, 1000 ms apart; same host and server")
    join = scene.joiner.session_of(event)
    assert join is not None
    assert (join.sureness, join.session.client) == (Sureness.WEAK, CLIENT)


def test_the_addresses_of_a_host_are_learnt_from_its_connections() -> None:
    scene = Scene()
    scene.dial(100, local=None)
    scene.session(101)
    assert scene.ask(101) is None
    scene.dial(50, 9, local=Endpoint("10.0.0.7", 40000), remote=Endpoint("1.1.1.1", 443))
    assert scene.weak(101) is not None


def test_a_command_line_chooses_among_the_likely_and_makes_nothing_exact() -> None:
    scene = Scene(addresses={"ci-1": ["10.0.0.7"]})
    scene.run(7, "mosquitto_pub", "-h", "10.0.0.1", "-t", "plant/state", at=99)
    scene.run(8, "mosquitto_pub", "-h", "10.0.0.1", "-t", "c2/beacon", at=99)
    scene.run(9, "python3", "run.py", at=99)
    for pid in (7, 8, 9):
        scene.dial(100 + pid / 10, pid, local=None)
    scene.session(100.9)
    assert scene.likeliest(101) == (8, 3)
    assert scene.likeliest(101, None, "plant/state") == (7, 3)
    assert scene.likeliest(101, None, "c2/beacon") == (8, 3)


def test_what_another_source_tells_of_a_connection_excludes_it_for_others() -> None:
    scene = Scene()
    scene.dial(100, 7, local=None)
    scene.dial(100.01, 7, local=Endpoint("10.0.0.7", 40000))
    scene.session(100)
    assert scene.ask(100) is None


def test_a_network_sensor_tells_where_the_unlocated_connection_must_lead() -> None:
    scene = Scene(brokers={"plant": BrokerPlace(ports=[1883])}, addresses={"ci-1": ["10.0.0.7"]})
    scene.dial(100, 7, local=None, remote=Endpoint("10.0.0.2", 1883))
    scene.dial(100, 8, local=None)
    scene.session(100)
    assert scene.likeliest(100) == (7, 2)
    scene.dial(100, None, host=PEER.address)
    assert scene.likeliest(100) == (8, 1)


def test_loopback_without_a_port_is_weak_on_the_brokers_host() -> None:
    scene = Scene()
    event = scene.dial(100, 7, host="gateway", local=None, remote=Endpoint("127.0.0.1", 1883))
    scene.dial(100, 8, host="ci-1", local=None, remote=Endpoint("127.0.0.1", 1883))
    scene.session(100, client("127.0.0.1"))
    assert scene.likeliest(100, client("127.0.0.1")) == (7, 1)
    join = scene.joiner.session_of(event)
    assert join is not None
    assert join.sureness is Sureness.WEAK


def test_a_translated_address_is_weak() -> None:
    scene = Scene()
    event = scene.dial(100, local=Endpoint("172.17.0.2", 51432))
    scene.session(100)
    found = scene.weak(100)
    assert found is not None
    assert found[2] == "same port 51432, 0 ms apart; address translated: 172.17.0.2 to 10.0.0.7"
    join = scene.joiner.session_of(event)
    assert join is not None
    assert join.sureness is Sureness.WEAK


def test_an_address_of_another_host_is_not_a_translated_one() -> None:
    scene = Scene(addresses={"ci-2": ["10.0.0.7"]})
    scene.dial(100, local=Endpoint("10.0.0.8", 51432))
    scene.session(100)
    assert scene.ask(100) is None


def test_an_address_the_broker_saw_itself_was_not_translated() -> None:
    scene = Scene()
    scene.dial(100, local=Endpoint("10.0.0.8", 51432))
    scene.session(100)
    scene.session(100, client("10.0.0.8", client_id="eight"))
    assert scene.ask(100) is None
    assert scene.exact(100, client("10.0.0.8", client_id="eight")) == 7


def test_the_same_host_and_time_is_weak_when_even_the_port_was_translated() -> None:
    scene = Scene(addresses={"ci-1": ["10.0.0.7"]})
    event = scene.dial(100, local=Endpoint("172.17.0.2", 40000))
    scene.session(100)
    found = scene.weak(100)
    assert found is not None
    assert "same host and time only" in found[2]
    join = scene.joiner.session_of(event)
    assert join is not None
    assert join.sureness is Sureness.WEAK


def test_a_broker_that_tells_no_port_is_joined_weakly() -> None:
    scene = Scene()
    scene.dial(100)
    scene.session(100, client(port=None))
    assert scene.likeliest(100, client(port=None)) == (7, 1)


def test_a_user_alone_finds_its_only_process() -> None:
    scene = Scene()
    scene.run(7, "mosquitto_pub", "-h", "10.0.0.1", at=99)
    scene.run(8, "python3", at=99, user="root")
    scene.dial(100, None, user="ci")
    scene.session(100)
    found = scene.weak(100)
    assert found is not None
    assert found[:2] == (7, 1)
    assert "the only process of its user ci" in found[2]
    scene.run(9, "bash", at=99)
    assert scene.likeliest(100) == (7, 1)
    scene.run(10, "mosquitto_pub", "-h", "10.0.0.1", at=99)
    assert scene.ask(100) is None


def test_the_connections_own_program_is_believed_before_the_table() -> None:
    scene = Scene()
    scene.run(7, "bash", "-c", "secret stuff", at=1)
    scene.dial(100, executable="/usr/bin/mosquitto_pub", user="ci")
    scene.session(100)
    found = scene.ask(100)
    assert found is not None
    assert found.process == Process("ci-1", 7, "/usr/bin/mosquitto_pub", user="ci")


def test_a_client_without_an_address_is_none() -> None:
    scene = Scene()
    scene.session(1, client("/run/mosquitto.sock"))
    assert scene.ask(1, client("/run/mosquitto.sock")) is None
    assert list(scene.joiner.sessions()) == []


def test_what_a_broker_tells_bit_by_bit_is_one_session() -> None:
    scene = Scene()
    scene.session(10, client(client_id="", user=None), began=False)
    scene.session(10.1, client(user="ci"))
    scene.session(50, client(user="ci"), began=False)
    found = [(session.client.user, session.first_ns, session.last_ns) for session in scene.joiner.sessions()]
    assert found == [("ci", 10 * SECOND, 50 * SECOND)]


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    scene = Scene(capacity=10)
    for number in range(25):
        scene.dial(number, local=Endpoint("10.0.0.7", 1000 + number))
        scene.session(number, client(port=1000 + number))
    assert scene.joiner.dropped == 30
    assert scene.exact(24, client(port=1024)) == 7
    assert scene.ask(1, client(port=1001)) is None


def test_what_is_asked_for_is_kept() -> None:
    scene = Scene(capacity=10)
    scene.dial(0, local=Endpoint("10.0.0.7", 1))
    scene.session(0, client(port=1))
    for number in range(1, 25):
        scene.dial(number, local=Endpoint("10.0.0.7", 1000 + number))
        scene.session(number, client(port=1), began=False)
        assert scene.exact(number, client(port=1)) == 7


def test_what_is_too_old_is_dropped() -> None:
    scene = Scene(keep_ns=100 * SECOND)
    scene.dial(0)
    scene.session(0)
    scene.dial(200, local=Endpoint("10.0.0.7", 1))
    scene.session(200, client(port=1))
    assert scene.joiner.dropped == 2


def test_a_port_used_again_and_again_stays_bounded() -> None:
    scene = Scene()
    for number in range(500):
        scene.dial(100 + number / 1000, number)
        scene.session(100 + number / 1000, client(client_id=f"c-{number}"))
    found = scene.weak(100.5, client(client_id="c-499"))
    assert found is not None
    assert "more than 64 connections" in found[2]
    assert sum(1 for _ in scene.joiner.sessions()) <= 64


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ci-1", "CI-1", True),
        ("ci-1", "ci-1.example", True),
        ("ci-1.example", "ci-1.test", False),
        ("ci-1", "ci-2", False),
    ],
)
def test_hosts_are_the_same_with_or_without_their_domain(one: str, other: str, same: bool) -> None:
    assert same_host(one, other) is same
    assert same_host(other, one) is same


def test_clocks_cannot_be_less_than_nothing_apart() -> None:
    with pytest.raises(ValueError, match="-1"):
        Joiner(ProcessTable(), skew_ns=-1)
