/* Turns the broker's callbacks into events.
 *
 * The broker tells no plugin what it decided, but it calls us in a fixed order, which says the same. Seen in the
 * sources of 2.0.11 to 2.0.22 and 2.1.2, and proved against their logs by tests/mosquitto:
 *   publish: ACL check (write), then at once, only when allowed, MESSAGE with the very same topic string;
 *   login:   BASIC_AUTH, then, only when refused, at once DISCONNECT of the same context;
 *            in 2.1 an accepted one is followed by CONNECT, after whatever the take-over of a session brings;
 *   will:    DISCONNECT, then ACL check (write) on the same context, never MESSAGE.
 * So a decision is settled by the callback after it, whatever that is, or by the broker's next tick. */
#ifndef TOPICWARDEN_OBSERVE_H
#define TOPICWARDEN_OBSERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "broker_api.h"
#include "topicwarden_wire.h"

struct tw_scope {                       /* what is seen of the clients of one set of options */
    bool acl, auth;
};

void tw_observe_setup(bool entropy);
/* Says what is still undecided; called before anything else happens and when the broker's loop comes round. */
void tw_observe_settle(void);
void tw_observe_tick(void);
/* The broker read its configuration again; it will check the logins of those connected once more. */
void tw_observe_reload(void);

void tw_observe_write(const struct mosquitto_evt_acl_check *check, struct tw_scope scope);
/* `verdict`: outcome | certainty << 4, as far as it is known when the check begins. */
void tw_observe_subscription(const struct mosquitto_evt_acl_check *check, struct tw_scope scope, uint8_t verdict);
void tw_observe_read(const struct mosquitto_evt_acl_check *check, struct tw_scope scope, uint8_t verdict);
/* The check being made was allowed because nobody had anything against it. */
void tw_observe_nobody_objects(void);
/* 2.1: the subscription just checked was made, or ended. */
void tw_observe_subscribed(const struct mosquitto *client);
void tw_observe_message(const struct mosquitto_evt_message *message, struct tw_scope scope);

/* `identity`: what an accepted login with a user name amounts to, unless nothing vouches for it. */
void tw_observe_login(struct mosquitto *client, enum tw_identity identity);
/* The login being checked has a user name that nothing vouches for, and we give the answer the broker would give. */
void tw_observe_unvouched(bool allowed);
/* 2.1: the client is connected. */
void tw_observe_connected(struct mosquitto *client, struct tw_scope scope);
void tw_observe_disconnect(struct mosquitto *client, struct tw_scope scope);

#define TW_VERDICT(outcome, certainty) ((uint8_t)((outcome) | (certainty) << 4))

#endif
