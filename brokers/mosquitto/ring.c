#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

struct tw_ring tw_ring;

static uint64_t random64(void) {
    uint64_t value = 0;
    while(value == 0) {
        if(getrandom(&value, sizeof value, GRND_NONBLOCK) != (ssize_t)sizeof value)
            value = tw_now() ^ ((uint64_t)getpid() << 32); /* early boot: uniqueness is enough for a generation */
    }
    return value;
}

static void fill_header(struct tw_ring_header *header, uint32_t slot_count, uint32_t plugin_version,
                        const char *broker_version) {
    memcpy(header->magic, TW_RING_MAGIC, sizeof header->magic);
    header->version = TW_RING_VERSION;
    header->slot_size = TW_SLOT_SIZE;
    header->slot_count = slot_count;
    header->generation = random64();
    header->started_ns = tw_now();
    header->pid = (uint32_t)getpid();
    header->plugin_version = plugin_version;
    snprintf(header->broker_version, sizeof header->broker_version, "%s", broker_version);
}

const char *tw_ring_create(const char *path, uint32_t slot_count, unsigned mode, uint32_t plugin_version,
                           const char *broker_version) {
    char temporary[4096];
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    int length = snprintf(temporary, sizeof temporary, "%.*s.%s.%ld.%08x", folder, path, path + folder, (long)getpid(),
                          (unsigned)(random64() & 0xffffffffu));
    if(length < 0 || (size_t)length >= sizeof temporary) {
        errno = ENAMETOOLONG;
        return "name it";
    }
    size_t size = TW_RING_DATA_OFFSET + (size_t)slot_count * TW_SLOT_SIZE;
    int file = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if(file < 0) return "create it";

    const char *failed = NULL;
    void *map = MAP_FAILED;
    /* Not ftruncate: on a full tmpfs a sparse file would kill the broker with SIGBUS at the first write. */
    int error = posix_fallocate(file, 0, (off_t)size);
    if(error != 0) {
        errno = error;
        failed = "reserve its space";
    } else if(fchmod(file, (mode_t)mode) != 0) {
        failed = "set its mode";
    } else {
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
        if(map == MAP_FAILED) failed = "map it";
    }
    if(!failed) {
        fill_header(map, slot_count, plugin_version, broker_version);
        if(rename(temporary, path) != 0) failed = "rename it into place";
    }
    error = errno;
    if(failed) {
        unlink(temporary);
        if(map != MAP_FAILED) munmap(map, size);
    }
    close(file);
    errno = error;
    if(failed) return failed;

    memset(&tw_ring, 0, sizeof tw_ring);
    tw_ring.header = map;
    tw_ring.slots = (uint8_t *)map + TW_RING_DATA_OFFSET;
    tw_ring.mapped = size;
    tw_ring.mask = slot_count - 1u;
    tw_ring.next_id = 1;
    /* Half the ring is the promise; what lies between a look-up and its event (two announcements and a few events)
     * must still fit. */
    uint32_t margin = slot_count / 8 < 4096 ? slot_count / 8 : 4096;
    if(margin < 256) margin = 256;
    tw_ring.keep = slot_count / 2 - margin;
    tw_ring_mark(TW_MARK_START, tw_ring.header->generation);
    return NULL;
}

void tw_ring_mark(enum tw_mark_code code, uint64_t value) {
    if(!tw_ring.header) return;
    struct tw_mark mark = {
        .type = TW_TYPE_MARK, .code = (uint8_t)code, .value = value, .time_ns = tw_now(),
    };
    tw_ring_begin(1);
    tw_ring_slot(&mark);
    tw_ring_commit();
}

void tw_ring_publish_counters(void) {
    if(tw_ring.header) __atomic_store_n(&tw_ring.header->events, tw_ring.events, __ATOMIC_RELAXED);
}

void tw_ring_close(void) {
    if(!tw_ring.header) return;
    tw_ring_publish_counters();
    tw_ring_mark(TW_MARK_STOP, tw_ring.events);
    munmap(tw_ring.header, tw_ring.mapped);
    memset(&tw_ring, 0, sizeof tw_ring);
}
