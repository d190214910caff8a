#include "names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "broker_api.h"
#include "ring.h"
#include "siphash.h"

#define TOPIC_SETS 16384u               /* x 4 = 65536 topics, 1.5 MiB */
#define TOPIC_WAYS 4u
#define CLIENT_SETS 32768u              /* x 8 = 262144 contexts; memory is touched only as they are used */
#define CLIENT_WAYS 8u
#define CLIENTS (CLIENT_SETS * CLIENT_WAYS)
#define ABSENT 0xffffu

struct topic_entry {
    uint64_t hash;
    uint64_t position;
    uint32_t ring_id;                   /* 0: free */
    uint32_t length;
};

struct client_way {
    const struct mosquitto *context;
    struct tw_client_entry *entry;
};

static struct tw_hash_key hash_key;
static struct topic_entry (*topics)[TOPIC_WAYS];
static struct client_way (*client_sets)[CLIENT_WAYS];
static struct tw_client_entry *client_entries;
static uint32_t clients_made;
static uint32_t clock_used;
static bool forgotten;
static struct tw_client_entry *last_client;

static void *reserve(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

bool tw_names_setup(void) {
    if(getrandom(&hash_key, sizeof hash_key, GRND_NONBLOCK) != (ssize_t)sizeof hash_key) {
        hash_key.low = tw_now() * 0x9e3779b97f4a7c15u;      /* early boot: still not a constant */
        hash_key.high = (uint64_t)(uintptr_t)&hash_key ^ ((uint64_t)getpid() << 40);
    }
    topics = reserve(sizeof *topics * TOPIC_SETS);
    client_sets = reserve(sizeof *client_sets * CLIENT_SETS);
    client_entries = reserve(sizeof *client_entries * CLIENTS);
    clients_made = 0;
    clock_used = 0;
    forgotten = false;
    last_client = NULL;
    if(topics && client_sets && client_entries) return true;
    tw_names_close();
    return false;
}

void tw_names_close(void) {
    if(topics) munmap(topics, sizeof *topics * TOPIC_SETS);
    if(client_sets) munmap(client_sets, sizeof *client_sets * CLIENT_SETS);
    if(client_entries) munmap(client_entries, sizeof *client_entries * CLIENTS);
    topics = NULL;
    client_sets = NULL;
    client_entries = NULL;
    last_client = NULL;
}

bool tw_client_forgotten(void) {
    return forgotten;
}

/* ---- who a client is ---------------------------------------------------------------------------------------- */

static size_t copy_name(char *to, size_t room, const char *from, size_t length) {
    if(length > room) length = room;
    memcpy(to, from, length);
    to[length] = 0;
    return length;
}

/* Cutting in the middle of a UTF-8 character would leave half of it at the end. */
static size_t cut_length(const char *text, size_t length, size_t room) {
    if(length <= room) return length;
    size_t cut = room;
    while(cut > room - 4 && ((unsigned char)text[cut] & 0xc0) == 0x80) cut--;
    return cut;
}

/* Whether an entry can hold both names with their ends. */
static bool are_short(size_t id_length, size_t user_length) {
    return id_length + user_length + 2 <= sizeof(((struct tw_client_entry *)NULL)->names);
}

static uint64_t digest_of(const char *id, size_t id_length, const char *user, size_t user_length) {
    uint64_t first = id ? tw_hash(&hash_key, id, id_length) : 1;
    uint64_t second = user ? tw_hash(&hash_key, user, user_length) : 2;
    return first ^ TW_ROTATE(second, 23);
}

void tw_who_copy(struct tw_who *who, struct mosquitto *client) {
    const char *id = mosquitto_client_id(client), *user = mosquitto_client_username(client);
    const char *address = mosquitto_client_address(client);
    who->id_length = id ? strlen(id) : 0;
    who->user_length = user ? strlen(user) : 0;
    who->id = id ? who->id_copy : NULL;
    who->user = user ? who->user_copy : NULL;
    who->id_stored = id ? copy_name(who->id_copy, cut_length(id, who->id_length, TW_NAME_MAX), id, who->id_length) : 0;
    who->user_stored =
        user ? copy_name(who->user_copy, cut_length(user, who->user_length, TW_NAME_MAX), user, who->user_length) : 0;
    who->id_at = id;
    who->user_at = user;
    who->digest =
        are_short(who->id_length, who->user_length) ? 0 : digest_of(id, who->id_length, user, who->user_length);
    who->has_address = address != NULL;
    who->address_length = address ? copy_name(who->address, TW_ADDRESS_MAX, address, strlen(address)) : 0;
    who->protocol_version = (uint8_t)mosquitto_client_protocol_version(client);
    switch(mosquitto_client_protocol(client)) {
        case mp_mqtt: who->transport = 1; break;
        case mp_websockets: who->transport = 2; break;
        default: who->transport = 0; break;
    }
    who->port = 0;
    who->has_subject = tw_certificate_subject(client, who->subject, sizeof who->subject, &who->subject_length);
}

/* ---- announcements ------------------------------------------------------------------------------------------ */

struct writer {
    struct tw_more slot;
    size_t filled;
};

static void write_bytes(struct writer *writer, const char *bytes, size_t length) {
    while(length) {
        size_t part = TW_MORE_BYTES - writer->filled;
        if(part > length) part = length;
        memcpy(writer->slot.bytes + writer->filled, bytes, part);
        writer->filled += part;
        bytes += part;
        length -= part;
        if(writer->filled == TW_MORE_BYTES) {
            tw_ring_slot(&writer->slot);
            memset(&writer->slot, 0, sizeof writer->slot);
            writer->slot.type = TW_TYPE_MORE;
            writer->filled = 0;
        }
    }
}

static void write_end(struct writer *writer) {
    if(writer->filled) tw_ring_slot(&writer->slot);
}

static uint32_t next_id(void) {
    uint32_t id = tw_ring.next_id++;
    if(tw_ring.next_id == 0) tw_ring.next_id = 1;
    return id;
}

static uint64_t more_slots(size_t bytes) {
    return (bytes + TW_MORE_BYTES - 1) / TW_MORE_BYTES;
}

uint32_t tw_client_announce(const struct tw_who *who, enum tw_identity identity) {
    size_t id_stored = who->id_stored, user_stored = who->user_stored;
    if(id_stored < who->id_length || user_stored < who->user_length) tw_ring.header->names_cut++;
    struct tw_client slot = {
        .type = TW_TYPE_CLIENT,
        .protocol_version = who->protocol_version,
        .transport = who->transport,
        .identity = (uint8_t)identity,
        .id = next_id(),
        .client_id_length = (uint16_t)(who->id ? id_stored : ABSENT),
        .user_length = (uint16_t)(who->user ? user_stored : ABSENT),
        .address_length = (uint16_t)(who->has_address ? who->address_length : ABSENT),
        .subject_length = (uint16_t)(who->has_subject ? who->subject_length : ABSENT),
        .time_ns = tw_now(),
        .client_id_full = (uint16_t)(who->id_length < UINT16_MAX ? who->id_length : UINT16_MAX),
        .port = who->port,
        .user_full = (uint32_t)who->user_length,
    };
    size_t bytes = id_stored + user_stored + (who->has_address ? who->address_length : 0) +
                   (who->has_subject ? who->subject_length : 0);
    struct writer writer = {.slot = {.type = TW_TYPE_MORE}};
    tw_ring_begin(1 + more_slots(bytes));
    tw_ring_slot(&slot);
    if(who->id) write_bytes(&writer, who->id, id_stored);
    if(who->user) write_bytes(&writer, who->user, user_stored);
    if(who->has_address) write_bytes(&writer, who->address, who->address_length);
    if(who->has_subject) write_bytes(&writer, who->subject, who->subject_length);
    write_end(&writer);
    tw_ring_commit();
    tw_ring.header->clients_announced++;
    return slot.id;
}

static uint32_t announce_topic(const char *topic, size_t length) {
    size_t stored = cut_length(topic, length, TW_NAME_MAX);
    if(stored < length) tw_ring.header->names_cut++;
    struct tw_topic slot = {
        .type = TW_TYPE_TOPIC, .id = next_id(), .stored = (uint32_t)stored, .full = (uint32_t)length,
        .time_ns = tw_now(),
    };
    struct writer writer = {.slot = {.type = TW_TYPE_MORE}};
    tw_ring_begin(1 + more_slots(stored));
    tw_ring_slot(&slot);
    write_bytes(&writer, topic, stored);
    write_end(&writer);
    tw_ring_commit();
    tw_ring.header->topics_announced++;
    return slot.id;
}

/* ---- topics ------------------------------------------------------------------------------------------------- */

uint32_t tw_topic_ring_id(const char *topic) {
    size_t length = strlen(topic);
    uint64_t hash = tw_hash(&hash_key, topic, length);
    struct topic_entry *set = topics[hash % TOPIC_SETS], *oldest = set;
    for(unsigned way = 0; way < TOPIC_WAYS; way++) {
        struct topic_entry *entry = &set[way];
        if(entry->hash == hash && entry->ring_id != 0 && entry->length == (uint32_t)length) {
            if(tw_ring.head - entry->position < tw_ring.keep) return entry->ring_id;
            oldest = entry;
            break;
        }
        if(entry->ring_id == 0) {
            oldest = entry;
            break;
        }
        if(entry->position < oldest->position) oldest = entry;
    }
    if(oldest->ring_id != 0 && oldest->hash != hash) tw_ring.header->topics_evicted++;
    oldest->hash = hash;
    oldest->position = tw_ring.head;
    oldest->length = (uint32_t)length;
    oldest->ring_id = announce_topic(topic, length);
    return oldest->ring_id;
}

/* ---- clients ------------------------------------------------------------------------------------------------ */

static struct client_way *client_set(const struct mosquitto *client) {
    uint64_t mixed = (uint64_t)(uintptr_t)client * 0x9e3779b97f4a7c15u;
    return client_sets[mixed >> 49];
}
_Static_assert(CLIENT_SETS == 1u << (64 - 49), "client_set takes the top bits");

static bool same_names(struct tw_client_entry *entry, const char *id, const char *user) {
    if((user != NULL) != entry->has_user) return false;
    if(entry->has_names)
        return strcmp(entry->names, id) == 0 && (!user || strcmp(entry->names + entry->id_length + 1, user) == 0);
    size_t id_length = strlen(id), user_length = user ? strlen(user) : 0;
    if(id_length != entry->id_length || user_length != entry->user_length) return false;
    /* Names may be 64 KiB: hash them only when they have moved; the head is compared always. */
    if(memcmp(entry->names, id, id_length < sizeof entry->names ? id_length : sizeof entry->names) != 0) return false;
    if(id == entry->id_at && user == entry->user_at) return true;
    if(digest_of(id, id_length, user, user_length) != entry->digest) return false;
    entry->id_at = id;
    entry->user_at = user;
    return true;
}

static struct tw_client_entry *entry_at(const struct mosquitto *client) {
    struct client_way *set = client_set(client);
    for(unsigned way = 0; way < CLIENT_WAYS; way++)
        if(set[way].context == client) return set[way].entry;
    return NULL;
}

struct tw_client_entry *tw_client_find(struct mosquitto *client) {
    const char *id = mosquitto_client_id(client);
    if(!id) return NULL;
    struct tw_client_entry *entry = last_client;
    if(!entry || entry->context != client) entry = entry_at(client);
    if(!entry || !same_names(entry, id, mosquitto_client_username(client))) return NULL;
    last_client = entry;
    return entry;
}

static struct tw_client_entry *entry_for(const struct mosquitto *client) {
    struct tw_client_entry *entry = entry_at(client);
    if(entry) return entry;
    struct client_way *set = client_set(client), *chosen = NULL;
    for(unsigned way = 0; way < CLIENT_WAYS; way++) {
        if(!set[way].context) {
            chosen = &set[way];
            break;
        }
        if(!chosen || set[way].entry->connected < chosen->entry->connected ||
           (set[way].entry->connected == chosen->entry->connected && set[way].entry->used < chosen->entry->used))
            chosen = &set[way];
    }
    if(chosen->context) {
        if(chosen->entry->connected) forgotten = true;
        tw_ring.header->clients_evicted++;
    } else {
        chosen->entry = &client_entries[clients_made++];    /* one per way ever used, so never more than there are */
    }
    chosen->context = client;
    return chosen->entry;
}

struct tw_client_entry *tw_client_new(const struct mosquitto *client, const struct tw_who *who,
                                      enum tw_identity identity) {
    struct tw_client_entry *entry = entry_for(client);
    memset(entry, 0, sizeof *entry);
    entry->context = client;
    entry->id_at = who->id_at;
    entry->user_at = who->user_at;
    entry->id_length = (uint32_t)who->id_length;
    entry->user_length = (uint32_t)who->user_length;
    entry->identity = (uint8_t)identity;
    entry->port = who->port;
    entry->connected = true;
    entry->has_user = who->user != NULL;
    entry->used = ++clock_used;
    entry->has_names = are_short(who->id_length, who->user_length);
    if(entry->has_names) {
        memcpy(entry->names, who->id, who->id_length);
        if(who->user) memcpy(entry->names + who->id_length + 1, who->user, who->user_length);
    } else {
        memcpy(entry->names, who->id, who->id_length < sizeof entry->names ? who->id_length : sizeof entry->names);
        entry->digest = who->digest;
    }
    entry->position = tw_ring.head;
    entry->ring_id = tw_client_announce(who, identity);
    last_client = entry;
    return entry;
}

static void announce_again(struct tw_client_entry *entry, struct mosquitto *client) {
    static struct tw_who who;
    tw_who_copy(&who, client);
    who.port = entry->port;
    entry->position = tw_ring.head;
    entry->ring_id = tw_client_announce(&who, (enum tw_identity)entry->identity);
    entry->used = ++clock_used;
}

uint32_t tw_client_ring_id(struct tw_client_entry *entry, struct mosquitto *client) {
    if(tw_ring.head - entry->position >= tw_ring.keep) announce_again(entry, client);
    return entry->ring_id;
}

void tw_client_moved(struct tw_client_entry *entry, struct mosquitto *client, uint16_t port) {
    if(entry->port == port) return;
    entry->port = port;
    announce_again(entry, client);
}
