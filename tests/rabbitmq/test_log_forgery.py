"""Names made to deceive, in the node's own words: what is read is the truth, or in doubt, and never a wrong truth."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.rabbitmq import log_rendering as rendering
from tests.rabbitmq.log_rendering import CONNECTION, PID, Names
from topicwarden.events import NO_RESOURCE, Resource, ResourceKind
from topicwarden_collectors.rabbitmq.log_facts import (
    ConnectionAccepted,
    Fact,
    LoginRefused,
    Refused,
    Suspicious,
    UserAuthenticated,
)
from topicwarden_collectors.rabbitmq.log_messages import LogJoiner, LogMessage, facts
from topicwarden_collectors.rabbitmq.log_spelling import Spelling

FRAGMENTS = (
    "'", "' ", "a", "admin", "prod", "\n", " - ", "é", "\u2028", '"', "\\", "x\x00",
    "): user '", "', user: '", ", vhost: '",
    "'), channel 9:\noperation queue.declare caused a channel exception ", "access_refused: ", "not_found: no",
    "access to queue '", "access to topic '", "' in exchange '", "' in vhost '", "' refused for user '",
    "', backend b returned an error: ", "' authenticated and granted access to vhost '", "' updated secret, reason: ",
    "' - invalid credentials", ", state: starting):\nPLAIN login refused: user '", "', state: opening):\n", "vhost ",
    " not found", "', state: running), channel 1:\n ", "', authentication failed: ", "': virtual host '",
    "' does not exist",
    "': virtual host access not allowed", "': authentication failed", ": this user's access is restricted to localhost",
    " of user '", "': asked to update secret, reason: ", " has a client-provided name: ", ", client id: ",
)  # fmt: skip
LEISURELY = settings(deadline=None)
"""Other work on the machine is no failure."""
hostile = st.lists(st.sampled_from(FRAGMENTS), max_size=7).map("".join)
plain = st.sampled_from(("alice", "prod", "q", "it's", "amq.topic", "Ω"))
names = st.builds(Names, *[plain | hostile] * 5)


def read(text: str, spelling: Spelling = Spelling.BYTES) -> Fact | None:
    """Return the one fact of a message beside the suspicion that goes with a doubt."""
    found = facts(LogMessage(1, "error", text, "", PID), spelling)
    clear = [fact for fact in found if not isinstance(fact, Suspicious)]
    assert len(clear) <= 1
    if clear and getattr(clear[0], "ambiguous", False):
        assert [type(fact) for fact in found] == [type(clear[0]), Suspicious]
    return clear[0] if clear else None


def check_refused(text: str, who: Names, resource: Resource, method: str | None) -> None:
    """Assert that a refusal is read as it is, or in doubt."""
    fact = read(text)
    assert isinstance(fact, Refused)
    assert fact.connection == (CONNECTION if method else None)
    if fact.ambiguous:
        assert fact.resource == NO_RESOURCE
        assert fact.quoted_user in (None, who.user)
        assert fact.vhost in (None, who.vhost)
    else:
        assert (fact.resource, fact.quoted_user, fact.vhost) == (resource, who.user, who.vhost)
        assert fact.operation == method


@LEISURELY
@given(names, st.sampled_from(("queue", "exchange")))
@example(Names("alice", "prod", "x' in vhost 'prod' refused for user 'admin", "", ""), "queue")
def test_a_refused_queue_or_exchange(who: Names, kind: str) -> None:
    method = "queue.declare" if kind == "queue" else "basic.publish"
    text = rendering.channel_error(who, method, "access_refused", rendering.access(who, kind))
    resource = Resource(ResourceKind.QUEUE if kind == "queue" else ResourceKind.EXCHANGE, who.name)
    check_refused(text, who, resource, method)


@LEISURELY
@given(names)
@example(Names("alice", "prod", "x' in exchange 'y", "z", ""))
def test_a_refused_topic(who: Names) -> None:
    text = rendering.channel_error(who, "basic.publish", "access_refused", rendering.topic_access(who))
    check_refused(text, who, Resource(ResourceKind.KEY, who.name, within=who.within), "basic.publish")


@LEISURELY
@given(names)
def test_a_topic_refused_to_an_mqtt_client(who: Names) -> None:
    check_refused(rendering.mqtt_topic(who), who, Resource(ResourceKind.KEY, who.name, within=who.within), None)


@LEISURELY
@given(names)
def test_an_explanation_we_do_not_know_names_nothing(who: Names) -> None:
    """A consumer tag ends one; so whatever ends like a refusal need not be one."""
    text = rendering.channel_error(
        who, "basic.consume", "precondition_failed", f"unknown consumer tag '{rendering.spelled(who.name)}'"
    )
    fact = read(text)
    assert isinstance(fact, Refused)
    assert fact.resource == NO_RESOURCE
    assert fact.ambiguous or (fact.quoted_user, fact.vhost) == (who.user, who.vhost)


@LEISURELY
@given(names)
def test_a_user_id_that_is_not_ones_own(who: Names) -> None:
    claimed, actual = rendering.spelled(who.name), rendering.spelled(who.user)
    claim = f"user_id property set to '{claimed}' but authenticated user was '{actual}'"
    fact = read(rendering.channel_error(who, "basic.publish", "precondition_failed", claim))
    assert isinstance(fact, Refused)
    if not fact.ambiguous:
        assert (fact.reason, fact.quoted_user, fact.vhost) == ("user_id", who.user, who.vhost)


@LEISURELY
@given(names)
@example(Names("alice", "prod", "", "", "x): user 'admin' authenticated and granted access to vhost '/"))
def test_who_logged_in(who: Names) -> None:
    fact = read(rendering.authenticated(who))
    if fact is None:
        return  # it may be another message that begins alike; a suspicion says so
    assert isinstance(fact, UserAuthenticated)
    assert fact.connection == CONNECTION
    assert fact.ambiguous or (fact.quoted_user, fact.vhost) == (who.user, who.vhost)


@LEISURELY
@given(names)
@example(Names("alice", "prod", "x' authenticated and granted access to vhost 'secret'", "", ""))
def test_a_new_secret_is_never_taken_for_a_login(who: Names) -> None:
    fact = read(rendering.secret_updated(who))
    assert fact is None or (isinstance(fact, UserAuthenticated) and fact.ambiguous)


@LEISURELY
@given(names)
def test_a_refused_login_names_who_the_client_said_it_was(who: Names) -> None:
    fact = read(rendering.login_refused(who))
    if fact is None:
        return
    assert isinstance(fact, LoginRefused)
    assert fact.connection == CONNECTION
    assert fact.ambiguous or fact.quoted_user in (who.user, None)
    assert fact.vhost is None


@LEISURELY
@given(names, st.sampled_from((rendering.vhost_refused, rendering.vhost_missing)))
def test_a_refused_virtual_host(who: Names, render: object) -> None:
    assert callable(render)
    fact = read(render(who))
    if fact is None:
        return
    assert isinstance(fact, LoginRefused)
    assert fact.connection == CONNECTION
    if not fact.ambiguous and fact.reason in ("vhost", "no such vhost"):
        assert fact.vhost == who.vhost
        assert fact.quoted_user in (who.user, None)


@LEISURELY
@given(names)
def test_a_clients_mistake_is_never_taken_for_a_refused_login(who: Names) -> None:
    assert read(rendering.hard_error(who)) is None


@LEISURELY
@given(names, st.sampled_from(("credentials", "vhost", "no such vhost", "loopback")))
def test_a_refused_mqtt_login_and_its_connection(who: Names, why: str) -> None:
    joiner = LogJoiner(Spelling.BYTES)
    assert not joiner.feed(LogMessage(1, "error", rendering.mqtt_login(who, why), "", PID))
    closing = f"MQTT connection {CONNECTION} is closing due to an authentication failure"
    found = [fact for fact in joiner.feed(LogMessage(2, "error", closing, "", PID)) if isinstance(fact, LoginRefused)]
    assert len(found) == 1
    assert found[0].connection == CONNECTION
    if not found[0].ambiguous:
        assert (found[0].quoted_user, found[0].reason) == (who.user, why)
        assert found[0].vhost == (who.vhost if why == "no such vhost" else None)


@LEISURELY
@given(names)
def test_logins_whose_only_name_is_the_users_are_never_in_doubt(who: Names) -> None:
    for render in (rendering.stomp_login, rendering.http_denied):
        joiner = LogJoiner(Spelling.BYTES)
        found = [*joiner.feed(LogMessage(1, "warning", render(who), "", PID)), *joiner.flush()]
        assert [(type(fact), getattr(fact, "quoted_user", None)) for fact in found] == [(LoginRefused, who.user)]


@LEISURELY
@given(names)
def test_an_mqtt_client_id_is_whole(who: Names) -> None:
    fact = read(rendering.mqtt_accepted(who))
    assert isinstance(fact, ConnectionAccepted)
    assert (fact.connection, fact.client_id) == (CONNECTION, who.client)


@LEISURELY
@given(names)
def test_with_the_version_unknown_a_name_beyond_ascii_is_never_guessed(who: Names) -> None:
    text = rendering.channel_error(who, "queue.declare", "access_refused", rendering.access(who, "queue"))
    fact = read(text, Spelling.UNKNOWN)
    assert isinstance(fact, Refused)
    if not fact.ambiguous:
        assert fact.resource == Resource(ResourceKind.QUEUE, who.name)
        assert who.name.isascii()
        assert who.user.isascii()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(FRAGMENTS), st.integers(1000, 4000))
def test_a_message_made_of_forms_takes_no_time(fragment: str, count: int) -> None:
    """Bounded work: whoever repeats our words thousands of times is in doubt at once."""
    who = Names(fragment * count, "', user: '" * count, fragment * count, fragment * count, fragment * count)
    read(rendering.channel_error(who, "a.b", "access_refused", rendering.topic_access(who)))
    for render in (rendering.mqtt_topic, rendering.authenticated, rendering.vhost_refused):
        read(render(who))
