/* The clients and topics the ring's readers have been told of: bounded caches from names to ring identifiers. */
#ifndef TOPICWARDEN_NAMES_H
#define TOPICWARDEN_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "topicwarden_wire.h"

struct mosquitto;

#define TW_ADDRESS_MAX 255
#define TW_SUBJECT_MAX TW_NAME_MAX

/* Who a client is, copied, because the broker frees a refused client's names before we know that it was refused. */
struct tw_who {
    const char *id, *user;              /* NULL: none; else they point into the buffers below */
    const char *id_at, *user_at;        /* where the broker has them; for comparing, never for reading */
    uint64_t digest;                    /* of both in full, when they are long */
    size_t id_length, user_length;      /* full lengths */
    size_t id_stored, user_stored;      /* what of them is copied */
    bool has_address, has_subject;
    uint8_t protocol_version, transport;
    uint16_t port;                      /* 0: not known */
    size_t address_length, subject_length;
    char id_copy[TW_NAME_MAX + 1], user_copy[TW_NAME_MAX + 1];
    char address[TW_ADDRESS_MAX + 1], subject[TW_SUBJECT_MAX + 1];
};

/* One client context of the broker. Contexts are reused at once for other clients, so every use checks the names. */
struct tw_client_entry {
    const struct mosquitto *context;    /* NULL: free */
    const char *id_at, *user_at;        /* where the names lay when last compared in full */
    uint64_t position;                  /* of its announcement in the ring */
    uint64_t digest;                    /* of both names, when they are too long to be kept */
    uint32_t ring_id;
    uint32_t id_length, user_length;
    uint32_t reloads;                   /* how many of the broker's reloads it has been checked at */
    uint32_t used;                      /* for choosing whom to forget */
    uint8_t identity;                   /* enum tw_identity */
    bool connected;
    bool has_user;
    bool has_names;                     /* `names` holds both */
    uint16_t port;                      /* as announced */
    char names[64];
};

/* Allocates the caches; false when there is no memory. */
bool tw_names_setup(void);
void tw_names_close(void);

/* Takes a copy of what the broker knows about the client; the port is not known. */
void tw_who_copy(struct tw_who *who, struct mosquitto *client);

/* The context's entry if it is the same client, else NULL. */
struct tw_client_entry *tw_client_find(struct mosquitto *client);
/* Announces the client and gives its context an entry, forgetting whoever had that context before. `who->id` is set. */
struct tw_client_entry *tw_client_new(const struct mosquitto *client, const struct tw_who *who,
                                      enum tw_identity identity);
/* Its ring identifier, announced again when it has become too old. */
uint32_t tw_client_ring_id(struct tw_client_entry *entry, struct mosquitto *client);
/* Announces the client again when it has come back from another port. */
void tw_client_moved(struct tw_client_entry *entry, struct mosquitto *client, uint16_t port);
/* Announces a client that has no entry (a refused login). */
uint32_t tw_client_announce(const struct tw_who *who, enum tw_identity identity);
/* Whether a connected client was ever forgotten to make room: then "never seen" does not mean "new". */
bool tw_client_forgotten(void);

uint32_t tw_topic_ring_id(const char *topic);

#endif
