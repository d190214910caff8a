/* What a helper that is missing, slow or hanging can cost the broker is bounded three times:
 *   one question waits at most plugin_opt_attribute_wait;
 *   after LATE_IN_A_ROW unanswered ones it is left alone for PAUSE_NS, then tried with a single one;
 *   all waiting together is at most ALLOWANCE_NS at once and one part in ALLOWANCE_SHARE of the time after that. */
#include "asking.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "broker_api.h"
#include "ring.h"

#define SECOND 1000000000ull
#define LATE_IN_A_ROW 3
#define PAUSE_NS (10 * SECOND)
#define RETRY_NS SECOND                 /* between two attempts to reach a helper that is not there */
#define ALLOWANCE_NS SECOND
#define ALLOWANCE_SHARE 4

static struct sockaddr_un place;
static uint64_t wait_ns;
static int helper = -1;
static uint32_t last_id;
static unsigned late_in_a_row;
static bool told_absent, told_late;     /* what the log has said, once until it is well again */
static uint64_t retry_at, paused_until;
static uint64_t allowance, refilled_at;

static uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

void tw_asking_setup(const char *socket_path, unsigned wait_ms) {
    memset(&place, 0, sizeof place);
    place.sun_family = AF_UNIX;
    memcpy(place.sun_path, socket_path, strnlen(socket_path, sizeof place.sun_path - 1));
    wait_ns = wait_ms * 1000000ull;
    late_in_a_row = 0;
    told_absent = told_late = false;
    retry_at = paused_until = 0;
    allowance = ALLOWANCE_NS;
    refilled_at = 0;
}

void tw_asking_close(void) {
    if(helper >= 0) close(helper);
    helper = -1;
}

static void absent(uint64_t now) {
    tw_asking_close();
    retry_at = now + RETRY_NS;
    tw_ring.header->attribution_absent++;
    if(told_absent) return;
    told_absent = true;
    mosquitto_log_printf(MOSQ_LOG_WARNING,
                         "topicwarden: nobody answers at %s, so processes are not looked up; it is tried again once a "
                         "second. topicwarden watch starts topicwarden-attribute there",
                         place.sun_path);
}

static void late(uint64_t now) {
    tw_ring.header->attribution_late++;
    if(late_in_a_row < LATE_IN_A_ROW) late_in_a_row++;
    if(late_in_a_row < LATE_IN_A_ROW) return;
    paused_until = now + PAUSE_NS;
    if(told_late) return;
    told_late = true;
    mosquitto_log_printf(MOSQ_LOG_WARNING,
                         "topicwarden: the helper at %s does not answer in time, so it is left alone and tried again "
                         "every 10 s",
                         place.sun_path);
}

/* Both ends are on this machine and the socket does not wait, so this takes no time, whoever listens or does not. */
static bool reach(void) {
    if(helper >= 0) return true;
    helper = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return helper >= 0 && connect(helper, (const struct sockaddr *)&place, sizeof place) == 0;
}

/* Waits for the answer to `id`, passing over late ones to earlier questions. 1: it came, 0: not in time, -1: broken. */
static int await(uint32_t id, uint64_t deadline, struct tw_attribute_answer *answer) {
    for(;;) {
        ssize_t size = recv(helper, answer, sizeof *answer, MSG_DONTWAIT | MSG_TRUNC);
        if(size == (ssize_t)sizeof *answer && answer->version == TW_ATTRIBUTE_VERSION) {
            if(answer->id == id) return 1;
        } else if(size >= 0 || (errno != EAGAIN && errno != EINTR)) {
            return -1;
        }
        uint64_t now = monotonic_ns();
        if(now >= deadline) return 0;
        if(size >= 0) continue;
        struct timespec left = {.tv_sec = (time_t)((deadline - now) / SECOND), .tv_nsec = (long)((deadline - now) % SECOND)};
        struct pollfd polled = {helper, POLLIN, 0};
        if(ppoll(&polled, 1, &left, NULL) < 0 && errno != EINTR) return -1;
    }
}

void tw_ask(struct tw_attribute_request *request) {
    uint64_t begin = monotonic_ns();
    uint64_t refill = refilled_at ? (begin - refilled_at) / ALLOWANCE_SHARE : 0;
    allowance = refill >= ALLOWANCE_NS - allowance ? ALLOWANCE_NS : allowance + refill;
    refilled_at = begin;
    if(begin < paused_until || allowance < wait_ns) {
        tw_ring.header->attribution_skipped++;
        return;
    }
    if(helper < 0 && begin < retry_at) {
        tw_ring.header->attribution_absent++;
        return;
    }
    if(!reach()) {
        absent(begin);
        return;
    }
    request->version = TW_ATTRIBUTE_VERSION;
    request->id = ++last_id;
    struct tw_attribute_answer answer;
    ssize_t sent = send(helper, request, sizeof *request, MSG_DONTWAIT | MSG_NOSIGNAL);
    if(sent < 0 && errno == EAGAIN) {   /* it reads nothing: waiting would be in vain */
        late(begin);
        return;
    }
    int came = sent < 0 ? -1 : await(request->id, begin + wait_ns, &answer);
    uint64_t end = monotonic_ns();
    uint64_t spent = end - begin;
    allowance = spent < allowance ? allowance - spent : 0;
    if(came < 0) {
        absent(end);
        return;
    }
    if(came == 0) {
        late(end);
        return;
    }
    late_in_a_row = 0;
    told_absent = told_late = false;
    if(answer.result == TW_ATTRIBUTE_FOUND) tw_ring.header->attributed++;
    else tw_ring.header->attribution_unknown++;
}
