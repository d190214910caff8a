/* Finds the process at the other end of a connection, in bounded time. */
#ifndef TOPICWARDEN_ATTRIBUTE_FIND_H
#define TOPICWARDEN_ATTRIBUTE_FIND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "attribute_wire.h"

struct tw_found {
    uint32_t socket_user;               /* who made the client's socket; TW_ATTRIBUTE_NOBODY: not known */
    uint32_t pid;
    int process;                        /* O_PATH of /proc/PID: never of another process; -1: none. The caller closes it */
    char path[108];                     /* of a unix socket the broker's path, "" when it has none */
};

/* Opens what is needed; false with errno set when the kernel does not give it. */
bool tw_find_setup(void);

/* Looks only at connections whose broker's end was made by `asking`. */
enum tw_attribute_result tw_find(const struct tw_attribute_request *request, uid_t asking, struct tw_found *found);

#endif
