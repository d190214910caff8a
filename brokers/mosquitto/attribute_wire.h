/* What goes between the plugin, the helper topicwarden-attribute, and topicwarden.
 *
 * Plugin and helper talk over a unix socket of type SOCK_SEQPACKET, one request or answer a packet; integers are the
 * machine's own, addresses and nothing else in network order. The helper writes to its standard output, a pipe, one
 * record after another: little endian, a struct tw_attribute_record and then its five texts back to back.
 */
#ifndef TOPICWARDEN_ATTRIBUTE_WIRE_H
#define TOPICWARDEN_ATTRIBUTE_WIRE_H

#include <stdint.h>

#define TW_ATTRIBUTE_VERSION 1
#define TW_ATTRIBUTE_MAGIC 0x4f485754u  /* "TWHO" */
#define TW_ATTRIBUTE_PATH_MAX 4096
#define TW_ATTRIBUTE_COMMAND_MAX (256 * 1024)
#define TW_ATTRIBUTE_CGROUP_MAX 4096

enum tw_attribute_family { TW_FAMILY_UNIX = 1, TW_FAMILY_IPV4 = 4, TW_FAMILY_IPV6 = 6 };

/* "Whose is the other end of this connection?" Nothing in it is a path, a size or a number of bytes. */
struct tw_attribute_request {
    uint32_t version;
    uint32_t id;                        /* comes back in the answer */
    uint8_t family;                     /* enum tw_attribute_family; an IPv4 address mapped into IPv6 goes as IPv4 */
    uint8_t spare[3];
    uint32_t scope;                     /* of link-local addresses */
    uint16_t client_port, broker_port;  /* 0 for a unix socket */
    uint32_t pid;                       /* of a unix socket: who connected it, a hint where to look first */
    uint64_t inode;                     /* of a unix socket: the broker's own end */
    uint8_t client_address[16], broker_address[16];
};

enum tw_attribute_result {
    TW_ATTRIBUTE_FOUND = 0,
    TW_ATTRIBUTE_NO_CONNECTION = 1,     /* no such connection, or its other end is not the asking user's */
    TW_ATTRIBUTE_NO_PROCESS = 2,        /* no process has it, or none of the user it belongs to */
    TW_ATTRIBUTE_OUT_OF_TIME = 3,       /* the search was given up */
    TW_ATTRIBUTE_GONE = 4               /* the process ended while it was read */
};

struct tw_attribute_answer {
    uint32_t version;
    uint32_t id;
    uint32_t pid;                       /* 0: not found */
    uint32_t result;                    /* enum tw_attribute_result */
};

enum tw_attribute_kind {
    TW_ATTRIBUTE_READY = 1,             /* the first record: the socket is there. No texts */
    TW_ATTRIBUTE_CONNECTION = 2
};

#define TW_ATTRIBUTE_CUT 0x01u          /* the command line is longer */
#define TW_ATTRIBUTE_NOBODY 0xffffffffu /* a user or login user that is not known */

struct tw_attribute_record {
    uint32_t magic;
    uint32_t size;                      /* bytes of the whole record */
    uint16_t version;
    uint8_t kind;                       /* enum tw_attribute_kind */
    uint8_t result;                     /* enum tw_attribute_result; a process is told only with FOUND */
    uint8_t family;                     /* enum tw_attribute_family */
    uint8_t flags;                      /* TW_ATTRIBUTE_CUT */
    uint16_t client_port, broker_port;
    uint16_t spare;
    uint32_t pid, parent_pid;           /* 0: not known */
    uint32_t socket_user;               /* who made the client's socket */
    uint64_t time_ns;                   /* CLOCK_REALTIME */
    uint64_t start_ticks;               /* tells processes of one number apart: clock ticks from boot to its start */
    uint64_t dropped;                   /* records that had no room in the pipe so far */
    uint32_t user, login_user;          /* the process's real user, and who logged in */
    int32_t terminal;                   /* device number of its terminal; 0: none */
    uint8_t client_address[16], broker_address[16];     /* of IPv4 the first four bytes */
    uint32_t executable_length, parent_executable_length;
    uint32_t command_length;            /* arguments, each ended by a zero byte, as the process has them now */
    uint32_t cgroup_length;
    uint32_t path_length;               /* of a unix socket: the broker's, as the kernel has it */
};

_Static_assert(sizeof(struct tw_attribute_request) == 64, "request");
_Static_assert(sizeof(struct tw_attribute_answer) == 16, "answer");
_Static_assert(sizeof(struct tw_attribute_record) == 120, "record");

#endif
