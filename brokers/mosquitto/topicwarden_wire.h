/* The wire format between a broker-side plugin and its readers: a ring of 32-byte slots in a file on tmpfs.
 *
 * One producer, any number of readers. The producer overwrites the oldest slots and never looks at its readers, so
 * no reader can slow, block or mislead it, and readers need only read permission. A reader that falls behind more
 * than the ring holds sees that by `reserved` and counts what it lost by the events' sequence numbers.
 *
 * File: page 0 is struct tw_ring_header; slot i of the stream is at 4096 + 32 * (i mod slot_count).
 * Integers are little endian. The file is created under a temporary name with its full size and header, then renamed
 * into place, so a reader never maps a half-made one; a restarted broker makes a new file (another inode, another
 * `generation`).
 *
 * Producer, for a group of n slots:  reserved = head + n (store); release fence; write the slots; head = head + n
 * (release store). Reader: h = head (acquire); copy slots [position, h); acquire fence; r = reserved; every copied
 * slot with index < r - slot_count may be torn and is thrown away.
 *
 * Groups are written whole: a reader that sees a group's first slot sees all its TW_MORE slots.
 *
 * Identifiers: clients and topics share one counter, 1 and up, never reused while it matters (it wraps after 2^32
 * announcements, long after every older one has left the ring). An announcement gives the next identifier its
 * meaning. Every event refers only to identifiers announced within the last slot_count / 2 slots before it: when the
 * producer wants to use an older one it announces the name again under a new identifier. So a reader that starts
 * anywhere can resolve every event that is more than half a ring after its starting point. 0 means "none".
 */
#ifndef TOPICWARDEN_WIRE_H
#define TOPICWARDEN_WIRE_H

#include <stdint.h>

#define TW_RING_MAGIC "TWRING\r\n"      /* 8 bytes; the line ending shows a transfer that altered it */
#define TW_RING_VERSION 2               /* 1 had no ports and no counters of peers: zero there, as "not known" is here */
#define TW_RING_VERSION_OLDEST 1        /* what a reader of this version reads too */
#define TW_RING_DATA_OFFSET 4096
#define TW_SLOT_SIZE 32
#define TW_MORE_BYTES 31
#define TW_NAME_MAX 1024                /* longer names are announced cut to this, with their full length */

enum tw_type {
    TW_TYPE_NONE = 0,                   /* a slot never written */
    TW_TYPE_EVENT = 1,
    TW_TYPE_CLIENT = 2,                 /* announcement, followed by TW_MORE slots */
    TW_TYPE_TOPIC = 3,                  /* announcement, followed by TW_MORE slots */
    TW_TYPE_MORE = 4,
    TW_TYPE_MARK = 5                    /* something about the producer itself */
};

enum tw_action {                        /* the same numbers as topicwarden.events.Action */
    TW_ACTION_AUTHENTICATE = 1,
    TW_ACTION_CONNECT = 2,
    TW_ACTION_DISCONNECT = 3,
    TW_ACTION_PUBLISH = 4,
    TW_ACTION_SUBSCRIBE = 5,
    TW_ACTION_UNSUBSCRIBE = 6,
    TW_ACTION_DELIVER = 7
};

enum tw_outcome { TW_UNKNOWN = 0, TW_ALLOWED = 1, TW_DENIED = 2 };
enum tw_certainty { TW_CERTAINTY_UNKNOWN = 0, TW_INFERRED = 1, TW_EXACT = 2 };

enum tw_shape {
    TW_SHAPE_UNKNOWN = 0, TW_SHAPE_EMPTY = 1, TW_SHAPE_TEXT = 2, TW_SHAPE_JSON = 3, TW_SHAPE_BASE64 = 4,
    TW_SHAPE_HEX = 5, TW_SHAPE_BINARY = 6
};

enum tw_identity { TW_IDENTITY_UNKNOWN = 0, TW_IDENTITY_VERIFIED = 1, TW_IDENTITY_CLAIMED = 2, TW_IDENTITY_ANONYMOUS = 3 };

#define TW_DELIVERY_QOS_MASK 0x03u      /* 3 = not known */
#define TW_DELIVERY_RETAIN 0x04u
#define TW_DELIVERY_WILL 0x08u          /* a will, published for a client that is gone */
#define TW_DELIVERY_CONTROL 0x10u       /* addressed to $CONTROL */
#define TW_DELIVERY_BRIDGE 0x20u        /* accepted without an access check (a bridge) */

#define TW_ENTROPY_SCALE 8191           /* entropy = bits per byte * 8191, so 8 bits = 65528 */
#define TW_ENTROPY_UNKNOWN 65535

struct tw_event {
    uint8_t type;                       /* TW_TYPE_EVENT */
    uint8_t action;
    uint8_t verdict;                    /* outcome | certainty << 4 */
    uint8_t delivery;                   /* TW_DELIVERY_* */
    uint32_t client;
    uint32_t topic;                     /* 0: the event has none */
    uint32_t size;                      /* payload bytes */
    uint64_t time_ns;                   /* CLOCK_REALTIME */
    uint32_t sequence;                  /* +1 per event, wraps; starts at 0 in each generation */
    uint16_t entropy;
    uint8_t shape;
    uint8_t spare;
};

struct tw_client {                      /* then client id, user name, address, certificate subject, back to back */
    uint8_t type;                       /* TW_TYPE_CLIENT */
    uint8_t protocol_version;           /* 3 = MQTT 3.1, 4 = 3.1.1, 5 = 5.0 */
    uint8_t transport;                  /* 0 not known, 1 MQTT over a stream, 2 websockets */
    uint8_t identity;                   /* enum tw_identity */
    uint32_t id;
    uint16_t client_id_length;          /* bytes stored; 0xffff: the broker had none */
    uint16_t user_length;               /* 0xffff: no user name */
    uint16_t address_length;            /* 0xffff: not known */
    uint16_t subject_length;            /* 0xffff: not known */
    uint64_t time_ns;
    uint16_t client_id_full;            /* full lengths in bytes, before cutting to TW_NAME_MAX; MQTT has no longer id */
    uint16_t port;                      /* the peer's TCP port; 0: not known, or none (a unix socket) */
    uint32_t user_full;
};

struct tw_topic {                       /* then the name */
    uint8_t type;                       /* TW_TYPE_TOPIC */
    uint8_t spare[3];
    uint32_t id;
    uint32_t stored;                    /* bytes stored here, at most TW_NAME_MAX */
    uint32_t full;                      /* bytes of the whole name */
    uint64_t time_ns;
    uint64_t spare2;
};

struct tw_more {
    uint8_t type;                       /* TW_TYPE_MORE */
    uint8_t bytes[TW_MORE_BYTES];
};

enum tw_mark_code {
    TW_MARK_START = 1,                  /* first slot of a generation */
    TW_MARK_RELOAD = 2,                 /* the broker read its configuration again */
    TW_MARK_STOP = 3,                   /* the broker is stopping in an orderly way */
    TW_MARK_MODE = 4                    /* value: the new TW_MODE_* flags */
};

struct tw_mark {
    uint8_t type;                       /* TW_TYPE_MARK */
    uint8_t code;
    uint8_t spare[6];
    uint64_t value;
    uint64_t time_ns;
    uint64_t value2;
};

#define TW_MODE_DECISIONS 0x01u         /* access checks are observed; without it only accepted publishes are */
#define TW_MODE_AUTH 0x02u              /* logins are observed */
#define TW_MODE_DELIVER 0x04u           /* deliveries are recorded */
#define TW_MODE_ENTROPY 0x08u
#define TW_MODE_CONFIG_UNREADABLE 0x10u /* the broker's configuration could not be read: decisions left alone */
#define TW_MODE_OTHER_PLUGIN 0x20u      /* another plugin decides and we were not told how: decisions left alone */
#define TW_MODE_PER_LISTENER 0x40u      /* per_listener_settings is on */
#define TW_MODE_PEER_PORT 0x80u         /* ports of clients are looked up */
#define TW_MODE_ATTRIBUTE 0x100u        /* a helper is asked for the processes of clients on this machine */

struct tw_ring_header {
    char magic[8];
    uint32_t version;
    uint32_t slot_size;
    uint32_t slot_count;                /* a power of two, at least 1024 */
    uint32_t mode;                      /* TW_MODE_* */
    uint64_t generation;                /* random, never 0 */
    uint64_t started_ns;
    uint32_t pid;
    uint32_t plugin_version;            /* major << 16 | minor << 8 | patch */
    char broker_version[32];            /* NUL-padded; the headers' version the plugin was built with */
    uint8_t spare1[48];
    /* offset 128, a cache line of its own: moves all the time */
    uint64_t reserved;
    uint64_t head;
    uint8_t spare2[48];
    /* offset 192: moves now and then */
    uint64_t heartbeat_ns;              /* last time the broker's loop called us; 0: it never does (per listener) */
    uint64_t events;
    uint64_t topics_announced;
    uint64_t clients_announced;
    uint64_t topics_evicted;            /* the plugin's topic cache was full: announced again, nothing lost */
    uint64_t clients_evicted;
    uint64_t names_cut;
    uint64_t reloads;
    /* offset 256: about peers; since version 2 */
    uint64_t peers_unknown;             /* connections whose port was looked up in vain */
    uint64_t attributed;                /* the helper found the process */
    uint64_t attribution_unknown;       /* it answered, and found none */
    uint64_t attribution_late;          /* no answer in time */
    uint64_t attribution_absent;        /* nobody listened, or the connection to the helper broke */
    uint64_t attribution_skipped;       /* not asked: it was late too often, or too much time was spent waiting */
    uint8_t spare3[16];
};

_Static_assert(sizeof(struct tw_event) == TW_SLOT_SIZE, "event slot");
_Static_assert(sizeof(struct tw_client) == TW_SLOT_SIZE, "client slot");
_Static_assert(sizeof(struct tw_topic) == TW_SLOT_SIZE, "topic slot");
_Static_assert(sizeof(struct tw_more) == TW_SLOT_SIZE, "more slot");
_Static_assert(sizeof(struct tw_mark) == TW_SLOT_SIZE, "mark slot");
_Static_assert(sizeof(struct tw_ring_header) == 320, "ring header");

#endif
