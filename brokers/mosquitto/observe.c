#include "observe.h"

#include <string.h>

#include "names.h"
#include "payload.h"
#include "peer.h"
#include "ring.h"

enum waiting_for { NOTHING, PUBLISH, SUBSCRIPTION };

/* The one thing whose outcome the next callback shows. Names are looked up when it begins: later they may be freed. */
static struct {
    enum waiting_for what;
    const struct mosquitto *context;    /* compared, never followed */
    const char *topic;                  /* the same */
    struct tw_client_entry *entry;
    struct tw_event event;              /* complete but for the verdict of a publish */
} waiting;

/* The login whose outcome we wait for; never together with the above. */
static struct {
    const struct mosquitto *context;    /* NULL: none */
    uint64_t time_ns;
    enum tw_identity identity;          /* when it is accepted and has a user name */
    enum tw_outcome known;              /* what we answered ourselves; TW_UNKNOWN: others decide */
    struct tw_who who;
} pending_login;

static struct tw_who seen_who;          /* a client seen for the first time; too big for the stack of every call */
static bool with_entropy;
static bool rechecking;                 /* between a reload and the next tick */
static bool ticks;                      /* whether this broker ticks at all (not 2.0.11 with per_listener_settings) */
static bool refused_lose_id;            /* seen: this broker takes a refused client's id away (2.0.11 and 2.0.12) */
static uint32_t reloads;

void tw_observe_setup(bool entropy) {
    memset(&waiting, 0, sizeof waiting);
    memset(&pending_login, 0, sizeof pending_login);
    with_entropy = entropy;
    rechecking = false;
    ticks = false;
    refused_lose_id = false;
    reloads = 0;
    tw_payload_setup();
}

static void write_plain(enum tw_action action, uint32_t client, uint8_t verdict, uint64_t time_ns) {
    struct tw_event event = {
        .action = (uint8_t)action, .verdict = verdict, .delivery = TW_DELIVERY_QOS_MASK, .client = client,
        .time_ns = time_ns, .entropy = TW_ENTROPY_UNKNOWN,
    };
    tw_ring_event(&event);
}

/* ---- clients ------------------------------------------------------------------------------------------------ */

/* A client whose login we did not see. Where logins are seen, that is one whose certificate or key the broker took for
 * its name (use_identity_as_username), or who authenticated by another method; a bridge has no login either. */
static struct tw_client_entry *first_sight(struct mosquitto *client, struct tw_scope scope, bool bridge) {
    tw_who_copy(&seen_who, client);
    enum tw_identity identity = seen_who.user ? TW_IDENTITY_UNKNOWN : TW_IDENTITY_ANONYMOUS;
    bool connected = seen_who.has_address || bridge;
    if(!connected || tw_client_forgotten() || bridge) identity = TW_IDENTITY_UNKNOWN;
    else if(scope.auth && seen_who.user) identity = TW_IDENTITY_VERIFIED;
    if(connected) seen_who.port = tw_peer_port(client, mosquitto_client_address(client), !tw_client_forgotten());
    struct tw_client_entry *entry = tw_client_new(client, &seen_who, identity);
    entry->reloads = reloads;
    entry->connected = connected;       /* without an address: a stored session whose client is away */
    return entry;
}

static void write_connect(struct tw_client_entry *entry, struct mosquitto *client, enum tw_certainty certainty) {
    write_plain(TW_ACTION_CONNECT, tw_client_ring_id(entry, client), TW_VERDICT(TW_ALLOWED, certainty), tw_now());
}

/* A client whose entry says that it was away is there again, without a login that we saw: on another connection. */
static void came_back(struct tw_client_entry *entry, struct mosquitto *client, enum tw_certainty certainty) {
    entry->connected = true;
    tw_client_moved(entry, client, tw_peer_port(client, mosquitto_client_address(client), true));
    write_connect(entry, client, certainty);
}

/* The entry of a client that is acting now. */
static struct tw_client_entry *acting(struct mosquitto *client, struct tw_scope scope, bool bridge) {
    struct tw_client_entry *entry = tw_client_find(client);
    if(entry && entry->connected) return entry;
    if(entry) {
        came_back(entry, client, TW_INFERRED);
        return entry;
    }
    entry = first_sight(client, scope, bridge);
    if(entry->connected && !tw_client_forgotten()) write_connect(entry, client, TW_INFERRED);
    return entry;
}

/* ---- settling ----------------------------------------------------------------------------------------------- */

static void settle_login(enum tw_outcome outcome, enum tw_certainty certainty) {
    const struct tw_who *who = &pending_login.who;
    if(pending_login.known != TW_UNKNOWN) {
        outcome = pending_login.known;
        certainty = TW_EXACT;
    }
    enum tw_identity identity = !who->user                ? TW_IDENTITY_ANONYMOUS
                                : outcome == TW_ALLOWED   ? pending_login.identity
                                                          : TW_IDENTITY_CLAIMED;
    uint32_t client;
    if(outcome == TW_ALLOWED && who->id) {
        struct tw_client_entry *entry = tw_client_new(pending_login.context, who, identity);
        entry->reloads = reloads;
        client = entry->ring_id;
    } else {
        client = tw_client_announce(who, identity);
    }
    pending_login.context = NULL;
    write_plain(TW_ACTION_AUTHENTICATE, client, TW_VERDICT(outcome, certainty), pending_login.time_ns);
}

/* The same for a callback that is about `client` (NULL: about nobody). */
static void settle_before(const struct mosquitto *client) {
    if(pending_login.context && (!TW_BROKER_2_1 || pending_login.context == client)) settle_login(TW_ALLOWED, TW_INFERRED);
    if(waiting.what == NOTHING) return;
    /* No MESSAGE came: the publish was denied. Wills and $CONTROL never have one, so nothing is known of those. */
    if(waiting.what == PUBLISH && !(waiting.event.delivery & (TW_DELIVERY_WILL | TW_DELIVERY_CONTROL)))
        waiting.event.verdict = TW_VERDICT(TW_DENIED, TW_INFERRED);
    waiting.what = NOTHING;
    tw_ring_event(&waiting.event);
}

void tw_observe_settle(void) {
    settle_before(NULL);
}

void tw_observe_tick(void) {
    tw_observe_settle();
    ticks = true;
    rechecking = false;
    tw_ring_publish_counters();
    __atomic_store_n(&tw_ring.header->heartbeat_ns, tw_now(), __ATOMIC_RELAXED);
}

void tw_observe_reload(void) {
    tw_observe_settle();
    reloads++;
    rechecking = ticks;
    tw_ring.header->reloads = reloads;
    tw_ring_mark(TW_MARK_RELOAD, reloads);
}

/* ---- publishing and subscribing ----------------------------------------------------------------------------- */

static void describe(struct tw_event *event, enum tw_action action, uint32_t client, const char *topic, uint8_t qos,
                     bool retain) {
    memset(event, 0, sizeof *event);
    event->action = (uint8_t)action;
    event->delivery = (uint8_t)((qos & TW_DELIVERY_QOS_MASK) | (retain ? TW_DELIVERY_RETAIN : 0));
    event->client = client;
    event->topic = tw_topic_ring_id(topic);
    event->entropy = TW_ENTROPY_UNKNOWN;
    event->time_ns = tw_now();
}

static void describe_payload(struct tw_event *event, const void *payload, uint32_t length) {
    event->size = length;
    if(!with_entropy) return;
    struct tw_looks looks = tw_payload_look(payload, length);
    event->entropy = looks.entropy;
    event->shape = looks.shape;
}

void tw_observe_write(const struct mosquitto_evt_acl_check *check, struct tw_scope scope) {
    settle_before(check->client);
    struct mosquitto *client = check->client;
    struct tw_client_entry *entry = tw_client_find(client);
    if(!entry) {
        /* check_retain_source asks whether a retained message's author may still write, in the name of a client
         * that exists on the broker's stack only: no address. It is not a publish. */
        if(!mosquitto_client_address(client)) return;
        entry = acting(client, scope, false);
    }
    describe(&waiting.event, TW_ACTION_PUBLISH, tw_client_ring_id(entry, client), check->topic, check->qos,
             check->retain);
    describe_payload(&waiting.event, check->payload, check->payloadlen);
    if(!entry->connected) waiting.event.delivery |= TW_DELIVERY_WILL;
    if(check->topic[0] == '$' && strncmp(check->topic, "$CONTROL/", 9) == 0)
        waiting.event.delivery |= TW_DELIVERY_CONTROL;
    waiting.what = PUBLISH;
    waiting.context = client;
    waiting.topic = check->topic;
    waiting.entry = entry;
}

void tw_observe_message(const struct mosquitto_evt_message *message, struct tw_scope scope) {
    if(waiting.what == PUBLISH && waiting.context == message->client && waiting.topic == message->topic) {
        waiting.what = NOTHING;
        waiting.event.verdict = TW_VERDICT(TW_ALLOWED, TW_EXACT);
        if(waiting.event.delivery & TW_DELIVERY_WILL) {
            /* Only the living send messages: the same client is back on the same context (no BASIC_AUTH). */
            waiting.event.delivery &= (uint8_t)~TW_DELIVERY_WILL;
            came_back(waiting.entry, message->client, TW_INFERRED);
            waiting.event.client = waiting.entry->ring_id;
        }
        tw_ring_event(&waiting.event);
        return;
    }
    settle_before(message->client);
    struct tw_client_entry *entry = acting(message->client, scope, scope.acl);
    struct tw_event event;
    describe(&event, TW_ACTION_PUBLISH, tw_client_ring_id(entry, message->client), message->topic, message->qos,
             message->retain);
    describe_payload(&event, message->payload, message->payloadlen);
    event.verdict = TW_VERDICT(TW_ALLOWED, TW_EXACT);
    if(scope.acl) event.delivery |= TW_DELIVERY_BRIDGE;
    tw_ring_event(&event);
}

void tw_observe_subscription(const struct mosquitto_evt_acl_check *check, struct tw_scope scope, uint8_t verdict) {
    settle_before(check->client);
    struct tw_client_entry *entry = acting(check->client, scope, false);
    bool subscribe = check->access == MOSQ_ACL_SUBSCRIBE;
    describe(&waiting.event, subscribe ? TW_ACTION_SUBSCRIBE : TW_ACTION_UNSUBSCRIBE,
             tw_client_ring_id(entry, check->client), check->topic,
             subscribe ? check->qos : TW_DELIVERY_QOS_MASK, false);
    waiting.event.verdict = verdict;
    waiting.what = SUBSCRIPTION;
    waiting.context = check->client;
}

void tw_observe_nobody_objects(void) {
    if(waiting.what == SUBSCRIPTION) waiting.event.verdict = TW_VERDICT(TW_ALLOWED, TW_EXACT);
}

void tw_observe_subscribed(const struct mosquitto *client) {
    if(waiting.what == SUBSCRIPTION && waiting.context == client)
        waiting.event.verdict = TW_VERDICT(TW_ALLOWED, TW_EXACT);
    tw_observe_settle();
}

void tw_observe_read(const struct mosquitto_evt_acl_check *check, struct tw_scope scope, uint8_t verdict) {
    settle_before(check->client);
    struct tw_client_entry *entry = tw_client_find(check->client);
    if(!entry) {
        entry = first_sight(check->client, scope, false);
        if(entry->connected && !tw_client_forgotten()) write_connect(entry, check->client, TW_INFERRED);
    }
    struct tw_event event;
    describe(&event, TW_ACTION_DELIVER, tw_client_ring_id(entry, check->client), check->topic, check->qos,
             check->retain);
    describe_payload(&event, check->payload, check->payloadlen);
    event.verdict = verdict;
    tw_ring_event(&event);
}

/* ---- logins and sessions ------------------------------------------------------------------------------------ */

void tw_observe_login(struct mosquitto *client, enum tw_identity identity) {
    tw_observe_settle();
    /* After a reload the broker checks everybody's password again, connected or stored. That is no login. */
    struct tw_client_entry *entry = tw_client_find(client);
    if(entry && entry->connected && entry->reloads != reloads) {
        entry->reloads = reloads;
        return;
    }
    if(rechecking) return;
    /* Only 2.1 lets another begin before the first is decided (MOSQ_ERR_AUTH_DELAYED). */
    if(pending_login.context) settle_login(TW_UNKNOWN, TW_CERTAINTY_UNKNOWN);
    tw_who_copy(&pending_login.who, client);
    pending_login.context = client;
    pending_login.identity = identity;
    pending_login.known = TW_UNKNOWN;
    pending_login.time_ns = tw_now();
    pending_login.who.port = tw_peer_port(client, mosquitto_client_address(client), true);
}

void tw_observe_unvouched(bool allowed) {
    pending_login.identity = TW_IDENTITY_CLAIMED;
    pending_login.known = allowed ? TW_ALLOWED : TW_DENIED;
}

void tw_observe_connected(struct mosquitto *client, struct tw_scope scope) {
    if(pending_login.context == client) {
        settle_login(TW_ALLOWED, TW_EXACT);
        return;
    }
    tw_observe_settle();
    struct tw_client_entry *entry = tw_client_find(client);
    if(entry && entry->connected) return;
    if(entry) {
        came_back(entry, client, TW_EXACT);
        return;
    }
    entry = first_sight(client, scope, false);
    entry->connected = true;
    write_connect(entry, client, TW_EXACT);
}

/* The context whose login we wait for is going: because it was refused, or had it been accepted and left again before
 * anything else happened? A refusal disconnects at once, within the callback's own call; up to 2.0.12 without an id,
 * and from 2.0.13 on with it. An accepted one lives to the broker's next tick, where the broker ticks. */
static enum tw_outcome outcome_of_gone(const struct mosquitto *client, const char *id) {
    if(!id) refused_lose_id = true;
    if(pending_login.known != TW_UNKNOWN) return pending_login.known;
    if(!id || TW_BROKER_2_1) return TW_DENIED;
    if(refused_lose_id || !mosquitto_client_clean_session(client)) return TW_ALLOWED;  /* refusing sets clean session */
    return ticks ? TW_DENIED : TW_UNKNOWN;
}

void tw_observe_disconnect(struct mosquitto *client, struct tw_scope scope) {
    const char *id = mosquitto_client_id(client);
    if(pending_login.context == client) {
        enum tw_outcome outcome = outcome_of_gone(client, id);
        settle_login(outcome, outcome == TW_UNKNOWN ? TW_CERTAINTY_UNKNOWN : TW_INFERRED);
        if(outcome != TW_ALLOWED) return;
    }
    settle_before(client);
    if(!id) return;                     /* never got as far as a login: no name to report */
    struct tw_client_entry *entry = tw_client_find(client);
    if(!entry) entry = first_sight(client, scope, false);
    /* A stored session is ended once when its client goes, and again when it is taken over or expires. */
    if(!entry->connected) return;
    entry->connected = false;
    write_plain(TW_ACTION_DISCONNECT, tw_client_ring_id(entry, client), TW_VERDICT(TW_ALLOWED, TW_EXACT), tw_now());
}
