/* The producer's side of the ring; topicwarden_wire.h says what readers may rely on. Single-threaded, like the broker. */
#ifndef TOPICWARDEN_RING_H
#define TOPICWARDEN_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "topicwarden_wire.h"

struct tw_ring {
    struct tw_ring_header *header;      /* NULL: no ring, and then nothing below may be used */
    uint8_t *slots;
    size_t mapped;
    uint64_t head;
    uint64_t mask;                      /* slot_count - 1 */
    uint64_t keep;                      /* an announcement older than this many slots is made again */
    uint64_t events;
    uint32_t next_id;
    uint32_t sequence;
};

extern struct tw_ring tw_ring;

/* Makes the file under a temporary name beside `path` and renames it into place. Returns NULL, or what failed (a
 * static text) with errno set. */
const char *tw_ring_create(const char *path, uint32_t slot_count, unsigned mode, uint32_t plugin_version,
                           const char *broker_version);
void tw_ring_mark(enum tw_mark_code code, uint64_t value);
/* Copies the counters that move with every event into the header. */
void tw_ring_publish_counters(void);
/* Writes the last mark and lets go of the mapping; the file stays for readers to finish. */
void tw_ring_close(void);

static inline uint64_t tw_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Begins a group of `count` slots. No reader is waited for: the oldest slots are overwritten. */
static inline void tw_ring_begin(uint64_t count) {
    __atomic_store_n(&tw_ring.header->reserved, tw_ring.head + count, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void tw_ring_slot(const void *slot) {
    memcpy(tw_ring.slots + (tw_ring.head & tw_ring.mask) * TW_SLOT_SIZE, slot, TW_SLOT_SIZE);
    tw_ring.head++;
}

static inline void tw_ring_commit(void) {
    __atomic_store_n(&tw_ring.header->head, tw_ring.head, __ATOMIC_RELEASE);
}

/* Gives the event its sequence number and writes it. */
static inline void tw_ring_event(struct tw_event *event) {
    event->type = TW_TYPE_EVENT;
    event->sequence = tw_ring.sequence++;
    tw_ring_begin(1);
    tw_ring_slot(event);
    tw_ring_commit();
    /* The ring is larger than the caches: have the line after next there by the time it is written. */
    __builtin_prefetch(tw_ring.slots + ((tw_ring.head + 4) & tw_ring.mask) * TW_SLOT_SIZE, 1);
    if((++tw_ring.events & 0xff) == 0) tw_ring_publish_counters();
}

#endif
